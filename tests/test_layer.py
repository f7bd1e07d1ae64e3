"""`UGMMLayer` of both backends: equation (2), its sites, its dropout."""

import functools
import importlib

import numpy as np
import pytest
from conftest import needs_both
from helpers import apply, refused
from scipy import special, stats
from tolerances import EXACT64

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend

NATURAL = up.Prior(scale=up.dist.LogNormal(-0.5, 0.5), weights=up.dist.Dirichlet(0.7))


def make_layer(backend, *args, name="head", **kwargs):
    """The backend's layer; where Pyro takes the name from the module's place, that place is left to the test."""
    layer_class = importlib.import_module(f"ugmm_ppl.{backend.name}").UGMMLayer
    return layer_class(*args, **kwargs, **({"name": name} if backend.name == "numpyro" else {}))


def as_model(backend, layer):
    """The layer inside a model of the user's own, at the place `head`."""
    if backend.name == "numpyro":
        return layer
    from pyro.nn import PyroModule

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.head = layer

        def forward(self, *args, **kwargs):
            return self.head(*args, **kwargs)

    return Model()


def call(backend, layer, x, *, train, seed=0, **kwargs):
    """Activations with random numbers from a seed, as the backend's array."""
    with backend.inference.seeded(seed):
        return layer(backend.array(x), train=train, **kwargs)


def sample_values(backend, layer, seed=0):
    """Parameters drawn from the prior."""
    with backend.inference.seeded(seed):
        if backend.name == "numpyro" and layer.prior is not None:
            import jax

            return jax.jit(layer.values)()
        return layer.values()


def site_shapes(backend, model, *args):
    """Shapes of the sample sites of a model; in JAX without computing anything."""

    def values(*args):
        return {name: site.value for name, site in backend.trace(model, {}, *args).items() if not site.observed}

    with backend.inference.seeded(0):
        if backend.name == "numpyro":
            import jax

            values = functools.partial(jax.eval_shape, values)
        return {name: tuple(value.shape) for name, value in values(*args).items()}


def to_numpy(values):
    """A dict of arrays as NumPy."""
    return {name: np.asarray(v.detach() if hasattr(v, "detach") else v) for name, v in values.items()}


def numpy_activation(values, x):
    """Equation (2) by SciPy, from values in either space."""
    scale = values["scale"] if "scale" in values else np.exp(values["log_scale"])
    weights = values["weights"] if "weights" in values else special.softmax(values["logits"], -1)
    return np.log((weights * stats.norm.pdf(x[..., None, :], values.get("loc", 0.0), scale)).sum(-1))


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("prior", [up.Prior(), NATURAL, None])
def test_forward_is_the_conditional_at_zero(backend64, rng, prior, tied):
    layer, x = make_layer(backend64, 4, 3, prior=prior, tied=tied), rng.normal(size=(2, 5, 4))
    values = sample_values(backend64, layer)
    assert ("loc" in values) == (not tied)
    inputs = backend64.array(x)
    values = {role: backend64.array(value) for role, value in to_numpy(values).items()}

    def both(x, values):
        conditional = layer.conditional(x, values=values)
        assert tuple(conditional.batch_shape) == (2, 5, 3)
        return [layer(x, values=values, train=False), conditional.log_prob(0.0), conditional.loc]

    forward, at_zero, locations = apply(backend64, both, inputs, values)
    np.testing.assert_allclose(at_zero, forward, rtol=EXACT64, atol=EXACT64)
    values = to_numpy(values)
    np.testing.assert_allclose(forward, numpy_activation(values, x), rtol=EXACT64, atol=EXACT64)
    mean = x[..., None, :] - values.get("loc", np.zeros((3, 4)))
    np.testing.assert_allclose(locations, mean, rtol=EXACT64, atol=EXACT64)


def hyper(backend, name, shape):
    """loc ~ Normal(0, spread), spread ~ HalfNormal(2)."""
    spread = backend.sample(f"{name}.spread", backend.dist.HalfNormal(backend.array(2.0)))
    return backend.sample(name, backend.dist.Normal(backend.array(0.0), spread).expand(shape).to_event(2))


SITES = {
    "default": (up.Prior(), False, {"loc", "log_scale", "logits"}),
    "tied": (up.Prior(), True, {"log_scale", "logits"}),
    "natural": (NATURAL, False, {"loc", "scale", "weights"}),
    "hyper": (up.Prior(loc=hyper), False, {"loc", "loc.spread", "log_scale", "logits"}),
}


@pytest.mark.parametrize("case", SITES)
def test_sites_are_named_after_place_and_space(backend, rng, case):
    prior, tied, roles = SITES[case]
    model = as_model(backend, make_layer(backend, 4, 3, prior=prior, tied=tied))
    got = site_shapes(backend, model, backend.array(rng.normal(size=(5, 4))))
    assert got == {f"head.{role}": () if role.endswith("spread") else (3, 4) for role in roles}


