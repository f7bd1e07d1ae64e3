"""Mixture: y is a real number, and the outputs are the parameters of a univariate Gaussian mixture."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import budgets, checks, metrics, neuron
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions import pathwise
from ugmm_ppl.distributions.mixture import Mixture as GaussianMixture
from ugmm_ppl.distributions.mixture import log_cdf, log_survival
from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.likelihoods.base import OrderedPrediction, likelihood
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.likelihoods.law import Law, normal_moments
from ugmm_ppl.neuron import safe_log
from ugmm_ppl.nn.spaces import SCALE_FLOOR
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Components, Ops, Outputs, PerChain, PerRow, RowDraws, RowMatrices, Values

QUADRATURE_POINTS = np.array([-9.0, -7.0, -5.5, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0, 9.0])
"""Distances from the location of a component, in its scales, between which its density is smooth."""


@likelihood
@dataclasses.dataclass(frozen=True)
class Mixture(Family):
    """p(y | outputs) = sum_m weights_m N(y; loc_m, scale_m^2).

    The 3 M outputs are the mixture logits, the locations and the log scales, in this order.

    Args:
        components: Number M of components.
        shared: Parameters that all rows share, of "logit", "loc" and "scale".
    """

    components: int = 3

    standardizes: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.settle(self, components=checks.count("components", self.components))
        super().__post_init__()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Logits, locations and scales, spread over the standardised target at the start."""
        m = self.components
        loc = tuple(np.linspace(-0.5, 0.5, m)) if m > 1 else (0.0,)
        return (
            Parameter("logit", size=m),
            Parameter("loc", start=loc, size=m),
            Parameter("scale", "log", start=-0.5, least=SCALE_FLOOR, size=m),
        )

    def check(self, y: Any, rows: int) -> PerRow:
        """Finite targets as float64 `(B,)`."""
        return checks.targets(y, rows)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """UnivariateGaussianMixture of the PPL."""
        return backend.dist.UnivariateGaussianMixture(of["loc"], of["scale"], logits=of["logit"])

    def law(self, of: Values) -> Law:
        """The same in NumPy."""
        return MixtureLaw(of["loc"], of["scale"], neuron.log_normalize(NUMPY, of["logit"]))

    def log_tails(self, ops: Ops, of: Values, y: Array) -> tuple[Array, Array]:
        """Both by log-sum-exp of their components, exact however far out."""
        log_weights = neuron.log_normalize(ops, of["logit"])
        mixture = GaussianMixture(of["loc"], of["scale"], ops.exp(log_weights), log_weights)
        return log_cdf(ops, y, mixture), log_survival(ops, y, mixture)

    def arrays(self, outputs: Outputs) -> tuple[Components, Components, Components]:
        """(loc, scale, logits) of the mixture in NumPy, `(..., M)` each, from complete outputs."""
        of = self.of(NUMPY, outputs)
        return of["loc"], of["scale"], of["logit"]

    def log_prob(self, outputs: Outputs, y: PerRow) -> PerRow:
        """Log density of the mixture at the observed y."""
        loc, scale, logits = self.arrays(outputs)
        with np.errstate(over="ignore"):  # of a y that is far away
            return neuron.log_prob(NUMPY, y, loc, scale, neuron.log_normalize(NUMPY, logits))

    def information(self, outputs: Outputs) -> RowMatrices:
        """By Gauss-Legendre quadrature between points a few scales from each other, those of all components.

        s = (r - weights, r z / scale, r (z^2 - 1)) with respect to logits, locations and log scales, where r are the
        responsibilities and z = (y - loc) / scale.
        """
        if self.shared:  # then the outputs are in another order
            return super().information(outputs)
        loc, scale, logits = (a[:, None, :] for a in self.arrays(outputs))  # (B, 1, M)
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
        loc, scale, logits = self.arrays(outputs)
        k = gumbel_max(logits, rng)[..., None]
        loc, scale = np.take_along_axis(loc, k, -1)[..., 0], np.take_along_axis(scale, k, -1)[..., 0]
        return loc + scale * rng.normal(size=loc.shape)

    def prediction(
        self, outputs: Outputs, units: Standardizer | None, backend: Backend, weights: PerChain | None = None
    ) -> RegressionPrediction:
        """The posterior predictive density, a mixture over draws and components, in the units of the data."""
        loc, scale, logits = self.arrays(outputs)
        if units is not None:
            loc, scale = units.restore(loc), scale * units.scale
        return RegressionPrediction(loc, scale, neuron.log_normalize(NUMPY, logits), backend, weights)


