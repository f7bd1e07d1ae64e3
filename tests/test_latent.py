"""Latent networks against closed forms: density, guides, evidence, posterior of z, samples, gradients, bad input."""

import numpy as np
import pytest
from conftest import needs_both
from helpers import gradients
from latent_oracle import (
    exact_encoder,
    fit_of,
    linear_model,
    linear_moments,
    linear_posterior,
    linear_values,
    picking_values,
)  # fmt: skip
from scipy import stats
from tolerances import EXACT64, PARITY, QUADRATURE, SAMPLING_P, SIGMAS

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.guides.sites import constrain, latent_sites
from ugmm_ppl.latent import density, encoder, evidence
from ugmm_ppl.ops.numpy import NUMPY

pytestmark = pytest.mark.usefixtures("quick_compiler")


def random_values(model, rng):
    """Parameters of any network."""
    return {
        name: 0.5 * rng.normal(size=value.shape) + (0.5 if name.endswith("gain") else 0.0)
        for name, value in model.template().items()
    }


def rows_of(values, n, seed):
    """Rows from the linear network."""
    mean, cov = linear_moments(values)
    return np.random.default_rng(seed).multivariate_normal(mean[2:], cov[2:, 2:], n)


def test_the_joint_density_is_that_of_scipy(rng):
    model = up.LatentNetwork((2, 3, 2), components=2, classes=3)
    values = random_values(model, rng)
    z, h, x = rng.normal(size=(4, 2)), rng.normal(size=(4, 3)), rng.normal(size=(4, 2))
    found = density.log_joint(NUMPY, values, [z, h], x)
    want = np.zeros((4, 3))
    softmax = lambda a: np.exp(a) / np.exp(a).sum(-1, keepdims=True)  # noqa: E731
    for b, c in np.ndindex(4, 3):
        want[b, c] = np.log(softmax(values["classes.logits"])[c])
        tops = {role: values[f"latent.{role}"][c] for role in ("loc", "log_scale", "logits")}
        parts = softmax(tops["logits"]) * stats.norm.pdf(z[b][:, None], tops["loc"], np.exp(tops["log_scale"]))
        want[b, c] += np.log(parts.sum(-1)).sum()
        for i, (above, below) in enumerate([(z[b], h[b]), (h[b], x[b])]):
            own = {role: values[f"layers.{i}.{role}"] for role in ("gain", "loc", "log_scale", "logits")}
            centre = own["gain"] * above - own["loc"]
            parts = softmax(own["logits"]) * stats.norm.pdf(below[:, None], centre, np.exp(own["log_scale"]))
            want[b, c] += np.log(parts.sum(-1)).sum()
    np.testing.assert_allclose(found, want, rtol=EXACT64)


def test_scales_and_weights_may_be_sampled_themselves(backend64, rng):
    natural = up.Prior(scale=up.dist.InverseGamma(3.0, 1.0), weights=up.dist.Dirichlet(0.7))
    options = {"components": 2, "classes": 2, "gain": up.dist.Normal(1.0, 0.1)}
    plain = up.LatentNetwork((2, 2), **options)
    model = up.LatentNetwork((2, 2), prior=natural, latent_prior=natural, class_prior=up.dist.Dirichlet(1.0), **options)
    values = random_values(plain, rng)
    sites, start = latent_sites(backend64, model, values, 0)
    assert set(sites) == {
        "classes.weights", "latent.loc", "latent.scale", "latent.weights", "layers.0.gain", "layers.0.loc",
        "layers.0.scale", "layers.0.weights",
    }  # fmt: skip
    constrained, _ = constrain(sites, {name: backend64.array(u) for name, u in start.items()})
    z, x = rng.normal(size=(3, 2)), rng.normal(size=(3, 2))
    found, want = (
        density.log_joint(NUMPY, {n: np.asarray(v) for n, v in given.items()}, [z], x)
        for given in (constrained, values)
    )
    np.testing.assert_allclose(found, want, rtol=PARITY)


def test_without_a_gain_a_layer_is_equation_one(rng):
    model = up.LatentNetwork((2, 3), gain=False)
    values = random_values(model, rng)
    assert "layers.0.gain" not in values
    z = rng.normal(size=(5, 2))
    loc, _, _ = density.conditional(NUMPY, values, 0, z)
    np.testing.assert_array_equal(loc, z[:, None, :] - values["layers.0.loc"])


