"""Families of outcomes: densities against mpmath, derivatives at the edges, predictions, shared parameters, extras."""

import itertools

import mpmath as mp
import numpy as np
import pytest
import scoringrules
from helpers import gradients
from scipy import stats
from tolerances import GRADIENT64

import ugmm_ppl as up

of = up.likelihoods
mp.mp.dps = 150


def expit(x):
    return 1 / (1 + mp.exp(-x))


def count_log_p(name, outputs, y):
    """log p(y) of a count, by its definition."""
    if name == "Poisson":
        mean = mp.exp(outputs[0]) * outputs[-1]
        return y * mp.log(mean) - mean - mp.loggamma(y + 1)
    mean, c = mp.exp(outputs[0]) * outputs[-1], mp.exp(outputs[1])
    ways = mp.loggamma(y + c) - mp.loggamma(c) - mp.loggamma(y + 1)
    return ways + c * mp.log(c / (c + mean)) + y * mp.log(mean / (c + mean))


def log_p(likelihood, outputs, y):
    """log p(y | complete outputs) to 150 digits."""
    o, y, name = [mp.mpf(float(v)) for v in outputs], mp.mpf(float(y)), type(likelihood).__name__
    if name in ("Normal", "LogNormal"):
        at, scale = (y if name == "Normal" else mp.log(y)), mp.exp(o[1])
        found = -((at - o[0]) ** 2) / (2 * scale**2) - mp.log(scale) - mp.log(2 * mp.pi) / 2
        return found - (mp.log(y) if name == "LogNormal" else 0)
    if name == "StudentT":
        scale, df = mp.exp(o[1]), mp.exp(o[2])
        z = (y - o[0]) / scale
        norm = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2 - mp.log(scale)
        return norm - (df + 1) / 2 * mp.log(1 + z**2 / df)
    if name == "Gamma":
        c = mp.exp(o[1])
        rate = c / mp.exp(o[0])
        return c * mp.log(rate) + (c - 1) * mp.log(y) - rate * y - mp.loggamma(c)
    if name == "Beta":
        c, p = mp.exp(o[1]), expit(o[0])
        a, b = c * p, c * (1 - p)
        norm = mp.loggamma(c) - mp.loggamma(a) - mp.loggamma(b)
        return norm + (a - 1) * mp.log(y) + (b - 1) * mp.log(1 - y)
    if name in ("Bernoulli", "Binomial"):
        n, p = (o[1] if name == "Binomial" else 1), expit(o[0])
        return mp.log(mp.binomial(n, y)) + y * mp.log(p) + (n - y) * mp.log(1 - p)
    if name in ("Poisson", "NegativeBinomial"):
        return count_log_p(name, o, y)
    if name in ("ZeroInflated", "Hurdle"):
        base, z = type(likelihood.base).__name__, expit(o[-2])
        here, zero = mp.exp(count_log_p(base, [*o[:-2], o[-1]], y)), mp.exp(count_log_p(base, [*o[:-2], o[-1]], 0))
        if name == "ZeroInflated":
            return mp.log((z if y == 0 else 0) + (1 - z) * here)
        return mp.log(z) if y == 0 else mp.log((1 - z) * here / (1 - zero))
    cuts = list(itertools.accumulate([o[1], *map(mp.exp, o[2:])]))
    cdf = expit if likelihood.link == "logit" else lambda x: mp.erfc(-x / mp.sqrt(2)) / 2
    at = [mp.mpf(0), *(cdf(cut - o[0]) for cut in cuts), mp.mpf(1)]
    return mp.log(at[int(y) + 1] - at[int(y)])


REAL, POSITIVE, COUNTS = (-3.0, 0.1, 5.0), (1e-6, 0.7, 40.0), (0.0, 1.0, 7.0)
ROWS = {
    "Normal": (of.Normal(), [(0.3, -1.0), (2.0, 1.5)], REAL),
    "StudentT": (of.StudentT(), [(0.3, -1.0, 0.5), (2.0, 1.5, 4.0)], REAL),
    "LogNormal": (of.LogNormal(), [(0.3, -0.5), (-1.0, 1.0)], POSITIVE),
    "Gamma": (of.Gamma(), [(0.3, -1.0), (-1.0, 3.0)], POSITIVE),
    "Beta": (of.Beta(), [(0.3, -1.0), (-3.0, 4.0)], (1e-9, 0.5, 1.0 - 1e-9)),
    "Bernoulli": (of.Bernoulli(), [(0.3,), (-35.0,), (35.0,)], (0.0, 1.0)),
    "Binomial": (of.Binomial(), [(0.3, 7.0), (-35.0, 9.0), (20.0, 7.0)], COUNTS),
    "Poisson": (of.Poisson(), [(0.3, 1.0), (-20.0, 0.5), (3.0, 7.0)], COUNTS),
    "NegativeBinomial": (of.NegativeBinomial(), [(0.3, -2.0, 1.0), (-15.0, 1.0, 0.5), (3.0, 6.0, 7.0)], COUNTS),
    "ZeroInflated": (of.ZeroInflated(of.Poisson()), [(0.3, 0.2, 1.0), (1.0, -30.0, 0.5), (1.0, 30.0, 2.0)], COUNTS),
    "ZeroInflated NB": (of.ZeroInflated(of.NegativeBinomial()), [(0.3, 1.0, 0.2, 1.0), (2.0, -2.0, -9.0, 2.0)], COUNTS),
    "Hurdle": (of.Hurdle(of.Poisson()), [(0.3, 0.2, 1.0), (-20.0, -30.0, 0.5), (2.0, 30.0, 2.0)], COUNTS),
    "Hurdle NB": (of.Hurdle(of.NegativeBinomial()), [(0.3, 1.0, 0.2, 1.0), (-12.0, -2.0, -9.0, 2.0)], COUNTS),
    "Ordinal": (of.Ordinal(4), [(0.3, -1.0, 0.0, -8.0), (9.0, -1.0, 0.5, 1.0), (-9.0, 0.0, 2.0, 0.0)], range(4)),
    "Ordinal, probit": (of.Ordinal(3, "probit"), [(0.3, -1.0, 0.0), (9.0, -1.0, -1.0), (-9.0, 0.0, 2.0)], range(3)),
    "Ordinal of two": (of.Ordinal(2), [(0.3, -1.0), (30.0, 0.0)], range(2)),
}
"""Likelihood, complete outputs and outcomes; edges, and far from them."""

