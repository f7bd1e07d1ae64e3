"""The network: forward pass, initial values and the paper's own network, against slow loops in NumPy."""

import functools
import itertools

import numpy as np
import pytest
from conftest import needs_both
from helpers import apply, compiled
from scipy import stats
from tolerances import EXACT64, PARITY, SAMPLING_P

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.nn import Dense, Flatten, LayerNorm, Linear
from ugmm_ppl.nn.dense import layer_activation
from ugmm_ppl.nn.dropout import survivors
from ugmm_ppl.nn.norm import layer_norm
from ugmm_ppl.ops.numpy import NUMPY


def slow_layer(values, prefix, h):
    """Equation (2), one example, one neuron and one component at a time."""
    loc = values.get(f"{prefix}.loc", np.zeros_like(values[f"{prefix}.logits"]))
    scale, weights = np.exp(values[f"{prefix}.log_scale"]), np.exp(values[f"{prefix}.logits"])
    out = np.empty((len(h), len(loc)))
    for b in range(len(h)):
        for j in range(len(loc)):
            density = sum(
                weights[j, k] / sum(weights[j]) * stats.norm.pdf(h[b, k], loc[j, k], scale[j, k])
                for k in range(h.shape[1])
            )
            out[b, j] = np.log(density)
    return out


def slow_norm(h):
    """(h - mean) / sqrt(variance + 1e-5) of every row."""
    return np.stack([(row - row.mean()) / np.sqrt(row.var() + 1e-5) for row in h])


def slow_forward(values, x, depth, *, norm=True):
    """The whole network."""
    h = x
    for i in range(depth):
        h = slow_layer(values, f"layers.{i}", h)
        if norm and ("readout.weight" in values or i < depth - 1):
            h = slow_norm(h)
    if "readout.weight" in values:
        return np.stack([values["readout.weight"] @ row + values["readout.bias"] for row in h])
    return h


def forward(backend, network, values, x):
    """`Network.forward` on a backend, as NumPy."""
    names = list(values)
    function = compiled(backend, lambda x, *a: network.forward(backend.ops, dict(zip(names, a, strict=True)), x))
    return function(x, *values.values())


NETWORKS = {
    "default": ({}, 2),
    "one layer": ({"sizes": (6, 5)}, 1),
    "no normalization": ({"normalization": None}, 2),
    "ugmm readout": ({"readout": "ugmm"}, 3),
    "tied": ({"tied": True}, 2),
    "paper": ({"normalization": None, "readout": "ugmm", "initial": "paper"}, 3),
    "paper tied": ({"normalization": None, "readout": "ugmm", "initial": "paper", "tied": True}, 3),
}


def made(case):
    """(arguments of the short form, the network, number of layers of neurons) of a case."""
    options, depth = NETWORKS[case]
    return options, up.Network(**({"sizes": (6, 5, 4)} | options)), depth


@pytest.mark.parametrize("case", NETWORKS)
def test_outputs_are_those_of_the_slow_loop(backend64, rng, case):
    options, network, depth = made(case)
    x = rng.normal(size=(7, 6))
    values = network.initial_values(x, 3, seed=1)
    got = forward(backend64, network, values, x)
    assert got.shape == (7, 3)
    want = slow_forward(values, x, depth, norm=options.get("normalization", "layer") is not None)
    np.testing.assert_allclose(got, want, rtol=PARITY, atol=PARITY)


@pytest.mark.parametrize("case", NETWORKS)
def test_names_and_shapes_of_the_parameters(rng, case):
    options, network, depth = made(case)
    values = network.initial_values(rng.normal(size=(7, 6)), 3, seed=1)
    widths = [6, 5, 4, 3][: depth + 1]
    want = {
        f"layers.{i}.{role}": (widths[i + 1], widths[i])
        for i in range(depth)
        for role in (("log_scale", "logits") if options.get("tied") else ("loc", "log_scale", "logits"))
    }
    if options.get("readout") != "ugmm":
        want |= {"readout.weight": (3, widths[-1]), "readout.bias": (3,)}
    assert {name: value.shape for name, value in values.items()} == want
    assert {value.dtype for value in values.values()} == {np.dtype(np.float64)}
    whole = network.completed(3)
    assert {name: role.shape for name, role in whole.roles(whole.inputs).items()} == want
    assert whole.work(network.inputs) == max(k * j for k, j in itertools.pairwise(widths))
    assert whole.sizes == network.sizes == tuple(options.get("sizes", (6, 5, 4)))


