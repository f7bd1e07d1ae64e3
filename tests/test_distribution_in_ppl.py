"""`UnivariateGaussianMixture` as a part of its PPL: in models, under NUTS and SVI, pickled, jitted and vmapped."""

import copy
import pickle

import numpy as np
import pytest
from helpers import cumulative, density, draw_mixture, gradients, mixture
from scipy import stats
from tolerances import EXACT64, SAMPLING_P

from ugmm_ppl.backends.load import load_backend

LOC, SCALE, WEIGHTS = np.array([-1.0, 0.5]), np.array([0.6, 0.9]), np.array([0.4, 0.6])
NOISE, OBSERVED = 0.7, np.array([0.8, 1.3, 0.4])


def posterior_of_latent():
    """Mean and standard deviation of z given y ~ N(z, NOISE) for z ~ the mixture, by quadrature."""
    z = np.linspace(-8.0, 8.0, 20_001)
    log_joint = np.log(density(z, LOC, SCALE, WEIGHTS)) + stats.norm.logpdf(OBSERVED[:, None], z, NOISE).sum(0)
    p = np.exp(log_joint - log_joint.max())
    mean = (p * z).sum() / p.sum()
    return mean, np.sqrt((p * (z - mean) ** 2).sum() / p.sum())


def latent_model(backend):
    """z ~ mixture; y ~ Normal(z, NOISE)."""

    def model():
        z = backend.sample("z", mixture(backend, LOC, SCALE, probs=WEIGHTS))
        with backend.plate("data", len(OBSERVED)):
            backend.sample("y", backend.dist.Normal(z, backend.array(NOISE)), obs=backend.array(OBSERVED))

    return model


def likelihood_model(backend):
    """shift ~ Normal(0, 2); y ~ the mixture moved by shift."""

    def model():
        shift = backend.sample("shift", backend.dist.Normal(backend.array(0.0), backend.array(2.0)))
        with backend.plate("data", len(OBSERVED)):
            backend.sample("y", mixture_at(backend, shift), obs=backend.array(OBSERVED))

    return model


def mixture_at(backend, shift):
    """The mixture moved by an array of the backend."""
    rest = backend.array(SCALE), backend.array(WEIGHTS)
    return backend.dist.UnivariateGaussianMixture(backend.array(LOC) + shift, rest[0], probs=rest[1])


def nuts_draws(backend, model, site):
    """Draws of NUTS, the PPL's own."""
    if backend.name == "numpyro":
        import jax
        from numpyro.infer import MCMC, NUTS

        sampler = MCMC(NUTS(model), num_warmup=300, num_samples=2_000, progress_bar=False)
        sampler.run(jax.random.key(0))
        return np.asarray(sampler.get_samples()[site])
    from pyro.infer import MCMC, NUTS

    with backend.inference.seeded(0):
        sampler = MCMC(NUTS(model, jit_compile=False), num_samples=250, warmup_steps=100, disable_progbar=True)
        sampler.run()
    return sampler.get_samples()[site].numpy()


def test_as_a_latent_under_nuts(backend64):
    draws = nuts_draws(backend64, latent_model(backend64), "z")
    mean, sd = posterior_of_latent()
    assert abs(draws.mean() - mean) < 5.0 * sd / np.sqrt(len(draws) / 4.0)  # five errors of len / 4 independent draws
    assert abs(draws.std() / sd - 1.0) < 5.0 / np.sqrt(len(draws) / 2.0)


def test_as_a_likelihood_under_nuts(backend64):
    draws = nuts_draws(backend64, likelihood_model(backend64), "shift")
    shift = np.linspace(-9.0, 9.0, 20_001)
    log_joint = stats.norm.logpdf(shift, 0.0, 2.0)
    for y in OBSERVED:
        log_joint += np.log(density(y - shift, LOC, SCALE, WEIGHTS))
    p = np.exp(log_joint - log_joint.max())
    mean = (p * shift).sum() / p.sum()
    sd = np.sqrt((p * (shift - mean) ** 2).sum() / p.sum())
    assert abs(draws.mean() - mean) < 5.0 * sd / np.sqrt(len(draws) / 4.0)


