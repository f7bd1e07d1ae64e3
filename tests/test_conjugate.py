"""Every method against a posterior and an evidence known in closed form.

All parameters but one row of the readout are held fixed by callable priors, so that the regressor is Bayesian linear
regression on fixed features: y ~ N(H w, noise^2), w ~ N(0, 1), whose posterior is N(S H' y / noise^2, S) with
S = (I + H' H / noise^2)^-1.
"""

import numpy as np
import pytest
from scipy import stats
from tolerances import QUADRATURE, STOCHASTIC_KL

import ugmm_ppl as up
from ugmm_ppl.ops.numpy import NUMPY

NOISE, WIDTH, ROWS = 0.5, 2, 40


def fixed(start):
    """A prior that holds a site of the network at a start value."""
    return lambda backend, name, shape: backend.array(start[name]).reshape(shape)


def weights_of_loc(backend, name, shape):
    """Readout weights `(3, J)`: logit and log scale do not depend on the features, the location does."""
    w = backend.sample(f"{name}.w", backend.build(up.dist.Normal(0.0, 1.0), (shape[1],)))
    zero = 0.0 * w
    return backend.concatenate([zero, w, zero]).reshape(shape)


def linear_regression():
    """(model, x, y, features H)."""
    rng = np.random.default_rng(5)
    network = up.Network((2, WIDTH), normalization=None)
    x = rng.normal(size=(ROWS, 2))
    start = network.initial_values(x, 3, seed=1) | {"readout.bias": np.array([0.0, 0.0, np.log(NOISE)])}
    hold = fixed(start)
    prior = up.Prior(loc=hold, log_scale=hold, logits=hold, readout=weights_of_loc, readout_bias=hold)
    model = up.Regressor(network, components=1, prior=prior)
    identity = {"readout.weight": np.eye(WIDTH), "readout.bias": np.zeros(WIDTH)}
    features = network.forward(NUMPY, start | identity, x)
    return model, x, features @ np.array([0.8, -0.5]) + rng.normal(0.0, NOISE, ROWS), features


@pytest.fixture(scope="module")
def problem():
    """The model, its data, and the exact posterior (mean, covariance) and log evidence."""
    model, x, y, features = linear_regression()
    covariance = np.linalg.inv(np.eye(WIDTH) + features.T @ features / NOISE**2)
    evidence = stats.multivariate_normal(np.zeros(ROWS), features @ features.T + NOISE**2 * np.eye(ROWS)).logpdf(y)
    return model, x, y, covariance @ features.T @ y / NOISE**2, covariance, evidence


SITE = "readout.weight.w"
SETTINGS = {"standardize": False, "progress": False, "dtype": "float64"}


def test_map_is_the_posterior_mean(problem, backend_name):
    model, x, y, mean, covariance, _ = problem
    fit = up.fit(model, x, y, backend=backend_name, method="map", num_steps=1500, learning_rate=0.02, **SETTINGS)
    error = (fit.posterior()[SITE][0, 0] - mean) / np.sqrt(np.diag(covariance))
    assert np.abs(error).max() < 1e-3  # in posterior standard deviations; Adam has come to rest


def gaussian_kl(mean, covariance, exact_mean, exact_covariance):
    """KL(N(mean, covariance) || N(exact_mean, exact_covariance)) in nats."""
    precision, gap = np.linalg.inv(exact_covariance), exact_mean - mean
    log_dets = np.linalg.slogdet(exact_covariance)[1] - np.linalg.slogdet(covariance)[1]
    return 0.5 * (np.trace(precision @ covariance) + gap @ precision @ gap - len(mean) + log_dets)


@pytest.mark.long
def test_full_rank_svi_is_exact(problem, backend_name):
    """The fitted Gaussian is the posterior, and the ELBO is the log evidence."""
    model, x, y, mean, covariance, evidence = problem
    fit = up.fit(
        model,
        x,
        y,
        backend=backend_name,
        guide="lowrank",
        rank=WIDTH,
        num_steps=2000,
        learning_rate=0.02,
        init_scale=0.1,
        **SETTINGS,
    )
    factor, diagonal = fit.state[0]["factor"], np.exp(2 * fit.state[0]["log_scale"])
    assert gaussian_kl(fit.state[0]["loc"], factor @ factor.T + np.diag(diagonal), mean, covariance) < STOCHASTIC_KL
    assert abs(-fit.losses[0, -500:].mean() - evidence) < 3 * STOCHASTIC_KL
    draws = fit.posterior(4000)[SITE][0]
    np.testing.assert_allclose(np.cov(draws.T), factor @ factor.T + np.diag(diagonal), rtol=0.15)


