"""Every layer of the register: one pure function for three array libraries, with roles, start values and noise."""

import importlib
import json

import numpy as np
import pytest
from helpers import apply, gradients
from tolerances import GRADIENT64, PARITY

import ugmm_ppl as up
from ugmm_ppl.data.stored import restored
from ugmm_ppl.nn import LAYERS, Dense, Flatten, LayerNorm, Linear
from ugmm_ppl.nn.spaces import natural as to_natural
from ugmm_ppl.ops.numpy import NUMPY

pytestmark = pytest.mark.usefixtures("quick_compiler")

ARGUMENTS = {
    "Conv": {"channels": 3, "kernel": (3, 2), "stride": (1, 2), "padding": 1},
    "Dense": {"units": 4, "dropout": 0.4},
    "Linear": {"units": 4},
    "Network": {"layers": (Linear(3), Dense(5, dropout=0.4), LayerNorm(), Linear(4)), "inputs": 6},
}
"""Of those that need some."""

INPUTS = {"Conv": (2, 4, 5), "Flatten": (2, 3)}
"""Shapes of one example, where it is not a vector."""

CASES = {name: (kind(**ARGUMENTS.get(name, {})), INPUTS.get(name, (6,))) for name, kind in LAYERS.items()}
each = pytest.mark.parametrize("name", CASES)


def case(name, rng, rows=7):
    """(layer, shape of one example, examples, start values)."""
    layer, inputs = CASES[name]
    h = rng.normal(size=(rows, *inputs))
    return layer, inputs, h, layer.start(np.random.default_rng(1), h)


@each
def test_facts_hold_together(name, rng):
    layer, inputs, h, values = case(name, rng)
    roles, outputs = layer.roles(inputs), layer.output_shape(inputs)
    assert {role: value.shape for role, value in values.items()} == {role: spec.shape for role, spec in roles.items()}
    assert all(len(spec.axes) == len(spec.shape) for spec in roles.values())
    assert {value.dtype for value in values.values()} <= {np.dtype(np.float64)}
    found = layer.apply(NUMPY, values, h, inputs)
    assert found.shape == (7, *outputs)
    assert np.isfinite(found).all()
    assert layer.work(inputs) >= 0
    assert layer.held(inputs) >= np.prod(inputs)
    assert layer.completed(5).output_shape(inputs) == outputs  # what has its units keeps them
    assert restored(json.loads(json.dumps(layer.described())), LAYERS, "layer", "file") == layer
    assert np.all((np.asarray(layer.dropout) >= 0.0) & (np.asarray(layer.dropout) < 1.0))


@each
def test_numpy_and_the_backends_agree(backend64, name, rng):
    layer, inputs, h, values = case(name, rng)
    arrays = {role: backend64.array(value) for role, value in values.items()}
    got = apply(backend64, lambda v, x: layer.apply(backend64.ops, v, x, inputs), arrays, backend64.array(h))
    np.testing.assert_allclose(got, layer.apply(NUMPY, values, h, inputs), rtol=PARITY, atol=PARITY)


@each
def test_draws_and_single_examples(backend64, name, rng):
    """Values (S, 1, ...) with h (B, ...) give (S, B, ...), each draw as if alone; one example is as if among others."""
    layer, inputs, h, values = case(name, rng)
    draws = [layer.start(np.random.default_rng(seed), h) for seed in range(3)]
    stacked = {role: backend64.array(np.stack([draw[role] for draw in draws])[:, None]) for role in values}
    many = np.broadcast_to(h, (3, *h.shape)).copy()  # a layer without parameters has the draws in its inputs alone
    got = apply(backend64, lambda v, x: layer.apply(backend64.ops, v, x, inputs), stacked, backend64.array(many))
    for s, draw in enumerate(draws):
        np.testing.assert_allclose(got[s], layer.apply(NUMPY, draw, h, inputs), rtol=PARITY, atol=PARITY)
    one = layer.apply(NUMPY, values, h[2], inputs)
    np.testing.assert_allclose(one, layer.apply(NUMPY, values, h, inputs)[2], rtol=PARITY, atol=PARITY)


@each
def test_values_in_natural_space_are_the_same(name, rng):
    layer, inputs, h, values = case(name, rng)
    natural = {to_natural(role): np.exp(v) if to_natural(role) != role else v for role, v in values.items()}
    for role in (role for role in natural if role.endswith("weights")):
        natural[role] = natural[role] / natural[role].sum(-1, keepdims=True)
    want = layer.apply(NUMPY, values, h, inputs)
    np.testing.assert_allclose(layer.apply(NUMPY, natural, h, inputs), want, rtol=PARITY, atol=PARITY)


@each
def test_gradients_are_those_of_finite_differences(backend64, name, rng):
    """Along a random direction of all parameters and inputs together."""
    layer, inputs, h, values = case(name, rng)
    arrays = [h, *values.values()]
    weight = rng.normal(size=(len(h), *layer.output_shape(inputs)))

    def loss(ops, total, x, *parameters):
        found = layer.apply(ops, dict(zip(values, parameters, strict=True)), x, inputs)
        return (found * total).sum()

    total = backend64.array(weight)
    _, found = gradients(backend64, lambda *a: loss(backend64.ops, total, *a), arrays)
    direction, step = [rng.normal(size=a.shape) for a in arrays], 1e-5
    ends = [loss(NUMPY, weight, *(a + s * step * d for a, d in zip(arrays, direction, strict=True))) for s in (1, -1)]
    want = (ends[0] - ends[1]) / (2.0 * step)
    got = sum(float((g * d).sum()) for g, d in zip(found, direction, strict=True))
    assert abs(got - want) <= GRADIENT64 * max(1.0, abs(want))


