"""What has a closed form: bounds of the entropy, Bayes' rule, two components by moments.

Written once for NumPy, torch and JAX, as in `ugmm_ppl.distributions.mixture`.
"""

import math

from ugmm_ppl import neuron
from ugmm_ppl.distributions import mixture as density
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.neuron import HALF_LOG_2PI, logsumexp
from ugmm_ppl.typing import Array, Ops


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
