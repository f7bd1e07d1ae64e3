"""Gradients of what lies upstream of the parameters of a layer or a mixture."""

import numpy as np
import pytest
from helpers import traced
from test_tracing import MANY, load_layers
from tolerances import PARITY

ODDS = 0.3

MOVED = ["loc", "log_scale", "logits", "conditional", "mixture"]


def moved(backend, role, z):
    """A likelihood that a coin z in {0, 1} moves, and data: neurons of a layer, or a mixture of many values."""
    rng = np.random.default_rng(0)
    z = backend.array(z) if isinstance(z, float) else z
    if role == "mixture":
        lead = z[..., None, None] if z.ndim else z
        parts = [backend.array(np.array(a)) for a in ([-1.0, 0.5], [1.0, 0.7], [0.2, 0.0])]
        d = backend.dist.UnivariateGaussianMixture(parts[0] - 2.0 * lead, parts[1], logits=parts[2])
        return d.expand((*z.shape, MANY)).to_event(1), backend.array(rng.normal(size=MANY))
    lead = z[..., None] if z.ndim else z  # beside the rows
    values = {name: backend.array(rng.normal(size=(40, 3))) for name in ("loc", "log_scale", "logits")}
    own = "logits" if role == "conditional" else role
    values[own] = values[own] - 2.0 * (lead[..., None, None] if z.ndim else lead) * backend.array(
        rng.normal(size=(40, 3))
    )
    x, layer = backend.array(rng.normal(size=(2, 3))), load_layers(backend).plain
    if role == "conditional":
        return layer.conditional(x, values=values).to_event(2), backend.array(rng.normal(size=(2, 40)))
    h = layer(x, values=values)
    return backend.dist.Normal(h, backend.array(1.0)).to_event(2), backend.array(rng.normal(size=(2, 40)))


def by_hand(backend, role):
    """log p(z) + log p(y | z) of both sides of the coin, and the gradient of the loss in the log odds of the guide."""
    terms = np.empty(2)
    for z in (0, 1):
        likelihood, y = moved(backend, role, float(z))
        terms[z] = float(likelihood.log_prob(y)) + np.log(0.5)
    p = 1.0 / (1.0 + np.exp(-ODDS))
    return terms, -p * (1.0 - p) * (terms[1] - terms[0] - ODDS)


def in_pyro(backend, role, name, z):
    """Loss, and the gradient when the guide's coin shows z; None for both at once, by enumeration."""
    import pyro
    import torch
    from pyro import infer

    class Shows(pyro.distributions.Bernoulli):
        def sample(self, sample_shape=()):
            return torch.full(self.shape(sample_shape), z)

    parallel = {"enumerate": "parallel"}

    def model():
        coin = pyro.sample("z", pyro.distributions.Bernoulli(torch.tensor(0.5)))
        likelihood, y = moved(backend, role, coin)
        pyro.sample("y", likelihood, obs=y)

    def guide():
        odds = pyro.param("odds", torch.tensor(ODDS))
        coin = pyro.distributions.Bernoulli if z is None else Shows
        pyro.sample("z", coin(logits=odds), infer=parallel if z is None else {})

    with pyro.get_param_store().scope():
        options = {"max_plate_nesting": 0} if z is None else {}
        loss = getattr(infer, name)(**options).loss_and_grads(model, guide)
        return float(loss), pyro.get_param_store()._params["odds"].grad.item()


def in_numpyro(backend, role, name, z):
    """As `in_pyro`."""
    import jax
    import numpyro
    from numpyro import infer

    class Shows(numpyro.distributions.BernoulliLogits):
        def sample(self, key, sample_shape=()):
            return jax.numpy.full(self.shape(sample_shape), z)

    def model():
        coin = numpyro.sample("z", numpyro.distributions.Bernoulli(backend.array(0.5)))
        likelihood, y = moved(backend, role, coin)
        numpyro.sample("y", likelihood, obs=y)

    def loss(odds):
        guide = lambda: numpyro.sample("z", Shows(odds))  # noqa: E731
        return getattr(infer, name)().loss(jax.random.key(0), {}, model, guide)

    return loss(backend.array(ODDS)), float(jax.grad(loss)(backend.array(ODDS)))


@traced
@pytest.mark.parametrize("role", MOVED)
def test_gradient_of_a_coin_upstream_of_the_parameters(backend64, role):
    """By every ELBO of the PPLs, both sides of the coin weighed by their probability: exact, without noise."""
    terms, want = by_hand(backend64, role)
    weights = np.array([1.0, np.exp(ODDS)]) / (1.0 + np.exp(ODDS))
    pyro = backend64.name == "pyro"
    names = ["Trace_ELBO", "TraceGraph_ELBO", "JitTraceGraph_ELBO"] if pyro else ["TraceGraph_ELBO"]
    for name in names:
        ran = in_pyro if pyro else in_numpyro
        found = sum(w * ran(backend64, role, name, float(z))[1] for z, w in enumerate(weights))
        np.testing.assert_allclose(found, want, rtol=PARITY, atol=PARITY, err_msg=name)
    if pyro:
        _, found = in_pyro(backend64, role, "TraceEnum_ELBO", None)
        np.testing.assert_allclose(found, want, rtol=PARITY, atol=PARITY)
        loss, found = in_pyro(backend64, role, "TraceTMC_ELBO", None)  # the evidence, whatever the guide
        np.testing.assert_allclose([loss, found], [-np.logaddexp(*terms), 0.0], rtol=PARITY, atol=PARITY)
