"""StudentT: y is a real number, now and then far from its location."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.distributions.described import dist
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law, OfScipy
from ugmm_ppl.likelihoods.normal import LOC, SCALE
from ugmm_ppl.typing import PerRow, Values

DF = Parameter("df", "log", start=1.5, prior=dist.Normal(2.0, 1.0), least=1e-3)


@likelihood
@dataclasses.dataclass(frozen=True)
class StudentT(Family):
    """p(y | outputs) = Gamma((df + 1) / 2) / (Gamma(df / 2) sqrt(df pi) scale) (1 + z^2 / df)^(-(df + 1) / 2).

    z = (y - loc) / scale. The mean is finite for df > 1, the standard deviation for df > 2.

    Args:
        shared: Parameters that all rows share; by default the degrees of freedom.
    """

    shared: tuple[str, ...] = ("df",)

    standardizes: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Location, scale and degrees of freedom."""
        return LOC, SCALE, DF

    def check(self, y: Any, rows: int) -> PerRow:
        """Finite targets as float64 `(B,)`."""
        return checks.targets(y, rows)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """StudentT of the PPL."""
        return backend.dist.StudentT(of["df"], of["loc"], of["scale"])

    def law(self, of: Values) -> Law:
        """`scipy.stats.t`."""
        return OfScipy("t", df=of["df"], loc=of["loc"], scale=of["scale"])
