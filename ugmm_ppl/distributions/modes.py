"""The modes of a univariate Gaussian mixture, written once for NumPy, torch and JAX."""

import math

import numpy as np

from ugmm_ppl.distributions import mixture as density
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.typing import Array, Ops

GRID = tuple(float(t) for t in np.linspace(-4.0, 4.0, 65))
"""Where modes are looked for, in scales from each component's mean."""


HALVINGS = 60


def modes(ops: Ops, mixture: Mixture) -> Array:
    """All local maxima of the density, ascending, `(..., K)`: a mixture of K Gaussians has at most K; the rest is NaN.

    The sign of p' / p = sum_k r_k (loc_k - y) / scale_k^2 is taken on a grid of 65 points around each component, an
    eighth of its scale apart; each change from plus to minus is halved down to the resolution of the dtype. Two maxima
    closer than the grid count as one.
    """
    mixture = Mixture(*(ops.stop(a) for a in mixture[:4]))
    loc, scale, weights = mixture.parameters
    each = mixture.over_a_new_axis()
    given = (each.loc, each.scale, each.log_weights)
    components = loc.shape[-1]
    own = ops.concat([loc + t * scale for t in GRID])
    grid = ops.sort(ops.where(ops.concat([weights > 0.0] * len(GRID)), own, math.inf))  # of what has weight
    up = _rises(ops, given, ops.where(grid < math.inf, grid, 0.0))
    turns = up[..., :-1] & ~up[..., 1:] & (grid[..., 1:] < math.inf)
    low, high = (
        ops.sort(ops.where(turns, side, math.inf))[..., :components] for side in (grid[..., :-1], grid[..., 1:])
    )
    found = low < math.inf
    low, high = ops.where(found, low, 0.0), ops.where(found, high, 0.0)
    low, high, _ = ops.repeat(_halve, given, (low, high, ~found), HALVINGS)
    return ops.where(found, low + 0.5 * (high - low), math.nan)


def _rises(ops: Ops, given: tuple[Array, ...], y: Array) -> Array:
    """Whether the density increases at y `(...)`; loc, scale and log weights `(..., K)`."""
    loc, scale, log_weights = given
    log_terms = log_weights + density.log_density_parts(ops, y, loc, scale)
    r = ops.exp(log_terms - ops.max(log_terms, -1))
    return ops.sum(r * (loc - y[..., None]) / scale**2, -1) > 0.0


def _halve(ops: Ops, given: tuple[Array, ...], low: Array, high: Array, done: Array) -> tuple[Array, Array, Array]:
    middle = low + 0.5 * (high - low)
    up = _rises(ops, given, middle)
    return ops.where(up, middle, low), ops.where(up, high, middle), done | (middle == low) | (middle == high)
