"""MNIST: ten classes from 28 x 28 grey pixels.

Reads `$UGMM_PPL_DATA/mnist.npz` (keys x_train, y_train, x_test, y_test); without that variable it fetches the data
with scikit-learn. Fit it with `ugmm-ppl fit models/mnist_classifier.py --backend numpyro`.
"""

import os
from pathlib import Path

import numpy as np

import ugmm_ppl as up


def data() -> up.Data:
    """The usual 60,000 / 10,000 split, pixels in [0, 1]."""
    folder = os.environ.get("UGMM_PPL_DATA")
    if folder:
        with np.load(Path(folder) / "mnist.npz", allow_pickle=False) as file:
            x, y, x_test, y_test = (file[key] for key in ("x_train", "y_train", "x_test", "y_test"))
    else:
        from sklearn.datasets import fetch_openml

        pixels, labels = fetch_openml("mnist_784", version=1, as_frame=False, return_X_y=True)
        x, x_test, y, y_test = pixels[:60000], pixels[60000:], labels[:60000], labels[60000:]
    x, x_test = (a.reshape(len(a), 784) / 255.0 for a in (x, x_test))
    return up.Data(x, y.astype(int), x_test, y_test.astype(int))


model = up.Classifier(up.Network(sizes=(784, 128, 64)), classes=10, prior=up.Prior(readout=up.dist.Normal(0.0, 1.0)))

# Pixels share one unit, so they are standardised by one mean and scale, not column by column.
settings = {
    "method": "map", "num_steps": 3750, "batch_size": 128, "learning_rate": 0.05, "standardize": "jointly", "seed": 0,
}  # fmt: skip
