r"""The univariate Gaussian mixture p(y) = sum_k weights_k N(y; loc_k, scale_k^2): its density and both of its tails.

`ugmm_ppl.neuron` has the definition; `ugmm_ppl.distributions.pathwise` has quantiles, samples and their derivatives,
`ugmm_ppl.distributions.closed_form` modes, entropy, divergence and the operations in closed form.

Every function is written once for NumPy, torch and JAX: the first argument `ops` brings the array library. The last
axis is always the K mixture components; all leading axes broadcast. Log values are in nats.
"""

import math
from collections.abc import Callable
from typing import NamedTuple

from ugmm_ppl import neuron
from ugmm_ppl.neuron import HALF_LOG_2PI, beyond_reach, logsumexp
from ugmm_ppl.typing import Array, Ops


class Mixture(NamedTuple):
    """The parameters of a mixture, `(..., K)` each.

    Attributes:
        loc: Component means.
        scale: Component standard deviations.
        weights: Weights that sum to one.
        log_weights: Their logarithms, -inf allowed.
        weights_vary: Whether the weights are what derivatives are taken with respect to, and not their logarithms:
            then a weight of exactly zero has a derivative, which its logarithm has not.
    """

    loc: Array
    scale: Array
    weights: Array
    log_weights: Array
    weights_vary: bool = True

    @property
    def parameters(self) -> tuple[Array, Array, Array]:
        """(loc, scale, weights): what derivatives are taken with respect to."""
        return self.loc, self.scale, self.weights

    def over_a_new_axis(self) -> "Mixture":
        """The same for values with one more axis behind the batch axes: `(..., 1, K)`."""
        loc, scale, weights, log_weights = (a[..., None, :] for a in self[:4])
        return Mixture(loc, scale, weights, log_weights, self.weights_vary)


def log_prob(ops: Ops, value: Array, mixture: Mixture) -> Array:
    """`neuron.log_prob` `(...)`, with the derivative N_k / p along a weight of exactly zero."""
    given = (value, mixture.loc, mixture.scale, mixture.log_weights)
    result = ops.shared_log_prob(*given)
    if result is None:
        result = neuron.log_prob(ops, *given)
    return _with_absent(ops, result, log_density_parts, value, mixture)


def cdf(ops: Ops, value: Array, mixture: Mixture) -> Array:
    """p(Y <= value), `(...)` to `(...)`."""
    return neuron.cdf(ops, value, *mixture.parameters)


def log_cdf(ops: Ops, value: Array, mixture: Mixture) -> Array:
    """log p(Y <= value), `(...)` to `(...)`: below the median a sum of lower tails, above it log(1 - upper tails)."""
    lower, upper = log_tails(ops, value, mixture)
    return _by_the_smaller(ops, lower, upper)


def log_survival(ops: Ops, value: Array, mixture: Mixture) -> Array:
    """log p(Y > value), `(...)` to `(...)`; the mirror image of `log_cdf`."""
    lower, upper = log_tails(ops, value, mixture)
    return _by_the_smaller(ops, upper, lower)


def skewness(ops: Ops, mixture: Mixture) -> Array:
    """E[(y - mean)^3] / variance^(3/2), `(..., K)` to `(...)`."""
    loc, scale, weights = mixture.parameters
    centred = loc - neuron.mean(ops, loc, weights)[..., None]
    third = ops.sum(weights * centred * (centred * centred + 3.0 * scale * scale), -1)
    variance = neuron.variance(ops, loc, scale, weights)
    return third / (variance * ops.sqrt(variance))


def standardize(value: Array, loc: Array, scale: Array) -> Array:
    """Distance of `value` `(...)` from every component, in its scales, `(..., K)`."""
    return (value[..., None] - loc) / scale


def log_density_parts(ops: Ops, value: Array, loc: Array, scale: Array) -> Array:
    """log N(value; loc_k, scale_k^2), `(..., K)`."""
    z = standardize(value, loc, scale)
    return -ops.log(scale) - HALF_LOG_2PI - 0.5 * z * z


