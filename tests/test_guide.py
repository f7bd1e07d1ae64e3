"""Guides and the ELBO against closed forms, and one backend against the other."""

import functools

import numpy as np
import pytest
from conftest import needs_both
from helpers import refused
from scipy import stats
from tolerances import EXACT64, GRADIENT64, PARITY

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.guides.guide import make_guide
from ugmm_ppl.guides.sites import inferred_sites, latent_sites
from ugmm_ppl.infer.elbo import negative_elbo

pytestmark = pytest.mark.usefixtures("quick_compiler")

PRIORS = {
    "default": up.Prior(),
    "natural": up.Prior(scale=up.dist.LogNormal(-0.5, 0.5), weights=up.dist.Dirichlet(0.7)),
    "gamma": up.Prior(scale=up.dist.InverseGamma(3.0, 1.0), layers={0: {"loc": up.dist.Normal(0.0, 3.0)}}),
}

FAMILIES = {kind: kind for kind in ("normal", "lowrank", "full", "delta")} | {
    "blocks": {"readout.weight": "full", "layers.0.*c*": "lowrank", "*": "normal"},
    "split": {"layers.0.loc": "normal", "layers.0.*": "full", "*": "normal"},
}
HELD = {"blocks": ["readout.bias"]}
"""Sites at a point: with them this guide has every kind of block."""


def problem(backend, prior, guide_kind, model_kind="classifier", rows=7):
    """A model, its data, a guide with parameters and noise from NumPy, all as arrays of the backend."""
    rng = np.random.default_rng(3)
    network = up.Network((3, 4))
    x = rng.normal(size=(rows, 3))
    if model_kind == "classifier":
        model, y = up.Classifier(network, 3, prior), rng.integers(0, 3, rows)
    else:
        model, y = up.Regressor(network, 2, prior), rng.normal(size=rows)
    sites, start = latent_sites(backend, model, model.initial_values(x, 0), seed=0)
    inferred = [name for name in sites if name not in HELD.get(guide_kind, [])]
    guide = make_guide(FAMILIES[guide_kind], backend, sites, init_scale=0.1, rank=2, inferred=inferred)
    moved = {name: value + 0.1 * rng.normal(size=value.shape) for name, value in guide.initial(start).items()}
    params = {name: backend.array(value) for name, value in moved.items()}
    noise = {name: backend.array(rng.normal(size=shape)) for name, shape in guide.noise_shapes().items()}
    return model, guide, params, noise, backend.array(x), backend.array(y)


def loss(backend, model, guide, params, noise, x, y, **settings):
    """The negative ELBO with the defaults of Bayes' rule."""
    settings = {"data_size": len(x), "temperature": 1.0} | settings
    temperature = settings.pop("temperature")
    bound = functools.partial(model, backend)
    return negative_elbo(backend, bound, guide, params, noise, (x, y), temperature, **settings)[0]


def gradient(backend, function, params):
    """Gradient of a function of a dict of arrays, as NumPy."""
    if backend.name == "numpyro":
        import jax

        return {name: np.asarray(g) for name, g in jax.jit(jax.grad(function))(params).items()}
    params = {name: value.clone().requires_grad_() for name, value in params.items()}
    function(params).backward()
    return {name: value.grad.numpy() for name, value in params.items()}


def affine(backend, guide, params):
    """(mean, covariance) of all entries, site after site, from the draws alone, which are affine in the noise."""
    shapes = guide.noise_shapes()
    size = sum(np.prod(shape, dtype=int) for shape in shapes.values())

    def draw(flat):
        parts = np.split(flat, np.cumsum([np.prod(shape, dtype=int) for shape in shapes.values()])[:-1])
        noise = {n: backend.array(part.reshape(shape)) for (n, shape), part in zip(shapes.items(), parts, strict=True)}
        return np.concatenate([np.ravel(value) for value in guide.draw(params, noise).values()])

    mean = draw(np.zeros(size))
    columns = np.stack([draw(unit) - mean for unit in np.eye(size)], axis=1)
    return mean, columns @ columns.T


def has_density(guide):
    """Which entries are inferred, site after site."""
    return np.concatenate(
        [np.full(np.prod(s.unconstrained_shape, dtype=int), n in guide.inferred) for n, s in guide.sites.items()]
    )


