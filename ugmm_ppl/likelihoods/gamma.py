"""Gamma: y is positive, and its spread grows with its mean."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law, OfScipy
from ugmm_ppl.typing import PerRow, Values

MEAN = Parameter("mean", "log", least=1e-30)
CONCENTRATION = Parameter("concentration", "log", start=0.5, least=1e-6)


@likelihood
@dataclasses.dataclass(frozen=True)
class Gamma(Family):
    """p(y | outputs) = rate^c y^(c - 1) exp(-rate y) / Gamma(c), rate = c / mean, for y > 0.

    c is the concentration; the variance is mean^2 / c.

    Args:
        shared: Parameters that all rows share.
    """

    standardizes: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Mean and concentration."""
        return MEAN, CONCENTRATION

    def check(self, y: Any, rows: int) -> PerRow:
        """Positive numbers as float64 `(B,)`."""
        return checks.positive(y, rows)

    def units(self, y: PerRow, weights: PerRow | None) -> Standardizer:
        """The mean of y."""
        return Standardizer(np.zeros(()), np.average(y, weights=weights))

    def ppl(self, backend: Backend, of: Values) -> Any:
        """Gamma of the PPL."""
        return backend.dist.Gamma(of["concentration"], of["concentration"] / of["mean"])

    def law(self, of: Values) -> Law:
        """`scipy.stats.gamma`."""
        return OfScipy("gamma", a=of["concentration"], scale=of["mean"] / of["concentration"])
