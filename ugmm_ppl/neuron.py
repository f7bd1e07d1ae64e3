r"""The neuron: a univariate Gaussian mixture with one component per input.

Neuron j, given inputs x in R^K, is a distribution over a scalar y,

    p_j(y | x) = sum_k weights_jk N(y; x_k - loc_jk, scale_jk^2),                                       (1)

and its activation is the log density of that distribution at y = 0,

    a_j(x) = log p_j(0 | x) = logsumexp_k [ log weights_jk + log N(x_k; loc_jk, scale_jk^2) ].          (2)

Source: uGMM-NN, arXiv:2509.07569; equation (2) is what the paper computes, (1) is the reading that makes the neuron
a proper density. As a function of x, (2) is *not* a density for K > 1.

Every function is written once for NumPy, torch and JAX: the first argument `ops` brings the array library. The last
axis is always the K mixture components; all leading axes broadcast. Log values are in nats. Values may be -inf (an
impossible value), gradients are never NaN: a component of weight zero or at infinite distance contributes nothing.
"""

import math

from ugmm_ppl.typing import Activations, Array, Components, Inputs, Neurons, Ops

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


def activation(ops: Ops, x: Inputs, loc: Neurons, scale: Neurons, log_weights: Neurons) -> Activations:
    """Log density at y = 0 of J neurons, equation (2).

    Args:
        ops: The array library.
        x: Inputs, `(..., K)`. An infinite input makes its component impossible.
        loc: Component locations `(..., J, K)`, or `0.0` for tied means.
        scale: Component scales, positive, `(..., J, K)`.
        log_weights: Log of the mixture weights, `(..., J, K)`, -inf allowed.

    Returns:
        Activations `(..., J)` in nats; the leading axes are those of `x` and the parameters, broadcast.
    """
    x = x[..., None, :]  # (..., 1, K)
    beyond = beyond_reach(x)
    component_means = ops.where(beyond, 0.0, x) - loc  # (..., J, K), the means of equation (1)
    terms = _log_terms(ops, -component_means, scale, log_weights)  # each component's log density at y = 0
    return logsumexp(ops, terms + ops.where(beyond, -math.inf, 0.0))


def log_prob(ops: Ops, value: Array, loc: Components, scale: Components, log_weights: Components) -> Array:
    """Log density of a univariate Gaussian mixture, log sum_k weights_k N(value; loc_k, scale_k^2).

    Args:
        ops: The array library.
        value: Points `(...)`; an infinite one has density zero.
        loc: Component means `(..., K)`; a component at infinity is impossible.
        scale: Component scales, positive, `(..., K)`.
        log_weights: Log of the mixture weights `(..., K)`, -inf allowed.

    Returns:
        Log densities `(...)` in nats.
    """
    return logsumexp(ops, _log_terms_at(ops, value, loc, scale, log_weights))


def responsibilities(ops: Ops, value: Array, loc: Components, scale: Components, log_weights: Components) -> Array:
    """Posterior probability of each component given a value, weights_k N_k / sum_i weights_i N_i.

    Arguments as in `log_prob`. Returns `(..., K)`; rows sum to one, or are zero where the value is impossible.
    """
    return ops.exp(log_normalize(ops, _log_terms_at(ops, value, loc, scale, log_weights)))


def cdf(ops: Ops, value: Array, loc: Components, scale: Components, weights: Components) -> Array:
    """Distribution function, sum_k weights_k Phi((value - loc_k) / scale_k): `(...)` and `(..., K)` to `(...)`."""
    largest = 1e307 if ops.eps(value) < 1e-10 else 1e37
    finite = ops.at_least(ops.at_most(value, largest), -largest)  # infinity times a derivative of zero would be NaN
    doubled = ops.twice_phi(finite, loc, scale)  # `(..., K)`
    return ops.where(value == math.inf, 1.0, ops.dot(doubled, 0.5 * weights))


def mean(ops: Ops, loc: Components, weights: Components) -> Array:
    """Mean of the mixture, sum_k weights_k loc_k: `(..., K)` to `(...)`."""
    return ops.sum(weights * loc, -1)


