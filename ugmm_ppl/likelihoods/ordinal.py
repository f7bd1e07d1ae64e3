"""Ordinal: y is one of some levels in an order, without distances between them."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.distributions.described import dist
from ugmm_ppl.distributions.mixture import log_ndtr
from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.likelihoods.base import likelihood
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law
from ugmm_ppl.likelihoods.links import log1mexp, log_sigmoid
from ugmm_ppl.likelihoods.normal import LOC
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, PerRow, Probs, RowDraws, Values

LINKS = {"logit": log_sigmoid, "probit": log_ndtr}
"""Log distribution functions of what lies behind y."""


@likelihood
@dataclasses.dataclass(frozen=True)
class Ordinal(Family):
    """p(y <= c | outputs) = F(threshold_c - loc), c = 0..levels-2; F is logistic or normal, the thresholds rise.

    threshold_0 = cuts_0, threshold_c = threshold_(c-1) + exp(cuts_c): the shared site `likelihood.cuts`. Source:
    McCullagh 1980; Buerkner and Vuorre 2019.

    Args:
        levels: Number of levels; y holds codes 0..levels-1.
        link: "logit" or "probit".
    """

    levels: int
    link: str = "logit"
    shared: tuple[str, ...] = dataclasses.field(default=("cuts",), kw_only=True)

    discrete: ClassVar[bool] = True
    picture: ClassVar[str] = "thresholds"

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.settle(self, levels=checks.count("levels", self.levels, least=2))
        checks.choice("link", self.link, tuple(LINKS))
        super().__post_init__()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Location, and what the thresholds are made of."""
        steps = self.levels - 1
        start = (-1.0, *(float(np.log(2.0 / max(1, steps - 1))) for _ in range(steps - 1)))
        return LOC, Parameter("cuts", start=start, prior=dist.Normal(0.0, 1.5), size=steps)

    @property
    def outcomes(self) -> tuple[float, ...]:
        """The codes."""
        return tuple(float(c) for c in range(self.levels))

    def check(self, y: Any, rows: int) -> PerRow:
        """Codes as float64 `(B,)`."""
        return checks.labels(y, rows, self.levels).astype(np.float64)

    def thresholds(self, ops: Ops, cuts: Array) -> Array:
        """The thresholds `(..., levels - 1)`."""
        return ops.cumsum(ops.concat([cuts[..., :1], ops.exp(cuts[..., 1:])]))

    def log_probs(self, ops: Ops, of: Values) -> Array:
        """log p of every level, `(..., levels)`."""
        log_cdf = LINKS[self.link]
        ends = self.thresholds(ops, of["cuts"]) - of["loc"][..., None]
        first, last = log_cdf(ops, ends[..., :1]), log_cdf(ops, -ends[..., -1:])
        if self.levels == 2:
            return ops.concat([first, last])
        low, high = ends[..., :-1], ends[..., 1:]
        above = low + high > 0.0  # then from the other side, where both are small
        near, far = ops.where(above, -low, high), ops.where(above, -high, low)
        inner, outer = log_cdf(ops, near), log_cdf(ops, far)
        return ops.concat([first, inner + log1mexp(ops, ops.at_most(outer - inner, -1e-30)), last])

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """As above."""
        ops = backend.ops
        log_probs = self.log_probs(ops, of)
        codes = ops.constant(np.arange(self.levels), log_probs)
        return ops.sum(ops.where(y[..., None] == codes, log_probs, 0.0), -1)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """A distribution by its density."""
        return backend.dist.FamilyDistribution(self, backend, of)

    def law(self, of: Values) -> Law:
        """By the probabilities of the levels."""
        return Levels(self.log_probs(NUMPY, of))


class Levels(Law):
    """Codes 0, 1, ... with probabilities of their own.

    Args:
        log_probs: Their logarithms, `(..., levels)`.
    """

    discrete = True

    def __init__(self, log_probs: Probs) -> None:
        self.log_probs = log_probs
        self.probs = np.exp(log_probs)

    def log_prob(self, y: RowDraws) -> RowDraws:
        """That of the code."""
        codes = np.arange(self.probs.shape[-1])
        hit = np.asarray(y)[..., None] == codes
        return np.where(hit.any(-1), np.where(hit, self.log_probs, 0.0).sum(-1), -np.inf)

    def cdf(self, y: RowDraws) -> RowDraws:
        """Sum of those up to y."""
        return np.where(np.arange(self.probs.shape[-1]) <= np.asarray(y)[..., None], self.probs, 0.0).sum(-1)

    def survival(self, y: RowDraws) -> RowDraws:
        """Sum of those above y."""
        return np.where(np.arange(self.probs.shape[-1]) > np.asarray(y)[..., None], self.probs, 0.0).sum(-1)

    def quantile(self, level: RowDraws) -> RowDraws:
        """The first code whose sum reaches the level."""
        total = np.cumsum(self.probs, -1)
        return np.minimum((total < np.asarray(level)[..., None]).sum(-1), self.probs.shape[-1] - 1).astype(np.float64)

    @property
    def mean(self) -> RowDraws:
        """Mean code."""
        return self.probs @ np.arange(self.probs.shape[-1])

    @property
    def variance(self) -> RowDraws:
        """Variance of the code."""
        return self.probs @ np.arange(self.probs.shape[-1]) ** 2 - self.mean**2

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """By the Gumbel-max trick."""
        return gumbel_max(self.log_probs, rng).astype(np.float64)
