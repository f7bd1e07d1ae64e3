"""Extra columns of rows, parameters that all rows share, censored and truncated rows: in fits and all that follows."""

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl import metrics

of = up.likelihoods
X = np.random.default_rng(0).normal(size=(60, 2))
SETTINGS = {"num_steps": 30, "progress": False}


def test_shared_parameters_are_sites_with_priors(backend_name, tmp_path):
    """Of the model, of its posterior, of ArviZ and of files; a prior of them holds."""
    likelihood = of.NegativeBinomial(shared=("concentration",))
    prior = up.Prior(likelihood={"log_concentration": up.dist.Normal(3.0, 1e-3)})
    model = up.Model(up.Network((2, 4)), likelihood, prior=prior)
    assert list(model.sites)[-1] == "likelihood.log_concentration"
    assert model.body.output_shape((2,)) == (1,)
    drawn = prior.predictive(model, X, num_draws=4, backend=backend_name)
    assert drawn["outputs"].shape == (4, 60, 3)
    np.testing.assert_allclose(drawn["outputs"][..., 1], 3.0, atol=0.01)
    y = np.random.default_rng(1).poisson(3.0, 60)
    fit = up.fit(model, X, y, backend=backend_name, **SETTINGS)
    assert fit.posterior(3)["likelihood.log_concentration"].shape == (1, 3, 1)
    drawn = fit.posterior(3)["likelihood.log_concentration"]
    np.testing.assert_allclose(fit.outputs(X, num_draws=3)[..., 1], np.repeat(drawn, 60, 2), rtol=1e-6)
    fit.save(tmp_path / "fit.npz")
    assert repr(up.load(tmp_path / "fit.npz").model.prior) == repr(prior)
    with pytest.raises(ValueError, match=r"Prior.likelihood.*'log_concentration'; got 'log_scale'"):
        up.Model(up.Network((2, 4)), likelihood, prior=up.Prior(likelihood={"log_scale": up.dist.Normal(0.0, 1.0)}))
    with pytest.raises(TypeError, match=r"Prior.likelihood\['log_concentration'\] must be a distribution"):
        up.Prior(likelihood={"log_concentration": 1.0})


def test_exposure_multiplies_the_rate(backend_name, tmp_path):
    """Half the exposure is half the mean; a fit that was given it asks for it again."""
    model = up.Model(up.Network((2, 4)), of.Poisson())
    exposure = np.random.default_rng(1).uniform(0.5, 4.0, 60)
    y = np.random.default_rng(2).poisson(2.0 * exposure)
    fit = up.fit(model, X, y, exposure=exposure, backend=backend_name, **SETTINGS)
    whole = fit.predict(X, exposure=exposure, num_draws=5)
    np.testing.assert_allclose(fit.predict(X, exposure=exposure / 2.0, num_draws=5).mean, whole.mean / 2.0, rtol=1e-6)
    np.testing.assert_allclose(
        next(fit.predict_iter(X, exposure=exposure, num_draws=5, chunk_size=7)).mean, whole.mean[:7], rtol=1e-6
    )
    np.testing.assert_array_equal(fit.extras_of(fit.train_x)["exposure"], exposure)
    message = "this fit was made with exposure= beside x, and needs them for all rows; got none"
    for ask in (fit.predict, fit.outputs, fit.sample_predictive, fit.sample_functions(2), fit.to_arviz):
        with pytest.raises(ValueError, match=message):
            ask(X, *([y] if ask == fit.to_arviz else []))
    with pytest.raises(ValueError, match=message):
        fit.log_likelihood(X, y)
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.predict(X, exposure=exposure, num_draws=5).mean, whole.mean)
    with pytest.raises(ValueError, match=message):
        again.predict(X)
    tree = again.to_arviz(X, y, exposure=exposure, num_draws=3, num_prior_draws=2)
    np.testing.assert_array_equal(tree["constant_data"]["exposure"].values, exposure)
    without = up.fit(model, X, y, backend=backend_name, **SETTINGS)
    with pytest.raises(ValueError, match=r"made with no extra columns beside x.*got exposure="):
        without.predict(X, exposure=exposure)


def test_prior_predictive_draws_take_extra_columns(backend_name):
    model, trials = up.Model(up.Network((2, 4)), of.Binomial()), np.arange(1, 61)
    drawn = up.Prior().predictive(model, X, num_draws=20, backend=backend_name, trials=trials)
    assert (drawn["y"] <= trials).all()
    assert drawn["y"].max() > 20
    with pytest.raises(ValueError, match="the likelihood Binomial needs trials= beside x"):
        up.Prior().predictive(model, X, num_draws=2, backend=backend_name)