def test_density_of_data_integrates_to_one(rng):
    """One z, one column: the sum over a fine grid, which is exact for smooth densities that end within it."""
    model = up.LatentNetwork((1, 1), components=2)
    values = random_values(model, rng)
    z, x = (a[..., None] for a in np.meshgrid(np.arange(-20.0, 20.0, 0.1), np.arange(-40.0, 40.0, 0.1)))
    total = 0.01 * np.exp(density.log_joint(NUMPY, values, [z], x)).sum()
    assert abs(total - 1.0) < QUADRATURE


def test_the_exact_guide_has_constant_weights(backend_name):
    """With the posterior as guide every weight is the density itself: no error at all, from any number of samples."""
    values = linear_values()
    x = rows_of(values, 6, 1)
    want, mean, cov = linear_posterior(values, x)
    fit = fit_of(linear_model(), values, exact_encoder(values, x), backend_name)
    for method in ("importance", "annealed"):
        found = fit.log_evidence(x, method=method, num_samples=5, num_temperatures=4)
        np.testing.assert_allclose(found.value, want, rtol=PARITY)
        np.testing.assert_allclose(found.error, 0.0, atol=1e-8)
        np.testing.assert_allclose(found.ess, 5.0, rtol=PARITY)
    np.testing.assert_allclose(fit.outputs(x)[0, 0, :, 0], want, rtol=PARITY)
    np.testing.assert_allclose(fit.log_likelihood(x)[0, 0], want, rtol=PARITY)
    for layer in range(2):
        encoded = fit.encode(x, layer, num_samples=40_000)
        spread = np.sqrt(cov[layer, layer])
        assert np.abs(encoded.mean[:, 0] - mean[:, layer]).max() < SIGMAS * spread / np.sqrt(40_000)
        assert np.abs(encoded.std[:, 0] / spread - 1.0).max() < SIGMAS / np.sqrt(80_000)


@pytest.mark.parametrize("method", ["importance", "annealed"])
def test_evidence_of_a_wrong_guide_is_right_within_its_error(backend_name, method):
    """A guide that is broader than the posterior and off its centre."""
    values = linear_values()
    x = rows_of(values, 20, 2)
    want, mean, cov = linear_posterior(values, x)
    params = exact_encoder(values, x)
    for layer in range(2):
        params[f"encoder.{layer}.0.bias"] += np.array([0.2, 0.4])
    fit = fit_of(linear_model(), values, params, backend_name)
    samples = {"importance": 4000, "annealed": 60}[method]
    found = fit.log_evidence(x, method=method, num_samples=samples, num_temperatures=15)
    z = (found.value - want) / found.error
    assert np.abs(z).max() < SIGMAS
    assert stats.chi2(len(z)).sf((z**2).sum()) > SAMPLING_P  # the errors are not too small,
    assert stats.chi2(len(z)).cdf((z**2).sum()) > SAMPLING_P  # nor too large
    assert (found.ess < 0.95 * samples).any() and found.num_samples == samples
    np.testing.assert_allclose(found.total_error**2, (found.error**2).sum(), rtol=EXACT64)
    if method == "importance":
        encoded = fit.encode(x, num_samples=samples)
        assert np.abs(encoded.mean[:, 0] - mean[:, 0]).max() < SIGMAS * np.sqrt(cov[0, 0] / found.ess.min())


def test_weights_that_pick_one_input_make_a_linear_model(backend_name):
    values, picked = picking_values()
    x = np.random.default_rng(3).normal(size=(15, 3))
    at = np.arange(3), picked
    gain = np.zeros((3, 2))
    gain[at] = values["layers.0.gain"][at]
    noise = np.exp(2.0 * values["layers.0.log_scale"][at])
    want = stats.multivariate_normal(-values["layers.0.loc"][at], gain @ gain.T + np.diag(noise)).logpdf(x)
    model = up.LatentNetwork((2, 3), encoder_widths=())
    posterior = np.linalg.inv(np.eye(2) + gain.T @ (gain / noise[:, None]))
    slope = posterior @ gain.T / noise
    assert abs(posterior[0, 1]) < EXACT64  # each column has one parent, so the posterior factorises
    params = {
        "encoder.0.skip": np.concatenate([slope, np.zeros((2, 3))]),
        "encoder.0.0.weight": np.zeros((4, 3)),
        "encoder.0.0.bias": np.concatenate([slope @ values["layers.0.loc"][at], 0.5 * np.log(np.diag(posterior))]),
    }
    fit = fit_of(model, values, params, backend_name)
    np.testing.assert_allclose(fit.log_evidence(x, num_samples=3).value, want, rtol=PARITY)
    want_z = (x + values["layers.0.loc"][at]) @ slope.T
    want_x = want_z @ gain.T - values["layers.0.loc"][at]
    found = fit.reconstruct(x, num_samples=40_000)
    spread = np.sqrt(np.diag(gain @ posterior @ gain.T)).max()
    assert np.abs(found - want_x).max() < SIGMAS * spread / np.sqrt(40_000)


