"""The family "full": any covariance, by its Cholesky factor."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.guides.base import entries, family, join, prefix_of, split
from ugmm_ppl.guides.joint import JointBlock
from ugmm_ppl.neuron import HALF_LOG_2PI
from ugmm_ppl.typing import Array, Matrix, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.guides.sites import LatentSite


@family("full")
@dataclasses.dataclass(frozen=True, eq=False)
class FullBlock(JointBlock):
    """q(u) = N(u; loc, L L^T) over all entries at once, L = diag(exp(log_scale)) (1 + F / sqrt(n)).

    F `(n, n)` counts below its diagonal only. Its entries have no unit, and a step of Adam in all n of a row changes
    its variance by the square of the step, whatever n, so that one learning rate suits all parameters.
    """

    from_curvature: ClassVar[bool] = True

    @classmethod
    def make(
        cls, backend: Backend, sites: Mapping[str, LatentSite], pattern: str, *, init_scale: float, rank: int
    ) -> FullBlock:
        """One of scale `init_scale`, if its entries are not too many."""
        del rank
        checks.full_block(pattern, entries(sites), budgets.FULL_GUIDE)
        return cls(backend, sites, init_scale, prefix_of(pattern))

    def initial(self, start: Values) -> SiteValues:
        """Centred at the start values, independent entries of scale `init_scale`."""
        loc = join(self.sites, start)
        log_scale = np.full(loc.size, math.log(self.init_scale))
        return self._named({"loc": loc, "log_scale": log_scale, "factor": np.zeros((loc.size, loc.size))})

    def around(self, start: Values, precision: Matrix) -> SiteValues:
        """Centred at the start values, with the precision `(n, n)`."""
        backwards = np.linalg.cholesky(precision[::-1, ::-1])
        factor = np.tril(np.linalg.inv(backwards[::-1, ::-1]).T)  # precision = U U^T, so U^-T is the factor we want
        scale = np.diag(factor)
        own = {"loc": join(self.sites, start), "log_scale": np.log(scale)}
        return self._named(own | {"factor": math.sqrt(len(scale)) * np.tril(factor / scale[:, None], -1)})

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One number per entry."""
        return self._named({"entries": (entries(self.sites),)})

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """loc + L noise."""
        own, own_noise = self._own(params), noise[f"{self.prefix}entries"]
        mixed = own_noise + self._below(own) @ own_noise
        return split(self.sites, own["loc"] + self.backend.ops.exp(own["log_scale"]) * mixed)

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Marginal moments, (loc, scale^2 (1 + sum F^2 / n))."""
        own, exp = self._own(params), self.backend.ops.exp
        return self._marginals(own["loc"], exp(2.0 * own["log_scale"]) * (1.0 + (self._below(own) ** 2).sum(-1)))

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """sum log_scale + (1 + log 2 pi) / 2."""
        return (params[f"{self.prefix}log_scale"] + (0.5 + HALF_LOG_2PI)).sum()

    def _distribution(self, own: Mapping[str, Array]) -> Any:
        one = self.backend.array(np.eye(entries(self.sites)))
        scale_tril = self.backend.ops.exp(own["log_scale"])[:, None] * (one + self._below(own))
        return self.backend.dist.MultivariateNormal(own["loc"], scale_tril=scale_tril)

    def _below(self, own: Mapping[str, Array]) -> Array:
        return self.backend.below_diagonal(own["factor"]) / math.sqrt(entries(self.sites))
