"""Simulation-based calibration: a right posterior passes, a wrong one does not."""

import dataclasses

import numpy as np
import pytest
from conftest import INSTALLED
from helpers import refused
from scipy import stats

import ugmm_ppl as up
from ugmm_ppl.calibration import Calibration, sbc

pytestmark = pytest.mark.usefixtures("quick_compiler")

D = up.dist
X = np.linspace(-2.0, 2.0, 12)[:, None]
MODEL = up.Regressor(up.Network((1, 1), normalization=None), 1, prior=up.Prior(loc=D.Normal(0.0, 0.5)))
"""One neuron."""


class Shifted(up.Regressor):
    """A wrong log density: the data are taken to lie half a unit lower."""

    def mixture(self, ops, outputs):
        loc, scale, logits = super().mixture(ops, outputs)
        return loc + 0.5, 0.5 * scale, logits


@pytest.mark.skipif(not INSTALLED["numpyro"], reason="numpyro is not installed here")
def test_nuts_passes_and_a_wrong_density_does_not():
    settings = {"num_simulations": 160, "num_warmup": 150, "num_draws": 15, "thin": 8, "progress": False}
    right = sbc(MODEL, X, **settings)
    assert set(right.ranks) >= {"layers.0.loc[0,0]", "readout.weight[0,0]", "readout.bias[2]", "log_likelihood"}
    assert all(
        len(rank) == 160 and {0, 15} >= {min(rank.min(), 0), max(rank.max(), 15)} for rank in right.ranks.values()
    )
    assert right.p_value > 0.01, right.p_values
    wrong = Shifted(MODEL.network, MODEL.components, MODEL.prior)
    found = sbc(MODEL, X, fitted=wrong, **settings)
    assert found.p_value < 1e-6, found.p_values


def test_both_methods_run_on_both_backends(backend_name):
    """A few simulations each; every simulation sees its own data."""
    common = {"backend": backend_name, "num_simulations": 4, "num_draws": 7, "progress": False}
    for settings in ({"method": "svi", "num_steps": 20}, {"num_warmup": 10, "thin": 1, "max_tree_depth": 3}):
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
    with refused(ValueError, "x", "1"):
        sbc(MODEL, np.ones((3, 2)))
