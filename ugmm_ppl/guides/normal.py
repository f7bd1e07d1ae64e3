"""The family "normal": mean field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from ugmm_ppl.guides.base import Block, family, normal_log_prob, split
from ugmm_ppl.neuron import HALF_LOG_2PI
from ugmm_ppl.typing import Array, Matrix, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.guides.sites import LatentSite


@family("normal")
@dataclasses.dataclass(frozen=True, eq=False)
class NormalBlock(Block):
    """Mean field: q(u) = prod N(u; loc, exp(log_scale)^2), independent over all entries."""

    backend: Backend
    sites: Mapping[str, LatentSite]
    init_scale: float
    factorised: ClassVar[bool] = True
    from_curvature: ClassVar[bool] = True

    @classmethod
    def make(
        cls, backend: Backend, sites: Mapping[str, LatentSite], pattern: str, *, init_scale: float, rank: int
    ) -> NormalBlock:
        """One of scale `init_scale`."""
        del pattern, rank
        return cls(backend, sites, init_scale)

    def initial(self, start: Values) -> SiteValues:
        """Centred at the start values, with scale `init_scale`."""
        scales = {
            f"{n}:log_scale": np.full(s.unconstrained_shape, math.log(self.init_scale)) for n, s in self.sites.items()
        }
        return {f"{name}:loc": start[name] for name in self.sites} | scales

    def around(self, start: Values, precision: Matrix) -> SiteValues:
        """Centred at the start values, with the precisions `(n,)` of all entries."""
        log_scales = split(self.sites, -0.5 * np.log(precision))
        return self.initial(start) | {f"{name}:log_scale": value for name, value in log_scales.items()}

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One number per entry."""
        return {name: site.unconstrained_shape for name, site in self.sites.items()}

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """loc + scale noise."""
        exp = self.backend.ops.exp
        return {n: params[f"{n}:loc"] + exp(params[f"{n}:log_scale"]) * noise[n] for n in self.sites}

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(loc, scale^2)."""
        exp = self.backend.ops.exp
        return {n: (params[f"{n}:loc"], exp(2.0 * params[f"{n}:log_scale"])) for n in self.sites}

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """sum log_scale + (1 + log 2 pi) / 2."""
        return sum((params[f"{n}:log_scale"] + (0.5 + HALF_LOG_2PI)).sum() for n in self.sites)

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Sum of normal log densities."""
        exp = self.backend.ops.exp
        return sum(
            normal_log_prob(self.backend.ops, unconstrained[n], params[f"{n}:loc"], exp(params[f"{n}:log_scale"])).sum()
            for n in self.sites
        )

    def culprits(self, gradients: Values) -> list[str]:
        """Sites of which some parameter's gradient is not finite."""
        return [
            n for n in self.sites if not all(np.isfinite(gradients[f"{n}:{p}"]).all() for p in ("loc", "log_scale"))
        ]