def variance(ops: Ops, loc: Components, scale: Components, weights: Components) -> Array:
    """Variance of the mixture, sum_k weights_k (scale_k^2 + (loc_k - mean)^2): `(..., K)` to `(...)`."""
    centred = loc - mean(ops, loc, weights)[..., None]  # centred first: no cancellation of large means
    return ops.sum(weights * (scale * scale + centred * centred), -1)


def logsumexp(ops: Ops, terms: Array) -> Array:
    """log sum_k exp(terms_k) over the last axis, with the true maximum and gradients that are never NaN.

    A row that is -inf everywhere gives -inf and gradient zero, where the libraries' own functions give NaN.
    """
    peak = _peak(ops, terms)
    return _log_sum(ops, terms, peak, peak)


def log_normalize(ops: Ops, logits: Components) -> Array:
    """Log weights from logits, logits - logsumexp(logits) over the last axis; -inf is weight zero, even if all are.

    Far from zero the sum of two numbers rounds away what tells logits apart (in float32 -5e7 + log 2 is -5e7), so that
    the largest is taken off first.
    """
    peak = _peak(ops, logits)
    offset = _offset(ops, peak)
    total = _log_sum(ops, logits, peak, peak - offset)[..., None]
    return (logits - offset) - ops.where(total == -math.inf, 0.0, total)


def near_zero(ops: Ops, logits: Components) -> Array:
    """Logits less their largest over the last axis, a constant, where that is far from zero."""
    return logits - _offset(ops, _peak(ops, logits))


def _peak(ops: Ops, terms: Array) -> Array:
    """The maximum, `(..., 1)`, no gradient: it cancels; zero where it is not finite."""
    peak = ops.max(terms, -1)
    return ops.where(ops.isfinite(peak), peak, 0.0)


def _log_sum(ops: Ops, terms: Array, peak: Array, base: Array) -> Array:
    """log sum_k exp(terms_k - peak) + base, `(..., K)` and `(..., 1)` to `(...)`."""
    total = ops.sum(ops.exp(terms - peak), -1)  # (...)
    possible = total != 0.0  # NaN counts as possible, so that it is passed on and not hidden
    return ops.where(possible, ops.log(ops.where(possible, total, 1.0)) + base[..., 0], -math.inf)


def _offset(ops: Ops, peak: Array) -> Array:
    """The peak where it is so far from zero that its sum with a logarithm is not exact enough, else zero.

    Near zero the rounding is below 2e-6 in float32, 1e-13 in float64.
    """
    eps = ops.eps(peak)
    near = 0.0 if eps > 1e-5 else 32.0 if eps > 1e-10 else 1e3
    return ops.where(abs(peak) > near, peak, 0.0)


def if_any_possible(ops: Ops, logits: Components) -> Array:
    """Logits, and where all of the last axis are -inf zeros: what is impossible either way says nothing of them."""
    return ops.where(ops.max(logits, -1) == -math.inf, 0.0, logits)


def safe_log(ops: Ops, probs: Components) -> Array:
    """Logarithm with log 0 = -inf and gradient zero there."""
    positive = probs > 0.0
    return ops.where(positive, ops.log(ops.where(positive, probs, 1.0)), -math.inf)


def _log_terms(ops: Ops, residual: Array, scale: Array, log_weights: Array) -> Array:
    """log weights_k + log N(residual_k; 0, scale_k^2), `(..., K)`."""
    z = residual / scale
    return (log_weights - ops.log(scale) - HALF_LOG_2PI) - 0.5 * z * z


def _log_terms_at(ops: Ops, value: Array, loc: Array, scale: Array, log_weights: Array) -> Array:
    """`_log_terms` at `value`, -inf where the value or the location is at infinity, `(..., K)`."""
    value = value[..., None]
    beyond = beyond_reach(value) | beyond_reach(loc)
    residual = ops.where(beyond, 0.0, value) - ops.where(beyond, 0.0, loc)
    return _log_terms(ops, residual, scale, log_weights) + ops.where(beyond, -math.inf, 0.0)


def beyond_reach(x: Array) -> Array:
    """Where |x| is infinite, or so large that no component reaches it: 3e25 in float32, 2e295 in float64.

    There ((x - loc) / scale)^2 overflows for every scale up to 1e6, so the density is zero, while for scale 1e-6 the
    division itself would overflow and its gradient be NaN. Multiplying finds the place without asking for the dtype.
    """
    return abs(x) * 1e13 == math.inf
