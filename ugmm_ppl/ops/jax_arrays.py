"""Arrays of JAX: from NumPy, and random ones."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export

from ugmm_ppl.checks.basic import native


def to_array(value: Any, dtype: Any = None) -> Array:
    """`jnp.asarray`, which compiles a program for every new shape of a NumPy array; this copies it."""
    if isinstance(value, np.ndarray | np.generic):
        return jax.device_put(np.array(native(np.asarray(value)), dtype))  # a copy, as JAX may go on using the memory
    return jnp.asarray(value, dtype)


def symbolic(*arrays: Array) -> bool:
    """Whether an axis has a size that is not known yet: in a function that `jax.export` takes for any of them."""
    return any(export.is_symbolic_dim(size) for a in arrays for size in a.shape)


def normals(key: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Standard normal numbers of the given shapes."""
    keys = jax.random.split(key, max(1, len(shapes)))
    return {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=False)}
