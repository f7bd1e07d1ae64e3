"""Beta: y is a proportion, between 0 and 1 without the ends."""

from __future__ import annotations

import dataclasses
from typing import Any

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.gamma import CONCENTRATION
from ugmm_ppl.likelihoods.law import Law, OfScipy
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, PerRow, Values

LOG_ODDS = Parameter("log_odds")


@likelihood
@dataclasses.dataclass(frozen=True)
class Beta(Family):
    """p(y | outputs) = y^(a - 1) (1 - y)^(b - 1) / B(a, b), a = c mean, b = c (1 - mean), for 0 < y < 1.

    mean = 1 / (1 + exp(-log_odds)); the variance is mean (1 - mean) / (1 + c). Source: Ferrari and Cribari-Neto 2004.

    Args:
        shared: Parameters that all rows share.
    """

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Log odds of the mean, and concentration."""
        return LOG_ODDS, CONCENTRATION

    def check(self, y: Any, rows: int) -> PerRow:
        """Proportions as float64 `(B,)`."""
        return checks.proportions(y, rows)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """A distribution by its density."""
        return backend.dist.FamilyDistribution(self, backend, of)

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """That of the PPL's Beta; a proportion that has been rounded to 0 or 1 counts as the next one inside."""
        eps = backend.ops.eps(y)
        inside = backend.ops.at_most(backend.ops.at_least(y, 1e-37), 1.0 - eps)
        return backend.dist.Beta(*self._ends(backend.ops, of)).log_prob(inside)

    def law(self, of: Values) -> Law:
        """`scipy.stats.beta`."""
        a, b = self._ends(NUMPY, of)
        return OfScipy("beta", a=a, b=b)

    @staticmethod
    def _ends(ops: Ops, of: Values) -> tuple[Array, Array]:
        c, log_odds = of["concentration"], of["log_odds"]
        return c / (1.0 + ops.exp(-log_odds)), c / (1.0 + ops.exp(log_odds))
