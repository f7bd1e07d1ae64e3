"""Censored: of some rows only a bound of y is known."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.likelihoods.base import Extra, extra, likelihood
from ugmm_ppl.likelihoods.composite import Limited
from ugmm_ppl.likelihoods.law import Law
from ugmm_ppl.likelihoods.links import log_between
from ugmm_ppl.likelihoods.outcome import Survival
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, Outputs, PerChain, PerRow, Values

CENSORED = extra(
    "censored", 0.0, checks.censored,
    'What y is to its outcome `(N,)`, for `likelihoods.Censored`: "none" or 0, "right" or 1 (it lies above y), "left" '
    'or -1 (below), "interval" or 2 (between y and `upper`).',
    with_target=True,
)  # fmt: skip
UPPER = extra(
    "upper", math.inf, checks.upper, "Upper ends of the intervals of rows that are censored so `(N,)`.",
    of_target=True, with_target=True,
)  # fmt: skip


@likelihood
@dataclasses.dataclass(frozen=True)
class Censored(Limited):
    """p(y), or p(Y > y), p(Y <= y) or p(y < Y <= upper) of the base where the row is censored so.

    The extra columns `censored` and `upper` belong to observed y; predictions are of the outcome itself.

    Args:
        base: A likelihood with exact tails: Mixture, Normal or LogNormal.
        shared: Parameters that all rows share, besides those that the base shares.
    """

    information = None  # type: ignore[assignment]
    picture = "survival"

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Those of the base, what is known of a row, and the end of its interval."""
        return *self.base.extras, CENSORED, UPPER

    def per_unit(self, extras: Mapping[str, PerRow]) -> PerRow | float:
        """Where y is observed; of others there is a probability."""
        return (extras["censored"] == 0.0).astype(np.float64) if extras else 1.0

    def check_extras(self, y: PerRow, extras: Mapping[str, PerRow]) -> None:
        """Refuse intervals without an upper end above the lower one."""
        super().check_extras(y, extras)
        if extras:
            checks.intervals(y, extras["censored"], extras["upper"])

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """As above."""
        ops = backend.ops

        def density(at: Array) -> Array:
            return self.base.density(backend, of, at)

        return ops.where(of["censored"] == 0.0, density(y), self._between(ops, of, density, y))

    def _between(self, ops: Ops, of: Values, density: Callable[[Array], Array], y: Array) -> Array:
        """Log probability of where a censored outcome lies."""
        code = of["censored"]
        low = ops.where(code > 0.0, y, -math.inf)
        high = ops.where(code < 0.0, y, ops.where(code == 2.0, of["upper"], math.inf))
        return log_between(ops, lambda at: self.base.log_tails(ops, of, at), density, low, high)

    def log_prob(self, outputs: Outputs, y: PerRow) -> PerRow:
        """The same in NumPy."""
        of = self.of(NUMPY, outputs.astype(np.float64))
        law, y = self.base.law(of), np.asarray(y, dtype=np.float64) + 0.0 * of["censored"]
        return np.where(of["censored"] == 0.0, law.log_prob(y), self._between(NUMPY, of, law.log_prob, y))

    def law(self, of: Values) -> Law:
        """That of the base: of the outcome itself."""
        return self.base.law(of)

    def prediction(
        self, outputs: Outputs, units: Standardizer | None, backend: Backend, weights: PerChain | None = None
    ) -> Survival:
        """The mixture of the laws of all draws."""
        del backend
        return Survival(self, outputs, units, weights)