@pytest.mark.parametrize("kind", ["normal", "lowrank", "full", "blocks"])
def test_entropy_moments_and_log_prob_are_those_of_the_gaussian(backend64, kind):
    _, guide, params, _, _, _ = problem(backend64, PRIORS["default"], kind)
    loc, covariance = affine(backend64, guide, params)
    inferred = has_density(guide)
    oracle = stats.multivariate_normal(loc[inferred], covariance[np.ix_(inferred, inferred)])
    np.testing.assert_allclose(float(guide.entropy(params)), oracle.entropy(), rtol=PARITY)
    moments = guide.moments(params)
    np.testing.assert_allclose(np.concatenate([np.ravel(moments[n][0]) for n in guide.sites]), loc, rtol=EXACT64)
    variance = np.concatenate([np.ravel(moments[n][1] + 0.0 * moments[n][0]) for n in guide.sites])
    np.testing.assert_allclose(variance, np.diag(covariance), rtol=EXACT64 * 1e3)  # differences of draws near one
    point = loc + np.where(inferred, np.random.default_rng(0).normal(0.0, 0.1, loc.shape), 0.0)
    parts = np.split(point, np.cumsum([np.prod(s.unconstrained_shape) for s in guide.sites.values()])[:-1])
    unconstrained = {
        n: backend64.array(part.reshape(s.unconstrained_shape))
        for (n, s), part in zip(guide.sites.items(), parts, strict=True)
    }
    np.testing.assert_allclose(float(guide.log_prob(params, unconstrained)), oracle.logpdf(point[inferred]), rtol=1e-9)


@pytest.mark.parametrize("kind", ["normal", "lowrank", "full", "blocks"])
def test_kl_is_the_closed_form_of_two_gaussians(backend64, kind):
    """With Normal priors the KL term does not depend on the draw: that of two Gaussians, less log p at a held point."""
    model, guide, params, noise, x, y = problem(backend64, PRIORS["default"], kind)
    mean, covariance = affine(backend64, guide, params)
    prior_mean, prior_sd = (
        np.concatenate([np.full(np.prod(s.shape), value(n)) for n, s in guide.sites.items()])
        for value in (
            lambda n: -0.5 if n.endswith("log_scale") else 0.0,
            lambda n: 0.5 if n.endswith(("log_scale", "readout.weight")) else 1.0,  # 1 / sqrt(4 neurons)
        )
    )
    inferred = has_density(guide)
    held = stats.norm.logpdf(mean, prior_mean, prior_sd)[~inferred].sum()
    covariance, mean = covariance[np.ix_(inferred, inferred)], mean[inferred]
    prior_mean, prior_sd = prior_mean[inferred], prior_sd[inferred]
    kl = 0.5 * (
        np.sum(np.diag(covariance) / prior_sd**2) + np.sum(((mean - prior_mean) / prior_sd) ** 2) - len(mean)
        + 2 * np.log(prior_sd).sum() - np.linalg.slogdet(covariance)[1]
    )  # fmt: skip
    at = {t: float(loss(backend64, model, guide, params, noise, x, y, temperature=t)) for t in (1.0, 3.0)}
    bound = functools.partial(model, backend64)
    total, parts = negative_elbo(backend64, bound, guide, params, noise, (x, y), 3.0, data_size=len(x))
    np.testing.assert_allclose(3.0 * float(parts[1]) - float(parts[0]), float(total), rtol=EXACT64)
    np.testing.assert_allclose(at[3.0] - at[1.0], 2.0 * float(parts[1]), rtol=PARITY)
    np.testing.assert_allclose((at[3.0] - at[1.0]) / 2.0, kl - held, rtol=PARITY)


CASES = [(kind, prior) for kind in ("normal", "lowrank", "delta") for prior in PRIORS] + [("blocks", "natural")]


