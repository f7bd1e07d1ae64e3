"""The array operations the mathematics needs, and NumPy's version of them.

`neuron.py` and `network.py` are written once and are handed one of three implementations of `Ops`: `NUMPY` here,
`ugmm_ppl.pyro.ops.OPS` for torch and `ugmm_ppl.numpyro.ops.OPS` for JAX.
"""

from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of NumPy, torch or JAX; shapes are said in the docstrings with the letters of `docs/shapes.md`."""


class Ops(Protocol):
    """Array operations with one name and one meaning in every library; `axis` is always negative."""

    def exp(self, a: Array, /) -> Array:
        """Elementwise exponential."""

    def log(self, a: Array, /) -> Array:
        """Elementwise natural logarithm."""

    def sqrt(self, a: Array, /) -> Array:
        """Elementwise square root."""

    def ndtr(self, a: Array, /) -> Array:
        """Elementwise cumulative distribution function of the standard normal."""

    def where(self, condition: Array, a: Array, b: Array, /) -> Array:
        """Elementwise choice; `a` and `b` may be plain numbers."""

    def isfinite(self, a: Array, /) -> Array:
        """Elementwise test: neither NaN nor infinite."""

    def at_least(self, a: Array, floor: float, /) -> Array:
        """Elementwise maximum of `a` and a plain number."""

    def max(self, a: Array, axis: int, /) -> Array:
        """Maximum over one axis, which is kept with size 1. Gradients do not pass."""

    def sum(self, a: Array, axis: int, /) -> Array:
        """Sum over one axis, which is removed."""

    def mean(self, a: Array, axis: int, /) -> Array:
        """Mean over one axis, which is kept with size 1."""

    def matvec(self, matrix: Array, vector: Array, /) -> Array:
        """`(..., O, J)` times `(..., J)` to `(..., O)`; leading axes broadcast."""

    def activation(self, x: Array, loc: Array, scale: Array, log_weights: Array, /) -> Array:
        """`ugmm_ppl.neuron.activation`, by the fastest kernel there is for these arrays (`ugmm_ppl.kernels`)."""


class NumpyOps:
    """`Ops` for NumPy arrays."""

    exp = staticmethod(np.exp)
    sqrt = staticmethod(np.sqrt)
    where = staticmethod(np.where)
    isfinite = staticmethod(np.isfinite)
    at_least = staticmethod(np.maximum)

    @staticmethod
    def log(a: Array) -> Array:
        """Natural logarithm; log 0 is -inf, without a warning."""
        with np.errstate(divide="ignore"):
            return np.log(a)

    @staticmethod
    def ndtr(a: Array) -> Array:
        """Standard normal distribution function, by SciPy."""
        from scipy.special import ndtr

        return ndtr(a)

    @staticmethod
    def max(a: Array, axis: int) -> Array:
        """Maximum, axis kept."""
        return np.max(a, axis=axis, keepdims=True)

    @staticmethod
    def sum(a: Array, axis: int) -> Array:
        """Sum, axis removed."""
        return np.sum(a, axis=axis)

    @staticmethod
    def mean(a: Array, axis: int) -> Array:
        """Mean, axis kept."""
        return np.mean(a, axis=axis, keepdims=True)

    @staticmethod
    def matvec(matrix: Array, vector: Array) -> Array:
        """Matrix times vector over leading axes."""
        return np.einsum("...oj,...j->...o", matrix, vector)

    @staticmethod
    def activation(x: Array, loc: Array, scale: Array, log_weights: Array) -> Array:
        """Equation (2) by its definition."""
        from ugmm_ppl import neuron  # which is written in terms of this file

        return neuron.activation(NUMPY, x, loc, scale, log_weights)


NUMPY: Ops = NumpyOps()
