"""Wine with a fifth of its values missing: a circuit learns from what is there, and completes the table.

Fit it with `ugmm-ppl fit models/wine_impute.py --backend numpyro`; then `up.load(...).impute(x, n)` gives n completed
copies. The values that were taken away are in `hidden`.
"""

import numpy as np
from sklearn.datasets import load_wine
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def hidden(x: np.ndarray, share: float = 0.2, seed: int = 0) -> np.ndarray:
    """The same rows with that share of their values missing."""
    return np.where(np.random.default_rng(seed).uniform(size=x.shape) < share, np.nan, x)


def data(split: int = 0) -> up.Data:
    """Stratified 75/25 split, the one with this number, both parts with missing values."""
    wine = load_wine()
    x, x_test, y, y_test = train_test_split(
        wine.data, wine.target, test_size=0.25, stratify=wine.target, random_state=split
    )
    names = list(wine.feature_names)
    return up.Data(hidden(x), y, hidden(x_test, seed=1), y_test, names, list(wine.target_names))


model = up.Circuit(13, classes=3, structure=up.random_trees(13, 4), neurons=4, components=1)

settings = {"method": "em", "num_steps": 60, "learning_rate": 1.0, "schedule": "constant", "seed": 0}
