"""Every kernel of equation (2), called through either backend, against the formula in extended precision."""

import contextlib
import functools

import numpy as np
import pytest
from conftest import compiling_quickly
from helpers import assert_relative, evaluate, gradients, refused
from kernel_cases import NO_TRITON, SHAPES, assert_gradients, draw, needs_native, oracle, oracle_gradients
from tolerances import EXACT64, GRADIENT32, HALF16, NETWORK32, ORACLE32

import ugmm_ppl as up
from ugmm_ppl import budgets
from ugmm_ppl.backends.load import load_backend

INF = np.inf
VALUE = {"float32": ORACLE32, "float64": EXACT64}
GRADIENT = {"float32": GRADIENT32, "float64": EXACT64}
VARIANTS = [
    pytest.param(("native", "float32"), id="native-float32", marks=needs_native),
    pytest.param(("native", "float64"), id="native-float64", marks=needs_native),
    pytest.param(("triton", "float32"), id="triton-float32"),
    pytest.param(("chunked", "float64"), id="chunked-float64"),
    pytest.param(("reference", "float32"), id="reference-float32"),
]


LAYOUTS = ("one row", "a batch", "draws of the parameters, one batch", "different parameters along different axes")
"""Those of `SHAPES` that the kernels for a GPU put into groups and rows in ways of their own."""


@pytest.fixture(params=VARIANTS)
def variant(request):
    """(kernel, dtype): the native kernel has code of its own for each dtype, the others have not."""
    return request.param


def interpret(monkeypatch, backend_name):
    """Let the kernels for a GPU run on the CPU, in the interpreters of Triton and of Pallas."""
    if backend_name == "pyro" and NO_TRITON:
        pytest.skip(NO_TRITON)
    monkeypatch.setenv("TRITON_INTERPRET", "1")


@pytest.fixture
def kernel(variant, monkeypatch, backend_name):
    """The name of a kernel that is in use, with chunks of few rows."""
    name, _ = variant
    monkeypatch.setenv("UGMM_PPL_KERNEL", name)
    within = contextlib.ExitStack()
    if name == "triton":
        interpret(monkeypatch, backend_name)
        within.enter_context(np.errstate(all="ignore"))  # Triton's interpreter is NumPy, which warns of log2(0) = -inf
    monkeypatch.setattr(budgets, "CACHED", 200)
    monkeypatch.setattr(budgets, "COMPILED_CHUNK", {"cpu": 200, "elsewhere": 200})
    with within:
        yield name


@pytest.fixture
def quickly(variant):
    """Unoptimised code for the interpreter of Pallas, which has no kernel to time and much to compile."""
    with compiling_quickly() if variant[0] == "triton" else contextlib.nullcontext():
        yield


@pytest.fixture
def dtype(variant, backend_name):
    """A dtype that is the default of the backend."""
    _, name = variant
    with load_backend(backend_name).settings(dtype=name, device="cpu"):
        yield name


@pytest.fixture
def both(kernel, backend_name):
    """Activations and gradients by that kernel."""
    return activations_and_gradients(backend_name, kernel)


@functools.cache
def activations_and_gradients(backend_name, kernel):
    """A function of x, loc, scale, log_weights and an upstream gradient, compiled once for each kernel and shape."""
    ops = load_backend(backend_name).ops
    if backend_name == "pyro":
        import torch

        def both(*arrays):
            *arguments, upstream = (torch.as_tensor(np.array(a)) for a in arrays)
            leaves = [a.requires_grad_() for a in arguments]
            out = ops.activation(*leaves)
            return out.detach(), torch.autograd.grad(out, leaves, upstream.to(out.dtype))
    else:
        import jax

        @jax.jit
        def both(*arrays):
            *arguments, upstream = arrays
            out, vjp = jax.vjp(ops.activation, *arguments)
            return out, vjp(upstream.astype(out.dtype))

    def evaluated(*arrays):
        out, found = both(*arrays)
        return np.asarray(out), [np.asarray(gradient) for gradient in found]

    return evaluated


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients_for_all_leading_axes(both, kernel, backend_name, dtype, rng, shape):
    if (kernel, backend_name) == ("triton", "numpyro") and shape not in LAYOUTS:
        pytest.skip("goes the way of another shape, and takes long to compile")
    arguments = draw(rng, *SHAPES[shape], 4, 19, dtype)
    want, *_ = oracle(*arguments)
    upstream = rng.normal(size=want.shape).astype(dtype)
    out, found = both(*arguments, upstream)
    assert out.dtype == dtype
    assert out.shape == want.shape
    assert_relative(out, want, VALUE[dtype])
    assert [gradient.shape for gradient in found] == [argument.shape for argument in arguments]
    assert_gradients(found, oracle_gradients(arguments, upstream), GRADIENT[dtype])


