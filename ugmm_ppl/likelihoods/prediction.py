"""Predictions: what `Fit.predict` returns, as NumPy arrays in the units of the data."""

from __future__ import annotations

import dataclasses
from functools import cached_property

import numpy as np

from ugmm_ppl import checks, metrics, neuron
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.distributions import pathwise
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.neuron import safe_log
from ugmm_ppl.ops.numpy import NUMPY

CRPS_WORK = 2e8
"""Pairs of components, over all rows, that `evaluate` takes the CRPS of, ten seconds; above, it leaves out draws."""


@dataclasses.dataclass(frozen=True)
class ClassPrediction:
    """Class probabilities.

    Attributes:
        draws: p(class | x, theta) for every posterior draw, `(C, S, B, classes)`.
        weights: What each chain counts for, `(C,)`; None if all count alike.
    """

    draws: np.ndarray
    weights: np.ndarray | None = None

    @cached_property
    def probs(self) -> np.ndarray:
        """Posterior predictive class probabilities, the mean over draws, weighted by chain, `(B, classes)`."""
        if self.weights is None:
            return self.draws.mean((0, 1), dtype=np.float64)
        return np.tensordot(self.weights, self.draws.mean(1, dtype=np.float64), 1)

    @property
    def label(self) -> np.ndarray:
        """Most probable class code, `(B,)`."""
        return self.probs.argmax(-1)

    def log_density(self, y: np.ndarray) -> np.ndarray:
        """log p(y | x, data) in nats of class codes y `(B,)`: `(B,)`."""
        return NUMPY.log(np.take_along_axis(self.probs, checks.labels(y, *self.probs.shape)[:, None], axis=-1)[:, 0])

    def metrics(self, y: np.ndarray, row_weights: np.ndarray | None = None) -> dict[str, float]:
        """Accuracy, Brier score and ECE for observed class codes y `(B,)`; described at `ugmm_ppl.metrics.evaluate`."""
        return {
            "accuracy": metrics.accuracy(self.probs, y, row_weights=row_weights),
            "brier": metrics.brier(self.probs, y, row_weights=row_weights),
            "ece": metrics.expected_calibration_error(self.probs, y, row_weights=row_weights),
        }