@pytest.mark.parametrize(("kind", "prior"), CASES)
def test_gradient_is_that_of_finite_differences(backend64, prior, kind):
    model, guide, params, noise, x, y = problem(backend64, PRIORS[prior], kind, "regressor")

    def function(p):
        return loss(backend64, model, guide, p, noise, x, y)

    grads = gradient(backend64, function, params)
    rng = np.random.default_rng(1)
    direction = {name: rng.normal(size=value.shape) for name, value in params.items()}
    step = 1e-6

    def moved(sign):
        return {n: v + sign * step * backend64.array(direction[n]) for n, v in params.items()}

    numeric = (float(function(moved(1.0))) - float(function(moved(-1.0)))) / (2 * step)
    np.testing.assert_allclose(sum(np.sum(grads[n] * direction[n]) for n in params), numeric, rtol=GRADIENT64)


@pytest.mark.long
@needs_both
@pytest.mark.parametrize("model_kind", ["classifier", "regressor"])
@pytest.mark.parametrize(("kind", "prior"), CASES)
def test_backends_agree_on_loss_and_gradient(model_kind, prior, kind):
    results = []
    for name in ("pyro", "numpyro"):
        backend = load_backend(name)
        with backend.settings(dtype="float64", device="cpu"):
            model, guide, params, noise, x, y = problem(backend, PRIORS[prior], kind, model_kind)

            def function(p, args=(backend, model, guide), rest=(noise, x, y)):
                return loss(*args, p, *rest, data_size=100)

            results.append((float(function(params)), gradient(backend, function, params)))
    (loss_pyro, grads_pyro), (loss_numpyro, grads_numpyro) = results
    np.testing.assert_allclose(loss_pyro, loss_numpyro, rtol=PARITY)
    for name, grad in grads_pyro.items():
        np.testing.assert_allclose(grad, grads_numpyro[name], rtol=PARITY, atol=PARITY, err_msg=name)


def test_log_joint_is_that_of_scipy(backend64):
    """The whole log joint, every site by SciPy and the likelihood by hand."""
    model, guide, params, noise, x, y = problem(backend64, PRIORS["default"], "delta")
    values = {name: np.asarray(params[f"{name}:loc"]) for name in guide.sites}
    scales = {"loc": (0, 1), "log_scale": (-0.5, 0.5), "logits": (0, 1), "weight": (0, 0.5), "bias": (0, 1)}
    prior = sum(stats.norm.logpdf(v, *scales[name.rsplit(".", 1)[1]]).sum() for name, v in values.items())
    logits = values["layers.0.logits"]
    weights = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    density = stats.norm.pdf(np.asarray(x)[:, None, :], values["layers.0.loc"], np.exp(values["layers.0.log_scale"]))
    a = np.log((weights * density).sum(-1))
    h = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
    outputs = h @ values["readout.weight"].T + values["readout.bias"]
    likelihood = (outputs - np.log(np.exp(outputs).sum(-1, keepdims=True)))[np.arange(7), np.asarray(y)].sum()
    np.testing.assert_allclose(
        -float(loss(backend64, model, guide, params, noise, x, y)), prior + likelihood, rtol=PARITY
    )


def test_mini_batches_are_unbiased(backend64):
    """The mean loss over the batches of one epoch is the loss of all data."""
    model, guide, params, noise, x, y = problem(backend64, PRIORS["default"], "normal", rows=12)
    full = float(loss(backend64, model, guide, params, noise, x, y))
    parts = [
        float(loss(backend64, model, guide, params, noise, x[i : i + 3], y[i : i + 3], data_size=12))
        for i in range(0, 12, 3)
    ]
    np.testing.assert_allclose(np.mean(parts), full, rtol=EXACT64)


def hierarchical(backend, name, shape):
    """loc ~ N(m, 0.1) around a common m ~ N(0, 1)."""
    m = backend.sample(f"{name}.m", backend.build(up.dist.Normal(0.0, 1.0), ()))
    return backend.sample(name, backend.dist.Normal(m, 0.1 + 0.0 * m).expand(shape).to_event(len(shape)))


