"""Outcomes where numbers are large, small or few: wide counts, far limits, rounded proportions, censored rows."""

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl.data import Standardizer
from ugmm_ppl.likelihoods.information import information

of = up.likelihoods

WIDE = [of.Poisson(), of.NegativeBinomial(), of.Hurdle(of.NegativeBinomial()), of.ZeroInflated(of.NegativeBinomial())]


@pytest.mark.parametrize("likelihood", WIDE, ids=lambda each: type(each).__name__)
def test_a_row_does_not_depend_on_how_wide_others_are(likelihood):
    """Sums over counts take steps where there are many: each row its own."""
    narrow, wide = np.zeros((1, likelihood.width)), np.zeros((1, likelihood.width))
    narrow[:, -1], wide[:, -1], wide[:, 0] = 2.0, 2.0, 8.0
    both, y = np.concatenate([wide, narrow]), np.array([3000.0, 4.0])
    alone = likelihood.information(narrow)[0]
    np.testing.assert_allclose(likelihood.information(both)[1], alone, rtol=1e-9, atol=1e-9)
    score = likelihood.prediction(narrow[None, None], None, None).crps(y[1:])
    np.testing.assert_allclose(likelihood.prediction(both[None, None], None, None).crps(y)[1:], score, rtol=1e-9)
    exact = of.Poisson().information(np.array([[14.0, 1.0]]))[0, 0, 0]
    np.testing.assert_allclose(information(of.Poisson(), np.array([[14.0, 1.0]]))[0, 0, 0], exact, rtol=1e-3)


def test_far_quantiles_end():
    """Beyond 2^53 neighbouring numbers are more than one apart."""
    far = of.Poisson().prediction(np.array([[[[37.0, 1.0]]]]), None, None).quantile(0.95)
    np.testing.assert_allclose(far, np.exp(37.0), rtol=1e-6)


@pytest.mark.parametrize("loc", [-3.0, -50.0])
@pytest.mark.parametrize("base", [of.Normal(), of.LogNormal()])
def test_limits_so_far_out_that_no_mass_is_left_between_them(base, loc):
    law = of.Truncated(base, low=1.0).given(np.array([[loc, -5.0, 1.0, np.inf]]))
    for found in (law.mean, law.quantile(np.array([0.3])), law.sample(np.random.default_rng(0))):
        np.testing.assert_allclose(found, 1.0, rtol=0.05)
    assert np.isfinite(law.variance).all()
    np.testing.assert_allclose(law.cdf(np.array([2.0])) + law.survival(np.array([2.0])), 1.0)


def test_a_proportion_that_float32_rounds_to_one(backend):
    found = of.Beta().distribution(backend, backend.array(np.zeros((1, 2)))).log_prob(backend.array(np.array([1.0])))
    assert np.isfinite(backend.numpy(found)).all()


def test_profiles_of_censored_rows_are_of_the_outcome():
    likelihood = of.Censored(of.Normal())
    prediction = likelihood.prediction(
        np.array([[[[0.0, 0.0, 1.0, np.inf]]]]), Standardizer(np.array(5.0), np.array(3.0)), None
    )
    values, heights = prediction.profile(0, 6.0)
    assert abs(np.trapezoid(heights, values) - 1.0) < 0.02
