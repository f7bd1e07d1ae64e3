"""Distributions of y in NumPy, whose parameters are arrays: densities, distribution functions, moments, samples."""

from __future__ import annotations

import abc
from collections.abc import Callable
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.checks.machine import require
from ugmm_ppl.likelihoods.base import Likelihood
from ugmm_ppl.typing import Array, Ops, Outputs, RowDraws


class Law(abc.ABC):
    """A distribution of y for each entry of its parameters `(...)`; what it is asked for broadcasts with them."""

    discrete: bool

    @abc.abstractmethod
    def log_prob(self, y: RowDraws) -> RowDraws:
        """Log density or log probability."""

    @abc.abstractmethod
    def cdf(self, y: RowDraws) -> RowDraws:
        """p(Y <= y)."""

    @abc.abstractmethod
    def survival(self, y: RowDraws) -> RowDraws:
        """p(Y > y), accurate where it is small."""

    @abc.abstractmethod
    def quantile(self, level: RowDraws) -> RowDraws:
        """The smallest y with p(Y <= y) >= level."""

    def upper_quantile(self, level: RowDraws) -> RowDraws:
        """The y with p(Y > y) = level, accurate where it is small."""
        return self.quantile(1.0 - level)

    @property
    @abc.abstractmethod
    def mean(self) -> RowDraws:
        """Mean of y."""

    @property
    @abc.abstractmethod
    def variance(self) -> RowDraws:
        """Variance of y."""

    def moments_between(self, low: RowDraws, high: RowDraws) -> tuple[RowDraws, RowDraws]:
        """E[Y; low < Y < high] and E[Y^2; low < Y < high], without a division by the probability; not of all laws."""
        raise checks.no_tails(type(self).__name__)

    @abc.abstractmethod
    def sample(self, rng: np.random.Generator) -> RowDraws:
        """One y for each entry."""


REACH = 10.0
"""Standard deviations from the mean beyond which a quantile is not looked for at first."""

LARGEST = 2.0**53
"""Beyond it no further upper end is tried."""


def smallest(cdf: Callable[[RowDraws], RowDraws], level: RowDraws, mean: RowDraws, std: RowDraws) -> RowDraws:
    """The smallest count y with cdf(y) >= level, by bisection; inf where there is none.

    Args:
        cdf: p(Y <= y).
        level: The level.
        mean: Where to look for it.
        std: How far around.
    """
    level = np.asarray(level, dtype=np.float64)
    high = np.ceil(mean + REACH * std + REACH) + 0.0 * level
    while (short := (cdf(high) < level) & (high < LARGEST)).any():
        high = np.where(short, 2.0 * high, high)
    none, low = cdf(high) < level, np.full(high.shape, -1.0)
    middle = np.floor(0.5 * (low + high))
    while ((low < middle) & (middle < high)).any():  # beyond 2^53 neighbours are more than one apart
        enough = cdf(middle) >= level
        low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        middle = np.floor(0.5 * (low + high))
    return np.where(none, np.inf, high)


class Lawful(Likelihood):
    """A likelihood with a law in NumPy, of which predictions and the Fisher information are made."""

    @abc.abstractmethod
    def of(self, ops: Ops, outputs: Array) -> dict[str, Array]:
        """Parameters and extras by name, from complete outputs."""

    @abc.abstractmethod
    def given(self, outputs: Outputs) -> Law:
        """The law of y for complete outputs."""


class OfScipy(Law):
    """A distribution of `scipy.stats`.

    Args:
        name: Its name there.
        discrete: Whether y is a whole number.
        parameters: Its parameters, by their names there.
    """

    def __init__(self, name: str, *, discrete: bool = False, **parameters: Any) -> None:
        stats = require("scipy.stats", "diagnostics", ("scipy",))
        self.discrete = discrete
        self.shape = np.broadcast_shapes(*(np.shape(value) for value in parameters.values()))
        self.frozen = getattr(stats, name)(**parameters)

    def log_prob(self, y: RowDraws) -> RowDraws:
        """`logpmf` or `logpdf`."""
        return self.frozen.logpmf(y) if self.discrete else self.frozen.logpdf(y)

    def cdf(self, y: RowDraws) -> RowDraws:
        """`cdf`."""
        return self.frozen.cdf(y)

    def survival(self, y: RowDraws) -> RowDraws:
        """`sf`."""
        return self.frozen.sf(y)

    def quantile(self, level: RowDraws) -> RowDraws:
        """`ppf`, of counts by bisection: that of some in SciPy does not always find them."""
        if self.discrete:
            return smallest(self.cdf, level, self.mean, np.sqrt(self.variance))
        return self._inside(self.frozen.ppf(level))

    @property
    def mean(self) -> RowDraws:
        """`mean`."""
        return self.frozen.mean()

    @property
    def variance(self) -> RowDraws:
        """`var`."""
        return self.frozen.var()

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """`rvs`; real numbers inside the support, to whose ends some round."""
        drawn = np.asarray(self.frozen.rvs(size=self.shape, random_state=rng), dtype=np.float64)
        return self._inside(drawn)

    def upper_quantile(self, level: RowDraws) -> RowDraws:
        """`isf`."""
        return self._inside(self.frozen.isf(level))

    def _inside(self, y: RowDraws) -> RowDraws:
        if self.discrete:
            return y
        low, high = self.frozen.support()
        return np.clip(y, np.nextafter(low, np.inf), np.nextafter(high, -np.inf))


def normal_moments(loc: RowDraws, scale: RowDraws, low: RowDraws, high: RowDraws) -> tuple[RowDraws, RowDraws]:
    """`Law.moments_between` of a Normal.

        E[Y; a < z < b] = loc P + scale (phi(a) - phi(b)),
        E[Y^2; a < z < b] = (loc^2 + scale^2) P + scale ((loc + low) phi(a) - (loc + high) phi(b))

    a, b are the ends in standard units, P is the probability between them. Source: Johnson, Kotz and Balakrishnan
    1994, section 10.1.
    """
    a, b = (low - loc) / scale, (high - loc) / scale
    mass = normal_between(a, b)
    at_a, at_b = (np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) for z in (a, b))
    with np.errstate(invalid="ignore"):  # of infinite ends
        ends = [np.where(np.isfinite(end), (loc + end) * at, 0.0) for end, at in ((low, at_a), (high, at_b))]
    return loc * mass + scale * (at_a - at_b), (loc**2 + scale**2) * mass + scale * (ends[0] - ends[1])


def normal_between(a: RowDraws, b: RowDraws) -> RowDraws:
    """Phi(b) - Phi(a), from the side on which both are small."""
    ndtr = require("scipy.special", "diagnostics", ("scipy",)).ndtr
    upper = a > 0.0
    return ndtr(np.where(upper, -a, b)) - ndtr(np.where(upper, -b, a))
