"""What follows values through a program sees through the layer and the distribution: who depends on whom, in both PPLs.

Pyro follows values by a subclass of `torch.Tensor` and NumPyro by the jaxpr. On what they find rest the graph of a
model, the gradient of `TraceGraph_ELBO`, and the structure of some guides.
"""

import types

import numpy as np
import pytest
from helpers import traced
from kernel_cases import needs_native
from tolerances import PARITY

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend

ROWS, MANY = 2, 20_000  # times three components: the second goes through a kernel, where there is one


def origins(backend, function, **arrays):
    """The names of the arguments that a result depends on, as the PPL follows them."""
    arrays = {name: backend.array(np.asarray(a)) for name, a in arrays.items()}
    if backend.name == "numpyro":
        import jax
        from numpyro.ops.provenance import eval_provenance

        found = eval_provenance(function, **arrays)
        return set().union(*jax.tree.leaves(found, is_leaf=lambda a: isinstance(a, frozenset)))
    import torch
    from pyro.ops.provenance import ProvenanceTensor, get_provenance

    followed = {name: ProvenanceTensor(a, frozenset({name})) for name, a in arrays.items()}
    with torch.no_grad():
        return set(get_provenance(function(**followed)))


def sampled(backend, distribution, method):
    """A method that draws; JAX wants a key."""
    if backend.name == "numpyro":
        import jax

        return getattr(distribution, method)(jax.random.key(0), (ROWS,))
    return getattr(distribution, method)((ROWS,))


OF_VALUES = ["log_prob", "cdf", "log_cdf", "log_survival", "icdf", "responsibilities"]
OF_NONE = ["variance", "skewness", "median"]
OF_CHANCE = ["sample", "rsample", "sample_with_component", "stratified_sample"]


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("answer", [*OF_VALUES, *OF_NONE, *OF_CHANCE, "modes", "condition_on_gaussian", "kl"])
def test_answers_of_a_mixture(backend, answer, given):
    def asked(value, loc, scale, weights):
        d = backend.dist.UnivariateGaussianMixture(loc, scale, **{given: weights})
        if answer in OF_VALUES:
            return getattr(d, answer)(value)
        if answer in OF_CHANCE:
            return sampled(backend, d, answer)
        if answer == "condition_on_gaussian":
            return d.condition_on_gaussian(value, 0.5)[1]
        if answer == "kl":
            return d.kl_to(backend.dist.UnivariateGaussianMixture(value[:2], value[:2], logits=value[:2]))
        return d.modes() if answer == "modes" else getattr(d, answer)

    if answer == "rsample" and backend.name == "numpyro":
        pytest.skip("of NumPyro's distributions `sample` is what `rsample` is to Pyro's")
    want = {"loc", "scale", "weights"} | ({"value"} if answer in (*OF_VALUES, "condition_on_gaussian", "kl") else set())
    for rows in (ROWS, MANY) if answer in OF_VALUES else (ROWS,):
        value = np.linspace(0.1, 0.9, rows)
        found = origins(
            backend, asked, value=value, loc=[-1.0, 0.0, 2.0], scale=[1.0, 0.5, 2.0], weights=[0.2, 0.5, 0.3]
        )
        assert found == want