@pytest.mark.parametrize("kind", ["normal", "lowrank", "full", "split"])
def test_the_loss_is_the_elbo_where_a_prior_depends_on_another_site(backend64, kind):
    """Its mean over draws is that of log q - log p at the draw, also where the guide correlates both sites."""
    model, guide, params, _, x, y = problem(backend64, up.Prior(loc=hierarchical), kind)
    for name in params:
        if name.endswith("factor"):
            params[name] = params[name] * 0.0 + 0.3  # every entry moves with every other one

    def both(noise):
        draw = guide.draw(params, noise)
        trace = backend64.trace(functools.partial(model, backend64), draw, x, y)
        log_p = sum(site.distribution.log_prob(site.value).sum() for site in trace.values())
        return loss(backend64, model, guide, params, noise, x, y), guide.log_prob(params, draw) - log_p

    if backend64.name == "numpyro":
        import jax

        both = jax.jit(both)
    rng, losses, plain = np.random.default_rng(0), [], []
    for _ in range(300):
        noise = {name: backend64.array(rng.normal(size=shape)) for name, shape in guide.noise_shapes().items()}
        one, other = both(noise)
        losses.append(float(one))
        plain.append(float(other))
    gap = np.array(losses) - np.array(plain)
    assert abs(gap.mean()) < 5.0 * gap.std() / np.sqrt(len(gap))


def test_a_callable_may_sample_another_shape(backend64):
    def shared(backend, name, shape):
        return backend.sample(name, backend.build(up.dist.Normal(0.0, 1.0), (1, shape[1]))) + backend.array(
            np.zeros(shape)
        )

    _, guide, _, _, _, _ = problem(backend64, up.Prior(loc=shared), "normal")
    assert guide.sites["layers.0.loc"].shape == (1, 3)


@pytest.mark.parametrize(
    "prior",
    [
        up.Prior(loc=up.dist.Uniform(-0.5, 0.5)),
        up.Prior(scale=up.dist.Uniform(0.1, 0.8)),
        up.Prior(scale=up.dist.Beta(2.0, 2.0), log_scale=None),
    ],
)
def test_a_prior_of_bounded_support_starts_inside_it(backend_name, prior):
    x = np.random.default_rng(0).normal(size=(30, 3))
    model = up.Regressor(up.Network((3, 4)), 1, prior)
    fit = up.fit(model, x, x[:, 0], backend=backend_name, num_steps=20, progress=False)
    assert np.isfinite(fit.losses).all()


def test_a_full_block_has_a_limit(backend64):
    """5000 components and the readout; the same guide by parts is fine."""
    model = up.Classifier(up.Network((50, 100)), 2)
    sites, _ = latent_sites(backend64, model, model.template(), seed=0)
    with refused(ValueError, "at most 4096 entries", "the sites of '*' have 15202", "'lowrank'", "'readout.*': 'full'"):
        make_guide("full", backend64, sites, init_scale=0.1, rank=2)
    guide = make_guide({"readout.*": "full", "*": "normal"}, backend64, sites, init_scale=0.1, rank=2)
    assert guide.noise_shapes()["readout.*:entries"] == (202,)
    assert guide.factorised == {"layers.0.loc", "layers.0.log_scale", "layers.0.logits"}


def test_the_readout_of_the_paper_is_its_last_layer(backend64):
    model = up.Classifier(up.Network.paper((3, 4)), 2)
    sites, _ = latent_sites(backend64, model, model.template(), seed=0)
    found = inferred_sites("readout", sites, model.network.readout_sites)
    assert found == ["layers.1.loc", "layers.1.log_scale", "layers.1.logits"]
    with refused(ValueError, "every name in bayesian must match a site", "got 'layers.2.*'"):
        inferred_sites(["layers.2.*"], sites, model.network.readout_sites)


@pytest.mark.parametrize("kind", ["full", "blocks"])
def test_culprits_are_the_sites_of_bad_gradients(backend64, kind):
    _, guide, params, _, _, _ = problem(backend64, PRIORS["default"], kind)
    gradients = {name: np.zeros(np.shape(value)) for name, value in params.items()}
    assert guide.culprits(gradients) == []
    name = "loc" if kind == "full" else "readout.weight:loc"
    gradients[name][-1] = np.nan
    assert guide.culprits(gradients) == ["readout.bias" if kind == "full" else "readout.weight"]
    gradients["factor" if kind == "full" else "layers.0.*c*:factor"][0, 0] = np.inf
    assert guide.culprits(gradients)[0] == "layers.0.loc"
