"""Make the picture of docs/latent.md from a real fit: `python docs/make_latent_pictures.py BACKEND`.

BACKEND is numpyro or pyro. Writes docs/images/latent_digits.png, of models/digits_latent.py: samples of every class,
test digits, and their reconstructions from z.
"""

import sys

import numpy as np
from make_circuit_pictures import IMAGES, ROOT, tiles

import ugmm_ppl as up
from ugmm_ppl.cli.run import load_model_file


def digits(backend: str) -> None:
    """Samples by class, and test digits with the mean of the data given what they say of z."""
    file = load_model_file(ROOT / "models" / "digits_latent.py")
    data = file.data()
    fit = up.fit(file.model, data.x, data.y, progress=False, backend=backend, **file.settings)
    samples = np.stack([fit.sample(4, label, seed=label) for label in range(10)], axis=1)
    first = np.array([np.flatnonzero(data.y_test == label)[0] for label in range(10)])
    rows = [("samples" if i == 0 else "", images) for i, images in enumerate(samples)]
    rows += [("test digit", data.x_test[first]), ("reconstruction", fit.reconstruct(data.x_test[first]))]
    tiles([(name, file.to_pixels(images)) for name, images in rows], IMAGES / "latent_digits.png")


if __name__ == "__main__":
    digits(sys.argv[1])
