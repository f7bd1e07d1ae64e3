"""Mixture: y is a real number, and the outputs are the parameters of a univariate Gaussian mixture."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import budgets, checks, metrics, neuron
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions import pathwise
from ugmm_ppl.distributions.mixture import Mixture as GaussianMixture
from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.likelihoods.base import Likelihood, OrderedPrediction, likelihood
from ugmm_ppl.neuron import safe_log
from ugmm_ppl.nn.spaces import SCALE_FLOOR
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, Outputs, PerChain, PerOutput, PerRow, Readout, RowDraws, RowMatrices

QUADRATURE_POINTS = np.array([-9.0, -7.0, -5.5, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0, 9.0])
"""Distances from the location of a component, in its scales, between which its density is smooth."""

LARGEST_LOG_SCALE = 88.0
"""Its exponential is a float32."""


@likelihood
@dataclasses.dataclass(frozen=True)
class Mixture(Likelihood):
    """p(y | outputs) = sum_m weights_m N(y; loc_m, scale_m^2).

    The 3 M outputs are the mixture logits, the locations and the log scales, in this order.

    Args:
        components: Number M of components.
    """

    components: int = 3

    standardizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.settle(self, components=checks.count("components", self.components))

    @property
    def num_outputs(self) -> int:
        """Three per component."""
        return 3 * self.components

    def names(self, class_names: list[str] | None) -> list[str]:
        """The roles of the outputs, by component."""
        del class_names
        return [f"{role}_{m}" for role in ("logit", "loc", "log_scale") for m in range(self.components)]

    def check(self, y: Any, rows: int) -> PerRow:
        """Finite targets as float64 `(B,)`."""
        return checks.targets(y, rows)

    def parameters(self, ops: Ops, outputs: Array) -> tuple[Array, Array, Array]:
        """(loc, scale, logits) of the mixture, `(..., M)` each, from outputs `(..., 3 M)`."""
        m = self.components
        logits, loc, log_scale = outputs[..., :m], outputs[..., m : 2 * m], outputs[..., 2 * m :]
        return loc, ops.at_least(ops.exp(log_scale), SCALE_FLOOR), logits

    def distribution(self, backend: Backend, outputs: Array) -> Any:
        """UnivariateGaussianMixture of the PPL."""
        loc, scale, logits = self.parameters(backend.ops, outputs)
        return backend.dist.UnivariateGaussianMixture(loc, scale, logits=logits)

    def log_prob(self, outputs: Outputs, y: PerRow) -> PerRow:
        """Log density of the mixture at the observed y."""
        loc, scale, logits = self.parameters(NUMPY, outputs)
        with np.errstate(over="ignore"):  # of a y that is far away
            return neuron.log_prob(NUMPY, y, loc, scale, neuron.log_normalize(NUMPY, logits))

    def defined(self, outputs: Outputs) -> PerRow:
        """Finite ones that make a finite scale."""
        log_scale = outputs[..., 2 * self.components :]
        return np.all(np.isfinite(outputs), axis=-1) & np.all(log_scale < LARGEST_LOG_SCALE, axis=-1)

    def information(self, outputs: Outputs) -> RowMatrices:
        """By Gauss-Legendre quadrature between points a few scales from each other, those of all components.

        s = (r - weights, r z / scale, r (z^2 - 1)) with respect to logits, locations and log scales, where r are the
        responsibilities and z = (y - loc) / scale.
        """
        loc, scale, logits = (a[:, None, :] for a in self.parameters(NUMPY, outputs))  # (B, 1, M)
        log_weights = neuron.log_normalize(NUMPY, logits)
        points = np.sort((loc[..., None] + scale[..., None] * QUADRATURE_POINTS).reshape(len(outputs), -1))
        nodes, masses = np.polynomial.legendre.leggauss(8)
        half = 0.5 * np.diff(points)[..., None]
        y = (points[:, :-1, None] + half * (1.0 + nodes)).reshape(len(outputs), -1)  # (B, Q)
        mass = (half * masses).reshape(y.shape) * np.exp(neuron.log_prob(NUMPY, y, loc, scale, log_weights))
        r, z = neuron.responsibilities(NUMPY, y, loc, scale, log_weights), (y[..., None] - loc) / scale
        score = np.concatenate([r - np.exp(log_weights), r * z / scale, r * (z * z - 1.0)], axis=-1)  # (B, Q, 3 M)
        return np.swapaxes(score * mass[..., None], 1, 2) @ score

    def sample(self, outputs: Outputs, rng: np.random.Generator) -> PerRow:
        """A component by the Gumbel-max trick, then a value from it."""
        loc, scale, logits = self.parameters(NUMPY, outputs)
        k = gumbel_max(logits, rng)[..., None]
        loc, scale = np.take_along_axis(loc, k, -1)[..., 0], np.take_along_axis(scale, k, -1)[..., 0]
        return loc + scale * rng.normal(size=loc.shape)

    def prediction(
        self, outputs: Outputs, units: Standardizer | None, backend: Backend, weights: PerChain | None = None
    ) -> RegressionPrediction:
        """The posterior predictive density, a mixture over draws and components, in the units of the data."""
        loc, scale, logits = self.parameters(NUMPY, outputs)
        if units is not None:
            loc, scale = units.restore(loc), scale * units.scale
        return RegressionPrediction(loc, scale, neuron.log_normalize(NUMPY, logits), backend, weights)

    def start(self, weight: Readout, bias: PerOutput) -> tuple[Readout, PerOutput]:
        """Components spread over the standardised target, each of scale 0.6."""
        m = self.components
        loc = np.linspace(-0.5, 0.5, m) if m > 1 else np.zeros(1)
        return 0.1 * weight, np.concatenate([np.zeros(m), loc, np.full(m, -0.5)])


@dataclasses.dataclass(frozen=True)
class RegressionPrediction(OrderedPrediction):
    """The posterior predictive density of each row: a univariate Gaussian mixture over draws and components.

    Attributes:
        loc: Means in the units of y, `(C, S, B, M)`.
        scale: Scales in the units of y, `(C, S, B, M)`.
        log_weights: Log weights within a draw, `(C, S, B, M)`.
        backend: Whose normal distribution function the quantiles use.
        weights: What each chain counts for, `(C,)`; None if all count alike.
    """

    loc: RowDraws
    scale: RowDraws
    log_weights: RowDraws
    backend: Backend = dataclasses.field(repr=False)
    weights: PerChain | None = None

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
    def mixture(self) -> tuple[RowDraws, RowDraws, RowDraws]:
        """The predictive density as plain arrays: loc, scale and weights, `(B, C S M)` each."""
        loc, scale, log_weights = self._mixture
        return loc, scale, np.exp(log_weights)

    def at(self, draws: RowDraws) -> RegressionPrediction:
        """The prediction by some draws of every chain, given by their numbers."""
        parts = {name: getattr(self, name)[:, draws] for name in ("loc", "scale", "log_weights")}
        return dataclasses.replace(self, **parts)

    @cached_property
    def mean(self) -> PerRow:
        """Posterior predictive mean `(B,)`."""
        loc, _, log_weights = self._mixture
        return neuron.mean(NUMPY, loc, np.exp(log_weights))

    @cached_property
    def std(self) -> PerRow:
        """Posterior predictive standard deviation `(B,)`, of noise and parameters together."""
        loc, scale, log_weights = self._mixture
        _, exponent = np.frexp(scale.max(-1, keepdims=True))  # squares of any unit fit; a power of two changes no digit
        variance = neuron.variance(NUMPY, np.ldexp(loc, -exponent), np.ldexp(scale, -exponent), np.exp(log_weights))
        return np.ldexp(np.sqrt(variance), exponent[:, 0])

    @property
    def draws(self) -> PerRow:
        """Mean of y for every posterior draw, `(C, S, B)`."""
        return neuron.mean(NUMPY, self.loc, np.exp(self.log_weights))

    def log_density(self, y: PerRow) -> PerRow:
        """log p(y | x, data) in nats per unit of y, for y `(B,)`: `(B,)`."""
        y = checks.targets(y, len(self._mixture[0]))
        with np.errstate(over="ignore"):  # of a y that is far away
            return neuron.log_prob(NUMPY, y, *self._mixture)

    def cdf(self, y: PerRow) -> PerRow:
        """p(Y <= y | x, data) for y `(B,)`: `(B,)`; the probability integral transform of an observed y."""
        loc, scale, log_weights = self._mixture
        with self.backend.settings(dtype="float64", device="cpu"):
            given = (checks.targets(y, len(loc)), loc, scale, np.exp(log_weights))
            return np.asarray(neuron.cdf(self.backend.ops, *(self.backend.array(a) for a in given)))

    def _quantiles(self, levels: list[float]) -> np.ndarray:
        loc, scale, log_weights = self._mixture
        with self.backend.settings(dtype="float64", device="cpu"):
            array, ops = self.backend.array, self.backend.ops
            mixture = GaussianMixture(*(array(a) for a in (loc, scale, np.exp(log_weights), log_weights)))
            found = [pathwise.quantile(ops, array(np.full(len(loc), level)), mixture) for level in levels]
            return np.stack([np.asarray(each) for each in found])

    def samples(self, n: int, seed: int = 0) -> PerRow:
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

    def profile(self, row: int, y: float) -> tuple[PerRow, RowDraws]:
        """Values from the 0.5 % to the 99.5 % quantile of a row and beyond an observed y; and their densities."""
        low, high = self.quantile(np.array([0.005, 0.995]))[:, row]
        width = max(high - low, 1e-12)
        grid = np.linspace(min(low, y) - 0.1 * width, max(high, y) + 0.1 * width, 200)
        return grid, np.exp(neuron.log_prob(NUMPY, grid, *(a[row] for a in self._mixture)))

    def metrics(self, y: PerRow, row_weights: PerRow | None = None) -> dict[str, float]:
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
        """The prediction by as many draws as `budgets.CRPS_WORK` allows, evenly spaced."""
        chains, draws, rows, components = self.loc.shape
        most = max(1, int((budgets.CRPS_WORK / rows) ** 0.5 / (chains * components)))
        return self if draws <= most else self.at(np.linspace(0, draws - 1, most).round().astype(int))