def _log_lower_parts(ops: Ops, value: Array, loc: Array, scale: Array) -> Array:
    return log_ndtr(ops, standardize(value, loc, scale))


def _log_upper_parts(ops: Ops, value: Array, loc: Array, scale: Array) -> Array:
    return log_ndtr(ops, -standardize(value, loc, scale))


def log_tails(ops: Ops, value: Array, mixture: Mixture) -> tuple[Array, Array]:
    """(log F, log(1 - F)) `(...)`, each by a log-sum-exp of its components: exact where small, rounded near 0."""
    beyond = beyond_reach(value)
    value, above = ops.where(beyond, 0.0, value), beyond & (value > 0.0)
    z = standardize(value, mixture.loc, mixture.scale)
    lower, upper = (logsumexp(ops, mixture.log_weights + log_ndtr(ops, side)) for side in (z, -z))
    lower = _with_absent(ops, lower, _log_lower_parts, value, mixture)
    upper = _with_absent(ops, upper, _log_upper_parts, value, mixture)
    below = beyond & ~above
    lower = ops.where(above, 0.0, ops.where(below, -math.inf, lower))
    return lower, ops.where(below, 0.0, ops.where(above, -math.inf, upper))


def log_ndtr(ops: Ops, z: Array) -> Array:
    """log Phi(z), with derivatives that hold in the lower tail.

    The libraries' own take the derivative from exp(-z^2 / 2 - log Phi(z)), which is noise once z^2 exceeds 1 / eps.
    Below -10 (-20 in float64) this is -z^2 / 2 - log(-z sqrt(2 pi)) + log(1 - 1/z^2 + 3/z^4 - 15/z^6 + ...), the
    asymptotic series of Abramowitz and Stegun, 26.2.12, to within 3e-10 (3e-15).
    """
    start = -20.0 if ops.eps(z) < 1e-10 else -10.0
    near, far, above = ops.where(z < start, start, z), ops.where(z < start, z, start), z > 0.0
    inverse, series = 1.0 / (far * far), 1.0
    for n in (15.0, 13.0, 11.0, 9.0, 7.0, 5.0, 3.0, 1.0):
        series = 1.0 - n * inverse * series
    asymptotic = -0.5 * far * far - ops.log(-far) - HALF_LOG_2PI + ops.log(series)
    tail = 0.5 * ops.erfc(math.sqrt(0.5) * abs(near))  # the smaller one of Phi(z) and 1 - Phi(z)
    direct = ops.where(above, ops.log1p(-tail), ops.log(ops.where(above, 1.0, tail)))
    return ops.where(z < start, asymptotic, direct)


def bounded_exp(ops: Ops, exponent: Array) -> Array:
    """The exponential, held just below overflow, so that it never makes a NaN of a zero it is multiplied with."""
    return ops.exp(ops.at_most(exponent, 600.0 if ops.eps(exponent) < 1e-10 else 80.0))


def _by_the_smaller(ops: Ops, own: Array, other: Array) -> Array:
    """`own` where it is the smaller of two log probabilities that sum to one, else log(1 - exp(other))."""
    small = own <= other
    return ops.where(small, own, ops.log1p(-ops.exp(ops.where(small, -1.0, other))))


def _with_absent(ops: Ops, total: Array, parts: Callable[..., Array], value: Array, mixture: Mixture) -> Array:
    """`total` = log sum_k weights_k exp(part_k), with its derivative exp(part_k - total) along weights of zero."""
    if not mixture.weights_vary:
        return total

    def coefficients(total: Array, value: Array, loc: Array, scale: Array, weights: Array) -> list[Array | None]:
        known = ops.isfinite(total)
        ratio = bounded_exp(ops, parts(ops, value, loc, scale) - ops.where(known, total, 0.0)[..., None])
        return [None, None, None, ops.where((weights == 0.0) & known[..., None], ratio, 0.0)]

    return ops.attach(total, coefficients, value, *mixture.parameters)
