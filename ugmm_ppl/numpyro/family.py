"""Families of likelihoods as NumPyro distributions; their mathematics is in `ugmm_ppl.likelihoods`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro.distributions import Distribution, constraints

from ugmm_ppl.backends.base import Backend
from ugmm_ppl.likelihoods.family import Family, batch_shape


class FamilyDistribution(Distribution):
    """y of a family that NumPyro does not have: its density as the family writes it, samples of its law in NumPy.

    Args:
        family: The family.
        backend: The backend, for the distributions of others that a family is made of.
        of: Its parameters and columns by name, `(...)`, or `(..., size)` of vectors.
    """

    pytree_data_fields = ("of",)
    pytree_aux_fields = ("family", "backend")
    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(
        self, family: Family, backend: Backend, of: Mapping[str, Array], *, validate_args: bool | None = None
    ) -> None:
        self.family, self.backend, self.of = family, backend, dict(of)
        super().__init__(batch_shape(family, of), (), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Whole numbers from 0 on, or the real line."""
        return constraints.nonnegative_integer if self.family.discrete else constraints.real

    def log_prob(self, value: Array) -> Array:
        """The family's own log density."""
        return self.family.density(self.backend, self.of, jnp.asarray(value))

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draws of the law, from the numbers of the key."""
        shape, dtype = tuple(sample_shape) + self.batch_shape, jnp.result_type(float)

        def draw(seed: Any, of: Mapping[str, Any]) -> np.ndarray:
            rng = np.random.default_rng(np.asarray(seed).astype(np.uint32))
            drawn = self.family.law(_repeated(of, tuple(sample_shape))).sample(rng)
            return np.broadcast_to(drawn, shape).astype(dtype)

        typed = jnp.issubdtype(key.dtype, jax.dtypes.prng_key)
        seed = jax.random.key_data(key) if typed else key
        return jax.pure_callback(draw, jax.ShapeDtypeStruct(shape, dtype), seed, self.of, vmap_method="sequential")


def _repeated(of: Mapping[str, Any], sample_shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    """Parameters in float64, once for each draw."""
    return {name: np.broadcast_to(v, sample_shape + np.shape(v)).astype(np.float64) for name, v in of.items()}
