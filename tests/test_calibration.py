"""Simulation-based calibration: a right posterior passes, a wrong one does not."""

import dataclasses

import numpy as np
import pytest
from conftest import INSTALLED
from helpers import refused
from scipy import stats

import ugmm_ppl as up
from ugmm_ppl.calibration import Calibration, sbc

D = up.dist
X = np.random.default_rng(0).normal(size=(20, 2))
SPREAD = {"readout": np.array([[0.5], [0.5], [0.1]]), "readout_bias": np.array([1.0, 1.0, 0.3])}
PRIOR = up.Prior(
    loc=D.Normal(0.0, 0.5), log_scale=D.Normal(0.3, 0.3), **{name: D.Normal(0.0, s) for name, s in SPREAD.items()}
)
MODEL = up.Regressor(up.Network((2, 1), normalization=None), 1, prior=PRIOR)
"""One neuron of two inputs, with a posterior that NUTS explores well."""


class Shifted(up.likelihoods.Mixture):
    """What makes the data if the log density of the fit is wrong: they lie half a unit higher, and closer."""

    def of(self, ops, outputs):
        found = super().of(ops, outputs)
        return found | {"loc": found["loc"] + 0.5, "scale": 0.5 * found["scale"]}


@pytest.mark.long
@pytest.mark.skipif(not INSTALLED["numpyro"], reason="numpyro is not installed here")
def test_nuts_passes_and_a_wrong_density_does_not():
    settings = {"num_simulations": 64, "num_warmup": 120, "num_draws": 15, "thin": 3, "progress": False}
    right = sbc(MODEL, X, **settings)
    assert set(right.ranks) >= {"layers.0.loc[0,1]", "readout.weight[0,0]", "readout.bias[2]", "log_likelihood"}
    assert all(len(rank) == 64 and rank.min() >= 0 and rank.max() <= 15 for rank in right.ranks.values())
    assert right.p_value > 0.01, right.p_values
    wrong = sbc(up.Model(MODEL.network, Shifted(1), PRIOR), X, fitted=MODEL, **settings)  # what is compiled is the same
    assert wrong.p_value < 1e-6, wrong.p_values


@pytest.mark.long
def test_both_methods_run_on_both_backends(backend_name):
    """A few simulations each; every simulation sees its own data."""
    common = {"backend": backend_name, "num_simulations": 4, "num_draws": 7, "progress": False}
    svi, nuts = {"method": "svi", "num_steps": 20}, {"num_warmup": 10, "thin": 1, "max_tree_depth": 3}
    for settings in [svi, nuts] if backend_name == "pyro" else [svi]:  # NumPyro's sampler: the test above
        found = sbc(MODEL, X, **common, **settings)
        assert {rank.shape for rank in found.ranks.values()} == {(4,)}
        assert len(found.symmetry) == len(found.ranks)


def test_p_values_are_those_of_the_tests(rng):
    """Chi-square and Kolmogorov-Smirnov by SciPy on ranks that are uniform, too narrow, or off to one side."""
    uniform, narrow = rng.integers(0, 20, 400), rng.binomial(19, rng.beta(0.5, 0.5, 400))
    off = rng.binomial(19, rng.beta(1.0, 2.0, 400))
    found = Calibration({"uniform": uniform, "narrow": narrow, "off": off}, 19)
    assert found.histogram("uniform").tolist() == np.bincount(uniform, minlength=20).tolist()
    np.testing.assert_allclose(found.p_values["narrow"], stats.chisquare(np.bincount(narrow, minlength=20)).pvalue)
    assert found.p_values["uniform"] > 0.01 > 1e-6 > found.p_values["narrow"]
    assert found.symmetry["narrow"] > 0.01 > 1e-6 > found.symmetry["off"]
    assert found.p_value == min(1.0, 3 * min(found.p_values.values()))
    assert dataclasses.replace(found, ranks={"uniform": uniform[:20]}).histogram("uniform").shape == (4,)


def test_bad_settings_are_refused():
    with refused(ValueError, "method must be one of 'nuts', 'svi'; got 'map'"):
        sbc(MODEL, X, method="map")
    with refused(ValueError, "x must have 2 columns"):
        sbc(MODEL, np.ones((3, 1)))
    with refused(ValueError, "thin must be at least 1; got 0"):
        sbc(MODEL, X, thin=0)
    with refused(ValueError, "guide must be one of", "Did you mean 'normal'?"):
        sbc(MODEL, X, method="svi", guide="norm")
    with refused(ValueError, "learning_rate must lie in (0, inf)"):
        sbc(MODEL, X, learning_rate=0.0)
