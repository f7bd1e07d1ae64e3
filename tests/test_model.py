"""Classifier and Regressor: their likelihoods, and the bound model inside each PPL's own inference."""

import numpy as np
import pytest
from scipy import stats
from tolerances import EXACT64, PARITY, SAMPLING_P

import ugmm_ppl as up

pytestmark = pytest.mark.usefixtures("quick_compiler")

MODELS = {"classifier": up.Classifier(up.Network((3, 4)), 3), "regressor": up.Regressor(up.Network((3, 4)), 2)}


def data(kind, rows=20):
    """Inputs and targets of the right kind."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(rows, 3))
    return x, (np.argmax(x, -1) if kind == "classifier" else x[:, 0] + 0.1 * rng.normal(size=rows))


@pytest.mark.parametrize("kind", MODELS)
def test_the_ppl_and_numpy_agree_on_the_likelihood(backend64, kind, rng):
    model, (_, y) = MODELS[kind], data(kind)
    outputs = rng.normal(size=(5, 20, model.num_outputs))
    of_ppl = model.likelihood.distribution(backend64, backend64.array(outputs)).log_prob(backend64.array(y))
    np.testing.assert_allclose(np.asarray(of_ppl), model.log_likelihood(outputs, y), rtol=PARITY, atol=PARITY)


def test_the_regressor_is_a_mixture_of_normals(rng):
    outputs, y = rng.normal(size=(6, 6)), rng.normal(size=6)
    weights = np.exp(outputs[:, :2]) / np.exp(outputs[:, :2]).sum(-1, keepdims=True)
    density = (weights * stats.norm.pdf(y[:, None], outputs[:, 2:4], np.exp(outputs[:, 4:]))).sum(-1)
    np.testing.assert_allclose(MODELS["regressor"].log_likelihood(outputs, y), np.log(density), rtol=EXACT64)


def test_targets_are_drawn_from_the_likelihood(rng):
    outputs = np.array([0.5, -1.0, 1.0])
    drawn = MODELS["classifier"].likelihood.sample(np.broadcast_to(outputs, (6000, 1, 3)), rng)[:, 0]
    expected = 6000 * np.exp(outputs) / np.exp(outputs).sum()
    assert stats.chisquare(np.bincount(drawn, minlength=3), expected).pvalue > SAMPLING_P
    outputs = np.array([0.2, -0.3, -2.0, 1.0, -0.5, 0.1])
    drawn = MODELS["regressor"].likelihood.sample(np.broadcast_to(outputs, (6000, 1, 6)), rng)[:, 0]
    w = np.exp(outputs[:2]) / np.exp(outputs[:2]).sum()

    def cdf(v):
        return (w * stats.norm.cdf(v[:, None], outputs[2:4], np.exp(outputs[4:]))).sum(-1)

    assert stats.kstest(drawn, cdf).pvalue > SAMPLING_P


@pytest.mark.parametrize("kind", MODELS)
def test_bound_model_runs_in_the_ppls_own_svi_nuts_and_predictive(backend_name, kind):
    program, (x, y) = MODELS[kind].bind(backend_name), data(kind)
    losses, draws, predicted = (in_pyro if backend_name == "pyro" else in_numpyro)(program, x, y)
    assert np.mean(losses[-20:]) < np.mean(losses[:20]) - 5.0
    assert draws["layers.0.loc"].shape == (4, 4, 3)
    assert predicted.shape == (6, 20)


def in_numpyro(program, x, y):
    """Losses of SVI with mini-batches and several particles, draws of NUTS, and posterior predictive draws."""
    import jax
    import numpyro
    from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO, autoguide

    guide = autoguide.AutoNormal(program)
    svi = SVI(program, guide, numpyro.optim.Adam(0.03), Trace_ELBO(num_particles=2), data_size=40)
    result = svi.run(jax.random.key(0), 150, x, y, progress_bar=False)
    mcmc = MCMC(NUTS(program, max_tree_depth=2), num_warmup=4, num_samples=4, progress_bar=False)
    mcmc.run(jax.random.key(1), x, y)
    predictive = Predictive(program, guide=guide, params=result.params, num_samples=6)
    predicted = predictive(jax.random.key(2), x)["y"]
    return np.asarray(result.losses), {k: np.asarray(v) for k, v in mcmc.get_samples().items()}, np.asarray(predicted)


def in_pyro(program, x, y):
    """Losses of SVI with mini-batches and vectorised particles, draws of NUTS, and posterior predictive draws."""
    import pyro
    import torch
    from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO, autoguide

    with pyro.settings.context(module_local_params=True), torch.random.fork_rng():
        torch.manual_seed(0)
        guide = autoguide.AutoNormal(program)
        elbo = Trace_ELBO(num_particles=2, vectorize_particles=True, max_plate_nesting=1)(program, guide)
        elbo(x, y, data_size=40)
        optimiser, losses = torch.optim.Adam(elbo.parameters(), lr=0.03), []
        for _ in range(150):
            optimiser.zero_grad()
            loss = elbo(x, y, data_size=40)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        mcmc = MCMC(NUTS(program, max_tree_depth=2), num_samples=4, warmup_steps=4, disable_progbar=True)
        mcmc.run(x, y)
        predicted = Predictive(program, guide=guide, num_samples=6)(x)["y"]
    assert len(pyro.get_param_store()) == 0
    return np.array(losses), {k: v.numpy() for k, v in mcmc.get_samples().items()}, predicted.numpy()


def test_data_size_scales_the_likelihood_and_nothing_else(backend64):
    """Twice the rows count for twice the log likelihood; the prior counts once."""
    model, (x, y) = MODELS["classifier"], data("classifier")
    values = {name: backend64.array(value) for name, value in model.initial_values(x, 0).items()}
    sites = {
        size: backend64.trace(model, values, backend64, backend64.array(x), backend64.array(y), data_size=size)
        for size in (None, 20, 40)
    }
    assert {size: float(trace["y"].scale) for size, trace in sites.items()} == {None: 1.0, 20: 1.0, 40: 2.0}
    assert {float(site.scale) for name, site in sites[40].items() if name != "y"} == {1.0}


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: up.Classifier("net", 3), TypeError, r"network must be an up\.Network.*got 'net'"),
        (lambda: up.Classifier(up.Network((2, 3)), 1), ValueError, r"classes must be at least 2; got 1"),
        (lambda: up.Regressor(up.Network((2, 3)), 0), ValueError, r"components must be at least 1; got 0"),
        (lambda: up.Regressor(up.Network((2, 3)), 1, "flat"), TypeError, r"prior must be an up\.Prior.*got 'flat'"),
        (
            lambda: up.Regressor(up.Network((2, 3)), 1, up.Prior(layers={1: {"loc": up.dist.Normal(0.0, 1.0)}})),
            ValueError,
            r"Prior\.layers must name layers 0\.\.0 of sizes=\(2, 3\); got layer 1",
        ),
    ],
)
def test_parts_that_make_no_model_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        make()