def test_twice_the_weight_is_the_row_twice_with_its_extras(backend_name):
    model = up.Model(up.Network((2, 4)), of.Binomial())
    trials = np.random.default_rng(1).integers(1, 9, 60)
    y, twice = np.random.default_rng(2).binomial(trials, 0.4), np.r_[np.arange(60), np.arange(20)]
    weights = np.where(np.arange(60) < 20, 2.0, 1.0)
    given = {"backend": backend_name, "method": "map", "dtype": "float64", "standardize": False, **SETTINGS}
    once = up.fit(model, X, y, trials=trials, weights=weights, **given)
    double = up.fit(model, X[twice], y[twice], trials=trials[twice], **given)
    assert abs(once.losses[0, 0] / double.losses[0, 0] - 1.0) < 1e-12


BAD = [
    (of.Poisson(), {}, np.array([1.0, -1.0]), r"y must hold counts 0, 1, 2, \.\.\.; got -1.0 in row 1"),
    (of.NegativeBinomial(), {}, np.array([1.5, 1.0]), r"y must hold counts 0, 1, 2, \.\.\.; got 1.5 in row 0"),
    (of.Gamma(), {}, np.array([1.0, 0.0]), r"y must hold positive numbers; got 0.0 in row 1"),
    (of.LogNormal(), {}, np.array([1.0, -2.0]), r"y must hold positive numbers; got -2.0 in row 1"),
    (of.Beta(), {}, np.array([1.0, 0.5]), r"y must hold proportions, 0 < y < 1; got 1.0 in row 0"),
    (of.Bernoulli(), {}, np.array([1.0, 2.0]), r"y must hold 0 or 1; got 2.0 in row 1"),
    (of.Ordinal(3), {}, np.array([0, 3]), r"y must lie in 0\.\.2 .*got 3 in row 1"),
    (of.Normal(), {}, np.array([0.0, np.nan]), r"y .*row 1"),
    (of.Binomial(), {}, np.array([1.0, 2.0]), r"the likelihood Binomial needs trials= beside x"),
    (of.Binomial(), {"trials": [3, 1]}, np.array([1.0, 2.0]), r"at most the number of trials .*got 2 of 1 in row 1"),
    (of.Binomial(), {"trials": [3, 0.5]}, np.array([1.0, 0.0]), r"trials must hold whole numbers .*got 0.5 in row 1"),
    (
        of.Poisson(),
        {"exposure": [1.0, 0.0]},
        np.array([1.0, 0.0]),
        "exposure must hold positive numbers; got 0.0 in",
    ),
    (
        of.Poisson(),
        {"exposure": [1.0]},
        np.array([1.0, 0.0]),
        "exposure must hold one number per row of x",
    ),
    (of.Censored(of.Normal()), {"censored": ["none", "up"]}, np.array([1.0, 0.0]), r"one of 'none'.*got 'up' in row 1"),
    (
        of.Censored(of.Normal()),
        {"censored": [3, 0]},
        np.array([1.0, 0.0]),
        r"censored must hold codes .*got 3.0 in row",
    ),
    (
        of.Censored(of.Normal()),
        {"censored": [0, 2], "upper": [9.0, 0.0]},
        np.array([1.0, 0.5]),
        r"must end above its beginning, y < upper; got y = 0.5 and upper = 0 in row 1",
    ),
    (of.Truncated(of.Normal(), high=0.5), {}, np.array([0.0, 1.0]), r"must lie between its limits; got 1 .*in row 1"),
    (
        of.Truncated(of.Normal()),
        {"lower_limit": [3.0, 0.0], "upper_limit": [1.0, 9.0]},
        np.array([2.0, 1.0]),
        r"got 2 with the limits 3 and 1 in row 0",
    ),
    (of.Poisson(), {"trials": [1, 1]}, np.array([1.0, 0.0]), r"the likelihood Poisson takes 'exposure'; got trials="),
]


