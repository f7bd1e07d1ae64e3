"""Weights whose logits have an offset of any size, and values at any distance."""

import numpy as np
import pytest
from helpers import cumulative, density, gradients, mixture
from scipy import special
from test_dtypes import WEIGHTS, make

from ugmm_ppl import neuron
from ugmm_ppl.ops.numpy import NUMPY

OFFSETS = [0.0, 20.0, 1e3, -1e5, 5e7, -4.9744e7, 1e30]


@pytest.mark.parametrize("offset", OFFSETS)
def test_weights_do_not_depend_on_an_offset(backend, offset):
    """log_normalize and its gradient at logits that all are far from zero, where the numbers have any resolution."""
    logits = np.array([0.0, 2.0, -4.0]) * 2.0 ** max(0, np.ceil(np.log2(max(abs(offset), 1.0))) - 20) + offset
    logits = np.vstack([logits, np.full(3, offset)]).astype(np.float32)
    want = special.log_softmax(logits.astype(np.longdouble).astype(np.float64), -1)
    got = np.asarray(neuron.log_normalize(backend.ops, backend.array(logits)))
    np.testing.assert_allclose(got, want, rtol=3e-6, atol=3e-6)
    np.testing.assert_allclose(np.exp(got).sum(-1), 1.0, rtol=3e-6)
    double = neuron.log_normalize(NUMPY, logits.astype(np.float64))
    np.testing.assert_allclose(double, want, rtol=1e-12, atol=1e-12)
    loc, scale = np.array([-1.0, 1.0, 3.0], np.float32), np.array([0.5, 1.5, 0.7], np.float32)
    d = mixture(backend, loc, scale, logits=logits)
    weights = np.exp(want)
    np.testing.assert_allclose(np.asarray(d.probs), weights, atol=3e-6)
    np.testing.assert_allclose(np.asarray(d.mean), (weights * loc).sum(-1), atol=1e-5)
    np.testing.assert_allclose(np.asarray(d.cdf(9.0)), 1.0, atol=3e-6)
    np.testing.assert_allclose(np.asarray(d.cdf(0.5)), cumulative(0.5, loc, scale, weights), atol=3e-6)
    np.testing.assert_allclose(np.asarray(d.log_prob(0.5)), np.log(density(0.5, loc, scale, weights)), atol=1e-5)
    median = np.asarray(d.icdf(0.5), np.float64)
    np.testing.assert_allclose(cumulative(median, loc, scale, weights), 0.5, atol=1e-5)


@pytest.mark.parametrize("offset", OFFSETS)
def test_gradients_do_not_depend_on_an_offset(backend, offset):
    logits = np.full((1, 3), offset, np.float32)
    _, (got,) = gradients(backend, lambda a: neuron.log_normalize(backend.ops, a)[..., 0].sum(), [logits])
    np.testing.assert_allclose(got, [[2.0 / 3.0, -1.0 / 3.0, -1.0 / 3.0]], rtol=1e-6)


@pytest.mark.parametrize("y", [0.0, 1e3, -1e9, 1e17])
def test_responsibilities_sum_to_one_at_any_distance(backend, y):
    d = make(backend, "float32")
    np.testing.assert_allclose(np.asarray(d.responsibilities(y)).sum(), 1.0, rtol=1e-6)


def test_a_reading_beyond_reach_leaves_the_weights(backend):
    d = make(backend, "float32")
    after, evidence = d.condition_on_gaussian(1e30, 1.0)
    assert np.isneginf(np.asarray(evidence))
    np.testing.assert_allclose(np.asarray(after.probs), WEIGHTS, rtol=1e-5)
