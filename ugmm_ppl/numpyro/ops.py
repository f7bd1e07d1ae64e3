"""`Ops` for JAX."""

import jax
import jax.numpy as jnp
from jax import Array

from ugmm_ppl.ops import Ops


class JaxOps:
    """The array operations of `ugmm_ppl.ops.Ops` for JAX arrays."""

    exp = staticmethod(jnp.exp)
    log = staticmethod(jnp.log)
    sqrt = staticmethod(jnp.sqrt)
    ndtr = staticmethod(jax.scipy.special.ndtr)
    isfinite = staticmethod(jnp.isfinite)

    @staticmethod
    def where(condition: Array, a: Array, b: Array) -> Array:
        """Elementwise choice."""
        return jnp.where(condition, a, b)

    @staticmethod
    def at_least(a: Array, floor: float) -> Array:
        """Maximum with a number."""
        return jnp.maximum(a, floor)

    @staticmethod
    def max(a: Array, axis: int) -> Array:
        """Maximum, axis kept, no gradient."""
        return jnp.max(jax.lax.stop_gradient(a), axis, keepdims=True)

    @staticmethod
    def sum(a: Array, axis: int) -> Array:
        """Sum, axis removed."""
        return jnp.sum(a, axis)

    @staticmethod
    def mean(a: Array, axis: int) -> Array:
        """Mean, axis kept."""
        return jnp.mean(a, axis, keepdims=True)

    @staticmethod
    def matvec(matrix: Array, vector: Array) -> Array:
        """Matrix times vector over leading axes."""
        return jnp.einsum("...oj,...j->...o", matrix, vector)

    @staticmethod
    def activation(x: Array, loc: Array | float, scale: Array, log_weights: Array) -> Array:
        """Equation (2) by the fastest kernel."""
        from ugmm_ppl.kernels import for_jax  # which falls back on the operations of this class

        return for_jax.activation(x, loc, scale, log_weights)


OPS: Ops = JaxOps()
