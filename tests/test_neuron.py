"""Equations (1) and (2), moments, and the distribution function against oracles from outside."""

import functools
import itertools

import mpmath
import numpy as np
import pytest
from helpers import assert_relative, bound, draw_layer, draw_mixture, evaluate, gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import integrate, special, stats
from tolerances import EXACT64, GRADIENT64, ORACLE32, PARITY, QUADRATURE, TAIL32

from ugmm_ppl import neuron
from ugmm_ppl.ops.numpy import NUMPY

PROPERTIES = settings(deadline=None, derandomize=True, max_examples=50)


def run(backend, function, *arrays):
    """A function of `neuron` on NumPy arrays."""
    return bound(backend, function)(*arrays)


def loop_activation(x, loc, scale, weights):
    """Equation (2) by the slowest of loops."""
    out = np.empty((len(x), len(loc)))
    for b in range(len(x)):
        for j in range(len(loc)):
            density = sum(weights[j, k] * stats.norm.pdf(x[b, k], loc[j, k], scale[j, k]) for k in range(x.shape[1]))
            out[b, j] = np.log(density)
    return out


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (4, 7, 1)])
def test_activation_is_equation_2(backend64, rng, shape):
    rows, neurons, inputs = shape
    loc, scale, weights = draw_layer(rng, neurons, inputs)
    x = rng.normal(size=(rows, inputs))
    got = run(backend64, neuron.activation, x, loc, scale, np.log(weights))
    np.testing.assert_allclose(got, loop_activation(x, loc, scale, weights), rtol=EXACT64, atol=EXACT64)
    got_numpy = neuron.activation(NUMPY, x, loc, scale, np.log(weights))
    np.testing.assert_allclose(got_numpy, got, rtol=EXACT64, atol=EXACT64)


@pytest.mark.parametrize("components", [1, 2, 7])
def test_equation_1_integrates_to_one(backend64, rng, components):
    loc, scale, weights = draw_mixture(rng, components)
    x = rng.normal(size=components)
    log_prob = bound(backend64, neuron.log_prob)

    def density(y):
        return np.exp(log_prob(np.float64(y), x - loc, scale, np.log(weights)))

    reach = np.max(np.abs(x - loc) + 40.0 * scale)
    edges = np.sort(np.concatenate([[-reach, reach], x - loc]))
    pieces = [integrate.quad(density, a, b, epsabs=1e-11)[0] for a, b in itertools.pairwise(edges)]
    assert abs(sum(pieces) - 1.0) < QUADRATURE


def test_equation_2_is_equation_1_at_zero(backend64, rng):
    x, (loc, scale, weights) = rng.normal(size=(6, 5)), draw_layer(rng, 4, 5)
    activation = run(backend64, neuron.activation, x, loc, scale, np.log(weights))
    at_zero = run(backend64, neuron.log_prob, np.zeros((6, 4)), x[:, None, :] - loc, scale, np.log(weights))
    np.testing.assert_allclose(at_zero, activation, rtol=EXACT64, atol=EXACT64)


def test_tied_means_are_the_inputs(backend64, rng):
    """With loc = 0.0, a plain number, the component means of equation (1) are the inputs."""
    x, (_, scale, weights) = rng.normal(size=(6, 5)), draw_layer(rng, 4, 5)

    def tied_activation(x, scale, log_weights):
        return neuron.activation(backend64.ops, x, 0.0, scale, log_weights)

    tied = evaluate(backend64, tied_activation, x, scale, np.log(weights))
    np.testing.assert_allclose(tied, loop_activation(x, np.zeros((4, 5)), scale, weights), rtol=EXACT64, atol=EXACT64)


def test_activation_is_mpmath(backend64):
    """Fifty digits, where the components differ by hundreds of nats and their distances by nine orders of magnitude."""
    x, loc = [1e4, -3.0, 0.25], [[9999.5, 0.0, 0.25], [-1e4, 1.0, 0.5]]
    scale, weights = [[1e-3, 1e6, 1e-6], [1e6, 0.2, 1e-2]], [[0.2, 0.3, 0.5], [0.9, 0.05, 0.05]]
    with mpmath.workdps(50):
        want = [
            mpmath.log(sum(mpmath.mpf(w) * mpmath.npdf(a, m, s) for a, m, s, w in zip(x, *row, strict=True)))
            for row in zip(loc, scale, weights, strict=True)
        ]
    got = run(backend64, neuron.activation, x, loc, scale, np.log(weights))
    np.testing.assert_allclose(got, [float(a) for a in want], rtol=EXACT64)


def activation_loss(backend, upstream, x, loc, log_scale, logits):
    """A scalar function of the parameters of one layer, with a given gradient with respect to its activations."""
    log_weights = neuron.log_normalize(backend.ops, logits)
    a = neuron.activation(backend.ops, x, loc, backend.ops.exp(log_scale), log_weights)
    return (a * backend.array(upstream)).sum()