each = pytest.mark.parametrize("name", ROWS)


def grid(name):
    """Every outputs with every outcome: (likelihood, outputs, y)."""
    likelihood, outputs, outcomes = ROWS[name]
    pairs = list(itertools.product(outputs, outcomes))
    return likelihood, np.array([o for o, _ in pairs]), np.array([float(y) for _, y in pairs])


@each
def test_densities_are_exact(backend64, name):
    likelihood, outputs, y = grid(name)
    want = np.array([float(log_p(likelihood, *row)) for row in zip(outputs, y, strict=True)])
    np.testing.assert_allclose(likelihood.log_prob(outputs, y), want, rtol=1e-10, atol=1e-10)
    of_ppl = likelihood.distribution(backend64, backend64.array(outputs)).log_prob(backend64.array(y))
    np.testing.assert_allclose(backend64.numpy(of_ppl), want, rtol=1e-10, atol=1e-10)


@each
def test_derivatives_are_those_of_finite_differences(backend64, name):
    """With respect to all complete outputs but extra columns, at the edges too."""
    likelihood, outputs, y = grid(name)
    own = outputs.shape[1] - len(likelihood.extras)
    rest, observed = backend64.array(outputs[:, own:]), backend64.array(y)

    def total(moved):
        whole = backend64.ops.concat([moved, rest])
        return likelihood.distribution(backend64, whole).log_prob(observed).sum()

    _, (found,) = gradients(backend64, total, [outputs[:, :own]])
    for i in range(own):
        step = 1e-5 * np.eye(outputs.shape[1])[i]
        ends = [likelihood.log_prob(outputs + sign * step, y) for sign in (1.0, -1.0)]
        want = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(found[:, i], want, rtol=GRADIENT64, atol=GRADIENT64)


@each
def test_distribution_functions_are_sums_of_densities(name):
    likelihood, outputs, y = grid(name)
    law = likelihood.given(outputs)
    total = law.cdf(y) + law.survival(y)
    np.testing.assert_allclose(total, 1.0, rtol=1e-12)
    if likelihood.discrete:
        below = [np.exp(likelihood.log_prob(outputs, np.full(len(y), k))) for k in np.arange(y.max() + 1.0)]
        want = np.sum([np.where(k <= y, p, 0.0) for k, p in enumerate(below)], 0)
        np.testing.assert_allclose(law.cdf(y), want, rtol=1e-10, atol=1e-12)
        assert (law.cdf(np.full(len(y), -1.0)) == 0.0).all()
    level = 0.5 * (law.cdf(y) + law.cdf(y - 1.0)) if likelihood.discrete else law.cdf(y)
    inside = (level > 1e-8) & (level < 1.0 - 1e-8)
    found = law.quantile(np.where(inside, level, 0.5))
    np.testing.assert_allclose(found[inside], y[inside], rtol=1e-6)


@each
def test_samples_follow_the_distribution_function(backend64, name):
    """Of the law, and of the PPL's distribution: randomised PIT is uniform."""
    likelihood, outputs, _ = grid(name)
    moderate = np.abs(outputs[:, : outputs.shape[1] - len(likelihood.extras)]).max(1) < 8.5
    many = np.repeat(outputs[moderate][:1], 4000, 0)
    rng = np.random.default_rng(3)
    with backend64.inference.seeded(4):
        distribution = likelihood.distribution(backend64, backend64.array(many))
        drawn = backend64.numpy(backend64.sample("y", distribution)).astype(np.float64)
    law = likelihood.given(many)
    for y in (law.sample(rng), drawn):
        below = law.cdf(y - 1.0) if likelihood.discrete else law.cdf(y)
        u = below + rng.uniform(size=len(y)) * (law.cdf(y) - below)
        assert stats.kstest(u, "uniform").pvalue > 1e-3


