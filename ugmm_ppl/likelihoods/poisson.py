"""Poisson: y is a count, and the output is the logarithm of its rate."""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import checks, metrics
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.likelihoods.base import Likelihood, OrderedPrediction, likelihood
from ugmm_ppl.neuron import logsumexp, safe_log
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Outputs, PerChain, PerRow, RowDraws, RowMatrices

LARGEST_LOG_RATE = 88.0
"""Its exponential is a float32."""

REACH = 12.0
"""Standard deviations from the mean beyond which a quantile is not looked for at first."""


@likelihood
@dataclasses.dataclass(frozen=True)
class Poisson(Likelihood):
    """p(y | outputs) = rate^y exp(-rate) / y!, rate = exp(outputs), for counts y = 0, 1, 2, ..."""

    discrete: ClassVar[bool] = True

    @property
    def num_outputs(self) -> int:
        """One."""
        return 1

    def names(self, class_names: list[str] | None) -> list[str]:
        """The log of the rate."""
        del class_names
        return ["log_rate"]

    def check(self, y: Any, rows: int) -> PerRow:
        """Counts as float64 `(B,)`."""
        return checks.counts(y, rows)

    def distribution(self, backend: Backend, outputs: Array) -> Any:
        """Poisson of the PPL."""
        return backend.dist.Poisson(backend.ops.exp(outputs[..., 0]))

    def log_prob(self, outputs: Outputs, y: PerRow) -> PerRow:
        """y log rate - rate - log y!."""
        return log_probability(outputs[..., 0], y)

    def defined(self, outputs: Outputs) -> PerRow:
        """Rates that are finite."""
        return outputs[..., 0] < LARGEST_LOG_RATE

    def information(self, outputs: Outputs) -> RowMatrices:
        """The rate: E[(y - rate)^2]."""
        return np.exp(outputs)[..., None]

    def sample(self, outputs: Outputs, rng: np.random.Generator) -> PerRow:
        """Counts as float64; of rates so large that NumPy draws none, by the Normal of equal moments."""
        rate = np.exp(outputs[..., 0].astype(np.float64))
        small = np.minimum(rate, 1e15)
        return np.where(rate > small, np.round(rng.normal(rate, np.sqrt(rate))), rng.poisson(small))

    def prediction(
        self, outputs: Outputs, units: Standardizer | None, backend: Backend, weights: PerChain | None = None
    ) -> CountPrediction:
        """The posterior predictive distribution, a mixture over draws."""
        del units, backend
        return CountPrediction(outputs[..., 0].astype(np.float64), weights)


def log_probability(log_rate: np.ndarray, y: PerRow) -> PerRow:
    """Log probability of counts, `(..., B)` and `(B,)` to `(..., B)`."""
    gammaln = require("scipy.special", "diagnostics", ("scipy",)).gammaln
    expected = np.where(y == 0.0, 0.0, y * np.where(y == 0.0, 0.0, log_rate))  # 0 of a rate of 0 is certain
    return expected - np.exp(log_rate) - gammaln(y + 1.0)


@dataclasses.dataclass(frozen=True)
class CountPrediction(OrderedPrediction):
    """The posterior predictive distribution of each row: a mixture of Poissons over draws.

    Attributes:
        log_rate: Log rate of every posterior draw, `(C, S, B)`.
        weights: What each chain counts for, `(C,)`; None if all count alike.
    """

    log_rate: RowDraws
    weights: PerChain | None = None

    @cached_property
    def _shares(self) -> np.ndarray:
        """What every draw counts for, `(C S,)`."""
        chains, draws = self.log_rate.shape[:2]
        weights = np.full(chains, 1.0 / chains) if self.weights is None else self.weights
        return np.repeat(weights / draws, draws)

    @cached_property
    def _rates(self) -> np.ndarray:
        """Rates `(C S, B)`."""
        return np.exp(self.log_rate.reshape(len(self._shares), -1))

    @property
    def draws(self) -> PerRow:
        """Rate of every posterior draw, `(C, S, B)`."""
        return np.exp(self.log_rate)

    @cached_property
    def mean(self) -> PerRow:
        """Posterior predictive mean `(B,)`."""
        return self._shares @ self._rates

    @cached_property
    def std(self) -> PerRow:
        """Posterior predictive standard deviation `(B,)`, of counts and parameters together."""
        return np.sqrt(self.mean + self._shares @ (self._rates - self.mean) ** 2)

    def log_density(self, y: PerRow) -> PerRow:
        """log p(y | x, data) in nats for counts y `(B,)`: `(B,)`."""
        y = checks.counts(y, self.log_rate.shape[-1])
        terms = (
            log_probability(self.log_rate.reshape(len(self._shares), -1), y) + safe_log(NUMPY, self._shares)[:, None]
        )
        return logsumexp(NUMPY, terms.T)

    def cdf(self, y: PerRow) -> PerRow:
        """p(Y <= y | x, data) for y `(..., B)`: `(..., B)`."""
        pdtr = require("scipy.special", "diagnostics", ("scipy",)).pdtr
        y = np.floor(np.asarray(y, dtype=np.float64))[..., None, :]
        return np.einsum("d,...db->...b", self._shares, np.where(y < 0.0, 0.0, pdtr(np.maximum(y, 0.0), self._rates)))

    def _quantiles(self, levels: list[float]) -> np.ndarray:
        return np.stack([self._quantile(level) for level in levels])

    def _quantile(self, level: float) -> np.ndarray:
        """By bisection."""
        low, high = np.full(len(self.mean), -1.0), np.ceil(self.mean + REACH * self.std + REACH)
        while (short := self.cdf(high) < level).any():
            high = np.where(short, 2.0 * high, high)
        while (high - low > 1.0).any():
            middle = np.floor(0.5 * (low + high))
            enough = self.cdf(middle) >= level
            low, high = np.where(enough, low, middle), np.where(enough, middle, high)
        return high

    def samples(self, n: int, seed: int = 0) -> PerRow:
        """Draw n counts per row from the predictive distribution, `(n, B)`."""
        rng = np.random.default_rng(checks.count("seed", seed, least=0))
        rows = self._rates.shape[1]
        draw = rng.choice(len(self._shares), (checks.count("n", n), rows), p=self._shares)
        log_rate = self.log_rate.reshape(len(self._shares), -1)[draw, np.arange(rows)]
        return Poisson().sample(log_rate[..., None], rng)

    def profile(self, row: int, y: float) -> tuple[PerRow, RowDraws]:
        """Counts from the 0.5 % to the 99.5 % quantile of a row, and an observed one; and their probabilities."""
        low, high = self.quantile(np.array([0.005, 0.995]))[:, row]
        step = max(1, math.ceil((max(high, y) - min(low, y)) / 200))
        counts = np.arange(min(low, y), max(high, y) + 1.0, step)
        log_rate = self.log_rate.reshape(len(self._shares), -1)[:, row]
        return counts, self._shares @ np.exp(log_probability(log_rate[:, None], counts))

    def metrics(self, y: PerRow, row_weights: PerRow | None = None) -> dict[str, float]:
        """RMSE, MAE of the median, coverage and width of the central 90 % intervals for observed counts y `(B,)`."""
        low, median, high = self.quantile(np.array([0.05, 0.5, 0.95]))
        inside = ((y >= low) & (y <= high)).astype(np.float64)
        return {
            "rmse": metrics.rmse(self.mean, y, row_weights=row_weights),
            "mae": metrics.mae(median, y, row_weights=row_weights),
            "coverage_90": metrics.mean_over_rows(inside, row_weights),
            "sharpness_90": metrics.sharpness(low, high, row_weights=row_weights),
        }
