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
from ugmm_ppl.likelihoods.law import Law, OfScipy, normal_between
from ugmm_ppl.likelihoods.normal import LOC, SCALE
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, PerRow, RowDraws, Values

LARGEST_LOG_Y = 600.0
"""Its exponential, and the reciprocal, are numbers in any unit."""


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
        """By the Normal of log y."""
        return LogNormalLaw(of["loc"], of["scale"])


class LogNormalLaw(Law):
    """Positive numbers whose logarithm is normal; no exponential of the location is taken, which may be large.

    Args:
        loc: Location of log y.
        scale: Scale of log y.
    """

    discrete = False

    def __init__(self, loc: RowDraws, scale: RowDraws) -> None:
        self.loc, self.scale, self.log = loc, scale, OfScipy("norm", loc=loc, scale=scale)

    def log_prob(self, y: RowDraws) -> RowDraws:
        """log N(log y; loc, scale^2) - log y."""
        positive = np.greater(y, 0.0)
        log_y = np.log(np.where(positive, y, 1.0))
        return np.where(positive, self.log.log_prob(log_y) - log_y, -np.inf)

    def cdf(self, y: RowDraws) -> RowDraws:
        """That of log y."""
        return self.log.cdf(NUMPY.log(np.maximum(y, 0.0)))

    def survival(self, y: RowDraws) -> RowDraws:
        """That of log y."""
        return self.log.survival(NUMPY.log(np.maximum(y, 0.0)))

    def quantile(self, level: RowDraws) -> RowDraws:
        """Exponential of that of log y."""
        return _exp(self.log.quantile(level))

    def upper_quantile(self, level: RowDraws) -> RowDraws:
        """Exponential of that of log y."""
        return _exp(self.log.upper_quantile(level))

    @property
    def mean(self) -> RowDraws:
        """exp(loc + scale^2 / 2)."""
        return _exp(self.loc + 0.5 * self.scale**2)

    @property
    def variance(self) -> RowDraws:
        """(exp(scale^2) - 1) mean^2."""
        with np.errstate(over="ignore"):
            return np.expm1(self.scale**2) * self.mean**2

    def moments_between(self, low: RowDraws, high: RowDraws) -> tuple[RowDraws, RowDraws]:
        """E[Y^k; ...] = exp(k loc + (k scale)^2 / 2) P(z - k scale between the ends), k = 1, 2."""
        a, b = ((NUMPY.log(np.maximum(end, 0.0)) - self.loc) / self.scale for end in (low, high))
        first, second = (
            _exp(k * self.loc + 0.5 * (k * self.scale) ** 2) * normal_between(a - k * self.scale, b - k * self.scale)
            for k in (1.0, 2.0)
        )
        return first, second

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """Exponential of log y."""
        return _exp(self.log.sample(rng))


def _exp(a: RowDraws) -> RowDraws:
    """The exponential, between 1e-260 and 1e260, so that it is positive and finite in any unit."""
    return np.exp(np.clip(a, -LARGEST_LOG_Y, LARGEST_LOG_Y))
