"""Weights of restarts: two ways to find them, and their use in everything that averages over restarts."""

import numpy as np
import pytest
from scipy import optimize, special
from tolerances import ELBO32, EXACT64, ORACLE32

import ugmm_ppl as up
from ugmm_ppl.posterior import weighing

pytestmark = pytest.mark.usefixtures("quick_compiler")

WEIGHTS = np.array([0.7, 0.1, 0.2])


def score(weights, log_densities):
    """What stacking maximises."""
    return special.logsumexp(log_densities, b=weights[:, None], axis=0).mean()


@pytest.mark.parametrize(("chains", "rows"), [(1, 4), (2, 1), (2, 30), (5, 200), (12, 3), (8, 1000)])
def test_stacking_satisfies_the_conditions_of_the_maximum(rng, chains, rows):
    """On the simplex a concave function is within max_c slope_c - 1 of its maximum, as weights . slope = 1."""
    log_densities = rng.normal(size=(chains, 1)) + 2.0 * rng.normal(size=(chains, rows)) - 800.0
    weights = weighing.stacking_weights(log_densities)
    slope = np.exp(log_densities - special.logsumexp(log_densities, b=weights[:, None], axis=0)).mean(1)
    assert (weights >= 0.0).all()
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=EXACT64)
    assert slope.max() - 1.0 < 2e-9
    assert (weights * (1.0 - slope)).max() < 2e-9


def test_stacking_is_as_good_as_scipys_optimiser(rng):
    log_densities = rng.normal(size=(4, 50))
    start = np.full(4, 0.25)
    simplex = {"type": "eq", "fun": lambda w: w.sum() - 1.0}
    found = optimize.minimize(
        lambda w: -score(w, log_densities), start, method="SLSQP", bounds=[(0.0, 1.0)] * 4, constraints=[simplex],
        options={"ftol": 1e-13},
    )  # fmt: skip
    weights = weighing.stacking_weights(log_densities)
    assert score(weights, log_densities) >= -found.fun - 1e-10
    np.testing.assert_allclose(weights, found.x, atol=1e-4)


def test_stacking_in_closed_form():
    """Two restarts, one right in a share q of the rows and the other in the rest: the weights are q and 1 - q."""
    right = np.arange(40) < 12
    log_densities = np.where([right, ~right], 0.0, -np.inf)
    np.testing.assert_allclose(weighing.stacking_weights(log_densities), [0.3, 0.7], atol=1e-8)
    np.testing.assert_allclose(weighing.stacking_weights(np.zeros((3, 7))), np.full(3, 1.0 / 3.0), atol=1e-6)  # flat


def test_elbo_weights_are_a_softmax_of_the_last_tenth():
    losses = np.full((3, 20), 50.0)
    losses[:, -2:] = [[1.0, 2.0], [2.0, 2.0], [np.nan, np.nan]]
    losses[2, 17] = 40.0  # the last of 18 steps, after one of 50
    elbo = -np.array([1.5, 2.0, 45.0])
    np.testing.assert_allclose(weighing.elbo_weights(losses), special.softmax(elbo), rtol=EXACT64)
    losses[0] = np.nan
    assert weighing.elbo_weights(losses)[0] == 0.0


def weighed(fit):
    """The fit with given weights, through the public fields."""
    other = fit.weigh("equal")
    other.unequal_weights = WEIGHTS
    return other


def test_equal_weights_are_the_default_and_change_nothing(small_fits):
    regressor, (x, _) = small_fits.regressor, small_fits.held_out
    np.testing.assert_array_equal(regressor.weights, np.full(3, 1.0 / 3.0))
    again = regressor.weigh("elbo").weigh("equal")
    assert again.weighting == "equal"
    plain, explicit = regressor.predict(x, num_draws=3), again.predict(x, num_draws=3)
    np.testing.assert_array_equal(plain.mean, explicit.mean)
    explicit = weighed(regressor)
    explicit.unequal_weights = regressor.weights
    np.testing.assert_allclose(explicit.predict(x, num_draws=3).quantile(0.3), plain.quantile(0.3), rtol=1e-9)


