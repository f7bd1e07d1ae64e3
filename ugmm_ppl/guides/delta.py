"""The family "delta": a point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ugmm_ppl.guides.base import Block, family
from ugmm_ppl.typing import Array, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.guides.sites import LatentSite


@family("delta")
@dataclasses.dataclass(frozen=True, eq=False)
class DeltaBlock(Block):
    """A point theta.

    Its loss is minus the log joint density of values and data, so its minimum is the MAP.
    """

    sites: Mapping[str, LatentSite]
    factorised: ClassVar[bool] = True
    has_density: ClassVar[bool] = False

    @classmethod
    def make(
        cls, backend: Backend, sites: Mapping[str, LatentSite], pattern: str, *, init_scale: float, rank: int
    ) -> DeltaBlock:
        """One of these sites; nothing else matters."""
        del backend, pattern, init_scale, rank
        return cls(sites)

    def initial(self, start: Values) -> SiteValues:
        """The start values."""
        return {f"{name}:loc": start[name] for name in self.sites}

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """None."""
        return {}

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """The point."""
        del noise
        return {name: params[f"{name}:loc"] for name in self.sites}

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(the point, 0)."""
        return {name: (params[f"{name}:loc"], 0.0) for name in self.sites}

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """Zero by convention: a point has no density."""
        del params
        return 0.0

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Zero by convention."""
        del params, unconstrained
        return 0.0

    def culprits(self, gradients: Values) -> list[str]:
        """Sites with a gradient that is not finite."""
        return [name for name in self.sites if not np.isfinite(gradients[f"{name}:loc"]).all()]


class ModeBlock(DeltaBlock):
    """A point u, which stands for a density: its log |d theta / d u| belongs to the loss.

    Its loss is minus the log joint density of unconstrained values and data, so its minimum is the mode of the density
    that a Gaussian approximates.
    """

    has_density: ClassVar[bool] = True
