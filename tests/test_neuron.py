"""Equations (1) and (2) against oracles from outside."""

import numpy as np
import pytest
from scipy import stats
from tolerances import EXACT64

from ugmm_ppl import neuron
from ugmm_ppl.ops import NUMPY


def loop_activation(x, loc, scale, weights):
    """Equation (2) by the slowest of loops."""
    out = np.empty((len(x), len(loc)))
    for b in range(len(x)):
        for j in range(len(loc)):
            density = sum(weights[j, k] * stats.norm.pdf(x[b, k], loc[j, k], scale[j, k]) for k in range(x.shape[1]))
            out[b, j] = np.log(density)
    return out


def draw_layer(rng, neurons, inputs):
    """Parameters of a layer: loc, scale, weights."""
    scale = np.exp(rng.normal(-0.3, 0.5, (neurons, inputs)))
    return rng.normal(size=(neurons, inputs)), scale, rng.dirichlet(np.ones(inputs), neurons)


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 5), (4, 7, 1)])
def test_activation_is_equation_2(backend64, rng, shape):
    rows, neurons, inputs = shape
    loc, scale, weights = draw_layer(rng, neurons, inputs)
    x = rng.normal(size=(rows, inputs))
    got = neuron.activation(backend64.ops, *(backend64.array(a) for a in (x, loc, scale, np.log(weights))))
    np.testing.assert_allclose(np.asarray(got), loop_activation(x, loc, scale, weights), rtol=EXACT64, atol=EXACT64)
    np.testing.assert_allclose(neuron.activation(NUMPY, x, loc, scale, np.log(weights)), np.asarray(got), rtol=EXACT64, atol=EXACT64)
