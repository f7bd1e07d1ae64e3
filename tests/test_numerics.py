"""Extreme arguments of the neuron: float32 against float64, impossible components, and gradients that are never NaN."""

import functools

import numpy as np
import pytest
from conftest import INSTALLED
from helpers import assert_relative, bound, gradient_function, gradients
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats
from tolerances import EXACT64, GRADIENT32, ORACLE32

from ugmm_ppl import neuron
from ugmm_ppl.backends.load import load_backend

SCALES = {"small": (1e-6, 1e-6), "one": (0.5, 2.0), "large": (1e6, 1e6), "all": (1e-6, 1e6)}
WEIGHTS = ["dirichlet", "zeros", "one alive"]


def adversarial(rng, inputs, reach, scales, weights):
    """Arguments of `activation` as float32 for 3 examples and 2 neurons: inputs, locations, scales and log weights."""
    low, high = np.log(SCALES[scales])
    x, loc = rng.uniform(-reach, reach, (3, inputs)), rng.uniform(-reach, reach, (2, inputs))
    loc[:, 0] = x[0, 0]  # a component exactly at its input
    scale = np.exp(rng.uniform(low, high, (2, inputs)))
    probs = rng.dirichlet(np.ones(inputs), 2)
    if weights == "zeros":
        probs[:, 1::2] = 0.0
    elif weights == "one alive":
        probs = np.eye(inputs)[[0, inputs - 1]]
    with np.errstate(divide="ignore"):
        return [a.astype(np.float32) for a in (x, loc, scale, np.log(probs))]


def oracle(x, loc, scale, log_weights):
    """Equation (2) by SciPy in float64, for the float32 numbers as they are."""
    x, loc, scale, log_weights = (a.astype(np.float64) for a in (x, loc, scale, log_weights))
    return special.logsumexp(log_weights + stats.norm.logpdf(x[..., None, :], loc, scale), axis=-1)


@pytest.mark.parametrize("weights", WEIGHTS)
@pytest.mark.parametrize("scales", SCALES)
@pytest.mark.parametrize("reach", [1.0, 1e4])
@pytest.mark.parametrize("inputs", [1, 4096])
def test_float32_is_within_the_stated_bound(backend, rng, inputs, reach, scales, weights):
    arguments = adversarial(rng, inputs, reach, scales, weights)
    got = bound(backend, neuron.activation)(*arguments)
    assert got.dtype == np.float32
    assert_relative(got, oracle(*arguments), ORACLE32)


@pytest.mark.parametrize("inputs", [1, 5, 4096])
def test_float32_gradients_are_those_of_float64(backend, rng, inputs):
    """At ordinary distances; z of 1e10 has a gradient whose rounding error is that of z^2."""
    arguments = [a.astype(np.float64) for a in adversarial(rng, inputs, 2.0, "one", "dirichlet")]
    x, loc, scale, log_weights = arguments
    _, got = gradients(backend, lambda *a: neuron.activation(backend.ops, *a).sum(), arguments)
    z = (x[:, None, :] - loc) / scale
    r = special.softmax(log_weights + stats.norm.logpdf(z) - np.log(scale), -1)
    want = [-(r * z / scale).sum(1), (r * z / scale).sum(0), (r * (z**2 - 1) / scale).sum(0), r.sum(0)]
    for name, one, other in zip(("x", "loc", "scale", "log_weights"), got, want, strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, other, rtol=GRADIENT32, atol=GRADIENT32 * np.abs(other).max(), err_msg=name)


