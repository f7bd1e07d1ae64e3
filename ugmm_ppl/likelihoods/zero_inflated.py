"""ZeroInflated: counts with more zeros than the base has, of both kinds."""

from __future__ import annotations

import dataclasses

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.composite import Composite
from ugmm_ppl.likelihoods.law import Law
from ugmm_ppl.likelihoods.links import log_sigmoid
from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, RowDraws, Values


@likelihood
@dataclasses.dataclass(frozen=True)
class ZeroInflated(Composite):
    """p(0) = z + (1 - z) p_base(0), p(y) = (1 - z) p_base(y) for y > 0; z = 1 / (1 + exp(-zero_log_odds)).

    Zeros come from two sources, one of which has nothing else. Source: Lambert 1992.

    Args:
        base: A likelihood of counts.
        shared: Parameters that all rows share, e.g. `("zero_log_odds",)`, besides those that the base shares.
    """

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        checks.base_of_counts("ZeroInflated", self.base)

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """As above."""
        ops = backend.ops
        zero, other = log_sigmoid(ops, of["zero_log_odds"]), log_sigmoid(ops, -of["zero_log_odds"])
        at_zero = logsumexp(ops, ops.concat([zero[..., None], (other + self.base.log_zero(ops, of))[..., None]]))
        return ops.where(y == 0.0, at_zero, other + self.base.density(backend, of, y))

    def law(self, of: Values) -> Law:
        """By that of the base."""
        return ZeroInflatedLaw(self.base.law(of), of["zero_log_odds"])


class ZeroInflatedLaw(Law):
    """Counts of which some are zero for another reason.

    Args:
        base: The law of the others.
        log_odds: Log odds of the other reason.
    """

    discrete = True

    def __init__(self, base: Law, log_odds: np.ndarray) -> None:
        self.base, self.log_odds = base, log_odds
        expit = require("scipy.special", "diagnostics", ("scipy",)).expit
        self.zero, self.other = expit(log_odds), expit(-log_odds)

    def log_prob(self, y: RowDraws) -> RowDraws:
        """As in `ZeroInflated`."""
        zero, other = log_sigmoid(NUMPY, self.log_odds), log_sigmoid(NUMPY, -self.log_odds)
        found = other + self.base.log_prob(y)
        return np.where(np.equal(y, 0.0), np.logaddexp(zero, found), found)

    def cdf(self, y: RowDraws) -> RowDraws:
        """z + (1 - z) F(y), from 0 on."""
        return np.where(np.less(y, 0.0), 0.0, self.zero + self.other * self.base.cdf(y))

    def survival(self, y: RowDraws) -> RowDraws:
        """(1 - z) S(y), from 0 on."""
        return np.where(np.less(y, 0.0), 1.0, self.other * self.base.survival(y))

    def quantile(self, level: RowDraws) -> RowDraws:
        """That of the base, of the level above z."""
        rest = np.clip((level - self.zero) / self.other, 0.0, 1.0)
        return np.where(rest > 0.0, np.maximum(self.base.quantile(rest), 0.0), 0.0)

    @property
    def mean(self) -> RowDraws:
        """(1 - z) mean."""
        return self.other * self.base.mean

    @property
    def variance(self) -> RowDraws:
        """(1 - z) (variance + z mean^2)."""
        return self.other * (self.base.variance + self.zero * self.base.mean**2)

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """From either source."""
        drawn = self.base.sample(rng)
        return np.where(rng.uniform(size=np.shape(drawn)) < self.zero, 0.0, drawn)
