"""Bernoulli: y is 0 or 1."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.beta import LOG_ODDS
from ugmm_ppl.likelihoods.binomial import BinomialLaw
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law
from ugmm_ppl.typing import PerRow, Values


@likelihood
@dataclasses.dataclass(frozen=True)
class Bernoulli(Family):
    """p(1 | outputs) = 1 / (1 + exp(-log_odds))."""

    discrete: ClassVar[bool] = True
    picture: ClassVar[str] = "thresholds"

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Log odds of 1."""
        return (LOG_ODDS,)

    @property
    def outcomes(self) -> tuple[float, ...]:
        """0 and 1."""
        return 0.0, 1.0

    def check(self, y: Any, rows: int) -> PerRow:
        """Zeros and ones as float64 `(B,)`; truth values count as such."""
        return checks.binary(y, rows)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """Bernoulli of the PPL."""
        return backend.dist.Bernoulli(logits=of["log_odds"])

    def law(self, of: Values) -> Law:
        """That of one trial."""
        return BinomialLaw(np.ones(()), of["log_odds"])
