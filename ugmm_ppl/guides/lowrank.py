"""The family "lowrank": a factor of some rank and a diagonal."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.guides.base import entries, family, join, prefix_of, split
from ugmm_ppl.guides.joint import JointBlock
from ugmm_ppl.typing import Array, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.guides.sites import LatentSite


@family("lowrank")
@dataclasses.dataclass(frozen=True, eq=False)
class LowRankBlock(JointBlock):
    """q(u) = N(u; loc, F F^T + diag(exp(log_scale))^2) over all entries at once; F `(n, rank)`."""

    rank: int

    @classmethod
    def make(
        cls, backend: Backend, sites: Mapping[str, LatentSite], pattern: str, *, init_scale: float, rank: int
    ) -> LowRankBlock:
        """One of scale `init_scale` and a rank."""
        return cls(backend, sites, init_scale, prefix_of(pattern), rank)

    def initial(self, start: Values) -> SiteValues:
        """Centred at the start values; F small and not zero, so that its columns part from each other."""
        loc = join(self.sites, start)
        factor = np.random.default_rng(loc.size).normal(0.0, 0.1 * self.init_scale, (loc.size, self.rank))
        log_scale = np.full(loc.size, math.log(self.init_scale))
        return self._named({"loc": loc, "log_scale": log_scale, "factor": factor})

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One number per entry and one per column of F."""
        return self._named({"diagonal": (entries(self.sites),), "factor": (self.rank,)})

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """loc + scale noise + F noise'."""
        own, scale = self._own(params), self.backend.ops.exp(params[f"{self.prefix}log_scale"])
        diagonal, columns = noise[f"{self.prefix}diagonal"], noise[f"{self.prefix}factor"]
        return split(self.sites, own["loc"] + scale * diagonal + own["factor"] @ columns)

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Marginal moments, (loc, scale^2 + sum F^2)."""
        own = self._own(params)
        return self._marginals(own["loc"], self.backend.ops.exp(2.0 * own["log_scale"]) + (own["factor"] ** 2).sum(-1))

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """Entropy of the Gaussian by the determinant lemma."""
        return self._distribution(self._own(params)).entropy()

    def _distribution(self, own: Mapping[str, Array]) -> Any:
        diagonal = self.backend.ops.exp(2.0 * own["log_scale"])
        return self.backend.dist.LowRankMultivariateNormal(own["loc"], own["factor"], diagonal)
