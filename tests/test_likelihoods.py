"""Every likelihood of the register says the same in the PPL and in NumPy, in densities, samples and predictions."""

import itertools
import json

import numpy as np
import pytest
from conftest import INSTALLED
from scipy import stats
from tolerances import PARITY, SAMPLING_P

import ugmm_ppl as up
from ugmm_ppl.backends.load import BACKENDS
from ugmm_ppl.likelihoods import LIKELIHOODS

pytestmark = pytest.mark.usefixtures("quick_compiler")

of = up.likelihoods

ARGUMENTS = {
    "Categorical": (3,), "Censored": (of.Normal(),), "Hurdle": (of.NegativeBinomial(),), "Ordinal": (4,),
    "Truncated": (of.Mixture(2), -2.0, 3.0), "ZeroInflated": (of.Poisson(),),
}  # fmt: skip
"""Of those that need some."""

VARIANTS = {
    "Censored mixture": of.Censored(of.Mixture(2)),
    "Hurdle of a Poisson": of.Hurdle(of.Poisson()),
    "Mixture of one scale": of.Mixture(2, shared=("scale",)),
    "Truncated times": of.Truncated(of.LogNormal(), high=3.0),
    "Normal of one scale": of.Normal(shared=("scale",)),
    "Ordinal, probit": of.Ordinal(3, "probit"),
    "Ordinal of two": of.Ordinal(2),
    "ZeroInflated, shared": of.ZeroInflated(of.NegativeBinomial(shared=("concentration",)), shared=("zero_log_odds",)),
}
"""With other arguments, which change what they do."""

CASES = {name: kind(*ARGUMENTS.get(name, ())) for name, kind in LIKELIHOODS.items()} | VARIANTS
each = pytest.mark.parametrize("name", CASES)

SHIFTS = {"LogNormal": (0.0, -3.0), "StudentT": (0.0, 0.0, 5.0)}
"""Of the outputs, where moments would be infinite or hard to estimate."""


def extras_of(likelihood, rng, rows):
    """Extra columns by name."""
    values = {
        "exposure": rng.uniform(0.5, 2.0, rows), "trials": rng.integers(1, 9, rows).astype(float),
        "censored": np.zeros(rows), "upper": np.full(rows, np.inf),
        "lower_limit": np.full(rows, -2.0), "upper_limit": np.full(rows, 3.0),
    }  # fmt: skip
    return {each.name: values[each.name] for each in likelihood.extras}


def outputs_of(likelihood, rng, *leading, extras=None):
    """Complete outputs of moderate size."""
    extras = extras_of(likelihood, rng, leading[-1] if leading else 1) if extras is None else extras
    own = rng.normal(size=(*leading, likelihood.width - len(extras)))
    own = own + np.array(SHIFTS.get(type(likelihood).__name__, 0.0))
    beside = [np.broadcast_to(value, leading)[..., None] for value in extras.values()]
    return np.concatenate([own, *beside], -1)


@each
def test_facts_hold_together(name, rng):
    likelihood = CASES[name]
    outputs = outputs_of(likelihood, rng, 5, 20)
    assert len(likelihood.names(None)) == likelihood.num_outputs
    assert likelihood.defined(outputs).all()
    assert not likelihood.defined(np.full_like(outputs, np.nan)).any()
    y = likelihood.check(likelihood.sample(outputs[0], rng), 20)
    assert y.shape == (20,)
    if likelihood.discrete:
        np.testing.assert_array_equal(y, np.round(y))
        assert not likelihood.standardizes
    assert {role: value.shape for role, value in likelihood.shared_start().items()} == {
        role: spec.shape for role, spec in likelihood.roles().items()
    }
    weight, bias = likelihood.start(np.ones((likelihood.num_outputs, 4)), np.zeros(likelihood.num_outputs))
    assert weight.shape == (likelihood.num_outputs, 4)
    assert bias.shape == (likelihood.num_outputs,)


@each
def test_the_ppl_and_numpy_agree(backend64, name, rng):
    likelihood = CASES[name]
    outputs = outputs_of(likelihood, rng, 5, 20)
    y = likelihood.sample(outputs[0], rng)
    of_ppl = likelihood.distribution(backend64, backend64.array(outputs)).log_prob(backend64.array(y))
    np.testing.assert_allclose(np.asarray(of_ppl), likelihood.log_prob(outputs, y), rtol=PARITY, atol=PARITY)


