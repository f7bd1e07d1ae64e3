"""Stochastic-gradient Hamiltonian Monte Carlo against Gaussians, exact posteriors and priors on any support."""

import numpy as np
import pytest
from scipy import stats
from test_conjugate import NOISE, SITE, WIDTH, linear_regression

import ugmm_ppl as up
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.infer.sghmc import Friction
from ugmm_ppl.ops.numpy import NUMPY

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.mark.parametrize("temperature", [1.0, 0.25])
def test_the_rule_draws_from_gaussians_of_any_width(temperature):
    """500 chains side by side, begun far away; their spread is that of the target, within its own error."""
    widths, rng, warmup, chains = np.array([0.03, 0.3, 1.0]), np.random.default_rng(0), 1000, 500
    rule, u = Friction(warmup, temperature, 0.1), np.full((chains, 3), 2.0)
    moved = [rule.begin(u[i]) for i in range(chains)]
    stacked = {name: np.stack([state[name] for state in moved]) for name in moved[0]}
    stacked["count"] = np.zeros((chains, 1))
    for _ in range(warmup + 500):
        gradient = temperature * u / widths**2  # of T U, as a trainer gives it
        u, stacked = rule.move(NUMPY, u, gradient, stacked, rng.normal(size=u.shape), 0.05)
    np.testing.assert_array_less(np.abs(u.mean(0)), 5.0 * widths / np.sqrt(chains))
    np.testing.assert_allclose(u.std(0), widths, rtol=5.0 / np.sqrt(2.0 * chains))


@pytest.mark.long
@pytest.mark.parametrize("batch_size", [None, 20])
def test_draws_are_of_the_exact_posterior(backend_name, batch_size):
    """Bayesian linear regression; half of the rows in a batch widen it by less than the error of the draws."""
    model, x, y, features = linear_regression()
    covariance = np.linalg.inv(np.eye(WIDTH) + features.T @ features / NOISE**2)
    mean, width = covariance @ features.T @ y / NOISE**2, np.sqrt(np.diag(covariance))
    fit = up.fit(
        model, x, y, backend=backend_name, method="sghmc", num_chains=2, num_warmup=600, num_draws=120, thin=10,
        batch_size=batch_size, learning_rate=0.1, standardize=False, progress=False, dtype="float64",
    )  # fmt: skip
    draws = fit.posterior()[SITE]
    assert draws.shape == (2, 120, WIDTH)
    np.testing.assert_array_less(np.abs(draws.mean((0, 1)) - mean) / width, 0.4)  # 100 effective draws: 0.1 each
    np.testing.assert_allclose(draws.reshape(-1, WIDTH).std(0) / width, 1.0, atol=0.25)
    correlation = np.corrcoef(draws.reshape(-1, WIDTH).T)[0, 1]
    assert abs(correlation - covariance[0, 1] / np.prod(width)) < 0.25


@pytest.mark.long
def test_without_data_it_draws_from_the_prior(backend_name):
    """At a temperature so high that the likelihood is flat: on the simplex and the positive numbers too."""
    prior = up.Prior(scale=up.dist.InverseGamma(3.0, 1.0), weights=up.dist.Dirichlet(2.0))
    model, x = up.Classifier(up.Network((3, 5)), 2, prior), np.zeros((4, 3))
    fit = up.fit(
        model, x, [0, 1, 0, 1], backend=backend_name, method="sghmc", temperature=1e9, learning_rate=0.15,
        num_chains=2, num_warmup=300, num_draws=100, thin=15, standardize=False, progress=False,
    )  # fmt: skip
    draws = fit.posterior()
    exact = {
        "layers.0.loc": stats.norm(),
        "layers.0.scale": stats.invgamma(3.0),
        "layers.0.weights": stats.beta(2.0, 4.0),
    }
    for name, distribution in exact.items():
        u = distribution.cdf(draws[name])
        assert abs(u.mean() - 0.5) < 0.03, name  # 15 entries of some 50 effective draws each: 0.01
        assert abs(u.var() * 12.0 - 1.0) < 0.15, name
    np.testing.assert_allclose(draws["layers.0.weights"].sum(-1), 1.0, rtol=1e-5)


@pytest.fixture
def table(rng):
    """Rows and classes."""
    x = rng.normal(size=(40, 2))
    return x, (x[:, 0] > 0).astype(int)


QUICK = {"method": "sghmc", "num_chains": 2, "num_warmup": 6, "num_draws": 5, "thin": 3, "progress": False}
MODEL = up.Classifier(up.Network((2, 3)), 2)


def test_sites_that_are_not_inferred_are_held(backend_name, table):
    fit = up.fit(MODEL, *table, backend=backend_name, bayesian="readout", **QUICK)
    draws = fit.posterior()
    assert draws["readout.weight"].std(1).min() > 0.0
    assert (draws["layers.0.loc"] == draws["layers.0.loc"][0, 0]).all()
    tree = fit.to_arviz(num_prior_draws=2)
    assert tree["posterior"]["readout.weight"].shape == (2, 5, 2, 3)
    assert len(list(fit.diagnose())) > 3


def test_the_same_seed_gives_the_same_draws_whatever_is_kept_of_them(backend_name, table, tmp_path):
    one, other = (
        up.fit(MODEL, *table, backend=backend_name, batch_size=10, seed=3, **QUICK | change)
        for change in ({}, {"num_draws": 3})
    )
    np.testing.assert_array_equal(one.posterior()["layers.0.loc"][:, :3], other.posterior()["layers.0.loc"])
    assert (one.posterior()["layers.0.loc"][0] != one.posterior()["layers.0.loc"][1]).any()
    one.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(again.predict(table[0]).probs, one.predict(table[0]).probs)
    assert again.training["friction"] == 0.1
    assert again.training["batch_size"] == 10


def test_steps_that_are_too_long_end_with_what_was_reached(backend_name, table):
    with pytest.raises(up.NonFiniteError, match="Lower learning_rate") as caught:
        up.fit(MODEL, *table, backend=backend_name, learning_rate=1e20, **QUICK | {"num_warmup": 30})
    assert all(np.isfinite(value).all() for value in caught.value.fit.posterior().values())


def test_interrupted_it_keeps_its_draws(backend_name, table, monkeypatch):
    update, calls = Progress.update, []

    def interrupt(self, count, **shown):
        calls.append(count)
        if sum(calls) > 6 + 3 * 3:
            raise KeyboardInterrupt
        update(self, count, **shown)

    monkeypatch.setattr(Progress, "update", interrupt)
    fit = up.fit(MODEL, *table, backend=backend_name, **QUICK)
    assert fit.interrupted
    assert fit.posterior()["readout.bias"].shape == (2, 3, 2)
