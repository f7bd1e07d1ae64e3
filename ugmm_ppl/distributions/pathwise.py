r"""Samples and quantiles of the univariate Gaussian mixture, with derivatives through the value.

A value y at which the distribution function F(y; theta) keeps its level moves with the parameters as
dy/dtheta = -(dF/dtheta) / p(y) (implicit reparameterisation: Figurnov, Mohamed and Mnih 2018, arXiv:1805.08498):

    dy/dloc_k = r_k,  dy/dscale_k = r_k (y - loc_k) / scale_k,  dy/dweights_k = -(Phi_k - F) / p,  dy/dlevel = 1 / p,

with the responsibilities r_k = weights_k N_k / p. For weights = softmax(logits) the third gives
dy/dlogits_k = -weights_k (Phi_k - F) / p.

Written once for NumPy, torch and JAX, as in `ugmm_ppl.distributions.mixture`.
"""

import math

from ugmm_ppl import neuron
from ugmm_ppl.distributions.mixture import Mixture, bounded_exp, log_density_parts, log_ndtr, standardize
from ugmm_ppl.neuron import logsumexp, safe_log
from ugmm_ppl.typing import Array, Ops

STEPS = 64
"""Most steps of the search for a quantile. It takes 5 to 10, and some 20 to cross flat stretches between far modes."""


def choose(ops: Ops, u: Array, weights: Array) -> Array:
    """Component numbers `(...)` from uniform numbers u in [0, 1) `(...)`, by the inverse of the summed weights.

    A component of weight zero is never chosen: its interval is empty, and the last one of positive weight takes what
    rounding leaves.
    """
    ends = ops.cumsum(weights)
    return ops.count(u[..., None] * ends[..., -1:] >= ends[..., :-1])


def follow(ops: Ops, value: Array, mixture: Mixture) -> Array:
    """A sample `(...)`, unchanged, with its pathwise derivatives with respect to loc, scale and weights."""

    def coefficients(value: Array, *parameters: Array) -> list[Array]:
        return derivatives(ops, value, *parameters)[1:]

    return ops.attach(ops.stop(value), coefficients, *mixture.parameters)


def quantile(ops: Ops, u: Array, mixture: Mixture) -> Array:
    """The value y with p(Y <= y) = u, differentiable in u and in the parameters.

    Args:
        ops: The array library.
        u: Probabilities in [0, 1], `(...)`; 0 gives -inf and 1 gives inf, others NaN.
        mixture: The parameters, `(..., K)`.

    Returns:
        Quantiles `(...)`.
    """
    found = _solve(ops, ops.stop(u), Mixture(*(ops.stop(a) for a in mixture[:4])))

    def coefficients(value: Array, u: Array, *parameters: Array) -> list[Array]:
        del u
        return derivatives(ops, value, *parameters)

    return ops.attach(found, coefficients, u[..., None], *mixture.parameters)


def _solve(ops: Ops, u: Array, mixture: Mixture) -> Array:
    """Newton's method for log F(y) = log u, or log(1 - F(y)) = log(1 - u) above 1/2, inside a bracket that shrinks.

    The bracket is spanned by the quantiles of the components, a little widened. A Newton step that leaves it, or is
    not half as long as the last, is replaced by the middle of the bracket.
    """
    loc, scale, weights, log_weights = mixture[:4]
    eps = ops.eps(loc)
    u = u + 0.0 * loc[..., 0]  # of the shape of the result
    proper = (u > 0.0) & (u < 1.0)
    inner = ops.where(proper, u, 0.5)
    left = inner <= 0.5
    small = ops.where(left, inner, 1.0 - inner)
    target = ops.log(small)
    t = ops.at_least(ops.ndtri(small), -40.0)  # of the smallest numbers some libraries give -inf
    slack = 1e-3 * (1.0 - t)
    t = ops.where(left, t, -t)

    def outermost(sign: float) -> Array:  # the last of the components' quantiles in the direction of `sign`
        end = sign * (loc + t[..., None] * scale) + slack[..., None] * scale + 4.0 * eps * abs(loc)
        return sign * ops.max(ops.where(weights > 0.0, end, -math.inf), -1)[..., 0]

    low, high = outermost(-1.0), outermost(1.0)
    start = neuron.mean(ops, loc + t[..., None] * scale, weights)
    start = ops.where((start > low) & (start < high), start, 0.5 * (low + high))
    given = (loc, scale, log_weights, left, target)
    y = ops.repeat(_newton, given, (start, low, high, high - low, ~proper), STEPS)[0]
    y = ops.where(proper, y, math.nan)
    return ops.where(u == 0.0, -math.inf, ops.where(u == 1.0, math.inf, y))


def _newton(
    ops: Ops, given: tuple[Array, ...], y: Array, low: Array, high: Array, last: Array, done: Array
) -> tuple[Array, ...]:
    """One step of the search: the value, its bracket, the length of the step, and whether it was the last."""
    loc, scale, log_weights, left, target = given
    eps = ops.eps(loc)
    z = standardize(y, loc, scale)
    log_tail = logsumexp(ops, log_weights + log_ndtr(ops, ops.where(left[..., None], z, -z)))
    residual = ops.where(left, log_tail - target, target - log_tail)  # increases with y
    log_p = logsumexp(ops, log_weights + log_density_parts(ops, y, loc, scale))
    change = -residual * bounded_exp(ops, log_tail - log_p)
    low, high = ops.where(residual < 0.0, y, low), ops.where(residual < 0.0, high, y)
    close = (abs(residual) <= 4.0 * eps * (1.0 - target)) | (abs(change) <= eps * abs(y))
    newton = (y + change > low) & (y + change < high) & (abs(change) <= 0.5 * last)
    new = ops.where(newton, y + change, ops.where(close, y, 0.5 * (low + high)))
    return ops.where(done, y, new), low, high, abs(new - y), done | close | (high - low <= eps * abs(y))


def derivatives(ops: Ops, value: Array, loc: Array, scale: Array, weights: Array) -> list[Array]:
    """Of a value with respect to its level `(..., 1)`, loc, scale and weights `(..., K)`; zero at infinity.

    Phi_k - F is a difference of tails, lower ones below the median and upper ones above it.
    """
    finite = ops.isfinite(value)[..., None]
    value = ops.where(finite[..., 0], value, 0.0)
    log_weights = safe_log(ops, weights)
    z = standardize(value, loc, scale)
    log_terms = log_weights + log_density_parts(ops, value, loc, scale)
    log_p = logsumexp(ops, log_terms)[..., None]  # (..., 1)
    possible = finite & ops.isfinite(log_p)
    log_p = ops.where(possible, log_p, 0.0)
    r = ops.where(possible, ops.exp(ops.where(possible, log_terms, -math.inf) - log_p), 0.0)
    lowers, uppers = log_ndtr(ops, z), log_ndtr(ops, -z)  # (..., K)
    lower, upper = (logsumexp(ops, log_weights + a)[..., None] for a in (lowers, uppers))
    below = lower <= upper
    parts, whole = ops.where(below, lowers, uppers), ops.where(below, lower, upper)
    peak = ops.max(parts, -1)
    by_weight = (ops.exp(parts - peak) - ops.exp(whole - peak)) * bounded_exp(ops, peak - log_p)
    by_weight = ops.where(below, -by_weight, by_weight)
    by_level = bounded_exp(ops, -log_p)
    return [ops.where(possible, by_level, 0.0), r, r * z, ops.where(possible, by_weight, 0.0)]
