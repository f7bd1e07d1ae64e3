"""Truncated: rows whose outcome lay outside of limits were never seen."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Mapping
from functools import cached_property

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.likelihoods.base import Extra, extra, likelihood
from ugmm_ppl.likelihoods.composite import Limited
from ugmm_ppl.likelihoods.law import Law
from ugmm_ppl.likelihoods.links import log_between
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, PerRow, RowDraws, Values

LOWER = extra(
    "lower_limit", -math.inf, checks.limits, "Outcomes below it were not seen `(N,)`, for `likelihoods.Truncated`.",
    of_target=True,
)  # fmt: skip
UPPER = extra("upper_limit", math.inf, checks.limits, "Outcomes above it were not seen `(N,)`.", of_target=True)

SLACK = 1e-6
"""How far beyond a limit y may lie, in the size of the limit: both have been rounded to float32."""

LEAST_MASS = 1e-290
"""Between limits with less of it, 36 scales away, all outcomes count as the nearer limit."""

FLAT = (1e-7, 1e-4)
"""Shares of a tail below which a base is so wide that its density between the limits is taken as flat: for the
distribution function, and for moments, which lose more digits."""


@likelihood
@dataclasses.dataclass(frozen=True)
class Truncated(Limited):
    """p(y) = p_base(y) / (F_base(high) - F_base(low)) for low <= y <= high.

    Predictions are of outcomes within the limits.

    Args:
        base: A likelihood with exact tails: Mixture, Normal or LogNormal.
        low: Lower limit in the units of y; rows may bring along their own as the extra column `lower_limit`.
        high: Upper limit; rows may bring along `upper_limit`.
        shared: Parameters that all rows share, besides those that the base shares.

    Raises:
        ValueError: Limits in the wrong order.
    """

    low: float = -math.inf
    high: float = math.inf

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        checks.settle(self, **checks.limit_order(self.low, self.high))

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Those of the base, and the limits."""
        return *self.base.extras, LOWER._replace(neutral=self.low), UPPER._replace(neutral=self.high)

    def check_extras(self, y: PerRow, extras: Mapping[str, PerRow]) -> None:
        """Refuse outcomes outside of their limits."""
        super().check_extras(y, extras)
        if extras:
            checks.within_limits(y, extras["lower_limit"], extras["upper_limit"])

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """As above."""

        def density(at: Array) -> Array:
            return self.base.density(backend, of, at)

        return density(y) - self.log_mass(backend.ops, of, density)

    def log_mass(self, ops: Ops, of: Values, density: Callable[[Array], Array]) -> Array:
        """Log of the probability that the base gives to what lies between the limits."""
        tails, ends = functools.partial(self.base.log_tails, ops, of), (of["lower_limit"], of["upper_limit"])
        return log_between(ops, tails, density, *ends)

    def law(self, of: Values) -> Law:
        """By that of the base."""
        base = self.base.law(of)
        log_mass = self.log_mass(NUMPY, of, base.log_prob)
        return TruncatedLaw(base, log_mass, of["lower_limit"], of["upper_limit"])

    def described(self) -> dict[str, object]:
        """With the limits, which JSON has as text where they are infinite."""
        return super().described() | {"low": str(self.low), "high": str(self.high)}