KERNELS = [pytest.param("native", marks=needs_native), "chunked", "reference"]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("name", ["x", "loc", "log_scale", "logits"])
def test_each_argument_of_a_layer(backend, monkeypatch, kernel, name):
    """Of one argument alone, and nothing of the others: activations, neurons as distributions, dropout, tied means."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", kernel)
    plain = {"x": np.ones((500, 3)), "loc": np.zeros((40, 3)), "log_scale": np.zeros((40, 3)), "logits": np.eye(40, 3)}
    followed, rest = {name: plain.pop(name)}, {key: backend.array(a) for key, a in plain.items()}
    layers = load_layers(backend)

    def of(layer, method, **options):
        def run(**given):
            values = {**rest, **given}
            x = values.pop("x")
            if layer.tied:
                del values["loc"]
            return method(layer)(x, values=values, **options)

        return origins(backend, run, **followed)

    assert of(layers.plain, lambda layer: layer) == {name}
    assert of(layers.plain, lambda layer: lambda *a, **k: layer.conditional(*a, **k).log_prob(0.0)) >= {name}
    assert of(layers.tied, lambda layer: layer) == {name} - {"loc"}
    with seed(backend):
        assert of(layers.dropout, lambda layer: layer, train=True) == {name}


def load_layers(backend):
    """A plain layer, one with tied means, and one with dropout."""
    if backend.name == "pyro":
        from ugmm_ppl.pyro import UGMMLayer
    else:
        from ugmm_ppl.numpyro import UGMMLayer
    made = {"plain": {}, "tied": {"tied": True}, "dropout": {"dropout": 0.5}}
    return types.SimpleNamespace(**{name: UGMMLayer(3, 40, **options) for name, options in made.items()})


def seed(backend):
    """Random numbers for what is no sample site."""
    return backend.inference.seeded(0)


NETWORKS = {
    "classifier": up.Classifier(up.Network((3, 4)), 2),
    "scales and weights": up.Classifier(
        up.Network((3, 4)), 2, prior=up.Prior(scale=up.dist.InverseGamma(3.0, 1.0), weights=up.dist.Dirichlet(0.5))
    ),
    "the paper's": up.Classifier(up.Network((3, 4), readout="ugmm"), 2),
    "tied": up.Regressor(up.Network((3, 4), tied=True), 2),
    "regressor": up.Regressor(up.Network((3, 4, 4)), 2),
    "score": up.JointScore(up.Network((4, 4), readout="ugmm", normalization=None), 2),
    "circuit": up.Circuit(3),
    "circuit with classes": up.Circuit(3, classes=2),
}


def relations(backend, program, *args):
    """Sample site -> the sites that it depends on, by the PPL's `render_model`."""
    if backend.name == "pyro":
        from pyro.infer.inspect import get_model_relations
    else:
        from numpyro.infer.inspect import get_model_relations
    found = get_model_relations(program, args)["sample_sample"]
    return {site: set(of) - {site} for site, of in found.items()}


@pytest.mark.parametrize("kind", NETWORKS)
def test_graphs_of_whole_models(backend, rng, kind):
    """All parameters are roots, and the data depend on all of them."""
    model, x = NETWORKS[kind], rng.normal(size=(12, 3))
    y = None if kind == "circuit" else x[:, 0] if model.likelihood.standardizes else (x[:, 0] > 0.0).astype(int)
    found = relations(backend, model.bind(backend.name), x, y)
    of_data = found.pop(next(reversed(found)))
    assert of_data == set(found)
    assert len(found) >= 4
    assert not any(found.values())


def test_graph_of_a_latent_network(backend, rng):
    """Layer by layer."""
    found = relations(backend, up.LatentNetwork((2, 4, 3)).bind(backend.name), rng.normal(size=(12, 3)))
    for layer, (above, below) in enumerate([("z", "h.1"), ("h.1", "x")]):
        assert found[below] == {above, *(f"layers.{layer}.{role}" for role in ("gain", "loc", "log_scale", "logits"))}


def own_model(prior):
    """A PyroModule of the user's with a layer in it, and weights of its own."""
    import pyro
    from pyro.nn import PyroModule, PyroSample

    from ugmm_ppl.pyro import UGMMLayer

    class Model(PyroModule):
        def __init__(self):
            super().__init__()
            self.layer = UGMMLayer(2, 2, prior=prior)
            self.w = PyroSample(pyro.distributions.Normal(0.0, 1.0).expand([2]).to_event(1))

        def forward(self, x, y=None):
            h = self.layer(x) @ self.w
            with pyro.plate("data", len(x)):
                pyro.sample("y", pyro.distributions.Normal(h, 1.0), obs=y)

    return Model()