def changed(rng, dtype, neurons=3, inputs=23, **places):
    """Arguments of a batch of 5 where `x` or `log_weights` are infinite at some places."""
    x, loc, scale, log_weights = draw(rng, (5,), [()] * 3, neurons, inputs, dtype)
    for name, (where, value) in places.items():
        {"x": x, "log_weights": log_weights}[name][where] = value
    return x, loc, scale, log_weights


ADVERSARIAL = {
    "half of the weights zero": {"log_weights": (np.s_[:, 1::2], -INF)},
    "all but one masked": {"log_weights": (np.s_[1, :-1], -INF)},
    "a neuron all masked": {"log_weights": (np.s_[1], -INF)},
    "all masked": {"log_weights": (np.s_[:], -INF)},
    "infinite inputs": {"x": (np.s_[1:3, 5:], INF)},
    "negative infinite inputs": {"x": (np.s_[2, ::3], -INF)},
    "a row all infinite": {"x": (np.s_[0], INF)},
    "all inputs infinite": {"x": (np.s_[:], -INF)},
    "only masked components within reach": {"x": (np.s_[:, 10:], INF), "log_weights": (np.s_[:, :10], -INF)},
    "one input": {"inputs": 1},
    "one input, infinite": {"inputs": 1, "x": (np.s_[2], INF)},
    "one neuron": {"neurons": 1},
    "4096 inputs": {"inputs": 4096, "neurons": 2},
}


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("case", ADVERSARIAL)
def test_adversarial_arguments(both, dtype, rng, case):
    """Impossible values are -inf with gradients of zero, not NaN."""
    arguments = changed(rng, dtype, **ADVERSARIAL[case])
    want, *_ = oracle(*arguments)
    upstream = rng.normal(size=want.shape).astype(dtype)
    out, found = both(*arguments, upstream)
    assert_relative(out, want, VALUE[dtype])
    assert_gradients(found, oracle_gradients(arguments, upstream), GRADIENT[dtype])


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_extreme_distances_and_scales(both, dtype, rng, scale):
    """Responsibilities still sum to one: the gradient of log_weights tells; those of the others are finite.

    This takes a term that both passes round alike, which XLA's unoptimised code does not promise.
    """
    x, loc, _, log_weights = draw(rng, (6,), [()] * 3, 3, 40, dtype)
    arguments = [(1e4 * x / np.abs(x).max()).astype(dtype), loc, np.full_like(loc, scale), log_weights]
    want, *_ = oracle(*arguments)
    upstream = rng.uniform(0.5, 1.5, want.shape).astype(dtype)
    out, found = both(*arguments, upstream)
    assert_relative(out, want, VALUE[dtype])
    assert all(np.isfinite(gradient).all() for gradient in found)
    np.testing.assert_allclose(found[3].sum(-1), upstream.sum(0), rtol=GRADIENT[dtype])


@pytest.mark.usefixtures("quickly")
def test_nan_passes_through(both, dtype, rng):
    x, loc, scale, log_weights = draw(rng, (4,), [()] * 3, 3, 30, dtype)
    x[1, 7], log_weights[2, 3] = np.nan, np.nan
    out, (dx, *_) = both(x, loc, scale, log_weights, np.ones((4, 3)))
    np.testing.assert_array_equal(np.isnan(out), [[i == 1 or j == 2 for j in range(3)] for i in range(4)])
    assert np.isnan(dx).any()


