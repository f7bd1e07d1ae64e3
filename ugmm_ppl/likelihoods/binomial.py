"""Binomial: y is a number of successes among trials that are given."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require
from ugmm_ppl.likelihoods.base import Extra, extra, likelihood
from ugmm_ppl.likelihoods.beta import LOG_ODDS
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law, OfScipy
from ugmm_ppl.likelihoods.links import log_sigmoid
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, PerRow, RowDraws, Values

TRIALS = extra("trials", None, checks.trials, "Number of trials of each row `(N,)`, for `likelihoods.Binomial`.")


@likelihood
@dataclasses.dataclass(frozen=True)
class Binomial(Family):
    """p(y | outputs) = C(trials, y) p^y (1 - p)^(trials - y), p = 1 / (1 + exp(-log_odds)).

    The extra column `trials` `(B,)` is given to `fit` and to whatever takes rows.
    """

    discrete: ClassVar[bool] = True
    picture: ClassVar[str] = "rootogram"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Log odds of a success."""
        return (LOG_ODDS,)

    @property
    def extras(self) -> tuple[Extra, ...]:
        """The trials."""
        return (TRIALS,)

    def check(self, y: Any, rows: int) -> PerRow:
        """Counts as float64 `(B,)`."""
        return checks.counts(y, rows)

    def check_extras(self, y: PerRow, extras: Mapping[str, PerRow]) -> None:
        """Refuse more successes than trials."""
        checks.at_most_trials(y, extras["trials"])

    def ppl(self, backend: Backend, of: Values) -> Any:
        """A distribution by its density: NumPyro's Binomial draws for whole numbers of a dtype of such alone."""
        return backend.dist.FamilyDistribution(self, backend, of)

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """As above."""
        return log_probability(backend.ops, of["trials"], of["log_odds"], y)

    def log_zero(self, ops: Ops, of: Values) -> Array:
        """-trials log(1 + exp(log_odds))."""
        return of["trials"] * log_sigmoid(ops, -of["log_odds"])

    def law(self, of: Values) -> Law:
        """`scipy.stats.binom`, but for densities where a probability is near 1."""
        return BinomialLaw(of["trials"], of["log_odds"])


def log_probability(ops: Ops, trials: Array, log_odds: Array, y: Array) -> Array:
    """Log probability of y successes."""
    ways = ops.lgamma(trials + 1.0) - ops.lgamma(y + 1.0) - ops.lgamma(trials - y + 1.0)
    return ways + y * log_sigmoid(ops, log_odds) + (trials - y) * log_sigmoid(ops, -log_odds)


class BinomialLaw(OfScipy):
    """Successes of some trials; log probabilities are accurate for all log odds.

    Args:
        trials: Number of trials.
        log_odds: Log odds of a success.
    """

    def __init__(self, trials: np.ndarray, log_odds: np.ndarray) -> None:
        self.trials, self.log_odds = trials, log_odds
        expit = require("scipy.special", "diagnostics", ("scipy",)).expit
        super().__init__("binom", discrete=True, n=np.asarray(trials).astype(np.int64), p=expit(log_odds))

    def log_prob(self, y: RowDraws) -> RowDraws:
        """As in `Binomial`."""
        possible = np.greater_equal(y, 0.0) & np.less_equal(y, self.trials)
        found = log_probability(NUMPY, self.trials, self.log_odds, np.where(possible, y, 0.0))
        return np.where(possible, found, -np.inf)
