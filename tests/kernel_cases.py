"""What the tests of the kernels share: arguments, equation (2) in extended precision, calls of the C functions."""

import ctypes
import importlib.util
import shutil

import numpy as np
import pytest
from helpers import assert_relative
from tolerances import EXACT64, GRADIENT32, ORACLE32

from ugmm_ppl.kernels import library

NATIVE = library.load()[0]
needs_native = pytest.mark.skipif(NATIVE is None, reason=f"no native kernel here: {library.load()[1]}")
NO_TRITON = None if importlib.util.find_spec("triton") else "triton is not installed here"
INSTRUCTION_SETS = ("baseline", "avx2", "avx512")

SHAPES = {  # leading axes of x, and of loc, scale and log_weights
    "one row": ((), [()] * 3),
    "a batch": ((37,), [()] * 3),
    "draws of the parameters, one batch": ((5,), [(3, 1)] * 3),
    "draws of both": ((3, 5), [(3, 1)] * 3),
    "chains, draws, batch": ((2, 1, 5), [(1, 3, 1)] * 3),
    "chains of x, draws of the parameters": ((4, 2, 5), [(2, 1)] * 3),
    "parameters of each row": ((4,), [(4,)] * 3),
    "parameters with an axis that x lacks": ((3, 1), [(3, 7)] * 3),
    "one row, draws of the parameters": ((), [(6,)] * 3),
    "one parameter with draws": ((3, 5), [(3, 1), (), ()]),
    "different parameters along different axes": ((5,), [(3, 1), (2, 1, 1), ()]),
}


def draw(rng, x_leading, leading, neurons, inputs, dtype="float64"):
    """Arguments of equation (2) at ordinary distances, log weights normalised."""
    x = rng.normal(size=(*x_leading, inputs))
    loc, log_scale, weights = (rng.normal(size=(*axes, neurons, inputs)) for axes in leading)
    log_weights = weights - np.log(np.exp(weights).sum(-1, keepdims=True))
    return [np.asarray(a, dtype) for a in (x, loc, np.exp(0.3 * log_scale), log_weights)]


def at_all_distances(rng):
    """Arguments whose log densities go from the largest to -10^4, half of the neurons wide enough to be near."""
    x, loc, scale, log_weights = draw(rng, (40,), [()] * 3, 20, 70, "float32")
    x[::2] += np.linspace(0.0, 100.0, 20, dtype="float32")[:, None]
    scale[::2] *= 30.0
    return [x, loc, scale, log_weights]


def oracle(x, loc, scale, log_weights):
    """Equation (2) in extended precision: activations, and `(..., J, K)` responsibilities and (x - loc) / scale."""
    x, loc, scale, log_weights = (np.asarray(a, np.longdouble) for a in (x, loc, scale, log_weights))
    x = x[..., None, :]
    z = (np.where(np.isinf(x), 0.0, x) - loc) / scale
    with np.errstate(divide="ignore"):
        terms = log_weights - np.log(scale) - 0.5 * np.log(2.0 * np.longdouble(np.pi)) - 0.5 * z * z
        terms = np.where(np.isinf(x), -np.inf, terms)
        peak = terms.max(-1, keepdims=True)
        shares = np.exp(terms - np.where(peak == -np.inf, 0.0, peak))
        total = shares.sum(-1, keepdims=True)
        return (np.log(total) + peak)[..., 0], shares / np.where(total == 0.0, 1.0, total), z


def oracle_gradients(arguments, upstream):
    """Gradients of sum(upstream * activations) in extended precision, in the shapes of the arguments."""
    _, r, z = oracle(*arguments)
    r = np.asarray(upstream, np.longdouble)[..., None] * r
    scale = np.asarray(arguments[2], np.longdouble)
    found = [(-r * z / scale).sum(-2), r * z / scale, r * (z * z - 1.0) / scale, r]
    return [summed_to(gradient, argument.shape) for gradient, argument in zip(found, arguments, strict=True)]


def oracle_jacobian(arguments):
    """Derivatives of each activation by each argument, `(*activations, *argument)`."""
    shape = oracle(*arguments)[0].shape
    rows = [oracle_gradients(arguments, row.reshape(shape)) for row in np.eye(np.prod(shape, dtype=int))]
    columns = zip(*rows, strict=True)
    return [np.stack(part).reshape(*shape, *a.shape) for part, a in zip(columns, arguments, strict=True)]


