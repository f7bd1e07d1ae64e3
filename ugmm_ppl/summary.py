r"""Modes, entropy, divergence, two components by moments, and Bayes' rule for a univariate Gaussian mixture.

Written once for NumPy, torch and JAX, as in `ugmm_ppl.mixture`.
"""

import math

import numpy as np

from ugmm_ppl import mixture as density
from ugmm_ppl import neuron
from ugmm_ppl.mixture import Mixture
from ugmm_ppl.neuron import HALF_LOG_2PI, logsumexp
from ugmm_ppl.ops import Array, Ops

GRID = tuple(float(t) for t in np.linspace(-4.0, 4.0, 65))
"""Where modes are looked for, in scales from each component's mean."""

HALVINGS = 60

REACH = 12.0
"""Scales around a component beyond which it is left out of an integral: 1e-33 of its mass."""

NODES = 10
"""Nodes of the Gauss-Legendre rule on each panel."""


def entropy_bounds(ops: Ops, mixture: Mixture) -> tuple[Array, Array]:
    r"""Bounds of the differential entropy in nats, `(..., K)` to two of `(...)`.

    Lower: -sum_i w_i log sum_j w_j N(loc_i; loc_j, scale_i^2 + scale_j^2). Upper: the smaller of
    sum_i w_i (-log w_i + log(scale_i sqrt(2 pi e))) and the entropy of the Normal of equal variance,
    log(stddev sqrt(2 pi e)). Source: Huber, Bailey, Durrant-Whyte and Hanebeck 2008, theorems 2 and 3.
    """
    loc, scale, weights, log_weights = mixture[:4]
    between = ops.sqrt(scale[..., :, None] ** 2 + scale[..., None, :] ** 2)  # (..., K, K)
    pairs = neuron.log_prob(ops, loc, loc[..., None, :], between, log_weights[..., None, :])
    lower = -ops.sum(weights * pairs, -1)
    surprise = ops.where(weights > 0.0, -log_weights, 0.0)
    apart = ops.sum(weights * (surprise + ops.log(scale)), -1)
    together = 0.5 * ops.log(neuron.variance(ops, loc, scale, weights))
    return lower, ops.where(apart < together, apart, together) + HALF_LOG_2PI + 0.5


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


def kl(ops: Ops, p: Mixture, q: Mixture, refinement: int) -> Array:
    """KL(p || q) = integral p log(p / q) in nats, `(...)`, by a composite Gauss-Legendre rule.

    The panels end at every second scale of every component of both mixtures, and are cut into `refinement` equal parts.
    Differentiable in all parameters of both.
    """
    steps = np.linspace(-REACH, REACH, int(REACH) + 1)
    ends, others = (ops.concat([ops.stop(m.loc) + float(t) * ops.stop(m.scale) for t in steps]) for m in (p, q))
    low, high = -ops.max(-ends, -1), ops.max(ends, -1)
    others = ops.where(others < low, low, ops.where(others > high, high, others))
    panels = ops.sort(ops.concat([ends, others]))
    width = (panels[..., 1:] - panels[..., :-1]) / refinement
    p, q = p.over_a_new_axis(), q.over_a_new_axis()
    nodes, shares = np.polynomial.legendre.leggauss(NODES)
    places = [float(part + 0.5 + 0.5 * node) for part in range(refinement) for node in nodes]
    y = ops.concat([panels[..., :-1] + place * width for place in places])  # (..., places times panels)
    mass = ops.concat([0.5 * float(share) * width for _ in range(refinement) for share in shares])
    log_p, log_q = density.log_prob(ops, y, p), density.log_prob(ops, y, q)
    ratio = ops.where(ops.isfinite(log_p), log_p - log_q, 0.0)
    return ops.sum(ops.exp(log_p) * ratio * mass, -1)


def condition(ops: Ops, reading: Array, noise_scale: Array, mixture: Mixture) -> tuple[Array, Array, Array, Array]:
    """Bayes' rule for y ~ mixture, reading ~ N(y, noise_scale^2): again a mixture.

    Args:
        ops: The array library.
        reading: What was read, `(...)`.
        noise_scale: Standard deviation of its noise, positive, `(...)`.
        mixture: The mixture before, `(..., K)`.

    Returns:
        loc, scale and log weights `(..., K)` of the mixture after, and the log evidence log p(reading) `(...)`.
    """
    loc, scale, _, log_weights = mixture[:4]
    noise = noise_scale[..., None]
    total = ops.sqrt(scale * scale + noise * noise)
    gain = (scale / total) ** 2
    log_joint = log_weights + density.log_density_parts(ops, reading, loc, total)
    evidence = logsumexp(ops, log_joint)
    told = (evidence > -math.inf)[..., None]  # else the reading is beyond reach of all, and tells none from another
    new_log_weights = neuron.log_normalize(ops, ops.where(told, log_joint, log_weights))
    new_loc = loc + gain * (reading[..., None] - loc)
    return new_loc, scale / total * noise, new_log_weights, evidence


def two_components(ops: Ops, mean: Array, stddev: Array, skewness: Array, spread: float) -> tuple[Array, Array, Array]:
    """Two components of equal scale with the given moments, in closed form.

    A share `spread` of the variance lies between the means. Their distribution over two points with weights w and
    1 - w has skewness (1 - 2 w) / sqrt(w (1 - w)), and spread^(3/2) of it is left in the mixture; solving for w needs
    one square root, for every skewness.

    Args:
        ops: The array library.
        mean: `(...)`.
        stddev: Positive, `(...)`.
        skewness: Any real number, `(...)`.
        spread: In (0, 1). At 1/2 a mixture without skewness has one flat-topped mode.

    Returns:
        loc, scale and weights, `(..., 2)` each; the lighter component, which makes the skewness, first.
    """
    wanted = abs(skewness) / spread**1.5
    root = ops.sqrt(4.0 + wanted * wanted)
    light = 2.0 / (root * (root + wanted))
    odds = ops.sqrt((1.0 - light) / light)
    between = ops.where(skewness < 0.0, -stddev, stddev) * math.sqrt(spread)
    loc = ops.concat([(mean + between * odds)[..., None], (mean - between / odds)[..., None]])
    scale = (stddev * math.sqrt(1.0 - spread))[..., None]
    return loc, ops.concat([scale, scale]), ops.concat([light[..., None], (1.0 - light)[..., None]])