def test_samples_are_those_of_the_closed_form(backend_name):
    values = linear_values()
    mean, cov = linear_moments(values)
    fit = fit_of(linear_model(), values, exact_encoder(values, None), backend_name)
    x = fit.sample(4000)
    for column in range(3):
        scaled = (x[:, column] - mean[2 + column]) / np.sqrt(cov[2 + column, 2 + column])
        assert stats.kstest(scaled, "norm").pvalue > SAMPLING_P
    squares = stats.chi2(3).cdf(((x - mean[2:]) @ np.linalg.inv(cov[2:, 2:]) * (x - mean[2:])).sum(-1))
    assert stats.kstest(squares, "uniform").pvalue > SAMPLING_P
    np.testing.assert_array_equal(x, fit.sample(4000))
    assert not np.array_equal(x, fit.sample(4000, seed=1))


def test_class_posterior_is_bayes_rule(backend_name):
    """z of each class, one column: p(class | x) is that of a mixture of two normals."""
    model = up.LatentNetwork((1, 1), classes=2, encoder_widths=())
    values = {
        "classes.logits": np.array([0.3, -0.2]), "latent.loc": np.array([[[-1.0]], [[1.5]]]),
        "latent.log_scale": np.array([[[-0.5]], [[0.1]]]), "layers.0.gain": np.array([[0.8]]),
        "layers.0.loc": np.array([[0.4]]), "layers.0.log_scale": np.array([[-0.7]]),
    }  # fmt: skip
    x = np.linspace(-3.0, 3.0, 9)[:, None]
    prior = np.exp(values["classes.logits"]) / np.exp(values["classes.logits"]).sum()
    loc = 0.8 * values["latent.loc"][:, 0, 0] - 0.4
    spread = np.sqrt(0.64 * np.exp(2.0 * values["latent.log_scale"][:, 0, 0]) + np.exp(-1.4))
    joint = prior * stats.norm.pdf(x, loc, spread)
    params = {"encoder.0.skip": np.array([[1.0], [0.0]]), "encoder.0.0.weight": np.zeros((2, 1)),
              "encoder.0.0.bias": np.array([0.3, -0.2])}  # fmt: skip
    fit = fit_of(model, values, params, backend_name)
    for options in ({"num_samples": 40_000}, {"method": "annealed", "num_samples": 300, "num_temperatures": 10}):
        found = fit.posterior_class(x, **options)
        np.testing.assert_allclose(found.sum(1), 1.0, rtol=EXACT64)
        worst = SIGMAS * 0.5 / np.sqrt(0.5 * options["num_samples"])  # of half as many equal weights
        np.testing.assert_allclose(found, joint / joint.sum(1, keepdims=True), atol=worst)
    y = np.array([0, 1, -1] * 3)
    found = fit.log_evidence(x, y, num_samples=40_000)
    want = np.log(np.where(y < 0, joint.sum(1), joint[np.arange(9), y]))
    assert np.abs((found.value - want) / found.error).max() < SIGMAS
    drawn, codes = fit.sample(4000, with_class=True)
    assert stats.binomtest(int((codes == 1).sum()), 4000, prior[1]).pvalue > SAMPLING_P
    assert stats.kstest((drawn[codes == 1, 0] - loc[1]) / spread[1], "norm").pvalue > SAMPLING_P
    assert stats.kstest((fit.sample(2000, 0)[:, 0] - loc[0]) / spread[0], "norm").pvalue > SAMPLING_P


def test_the_program_has_the_joint_density_and_scales_all_terms_of_a_row(backend64, rng):
    model = up.LatentNetwork((2, 3, 2), components=2, classes=3)
    values = random_values(model, rng)
    hidden, x, y = [rng.normal(size=(4, 2)), rng.normal(size=(4, 3))], rng.normal(size=(4, 2)), np.array([0, 2, 1, 1])
    given = {n: backend64.array(v) for n, v in (values | dict(zip(["z", "h.1"], hidden, strict=True))).items()}
    trace = backend64.trace(
        lambda *a, **k: model(backend64, *a, **k), given, backend64.array(x), backend64.array(y), data_size=12
    )
    local = [site for name, site in trace.items() if name in ("y", "z", "h.1", "x")]
    assert len(local) == 4 and all(site.scale == 3.0 for site in local)
    found = sum(np.asarray(site.distribution.log_prob(site.value)) for site in local)
    want = density.log_joint(NUMPY, values, hidden, x)[np.arange(4), y]
    np.testing.assert_allclose(found, want, rtol=PARITY)