def test_values_may_live_in_the_natural_space(backend64, rng):
    """scale for log_scale and weights for logits, as a prior may have them."""
    network, x = up.Network((6, 5, 4)), rng.normal(size=(7, 6))
    values = network.initial_values(x, 3, seed=1)
    natural = {
        name.replace("log_scale", "scale").replace("logits", "weights"): np.exp(value)
        if name.endswith(("log_scale", "logits"))
        else value
        for name, value in values.items()
    }
    for i in (0, 1):
        natural[f"layers.{i}.weights"] /= natural[f"layers.{i}.weights"].sum(-1, keepdims=True)
    want = forward(backend64, network, values, x)
    np.testing.assert_allclose(forward(backend64, network, natural, x), want, rtol=PARITY, atol=PARITY)


def test_scale_has_a_floor(backend64):
    """exp of a very negative log scale is 1e-6, not 0: the density stays finite."""
    network = up.Network((1, 1), normalization=None)
    values = {"layers.0.loc": [[0.0]], "layers.0.log_scale": [[-800.0]], "layers.0.logits": [[0.0]]}
    values |= {"readout.weight": [[1.0]], "readout.bias": [0.0]}
    got = forward(backend64, network, values, np.array([[0.0], [1e-6]]))
    np.testing.assert_allclose(got, stats.norm.logpdf([[0.0], [1e-6]], 0.0, 1e-6), rtol=EXACT64)


def test_layer_norm(backend64, rng):
    h = 50.0 + 3.0 * rng.normal(size=(2, 7, 5))
    got = compiled(backend64, functools.partial(layer_norm, backend64.ops))(h)
    np.testing.assert_allclose(got.reshape(14, 5), slow_norm(h.reshape(14, 5)), rtol=PARITY, atol=PARITY)
    np.testing.assert_allclose(got.mean(-1), np.zeros((2, 7)), atol=EXACT64)
    constant = compiled(backend64, functools.partial(layer_norm, backend64.ops))(np.full((1, 4), 3.0))
    np.testing.assert_array_equal(constant, np.zeros((1, 4)))


@pytest.mark.parametrize("readout", ["linear", "ugmm"])
def test_forward_broadcasts_over_draws(backend64, rng, readout):
    """Values (S, 1, J, K) with x (B, K) give (S, B, O), each draw as if alone."""
    network, x = up.Network((6, 5, 4), readout=readout), rng.normal(size=(7, 6))
    draws = [network.initial_values(x, 3, seed=s) for s in range(3)]
    stacked = {name: np.stack([d[name] for d in draws])[:, None] for name in draws[0]}
    got = forward(backend64, network, stacked, x)
    assert got.shape == (3, 7, 3)
    for s, values in enumerate(draws):
        np.testing.assert_allclose(got[s], network.forward(NUMPY, values, x), rtol=PARITY, atol=PARITY)
    one = {name: value[:, 0] for name, value in stacked.items()}
    np.testing.assert_allclose(forward(backend64, network, one, x[0]), got[:, 0], rtol=PARITY, atol=PARITY)


def test_masked_components_have_no_part(backend64, rng):
    """Dropout of components of the first layer: as if these inputs were not there."""
    network, x = up.Network((6, 5, 4), normalization=None, dropout=(0.5, 0.0)), rng.normal(size=(7, 6))
    values = network.initial_values(x, 3, seed=1)
    keep = np.array([True, False, True, True, False, True])
    small = {name: value[:, keep] if name.startswith("layers.0") else value for name, value in values.items()}
    noise = {"layers.0.keep": backend64.array(np.broadcast_to(np.where(keep, 0.9, 0.1), (5, 6)).copy())}
    arrays = {name: backend64.array(value) for name, value in values.items()}
    got = apply(
        backend64, lambda values, x: network.forward(backend64.ops, values, x, noise), arrays, backend64.array(x)
    )
    want = slow_forward(small, x[:, keep], 2, norm=False)
    np.testing.assert_allclose(got, want, rtol=PARITY, atol=PARITY)


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.999])
def test_survivors(rng, rate):
    uniform = rng.uniform(size=(2_000, 5))
    keep = survivors(NUMPY, uniform, rate)
    assert keep.any(-1).all()
    expected = 1.0 - rate + rate**5 / 5.0  # kept, or the one that is kept where all would go
    assert abs(keep.mean() - expected) <= 5.0 * np.sqrt(expected * (1.0 - expected) / keep.size)
    assert (keep >= (uniform >= rate)).all()


