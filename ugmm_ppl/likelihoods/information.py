"""Fisher information of y about the outputs, where a family has no closed form of its own."""

from __future__ import annotations

import numpy as np

from ugmm_ppl.likelihoods.law import Law, Lawful
from ugmm_ppl.typing import Outputs, PerLevel, RowDraws, RowMatrices

TAIL = 1e-13
"""Probability of the outcomes that are left out at either end."""

LEVELS = np.array([0.0, 1e-13, 1e-10, 1e-8, 1e-6, 1e-4, 1e-3, 0.01, 0.05, 0.15, 0.3, 0.5])
"""Levels of quantiles, and of those from the other end, between which a score is smooth."""

MOST_OUTCOMES = 2000
"""Whole numbers in a sum; of a wider distribution only each second or third, and so on, is taken for its neighbours."""

STEP = 1e-5
"""Of the differences, in units of the outputs or of their size where that is larger."""


def information(likelihood: Lawful, outputs: Outputs) -> RowMatrices:
    """E[s s^T] with s = d log p(y | outputs) / d outputs, for complete outputs `(B, P)`: `(B, P, P)`.

    A sum over outcomes, or Gauss-Legendre quadrature over levels of quantiles; the score by central differences. Extra
    columns are no variables: zero.
    """
    outputs = outputs.astype(np.float64)
    here = outputs[:, None]
    law = likelihood.given(here)
    if law.discrete:
        y, counts = _outcomes(law)
        mass = counts * np.exp(likelihood.log_prob(here, y))
    else:
        levels, mass = _levels()
        y = law.quantile(levels)
    scores = []
    for i in range(outputs.shape[1] - len(likelihood.extras)):
        moved = np.zeros(outputs.shape)
        moved[:, i] = STEP * np.maximum(1.0, np.abs(outputs[:, i]))
        above, below = (likelihood.log_prob(here + sign * moved[:, None], y) for sign in (1.0, -1.0))
        with np.errstate(invalid="ignore"):  # of outcomes that are impossible, and count nothing
            score = (above - below) / (2.0 * moved[:, i, None])
        scores.append(np.where(np.isfinite(score), score, 0.0))
    score = np.stack([*scores, *[np.zeros(y.shape)] * len(likelihood.extras)], -1)
    return np.swapaxes(score * mass[..., None], 1, 2) @ score


def _outcomes(law: Law) -> tuple[RowDraws, RowDraws]:
    """Outcomes `(B, Q)` of a law `(B, 1)`, and how many whole numbers each stands for; 0 stands for itself."""
    low, high = (np.maximum(law.quantile(np.array(level)), 1.0) for level in (TAIL, 1.0 - TAIL))
    step = np.maximum(1.0, np.ceil((high - low + 1.0) / MOST_OUTCOMES))
    first = low + step * np.arange(int(((high - low) // step).max()) + 1)
    y = first + np.floor(0.5 * (step - 1.0))
    zero = np.zeros(low.shape)
    return np.concatenate([zero, y], -1), np.concatenate([zero + 1.0, np.where(first <= high, step, 0.0)], -1)


def _levels() -> tuple[PerLevel, PerLevel]:
    """Nodes and masses of a quadrature over (0, 1)."""
    points = np.concatenate([LEVELS, 1.0 - LEVELS[-2::-1]])
    nodes, masses = np.polynomial.legendre.leggauss(8)
    half = 0.5 * np.diff(points)[:, None]
    return (points[:-1, None] + half * (1.0 + nodes)).ravel(), (half * masses).ravel()