@dataclasses.dataclass(frozen=True)
class RegressionPrediction:
    """The posterior predictive density of each row: a univariate Gaussian mixture over draws and components.

    Attributes:
        loc: Means in the units of y, `(C, S, B, M)`.
        scale: Scales in the units of y, `(C, S, B, M)`.
        log_weights: Log weights within a draw, `(C, S, B, M)`.
        backend: Whose normal distribution function the quantiles use.
        weights: What each chain counts for, `(C,)`; None if all count alike.
    """

    loc: np.ndarray
    scale: np.ndarray
    log_weights: np.ndarray
    backend: Backend = dataclasses.field(repr=False)
    weights: np.ndarray | None = None

    @cached_property
    def _mixture(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(loc, scale, log_weights), `(B, C S M)` each: every draw of a chain weighs the same."""
        chains, draws, rows, m = self.loc.shape
        log_weights = self.log_weights
        if self.weights is not None:
            log_weights = log_weights + safe_log(NUMPY, self.weights)[:, None, None, None]
        loc, scale, log_weights = (
            np.moveaxis(a.astype(np.float64), 2, 0).reshape(rows, chains * draws * m)
            for a in (self.loc, self.scale, log_weights)
        )
        return loc, scale, neuron.log_normalize(NUMPY, log_weights)

    @property
    def mixture(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """The predictive density as plain arrays: loc, scale and weights, `(B, C S M)` each."""
        loc, scale, log_weights = self._mixture
        return loc, scale, np.exp(log_weights)

    def at(self, draws: np.ndarray) -> RegressionPrediction:
        """The prediction by some draws of every chain, given by their numbers."""
        parts = {name: getattr(self, name)[:, draws] for name in ("loc", "scale", "log_weights")}
        return dataclasses.replace(self, **parts)

    @cached_property
    def mean(self) -> np.ndarray:
        """Posterior predictive mean `(B,)`."""
        loc, _, log_weights = self._mixture
        return neuron.mean(NUMPY, loc, np.exp(log_weights))

    @cached_property
    def std(self) -> np.ndarray:
        """Posterior predictive standard deviation `(B,)`, of noise and parameters together."""
        loc, scale, log_weights = self._mixture
        _, exponent = np.frexp(scale.max(-1, keepdims=True))  # squares of any unit fit; a power of two changes no digit
        variance = neuron.variance(NUMPY, np.ldexp(loc, -exponent), np.ldexp(scale, -exponent), np.exp(log_weights))
        return np.ldexp(np.sqrt(variance), exponent[:, 0])

    @property
    def draws(self) -> np.ndarray:
        """Mean of y for every posterior draw, `(C, S, B)`."""
        return neuron.mean(NUMPY, self.loc, np.exp(self.log_weights))

    def log_density(self, y: np.ndarray) -> np.ndarray:
        """log p(y | x, data) in nats per unit of y, for y `(B,)`: `(B,)`."""
        y = checks.targets(y, len(self._mixture[0]))
        with np.errstate(over="ignore"):  # of a y that is far away
            return neuron.log_prob(NUMPY, y, *self._mixture)

    def cdf(self, y: np.ndarray) -> np.ndarray:
        """p(Y <= y | x, data) for y `(B,)`: `(B,)`; the probability integral transform of an observed y."""
        loc, scale, log_weights = self._mixture
        with self.backend.settings(dtype="float64", device="cpu"):
            given = (checks.targets(y, len(loc)), loc, scale, np.exp(log_weights))
            return np.asarray(neuron.cdf(self.backend.ops, *(self.backend.array(a) for a in given)))

    def quantile(self, q: float | np.ndarray) -> np.ndarray:
        """Quantiles of the predictive density.

        Args:
            q: A probability in (0, 1), or an array of them `(Q,)`.

        Returns:
            `(B,)` for a number, `(Q, B)` for an array.

        Raises:
            ValueError: A probability outside (0, 1).
        """
        levels = [checks.number("q", level, 0.0, 1.0) for level in np.atleast_1d(np.asarray(q, dtype=np.float64))]
        loc, scale, log_weights = self._mixture
        with self.backend.settings(dtype="float64", device="cpu"):
            mixture = Mixture(*(self.backend.array(a) for a in (loc, scale, np.exp(log_weights), log_weights)))
            found = [
                np.asarray(pathwise.quantile(self.backend.ops, self.backend.array(np.full(len(loc), level)), mixture))
                for level in levels
            ]
        return found[0] if np.ndim(q) == 0 else np.stack(found)

    def samples(self, n: int, seed: int = 0) -> np.ndarray:
        """Draw n values of y per row from the predictive density, `(n, B)`."""
        n = checks.count("n", n)
        rng = np.random.default_rng(checks.count("seed", seed, least=0))
        loc, scale, log_weights = self._mixture
        rows, components = loc.shape
        total = np.cumsum(np.exp(log_weights), -1)
        u = rng.uniform(size=(n, rows)) * total[:, -1]
        k = np.stack([np.searchsorted(total[b], u[:, b], side="right") for b in range(rows)], axis=1).clip(
            0, components - 1
        )
        at = np.arange(rows)
        return loc[at, k] + scale[at, k] * rng.normal(size=(n, rows))

    def metrics(self, y: np.ndarray, row_weights: np.ndarray | None = None) -> dict[str, float]:
        """RMSE, MAE, CRPS, coverage and sharpness for observed y `(B,)`; described at `ugmm_ppl.metrics.evaluate`."""
        low, median, high = self.quantile(np.array([0.05, 0.5, 0.95]))
        return {
            "rmse": metrics.rmse(self.mean, y, row_weights=row_weights),
            "mae": metrics.mae(median, y, row_weights=row_weights),
            "crps": metrics.mean_over_rows(metrics.crps(*self._few_draws().mixture, y), row_weights),
            "coverage_90": metrics.coverage(self.cdf(y), row_weights=row_weights),
            "sharpness_90": metrics.sharpness(low, high, row_weights=row_weights),
        }

    def _few_draws(self) -> RegressionPrediction:
        """The prediction by as many draws as `CRPS_WORK` allows, evenly spaced."""
        chains, draws, rows, components = self.loc.shape
        most = max(1, int((CRPS_WORK / rows) ** 0.5 / (chains * components)))
        return self if draws <= most else self.at(np.linspace(0, draws - 1, most).round().astype(int))
