"""ArviZ's statistics of plain arrays, under either version."""

from __future__ import annotations

import numpy as np

from ugmm_ppl.arviz.version import installed, is_old
from ugmm_ppl.backends.threads import silence
from ugmm_ppl.typing import Draws, PerChain, PerDraw, PerRow, RowDraws


def psis(log_weights: RowDraws) -> tuple[RowDraws, PerRow]:
    """Pareto smoothed importance sampling over the last axis: normalised log weights `(..., S)` and k-hat `(...)`.

    Source: Vehtari et al. 2024, JMLR 25(72).
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    if is_old(installed()):
        smoothed, k = installed().psislw(log_weights)
        return np.asarray(smoothed), np.asarray(k)
    from arviz_stats.base import array_stats

    return array_stats.psislw(-log_weights)  # it takes minus the log weights, a log likelihood


def loo_approximate_posterior(pointwise: RowDraws, log_ratio: PerDraw) -> tuple[PerRow, PerRow] | None:
    """ArviZ's LOO for draws from a guide: elpd `(B,)` and k-hat `(B,)` of every row; None where it has none.

    Args:
        pointwise: Log likelihood `(C, S, B)`.
        log_ratio: log p(theta, y) - log q(theta), `(C, S)`.
    """
    az = installed()
    if not hasattr(az, "loo_approximate_posterior"):
        return None
    import xarray

    dataset = xarray.Dataset({"y": (["chain", "draw", "row"], np.asarray(pointwise, dtype=np.float64))})
    tree = xarray.DataTree.from_dict({"log_likelihood": dataset, "posterior": dataset[["chain", "draw"]]})
    log_ratio = np.asarray(log_ratio, dtype=np.float64).ravel()
    with silence():  # about large k-hats, which are returned
        found = az.loo_approximate_posterior(tree, log_p=log_ratio, log_q=0.0 * log_ratio, pointwise=True)
    return np.asarray(found.elpd_i), np.asarray(found.pareto_k)


def rhat(values: Draws) -> Draws:
    """Rank-normalised split R-hat `(...)` of values `(C, S, ...)`. Source: Vehtari et al. 2021, arXiv:1903.08008."""
    return _by_entry("rhat", values)


def ess(values: Draws) -> Draws:
    """Bulk effective sample size `(...)` of values `(C, S, ...)`. Source: as `rhat`."""
    return _by_entry("ess", values)


def bfmi(energy: PerDraw) -> PerChain:
    """Estimated Bayesian fraction of missing information `(C,)` from energies `(C, S)`. Source: arXiv:1604.00695."""
    az = installed()
    if is_old(az):
        return np.asarray(az.bfmi(energy))
    from arviz_stats.base import array_stats

    return np.asarray(array_stats.bfmi(energy, chain_axis=None, draw_axis=-1))


def _by_entry(name: str, values: np.ndarray) -> np.ndarray:
    """A statistic of ArviZ over chains and draws, for every entry."""
    az = installed()
    values = np.asarray(values, dtype=np.float64)
    flat = values.reshape(*values.shape[:2], -1)
    if is_old(az):
        function = getattr(az, name)
        with np.errstate(divide="ignore", invalid="ignore"):  # a value that is the same in all draws has none
            found = np.array([function(flat[..., i]) for i in range(flat.shape[-1])])
    else:
        from arviz_stats.base import array_stats

        with np.errstate(divide="ignore", invalid="ignore"):
            found = getattr(array_stats, name)(flat, chain_axis=0, draw_axis=1)
    return np.asarray(found, dtype=np.float64).reshape(values.shape[2:])