@each
def test_samples_are_of_the_density(name, rng):
    """The mean of exp(log q(y) - log p(y)) under y ~ p is the mass of q, which is 1: for q of other outputs."""
    likelihood = CASES[name]
    extras = extras_of(likelihood, rng, 1)
    p, q = (outputs_of(likelihood, rng, 1, extras=extras)[0] for _ in range(2))
    y = likelihood.sample(np.broadcast_to(p, (40_000, likelihood.width)), rng)
    near, there = (np.broadcast_to(a, (len(y), likelihood.width)) for a in (0.5 * (p + q), p))
    ratio = np.exp(likelihood.log_prob(near, y) - likelihood.log_prob(there, y))
    error = ratio.std() / np.sqrt(len(ratio))
    assert abs(ratio.mean() - 1.0) < 5.0 * error + 1e-3
    again = likelihood.sample(np.broadcast_to(p, (40_000, likelihood.width)), np.random.default_rng(5))
    assert stats.ks_2samp(y, again).pvalue > SAMPLING_P


@each
def test_information_is_the_variance_of_the_score(name, rng):
    likelihood = CASES[name]
    if likelihood.information is None:
        pytest.skip(f"{name} has no Fisher information, and says so")
    outputs, count = outputs_of(likelihood, rng, 1)[0], 200_000
    y, step = likelihood.sample(np.broadcast_to(outputs, (count, likelihood.width)), rng), 1e-5

    def at(moved):
        return likelihood.log_prob(np.broadcast_to(outputs + moved, (count, likelihood.width)), y)

    units = step * np.eye(likelihood.width)[: likelihood.width - len(likelihood.extras)]
    score = np.stack([(at(unit) - at(-unit)) / (2.0 * step) for unit in units], -1)
    found = likelihood.information(outputs[None])[0]
    assert not found[len(units) :].any()
    found = found[: len(units), : len(units)]
    terms = score[:, :, None] * score[:, None, :]
    np.testing.assert_array_less(np.abs(terms.mean(0) - found), 5.0 * terms.std(0) / np.sqrt(count) + 1e-6)


@each
def test_predictions_average_over_draws(backend64, name, rng):
    """log p(y) is that of the mean over draws, weighted by chain; its columns are as long as the rows."""
    likelihood, weights = CASES[name], np.array([0.2, 0.8])
    outputs = outputs_of(likelihood, rng, 2, 3, 7)
    y = likelihood.sample(outputs[0, 0], rng)
    each_draw = np.exp(likelihood.log_prob(outputs, y)).mean(1)
    for given, want in ((None, each_draw.mean(0)), (weights, weights @ each_draw)):
        prediction = likelihood.prediction(outputs, None, backend64, given)
        np.testing.assert_allclose(prediction.log_density(y), np.log(want), rtol=1e-10, atol=1e-10)
        assert prediction.draws.shape[:3] == (2, 3, 7)
        assert all(len(column) == 7 for column in prediction.columns(None).values())
        assert all(np.isfinite(value) for value in prediction.metrics(y).values())
        values, heights = prediction.profile(2, y[2])
        assert values.min() <= y[2] <= values.max()
        assert (heights >= 0.0).all()
        if likelihood.discrete:
            assert heights.sum() <= 1.0 + 1e-9


@each
def test_quantiles_invert_the_distribution_function(backend64, name, rng):
    likelihood = CASES[name]
    prediction = likelihood.prediction(outputs_of(likelihood, rng, 2, 3, 7), None, backend64, None)
    if not hasattr(prediction, "quantile"):
        pytest.skip(f"{name} has classes, which have no order")
    levels = np.array([0.05, 0.5, 0.95])
    found = prediction.quantile(levels)
    below = np.stack([prediction.cdf(q - (1.0 if likelihood.discrete else 0.0)) for q in found])
    at = np.stack([prediction.cdf(q) for q in found])
    assert (at >= levels[:, None] - 1e-8).all()
    assert (below <= levels[:, None] + 1e-8).all()
    drawn = prediction.samples(20_000, seed=1)
    np.testing.assert_allclose(drawn.mean(0), prediction.mean, atol=6.0 * (prediction.std / np.sqrt(20_000)).max())
    np.testing.assert_allclose(drawn.std(0), prediction.std, rtol=0.1)