@pytest.mark.usefixtures("quickly")
def test_tied_means(kernel, backend, dtype, rng):
    """The number 0.0 for loc, which has no gradient."""
    x, loc, scale, log_weights = draw(rng, (7,), [()] * 3, 3, 10, dtype)
    arguments = [x, 0.0 * loc, scale, log_weights]

    def tied(x, scale, log_weights):
        return backend.ops.activation(x, 0.0, scale, log_weights)

    assert_relative(evaluate(backend, tied, x, scale, log_weights), oracle(*arguments)[0], VALUE[dtype])
    _, (dx, *rest) = gradients(backend, lambda *a: tied(*a).sum(), [x, scale, log_weights])
    want = oracle_gradients(arguments, np.ones((7, 3)))
    assert_gradients([dx, want[1], *rest], want, GRADIENT[dtype])


@pytest.mark.usefixtures("quickly")
@pytest.mark.parametrize("rows", [(0,), (3, 0), (0, 3)])
def test_empty_batch(both, dtype, rng, rows):
    """No activations; the parameters have gradients of zero."""
    arguments = draw(rng, rows, [()] * 3, 4, 6, dtype)
    out, found = both(*arguments, np.zeros((*rows, 4)))
    assert out.shape == (*rows, 4)
    for gradient, argument in zip(found, arguments, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(argument))


def test_mixed_dtypes_are_promoted(both, kernel, dtype, backend64, rng):
    """Gradients come back in the dtype of each argument; to one that the kernel takes."""
    other = {"float32": "float64", "float64": "float32"}[dtype]
    x, loc, scale, log_weights = draw(rng, (5,), [()] * 3, 3, 8, "float32")
    arguments = [x.astype(dtype), loc.astype(other), scale.astype(other), log_weights.astype(dtype)]
    upstream = rng.normal(size=(5, 3))
    if kernel == "triton":
        with refused(RuntimeError, "UGMM_PPL_KERNEL=triton", "the arrays are float64"):
            both(*arguments, upstream)
        return
    out, found = both(*arguments, upstream)
    assert out.dtype == np.float64
    assert_relative(out, oracle(*arguments)[0], EXACT64)
    assert [gradient.dtype for gradient in found] == [argument.dtype for argument in arguments]
    assert_gradients(found, oracle_gradients(arguments, upstream), GRADIENT32)


def test_half_precision_is_computed_in_float32(backend_name, rng):
    """By the kernel that the default choice takes for it."""
    arguments = draw(rng, (5,), [()] * 3, 3, 8, "float16")
    upstream = rng.normal(size=(5, 3)).astype(np.float16)
    out, found = activations_and_gradients(backend_name, "auto")(*arguments, upstream)
    assert out.dtype == np.float16
    assert_relative(out, oracle(*arguments)[0], HALF16)
    assert_gradients(found, oracle_gradients(arguments, upstream), HALF16)


@needs_native
def test_the_same_bits_on_repetition(backend_name, monkeypatch, rng):
    """Native kernel, whatever the threads of the backend do."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")
    arguments = draw(rng, (3, 100), [(3, 1)] * 3, 30, 50, "float32")
    both, upstream = activations_and_gradients(backend_name, "native"), rng.normal(size=(3, 100, 30))
    first, again = (both(*arguments, upstream.astype(np.float32)) for _ in range(2))
    np.testing.assert_array_equal(first[0], again[0])
    for one, other in zip(first[1], again[1], strict=True):
        np.testing.assert_array_equal(one, other)


@needs_native
def test_a_short_fit_has_the_same_loss_with_the_native_kernel(backend_name, monkeypatch, rng):
    """To rounding; the same to the bit would mean that one kernel ran both times."""
    x, y = rng.normal(size=(40, 5)), rng.integers(0, 3, 40)
    fits = []
    for name in ("native", "reference"):
        monkeypatch.setenv("UGMM_PPL_KERNEL", name)
        model = up.Classifier(up.Network((5, 16)), 3)
        fits.append(up.fit(model, x, y, backend=backend_name, num_steps=20, seed=1, progress=False))
    np.testing.assert_allclose(*(fit.losses for fit in fits), rtol=NETWORK32)
    assert (fits[0].log_likelihoods != fits[1].log_likelihoods).any()
