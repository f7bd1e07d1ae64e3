"""NumPyro outside `jax.jit`: nothing compiles twice for one shape; fits without compiling; programs for export."""

import contextlib

import numpy as np
import pytest
from conftest import INSTALLED

import ugmm_ppl as up

if not INSTALLED["numpyro"]:
    pytest.skip("needs NumPyro, which is not installed here", allow_module_level=True)

import jax
import jax.numpy as jnp
from jax import export

from ugmm_ppl.numpyro import UGMMLayer, UnivariateGaussianMixture

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(4)
COMPILED = []
jax.monitoring.register_event_duration_secs_listener(
    lambda event, *_, **__: COMPILED.append(event) if event.endswith("backend_compile_duration") else None
)


def array(*shape):
    return jnp.asarray(RNG.normal(size=shape), "float32")


def mixture(given, leading=()):
    loc, scale, logits = array(*leading, 3), jnp.exp(array(*leading, 3)), array(*leading, 3)
    weights = {"logits": logits} if given == "logits" else {"probs": jax.nn.softmax(logits)}
    return UnivariateGaussianMixture(loc, scale, **weights)


def gradient(answer):
    """By the parameters of the mixture, taken without `jax.jit`."""

    def by_parameters(given, turn):
        def total(p):
            weights = {"logits": p} if given == "logits" else {"probs": jax.nn.softmax(p)}
            return jnp.sum(answer(UnivariateGaussianMixture(p, jnp.exp(p), **weights), turn))

        return jax.grad(total)(array(3))

    return by_parameters


ANSWERS = {
    "log_prob": lambda d, i: d.log_prob(array(5)),
    "log_prob of a number": lambda d, i: d.log_prob(0.1 * i),
    "log_prob of many": lambda d, i: d.log_prob(array(40_000)),
    "cdf": lambda d, i: d.cdf(array(5)),
    "log_cdf": lambda d, i: d.log_cdf(array(5)),
    "icdf": lambda d, i: d.icdf(0.1 + 0.1 * i),
    "icdf of an array": lambda d, i: d.icdf(jax.random.uniform(jax.random.key(i), (7,))),
    "median": lambda d, i: d.median,
    "interval": lambda d, i: d.interval(0.3 + 0.1 * i)[0],
    "sample": lambda d, i: d.sample(jax.random.key(i), (6,)),
    "entropy_bounds": lambda d, i: d.entropy_bounds()[0],
    "variance": lambda d, i: d.variance,
    "kl_to": lambda d, i: d.kl_to(d),
}
NOT_DIFFERENTIATED = {
    "modes": lambda d, i: d.modes(),
    "responsibilities": lambda d, i: d.responsibilities(array(5)),
    "sample_with_component": lambda d, i: d.sample_with_component(jax.random.key(i), (6,)),
    "entropy_estimate": lambda d, i: d.entropy_estimate(jax.random.key(i), 50),
    "condition_on_gaussian": lambda d, i: d.condition_on_gaussian(array(), 0.5 + 0.1 * i)[1],
}


def compiles_once(call):
    """The first two calls may compile, for other types of Python numbers; those after them may not."""
    for turn in (1, 2):
        jax.block_until_ready(call(turn))
    COMPILED.clear()
    for turn in (3, 4, 5):
        jax.block_until_ready(call(turn))
    assert not COMPILED


@pytest.mark.long
@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("name", [*ANSWERS, *NOT_DIFFERENTIATED])
def test_an_answer_is_compiled_once(name, given):
    answer = (ANSWERS | NOT_DIFFERENTIATED)[name]
    compiles_once(lambda turn: answer(mixture(given), turn))


@pytest.mark.long
@pytest.mark.parametrize("name", ["log_prob of many", "icdf", "sample", "cdf"])
def test_a_gradient_is_compiled_once(name):
    compiles_once(lambda turn: gradient(ANSWERS[name])("logits", turn))


def values():
    return {role: array(4, 3) for role in ("loc", "log_scale", "logits")}


@pytest.mark.long
@pytest.mark.parametrize("kernel", ["auto", "chunked", "reference"])
def test_a_layer_is_compiled_once(kernel, monkeypatch):
    monkeypatch.setenv("UGMM_PPL_KERNEL", kernel)
    layer = UGMMLayer(3, 4)
    compiles_once(lambda turn: layer(array(600, 3), values=values()))
    compiles_once(lambda turn: jax.grad(lambda p, x: layer(x, values=p).sum())(values(), array(600, 3)))
    compiles_once(lambda turn: layer.conditional(array(5, 3), values=values()).icdf(0.1 + 0.1 * turn))