def test_the_bound_is_the_mean_of_the_log_weights_and_scaled(backend64, rng):
    values = linear_values()
    x = rows_of(values, 5, 4)
    want, _, _ = linear_posterior(values, x)
    model = linear_model()
    guide = model.local_guide(backend64)
    params = {name: backend64.array(value) for name, value in exact_encoder(values, x).items()}
    y = backend64.array(np.stack([np.full(5, -1), np.arange(5)], -1))
    given = {name: backend64.array(value) for name, value in values.items()}
    with backend64.inference.seeded(0):
        trace = backend64.trace(
            lambda *a, **k: model(backend64, *a, encoder=(guide, params), **k), given, backend64.array(x), y,
            data_size=50, train=True,
        )  # fmt: skip
    assert trace["x"].scale == 10.0 and trace["x"].observed
    np.testing.assert_allclose(np.asarray(trace["x"].distribution.log_prob(trace["x"].value)), want, rtol=PARITY)


def test_samples_of_a_layer_have_pathwise_gradients(backend64, rng):
    """d E[x] / d gain of a layer under its own samples: weights_k E[z_k], as the mean is linear."""
    model = up.LatentNetwork((2, 1))
    values = random_values(model, rng)
    z = rng.normal(size=(20_000, 2)) + np.array([1.0, -0.5])

    def mean(gain):
        given = {n: backend64.array(v) for n, v in values.items()} | {"layers.0.gain": gain}
        loc, scale, log_w = density.conditional(backend64.ops, given, 0, backend64.array(z))
        mixture = backend64.dist.UnivariateGaussianMixture(loc, scale, logits=log_w)
        with backend64.inference.seeded(0):
            return backend64.sample("h", mixture).mean()

    _, (found,) = gradients(backend64, mean, [values["layers.0.gain"]])
    weights = np.exp(values["layers.0.logits"]) / np.exp(values["layers.0.logits"]).sum()
    np.testing.assert_allclose(found, weights * z.mean(0), atol=SIGMAS * 2.0 / np.sqrt(len(z)))


@needs_both
def test_weights_are_equal_in_both_backends(rng):
    model = up.LatentNetwork((2, 3, 2), components=2, classes=2, encoder_widths=(5,))
    values, x, noise = random_values(model, rng), rng.normal(size=(4, 2)), rng.normal(size=(6, 4, 5))
    found = []
    for name in ("pyro", "numpyro"):
        backend = load_backend(name)
        with backend.settings(dtype="float64", device="cpu"):
            guide = model.local_guide(backend)
            weigher = evidence.Weigher(model, backend, guide)
            found.append(weigher.importance(values, guide.initial(4, 0), x, np.arange(4), noise))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, rtol=PARITY, atol=PARITY)


def test_a_guide_draws_from_its_density(backend64, rng):
    guides = [
        encoder.make_local_guide(backend64, (2, 3, 4), kind, (6,)) for kind in ("mlp", "per-example")
    ]  # fmt: skip
    x, rows = backend64.array(rng.normal(size=(3, 4))), backend64.array(np.array([4, 0, 2]))
    noise = rng.normal(size=(7, 3, 5))
    for guide in guides:
        params = {n: backend64.array(v + 0.3 * rng.normal(size=v.shape)) for n, v in guide.initial(5, 0).items()}
        hidden, log_q = encoder.draw(guide, params, x, rows, backend64.array(noise))
        assert [tuple(h.shape) for h in hidden] == [(7, 3, 2), (7, 3, 3)]
        again = encoder.log_prob(guide, params, x, rows, hidden)
        np.testing.assert_allclose(np.asarray(again), np.asarray(log_q), rtol=PARITY)


def test_combined_errors_are_those_of_the_delta_method(rng):
    log_w = rng.normal(size=(3, 50, 4))
    weights = np.array([0.5, 0.3, 0.2])
    found = evidence.combine(log_w, np.log(weights))
    mean = np.exp(log_w).mean(1)
    np.testing.assert_allclose(np.exp(found.value), weights @ mean, rtol=EXACT64)
    variance = (weights[:, None] ** 2 * np.exp(log_w).var(1, ddof=0) / 49).sum(0)
    np.testing.assert_allclose(found.error, np.sqrt(variance) / (weights @ mean), rtol=PARITY)