BASE = {
    "x": [[0.5, -1.0, 2.0], [0.0, 0.3, -0.2]],
    "loc": [[0.1, 0.2, 0.3], [1.0, -1.0, 0.0]],
    "scale": [[1.0, 0.5, 2.0], [1.0, 1.0, 1.0]],
    "logits": [[0.0, 1.0, -1.0], [0.5, 0.0, 0.0]],
}
INF = np.inf
IMPOSSIBLE = {  # what differs from BASE, and which activations are then -inf
    "all components masked": ({"logits": [[-INF] * 3, [0.5, 0.0, 0.0]]}, [[True, False]] * 2),
    "all but one masked": ({"logits": [[-INF, 0.3, -INF], [-INF, -INF, 0.0]]}, [[False, False]] * 2),
    "one input infinite": ({"x": [[INF, -1.0, 2.0], [0.0, 0.3, -INF]]}, [[False, False]] * 2),
    "an example all infinite": ({"x": [[INF, -INF, INF], [0.0, 0.3, -0.2]]}, [[True, True], [False, False]]),
    "the previous layer impossible": ({"x": [[-INF] * 3] * 2}, [[True, True]] * 2),
    "the only live input infinite": (
        {"x": [[INF, 0.0, 0.0], [0.0, 0.3, -0.2]], "logits": [[0.0, -INF, -INF], [0.5, 0.0, 0.0]]},
        [[True, False], [False, False]],
    ),
    "inputs near the largest float": ({"x": [[3e38, -1.0, 2.0], [-3e38, 3e38, -3e38]]}, [[False, False], [True, True]]),
    "that and the smallest scale": (
        {"x": [[1e27, 0.5, 2.0], [1e38, 1e33, -1e30]], "scale": [[1e-6] * 3, [1e-3] * 3]},
        [[False, False], [True, True]],
    ),
    "that and the largest scale": (
        {"x": [[1e25, 0.5, 2.0], [3e38, 1e26, -1e26]], "scale": [[1e6] * 3, [1e6] * 3]},
        [[False, False], [True, True]],
    ),
}


def activations(ops, x, loc, scale, logits):
    """Equation (2) from logits."""
    return neuron.activation(ops, x, loc, scale, neuron.log_normalize(ops, logits))


@functools.cache
def summed_gradients(backend, function, arguments):
    """Gradients of the sum of a function of `ops` and arrays, compiled once."""
    return gradient_function(backend, lambda *a: function(backend.ops, *a).sum(), arguments)


@pytest.mark.parametrize("case", IMPOSSIBLE)
def test_impossible_values_have_no_nan_gradient(backend, case):
    changes, impossible = IMPOSSIBLE[case]
    arguments = [np.array(a, dtype=np.float32) for a in (BASE | changes).values()]

    a = bound(backend, activations)(*arguments)
    np.testing.assert_array_equal(np.isneginf(a), impossible)
    assert np.isfinite(a[~np.array(impossible)]).all()
    _, grads = summed_gradients(backend, activations, 4)(*arguments)
    for name, grad in zip(BASE, grads, strict=True):
        assert np.isfinite(grad).all(), name
    dead = ~np.isfinite(arguments[0])
    np.testing.assert_array_equal(grads[0][dead], np.zeros(dead.sum()))


def test_an_impossible_component_contributes_nothing(backend64, rng):
    """Activation and every gradient are those of the neuron without it."""
    x, loc, scale, logits = (
        rng.normal(size=(4, 3)),
        rng.normal(size=(2, 3)),
        np.exp(rng.normal(size=(2, 3))),
        rng.normal(size=(2, 3)),
    )

    value, grads = summed_gradients(backend64, activations, 4)(x[:, :2], loc[:, :2], scale[:, :2], logits[:, :2])
    logits[:, 2] = -np.inf
    value_masked, grads_masked = summed_gradients(backend64, activations, 4)(x, loc, scale, logits)
    np.testing.assert_allclose(value_masked, value, rtol=EXACT64)
    for without, masked in zip(grads, grads_masked, strict=True):
        np.testing.assert_allclose(masked[:, :2], without, rtol=EXACT64, atol=EXACT64)
        np.testing.assert_array_equal(masked[:, 2], np.zeros(len(masked)))