class TruncatedLaw(Law):
    """Outcomes between limits.

    Args:
        base: The law without limits.
        log_mass: Log probability of what lies between them.
        low: Lower limits.
        high: Upper limits.
    """

    discrete = False

    def __init__(self, base: Law, log_mass: RowDraws, low: RowDraws, high: RowDraws) -> None:
        self.base, self.log_mass, self.low, self.high = base, log_mass, low, high
        self.mass = np.exp(log_mass)
        self.below, self.above = base.cdf(low), base.survival(high)
        self.upper = self.below > 0.5  # then from above, where probabilities are small
        self.lost = ~(self.mass > LEAST_MASS)
        self.nearer = np.where(self.upper, low, high)
        largest = np.where(self.upper, base.survival(low), base.cdf(high))
        self.flat, self.nearly_flat = (
            np.isfinite(low) & np.isfinite(high) & ~self.lost & (self.mass < share * largest) for share in FLAT
        )

    def log_prob(self, y: RowDraws) -> RowDraws:
        """As in `Truncated`."""
        low, high = (end + side * SLACK * (1.0 + np.abs(end)) for end, side in ((self.low, -1.0), (self.high, 1.0)))
        inside = np.greater_equal(y, low) & np.less_equal(y, high)
        return np.where(inside, self.base.log_prob(y) - self.log_mass, -np.inf)

    def cdf(self, y: RowDraws) -> RowDraws:
        """(F(y) - F(low)) / mass."""
        inside = np.clip(y, self.low, self.high)
        from_above = self.base.survival(self.low) - self.base.survival(inside)
        part = np.where(self.upper, from_above, self.base.cdf(inside) - self.below)
        return np.where(self.flat, self._place(y), self._share(part, y >= self.nearer))

    def survival(self, y: RowDraws) -> RowDraws:
        """(S(y) - S(high)) / mass."""
        inside = np.clip(y, self.low, self.high)
        from_below = self.base.cdf(self.high) - self.base.cdf(inside)
        part = np.where(self.upper, self.base.survival(inside) - self.above, from_below)
        return np.where(self.flat, 1.0 - self._place(y), self._share(part, y < self.nearer))

    def _share(self, part: RowDraws, at_limit: RowDraws) -> RowDraws:
        """A part of the mass; where that is lost, all of it lies at the nearer limit."""
        return np.where(self.lost, at_limit, np.clip(part / np.where(self.lost, 1.0, self.mass), 0.0, 1.0))

    def _place(self, y: RowDraws) -> RowDraws:
        """How far between the limits y lies, where the density there is flat."""
        low, width = self._ends(self.flat)
        return np.clip((y - low) / width, 0.0, 1.0)

    def _ends(self, some: np.ndarray) -> tuple[RowDraws, RowDraws]:
        """Lower limit and distance of the upper one for some entries, 0 and 1 for the others, whose may be infinite."""
        low = np.where(some, self.low, 0.0)
        return low, np.where(some, self.high, 1.0) - low

    def quantile(self, level: RowDraws) -> RowDraws:
        """That of the base, of the level between those of the limits."""
        from_below = self.base.quantile(np.where(self.upper, 0.5, self.below + level * self.mass))
        from_above = self.base.upper_quantile(np.where(self.upper, self.above + (1.0 - level) * self.mass, 0.5))
        found = np.clip(np.where(self.upper, from_above, from_below), self.low, self.high)
        found = np.where(self.lost, self.nearer, found)
        low, width = self._ends(self.flat)
        return np.where(self.flat, low + level * width, found)

    @cached_property
    def _moments(self) -> tuple[RowDraws, RowDraws]:
        """First and second moment; between limits so far out that they are lost, those of the nearer limit."""
        mass = np.where(self.lost, 1.0, self.mass)
        first, second = (each / mass for each in self.base.moments_between(self.low, self.high))
        first = np.where(self.lost, self.nearer, np.clip(first, self.low, self.high))
        second = np.where(self.lost, first**2, second)
        low, width = self._ends(self.nearly_flat)
        middle = low + 0.5 * width
        first = np.where(self.nearly_flat, middle, first)
        return first, np.where(self.nearly_flat, middle**2 + width**2 / 12.0, second)

    @property
    def mean(self) -> RowDraws:
        """E[Y; low < Y < high] / mass."""
        return self._moments[0]

    @property
    def variance(self) -> RowDraws:
        """Second moment less the square of the mean."""
        return np.maximum(self._moments[1] - self._moments[0] ** 2, 0.0)

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """By quantiles of uniform numbers."""
        return self.quantile(rng.uniform(size=np.shape(self.mass)))