def closed_form_gradients(upstream, x, loc, log_scale, logits):
    """The derivatives of equation (2) as they are written in docs, summed over the batch."""
    scale, weights = np.exp(log_scale), special.softmax(logits, -1)
    z = (x[:, None, :] - loc) / scale  # (B, J, K)
    terms = np.log(weights) + stats.norm.logpdf(z) - log_scale
    r = special.softmax(terms, -1)
    g = upstream[..., None]
    return [
        -(g * r * z / scale).sum(1),
        (g * r * z / scale).sum(0),
        (g * r * (z**2 - 1)).sum(0),
        (g * (r - weights)).sum(0),
    ]


@pytest.mark.parametrize("shape", [(1, 1, 1), (5, 3, 4), (2, 6, 40)])
def test_gradients_are_the_closed_forms(backend64, rng, shape):
    rows, neurons, inputs = shape
    loc, scale, _ = draw_layer(rng, neurons, inputs)
    upstream, logits = rng.normal(size=(rows, neurons)), rng.normal(size=(neurons, inputs))
    arguments = [rng.normal(size=(rows, inputs)), loc, np.log(scale), logits]
    _, got = gradients(backend64, functools.partial(activation_loss, backend64, upstream), arguments)
    for name, one, other in zip(
        ("x", "loc", "log_scale", "logits"), got, closed_form_gradients(upstream, *arguments), strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=EXACT64, atol=EXACT64, err_msg=name)


def test_gradients_are_finite_differences(backend64, rng):
    loc, scale, _ = draw_layer(rng, 3, 4)
    upstream, logits = rng.normal(size=(5, 3)), rng.normal(size=(3, 4))
    arguments = [rng.normal(size=(5, 4)), loc, np.log(scale), logits]
    function = functools.partial(activation_loss, backend64, upstream)
    _, got = gradients(backend64, function, arguments)
    step = 1e-5
    for i, grad in enumerate(got):
        direction = rng.normal(size=grad.shape)
        ends = [[*arguments[:i], arguments[i] + sign * step * direction, *arguments[i + 1 :]] for sign in (1.0, -1.0)]
        up, down = (evaluate(backend64, function, *end) for end in ends)
        np.testing.assert_allclose(np.sum(grad * direction), (up - down) / (2 * step), rtol=GRADIENT64, atol=GRADIENT64)


def test_leading_axes_broadcast(backend64, rng):
    """S draws of the parameters times (B, K) inputs: (S, 1, J, K) with (B, K), and each of them alone."""
    x = rng.normal(size=(7, 5))
    draws = [draw_layer(rng, 4, 5) for _ in range(3)]
    loc, scale, weights = (np.stack(a)[:, None] for a in zip(*draws, strict=True))
    got = run(backend64, neuron.activation, x, loc, scale, np.log(weights))
    assert tuple(got.shape) == (3, 7, 4)
    want = np.stack([loop_activation(x, *one) for one in draws])
    np.testing.assert_allclose(got, want, rtol=EXACT64, atol=EXACT64)
    single = neuron.activation(NUMPY, x[0], loc[1, 0], scale[1, 0], np.log(weights[1, 0]))
    np.testing.assert_allclose(single, want[1, 0], rtol=EXACT64, atol=EXACT64)


def test_moments_are_those_of_the_closed_form(backend64, rng):
    loc, scale, weights = draw_mixture(rng, 6, (3, 2))
    mean = (weights * loc).sum(-1)
    second = (weights * (loc**2 + scale**2)).sum(-1)
    np.testing.assert_allclose(run(backend64, neuron.mean, loc, weights), mean, rtol=EXACT64)
    got = run(backend64, neuron.variance, loc, scale, weights)
    np.testing.assert_allclose(got, second - mean**2, rtol=PARITY)


def test_variance_survives_large_means(backend, rng):
    """In float32 E[y^2] - E[y]^2 would be lost: 1e4 squared carries an error of 4, the variance is 0.3."""
    loc = 1e4 + np.array([0.0, 0.5, 1.0])  # exact in float32
    weights, scale = np.array([0.25, 0.5, 0.25]), np.full(3, np.sqrt(0.1875))
    got = run(backend, neuron.variance, loc, scale, weights)
    np.testing.assert_allclose(got, 0.1875 + 0.125, rtol=ORACLE32)


def test_cdf_is_scipy(backend64, rng):
    loc, scale, weights = draw_mixture(rng, 5, (4,))
    value = 3.0 * rng.normal(size=(9, 4))
    got = run(backend64, neuron.cdf, value, loc, scale, weights)
    want = (weights * stats.norm.cdf(value[..., None], loc, scale)).sum(-1)
    np.testing.assert_allclose(got, want, rtol=EXACT64)


