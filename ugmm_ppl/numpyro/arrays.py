"""Random arrays of JAX."""

from collections.abc import Mapping

import jax
from jax import Array


def normals(key: Array, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Array]:
    """Standard normal numbers of the given shapes."""
    keys = jax.random.split(key, max(1, len(shapes)))
    return {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=False)}