@each
def test_noise_acts_in_training_alone(name, rng):
    layer, inputs, h, values = case(name, rng)
    shapes = layer.noise_shapes(inputs, (len(h),))
    assert bool(shapes) == np.any(np.asarray(layer.dropout) > 0.0)
    noise = {key: rng.uniform(size=shape) for key, shape in shapes.items()}
    quiet, again = (layer.apply(NUMPY, values, h, inputs, n) for n in (None, {}))
    np.testing.assert_array_equal(quiet, again)
    if shapes:
        assert np.abs(layer.apply(NUMPY, values, h, inputs, noise) - quiet).max() > 1e-6


def network_of(name):
    """A network with the layer in it, of examples as a table holds them."""
    layer, inputs = CASES[name]
    flat = [] if len(layer.output_shape(inputs)) == 1 else [Flatten()]
    return up.Network([layer, *flat, Linear()], inputs=inputs)


@each
def test_any_layer_makes_a_network(backend_name, name, rng, tmp_path):
    """From a prior to a fit, to a file and back, and on to ArviZ with named axes."""
    network = network_of(name)
    x, y = rng.normal(size=(30, network.num_inputs)), rng.normal(size=30)
    model = up.Regressor(network, components=1)
    drawn = up.Prior().predictive(model, x, num_draws=3, backend=backend_name)
    assert drawn["y"].shape == (3, 30)
    fit = up.fit(model, x, y, backend=backend_name, num_steps=6, progress=False)
    assert np.isfinite(fit.losses).all()
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    assert again.model.network == network
    np.testing.assert_array_equal(again.predict(x, num_draws=3).mean, fit.predict(x, num_draws=3).mean)
    tree = fit.to_arviz(num_draws=4, num_prior_draws=2)
    for site, spec in model.sites.items():
        assert tree["posterior"][site].dims[2:] == spec.axes
        assert tree["posterior"][site].shape[2:] == spec.shape
    assert tree["constant_data"]["x"].shape == (30, network.num_inputs)
    assert len(list(fit.diagnose(num_draws=4))) > 5


def test_a_network_among_layers_stands_for_its_layers():
    """Also in the last place, where its units may be open; inputs of another shape are refused."""
    flat = up.Network([Linear(3), Dense(8), LayerNorm(), Linear()], inputs=6)
    assert up.Network([Linear(3), up.Network([Dense(8), LayerNorm(), Linear()], inputs=3)], inputs=6) == flat
    assert up.Network([up.Network([Linear(3)], inputs=6), Dense(8), LayerNorm(), Linear()], inputs=6) == flat
    with pytest.raises(ValueError, match=r"made for inputs of the shape \(4,\); got \(3,\)"):
        up.Network([Linear(3), up.Network((4, 8))], inputs=6)


def test_a_module_of_a_network(backend):
    """It knows its inputs; priors by layer hold in it, and those of layers that there are not are refused."""
    module = importlib.import_module(f"ugmm_ppl.{backend.name}").LayerModule
    network = up.Network((3, 4, 5)).completed(2)
    far = up.dist.Normal(1000.0, 1.0)
    with backend.inference.seeded(0):
        values = module(network, prior=up.Prior(scale=up.dist.Gamma(2.0, 2.0), layers={1: {"loc": far}})).values()
    assert list(values) == [
        "layers.0.loc", "layers.0.scale", "layers.0.logits", "layers.1.loc", "layers.1.scale", "layers.1.logits",
        "readout.weight", "readout.bias",
    ]  # fmt: skip
    assert backend.numpy(values["layers.1.loc"]).min() > 900.0 > backend.numpy(values["layers.0.loc"]).max()
    with pytest.raises(ValueError, match=r"Prior.layers must name layers 0..1; got layer 2"):
        module(network, prior=up.Prior(layers={2: {"loc": far}}))
    with pytest.raises(ValueError, match=r"Prior.layers must name no layer here; got layer 0"):
        module(Dense(8), 3, prior=up.Prior(layers={0: {"loc": far}}))
    with pytest.raises(ValueError, match=r"made for inputs of the shape \(3,\); got \(4,\)"):
        module(network, 4, prior=up.Prior())
    with pytest.raises(TypeError, match=r"needs inputs, their number or shape"):
        module(Dense(8))


@each
def test_any_layer_stands_in_a_users_model(backend, name, rng):
    """Its parameters are sites of the user's model, named after its place there."""
    layer, inputs = CASES[name]
    module = importlib.import_module(f"ugmm_ppl.{backend.name}").LayerModule
    x = backend.array(rng.normal(size=(7, *inputs)))
    if backend.name == "numpyro":
        model = module(layer, inputs, prior=up.Prior(), name="part")
    else:
        from pyro.nn import PyroModule

        class Model(PyroModule):
            def __init__(self):
                super().__init__()
                self.part = module(layer, inputs, prior=up.Prior())

            def forward(self, x):
                return self.part(x, train=False)

        model = Model()
    sites, shapes = {}, {}

    def run():
        found = model(x)
        shapes["out"] = tuple(found.shape)
        return found

    with backend.inference.seeded(0):
        sites = backend.trace(run, {})
    assert shapes["out"] == (7, *layer.output_shape(inputs))
    roles = layer.roles(inputs)
    assert {name: tuple(site.value.shape) for name, site in sites.items()} == {
        f"part.{role}": spec.shape for role, spec in roles.items()
    }
    free = module(layer, inputs)
    with backend.inference.seeded(0):
        values = free.values()
    start = layer.start(np.random.default_rng(0), np.stack([-np.ones(inputs), np.ones(inputs)]))
    assert {role: tuple(value.shape) for role, value in values.items()} == {r: v.shape for r, v in start.items()}
