"""Arrays of three libraries, and the operations that the mathematics needs of them."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np

Array: TypeAlias = Any
"""An array of NumPy, torch or JAX; shapes are said in the docstrings with the letters of `docs/shapes.md`."""

Shape: TypeAlias = tuple[int, ...]
"""Sizes of axes."""

# Names of shapes, for readers: one array type of three libraries has no shape that a checker could see, and annotations
# that are checked as the program runs would cost time at every step. The letters are those of `docs/shapes.md`.

# Of any of the three libraries:

Inputs: TypeAlias = Array
"""`(..., B, K)`, or `(..., K)` of one example: what a layer or a model sees."""

Neurons: TypeAlias = Array
"""`(..., J, K)`: a parameter of J neurons with K components each."""

Activations: TypeAlias = Array
"""`(..., J)`, in nats."""

Components: TypeAlias = Array
"""`(..., K)`: a parameter of mixtures with K components each."""

Values: TypeAlias = Mapping[str, Array]
"""Site, or role of one layer -> value."""

# Of NumPy, about rows:

Rows: TypeAlias = np.ndarray
"""`(B, K)`, or `(..., B, K)` by draw: a table of numbers."""

Examples: TypeAlias = np.ndarray
"""`(B, *inputs)`: rows in the shape in which a layer takes them."""

PerRow: TypeAlias = np.ndarray
"""`(B,)`, or `(..., B)` by draw: a number of every row."""

RowArrays: TypeAlias = np.ndarray
"""`(N, ...)`: anything that has as many entries as the data have rows."""

RowDraws: TypeAlias = np.ndarray
"""`(..., B, ...)`: something of every row under every draw, `(C, S)` or `(S,)` of them."""

RowMatrices: TypeAlias = np.ndarray
"""`(B, O, O)`: a matrix over the outputs for every row."""

Outputs: TypeAlias = np.ndarray
"""`(..., B, O)`: outputs of a model, by draw."""

Probs: TypeAlias = np.ndarray
"""`(..., B, classes)`."""

# Of NumPy, about parameters and draws:

SiteValues: TypeAlias = dict[str, np.ndarray]
"""Site, role of a layer, or parameter of a guide -> value in its own shape."""

SiteDraws: TypeAlias = dict[str, np.ndarray]
"""Site -> draws `(S, ...)`, or `(C, S, ...)` by chain."""

Draws: TypeAlias = np.ndarray
"""`(C, S, ...)`, or `(S, ...)`: draws of one site."""

PerDraw: TypeAlias = np.ndarray
"""`(S,)`, or `(C, S)` by chain: a number of every draw."""

PerChain: TypeAlias = np.ndarray
"""`(C,)`: a number of every chain or restart."""

PerStep: TypeAlias = np.ndarray
"""`(T,)`, or `(C, T)` by restart: a number of every step."""

Readout: TypeAlias = np.ndarray
"""`(O, J)`: weights of a linear readout."""

Matrix: TypeAlias = np.ndarray
"""`(D, D)`: over all unconstrained parameters of some sites."""

# Of NumPy, about anything else that is counted:

PerOutput: TypeAlias = np.ndarray
"""`(O,)`."""

PerFeature: TypeAlias = np.ndarray
"""`(K,)`: a number of every column."""

PerLevel: TypeAlias = np.ndarray
"""`(Q,)`: levels of quantiles, or a number of each."""

PerBin: TypeAlias = np.ndarray
"""`(bins,)`: a number of every bar of a histogram or bin of a curve."""

Numbers: TypeAlias = np.ndarray
"""`(...,)` of whole numbers that say which: rows of a batch, features, nodes."""

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

    def expm1(self, a: Array, /) -> Array:
        """Elementwise exp(a) - 1."""

    def lgamma(self, a: Array, /) -> Array:
        """Elementwise log Gamma(a), for a > 0."""

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
