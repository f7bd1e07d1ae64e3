"""Poisson: y is a count, of events that come at a rate."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ugmm_ppl.backends.base import Backend
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.counts import RATE, Counts
from ugmm_ppl.likelihoods.family import Parameter
from ugmm_ppl.likelihoods.law import Law, OfScipy
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, Outputs, RowDraws, RowMatrices, Values

LARGEST_COUNT = 1e15
"""The largest rate of which NumPy draws counts."""


@likelihood
@dataclasses.dataclass(frozen=True)
class Poisson(Counts):
    """p(y | outputs) = m^y exp(-m) / y!, m = exposure rate, rate = exp(log_rate), for counts y = 0, 1, 2, ...

    The extra column `exposure` `(B,)`, such as the time that a row was watched, is 1 where it is not given.
    """

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """The rate."""
        return (RATE,)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """Poisson of the PPL."""
        return backend.dist.Poisson(self.expected(of))

    def law(self, of: Values) -> Law:
        """`scipy.stats.poisson`."""
        return PoissonLaw(self.expected(of))

    def information(self, outputs: Outputs) -> RowMatrices:
        """The mean of y: E[(y - m)^2]."""
        found = np.zeros((*outputs.shape, self.width))
        found[..., 0, 0] = self.expected(self.of(NUMPY, outputs))
        return found

    def log_zero(self, ops: Ops, of: Values) -> Array:
        """-m."""
        return -self.expected(of)


class PoissonLaw(OfScipy):
    """Counts of a mean.

    Args:
        mean: The mean.
    """

    def __init__(self, mean: np.ndarray) -> None:
        self.expected = mean
        super().__init__("poisson", discrete=True, mu=mean)

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """Counts; of means so large that NumPy draws none, by the Normal of equal moments."""
        small = np.minimum(self.expected, LARGEST_COUNT)
        near = np.round(rng.normal(self.expected, np.sqrt(self.expected)))
        return np.where(self.expected > small, near, rng.poisson(small).astype(np.float64))