def test_full_svi_is_exact(problem, backend_name):
    """The Cholesky factor of the fitted Gaussian is that of the posterior."""
    model, x, y, mean, covariance, evidence = problem
    fit = up.fit(
        model, x, y, backend=backend_name, guide="full", num_steps=2000, learning_rate=0.02, init_scale=0.1, **SETTINGS
    )
    assert gaussian_kl(*full_moments(fit.state[0]), mean, covariance) < STOCHASTIC_KL
    assert abs(-fit.losses[0, -500:].mean() - evidence) < 3 * STOCHASTIC_KL


def full_moments(state, prefix=""):
    """Mean and covariance of a full block."""
    size = len(state[f"{prefix}loc"])
    factor = np.eye(size) + np.tril(state[f"{prefix}factor"], -1) / np.sqrt(size)
    factor *= np.exp(state[f"{prefix}log_scale"])[:, None]
    return state[f"{prefix}loc"], factor @ factor.T


@pytest.mark.usefixtures("quick_compiler")
def test_laplace_is_exact(problem, backend_name):
    """Full, it is the posterior of a likelihood to the power 1 / T; diagonal, it has variances 1 / precision_ii."""
    model, x, y, mean, covariance, _ = problem
    temperature = 0.25
    prior, precision = np.eye(WIDTH), np.linalg.inv(covariance)
    mean = np.linalg.solve(prior + (precision - prior) / temperature, precision @ mean / temperature)
    precision = prior + (precision - prior) / temperature
    for guide in ("full", "normal"):
        fit = up.fit(
            model, x, y, backend=backend_name, method="laplace", guide=guide, temperature=temperature, num_steps=500,
            learning_rate=0.02, **SETTINGS,
        )  # fmt: skip
        loc, found = full_moments(fit.state[0]) if guide == "full" else moments(fit)
        want = np.linalg.inv(precision) if guide == "full" else np.diag(1.0 / np.diag(precision))
        np.testing.assert_allclose(found, want, rtol=QUADRATURE, atol=QUADRATURE)
        assert np.abs((loc - mean) / np.sqrt(np.diag(want))).max() < 1e-2  # Adam has come to rest


def test_mean_field_svi_is_the_best_factorised_gaussian(problem, backend_name):
    """Its means are exact, its variances those of the conditionals, 1 / precision_ii (Bishop 2006, section 10.1.2)."""
    model, x, y, mean, covariance, evidence = problem
    fit = up.fit(model, x, y, backend=backend_name, num_steps=2000, learning_rate=0.02, init_scale=0.1, **SETTINGS)
    best = np.diag(1.0 / np.diag(np.linalg.inv(covariance)))
    gap = gaussian_kl(*moments(fit), mean, covariance) - gaussian_kl(mean, best, mean, covariance)
    assert -1e-9 < gap < STOCHASTIC_KL
    assert -fit.losses[0, -500:].mean() < evidence + STOCHASTIC_KL  # a lower bound


def test_temperature_makes_the_posterior_colder(problem, backend_name):
    """At temperature T the optimum is that of a likelihood to the power 1 / T."""
    model, x, y, _, covariance, _ = problem
    likelihood = (np.linalg.inv(covariance) - np.eye(WIDTH)) / 0.25
    precision = np.eye(WIDTH) + likelihood
    warm = np.linalg.inv(covariance)
    mean = np.linalg.solve(precision, likelihood @ np.linalg.solve(warm - np.eye(WIDTH), warm @ problem[3]))
    fit = up.fit(
        model,
        x,
        y,
        backend=backend_name,
        temperature=0.25,
        num_steps=2000,
        learning_rate=0.02,
        init_scale=0.03,
        **SETTINGS,
    )
    best = np.diag(1.0 / np.diag(precision))
    cold = np.linalg.inv(precision)
    assert gaussian_kl(*moments(fit), mean, cold) - gaussian_kl(mean, best, mean, cold) < STOCHASTIC_KL


def moments(fit):
    """Mean and covariance of the mean-field guide."""
    return fit.state[0][f"{SITE}:loc"], np.diag(np.exp(2 * fit.state[0][f"{SITE}:log_scale"]))