class MixtureLaw(Law):
    """Gaussian mixtures.

    Args:
        loc: Locations `(..., M)`.
        scale: Scales `(..., M)`.
        log_weights: Log weights `(..., M)`.
    """

    discrete = False

    def __init__(self, loc: Components, scale: Components, log_weights: Components) -> None:
        self.loc, self.scale, self.log_weights = np.broadcast_arrays(loc, scale, log_weights)
        self.weights = np.exp(self.log_weights)

    def log_prob(self, y: RowDraws) -> RowDraws:
        """`ugmm_ppl.neuron.log_prob`."""
        with np.errstate(over="ignore"):  # of a y that is far away
            return neuron.log_prob(NUMPY, np.asarray(y, dtype=np.float64), self.loc, self.scale, self.log_weights)

    def cdf(self, y: RowDraws) -> RowDraws:
        """Weighted sum of normal distribution functions."""
        return self._averaged(y, 1.0)

    def survival(self, y: RowDraws) -> RowDraws:
        """The same from the other side."""
        return self._averaged(y, -1.0)

    def _averaged(self, y: RowDraws, side: float) -> RowDraws:
        ndtr = require("scipy.special", "diagnostics", ("scipy",)).ndtr
        z = (np.asarray(y, dtype=np.float64)[..., None] - self.loc) / self.scale
        return np.sum(self.weights * ndtr(side * z), -1)

    def quantile(self, level: RowDraws) -> RowDraws:
        """Between the smallest and the largest quantile of the components."""
        ndtri = require("scipy.special", "diagnostics", ("scipy",)).ndtri
        level = np.broadcast_to(level, np.broadcast_shapes(np.shape(level), self.loc.shape[:-1]))
        each = self.loc + self.scale * ndtri(level)[..., None]
        each = np.where(self.weights > 0.0, each, each[..., :1])
        low, high = each.min(-1).ravel(), each.max(-1).ravel()
        parts = [np.broadcast_to(a, each.shape).reshape(len(low), -1) for a in (self.loc, self.scale, self.log_weights)]

        def short(y: PerRow, number: PerRow) -> PerRow:
            i = number.astype(int)
            return MixtureLaw(*(part[i] for part in parts)).cdf(y) - level.ravel()[i]

        numbers = np.arange(len(low))
        apart = (short(low, numbers) < 0.0) & (short(high, numbers) > 0.0)
        if apart.any():
            find_root = require("scipy.optimize.elementwise", "diagnostics", ("scipy",)).find_root
            low[apart] = find_root(short, (low[apart], high[apart]), args=(numbers[apart].astype(np.float64),)).x
        return low.reshape(level.shape)

    def upper_quantile(self, level: RowDraws) -> RowDraws:
        """Of the mirror image."""
        return -MixtureLaw(-self.loc, self.scale, self.log_weights).quantile(level)

    def moments_between(self, low: RowDraws, high: RowDraws) -> tuple[RowDraws, RowDraws]:
        """Weighted sums of those of the components."""
        ends = (np.asarray(end)[..., None] for end in (low, high))
        first, second = (np.sum(self.weights * each, -1) for each in normal_moments(self.loc, self.scale, *ends))
        return first, second

    @property
    def mean(self) -> RowDraws:
        """Weighted mean of the locations."""
        return neuron.mean(NUMPY, self.loc, self.weights)

    @property
    def variance(self) -> RowDraws:
        """That of the scales and of the locations."""
        return neuron.variance(NUMPY, self.loc, self.scale, self.weights)

    def sample(self, rng: np.random.Generator) -> RowDraws:
        """A component by the Gumbel-max trick, then a value from it."""
        k = gumbel_max(self.log_weights, rng)[..., None]
        loc, scale = (np.take_along_axis(a, k, -1)[..., 0] for a in (self.loc, self.scale))
        return loc + scale * rng.normal(size=loc.shape)


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
