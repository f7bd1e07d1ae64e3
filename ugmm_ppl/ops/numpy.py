"""The array operations for NumPy.

`ugmm_ppl.kernels.torch_ops.OPS` are those for torch, `ugmm_ppl.kernels.jax_ops.OPS` those for JAX.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ugmm_ppl import neuron
from ugmm_ppl.typing import Array, Coefficients, Ops, Step


class NumpyOps:
    """`Ops` for NumPy arrays."""

    exp = staticmethod(np.exp)
    sqrt = staticmethod(np.sqrt)
    where = staticmethod(np.where)
    isfinite = staticmethod(np.isfinite)
    at_least = staticmethod(np.maximum)
    at_most = staticmethod(np.minimum)
    log1p = staticmethod(np.log1p)
    expm1 = staticmethod(np.expm1)

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
    def lgamma(a: Array) -> Array:
        """Logarithm of the gamma function, by SciPy."""
        from scipy.special import gammaln

        return gammaln(a)

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
        return neuron.activation(NUMPY, x, loc, scale, log_weights)


NUMPY: Ops = NumpyOps()