@pytest.mark.parametrize("case", SITES)
def test_values_and_conditional_make_sites_too(backend, rng, case):
    """Not only `layer(x)`: a model that asks for equation (1) has the same sites."""
    prior, tied, roles = SITES[case]
    layer = make_layer(backend, 4, 3, prior=prior, tied=tied, name="")
    x = backend.array(rng.normal(size=(5, 4)))
    for function in (layer.values, lambda: layer.conditional(x)):
        assert {name.removeprefix(".") for name in site_shapes(backend, function)} == roles


def test_values_serve_twice(backend, rng):
    """One draw of a hyper-prior for `layer(x)` and `layer.conditional(x)`, without a second site of that name."""
    layer, x = make_layer(backend, 4, 3, prior=up.Prior(loc=hyper)), backend.array(rng.normal(size=(5, 4)))

    def model():
        values = layer.values()
        return layer(x, values=values, train=False), layer.conditional(x, values=values).mean

    assert len(site_shapes(backend, model)) == 4


def test_without_a_prior_there_are_parameters(backend, rng):
    layer, x = make_layer(backend, 4, 3), backend.array(rng.normal(size=(5, 4)))
    assert backend.trace(as_model(backend, layer), {}, x) == {}
    shapes = {"loc": (3, 4), "log_scale": (3, 4), "logits": (3, 4)}
    if backend.name == "pyro":
        assert {name: tuple(p.shape) for name, p in layer.named_parameters()} == shapes
        layer(x).sum().backward()
        assert all(p.grad.abs().sum() > 0.0 for p in layer.parameters())
        assert set(dict(make_layer(backend, 4, 3, tied=True).named_parameters())) == {"log_scale", "logits"}
        return
    from numpyro import handlers

    trace = handlers.trace(layer).get_trace(x)
    assert {name: site["value"].shape for name, site in trace.items() if site["type"] == "param"} == {
        f"head.{role}": shape for role, shape in shapes.items()
    }
    assert set(make_layer(backend, 4, 3, tied=True).values()) == {"log_scale", "logits"}


@needs_both
@pytest.mark.parametrize("tied", [False, True])
def test_parameters_start_at_the_same_numbers(tied):
    """Equal for equal seeds and in both backends; the scales are 0.3 to 1 times the spread 1 that the layer assumes."""
    starts = []
    for name, seed in (("pyro", 5), ("numpyro", 5), ("numpyro", 6)):
        backend = load_backend(name)
        with backend.settings(dtype="float64", device="cpu"):
            starts.append(to_numpy(make_layer(backend, 40, 30, tied=tied, seed=seed).values()))
    for role, value in starts[0].items():
        np.testing.assert_array_equal(value, starts[1][role])
        assert np.mean(value != starts[2][role]) > 0.99
    assert np.log(0.3) <= starts[0]["log_scale"].min() < np.log(0.31)
    assert np.log(0.99) < starts[0]["log_scale"].max() <= 0.0


def masks(backend, layer, x, *, seed=0, train=True):
    """Which components survived: those whose input has a gradient. `(B, J, K)`."""
    shape = (layer.out_features, layer.in_features)
    values = {role: backend.array(np.zeros(shape)) for role in ("loc", "log_scale", "logits")}

    if backend.name == "numpyro":
        import jax

        jacobian = jax.jit(
            jax.jacobian(lambda x: call(backend, layer, x, train=train, seed=seed, values=values).sum(0))
        )
        return np.moveaxis(np.asarray(jacobian(backend.array(x))), 0, 1) != 0.0
    import torch

    inputs = backend.array(x).requires_grad_()
    totals = call(backend, layer, inputs, train=train, seed=seed, values=values).sum(0)
    grads = [torch.autograd.grad(total, inputs, retain_graph=True)[0].numpy() for total in totals]
    return np.stack(grads, 1) != 0.0


def test_dropout_masks_components_at_the_given_rate(backend):
    """One mask over (J, K) for the whole batch."""
    layer = make_layer(backend, 50, 60, prior=up.Prior(), dropout=0.3)
    kept = masks(backend, layer, np.ones((2, 50)))
    np.testing.assert_array_equal(kept[0], kept[1])
    assert abs(kept[0].mean() - 0.7) < 5.0 * np.sqrt(0.3 * 0.7 / kept[0].size)  # five standard errors
    assert len(np.unique(kept[0], axis=0)) == 60
    assert (kept != masks(backend, layer, np.ones((2, 50)), seed=1)).any()
    np.testing.assert_array_equal(kept, masks(backend, layer, np.ones((2, 50))))


