"""LogNormal: y is positive, and its logarithm normal."""

from __future__ import annotations

import dataclasses
import math
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions.mixture import log_ndtr
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law, OfScipy
from ugmm_ppl.likelihoods.normal import LOC, SCALE
from ugmm_ppl.typing import Array, Ops, PerRow, Values


@likelihood
@dataclasses.dataclass(frozen=True)
class LogNormal(Family):
    """p(y | outputs) = N(log y; loc, scale^2) / y, for y > 0.

    Args:
        shared: Parameters that all rows share.
    """

    standardizes: ClassVar[bool] = True

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Location and scale of log y."""
        return LOC, SCALE

    def check(self, y: Any, rows: int) -> PerRow:
        """Positive numbers as float64 `(B,)`."""
        return checks.positive(y, rows)

    def units(self, y: PerRow, weights: PerRow | None) -> Standardizer:
        """The geometric mean: log y is around 0."""
        return Standardizer(np.zeros(()), np.exp(np.average(np.log(y), weights=weights)))

    def ppl(self, backend: Backend, of: Values) -> Any:
        """LogNormal of the PPL."""
        return backend.dist.LogNormal(of["loc"], of["scale"])

    def log_tails(self, ops: Ops, of: Values, y: Array) -> tuple[Array, Array]:
        """Those of log y; nothing lies below 0."""
        below = y <= 0.0
        z = (ops.log(ops.where(below, 1.0, y)) - of["loc"]) / of["scale"]
        return ops.where(below, -math.inf, log_ndtr(ops, z)), ops.where(below, 0.0, log_ndtr(ops, -z))

    def law(self, of: Values) -> Law:
        """`scipy.stats.lognorm`."""
        return OfScipy("lognorm", s=of["scale"], scale=np.exp(of["loc"]))