def test_initial_values_have_the_spread_of_the_inputs():
    """loc ~ N(mean, spread^2), scale log-uniform in [0.3, 1] x spread, by input, in the second layer too."""
    rng = np.random.default_rng(0)
    spread, centre = np.array([0.01, 1.0, 30.0, 0.0]), np.array([5.0, -1.0, 0.0, 2.0])
    x = centre + spread * rng.normal(size=(900, 4))
    network = up.Network((4, 600, 500))
    values = network.initial_values(x, 3, seed=2)
    assert_spread(values, "layers.0", x.mean(0), np.where(spread > 0.0, x.std(0), 1.0))  # a constant input has spread 1
    first = {name.removeprefix("layers.0."): value for name, value in values.items() if name.startswith("layers.0")}
    h = layer_norm(NUMPY, layer_activation(NUMPY, first, x))
    assert_spread(values, "layers.1", h.mean(0)[:50], h.std(0)[:50])
    weight = values["readout.weight"] * np.sqrt(500)
    assert stats.kstest(weight.ravel(), "norm").pvalue > SAMPLING_P
    np.testing.assert_array_equal(values["readout.bias"], np.zeros(3))


def assert_spread(values, layer, mean, std):
    """Loc, scales and logits of one layer are distributed as said, input by input and together."""
    inputs = len(mean)
    z = (values[f"{layer}.loc"][:, :inputs] - mean) / std
    ratio = (values[f"{layer}.log_scale"][:, :inputs] - np.log(std)) / np.log(0.3)
    for k in range(min(inputs, 4)):
        assert stats.kstest(z[:, k], "norm").pvalue > SAMPLING_P
    assert stats.kstest(z.ravel(), "norm").pvalue > SAMPLING_P
    assert stats.kstest(ratio.ravel(), "uniform").pvalue > SAMPLING_P
    assert stats.kstest(values[f"{layer}.logits"].ravel()[:20_000] / 0.1, "norm").pvalue > SAMPLING_P


def test_initial_values_of_tied_means_cover_the_inputs(rng):
    """Components at zero whose scales reach to the inputs: 0.3 to 1 times sqrt(spread^2 + mean^2)."""
    x = np.array([10.0, 0.0]) + np.array([1.0, 2.0]) * rng.normal(size=(500, 2))
    values = up.Network((2, 300), tied=True).initial_values(x, 3, seed=2)
    reach = np.sqrt(np.mean(x**2, axis=0))
    ratio = (values["layers.0.log_scale"] - np.log(reach)) / np.log(0.3)
    assert stats.kstest(ratio.ravel(), "uniform").pvalue > SAMPLING_P


def test_initial_values_are_those_of_the_seed(rng):
    x = rng.normal(size=(20, 6))
    one, same, other = (up.Network((6, 5, 4)).initial_values(x, 3, seed=s) for s in (1, 1, 2))
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert name == "readout.bias" or (one[name] != other[name]).all()


@needs_both
def test_both_backends_get_the_same_initial_values_and_outputs(rng):
    x = rng.normal(size=(7, 6))
    network, results = up.Network((6, 5, 4)), []
    model = up.Classifier(network, 3)
    values = model.initial_values(x, 4)
    for name in ("pyro", "numpyro"):
        backend = load_backend(name)
        with backend.settings(dtype="float64", device="cpu"):
            results.append(forward(backend, network, values, x))
    np.testing.assert_allclose(results[0], results[1], rtol=PARITY, atol=PARITY)