def test_a_weighed_prediction_is_the_mixture_of_the_predictions_of_its_chains(small_fits):
    """Every quantity from those of each chain alone, by the rules of mixtures."""
    classifier, regressor, (x, y) = small_fits.classifier, small_fits.regressor, small_fits.held_out
    labels = (y > 0).astype(int)
    for fit, target in ((classifier, labels), (regressor, y)):
        prediction = weighed(fit).predict(x, num_draws=4)
        pointwise = special.logsumexp(fit.log_likelihood(x, target, 4), axis=1) - np.log(4.0)  # (C, B)
        expected = special.logsumexp(pointwise, b=WEIGHTS[:, None], axis=0)
        np.testing.assert_allclose(prediction.log_density(target), expected, rtol=1e-5)  # float32 outputs
        np.testing.assert_array_equal(prediction.draws, fit.predict(x, num_draws=4).draws)
    whole = classifier.predict(x, num_draws=4).draws
    np.testing.assert_allclose(
        weighed(classifier).predict(x, num_draws=4).probs, np.average(whole.mean(1), 0, WEIGHTS), rtol=EXACT64
    )
    one = weighed(regressor).predict(x, num_draws=4)
    whole = one.draws.mean(1)
    np.testing.assert_allclose(one.mean, np.average(whole, 0, WEIGHTS), rtol=1e-5)
    np.testing.assert_allclose(one.cdf(one.quantile(0.2)), 0.2, rtol=1e-9)
    samples = one.samples(20000, seed=1)
    assert np.abs((samples.mean(0) - one.mean) / one.std * np.sqrt(20000)).max() < 5.0
    np.testing.assert_allclose((samples < one.quantile(0.2)).mean(0), 0.2, atol=0.02)


def test_a_weight_of_one_leaves_that_chain_alone(small_fits):
    regressor, (x, y) = small_fits.regressor, small_fits.held_out
    other = weighed(regressor)
    other.unequal_weights = np.array([0.0, 1.0, 0.0])
    alone = np.log(np.exp(regressor.log_likelihood(x, y, 3)[1]).mean(0))
    np.testing.assert_allclose(other.predict(x, num_draws=3).log_density(y), alone, rtol=1e-5)


def test_stacking_of_a_fit_raises_its_held_out_score_and_is_kept_in_a_file(small_fits, tmp_path):
    classifier, regressor, (x, y) = small_fits.classifier, small_fits.regressor, small_fits.held_out
    for fit, target in ((classifier, (y > 0).astype(int)), (regressor, y)):
        stacked = fit.weigh("stacking", x, target, num_draws=4)
        before, after = (f.predict(x, num_draws=4).log_density(target).mean() for f in (fit, stacked))
        assert after >= before - 1e-6
        assert fit.weighting == "equal"
        stacked.save(tmp_path / "fit.npz")
        loaded = up.load(tmp_path / "fit.npz")
        assert loaded.weighting == "stacking"
        np.testing.assert_array_equal(loaded.weights, stacked.weights)
        found, kept = (f.predict(x, num_draws=4).log_density(target) for f in (loaded, stacked))
        np.testing.assert_allclose(found, kept, rtol=ORACLE32)  # compiled apart


def test_elbo_weights_of_a_fit_are_those_of_its_losses(small_fits):
    regressor = small_fits.regressor  # at temperature 1, where a loss is a negative ELBO
    np.testing.assert_allclose(
        regressor.weigh("elbo").weights, weighing.elbo_weights(regressor.losses.astype(float)), rtol=ELBO32
    )


def test_weights_are_with_the_statistics_of_the_arviz_tree(small_fits):
    fit = weighed(small_fits.regressor)
    tree = fit.to_arviz(num_draws=3, num_prior_draws=2)
    found = tree["sample_stats"]["chain_weight"]
    assert found.dims == ("chain", "draw")
    np.testing.assert_array_equal(found.values, np.repeat(np.array(WEIGHTS)[:, None], 3, 1))
    bias = tree["posterior"]["readout.bias"]
    np.testing.assert_array_equal(bias.values, small_fits.regressor.posterior(3)["readout.bias"])
    mean = bias.weighted(found).mean(("chain", "draw"))
    np.testing.assert_allclose(mean.values, np.average(bias.values.mean(1), 0, WEIGHTS), rtol=1e-6)


def test_ways_that_do_not_apply_are_refused_with_the_reason(small_fits):
    regressor, (x, y) = small_fits.regressor, small_fits.held_out
    with pytest.raises(ValueError, match=r"how must be one of .*; got 'stack'\. Did you mean 'stacking'\?"):
        regressor.weigh("stack")
    with pytest.raises(ValueError, match=r"need x and y of held-out rows; got none"):
        regressor.weigh("stacking")
    with pytest.raises(ValueError, match=r"held-out rows; got rows that the fit was trained on, .* overfits"):
        regressor.weigh("stacking", regressor.train_x, regressor.train_y)
    with pytest.raises(ValueError, match=r"trained on"):
        regressor.weigh("stacking", regressor.train_x[3:7], regressor.train_y[3:7])
    with pytest.raises(ValueError, match=r"weights by 'elbo' use no data"):
        regressor.weigh("elbo", x, y)
    for change in ({"method": "map"}, {"temperature": 0.5}):
        other = regressor.weigh("equal")
        for name, value in change.items():
            setattr(other, name, value)
        with pytest.raises(ValueError, match=r"need method='svi' and temperature=1\.0, .* Use 'stacking'"):
            other.weigh("elbo")