def test_as_a_latent_under_the_ppls_own_autonormal(backend64):
    """The posterior is almost a Normal, so that the guide's mean is almost the posterior's."""
    model, (mean, sd) = latent_model(backend64), posterior_of_latent()
    if backend64.name == "numpyro":
        import jax
        import numpyro
        from numpyro.infer import SVI, Trace_ELBO
        from numpyro.infer.autoguide import AutoNormal

        svi = SVI(model, AutoNormal(model), numpyro.optim.Adam(0.02), Trace_ELBO(num_particles=10))
        state = jax.jit(svi.init)(jax.random.key(0))
        result = svi.run(jax.random.key(0), 600, progress_bar=False, init_state=state)
        loc, scale = result.params["z_auto_loc"], result.params["z_auto_scale"]
    else:
        import pyro
        from pyro.infer import SVI, Trace_ELBO
        from pyro.infer.autoguide import AutoNormal

        with pyro.get_param_store().scope(), backend64.inference.seeded(0):
            guide = AutoNormal(model)
            svi = SVI(
                model,
                guide,
                pyro.optim.ClippedAdam({"lr": 0.05, "lrd": 0.99}),  # a rate that falls: it settles for every seed
                Trace_ELBO(num_particles=16, vectorize_particles=True, max_plate_nesting=1),
            )
            for _ in range(400):
                svi.step()
            loc, scale = guide.locs.z.detach(), guide.scales.z.detach()
    assert abs(float(loc) - mean) < 0.15 * sd
    assert 0.8 < float(scale) / sd < 1.2


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_pickle_and_deepcopy(given):
    torch = pytest.importorskip("torch")
    backend = load_backend("pyro")
    weights = WEIGHTS if given == "probs" else np.log(WEIGHTS)
    d = mixture(backend, LOC, SCALE, **{given: weights}, validate_args=True)
    d.log_prob(torch.tensor(0.3))  # fills the cached log weights
    for other in (
        pickle.loads(pickle.dumps(d)),
        copy.deepcopy(d),
        pickle.loads(pickle.dumps(d.expand((3,)))).expand((3,)),
    ):
        assert type(other) is type(d)
        np.testing.assert_array_equal(
            other.log_prob(torch.tensor(0.3)).numpy(), np.broadcast_to(d.log_prob(0.3), other.batch_shape)
        )
        assert other._validate_args


def test_gradient_reaches_the_parameters_under_validation(backend64):
    """The checks look at values without cutting or keeping the graph."""

    def log_prob(loc, scale, logits):
        d = backend64.dist.UnivariateGaussianMixture(loc, scale, logits=logits, validate_args=True)
        return d.log_prob(backend64.array(0.3))

    _, (d_loc, d_scale, d_logits) = gradients(backend64, log_prob, [LOC, SCALE, np.log(WEIGHTS)])
    joint = WEIGHTS * stats.norm.pdf(0.3, LOC, SCALE)
    r, z = joint / joint.sum(), (0.3 - LOC) / SCALE
    np.testing.assert_allclose(d_loc, r * z / SCALE, rtol=EXACT64)
    np.testing.assert_allclose(d_scale, r * (z**2 - 1) / SCALE, rtol=EXACT64)
    np.testing.assert_allclose(d_logits, r - WEIGHTS, rtol=EXACT64, atol=EXACT64)


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_pytree_jit_and_vmap(rng, given):
    jax = pytest.importorskip("jax")
    backend = load_backend("numpyro")
    with backend.settings(dtype="float64", device="cpu"):
        loc, scale, weights = draw_mixture(rng, 3, (4,))
        d = mixture(
            backend, loc, scale, **{given: weights if given == "probs" else np.log(weights)}, validate_args=True
        )
        leaves, tree = jax.tree.flatten(d)
        assert len(leaves) == 3
        again = jax.tree.unflatten(tree, leaves)
        assert type(again) is type(d)
        assert again.batch_shape == (4,)
        assert again._validate_args
        value = rng.normal(size=4)
        want = np.log(density(value, loc, scale, weights))
        np.testing.assert_allclose(jax.jit(lambda d, y: d.log_prob(y))(d, value), want, rtol=EXACT64, atol=EXACT64)
        np.testing.assert_allclose(jax.vmap(lambda d, y: d.log_prob(y))(d, value), want, rtol=EXACT64, atol=EXACT64)
        np.testing.assert_allclose(jax.vmap(lambda d: d.mean)(d), np.asarray(d.mean), rtol=EXACT64)
        keys = jax.random.split(jax.random.key(0), 4)
        values = jax.vmap(lambda d, key: d.sample(key, (2_000,)))(d, keys)
        assert values.shape == (4, 2_000)
        for i in range(4):
            oracle = (loc[i], scale[i], weights[i])
            assert (
                stats.kstest(np.asarray(values[i]), lambda y, oracle=oracle: cumulative(y, *oracle)).pvalue > SAMPLING_P
            )

        @jax.jit
        def built_inside(loc, scale, weights):
            return type(d)(loc, scale, probs=weights, validate_args=True).expand((4,)).log_prob(0.0)

        np.testing.assert_allclose(
            built_inside(loc, scale, weights),
            np.log(density(np.zeros(4), loc, scale, weights)),
            rtol=EXACT64,
            atol=EXACT64,
        )
