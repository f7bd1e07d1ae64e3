"""The elementary operations for JAX; `ugmm_ppl.kernels.jax_ops` adds the fused ones."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from ugmm_ppl import neuron
from ugmm_ppl.ops.jax_arrays import to_array
from ugmm_ppl.typing import Coefficients, Ops, Step

HALF = (jnp.float16, jnp.bfloat16)


class JaxOps:
    """The array operations of `ugmm_ppl.typing.Ops` for JAX arrays."""

    exp = staticmethod(jnp.exp)
    log = staticmethod(jnp.log)
    sqrt = staticmethod(jnp.sqrt)
    erfc = staticmethod(jax.lax.erfc)
    isfinite = staticmethod(jnp.isfinite)
    log1p = staticmethod(jnp.log1p)
    expm1 = staticmethod(jnp.expm1)
    lgamma = staticmethod(jax.scipy.special.gammaln)
    ndtri = staticmethod(jax.scipy.special.ndtri)
    stop = staticmethod(jax.lax.stop_gradient)

    @staticmethod
    def where(condition: Array, a: Array, b: Array) -> Array:
        """Elementwise choice."""
        return jnp.where(condition, a, b)

    @staticmethod
    def at_least(a: Array, floor: float) -> Array:
        """Maximum with a number."""
        return jnp.maximum(a, floor)

    @staticmethod
    def at_most(a: Array, ceiling: float) -> Array:
        """Minimum with a number."""
        return jnp.minimum(a, ceiling)

    @staticmethod
    def eps(a: Array) -> float:
        """Spacing at 1."""
        return float(jnp.finfo(a.dtype).eps)

    @staticmethod
    def widened(a: Array) -> Array:
        """float32 for half precision."""
        return a.astype("float32") if a.dtype in HALF else a

    @staticmethod
    def narrowed(a: Array, like: Array, *others: Any) -> Array:
        """By JAX's rules of promotion."""
        dtype = jnp.result_type(like, *(b for b in others if isinstance(b, Array)))
        return a.astype(dtype) if dtype in HALF else a

    @staticmethod
    def max(a: Array, axis: int) -> Array:
        """Maximum, axis kept, no gradient."""
        return jnp.max(jax.lax.stop_gradient(a), axis, keepdims=True)

    @staticmethod
    def sum(a: Array, axis: int) -> Array:
        """Sum, axis removed."""
        return jnp.sum(a, axis)

    @staticmethod
    def twice_phi(value: Array, loc: Array, scale: Array) -> Array:
        """As it is written."""
        return jax.lax.erfc((loc - value[..., None]) * (math.sqrt(0.5) / scale))

    @staticmethod
    def dot(a: Array, b: Array) -> Array:
        """Sum of products."""
        return jnp.sum(a * b, -1)

    @staticmethod
    def mean(a: Array, axis: int) -> Array:
        """Mean, axis kept."""
        return jnp.mean(a, axis, keepdims=True)

    @staticmethod
    def cumsum(a: Array) -> Array:
        """Running sum."""
        return jnp.cumsum(a, -1)

    @staticmethod
    def count(a: Array) -> Array:
        """Number of true entries."""
        return jnp.sum(a, -1)

    @staticmethod
    def sort(a: Array) -> Array:
        """Sorted, last axis."""
        return jnp.sort(a, -1)

    @staticmethod
    def concat(arrays: Sequence[Array]) -> Array:
        """Joined along the last axis."""
        leading = jnp.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        return jnp.concatenate([jnp.broadcast_to(a, (*leading, a.shape[-1])) for a in arrays], -1)

    @staticmethod
    def join(arrays: Sequence[Array], axis: int) -> Array:
        """Joined along one axis."""
        return jnp.concatenate(arrays, axis)

    @staticmethod
    def constant(a: Any, like: Array) -> Array:
        """The same numbers; JAX moves them where they are needed."""
        return to_array(a, like.dtype)

    @staticmethod
    def known(*arrays: Any) -> bool:
        """Not where `jax.jit`, `jax.vmap` or `jax.grad` trace."""
        return not any(isinstance(a, jax.core.Tracer) for a in arrays)

    @staticmethod
    def attach(value: Array, coefficients: Coefficients, *parameters: Array) -> Array:
        """By a rule for tangents, from which JAX makes all other modes; without differentiation it costs nothing."""

        @jax.custom_jvp
        def same(value: Array, *parameters: Array) -> Array:
            del parameters
            return value

        @same.defjvp
        def rule(primals: Sequence[Array], tangents: Sequence[Array]) -> tuple[Array, Array]:
            value, *parameters = map(jnp.asarray, primals)  # which numbers of Python are not yet
            out, tangent = same(value, *parameters), tangents[0]
            for coefficient, t in zip(coefficients(out, *parameters), tangents[1:], strict=True):
                if coefficient is not None:
                    tangent = tangent + jnp.sum(coefficient * t, -1)
            return out, tangent

        return same(value, *parameters)

    @staticmethod
    @functools.partial(jax.jit, static_argnames=("step", "most"))  # compiled once for every step
    def repeat(step: Step, given: tuple[Array, ...], state: tuple[Array, ...], most: int) -> tuple[Array, ...]:
        """A loop that XLA ends when all is done."""
        go_on = lambda counted: ~jnp.all(counted[1][-1]) & (counted[0] < most)  # noqa: E731
        return jax.lax.while_loop(go_on, lambda counted: (counted[0] + 1, step(OPS, given, *counted[1])), (0, state))[1]

    @staticmethod
    def in_parts(function: Callable[..., Array], value: Array, mixture: Any) -> Array:
        """All at once: XLA fuses the temporaries away."""
        return function(value, mixture)

    @staticmethod
    def matvec(matrix: Array, vector: Array) -> Array:
        """Matrix times vector over leading axes."""
        return jnp.einsum("...oj,...j->...o", matrix, vector)

    @staticmethod
    def shared_log_prob(value: Array, loc: Array, scale: Array, log_weights: Array) -> Array | None:
        """None: the kernels are above this."""
        del value, loc, scale, log_weights
        return None

    @staticmethod
    def activation(x: Array, loc: Array | float, scale: Array, log_weights: Array) -> Array:
        """Equation (2) by its definition."""
        return neuron.activation(OPS, x, loc, scale, log_weights)


OPS: Ops = JaxOps()