SCORED = {
    "Normal": lambda y, o: scoringrules.crps_normal(y, o[0], np.exp(o[1])),
    "LogNormal": lambda y, o: scoringrules.crps_lognormal(y, o[0], np.exp(o[1])),
    "Gamma": lambda y, o: scoringrules.crps_gamma(y, np.exp(o[1]), rate=np.exp(o[1] - o[0])),
    "Binomial": lambda y, o: scoringrules.crps_binomial(y, o[1], 1.0 / (1.0 + np.exp(-o[0]))),
    "Poisson": lambda y, o: scoringrules.crps_poisson(y, np.exp(o[0]) * o[1]),
    "StudentT": lambda y, o: scoringrules.crps_t(y, np.exp(o[2]), o[0], np.exp(o[1])),
}


@pytest.mark.parametrize("name", SCORED)
def test_crps_is_that_of_scoringrules(name):
    likelihood, outputs, y = grid(name)
    prediction = likelihood.prediction(outputs[None, None], None, None)
    want = [SCORED[name](at, row) for at, row in zip(y, outputs, strict=True)]
    np.testing.assert_allclose(prediction.crps(y), want, rtol=2e-3, atol=2e-4)


def test_an_outcome_answers_for_the_mixture_of_draws(rng):
    """In the units of the data, with weights of chains; against sums over draws by hand."""
    outputs, weights = rng.normal(size=(2, 3, 5, 2)), np.array([0.3, 0.7])
    units = up.data.Standardizer(np.array(10.0), np.array(4.0))
    prediction = of.Normal().prediction(outputs, units, None, weights)
    loc, scale = 10.0 + 4.0 * outputs[..., 0], 4.0 * np.exp(outputs[..., 1])
    share = np.repeat(weights / 3.0, 3).reshape(2, 3, 1)
    y = np.linspace(5.0, 15.0, 5)
    np.testing.assert_allclose(prediction.mean, (share * loc).sum((0, 1)))
    second = (share * (scale**2 + loc**2)).sum((0, 1))
    np.testing.assert_allclose(prediction.std, np.sqrt(second - prediction.mean**2))
    np.testing.assert_allclose(prediction.log_density(y), np.log((share * stats.norm.pdf(y, loc, scale)).sum((0, 1))))
    np.testing.assert_allclose(prediction.cdf(y), (share * stats.norm.cdf(y, loc, scale)).sum((0, 1)))
    np.testing.assert_allclose(prediction.survival(y), (share * stats.norm.sf(y, loc, scale)).sum((0, 1)))
    np.testing.assert_allclose(prediction.draws, loc)
    low, high = prediction.interval(0.8)
    np.testing.assert_allclose(prediction.cdf(low), 0.1, rtol=1e-8)
    np.testing.assert_allclose(prediction.survival(high), 0.1, rtol=1e-8)
    assert np.abs(prediction.samples(20_000).mean(0) - prediction.mean).max() < 0.3
    np.testing.assert_array_equal(prediction.pit(y), prediction.cdf(y))
    assert list(prediction.columns(None)) == ["mean", "std", "q05", "q50", "q95"]
    with pytest.raises(AttributeError, match="Normal has infinitely many outcomes, so no probs"):
        _ = prediction.probs


def test_probabilities_of_finitely_many_outcomes(rng):
    prediction = of.Ordinal(4).prediction(rng.normal(size=(1, 3, 6, 4)), None, None)
    assert prediction.probs.shape == (6, 4)
    np.testing.assert_allclose(prediction.probs.sum(1), 1.0)
    np.testing.assert_allclose(prediction.probs @ np.arange(4), prediction.mean)
    yes = of.Bernoulli().prediction(rng.normal(size=(1, 3, 6, 1)), None, None)
    np.testing.assert_allclose(yes.probs[:, 1], yes.mean)


def test_randomised_pit_of_counts_is_uniform(rng):
    outputs = np.concatenate([rng.normal(size=(1, 4, 2000, 2)), np.ones((1, 4, 2000, 1))], -1)
    prediction = of.NegativeBinomial().prediction(outputs, None, None)
    assert stats.kstest(prediction.pit(prediction.samples(1)[0]), "uniform").pvalue > 1e-3


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
        (lambda: of.Ordinal(1), ValueError, "levels must be"),
        (lambda: of.Ordinal(3, "cloglog"), ValueError, "link must be one of 'logit', 'probit'"),
    ],
)  # fmt: skip
def test_arguments_are_checked(make, error, message):
    with pytest.raises(error, match=message):
        make()


def test_held_out_rows_of_a_fit_with_extras_are_a_share(backend_name):
    model, y = up.Model(up.Network((2, 4)), of.Poisson()), np.ones(60)
    fit = up.fit(model, X, y, exposure=np.ones(60), backend=backend_name, validation=0.2, **SETTINGS)
    assert np.isfinite(fit.scores).all()
    with pytest.raises(ValueError, match="validation must be a share of the rows where these bring along exposure="):
        up.fit(model, X, y, exposure=np.ones(60), backend=backend_name, validation=(X, y), **SETTINGS)
