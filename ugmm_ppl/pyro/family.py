"""Families of likelihoods as Pyro distributions; their mathematics is in `ugmm_ppl.likelihoods`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyro.distributions.torch_distribution import TorchDistribution
from torch import Tensor
from torch.distributions import constraints

from ugmm_ppl.backends.base import Backend
from ugmm_ppl.likelihoods.family import Family, batch_shape
from ugmm_ppl.ops.torch_arrays import to_numpy


class FamilyDistribution(TorchDistribution):
    """y of a family that Pyro does not have: its density as the family writes it, samples of its law in NumPy.

    Args:
        family: The family.
        backend: The backend, for the distributions of others that a family is made of.
        of: Its parameters and columns by name, `(...)`, or `(..., size)` of vectors.
    """

    arg_constraints: dict[str, Any] = {}  # noqa: RUF012

    def __init__(
        self, family: Family, backend: Backend, of: Mapping[str, Tensor], *, validate_args: bool | None = None
    ) -> None:
        self.family, self.backend, self.of = family, backend, dict(of)
        super().__init__(torch.Size(batch_shape(family, of)), validate_args=validate_args)

    @property
    def support(self) -> Any:
        """Whole numbers from 0 on, or the real line."""
        return constraints.nonnegative_integer if self.family.discrete else constraints.real

    def expand(self, shape: Any, _instance: Any = None) -> FamilyDistribution:
        """The same for a larger batch."""
        vectors = {each.name for each in self.family.parameters if each.size is not None}
        of = {n: v.expand(*shape, *([v.shape[-1]] if n in vectors else [])) for n, v in self.of.items()}
        return FamilyDistribution(self.family, self.backend, of, validate_args=False)

    def log_prob(self, value: Tensor) -> Tensor:
        """The family's own log density."""
        return self.family.density(self.backend, self.of, value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draws of the law, from a seed of torch's generator."""
        rng = np.random.default_rng(int(torch.randint(2**63 - 1, ())))
        like = next(iter(self.of.values()))
        of = {
            name: np.broadcast_to(to_numpy(v.detach()), tuple(sample_shape) + tuple(v.shape)).astype(np.float64)
            for name, v in self.of.items()
        }
        shape = tuple(sample_shape) + tuple(self.batch_shape)
        drawn = np.broadcast_to(self.family.law(of).sample(rng), shape)
        return torch.tensor(drawn, dtype=like.dtype, device=like.device)