def test_the_papers_network():
    """784-128-64 and 10 classes: three layers of neurons, 3 (784 x 128 + 128 x 64 + 64 x 10) = 327,552 parameters."""
    network = up.Network.paper((784, 128, 64))
    neurons = functools.partial(Dense, initial="paper")
    assert network == up.Network([neurons(128), neurons(64), neurons()], inputs=784)
    x = np.random.default_rng(0).uniform(size=(4, 784))
    values = network.initial_values(x, 10, seed=0)
    assert sum(value.size for value in values.values()) == 327_552
    shapes = {name: role.shape for name, role in network.completed(10).roles(network.inputs).items()}
    assert (shapes["layers.0.loc"], shapes["layers.1.loc"], shapes["layers.2.loc"]) == ((128, 784), (64, 128), (10, 64))
    assert network.forward(NUMPY, values, x).shape == (4, 10)
    assert stats.kstest(values["layers.1.loc"].ravel(), "norm").pvalue > SAMPLING_P
    assert stats.kstest(np.exp(values["layers.1.log_scale"]).ravel(), "uniform").pvalue > SAMPLING_P
    assert stats.kstest(values["layers.1.logits"].ravel(), "uniform").pvalue > SAMPLING_P
    assert all(layer.tied for layer in up.Network.paper((784, 128, 64), tied=True).layers)
    assert up.Network.paper().sizes == (784, 128, 64)


def test_dropout_by_layer():
    assert up.Network((6, 5, 4), dropout=0.2).dropout == (0.2, 0.2)
    assert up.Network((6, 5, 4), dropout=(0.1, 0.0)).dropout == (0.1, 0.0)
    assert up.Network((6, 5, 4), readout="ugmm", dropout=(0.1, 0.0, 0.5)).dropout == (0.1, 0.0, 0.5)


@pytest.mark.parametrize("rates", [(0.9, 0.0), (0.0, 0.9)])
def test_dropout_acts_in_its_own_layer_and_in_training_only(backend64, rng, rates):
    """The outputs in training are those of some mask on that layer; outside training those of no mask."""
    x = rng.normal(size=(7, 6))
    model = up.Classifier(up.Network((6, 5, 4), dropout=rates), 3)
    values = {name: backend64.array(value) for name, value in model.initial_values(x, 0).items()}

    def outputs(train):
        with backend64.inference.seeded(0):
            return record(backend64, model, values, x, train)

    np.testing.assert_allclose(
        outputs(False), forward(backend64, model.network, model.initial_values(x, 0), x), rtol=PARITY
    )
    assert np.abs(outputs(True) - outputs(False)).max() > 1e-3


def record(backend, model, values, x, train):
    """Outputs of a model with given parameter values."""
    result = []

    def run():
        inputs = backend.array(x)
        noise = model.noise(backend, inputs) if train else None
        result.append(model.outputs(backend.ops, model.parameters(backend, inputs), inputs, noise))

    backend.trace(run, values)
    return np.asarray(result[0])


def test_the_short_form_is_a_list_of_layers():
    """One object, whichever way it was written."""
    assert up.Network((4, 8, 5)) == up.Network([Dense(8), LayerNorm(), Dense(5), LayerNorm(), Linear()], inputs=4)
    assert up.Network([4, 8], normalization=None, readout="ugmm") == up.Network([Dense(8), Dense()], inputs=4)
    assert up.Network(sizes=(4, 8), tied=True, dropout=0.2) == up.Network(
        [Dense(8, tied=True, dropout=0.2), LayerNorm(), Linear()], inputs=(4,)
    )
    assert up.Network((4, 8)) != up.Network((4, 9))
    assert hash(up.Network((4, 8))) == hash(up.Network((4, 8)))


def test_names_of_the_layers():
    """Layers with parameters are numbered, and a linear one at the end is the readout."""
    network = up.Network([Flatten(), Linear(3), Dense(4), LayerNorm(), Linear(2)], inputs=(2, 5))
    assert list(network.completed(2).roles(network.inputs)) == [
        "layers.0.weight", "layers.0.bias", "layers.1.loc", "layers.1.log_scale", "layers.1.logits", "readout.weight",
        "readout.bias",
    ]  # fmt: skip
    assert (network.num_inputs, network.sizes, network.readout_sites) == (10, (10, 3, 4), "readout.*")
