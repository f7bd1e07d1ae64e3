"""Digits: ten classes from the edges of 8 x 8 grey pixels.

A neuron has one bump per input, so it matters what the inputs are: differences of neighbouring pixels, which say where
the strokes begin and end, generalise better than the pixels themselves. Fit it with
`ugmm-ppl fit models/digits_classifier.py --backend numpyro`.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def edges(images: np.ndarray) -> np.ndarray:
    """Differences to the right and the lower neighbour, 0 beyond the margin: `(B, 8, 8)` to `(B, 128)`."""
    padded = np.pad(images, ((0, 0), (0, 1), (0, 1)))
    right, down = (padded[:, :-1, 1:] - images, padded[:, 1:, :-1] - images)
    return np.concatenate([right.reshape(-1, 64), down.reshape(-1, 64)], axis=1)


def data(split: int = 0) -> up.Data:
    """Stratified 75/25 split, the one with this number; pixels in [0, 1], so differences in [-1, 1]."""
    digits = load_digits()
    x, x_test, y, y_test = train_test_split(
        edges(digits.images / 16.0), digits.target, test_size=0.25, stratify=digits.target, random_state=split
    )
    names = [f"{side}_{row}_{column}" for side in ("right", "down") for row in range(8) for column in range(8)]
    return up.Data(x, y, x_test, y_test, feature_names=names)


model = up.Classifier(
    up.Network(sizes=(128, 64), dropout=0.3),
    classes=10,
    prior=up.Prior(loc=up.dist.Normal(0.0, 0.7), readout=up.dist.Normal(0.0, 1.0)),
)

# Three MAP estimates, averaged: mean-field SVI at temperature 1 gives most of the 25,000 parameters back to the prior.
settings = {
    "method": "map", "num_restarts": 3, "num_steps": 2000, "batch_size": 256, "learning_rate": 0.02,
    "standardize": False, "seed": 0,
}  # fmt: skip