def test_nan_is_not_hidden(backend):
    """What is impossible is -inf; what is unknown stays NaN, so that it is found."""
    arguments = [np.array(a, dtype=np.float32) for a in BASE.values()]
    arguments[0][1, 2] = np.nan
    a = bound(backend, neuron.activation)(*arguments)
    np.testing.assert_array_equal(np.isnan(a), [[False, False], [True, True]])


def first_responsibility(ops, *arguments):
    """That of the first component; all of them sum to a constant."""
    return neuron.responsibilities(ops, *arguments)[0]


@pytest.mark.parametrize(
    ("value", "loc", "impossible"),
    [
        (np.inf, [0.0, 1.0], True),
        (-np.inf, [0.0, 1.0], True),
        (0.0, [np.inf, 1.0], False),
        (0.0, [-np.inf, np.inf], True),
        (np.inf, [np.inf, 0.0], True),
        (3e38, [0.0, -3e38], True),
    ],
)
def test_a_mixture_at_infinity(backend, value, loc, impossible):
    arguments = [np.array(a, dtype=np.float32) for a in (value, loc, [1e-6, 1.0], np.log([0.4, 0.6]))]
    got = bound(backend, neuron.log_prob)(*arguments)
    assert np.isneginf(got) == impossible
    for grad in summed_gradients(backend, neuron.log_prob, 4)(*arguments)[1]:
        assert np.isfinite(grad).all()
    r = bound(backend, neuron.responsibilities)(*arguments)
    np.testing.assert_allclose(r.sum(), 0.0 if impossible else 1.0, rtol=ORACLE32)
    for grad in summed_gradients(backend, first_responsibility, 4)(*arguments)[1]:
        assert np.isfinite(grad).all()


@pytest.mark.parametrize(
    ("logits", "weights"), [([-INF, -INF], [0.0, 0.0]), ([-INF, 3.0], [0.0, 1.0]), ([1e4, -1e4], [1.0, 0.0])]
)
def test_weights_of_extreme_logits(backend, logits, weights):
    logits = np.array(logits, dtype=np.float32)
    got = bound(backend, neuron.log_normalize)(logits)
    np.testing.assert_array_equal(np.exp(got), weights)

    def possible_part(a):
        terms = neuron.log_normalize(backend.ops, a)
        return backend.ops.where(terms == -INF, 0.0, terms).sum()

    assert np.isfinite(gradients(backend, possible_part, [logits])[1][0]).all()


def test_log_of_a_zero_weight(backend):
    """safe_log: -inf at zero, gradient 1 / p elsewhere and 0 there, where the library's own log has infinity."""
    probs = np.array([0.0, 0.25, 0.75], dtype=np.float32)
    np.testing.assert_array_equal(np.isneginf(bound(backend, neuron.safe_log)(probs)), [1, 0, 0])

    def finite_part(p):
        return neuron.safe_log(backend.ops, p)[1:].sum()

    np.testing.assert_allclose(gradients(backend, finite_part, [probs])[1][0], [0.0, 4.0, 4.0 / 3.0], rtol=ORACLE32)


@settings(deadline=None, derandomize=True, max_examples=50)
@given(
    x=st.lists(st.floats(width=32, allow_nan=False), min_size=3, max_size=3),
    log_scale=st.floats(-13.8, 13.8),
    logits=st.lists(st.floats(-100.0, 100.0) | st.just(-INF), min_size=3, max_size=3),
)
def test_no_nan_whatever_the_inputs(compiled_gradients, x, log_scale, logits):
    """Every float32 there is as input, infinities and subnormal numbers included."""
    loc, scale = np.array([[0.1, 0.2, 0.3]]), np.full((1, 3), np.exp(log_scale))
    value, grads = compiled_gradients(np.array(x), loc, scale, np.array([logits]))
    assert not np.isnan(value)
    for grad in grads:
        assert not np.isnan(grad).any()


@pytest.fixture(scope="module")
def compiled_gradients():
    """Value and gradients of the activation of one neuron in float32, compiled once, on one backend."""
    return summed_gradients(load_backend("numpyro" if INSTALLED["numpyro"] else "pyro"), activations, 4)
