"""What the families share that correlate all their entries: one vector, and parameters named after the pattern."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.guides.base import Block, split
from ugmm_ppl.typing import Array, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.guides.sites import LatentSite


@dataclasses.dataclass(frozen=True, eq=False)
class JointBlock(Block):
    """What the blocks that correlate all their entries share: one vector of n entries."""

    backend: Backend
    sites: Mapping[str, LatentSite]
    init_scale: float
    prefix: str

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Log density of the Gaussian."""
        flat = self.backend.concatenate([unconstrained[name].reshape(-1) for name in self.sites])
        return self._distribution(self._own(params)).log_prob(flat)

    def culprits(self, gradients: Values) -> list[str]:
        """Sites of which some entry's gradient is not finite."""
        rows = sum(g.reshape(len(g), -1).sum(1) for g in self._own(gradients).values())
        return [name for name, row in split(self.sites, rows).items() if not np.isfinite(row).all()]

    @abc.abstractmethod
    def _distribution(self, own: Mapping[str, Array]) -> Any:
        """The PPL's distribution of all entries, given the parameters without the prefix."""

    def _named(self, own: Mapping[str, Any]) -> dict[str, Any]:
        return {self.prefix + name: value for name, value in own.items()}

    def _own(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """Its parameters without the prefix."""
        return {name: params[self.prefix + name] for name in ("loc", "log_scale", "factor")}

    def _marginals(self, loc: Array, variance: Array) -> dict[str, tuple[Array, Array]]:
        locs, variances = split(self.sites, loc), split(self.sites, variance)
        return {name: (locs[name], variances[name]) for name in self.sites}
