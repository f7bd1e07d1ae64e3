"""Latent networks through `fit`: both backends, encoders, classes, mini-batches, files, ArviZ, NUTS."""

import numpy as np
import pytest
from conftest import backend_params, compiling_quickly
from helpers import refused
from latent_oracle import linear_posterior
from scipy import stats
from tolerances import NETWORK32, SIGMAS, STOCHASTIC_KL

import ugmm_ppl as up

pytestmark = pytest.mark.usefixtures("quick_compiler")

SETTINGS = {"seed": 1, "progress": False}


def line(rows, seed):
    """Three columns that follow one hidden number."""
    rng = np.random.default_rng(seed)
    z = rng.normal(size=(rows, 1))
    return z * np.array([1.0, -0.7, 0.5]) + 0.3 * rng.normal(size=(rows, 3)) + 1.0


def clusters(rows, seed):
    """Two classes in three columns of tens, and codes of which a quarter is not known."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=rows)
    x = 10.0 * np.column_stack([3.0 * y, -2.0 * y, rng.normal(size=rows)]) + 10.0 * rng.normal(size=(rows, 3))
    return x, y, np.where(rng.uniform(size=rows) < 0.25, -1, y)


@pytest.fixture(scope="module", params=backend_params())
def deep(request):
    """A class, z, a hidden layer and the data, by "svi" on mini-batches."""
    x, _, y = clusters(90, 0)
    model = up.LatentNetwork((1, 2, 3), classes=2, encoder_widths=(8,))
    with compiling_quickly():
        return up.fit(
            model, x, y, backend=request.param, num_steps=300, batch_size=45, learning_rate=0.05,
            **SETTINGS,
        )  # fmt: skip


@pytest.fixture(scope="module", params=backend_params())
def linear(request):
    """A linear model by "map" in float64, with watched rows."""
    with compiling_quickly():
        return up.fit(
            up.LatentNetwork((1, 3), encoder_widths=()), line(150, 0), backend=request.param, method="map",
            num_steps=500, learning_rate=0.1, dtype="float64", standardize=False, validation=(line(20, 3), None),
            **SETTINGS,
        )  # fmt: skip


def test_a_trained_linear_model_has_exact_evidence_and_posterior(linear):
    values = {name: value[0, 0] for name, value in linear.posterior().items()}
    x = line(40, 1)
    want, mean, cov = linear_posterior(values, x, (1, 3))
    assert linear.scores.shape[1] > 3 and linear.scores[0].max() > linear.scores[0, 0]
    found = linear.log_evidence(x, num_samples=2000)
    assert np.abs((found.value - want) / found.error).max() < SIGMAS
    assert found.total_error < 0.2 and found.ess.min() > 1000  # the encoder is a linear map, as the posterior is
    encoded = linear.encode(x)
    assert np.abs(encoded.mean - mean).max() < SIGMAS * np.sqrt(cov[0, 0] / 1000)
    bound = linear.losses[0, -200:].mean() - linear.kls[0, -200:].mean()
    assert abs(-linear_posterior(values, linear.train_x, (1, 3))[0].sum() - bound) < STOCHASTIC_KL * 150


def test_the_fitted_density_is_that_of_the_data(linear):
    """Ten parameters: twice the log likelihood ratio of the fit and of the best normal density is some chi-square."""
    x = line(1000, 2)
    best = stats.multivariate_normal(x.mean(0), np.cov(x.T)).logpdf(x).mean()
    assert best - linear.log_evidence(x, num_samples=100).value.mean() < 0.1  # of 150 rows: 9 / 300 expected


def test_classes_are_recognised_and_units_are_those_of_the_data(deep):
    x, y, _ = clusters(200, 1)
    assert np.isfinite(deep.losses).all() and deep.losses[0, -50:].mean() < deep.losses[0, :50].mean()
    probs = deep.posterior_class(x, num_samples=200)
    best = (x[:, 0] * 3.0 - x[:, 1] * 2.0 > 65.0).astype(int)  # Bayes' rule for the truth
    assert (probs.argmax(1) == y).mean() > (best == y).mean() - 0.06
    assert (deep.predict(x, num_draws=3).probs.argmax(1) == y).mean() > (best == y).mean() - 0.1
    drawn, codes = deep.sample(2000, with_class=True)
    for label in (0, 1):
        means = drawn[codes == label].mean(0), deep.sample(1000, label).mean(0)
        # Classes are 30 and 20 apart; priors draw them together, by less than the spread of a class.
        np.testing.assert_allclose(means[0], x[y == label].mean(0), atol=10.0)
        np.testing.assert_allclose(*means, atol=SIGMAS * 15.0 / np.sqrt(500))
    truth = np.log(
        0.5 * stats.multivariate_normal([0, 0, 0], np.diag([100, 100, 200])).pdf(x)
        + 0.5 * stats.multivariate_normal([30, -20, 0], np.diag([100, 100, 200])).pdf(x)
    )
    assert 0.0 < truth.mean() - deep.log_evidence(x, num_samples=400).value.mean() < 0.4


def test_reconstructions_are_close_to_the_data_and_between_rows_and_their_mean(deep):
    x, _, _ = clusters(100, 1)
    near, far = (((deep.reconstruct(x, layer=i, num_samples=200) - x) ** 2).mean() for i in (1, 0))
    assert near < x.var(0).mean() and far < x.var(0).mean()
    np.testing.assert_array_equal(deep.reconstruct(x[:9], num_samples=50), deep.reconstruct(x[:9], num_samples=50))


def test_a_fit_is_stored_and_exported(deep, tmp_path):
    x, _, _ = clusters(90, 0)
    deep.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    assert type(again) is type(deep)
    one, other = (each.log_evidence(x[:5], num_samples=40).value for each in (deep, again))
    np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(again.sample(5), deep.sample(5))
    pytest.importorskip("arviz")
    tree = deep.to_arviz(num_draws=3, num_prior_draws=2)
    assert tree["posterior"]["layers.0.gain"].dims == ("chain", "draw", "unit_1", "unit_0")
    assert tree["posterior"]["latent.loc"].dims == ("chain", "draw", "class", "unit_0", "mixture_component")
    assert tree["posterior_predictive"]["x"].sizes == {"chain": 1, "draw": 3, "row": 90, "feature": 3}
    assert tree["log_likelihood"]["x"].shape == (1, 3, 90)
    assert tree["prior_predictive"]["y"].shape == (1, 2, 90)
    pointwise = deep.log_likelihood(num_draws=3)
    np.testing.assert_allclose(tree["log_likelihood"]["x"].values, pointwise, rtol=NETWORK32)


def test_per_example_guides_find_the_posterior_of_their_rows_and_of_others(backend_name):
    x = line(30, 0)
    model = up.LatentNetwork((1, 3), encoder="per-example")
    fit = up.fit(
        model, x, backend=backend_name, method="map", num_steps=300, batch_size=15, learning_rate=0.05,
        standardize=False, dtype="float64", **SETTINGS,
    )  # fmt: skip
    assert fit.state[0]["encoder.loc"].shape == (30, 1)
    values = {name: value[0, 0] for name, value in fit.posterior().items()}
    for rows in (None, line(10, 1)):
        want, mean, cov = linear_posterior(values, x if rows is None else rows, (1, 3))
        found = fit.log_evidence(rows, num_samples=2000)
        assert np.abs((found.value - want) / found.error).max() < SIGMAS
        assert found.ess.min() > 400  # of 2000: the guide is near the posterior of every row
        encoded = fit.encode(rows, num_samples=2000)
        assert np.abs(encoded.mean - mean).max() < SIGMAS * np.sqrt(cov[0, 0] / found.ess.min())


def test_modules_of_the_library_are_encoders(backend_name, tmp_path):
    if backend_name == "pyro":
        import torch

        make = torch.nn.Linear
        broken = lambda i, o: torch.nn.Sequential(torch.nn.Linear(i, o), torch.nn.BatchNorm1d(o))  # noqa: E731
    else:
        nnx = pytest.importorskip("flax.nnx")
        make = lambda i, o: nnx.Linear(i, o, rngs=nnx.Rngs(0))  # noqa: E731
        broken = lambda i, o: nnx.Sequential(make(i, o), nnx.BatchNorm(o, rngs=nnx.Rngs(0)))  # noqa: E731
    x = line(40, 0)
    model = up.LatentNetwork((1, 1, 3), encoder=make)
    fit = up.fit(
        model, x, backend=backend_name, method="map", num_steps=50, learning_rate=0.05, dtype="float64", **SETTINGS
    )
    start, first = model.local_guide(fit.primitives).initial(40, 0), fit.state[0]
    assert {n for n in first if n.startswith("encoder.")} == set(start)
    assert not any(np.array_equal(first[name], start[name]) for name in start)  # all of them are trained
    assert fit.losses[0, -10:].mean() < 0.5 * fit.losses[0, :10].mean()
    fit.save(tmp_path / "fit.npz")
    with refused(ValueError, "whose model has the callable", "up.load(path, model=...)"):
        up.load(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz", model=model)
    np.testing.assert_array_equal(again.sample(3), fit.sample(3))
    with refused(ValueError, "modules without a state besides their parameters"):
        up.fit(up.LatentNetwork((1, 3), encoder=broken), x, backend=backend_name, num_steps=1, **SETTINGS)


def test_nuts_samples_parameters_and_layers(backend_name):
    """One column, x = z - loc + noise, its scale held: loc and every z have normal posteriors."""
    x = np.random.default_rng(0).normal(2.0, 1.1, (6, 1))
    model = up.LatentNetwork((1, 1), gain=False)
    fit = up.fit(
        model, x, backend=backend_name, method="nuts", num_chains=1, num_warmup=50, num_draws=120, max_tree_depth=4,
        bayesian=["layers.0.loc"], standardize=False, **SETTINGS,
    )  # fmt: skip
    draws = fit.posterior()
    variance = 1.0 + np.exp(2.0 * fit.held["layers.0.log_scale"].item())
    assert draws["z"].shape == (1, 120, 6, 1)
    precision = 1.0 + 6 / variance
    mean, spread = -x.sum() / variance / precision, precision**-0.5
    loc = draws["layers.0.loc"].ravel()
    assert abs(loc.mean() - mean) < SIGMAS * spread / np.sqrt(len(loc) / 6)  # an effective size of a sixth
    slope = 1.0 / variance
    want = slope * (x[:, 0] + mean)
    spread_z = np.sqrt(1.0 - slope + slope**2 * spread**2)
    assert np.abs(draws["z"][0, ..., 0].mean(0) - want).max() < SIGMAS * spread_z / np.sqrt(len(loc) / 6)
    found = fit.log_evidence(x, num_samples=2400)
    per_draw = stats.norm(-fit.posterior(20)["layers.0.loc"].ravel()[:, None], np.sqrt(variance)).pdf(x[:, 0])
    assert np.abs((found.value - np.log(per_draw.mean(0))) / found.error).max() < SIGMAS


def test_nuts_refuses_what_is_discrete_or_large():
    x, _, y = clusters(20, 0)
    model = up.LatentNetwork((1, 3), classes=2)
    row = int(np.flatnonzero(y < 0)[0])
    with refused(ValueError, "method='nuts' needs the class of every row", f"row {row} has none"):
        up.fit(model, x, y, method="nuts", **SETTINGS)
    with refused(ValueError, "samples the layers of every row, 21000 numbers here", "at most 20000"):
        up.fit(up.LatentNetwork((1000, 3)), np.random.default_rng(0).normal(size=(21, 3)), method="nuts", **SETTINGS)
