"""`Ops` for JAX: the elementary operations, and equation (2) by the fastest kernel."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import Array

from ugmm_ppl.kernels import for_jax, library
from ugmm_ppl.ops.jax import JaxOps
from ugmm_ppl.ops.jax_arrays import symbolic
from ugmm_ppl.typing import Ops

KERNEL_ELEMENTS = 2**15
"""Values times components from which the native kernel is worth its call."""

KERNEL_ROWS = 2**16
"""Values of one call: a gradient makes copies of them, one for every component."""


class FusedJaxOps(JaxOps):
    """The array operations of `ugmm_ppl.typing.Ops` for JAX arrays."""

    @staticmethod
    def shared_log_prob(value: Array, loc: Array, scale: Array, log_weights: Array) -> Array | None:
        """The activation of one neuron whose inputs all are the value, by the native kernel, some rows at a time."""
        unknown = symbolic(value, loc)  # the kernel is none for an exported program
        few = unknown or loc.ndim > 1 or value.size * loc.shape[-1] < KERNEL_ELEMENTS or value.dtype != loc.dtype
        if few or library.choose("cpu", str(loc.dtype)) != "native":
            return None
        return _in_rows(for_jax.activation, value, loc, scale, log_weights)

    @staticmethod
    def activation(x: Array, loc: Array | float, scale: Array, log_weights: Array) -> Array:
        """Equation (2) by the fastest kernel."""
        return for_jax.activation(x, loc, scale, log_weights)


@functools.partial(jax.jit, static_argnums=0)
def _in_rows(activation: Callable[..., Array], value: Array, loc: Array, scale: Array, log_weights: Array) -> Array:
    """Log densities of many values of one mixture, `KERNEL_ROWS` at a time; compiled once."""
    part = jax.checkpoint(lambda y: activation(y[:, None], loc[None], scale[None], log_weights[None])[:, 0])
    rows = min(KERNEL_ROWS, value.size)
    count = -(-value.size // rows)
    chunks = jnp.pad(value.reshape(-1), (0, count * rows - value.size)).reshape(count, rows)
    return jax.lax.map(part, chunks).reshape(-1)[: value.size].reshape(value.shape)


OPS: Ops = FusedJaxOps()