def oracle_hessian(arguments, upstream, step=1e-5):
    """Second derivatives of sum(upstream * activations), by central differences of the gradient."""
    flat = np.concatenate([np.ravel(a) for a in arguments]).astype(np.longdouble)
    ends = np.cumsum([a.size for a in arguments])

    def gradient(values):
        parts = [part.reshape(a.shape) for part, a in zip(np.split(values, ends[:-1]), arguments, strict=True)]
        return np.concatenate([np.ravel(g) for g in oracle_gradients(parts, upstream)])

    rows = [(gradient(flat + move) - gradient(flat - move)) / (2.0 * step) for move in step * np.eye(len(flat))]
    return np.stack(rows).astype(float)


def summed_to(a, shape):
    """The sum over the axes along which an array of this shape was broadcast."""
    a = a.sum(tuple(range(a.ndim - len(shape))))
    return a.sum(tuple(i for i, size in enumerate(shape) if size == 1 and a.shape[i] > 1), keepdims=True)


def assert_gradients(got, want, tolerance):
    """|got - want| <= tolerance times the largest entry of want, for each of the four gradients."""
    for name, one, other in zip(("x", "loc", "scale", "log_weights"), got, want, strict=True):
        largest = float(np.abs(other).max(initial=0.0))
        np.testing.assert_allclose(one, other.astype(float), rtol=tolerance, atol=tolerance * largest, err_msg=name)


def agree_with_oracle(run, arguments, rng):
    """`run(arguments, upstream)` gives activations and gradients, of float32, for a random upstream gradient."""
    want, *_ = oracle(*arguments)
    upstream = rng.normal(size=want.shape).astype(np.float32)
    out, found = run(arguments, upstream)
    assert_relative(out, want, ORACLE32)
    assert_gradients(found, oracle_gradients(arguments, upstream), GRADIENT32)


def close(got, want, tolerance=EXACT64):
    """Equal to a tolerance of the largest entry."""
    want = np.asarray(want, np.float64)
    np.testing.assert_allclose(np.asarray(got), want, rtol=tolerance, atol=tolerance * np.abs(want).max())


# ------------------------------------------------------------------------------------ the C functions on NumPy arrays


def of_instruction_set(name, folder):
    """A copy of the shared library that uses this instruction set; skips the test where the processor lacks it."""
    if NATIVE is None:
        pytest.skip(f"no native kernel here: {library.load()[1]}")
    path = folder / f"{name}.so"
    shutil.copy(NATIVE._name, path)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("UGMM_PPL_ISA", name)  # read at the first call
        copy = ctypes.CDLL(str(path))
        copy.ugmm_instruction_set.restype = ctypes.c_char_p
        found = copy.ugmm_instruction_set().decode()
    if found != name:
        pytest.skip(f"this processor lacks {name}, the kernel would use {found}")
    return copy


def forward(native, arguments, threads=2):
    """`ugmm_forward` on arrays of any strides; loc may be None, for tied means."""
    x, _, scale, _ = arguments
    leading, own = _leading(arguments), scale.shape[-2:]
    out = np.full((*leading, own[0]), np.nan, x.dtype)
    _call(native.ugmm_forward, x, threads, leading, own, _strides(leading, own, arguments), [], [*arguments, out])
    return out


def backward(native, arguments, out, upstream, threads=2, wanted=(True,) * 4):
    """`ugmm_backward`; a gradient that is not wanted is None."""
    x, _, scale, _ = arguments
    leading, own = _leading(arguments), scale.shape[-2:]
    found = [np.full(a.shape, np.nan, x.dtype) if want else None for a, want in zip(arguments, wanted, strict=True)]
    strides = _strides(leading, own, arguments) + _strides(leading, own, found)
    sizes = [_int64([0 if a is None else a.size for a in found])]
    _call(native.ugmm_backward, x, threads, leading, own, strides, sizes, [*arguments, out, upstream, *found])
    return found


def _leading(arguments):
    x, *parameters = arguments
    return np.broadcast_shapes(x.shape[:-1], *(p.shape[:-2] for p in parameters if p is not None))


def _strides(leading, own, arrays):
    """Strides in elements of x and three parameters over all axes, one after the other; zeros for None."""
    shapes = ((*leading, own[1]), *[(*leading, *own)] * 3)
    return [
        stride // (1 if a is None else a.itemsize)
        for a, shape in zip(arrays, shapes, strict=True)
        for stride in ([0] * len(shape) if a is None else np.broadcast_to(a, shape).strides)
    ]


def _call(function, x, threads, leading, own, strides, sizes, arrays):
    pointers = [ctypes.c_void_p(None if a is None else a.ctypes.data) for a in arrays]
    dims = _int64([*leading, *own])
    failed = function(x.itemsize == 8, threads, ctypes.c_int64(len(leading)), dims, _int64(strides), *sizes, *pointers)
    assert not failed


def _int64(values):
    return (ctypes.c_int64 * len(values))(*values)