@pytest.mark.parametrize(("likelihood", "extras", "y", "message"), BAD)
def test_what_does_not_fit_is_refused(backend_name, likelihood, extras, y, message):
    x = np.array([[0.0, 1.0], [1.0, 0.0]])
    with pytest.raises(ValueError, match=message):
        up.fit(up.Model(up.Network((2, 4)), likelihood), x, y, backend=backend_name, **extras, **SETTINGS)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: of.Normal(shared=("sd",)), ValueError, "must name parameters of Normal, 'loc', 'scale'; got 'sd'"),
        (lambda: of.Normal(shared="scale"), TypeError, "shared must be a tuple of names"),
        (lambda: of.Normal(shared=("loc", "scale")), ValueError, "must leave a parameter of Normal to the network"),
        (lambda: of.Hurdle("poisson"), TypeError, "base of Hurdle must be a family.*got 'poisson'"),
        (lambda: of.Hurdle(of.Gamma()), ValueError, "base of Hurdle must be one of counts"),
        (lambda: of.ZeroInflated(of.Normal()), ValueError, "base of ZeroInflated must be one of counts"),
        (lambda: of.Censored(of.Poisson()), ValueError, "base of Censored must have exact tails"),
        (lambda: of.Truncated(of.Normal(), 1.0, 0.0), ValueError, "Truncated needs low < high; got 1 and 0"),
        (lambda: of.Ordinal(1), ValueError, "levels must be"),
        (lambda: of.Ordinal(3, "cloglog"), ValueError, "link must be one of 'logit', 'probit'"),
    ],
)  # fmt: skip
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_what_is_known_of_censored_rows_moves_the_fit(backend_name, tmp_path):
    """Half of the rows are only known to lie above 10: predictions go beyond; other kinds are taken too."""
    rng = np.random.default_rng(5)
    outcome = 10.0 + 3.0 * rng.normal(size=60)
    y, code = np.minimum(outcome, 10.0), np.where(outcome > 10.0, "right", "none")
    model = up.Model(up.Network((2, 4)), of.Censored(of.Mixture(2)))
    given = {"backend": backend_name, "method": "map", "num_steps": 200, "learning_rate": 0.05, "progress": False}
    fit = up.fit(model, X, y, censored=code, **given)
    blind = up.fit(up.Regressor(up.Network((2, 4)), 2), X, y, **given)
    above = fit.predict(X).survival(np.full(60, 10.0)).mean()
    assert above > 1.0 - blind.predict(X).cdf(np.full(60, 10.0)).mean() + 0.1
    known = fit.log_likelihood(X, y, censored=code)[0, 0]
    np.testing.assert_allclose(known, fit.predict(X, censored=code).log_density(y), rtol=1e-5, atol=1e-5)
    free = code == "none"
    np.testing.assert_allclose(known[free], fit.predict(X).log_density(y)[free], rtol=1e-5)
    survival = fit.predict(X).survival(y)
    np.testing.assert_allclose(known[~free], np.log(survival[~free]), rtol=1e-4, atol=1e-5)
    assert 0.0 <= fit.predict(X, censored=code).metrics(y)["concordance"] <= 1.0
    fit.save(tmp_path / "fit.npz")
    assert up.load(tmp_path / "fit.npz").model.likelihood == model.likelihood
    codes = np.resize([0.0, 1.0, -1.0, 2.0], 60)
    wide = up.fit(
        model, X, y, censored=codes, upper=np.where(codes == 2.0, y + 1.0, np.nan), **(given | {"num_steps": 5})
    )
    assert np.isfinite(wide.losses).all()


def test_limits_are_in_the_units_of_y(backend_name):
    """Truncated and standardised: predictions stay within, and rows may bring limits of their own."""
    y = np.abs(np.random.default_rng(5).normal(size=60)) * 40.0 + 100.0
    model = up.Model(up.Network((2, 4)), of.Truncated(of.Normal(), low=100.0))
    given = {"backend": backend_name, "method": "map", "num_steps": 100, "learning_rate": 0.05, "progress": False}
    fit = up.fit(model, X, y, **given)
    prediction = fit.predict(X)
    assert prediction.samples(200).min() >= 100.0 - 1e-4
    assert (prediction.mean > 100.0).all()
    np.testing.assert_allclose(prediction.cdf(np.full(60, 100.0)), 0.0, atol=1e-6)  # limits are float32
    own = up.fit(model, X, y, upper_limit=np.full(60, 500.0), **given)
    assert own.predict(X, upper_limit=np.full(60, 120.0)).samples(50).max() <= 120.0 + 1e-4
    with pytest.raises(ValueError, match=r"this fit was made with upper_limit= beside x"):
        own.predict(X)


