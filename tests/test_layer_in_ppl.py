"""`UGMMLayer` inside models of the user's own, next to ordinary torch modules and Flax NNX modules."""

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend


def pictures(rng, rows=60):
    """Two classes of 6 x 6 pictures: bright at the top or at the bottom."""
    y = rng.integers(0, 2, rows)
    x = 0.3 * rng.normal(size=(rows, 1, 6, 6))
    x[y == 0, :, :3] += 1.0
    x[y == 1, :, 3:] += 1.0
    return x.astype(np.float32), y


def picture_model(wrapped):
    """conv, flatten, UGMMLayer(prior) inside a PyroModule; the Sequential is left as it is or made one too."""
    import pyro
    import torch
    from pyro.nn import PyroModule
    from pyro.nn.module import to_pyro_module_

    from ugmm_ppl.pyro import UGMMLayer

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            net = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), UGMMLayer(32, 2, prior=up.Prior()))
            if wrapped:
                to_pyro_module_(net)
            self.net = net

        def forward(self, x, y=None):
            logits = self.net(x)
            with pyro.plate("data", len(x)):
                return pyro.sample("y", pyro.distributions.Categorical(logits=logits), obs=y)

    return Model()


@pytest.mark.parametrize("wrapped", [False, True])
def test_as_the_head_of_a_torch_network(rng, wrapped):
    """Pyro's own ELBO and AutoNormal with `module_local_params`: nothing goes to the global parameter store."""
    pyro, torch = pytest.importorskip("pyro"), pytest.importorskip("torch")
    from pyro.infer import Trace_ELBO
    from pyro.infer.autoguide import AutoNormal

    x, y = (torch.as_tensor(a) for a in pictures(rng))
    with pyro.settings.context(module_local_params=True), load_backend("pyro").inference.seeded(0):
        before = set(pyro.get_param_store())
        model = picture_model(wrapped)
        guide = AutoNormal(model)
        conv_before = model.net[0].weight.detach().clone()
        elbo = Trace_ELBO()(model, guide)  # a module: Pyro's way of SVI without the parameter store
        elbo(x, y)
        optimiser, losses = torch.optim.Adam(elbo.parameters(), lr=0.03), []
        for _ in range(100):
            optimiser.zero_grad()
            loss = elbo(x, y)
            loss.backward()
            optimiser.step()
            losses.append(loss.item())
        assert set(pyro.get_param_store()) == before
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])
    assert (model.net[0].weight - conv_before).abs().min() > 0.0
    prefix = "net.2." if wrapped else ""
    assert set(guide.median()) == {f"{prefix}{role}" for role in ("loc", "log_scale", "logits")}


def test_under_svi_with_the_global_store(rng):
    """Pyro's `SVI` as in its tutorials: the store holds parameters of Pyro's guide and of the torch modules only."""
    pyro, torch = pytest.importorskip("pyro"), pytest.importorskip("torch")
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoNormal

    x, y = (torch.as_tensor(a) for a in pictures(rng))
    with pyro.get_param_store().scope(), load_backend("pyro").inference.seeded(0):
        model = picture_model(wrapped=True)
        svi = SVI(model, AutoNormal(model), pyro.optim.Adam({"lr": 0.03}), Trace_ELBO())
        losses = [svi.step(x, y) for _ in range(100)]
        sites = {
            f"AutoNormal.{kind}.net.2.{role}" for kind in ("locs", "scales") for role in ("loc", "log_scale", "logits")
        }
        assert set(pyro.get_param_store()) == sites | {"net.0.weight", "net.0.bias"}
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:10])


def test_as_the_head_of_a_flax_network(rng):
    """`nnx_module` features into UGMMLayer(prior), by NumPyro's own SVI and AutoNormal."""
    numpyro, jax, nnx = pytest.importorskip("numpyro"), pytest.importorskip("jax"), pytest.importorskip("flax.nnx")
    from numpyro.contrib.module import nnx_module
    from numpyro.infer import SVI, Trace_ELBO
    from numpyro.infer.autoguide import AutoNormal

    from ugmm_ppl.numpyro import UGMMLayer

    class Features(nnx.Module):
        def __init__(self, rngs):
            self.linear = nnx.Linear(36, 8, rngs=rngs)

        def __call__(self, x):
            return jax.nn.tanh(self.linear(x.reshape(x.shape[0], -1)))

    features, head = Features(nnx.Rngs(0)), UGMMLayer(8, 2, prior=up.Prior(), name="head")

    def model(x, y=None):
        logits = head(nnx_module("features", features)(x))
        with numpyro.plate("data", len(x)):
            return numpyro.sample("y", numpyro.distributions.Categorical(logits=logits), obs=y)

    x, y = pictures(rng)
    svi = SVI(model, AutoNormal(model), numpyro.optim.Adam(0.03), Trace_ELBO())
    state = jax.jit(svi.init)(jax.random.key(0), x, y)
    result = svi.run(jax.random.key(0), 100, x, y, progress_bar=False, init_state=state)
    assert np.mean(result.losses[-10:]) < 0.7 * np.mean(result.losses[:10])
    assert {"features$params", "head.loc_auto_loc", "head.log_scale_auto_loc", "head.logits_auto_loc"} <= set(
        result.params
    )
    moved = jax.tree.map(
        lambda a, b: float(abs(a - b).min()), result.params["features$params"], nnx.to_pure_dict(nnx.state(features))
    )
    assert min(jax.tree.leaves(moved)) > 0.0
