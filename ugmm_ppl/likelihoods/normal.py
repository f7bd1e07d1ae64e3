"""Normal: y is a real number, around a location by a scale."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.distributions.mixture import log_ndtr
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law, OfScipy, normal_moments
from ugmm_ppl.nn.spaces import SCALE_FLOOR
from ugmm_ppl.typing import Array, Ops, PerRow, RowDraws, Values

LOC = Parameter("loc")
SCALE = Parameter("scale", "log", start=-0.5, least=SCALE_FLOOR)


@likelihood
@dataclasses.dataclass(frozen=True)
class Normal(Family):
    """p(y | outputs) = N(y; loc, scale^2), scale = exp(log_scale).

    Args:
        shared: Parameters that all rows share, e.g. `("scale",)` for the same noise everywhere.
    """

    standardizes: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Location and scale."""
        return LOC, SCALE

    def check(self, y: Any, rows: int) -> PerRow:
        """Finite targets as float64 `(B,)`."""
        return checks.targets(y, rows)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """Normal of the PPL."""
        return backend.dist.Normal(of["loc"], of["scale"])

    def log_tails(self, ops: Ops, of: Values, y: Array) -> tuple[Array, Array]:
        """log Phi(z) and log Phi(-z), exact however far out."""
        z = (y - of["loc"]) / of["scale"]
        return log_ndtr(ops, z), log_ndtr(ops, -z)

    def law(self, of: Values) -> Law:
        """`scipy.stats.norm`."""
        return NormalLaw(of["loc"], of["scale"])


class NormalLaw(OfScipy):
    """Normal numbers.

    Args:
        loc: The location.
        scale: The scale.
    """

    def __init__(self, loc: RowDraws, scale: RowDraws) -> None:
        self.loc, self.scale = loc, scale
        super().__init__("norm", loc=loc, scale=scale)

    def moments_between(self, low: RowDraws, high: RowDraws) -> tuple[RowDraws, RowDraws]:
        """In closed form."""
        return normal_moments(self.loc, self.scale, low, high)
