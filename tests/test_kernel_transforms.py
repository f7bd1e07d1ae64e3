"""Derivatives of every order and mode, batching and compilation of the native kernel, on both backends."""

import types

import numpy as np
import pytest
from kernel_cases import close, draw, needs_native, oracle, oracle_gradients, oracle_hessian, oracle_jacobian
from tolerances import DIFFERENCES

from ugmm_ppl.backends.load import load_backend

pytestmark = [
    needs_native,
    pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning"),  # torch's own forward mode uses it
]
ALL = (0, 1, 2, 3)


@pytest.fixture
def lib(monkeypatch, backend_name):
    """The transformations of torch.func and of JAX, which share their names, in float64."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")
    backend = load_backend(backend_name)
    with backend.settings(dtype="float64", device="cpu"):
        if backend_name == "pyro":
            import torch

            yield types.SimpleNamespace(
                **{name: getattr(torch.func, name) for name in ("grad", "hessian", "jacfwd", "jacrev", "jvp", "vmap")},
                activation=backend.ops.activation,
                array=torch.as_tensor,
                compiled=lambda f: f,
            )
        else:
            import jax

            yield types.SimpleNamespace(
                **{name: getattr(jax, name) for name in ("grad", "hessian", "jacfwd", "jacrev", "jvp", "vmap")},
                activation=backend.ops.activation,
                array=jax.numpy.asarray,
                compiled=jax.jit,
            )


def run(lib, function, arguments):
    """A transformed function of the backend's arrays, compiled, on NumPy arrays."""
    return lib.compiled(function)(*(lib.array(a) for a in arguments))


@pytest.mark.parametrize("mode", ["jacrev", "jacfwd"])
def test_jacobian(lib, rng, mode):
    arguments = draw(rng, (3,), [()] * 3, 2, 5)
    found = run(lib, getattr(lib, mode)(lib.activation, ALL), arguments)
    for one, other in zip(found, oracle_jacobian(arguments), strict=True):
        close(one, other)


def test_forward_mode(lib, rng):
    """Along one direction of all arguments; parameters with draws."""
    arguments = draw(rng, (3, 4), [(3, 1)] * 3, 2, 5)
    directions = [rng.normal(size=a.shape) for a in arguments]

    def derivative(*both):
        return lib.jvp(lib.activation, both[:4], both[4:])

    value, found = run(lib, derivative, [*arguments, *directions])
    close(value, oracle(*arguments)[0])
    want = sum(
        np.tensordot(part, direction, direction.ndim)
        for part, direction in zip(oracle_jacobian(arguments), directions, strict=True)
    )
    close(found, want)


@pytest.mark.parametrize("modes", [("jacfwd", "grad"), ("jacrev", "grad"), ("jacrev", "jacfwd")])
def test_second_derivatives(lib, rng, modes):
    """By all pairs of arguments."""
    arguments = draw(rng, (2,), [()] * 3, 2, 3)
    upstream = rng.normal(size=(2, 2))

    def loss(*a):
        return (lib.activation(*a) * lib.array(upstream)).sum()

    outer, inner = (getattr(lib, mode) for mode in modes)
    found = run(lib, outer(inner(loss, ALL), ALL), arguments)
    sizes = [a.size for a in arguments]
    blocks = [
        [np.asarray(block).reshape(n, m) for block, m in zip(row, sizes, strict=True)]
        for row, n in zip(found, sizes, strict=True)
    ]
    close(np.block(blocks), oracle_hessian(arguments, upstream), DIFFERENCES)


def test_hessian(lib, rng):
    arguments = draw(rng, (4,), [()] * 3, 2, 3)
    found = run(lib, lib.hessian(lambda *a: lib.activation(*a).sum(), 1), arguments)
    first = arguments[0].size
    want = oracle_hessian(arguments, np.ones((4, 2)))[first : first + 6, first : first + 6]
    close(np.asarray(found).reshape(6, 6), want, DIFFERENCES)


AXES = [(0, None, None, None), (None, 0, 0, 0), (0, 0, 0, 0), (1, 0, None, 2), (None, None, None, 1)]


def slices(arguments, axes, size):
    """The arguments of each of a batch."""
    return [
        [a if axis is None else np.take(a, i, axis) for a, axis in zip(arguments, axes, strict=True)]
        for i in range(size)
    ]


def batched(rng, axes, size=4, rows=3):
    """Arguments with a batch axis where `axes` say."""
    shapes = (rows, 6), (2, 6), (2, 6), (2, 6)
    shapes = [s if a is None else (*s[:a], size, *s[a:]) for s, a in zip(shapes, axes, strict=True)]
    return [rng.normal(size=s) if i != 2 else np.exp(0.3 * rng.normal(size=s)) for i, s in enumerate(shapes)]


@pytest.mark.parametrize("axes", AXES)
def test_vmap(lib, rng, axes):
    arguments = batched(rng, axes)
    found = run(lib, lib.vmap(lib.activation, axes), arguments)
    close(found, [oracle(*part)[0] for part in slices(arguments, axes, 4)])


@pytest.mark.parametrize("wanted", [ALL, (0,), (1, 3)])
@pytest.mark.parametrize("axes", AXES)
def test_vmap_of_a_gradient(lib, rng, axes, wanted):
    """A gradient for each of the batch, of all arguments or of some."""
    arguments = batched(rng, axes)
    function = lib.vmap(lib.grad(lambda *a: lib.activation(*a).sum(), wanted), axes)
    found = run(lib, function, arguments)
    parts = [oracle_gradients(part, np.ones((3, 2))) for part in slices(arguments, axes, 4)]
    for i, one in zip(wanted, found, strict=True):
        close(one, [part[i] for part in parts])


@pytest.mark.parametrize("axes", AXES[:4])
def test_gradient_of_a_vmap(lib, rng, axes):
    """One gradient for all of the batch, summed where the argument is shared."""
    arguments = batched(rng, axes)
    upstream = rng.normal(size=(4, 3, 2))

    def loss(*a):
        return (lib.vmap(lib.activation, axes)(*a) * lib.array(upstream)).sum()

    found = run(lib, lib.grad(loss, ALL), arguments)
    parts = [oracle_gradients(part, u) for part, u in zip(slices(arguments, axes, 4), upstream, strict=True)]
    for one, axis, *part in zip(found, axes, *parts, strict=True):
        close(one, sum(part) if axis is None else np.stack(part, axis))


def test_nested_vmap(lib, rng):
    """Over draws of the parameters, then over batches of x; the outer product of both."""
    arguments = batched(rng, (0, None, None, None))[:1] + batched(rng, (None, 0, 0, 0), size=5)[1:]
    nested = lib.vmap(lib.vmap(lib.activation, (None, 0, 0, 0)), (0, None, None, None))
    found = run(lib, nested, arguments)
    x, *parameters = arguments
    close(found, oracle(x[:, None], *(p[None, :, None] for p in parameters))[0])
    gradients = run(lib, lib.grad(lambda *a: nested(*a).sum(), ALL), arguments)
    want = oracle_gradients([x[:, None], *(p[None, :, None] for p in parameters)], np.ones((4, 5, 3, 2)))
    for one, other, argument in zip(gradients, want, arguments, strict=True):
        close(one, other.reshape(argument.shape))