def test_limits_that_are_reached(backend_name):
    """y at its limit, standardised in float32; held-out rows have the limits too."""
    y = np.maximum(np.random.default_rng(5).normal(size=60) * 7.3 + 103.0, 101.7)
    model = up.Model(up.Network((2, 4)), of.Truncated(of.Normal(), low=101.7))
    fit = up.fit(model, X, y, backend=backend_name, validation=(X, y), **SETTINGS)
    assert np.isfinite(fit.scores).all()
    known = fit.log_likelihood(num_draws=3)
    assert np.isfinite(known).all()
    np.testing.assert_allclose(fit.scores[0, -1], known.mean(), atol=0.5)  # with other draws


def test_extra_columns_are_not_ignored(backend_name):
    """Without their rows, beside rows that have theirs, and where y and they do not belong together."""
    model, y = up.Model(up.Network((2, 4)), of.Censored(of.Normal())), X[:, 0]
    code = np.resize([0.0, 1.0], 60)
    fit = up.fit(model, X, y, censored=code, backend=backend_name, **SETTINGS)
    for ask in (fit.log_likelihood, fit.log_p, fit.to_arviz):
        with pytest.raises(ValueError, match="censored= belong to rows x; got them without x"):
            ask(censored=code)
    with pytest.raises(ValueError, match="censored= belong to rows x"):
        fit.predict(fit.train_x, censored=code)
    with pytest.raises(ValueError, match="must end above its beginning"):
        fit.log_likelihood(X, y, censored=np.full(60, "interval"))
    with pytest.raises(ValueError, match="this fit was made with censored= beside x"):
        fit.log_likelihood(X, y)
    batches = [X[:7], X[7:9]]
    assert [len(each.mean) for each in fit.predict_iter(batches, num_draws=3)] == [7, 2]
    counted = up.Model(up.Network((2, 4)), of.ZeroInflated(of.Binomial()))
    with pytest.raises(ValueError, match="got 9 of 2 in row 0"):
        up.fit(counted, X, np.full(60, 9.0), trials=np.full(60, 2.0), backend=backend_name, **SETTINGS)


def test_many_censored_rows_are_diagnosed(backend_name):
    """More rows than are looked at one by one."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(2100, 2)), rng.normal(size=2100)
    model = up.Model(up.Network((2, 3)), of.Censored(of.Normal()))
    fit = up.fit(model, x, y, censored=np.arange(2100) % 2, backend=backend_name, num_steps=3, progress=False)
    assert len(list(fit.diagnose(num_draws=4, more_steps=False))) > 5


def test_concordance_counts_pairs_by_weights():
    y, predicted, code = np.arange(4.0), np.array([0.0, 3.0, 1.0, 2.0]), np.zeros(4)
    weights = np.array([1.0, 2.0, 0.0, 1.0])
    twice = np.array([0, 1, 1, 3])
    assert metrics.concordance(predicted, y, code, row_weights=weights) == pytest.approx(
        metrics.concordance(predicted[twice], y[twice], code[twice])
    )


def test_concordance():
    """Against counting pairs by hand; nothing is known of a pair whose earlier time is censored."""
    y, code = np.array([1.0, 2.0, 3.0, 2.0]), np.array([0.0, 1.0, 0.0, 0.0])
    # known: 1 before each other row; 2 (observed) before 3 and before the censored 2
    assert metrics.concordance(np.array([1.0, 2.0, 3.0, 2.5]), y, code) == pytest.approx(4.0 / 5.0)
    assert metrics.concordance(np.array([5.0, 5.0, 5.0, 5.0]), y, code) == 0.5
    assert np.isnan(metrics.concordance(np.array([1.0, 2.0]), np.array([1.0, 1.0]), np.array([1.0, 1.0])))


def test_held_out_rows_of_a_fit_with_extras_are_a_share(backend_name):
    model, y = up.Model(up.Network((2, 4)), of.Poisson()), np.ones(60)
    fit = up.fit(model, X, y, exposure=np.ones(60), backend=backend_name, validation=0.2, **SETTINGS)
    assert np.isfinite(fit.scores).all()
    with pytest.raises(ValueError, match="validation must be a share of the rows where these bring along exposure="):
        up.fit(model, X, y, exposure=np.ones(60), backend=backend_name, validation=(X, y), **SETTINGS)