@pytest.mark.long
@pytest.mark.parametrize("method", ["svi", "laplace", "nuts"])
def test_a_fit_like_the_last_one_and_its_answers_are_compiled_once(method):
    settings = {"svi": {"num_steps": 4}, "laplace": {"num_steps": 4}}.get(
        method, {"num_warmup": 2, "num_draws": 2, "num_chains": 1, "max_tree_depth": 2}
    )

    def answers(turn):
        x = RNG.normal(size=(20, 2))
        model = up.Regressor(up.Network((2, 3)), components=2)
        fit = up.fit(model, x, x[:, 0], method=method, seed=turn, progress=False, **settings)
        prediction = fit.predict(x, num_draws=2)
        return [prediction.quantile(0.1 * turn), prediction.log_density(x[:, 0]), fit.log_likelihood(x, x[:, 0], 2)]

    compiles_once(answers)


CASES = {
    "classifier": (up.Classifier(up.Network((2, 3)), classes=2), ("svi", "map", "laplace", "nuts")),
    "circuit": (up.Circuit(2, classes=2, neurons=2), ("svi", "em")),
    "latent": (up.LatentNetwork((2, 2), classes=2, encoder_widths=(3,)), ("svi",)),
}


@pytest.mark.long
@pytest.mark.parametrize(("case", "method"), [(c, m) for c, (_, methods) in CASES.items() for m in methods])
def test_fits_where_jax_compiles_nothing(case, method):
    """`jax.disable_jit`, by which users debug: the same numbers, to rounding."""
    x = np.random.default_rng(0).normal(size=(12, 2))
    nuts = {"num_warmup": 1, "num_draws": 1, "num_chains": 1, "max_tree_depth": 1}
    settings = {"method": method, "progress": False, "dtype": "float64"} | (
        nuts if method == "nuts" else {"num_steps": 1}
    )
    found = []
    for context in (contextlib.nullcontext(), jax.disable_jit()):
        with context:
            fit = up.fit(CASES[case][0], x, (x[:, 0] > 0).astype(int), **settings)
            found.append((fit.posterior(None if method == "nuts" else 1), fit.losses))
    np.testing.assert_allclose(found[0][1], found[1][1], rtol=1e-8)
    for name, value in found[0][0].items():
        np.testing.assert_allclose(found[1][0][name], value, rtol=1e-6, atol=1e-8)


def batch(x):
    return UnivariateGaussianMixture(x, jnp.exp(0.1 * x), logits=x)


EXPORTED = {
    "layer": lambda x: UGMMLayer(3, 4)(x, values=WHOLE),
    "conditional": lambda x: UGMMLayer(3, 4).conditional(x, values=WHOLE).log_prob(0.0),
    "log_prob": lambda x: UnivariateGaussianMixture(WHOLE["loc"][0], jnp.ones(3), logits=jnp.zeros(3)).log_prob(x),
    "cdf": lambda x: batch(x).cdf(x[..., 0]),
    "icdf": lambda x: batch(x).icdf(0.3),
    "sample": lambda x: batch(x).sample(jax.random.key(0)),
}
WHOLE = values()


@pytest.mark.long
@pytest.mark.parametrize("rows", [12, "b"])
@pytest.mark.parametrize("name", EXPORTED)
def test_programs_are_exported_with_their_gradients(name, rows):
    """For a fixed number of rows and for any."""
    function, x = EXPORTED[name], array(12, 3)
    shape = export.symbolic_shape("b, 3") if rows == "b" else (rows, 3)
    exported = export.export(jax.jit(function))(jax.ShapeDtypeStruct(shape, jnp.float32))
    assert "custom_call @ugmm_ppl" not in exported.mlir_module()  # no kernel that is only where this library is
    want, back = jax.vjp(function, x)
    np.testing.assert_allclose(exported.call(x), want, rtol=2e-5, atol=2e-5)
    upstream = jnp.ones_like(want)
    np.testing.assert_allclose(exported.vjp().call(x, upstream)[0], back(upstream)[0], rtol=1e-3, atol=1e-3)
