"""Standardisation: mean and spread of columns, and values as a model sees them."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.checks.basic import row_blocks
from ugmm_ppl.typing import PerFeature, PerRow, Rows

SAFE = (1e-140, 1e140)
"""Spreads whose squares, and sums of these, are within the range of float64."""


@dataclasses.dataclass(frozen=True)
class Standardizer:
    """Mean and standard deviation of each column, to standardise with and to restore.

    Attributes:
        mean: `(K,)`, or `()` for targets and for columns taken jointly.
        scale: `(K,)` or `()`; 1 where the data have no variance.
    """

    mean: PerFeature
    scale: PerFeature

    @classmethod
    def of(cls, a: Rows, *, jointly: bool = False, weights: PerRow | None = None) -> Standardizer:
        """The constants of training data `(B, K)` or `(B,)`, NaN left out; `jointly` takes all columns as one.

        They are float64, and so are the sums behind them, whatever the dtype of the data.
        """
        if jointly:
            weights = None if weights is None else np.repeat(weights, a.shape[1])
            a = a.ravel()
        constant = no_variance(a)
        with np.errstate(over="ignore", invalid="ignore", under="ignore"):
            mean, std = moments(a, weights)
        lost = ~np.isfinite(mean) | ~(constant | ((std > SAFE[0]) & (std < SAFE[1])))
        if lost.any():
            mean, std = np.array(mean), np.array(std)
            mean[lost], std[lost] = scaled_moments(a[..., lost], weights)
        return cls(mean, np.where(constant, 1.0, std))

    def standardize(self, a: Rows, dtype: Any = np.float64) -> Rows:
        """(a - mean) / scale, computed in float64; as numbers of `dtype`, or of the dtype of a if that is wider."""
        result = np.empty(a.shape, np.result_type(a.dtype, dtype))
        for rows in row_blocks(a):
            centred = np.subtract(a[rows], self.mean, dtype=np.float64)
            np.divide(centred, self.scale, out=result[rows], casting="same_kind")
        return result

    def restore(self, a: Rows) -> Rows:
        """mean + scale a, in float64."""
        return self.mean + np.multiply(self.scale, a, dtype=np.float64)


def moments(a: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of each column in float64, NaN left out, `(B, K)` to `(K,)` each.

    Of float64 they are NumPy's own. Of what has fewer digits they are taken a block at a time, without a copy of all.
    """
    if weights is not None:
        return _weighted_moments(a, weights)
    if a.dtype == np.float64:
        return (np.nanmean(a, 0), np.nanstd(a, 0)) if np.isnan(a).any() else (a.mean(0), a.std(0))
    count = sum(np.sum(~np.isnan(a[rows]), 0) for rows in row_blocks(a))
    mean = sum(np.nansum(a[rows], 0, dtype=np.float64) for rows in row_blocks(a)) / count
    rest, squares = np.zeros_like(mean), np.zeros_like(mean)
    for rows in row_blocks(a):
        centred = np.subtract(a[rows], mean, dtype=np.float64)
        rest += np.nansum(centred, 0)
        squares += np.nansum(centred * centred, 0)
    return mean, np.sqrt((squares - rest * rest / count) / count)


def scaled_moments(a: np.ndarray, weights: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
    """The same for columns whose sums or squares are beyond the range of float64, by way of a power of two."""
    _, exponent = np.frexp(np.fmax(np.fmax.reduce(a, 0), -np.fmin.reduce(a, 0)))
    mean, std = moments(np.ldexp(a, -exponent), weights)
    return np.ldexp(mean, exponent), np.ldexp(std, exponent)


def _weighted_moments(a: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of columns whose rows count `weights` `(B,)` times, NaN left out."""
    seen = ~np.isnan(a)
    share = np.where(seen, weights.reshape(-1, *[1] * (a.ndim - 1)), 0.0)
    share /= share.sum(0)
    mean = (share * np.where(seen, a, 0.0)).sum(0)
    return mean, np.sqrt((share * np.where(seen, a - mean, 0.0) ** 2).sum(0))


def repeated(x: Rows, weights: np.ndarray | None = None) -> Rows:
    """Rows `(B, K)`, each as often as it counts: exactly for whole weights, else in proportion and B in all."""
    if weights is None:
        return x
    total = float(weights.sum())
    whole = total <= budgets.REPEATED_ROWS and bool(np.all(weights == np.round(weights)))
    count = round(total) if whole else len(x)
    return x[np.searchsorted(np.cumsum(weights), (np.arange(count) + 0.5) * (total / count), side="right")]


def as_seen(
    a: np.ndarray, units: Standardizer | None, dtype: str, *, observed: bool, what: str = "x", first_row: int = 0
) -> np.ndarray:
    """Checked values as a model of some dtype sees them, in `units` if there are any.

    Values beyond what can be squared and summed, 1.8e16 in float32 and 1.3e151 in float64, are far from everything:
    inputs are taken as just so far out, with a warning; of an observed value the density would be zero.

    Args:
        a: The values `(B, ...)`.
        units: What standardises them, or None.
        dtype: That of the fit.
        observed: Whether the model has a density of them.
        what: Name of the argument, for messages.
        first_row: Number of the first row, for messages.

    Raises:
        ValueError: Observed values that are so far out; says which.
    """
    limit = 1e-3 * float(np.sqrt(np.finfo(dtype).max))
    with np.errstate(over="ignore"):
        seen = a if units is None else units.standardize(a, dtype)
    far = checks.far_out(a, seen, limit, refuse=observed, what=what, first_row=first_row)
    return np.clip(seen, -limit, limit) if far else seen


def no_variance(a: np.ndarray) -> np.ndarray:
    """Whether each column has one value throughout, `(B, K)` to `(K,)`; a mean's rounding does not count as spread."""
    return np.fmax.reduce(a, axis=0) == np.fmin.reduce(a, axis=0)
