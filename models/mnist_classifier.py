"""MNIST: ten classes from 28 x 28 grey pixels.

A neuron has one bump per pixel, so it does not know that a digit may stand a pixel further left: the training rows are
there five times, as they are and shifted by one pixel in each direction.

Reads `$UGMM_PPL_DATA/mnist.npz` (keys x_train, y_train, x_test, y_test); without that variable it fetches the data
with scikit-learn. Fit it with `ugmm-ppl fit models/mnist_classifier.py --backend numpyro`.
"""

import os
from pathlib import Path

import numpy as np

import ugmm_ppl as up


def data() -> up.Data:
    """The usual 60,000 / 10,000 split, pixels in [-1, 1], and four shifted copies of the training rows after them."""
    folder = os.environ.get("UGMM_PPL_DATA")
    if folder:
        with np.load(Path(folder) / "mnist.npz", allow_pickle=False) as file:
            x, y, x_test, y_test = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    else:
        from sklearn.datasets import fetch_openml

        pixels, labels = fetch_openml("mnist_784", version=1, as_frame=False, return_X_y=True)
        x, x_test, y, y_test = pixels[:60000], pixels[60000:], labels[:60000], labels[60000:]
    images = x.reshape(-1, 28, 28)
    x = np.concatenate([images, *(np.roll(images, shift, (1, 2)) for shift in ((1, 0), (-1, 0), (0, 1), (0, -1)))])
    x, x_test = (a.reshape(len(a), 784).astype(np.float32) / 127.5 - 1.0 for a in (x, x_test))
    return up.Data(x, np.tile(y.astype(int), 5), x_test, y_test.astype(int))


model = up.Classifier(
    up.Network(sizes=(784, 128, 64), initial="paper", dropout=(0.1, 0.0)),
    classes=10,
    prior=up.Prior(readout=up.dist.Normal(0.0, 1.0)),
)

settings = {
    "method": "map", "num_steps": 9375, "batch_size": 256, "learning_rate": 0.03, "standardize": False, "seed": 0,
}  # fmt: skip
