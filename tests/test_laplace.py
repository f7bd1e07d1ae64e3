"""Laplace approximations against closed forms and finite differences, and one backend against the other."""

import numpy as np
import pytest
from conftest import INSTALLED, needs_both
from helpers import refused
from scipy import integrate, stats
from tolerances import EXACT64, GRADIENT64, PARITY, QUADRATURE

import ugmm_ppl as up
from ugmm_ppl import budgets
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.guides.base import split
from ugmm_ppl.guides.guide import make_guide
from ugmm_ppl.guides.sites import latent_sites
from ugmm_ppl.infer import laplace
from ugmm_ppl.ops.numpy import NUMPY

pytestmark = pytest.mark.usefixtures("quick_compiler")

NATURAL = up.Prior(scale=up.dist.InverseGamma(3.0, 1.0), weights=up.dist.Dirichlet(0.7))


def approximate(backend, prior, guide, inferred=None, model_kind="classifier", temperature=1.0):
    """(model, x, guide, point, parameters) of the approximation around the start values."""
    rng = np.random.default_rng(3)
    network = up.Network((3, 4))
    x = rng.normal(size=(7, 3))
    model = up.Classifier(network, 3, prior) if model_kind == "classifier" else up.Regressor(network, 2, prior)
    sites, point = latent_sites(backend, model, model.initial_values(x, 0), seed=0)
    guide = make_guide(guide, backend, sites, init_scale=0.1, rank=2, inferred=inferred)
    return model, x, guide, point, laplace.laplace(backend, model, guide, point, x, temperature=temperature)


def covariance(params, prefix=""):
    """Of a full block."""
    size = len(params[f"{prefix}loc"])
    factor = np.eye(size) + np.tril(params[f"{prefix}factor"], -1) / np.sqrt(size)
    factor *= np.exp(params[f"{prefix}log_scale"])[:, None]
    return factor @ factor.T


def differences(function, at, step=1e-5):
    """Jacobian of a function of a vector by central differences, one column per entry."""
    return np.stack(
        [(function(at + step * e) - function(at - step * e)) / (2 * step) for e in np.eye(len(at))], axis=-1
    )


def gauss_newton(model, guide, point, x):
    """The Gauss-Newton matrix of a classifier by finite differences of NumPy's network and log likelihood."""

    def outputs(flat):
        values = split(guide.sites, flat)
        if "layers.0.scale" in values:
            values["layers.0.scale"] = np.exp(values["layers.0.scale"])
        return model.network.forward(NUMPY, values, x)

    flat = np.concatenate([np.ravel(point[name]) for name in guide.sites])
    jacobian = differences(outputs, flat)  # (B, O, n)
    found = 0.0
    for i, row in enumerate(outputs(flat)):

        def minus_log_p(f, y):
            return -model.log_likelihood(f[None], np.array([y]))[0]

        hessian = differences(
            lambda f: differences(lambda g: minus_log_p(g, 0), f, 1e-4), row, 1e-4
        )  # the same for all y
        found = found + jacobian[i].T @ hessian @ jacobian[i]
    return found, flat


def test_precision_is_that_of_finite_differences(backend64):
    """Normal priors and an inverse gamma one, whose second derivative is b / theta over u = log theta."""
    model, x, guide, point, params = approximate(backend64, up.Prior(scale=up.dist.InverseGamma(3.0, 1.0)), "full")
    likelihood, flat = gauss_newton(model, guide, point, x)
    prior = {"loc": 1.0, "logits": 1.0, "weight": 4.0, "bias": 1.0}  # readout weights have variance 1 / 4 neurons
    diagonal = np.concatenate(
        [
            np.exp(-point[n].ravel()) if n.endswith("scale") else np.full(point[n].size, prior[n.rsplit(".", 1)[1]])
            for n in guide.sites
        ]
    )
    precision = likelihood + np.diag(diagonal)
    np.testing.assert_array_equal(params["loc"], flat)
    np.testing.assert_allclose(np.linalg.inv(covariance(params)), precision, rtol=0, atol=1e-5 * precision.max())
    cold = approximate(backend64, model.prior, "full", temperature=0.25)[-1]
    want = 4.0 * likelihood + np.diag(diagonal)
    np.testing.assert_allclose(np.linalg.inv(covariance(cold)), want, rtol=0, atol=1e-5 * want.max())


def test_blocks_take_their_part_of_the_precision(backend64, monkeypatch):
    """A normal block has 1 / precision_ii, a full one the inverse of its part; held sites keep their point."""
    _, _, guide, point, params = approximate(backend64, NATURAL, "full")
    precision = np.linalg.inv(covariance(params))
    ends = np.cumsum([np.prod(site.unconstrained_shape) for site in guide.sites.values()])
    place = dict(zip(guide.sites, map(np.arange, [0, *ends[:-1]], ends), strict=True))
    monkeypatch.setattr(budgets, "JACOBIANS", 1600)  # two rows, and forty products, at a time
    families = {"readout.*": "full", "*": "normal"}
    inferred = [name for name in guide.sites if name != "layers.0.loc"]
    params = approximate(backend64, NATURAL, families, inferred)[-1]
    readout = np.concatenate([place["readout.weight"], place["readout.bias"]])
    part = precision[np.ix_(readout, readout)]
    np.testing.assert_allclose(covariance(params, "readout.*:"), np.linalg.inv(part), rtol=GRADIENT64)
    for name in ("layers.0.scale", "layers.0.weights"):
        want = np.diag(precision)[place[name]]
        np.testing.assert_allclose(np.exp(-2 * params[f"{name}:log_scale"]).ravel(), want, rtol=GRADIENT64)
    np.testing.assert_array_equal(params["layers.0.loc:loc"], point["layers.0.loc"])
    assert "layers.0.loc:log_scale" not in params


