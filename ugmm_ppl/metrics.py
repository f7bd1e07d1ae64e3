"""Quality of predictions, from plain arrays."""

from __future__ import annotations

from typing import Any

import numpy as np

from ugmm_ppl.prediction import ClassPrediction, RegressionPrediction


def accuracy(probs: np.ndarray, y: np.ndarray) -> float:
    """Share of rows whose most probable class is y; probs `(B, classes)`, y `(B,)`."""
    return float(np.mean(probs.argmax(-1) == y))


def reliability(probs: np.ndarray, y: np.ndarray, bins: int = 10) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, accuracy and share of rows by bin of the top probability, `(bins,)` each; NaN if empty."""
    confidence, correct = probs.max(-1), probs.argmax(-1) == y
    which = np.minimum((confidence * bins).astype(int), bins - 1)
    count = np.bincount(which, minlength=bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, confidence, bins) / count
        right = np.bincount(which, correct, bins) / count
    return mean, right, count / len(y)


def expected_calibration_error(probs: np.ndarray, y: np.ndarray, bins: int = 10) -> float:
    """ECE: sum over bins of share |accuracy - confidence|. Source: Guo et al. 2017, arXiv:1706.04599, equation (3)."""
    mean, right, share = reliability(probs, y, bins)
    return float(np.nansum(share * np.abs(right - mean)))


def rmse(mean: np.ndarray, y: np.ndarray) -> float:
    """Root mean squared error in the units of y."""
    return float(np.sqrt(np.mean((mean - y) ** 2)))


def coverage(prediction: RegressionPrediction, y: np.ndarray, level: float = 0.9) -> float:
    """Share of rows whose y lies in the central interval of the given probability."""
    u = prediction.cdf(y)
    return float(np.mean((u >= 0.5 - level / 2) & (u <= 0.5 + level / 2)))


def evaluate(prediction: Any, y: np.ndarray) -> dict[str, float]:
    """The metrics of a run: mean log likelihood in nats per row, and accuracy and ECE, or RMSE and 90 % coverage."""
    result = {"log_likelihood": float(prediction.log_density(y).mean())}
    if isinstance(prediction, ClassPrediction):
        return result | {
            "accuracy": accuracy(prediction.probs, y),
            "ece": expected_calibration_error(prediction.probs, y),
        }
    return result | {"rmse": rmse(prediction.mean, y), "coverage_90": coverage(prediction, y)}
