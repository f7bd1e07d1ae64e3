"""The array operations the mathematics needs, and NumPy's version of them.

`neuron.py` and `network.py` are written once and are handed one of three implementations of `Ops`: `NUMPY` here,
`ugmm_ppl.pyro.ops.OPS` for torch and `ugmm_ppl.numpyro.ops.OPS` for JAX.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of NumPy, torch or JAX; shapes are said in the docstrings with the letters of `docs/shapes.md`."""


Coefficients: TypeAlias = Callable[..., Sequence[Any]]
Step: TypeAlias = Callable[..., tuple[Any, ...]]

INDEX = np.int32
"""Dtype of index arrays: JAX (0.10 to 0.12) takes int64 for int32 in one precision and for int64 in the other, and
remembers which by the array, so that a model that is used in both would fail."""


class Ops(Protocol):
    """Array operations with one name and one meaning in every library; `axis` is always negative."""

    def exp(self, a: Array, /) -> Array:
        """Elementwise exponential."""

    def log(self, a: Array, /) -> Array:
        """Elementwise natural logarithm."""

    def sqrt(self, a: Array, /) -> Array:
        """Elementwise square root."""

    def erfc(self, a: Array, /) -> Array:
        """Elementwise complementary error function, accurate where it is small; at -z / sqrt 2 it is 2 Phi(z)."""

    def log1p(self, a: Array, /) -> Array:
        """Elementwise log(1 + a)."""

    def ndtri(self, a: Array, /) -> Array:
        """Elementwise quantile function of the standard normal."""

    def where(self, condition: Array, a: Array, b: Array, /) -> Array:
        """Elementwise choice; `a` and `b` may be plain numbers."""

    def isfinite(self, a: Array, /) -> Array:
        """Elementwise test: neither NaN nor infinite."""

    def at_least(self, a: Array, floor: float, /) -> Array:
        """Elementwise maximum of `a` and a plain number."""

    def at_most(self, a: Array, ceiling: float, /) -> Array:
        """Elementwise minimum of `a` and a plain number."""

    def eps(self, a: Array, /) -> float:
        """Spacing of the numbers at 1 in the dtype of `a`."""

    def widened(self, a: Array, /) -> Array:
        """float32 for half precision (float16, bfloat16), which cannot hold squares and sums; all else as it is."""

    def narrowed(self, a: Array, like: Array, /, *others: Any) -> Array:
        """`a` rounded to half precision, if that is what `like` and all arrays among the others have; else as it is."""

    def max(self, a: Array, axis: int, /) -> Array:
        """Maximum over one axis, which is kept with size 1. Gradients do not pass."""

    def sum(self, a: Array, axis: int, /) -> Array:
        """Sum over one axis, which is removed."""

    def twice_phi(self, value: Array, loc: Array, scale: Array, /) -> Array:
        """2 Phi((value - loc) / scale) = erfc((loc - value) / (scale sqrt 2)), `(...)`, `(..., K)` to `(..., K)`."""

    def dot(self, a: Array, b: Array, /) -> Array:
        """Sum of products over the last axis; leading axes broadcast."""

    def mean(self, a: Array, axis: int, /) -> Array:
        """Mean over one axis, which is kept with size 1."""

    def cumsum(self, a: Array, /) -> Array:
        """Running sum over the last axis."""

    def count(self, a: Array, /) -> Array:
        """How many entries of the last axis, which is removed, are true."""

    def sort(self, a: Array, /) -> Array:
        """Sorted along the last axis."""

    def concat(self, arrays: Sequence[Array], /) -> Array:
        """Joined along the last axis; leading axes broadcast."""

    def join(self, arrays: Sequence[Array], axis: int, /) -> Array:
        """Joined along one axis; all others are equal."""

    def constant(self, a: np.ndarray, like: Array, /) -> Array:
        """A NumPy array of numbers, with the dtype and device of `like`."""

    def known(self, *arrays: Any) -> bool:
        """Whether values can be looked at: not inside a compiler or a transform. Anything but arrays is known."""

    def stop(self, a: Array, /) -> Array:
        """The same values, as constants for differentiation."""

    def attach(self, value: Array, coefficients: Coefficients, /, *parameters: Array) -> Array:
        """`value` unchanged, with derivatives of our own added to those it has.

        Args:
            value: `(...)`.
            coefficients: A function of the value and the parameters, which gives the derivative of the value with
                respect to every entry of the last axis of each parameter, or None for no derivative. It is called
                only where derivatives are taken. JAX differentiates it again for second derivatives, torch does not.
            parameters: `(..., K)` each, or `(..., 1)`.
        """

    def repeat(self, step: Step, given: tuple[Array, ...], state: tuple[Array, ...], most: int, /) -> tuple[Array, ...]:
        """Apply a step to the state, whose last part says where it is done, until all is, or `most` times.

        Args:
            step: `step(ops, given, *state)`, a function of a module: JAX compiles it once, as it knows it again.
            given: What stays the same.
            state: What changes, and where it is done.
            most: Most steps.
        """

    def in_parts(self, function: Callable[..., Array], value: Array, mixture: Any, /) -> Array:
        """`function(value, mixture)`, elementwise in the value, with bounded temporaries if the library makes any."""

    def matvec(self, matrix: Array, vector: Array, /) -> Array:
        """`(..., O, J)` times `(..., J)` to `(..., O)`; leading axes broadcast."""

    def shared_log_prob(self, value: Array, loc: Array, scale: Array, log_weights: Array, /) -> Array | None:
        """`ugmm_ppl.neuron.log_prob` by a kernel, where all values share one mixture and are many; else None."""

    def activation(self, x: Array, loc: Array, scale: Array, log_weights: Array, /) -> Array:
        """`ugmm_ppl.neuron.activation`, by the fastest kernel there is for these arrays (`ugmm_ppl.kernels`)."""