def shifted(backend, name, shape):
    """A callable prior with a hyper-parameter: location `shift`, and normal around it."""
    d = backend.dist
    shift = backend.sample(f"{name}_shift", d.Normal(backend.array(0.0), backend.array(1.0)))
    return backend.sample(name, d.Normal(shift, backend.array(1.0)).expand(shape).to_event(2))


@pytest.mark.parametrize("prior", [up.Prior(), up.Prior(loc=shifted)], ids=["described", "callable"])
def test_guides_know_the_posterior_of_a_layer(rng, prior):
    """`get_dependencies`, and the guides of Pyro that are built on it."""
    pyro, torch = pytest.importorskip("pyro"), pytest.importorskip("torch")
    from pyro.infer.autoguide import AutoGaussian, AutoStructured
    from pyro.infer.inspect import get_dependencies

    x = torch.as_tensor(rng.normal(size=(60, 2)), dtype=torch.float32)
    sites = {"w", "layer.loc", "layer.log_scale", "layer.logits"}
    with pyro.get_param_store().scope(), load_backend("pyro").inference.seeded(0):
        model = own_model(prior)
        found = get_dependencies(model, (x, x[:, 0]))["posterior_dependencies"]
        assert all("y" in found[site] for site in sites)
        assert set(found["layer.loc"]) >= sites | {"y"}
        guide = AutoGaussian(model)
        guide(x, x[:, 0])
        assert set(guide.dependencies["y"]) == sites | {"y"}
        guide = AutoStructured(model)
        guide(x, x[:, 0])
        pairs = {frozenset({d, u}) for d, of in guide.dependencies.items() for u in of}
        assert pairs >= {frozenset({a, b}) for a in sites for b in sites if a != b}


# ------------------------------------------------------------------------------------------ gradients of the ELBO


@pytest.mark.long
@traced
@pytest.mark.parametrize("name", ["log_prob", "cdf", "log_cdf", "log_survival", "icdf", "responsibilities"])
def test_a_mixture_from_outside_is_compiled_and_traced(name):
    """What it computes but once is not what the first trace of it records and the next one lacks."""
    pytest.importorskip("pyro")
    import torch

    from ugmm_ppl.pyro import UnivariateGaussianMixture

    values, others = torch.tensor([0.2, 0.7]), torch.tensor([0.1, 0.5, 0.9])
    for given in ("logits", "probs"):
        loc, scale, weights = torch.tensor([-1.0, 2.0]), torch.ones(2), torch.full((2,), 0.5)
        made = [UnivariateGaussianMixture(loc, scale, **{given: weights}) for _ in range(2)]
        torch._dynamo.reset()
        compiled = torch.compile(lambda v, d=made[0]: getattr(d, name)(v), backend="eager", fullgraph=True)
        traced = torch.jit.trace(getattr(made[1], name), (values,))
        for function in (compiled, traced):
            np.testing.assert_array_equal(function(values), getattr(made[0], name)(values))
            np.testing.assert_array_equal(function(others), getattr(made[0], name)(others))


@traced
def test_quantiles_in_a_trace_of_torch():
    """As Pyro's `jit_compile=True` makes them: as many steps of the search as other parameters may need."""
    pytest.importorskip("pyro")
    import torch

    from ugmm_ppl.pyro import UnivariateGaussianMixture

    def quartile(loc, scale):
        return UnivariateGaussianMixture(loc, scale, logits=torch.zeros(2)).icdf(torch.tensor([0.25]))

    with load_backend("pyro").settings(dtype="float64", device="cpu"):
        traced = torch.jit.trace(quartile, (torch.zeros(2), torch.ones(2)), check_trace=False)
        found = traced(torch.tensor([0.0, 1e6]), torch.tensor([1e-3, 1.0]))
    np.testing.assert_allclose(found, [0.0], atol=PARITY)  # the median of the first component