def cases_of_models():
    """(backend, name): each class on both backends; what has other arguments is long where it must be compiled."""
    found = []
    for backend, name in itertools.product(BACKENDS, CASES):
        marks = [pytest.mark.skipif(not INSTALLED[backend], reason=f"{backend} is not installed here")]
        marks += [pytest.mark.long] if backend == "numpyro" and name in VARIANTS else []
        found.append(pytest.param(backend, name, marks=marks))
    return found


def fitted(name, backend, rng):
    """(likelihood, x, extra columns, a fit of a few steps)."""
    likelihood, x = CASES[name], rng.normal(size=(40, 2))
    extras = extras_of(likelihood, rng, 40)
    y = likelihood.sample(outputs_of(likelihood, rng, 40, extras=extras), rng)
    model = up.Model(up.Network((2, 4)), likelihood)
    return likelihood, x, extras, up.fit(model, x, y, backend=backend, num_steps=10, progress=False, **extras)


@pytest.mark.parametrize(("backend", "name"), cases_of_models())
def test_any_likelihood_makes_a_model(backend, name, rng, tmp_path):
    """From a fit to a file and back, and on to ArviZ."""
    likelihood, x, extras, fit = fitted(name, backend, rng)
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    assert again.model.likelihood == likelihood
    assert json.loads(json.dumps(likelihood.described()))["kind"] == type(likelihood).__name__
    prediction = fit.predict(x, num_draws=3, **extras)
    np.testing.assert_array_equal(again.predict(x, num_draws=3, **extras).draws, prediction.draws)
    assert fit.sample_functions(3)(x, **extras).shape[:3] == (1, 3, 40)
    assert fit.log_likelihood(num_draws=3).shape == (1, 3, 40)
    tree = fit.to_arviz(num_draws=3, num_prior_draws=2)
    np.testing.assert_array_equal(tree["observed_data"]["y"].values, fit.train_y)
    for name_, values in extras.items():
        np.testing.assert_array_equal(tree["constant_data"][name_].values, values)
    assert {f"likelihood.{role}" for role in likelihood.roles()} <= set(tree["posterior"])


@each
def test_any_likelihood_is_diagnosed(name, rng):
    """By checks that lie above the backends: on Pyro, which has nothing to compile, and without it on NumPyro."""
    fit = fitted(name, "pyro" if INSTALLED["pyro"] else "numpyro", rng)[-1]
    assert len(list(fit.diagnose(num_draws=4))) > 5


def test_a_file_of_an_unknown_likelihood_says_what_is_missing(backend_name, rng, tmp_path, monkeypatch):
    model, x = up.Model(up.Network((2, 4)), up.likelihoods.Poisson()), rng.normal(size=(10, 2))
    fit = up.fit(model, x, np.arange(10.0), backend=backend_name, method="map", num_steps=2, progress=False)
    fit.save(tmp_path / "fit.npz")
    monkeypatch.delitem(LIKELIHOODS, "Poisson")
    with pytest.raises(
        ValueError,
        match=r"holds a fit of the likelihood 'Poisson'; known here are Bernoulli, Beta, Binomial, Categorical",
    ):
        up.load(tmp_path / "fit.npz")
    assert up.load(tmp_path / "fit.npz", model=model).model is model


def test_what_is_no_likelihood_is_refused():
    with pytest.raises(TypeError, match=r"likelihood must be one of up\.likelihoods.*got 'poisson'"):
        up.Model(up.Network((2, 4)), "poisson")
    with pytest.raises(ValueError, match="needs outputs that are any real numbers; got a network with readout='ugmm'"):
        up.Regressor(up.Network((2, 4), readout="ugmm"))


@pytest.mark.parametrize("y", [[0.5, 1.0], [-1.0, 2.0]])
def test_counts_are_whole_and_not_negative(y):
    with pytest.raises(ValueError, match=r"y must hold counts 0, 1, 2, \.\.\.; got"):
        up.likelihoods.Poisson().check(np.array(y), 2)
