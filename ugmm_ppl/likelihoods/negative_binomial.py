"""NegativeBinomial: y is a count that varies more than a Poisson."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.counts import RATE, Counts
from ugmm_ppl.likelihoods.family import Parameter
from ugmm_ppl.likelihoods.gamma import CONCENTRATION
from ugmm_ppl.likelihoods.law import Law, OfScipy
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, RowDraws, Values

LARGE = 100.0
"""Concentration above which Stirling's series has 14 digits."""


@likelihood
@dataclasses.dataclass(frozen=True)
class NegativeBinomial(Counts):
    """p(y | outputs) = Gamma(y + c) / (Gamma(c) y!) (c / (c + m))^c (m / (c + m))^y, m = exposure rate.

    c is the concentration: a Poisson whose rate is Gamma distributed, with mean m and variance m + m^2 / c. Source:
    Hilbe 2011, NB2. The extra column `exposure` `(B,)` is 1 where it is not given.

    Args:
        shared: Parameters that all rows share, e.g. `("concentration",)`.
    """

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Rate and concentration."""
        return RATE, CONCENTRATION

    def ppl(self, backend: Backend, of: Values) -> Any:
        """A distribution by its density: NumPyro's GammaPoisson is exact to 1e-6 only."""
        return backend.dist.FamilyDistribution(self, backend, of)

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """As above."""
        return log_probability(backend.ops, self.expected(of), of["concentration"], y)

    def law(self, of: Values) -> Law:
        """`scipy.stats.nbinom`, with densities and tails that are accurate where the mean is small."""
        return NegativeBinomialLaw(self.expected(of), of["concentration"])

    def log_zero(self, ops: Ops, of: Values) -> Array:
        """-c log(1 + m / c)."""
        c = of["concentration"]
        return -c * ops.log1p(self.expected(of) / c)


def log_probability(ops: Ops, mean: Array, c: Array, y: Array) -> Array:
    """Log probability of counts y for means and concentrations."""
    rising = log_rising(ops, c, y)
    return rising - ops.lgamma(y + 1.0) - c * ops.log1p(mean / c) - y * ops.log1p(c / mean)


def log_rising(ops: Ops, c: Array, y: Array) -> Array:
    """log Gamma(c + y) / Gamma(c); of a large c by the difference of Stirling's series, whose terms do not cancel."""
    large = c > LARGE
    near, far = ops.where(large, 1.0, c), ops.where(large, c, LARGE)
    top = far + y
    series = (1.0 / top - 1.0 / far) / 12.0 - (1.0 / (top * top * top) - 1.0 / (far * far * far)) / 360.0
    stirling = y * ops.log(far) + (top - 0.5) * ops.log1p(y / far) - y + series
    return ops.where(large, stirling, ops.lgamma(near + y) - ops.lgamma(near))


class NegativeBinomialLaw(OfScipy):
    """Counts of a mean and a concentration.

    Args:
        mean: The mean.
        c: The concentration.
    """

    def __init__(self, mean: RowDraws, c: RowDraws) -> None:
        self.expected, self.c = mean, c
        super().__init__("nbinom", discrete=True, n=c, p=c / (c + mean))

    def log_prob(self, y: RowDraws) -> RowDraws:
        """As in `NegativeBinomial`."""
        counted = np.greater_equal(y, 0.0)
        return np.where(counted, log_probability(NUMPY, self.expected, self.c, np.where(counted, y, 0.0)), -np.inf)

    def cdf(self, y: RowDraws) -> RowDraws:
        """Incomplete beta function I(c, y + 1) at c / (c + mean)."""
        return self._beta(y, lambda k: (self.c, k, self.c / (self.c + self.expected)), 0.0)

    def survival(self, y: RowDraws) -> RowDraws:
        """I(y + 1, c) at mean / (c + mean)."""
        return self._beta(y, lambda k: (k, self.c, self.expected / (self.c + self.expected)), 1.0)

    @staticmethod
    def _beta(y: RowDraws, arguments: Callable[[RowDraws], tuple[RowDraws, ...]], below: float) -> RowDraws:
        betainc = require("scipy.special", "diagnostics", ("scipy",)).betainc
        k = np.floor(y) + 1.0
        return np.where(k > 0.0, betainc(*arguments(np.maximum(k, 1.0))), below)
