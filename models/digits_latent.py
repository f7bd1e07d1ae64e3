"""Digits by a latent network: a class, 24 latent variables with three components each, and 64 pixels below them.

Pixels are dequantised and brought to the real line, z = logit(0.05 + 0.9 (pixel + u) / 17). Fit it with
`ugmm-ppl fit models/digits_latent.py --backend numpyro`.
"""

import numpy as np
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def to_real(pixels: np.ndarray, seed: int = 0) -> np.ndarray:
    """Pixels 0..16 on the real line; the seed is that of the noise."""
    inside = 0.05 + 0.9 * (pixels + np.random.default_rng(seed).uniform(size=pixels.shape)) / 17.0
    return np.log(inside) - np.log1p(-inside)


def to_pixels(z: np.ndarray) -> np.ndarray:
    """The inverse of `to_real`, without the noise: numbers in [0, 17]."""
    return np.clip(17.0 * (1.0 / (1.0 + np.exp(-z)) - 0.05) / 0.9, 0.0, 17.0)


def data(split: int = 0) -> up.Data:
    """Stratified 80/20 split, the one with this number."""
    digits = load_digits()
    x, x_test, y, y_test = train_test_split(
        to_real(digits.data), digits.target, test_size=0.2, stratify=digits.target, random_state=split
    )
    return up.Data(x, y, x_test, y_test, feature_names=list(digits.feature_names))


model = up.LatentNetwork((24, 64), classes=10, components=3, encoder_widths=(128,))

settings = {"method": "map", "num_steps": 3000, "batch_size": 128, "learning_rate": 0.01, "seed": 0}
