"""Hurdle: zeros have a probability of their own, and what is above zero a distribution of its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.composite import Composite
from ugmm_ppl.likelihoods.law import Law
from ugmm_ppl.likelihoods.links import log1mexp, log_sigmoid
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, RowDraws, Values

ATTEMPTS = 20
"""Draws from the base, zeros among them, before the rest are made by quantiles."""


@likelihood
@dataclasses.dataclass(frozen=True)
class Hurdle(Composite):
    """p(0) = z, p(y) = (1 - z) p_base(y) / (1 - p_base(0)) for y > 0; z = 1 / (1 + exp(-zero_log_odds)).

    Zeros may be more or fewer than the base has. Source: Mullahy 1986.

    Args:
        base: A likelihood of counts.
        shared: Parameters that all rows share, besides those that the base shares.
    """

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        checks.base_of_counts("Hurdle", self.base)

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """As above."""
        ops, zero = backend.ops, y == 0.0
        above = self.base.density(backend, of, ops.where(zero, 1.0, y)) - log1mexp(ops, self.base.log_zero(ops, of))
        log_odds = of["zero_log_odds"]
        return ops.where(zero, log_sigmoid(ops, log_odds), log_sigmoid(ops, -log_odds) + above)

    def law(self, of: Values) -> Law:
        """By that of the base."""
        shape = np.broadcast_shapes(*(np.shape(value) for value in of.values()))

        def part(some: np.ndarray) -> Law:
            return self.base.law({name: np.broadcast_to(value, shape)[some] for name, value in of.items()})

        return HurdleLaw(self.base.law(of), self.base.log_zero(NUMPY, of), of["zero_log_odds"], part)


class HurdleLaw(Law):
    """Counts whose zeros have a probability of their own.

    Args:
        base: The law of the others, with its zeros.
        log_zero: Log probability of these.
        log_odds: Log odds of a zero.
        part: The base law at some entries.
    """

    discrete = True

    def __init__(self, base: Law, log_zero: RowDraws, log_odds: RowDraws, part: Callable[[np.ndarray], Law]) -> None:
        self.base, self.log_zero, self.log_odds, self.part = base, log_zero, log_odds, part
        expit = require("scipy.special", "diagnostics", ("scipy",)).expit
        self.zero, self.other = expit(log_odds), expit(-log_odds)
        self.above = -np.expm1(log_zero)

    def log_prob(self, y: RowDraws) -> RowDraws:
        """As in `Hurdle`."""
        above = log_sigmoid(NUMPY, -self.log_odds) + self.base.log_prob(y) - log1mexp(NUMPY, self.log_zero)
        return np.where(np.equal(y, 0.0), log_sigmoid(NUMPY, self.log_odds), above)

    def cdf(self, y: RowDraws) -> RowDraws:
        """1 - survival."""
        return 1.0 - self.survival(y)

    def survival(self, y: RowDraws) -> RowDraws:
        """(1 - z) S(y) / (1 - p(0)), from 0 on."""
        return np.where(np.less(y, 0.0), 1.0, self.other * np.minimum(self.base.survival(y) / self.above, 1.0))

    def quantile(self, level: RowDraws) -> RowDraws:
        """Of levels above z that of the base, above its zeros."""
        rest = np.clip((level - self.zero) / self.other, 0.0, 1.0)
        return np.where(rest > 0.0, np.maximum(self.base.quantile(1.0 - self.above * (1.0 - rest)), 1.0), 0.0)

    @property
    def mean(self) -> RowDraws:
        """(1 - z) mean / (1 - p(0))."""
        return self.other * self.base.mean / self.above

    @property
    def variance(self) -> RowDraws:
        """Second moment less the square of the mean."""
        return self.other * (self.base.variance + self.base.mean**2) / self.above - self.mean**2

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """A zero or not; then the base until it gives none, by quantiles of uniform numbers where that takes long."""
        drawn = self.base.sample(rng)
        none = rng.uniform(size=drawn.shape) < self.zero
        left = ~none & (drawn == 0.0)
        for _ in range(ATTEMPTS):
            if not left.any():
                break
            drawn[left] = self.part(left).sample(rng)
            left = left & (drawn == 0.0)
        if left.any():
            above = np.broadcast_to(self.above, drawn.shape)[left]
            found = self.part(left).quantile(1.0 - above * rng.uniform(size=above.shape))
            drawn[left] = np.maximum(found, 1.0)
        return np.where(none, 0.0, drawn)