@pytest.mark.long
def test_nuts_draws_from_the_posterior(problem, backend_name):
    model, x, y, mean, covariance, _ = problem
    fit = up.fit(
        model,
        x,
        y,
        backend=backend_name,
        method="nuts",
        num_chains=2,
        num_warmup=150,
        num_draws=300,
        max_tree_depth=6,
        standardize=False,
        progress=False,
    )
    draws = fit.posterior()[SITE]
    assert draws.shape == (2, 300, WIDTH)
    sd = np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean((0, 1)) - mean) / sd).max() < 0.25  # four standard errors at an ESS of 250
    np.testing.assert_allclose(draws.std((0, 1)), sd, rtol=0.25)
    assert not fit.stats["diverging"].all()


@pytest.fixture(scope="module")
def free():
    """(model, x, y, values of the sites that are held by priors) as above, but with hidden locations that can move."""
    model, x, y, _ = linear_regression()
    start = model.network.initial_values(x, 3, seed=1) | {"readout.bias": np.array([0.0, 0.0, np.log(NOISE)])}
    hold = fixed(start)
    prior = up.Prior(log_scale=hold, logits=hold, readout=weights_of_loc, readout_bias=hold)
    return up.Regressor(model.network, 1, prior), x, y, start


def given_hidden(model, x, y, hidden):
    """Exact (mean, covariance) of the readout given the values of the hidden layers."""
    identity = {"readout.weight": np.eye(WIDTH), "readout.bias": np.zeros(WIDTH)}
    features = model.network.forward(NUMPY, hidden | identity, x)
    covariance = np.linalg.inv(np.eye(WIDTH) + features.T @ features / NOISE**2)
    return covariance @ features.T @ y / NOISE**2, covariance


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize(("method", "num_steps"), [("svi", 1200), ("laplace", 600)])
def test_bayesian_readout_is_exact_given_the_point_of_the_other_sites(free, backend_name, method, num_steps):
    model, x, y, start = free
    fit = up.fit(
        model, x, y, backend=backend_name, method=method, guide="full", bayesian="readout", num_steps=num_steps,
        learning_rate=0.02, **SETTINGS,
    )  # fmt: skip
    hidden = fit.state[0]["layers.0.loc:loc"]
    assert not np.allclose(hidden, model.initial_values(x, 0)["layers.0.loc"])  # optimised, too
    mean, covariance = given_hidden(model, x, y, start | {"layers.0.loc": hidden})
    loc, found = full_moments(fit.state[0])
    if method == "laplace":
        np.testing.assert_allclose(found, covariance, rtol=QUADRATURE)
        assert np.abs((loc - mean) / np.sqrt(np.diag(covariance))).max() < 0.1  # a mode with the other sites
    assert gaussian_kl(loc, found, mean, covariance) < STOCHASTIC_KL
    draws = fit.posterior(3)
    assert draws[SITE].std() > 0.0
    assert (draws["layers.0.loc"] == hidden).all()


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiler")
def test_nuts_of_the_readout_is_exact_given_the_start_of_the_other_sites(free, backend_name, tmp_path):
    model, x, y, start = free
    fit = up.fit(
        model, x, y, backend=backend_name, method="nuts", bayesian="readout", num_chains=2, num_warmup=100,
        num_draws=150, max_tree_depth=4, seed=4, standardize=False, progress=False,
    )  # fmt: skip
    assert set(fit.state[0]) == {SITE}
    hidden = model.initial_values(x, 4)["layers.0.loc"]
    mean, covariance = given_hidden(model, x, y, start | {"layers.0.loc": hidden})
    draws, sd = fit.posterior()[SITE], np.sqrt(np.diag(covariance))
    assert np.abs((draws.mean((0, 1)) - mean) / sd).max() < 0.4  # four standard errors at an ESS of 100
    np.testing.assert_allclose(draws.std((0, 1)), sd, rtol=0.35)
    np.testing.assert_array_equal(fit.posterior(5)["layers.0.loc"], np.broadcast_to(hidden, (2, 5, 2, 2)))
    fit.save(tmp_path / "fit.npz")
    loaded = up.load(tmp_path / "fit.npz", model=model)
    np.testing.assert_allclose(loaded.log_p(x, y, 5), fit.log_p(num_draws=5))