def test_dropout_per_example_masks_inputs(backend):
    """One mask over K for each example, the same for all neurons."""
    layer = make_layer(backend, 50, 3, prior=up.Prior(), dropout=0.3, dropout_per_example=True)
    kept = masks(backend, layer, np.ones((60, 50)))
    for j in (1, 2):
        np.testing.assert_array_equal(kept[:, 0], kept[:, j])
    assert abs(kept[:, 0].mean() - 0.7) < 5.0 * np.sqrt(0.3 * 0.7 / kept[:, 0].size)
    assert len(np.unique(kept[:, 0], axis=0)) == 60


@pytest.mark.parametrize("per_example", [False, True])
def test_at_least_one_component_survives(backend, per_example):
    layer = make_layer(backend, 20, 30, prior=up.Prior(), dropout=0.999, dropout_per_example=per_example)
    kept = masks(backend, layer, np.ones((25, 20)))
    assert kept.sum(-1).min() == 1
    assert kept.mean() < 0.06  # one in twenty, and one in a thousand


def test_no_dropout_outside_training(backend, rng):
    layer, x = make_layer(backend, 20, 5, prior=up.Prior(), dropout=0.9), rng.normal(size=(3, 20))
    assert masks(backend, layer, np.ones((2, 20)), train=False).all()
    values = sample_values(backend, layer)
    plain = to_numpy({"a": call(backend, layer, x, train=False, values=values)})["a"]
    dropped = to_numpy({"a": call(backend, layer, x, train=True, values=values)})["a"]
    assert np.abs(plain - dropped).min() > 0.0
    default = layer
    if backend.name == "pyro":  # the module's mode is the default of `train`
        with backend.inference.seeded(0):
            np.testing.assert_array_equal(layer.train()(backend.array(x), values=values), dropped)
        default = layer.eval()
    np.testing.assert_array_equal(np.asarray(default(backend.array(x), values=values)), plain)


@pytest.mark.parametrize("per_example", [False, True])
def test_weights_are_renormalised_over_the_survivors(backend64, per_example):
    """If all components are alike, dropping some changes nothing: the weights still sum to one."""
    layer = make_layer(backend64, 20, 5, prior=up.Prior(), dropout=0.6, dropout_per_example=per_example)
    shape = (5, 20)
    values = {
        "loc": np.zeros(shape),
        "log_scale": np.full(shape, -0.3),
        "logits": np.random.default_rng(0).normal(size=shape),
    }
    values = {role: backend64.array(value) for role, value in values.items()}
    got = to_numpy({"a": call(backend64, layer, np.full((3, 20), 0.7), train=True, values=values)})["a"]
    np.testing.assert_allclose(got, np.full((3, 5), stats.norm.logpdf(0.7, 0.0, np.exp(-0.3))), rtol=EXACT64)


BAD = {
    "no inputs": ({"in_features": 0}, ValueError, ("in_features must be at least 1", "got 0")),
    "inputs as text": ({"in_features": "4"}, TypeError, ("in_features must be a whole number", "got '4' of type str")),
    "negative neurons": ({"out_features": -2}, ValueError, ("out_features must be at least 1", "got -2")),
    "half a neuron": ({"out_features": 2.5}, TypeError, ("out_features must be a whole number", "got 2.5")),
    "all dropped": ({"dropout": 1.0}, ValueError, ("dropout must lie in [0, 1)", "got 1.0")),
    "negative dropout": ({"dropout": -0.1}, ValueError, ("dropout must lie in [0, 1)", "got -0.1")),
    "dropout NaN": ({"dropout": float("nan")}, ValueError, ("dropout must lie in [0, 1)", "got nan")),
    "prior of another kind": (
        {"prior": up.dist.Normal(0.0, 1.0)},
        TypeError,
        ("prior must be an up.Prior", "got dist.Normal"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused(backend, case):
    changes, error, parts = BAD[case]
    with refused(error, *parts):
        make_layer(backend, **({"in_features": 4, "out_features": 3} | changes))


@pytest.mark.parametrize("shape", [(5, 3), (4, 5), ()])
def test_inputs_of_another_width_are_refused(backend, shape):
    layer = make_layer(backend, 4, 3)
    for function in (layer, layer.conditional):
        with refused(ValueError, "inputs of shape (..., 4)", f"got shape {shape}", "Give the layer"):
            function(backend.array(np.zeros(shape)))


@pytest.mark.parametrize("dtype", ["float64", "bfloat16"])
def test_priors_follow_the_module_to_another_dtype(rng, dtype):
    torch = pytest.importorskip("torch")
    from ugmm_ppl.pyro import UGMMLayer

    kind = getattr(torch, dtype)
    layer = UGMMLayer(4, 3, prior=up.Prior()).to(kind)
    assert layer(torch.as_tensor(rng.normal(size=(5, 4)), dtype=kind)).dtype == kind
    assert {value.dtype for value in layer.values().values()} == {kind}