@needs_both
@pytest.mark.parametrize("model_kind", ["classifier", "regressor"])
def test_backends_agree(model_kind):
    found = []
    for name in ("pyro", "numpyro"):
        backend = load_backend(name)
        with backend.settings(dtype="float64", device="cpu"):
            found.append(covariance(approximate(backend, NATURAL, "full", model_kind=model_kind)[-1]))
    np.testing.assert_allclose(*found, rtol=1e3 * PARITY, atol=PARITY)  # the inverse of a matrix of condition 1e3


def test_information_of_a_classifier_is_its_hessian(rng):
    model, outputs = up.Classifier(up.Network((2, 3)), 4), rng.normal(size=(5, 4))
    for found, row in zip(model.information(outputs), outputs, strict=True):
        probs = np.exp(row) / np.exp(row).sum()
        scores = np.eye(4) - probs
        np.testing.assert_allclose(found, (scores.T * probs) @ scores, rtol=EXACT64, atol=EXACT64)


def test_information_of_a_regressor_is_that_of_quadrature(rng):
    """E[s s^T] by SciPy's adaptive quadrature of scores by finite differences; one component in closed form."""
    one = up.Regressor(up.Network((2, 3)), 1)
    np.testing.assert_allclose(
        one.information(np.array([[0.3, 1.0, -0.5]]))[0], np.diag([0.0, np.exp(1.0), 2.0]), atol=QUADRATURE
    )
    model = up.Regressor(up.Network((2, 3)), 2)
    for outputs in np.array([[0.3, -0.4, -0.5, 0.6, -0.3, 0.1], [0.3, -0.4, -0.5, 0.6, -2.0, 0.5]]):

        def integrand(y, outputs=outputs):
            def log_p(f):
                return model.log_likelihood(f[None], np.array([y]))[0]

            score = differences(log_p, outputs)
            return np.exp(log_p(outputs)) * np.outer(score, score)

        want = integrate.quad_vec(integrand, -15.0, 15.0, epsabs=QUADRATURE, points=outputs[2:4])[0]
        np.testing.assert_allclose(model.information(outputs[None])[0], want, atol=GRADIENT64 * want.max())


def test_draws_log_q_and_files_of_a_fit(backend_name, tmp_path):
    """Draws have the density that log_q says, in the space of the values: of the inferred sites, by SciPy."""
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(30, 3)), rng.integers(0, 2, 30)
    model = up.Classifier(up.Network((3, 4)), 2, up.Prior(scale=up.dist.LogNormal(-0.5, 0.5)))
    fit = up.fit(
        model, x, y, backend=backend_name, method="laplace", guide={"readout.*": "full", "*": "normal"},
        bayesian=["readout.*", "*.scale"], dtype="float64", num_steps=30, num_restarts=2, progress=False,
    )  # fmt: skip
    draws = fit.posterior(4)
    for c, state in enumerate(fit.state):
        flat = np.concatenate([draws[n][c].reshape(4, -1) for n in ("readout.weight", "readout.bias")], -1)
        want = stats.multivariate_normal(state["readout.*:loc"], covariance(state, "readout.*:")).logpdf(flat)
        scale = draws["layers.0.scale"][c]
        loc, sd = state["layers.0.scale:loc"], np.exp(state["layers.0.scale:log_scale"])
        want = want + stats.lognorm.logpdf(scale, sd, scale=np.exp(loc)).sum((1, 2))
        np.testing.assert_allclose(fit.log_q(4)[c], want, rtol=1e-9)
        assert (draws["layers.0.loc"][c] == state["layers.0.loc:loc"]).all()
    fit.save(tmp_path / "fit.npz")
    loaded = up.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(loaded.predict(x, num_draws=4).probs, fit.predict(x, num_draws=4).probs)
    np.testing.assert_array_equal(loaded.log_q(4), fit.log_q(4))
    assert loaded.guide == fit.guide
    assert loaded.bayesian == ["readout.*", "*.scale"]
    tree = fit.to_arviz(num_draws=4, num_prior_draws=2)
    np.testing.assert_allclose(tree["sample_stats"]["log_q"].values, fit.log_q(4))
    assert tree.attrs["guide"] == "readout.*: full, *: normal"


@pytest.mark.skipif(not INSTALLED["pyro"], reason="pyro is not installed here")
def test_a_failed_search_for_the_mode_leaves_a_usable_fit():
    """On one backend: what happens after the training is the same code for both."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    with pytest.raises(up.NonFiniteError) as caught:
        up.fit(
            up.Classifier(up.Network((3, 2)), 2), x, x[:, 0] > 0, backend="pyro", method="laplace", num_steps=9,
            learning_rate=1e30, progress=False,
        )  # fmt: skip
    assert "layers.0.log_scale" in caught.value.sites
    assert all(np.isfinite(value).all() for value in caught.value.fit.state[0].values())
    assert caught.value.fit.posterior(2)["readout.weight"].shape == (1, 2, 2, 2)


def test_what_has_no_approximation_is_refused(backend64):
    with refused(
        ValueError, "method='laplace' needs a guide of 'normal'", "'full'", "got 'lowrank'", "bayesian='readout'"
    ):
        up.fit(up.Classifier(up.Network((2, 3)), 2), np.eye(2), [0, 1], method="laplace", guide="lowrank")
    block = approximate(backend64, up.Prior(), "normal", ["readout.bias"])[2].blocks[0]
    with refused(ValueError, "positive definite precision", "not for 'readout.bias'", "Normal priors"):
        laplace._around(block, {"readout.bias": np.zeros(3)}, np.array([1.0, 0.0, 1.0]))