def test_cdf_in_the_lower_tail(backend):
    """In float32; by erf in place of erfc, as `torch.special.ndtr` has it, everything below -5.5 would be zero."""
    value, one = np.array([-12.0, -9.0, -6.0, -3.0]), np.ones(1)
    got = run(backend, neuron.cdf, value, 0.0 * one, one, one)
    np.testing.assert_allclose(got, stats.norm.cdf(value), rtol=TAIL32)


def test_cdf_at_infinity(backend64, rng):
    loc, scale, weights = draw_mixture(rng, 3)
    value = np.array([-np.inf, np.inf])

    def total(*arguments):
        return neuron.cdf(backend64.ops, *arguments)[1]

    arguments = [value, loc, scale, weights]
    np.testing.assert_array_equal(run(backend64, neuron.cdf, *arguments), [0.0, 1.0])
    for grad in gradients(backend64, total, arguments)[1]:
        np.testing.assert_array_equal(grad, np.zeros_like(grad))


def test_responsibilities_are_bayes_rule(backend64, rng):
    loc, scale, weights = draw_mixture(rng, 4)
    value = rng.normal(size=6)
    got = run(backend64, neuron.responsibilities, value, loc, scale, np.log(weights))
    joint = weights * stats.norm.pdf(value[:, None], loc, scale)
    np.testing.assert_allclose(got, joint / joint.sum(-1, keepdims=True), rtol=EXACT64)


def arrays_of(elements, *shape):
    """A Hypothesis strategy for float64 arrays of one shape."""
    return hnp.arrays(np.float64, shape, elements=elements)


LOGITS = st.floats(-800.0, 800.0) | st.just(-np.inf)


@PROPERTIES
@given(arrays_of(LOGITS, 3, 5))
def test_logsumexp_is_scipy(terms):
    with np.errstate(divide="ignore"):
        want = special.logsumexp(terms, axis=-1)
    assert_relative(neuron.logsumexp(NUMPY, terms), want, EXACT64)


@PROPERTIES
@given(arrays_of(LOGITS, 3, 5))
def test_log_normalize_makes_weights(logits):
    log_weights = neuron.log_normalize(NUMPY, logits)
    possible = np.isfinite(logits).any(-1)
    np.testing.assert_allclose(np.exp(log_weights).sum(-1), possible.astype(float), rtol=PARITY)
    np.testing.assert_array_equal(log_weights[~possible], np.full_like(log_weights[~possible], -np.inf))
    np.testing.assert_array_equal(np.isfinite(log_weights), np.isfinite(logits))


@PROPERTIES
@given(
    arrays_of(st.floats(-1e4, 1e4), 2, 3),
    arrays_of(st.floats(-1e4, 1e4), 2, 3),
    arrays_of(st.floats(-13.8, 13.8), 2, 3),
    arrays_of(LOGITS, 2, 3),
)
def test_activation_is_the_log_of_a_mixture(x, loc, log_scale, logits):
    """Between the largest term and that plus log K, whatever the arguments; and K = 1 is the Normal itself."""
    scale, log_weights = np.exp(log_scale), neuron.log_normalize(NUMPY, logits)
    a = neuron.activation(NUMPY, x, loc, scale, log_weights)
    terms = log_weights + stats.norm.logpdf(x[:, None, :], loc, scale)
    peak = terms.max(-1)
    with np.errstate(invalid="ignore"):
        slack = np.where(np.isfinite(peak), EXACT64 * np.abs(peak) + EXACT64, 0.0)
    assert np.all(a >= peak - slack)
    assert np.all(a <= peak + np.log(3.0) + slack)
    alone = neuron.activation(NUMPY, x[:, :1], loc[:, :1], scale[:, :1], np.zeros((2, 1)))
    assert_relative(alone, stats.norm.logpdf(x[:, :1], loc[:, 0], scale[:, 0]), EXACT64)


@PROPERTIES
@given(st.floats(0.0, 1.0, exclude_min=True), st.floats(-1e4, 1e4), st.floats(-6.0, 6.0))
def test_a_component_split_in_two_is_the_same(share, loc, log_scale):
    """Weights add: w1 N + w2 N = (w1 + w2) N, also where w2 is zero."""
    scale = np.exp(log_scale)
    weights = neuron.safe_log(NUMPY, np.array([share, 1.0 - share]))
    value = np.array([loc, loc + scale, loc - 30.0 * scale])
    got = neuron.log_prob(NUMPY, value, np.full(2, loc), np.full(2, scale), weights)
    assert_relative(got, stats.norm.logpdf(value, loc, scale), PARITY)