class NumpyOps:
    """`Ops` for NumPy arrays."""

    exp = staticmethod(np.exp)
    sqrt = staticmethod(np.sqrt)
    where = staticmethod(np.where)
    isfinite = staticmethod(np.isfinite)
    at_least = staticmethod(np.maximum)
    at_most = staticmethod(np.minimum)
    log1p = staticmethod(np.log1p)

    @staticmethod
    def log(a: Array) -> Array:
        """Natural logarithm; log 0 is -inf, without a warning."""
        with np.errstate(divide="ignore"):
            return np.log(a)

    @staticmethod
    def erfc(a: Array) -> Array:
        """Complementary error function, by SciPy."""
        from scipy.special import erfc

        return erfc(a)

    @staticmethod
    def ndtri(a: Array) -> Array:
        """Standard normal quantile function, by SciPy."""
        from scipy.special import ndtri

        return ndtri(a)

    @staticmethod
    def eps(a: Array) -> float:
        """Spacing at 1."""
        return float(np.finfo(np.result_type(a, np.float32)).eps)

    @staticmethod
    def widened(a: Array) -> Array:
        """float16 is the only half precision of NumPy's own."""
        return a.astype(np.float32) if a.dtype == np.float16 else a

    @staticmethod
    def narrowed(a: Array, like: Array, *others: Any) -> Array:
        """To float16, if that is the common dtype."""
        dtype = np.result_type(like, *(b for b in others if isinstance(b, np.ndarray)))
        return a.astype(dtype) if dtype == np.float16 else a

    @staticmethod
    def max(a: Array, axis: int) -> Array:
        """Maximum, axis kept."""
        return np.max(a, axis=axis, keepdims=True)

    @staticmethod
    def sum(a: Array, axis: int) -> Array:
        """Sum, axis removed."""
        return np.sum(a, axis=axis)

    @staticmethod
    def twice_phi(value: Array, loc: Array, scale: Array) -> Array:
        """As it is written."""
        return NumpyOps.erfc((loc - value[..., None]) * (math.sqrt(0.5) / scale))

    @staticmethod
    def dot(a: Array, b: Array) -> Array:
        """Sum of products."""
        return np.sum(a * b, -1)

    @staticmethod
    def mean(a: Array, axis: int) -> Array:
        """Mean, axis kept."""
        return np.mean(a, axis=axis, keepdims=True)

    @staticmethod
    def cumsum(a: Array) -> Array:
        """Running sum."""
        return np.cumsum(a, -1)

    @staticmethod
    def count(a: Array) -> Array:
        """Number of true entries."""
        return np.sum(a, -1)

    @staticmethod
    def sort(a: Array) -> Array:
        """Sorted, last axis."""
        return np.sort(a, -1)

    @staticmethod
    def concat(arrays: Sequence[Array]) -> Array:
        """Joined along the last axis."""
        leading = np.broadcast_shapes(*(np.shape(a)[:-1] for a in arrays))
        return np.concatenate([np.broadcast_to(a, (*leading, np.shape(a)[-1])) for a in arrays], -1)

    @staticmethod
    def join(arrays: Sequence[Array], axis: int) -> Array:
        """Joined along one axis."""
        return np.concatenate(arrays, axis)

    @staticmethod
    def constant(a: np.ndarray, like: Array) -> Array:
        """The same numbers."""
        return a.astype(like.dtype)

    @staticmethod
    def known(*arrays: Any) -> bool:
        """Always."""
        del arrays
        return True

    @staticmethod
    def stop(a: Array) -> Array:
        """The same: NumPy has no derivatives."""
        return a

    @staticmethod
    def attach(value: Array, coefficients: Coefficients, *parameters: Array) -> Array:
        """The value: NumPy has no derivatives."""
        del coefficients, parameters
        return value

    @staticmethod
    def repeat(step: Step, given: tuple[Array, ...], state: tuple[Array, ...], most: int) -> tuple[Array, ...]:
        """A loop."""
        with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
            for _ in range(most):
                if np.all(state[-1]):
                    break
                state = step(NUMPY, given, *state)
        return state

    @staticmethod
    def in_parts(function: Callable[..., Array], value: Array, mixture: Any) -> Array:
        """All at once."""
        return function(value, mixture)

    @staticmethod
    def matvec(matrix: Array, vector: Array) -> Array:
        """Matrix times vector over leading axes."""
        return np.einsum("...oj,...j->...o", matrix, vector)

    @staticmethod
    def shared_log_prob(value: Array, loc: Array, scale: Array, log_weights: Array) -> Array | None:
        """None: NumPy has no kernel."""
        del value, loc, scale, log_weights
        return None

    @staticmethod
    def activation(x: Array, loc: Array, scale: Array, log_weights: Array) -> Array:
        """Equation (2) by its definition."""
        from ugmm_ppl import neuron  # which is written in terms of this file

        return neuron.activation(NUMPY, x, loc, scale, log_weights)


NUMPY: Ops = NumpyOps()


def native(a: np.ndarray) -> np.ndarray:
    """The same numbers in a dtype that every library has: bytes in this machine's order, long doubles as float64."""
    return a.astype(np.float64) if a.dtype.char == "g" else a.astype(a.dtype.newbyteorder("="), copy=False)
