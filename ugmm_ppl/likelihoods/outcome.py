"""Predictions of families: mixtures, over posterior draws, of distributions of y."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np

from ugmm_ppl import budgets, checks, metrics
from ugmm_ppl.checks.machine import require
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.likelihoods.base import OrderedPrediction
from ugmm_ppl.likelihoods.law import Law, Lawful, smallest
from ugmm_ppl.neuron import logsumexp, safe_log
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Outputs, PerChain, PerDraw, PerLevel, PerRow, Probs, RowDraws

CRPS_SAMPLES = 199
CRPS_POINTS = [0, 1, 3, 9, 29, 59, 99, 139, 169, 189, 195, 197, 198]
"""Order statistics of the samples between which the distribution function is smooth."""

CRPS_TAILS = (0.1, 0.5, 2.0, 8.0)
"""Distances beyond the samples, in their range."""

MOST_TERMS = 300
"""Whole numbers in a sum; of a wider distribution only each second or third, and so on, is taken for its neighbours."""


@dataclasses.dataclass(frozen=True, repr=False)
class Outcome(OrderedPrediction):
    """The posterior predictive distribution of each row: a mixture over draws, in the units of the data.

    Memory, besides the outputs, is a few times 16 MiB: rows are taken as many at a time as keep it there.

    Attributes:
        likelihood: The family.
        outputs: Complete outputs of every posterior draw, `(C, S, B, P)`.
        units: What standardised y, or None.
        weights: What each chain counts for, `(C,)`; None if all count alike.
    """

    likelihood: Lawful
    outputs: Outputs
    units: Standardizer | None = None
    weights: PerChain | None = None

    def __repr__(self) -> str:
        """Of what, and how much."""
        chains, draws, rows, _ = self.outputs.shape
        return f"Outcome({self.likelihood!r}, chains={chains}, draws={draws}, rows={rows})"

    @property
    def discrete(self) -> bool:
        """Whether y is a whole number."""
        return self.likelihood.discrete

    @property
    def _rows(self) -> int:
        return self.outputs.shape[2]

    @cached_property
    def _shares(self) -> PerDraw:
        """What every draw counts for, `(C S,)`."""
        chains, draws = self.outputs.shape[:2]
        weights = np.full(chains, 1.0 / chains) if self.weights is None else self.weights
        return np.repeat(weights / draws, draws)

    @cached_property
    def _flat(self) -> Outputs:
        return self.outputs.reshape(len(self._shares), *self.outputs.shape[2:])

    def _laws(self, rows: Any = slice(None)) -> Law:
        """The laws of all draws at some rows, `(C S, rows)`."""
        return self.likelihood.given(self._flat[:, rows])

    def _scale(self) -> float:
        return 1.0 if self.units is None else float(self.units.scale)

    def _restored(self, y: RowDraws) -> RowDraws:
        return y if self.units is None else self.units.restore(y)

    def _seen(self, y: RowDraws) -> RowDraws:
        return y if self.units is None else self.units.standardize(y)

    def _chunks(self) -> Iterator[slice]:
        size = max(1, budgets.TEMPORARY // (len(self._shares) * self.likelihood.width))
        return (slice(start, start + size) for start in range(0, self._rows, size))

    def _over_rows(self, function: Callable[[slice], np.ndarray]) -> np.ndarray:
        """What a function says of all chunks of rows, whose axis is the last one."""
        return np.concatenate([function(rows) for rows in self._chunks()], -1)

    @cached_property
    def draws(self) -> RowDraws:
        """Mean of y under every posterior draw, `(C, S, B)`."""
        flat = self._over_rows(lambda rows: np.broadcast_to(self._laws(rows).mean, self._flat[:, rows, 0].shape))
        return self._restored(flat).reshape(self.outputs.shape[:3])

    @cached_property
    def mean(self) -> PerRow:
        """Posterior predictive mean `(B,)`."""
        return np.tensordot(self._shares, self.draws.reshape(len(self._shares), -1), 1)

    @cached_property
    def std(self) -> PerRow:
        """Posterior predictive standard deviation `(B,)`, of y and parameters together."""
        with np.errstate(invalid="ignore", over="ignore"):  # of moments that are not finite
            within = self._over_rows(lambda rows: np.tensordot(self._shares, self._variance(rows), 1))
            spread = (self.draws.reshape(len(self._shares), -1) - self.mean) ** 2
            return np.sqrt(within * self._scale() ** 2 + np.tensordot(self._shares, spread, 1))

    def _variance(self, rows: slice) -> RowDraws:
        return np.broadcast_to(self._laws(rows).variance, self._flat[:, rows, 0].shape)

    def log_density(self, y: PerRow) -> PerRow:
        """log p(y | x, data) in nats, per unit of y where y is a real number, for y `(B,)`: `(B,)`."""
        y = self._seen(self.likelihood.check(y, self._rows))
        log_shares = safe_log(NUMPY, self._shares)[:, None]

        def of(rows: slice) -> np.ndarray:
            terms = self.likelihood.log_prob(self._flat[:, rows].astype(np.float64), y[rows])
            return logsumexp(NUMPY, (terms + log_shares).T)

        extras = {each.name: self.likelihood.of(NUMPY, self._flat[0])[each.name] for each in self.likelihood.extras}
        unit = 0.0 if self.discrete else math.log(self._scale()) * self.likelihood.per_unit(extras)
        return self._over_rows(of) - unit

    def cdf(self, y: RowDraws) -> RowDraws:
        """p(Y <= y | x, data) for numbers y `(..., B)`: `(..., B)`."""
        return self._averaged(y, lambda law, at: law.cdf(at))

    def survival(self, y: RowDraws) -> RowDraws:
        """p(Y > y | x, data) for numbers y `(..., B)`, accurate where it is small: `(..., B)`."""
        return self._averaged(y, lambda law, at: law.survival(at))

    def _averaged(self, y: RowDraws, function: Callable[[Law, RowDraws], RowDraws]) -> RowDraws:
        y = np.broadcast_to(self._seen(np.asarray(y, dtype=np.float64)), (*np.shape(y)[:-1], self._rows))

        def of(rows: slice) -> np.ndarray:
            law = self._laws(rows)
            flat = y[..., rows].reshape(-1, 1, y[..., rows].shape[-1])
            found = np.stack([np.tensordot(self._shares, function(law, at), 1) for at in flat])
            return found.reshape(y[..., rows].shape)

        return self._over_rows(of)

    def pit(self, y: PerRow, seed: int = 0) -> PerRow:
        """Probability integral transform of observed y `(B,)`, of whole numbers at random between F(y - 1) and F(y).

        Uniform if the prediction is calibrated. Source: Czado, Gneiting and Held 2009, section 2.
        """
        y = self.likelihood.check(y, self._rows)
        upper = self.cdf(y)
        if not self.discrete:
            return upper
        lower = self.cdf(y - 1.0)
        rng = np.random.default_rng(checks.count("seed", seed, least=0))
        return lower + rng.uniform(size=self._rows) * (upper - lower)

    @property
    def probs(self) -> Probs:
        """Probability of each outcome where these are finitely many, `(B, outcomes)`.

        Raises:
            AttributeError: There are infinitely many.
        """
        outcomes = self.likelihood.outcomes
        if outcomes is None:
            raise checks.no_probs(type(self.likelihood).__name__)

        def of(rows: slice) -> np.ndarray:
            flat = self._flat[:, rows].astype(np.float64)
            each = [self.likelihood.log_prob(flat, np.full(flat.shape[1], value)) for value in outcomes]
            return np.stack([np.tensordot(self._shares, np.exp(terms), 1) for terms in each])

        return self._over_rows(of).T

    def _quantiles(self, levels: list[float]) -> PerLevel:
        return self._restored(np.stack([self._over_rows(partial(self._quantile, level)) for level in levels]))

    def _quantile(self, level: float, rows: slice) -> PerRow:
        """That of the mixture; of real numbers between the smallest and the largest one of the draws."""
        if self.discrete:
            law = self._laws(rows)
            return smallest(
                lambda y: np.tensordot(self._shares, law.cdf(y), 1), np.array(level), self.mean[rows], self.std[rows]
            )
        each = self._laws(rows).quantile(np.array(level))
        each = np.broadcast_to(each, self._flat[:, rows, 0].shape)[self._shares > 0.0]
        low, high = each.min(0), each.max(0)
        numbers = np.arange(self._rows)[rows]

        def short(y: PerRow, row: PerRow) -> PerRow:
            return np.tensordot(self._shares, self._laws(row.astype(int)).cdf(y), 1) - level

        at_low, at_high = short(low, numbers), short(high, numbers)
        open_ = (at_low < 0.0) & (at_high > 0.0)
        if open_.any():
            find_root = require("scipy.optimize.elementwise", "diagnostics", ("scipy",)).find_root
            low[open_] = find_root(short, (low[open_], high[open_]), args=(numbers[open_].astype(np.float64),)).x
        return np.where((at_low < 0.0) & ~open_, high, low)

    def samples(self, n: int, seed: int = 0) -> RowDraws:
        """Draw n values of y per row from the predictive distribution, `(n, B)`."""
        rng = np.random.default_rng(checks.count("seed", seed, least=0))
        draw, rows = rng.choice(len(self._shares), (checks.count("n", n), self._rows), p=self._shares), self._rows
        size = max(1, budgets.TEMPORARY // (rows * self.likelihood.width))
        some = (draw[first : first + size] for first in range(0, len(draw), size))
        return self._restored(
            np.concatenate([self.likelihood.sample(self._flat[each, np.arange(rows)], rng) for each in some])
        )

    def profile(self, row: int, y: float) -> tuple[PerRow, RowDraws]:
        """Values from the 0.5 % to the 99.5 % quantile of a row and beyond an observed y; and what they have of it.

        Densities, or probabilities of at most some 200 whole numbers.
        """
        one = dataclasses.replace(self, outputs=self.outputs[:, :, row : row + 1])
        low, high = one.quantile(np.array([0.005, 0.995]))[:, 0]
        low, high = min(low, y), max(high, y)
        if self.discrete:
            grid = np.arange(low, high + 1.0, max(1, math.ceil((high - low) / 200)))
        else:
            grid = np.linspace(low - 0.05 * (high - low), high + 0.05 * (high - low), 200)
        terms = one._laws().log_prob(self._seen(grid))
        return grid, np.tensordot(self._shares, np.exp(terms), 1) / (1.0 if self.discrete else self._scale())

    def _few_draws(self) -> Outcome:
        """The prediction by as many draws as `budgets.OUTCOME_DRAWS` allows, evenly spaced."""
        chains, draws, rows, _ = self.outputs.shape
        most = max(1, budgets.OUTCOME_DRAWS // (chains * rows))
        if draws <= most:
            return self
        some = np.linspace(0, draws - 1, most).round().astype(int)
        return dataclasses.replace(self, outputs=self.outputs[:, some])

    def crps(self, y: PerRow) -> PerRow:
        """Continuous ranked probability score, integral (F(t) - [t >= y])^2 dt, in the units of y: `(B,)`.

        By a sum over whole numbers, or Gauss-Legendre quadrature between order statistics of some samples.
        """
        y = self.likelihood.check(y, self._rows)
        if self.discrete:
            return self._summed(y, *self.quantile(np.array([1e-4, 1.0 - 1e-4])))
        drawn = np.sort(self.samples(CRPS_SAMPLES), 0)
        spread = drawn[-1] - drawn[0]
        tails = [at for reach in CRPS_TAILS for at in (drawn[0] - reach * spread, drawn[-1] + reach * spread)]
        points = np.sort(np.stack([*drawn[CRPS_POINTS], *tails, y]), 0)
        nodes, masses = np.polynomial.legendre.leggauss(6)
        half = 0.5 * np.diff(points, axis=0)
        total = np.zeros(self._rows)
        for node, mass in zip(nodes, masses, strict=True):
            at = points[:-1] + half * (1.0 + node)
            total += mass * (half * (self.cdf(at) - (at >= y)) ** 2).sum(0)
        return total

    def _summed(self, y: PerRow, low: PerRow, high: PerRow) -> PerRow:
        first, last = np.minimum(low, y), np.maximum(high, y)
        step = np.maximum(1.0, np.ceil((last - first + 1.0) / MOST_TERMS))
        total = np.zeros(self._rows)
        for number in range(int(((last - first) // step).max()) + 1):
            at = first + step * number
            total += np.where(at <= last, step * (self.cdf(at) - (at >= y)) ** 2, 0.0)
        return total

    def metrics(self, y: PerRow, row_weights: PerRow | None = None) -> dict[str, float]:
        """RMSE, MAE of the median, CRPS, coverage and width of the central 90 % intervals for observed y `(B,)`.

        All but the first by as many draws as `budgets.OUTCOME_DRAWS` allows, evenly spaced.
        """
        y = self.likelihood.check(y, self._rows)
        few = self._few_draws()
        low, median, high = few.quantile(np.array([0.05, 0.5, 0.95]))
        inside = ((y >= low) & (y <= high)).astype(np.float64)
        return {
            "rmse": metrics.rmse(self.mean, y, row_weights=row_weights),
            "mae": metrics.mae(median, y, row_weights=row_weights),
            "crps": metrics.mean_over_rows(few.crps(y), row_weights),
            "coverage_90": metrics.mean_over_rows(inside, row_weights),
            "sharpness_90": metrics.sharpness(low, high, row_weights=row_weights),
        }


@dataclasses.dataclass(frozen=True, repr=False)
class Survival(Outcome):
    """The posterior predictive distribution of outcomes of which some are censored."""

    def metrics(self, y: PerRow, row_weights: PerRow | None = None) -> dict[str, float]:
        """Concordance of the predictive medians with observed y `(B,)`, by the censoring that the rows came with.

        The share of pairs in the right order among those whose order is known; described at
        `ugmm_ppl.metrics.concordance`.
        """
        y = self.likelihood.check(y, self._rows)
        code = self.likelihood.of(NUMPY, self._flat[0].astype(np.float64))["censored"]
        return {"concordance": metrics.concordance(self.quantile(0.5), y, code, row_weights=row_weights)}
