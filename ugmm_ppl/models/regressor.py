"""Regressor: y ~ a univariate Gaussian mixture whose parameters are the outputs of the network."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks, neuron
from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.likelihoods.prediction import RegressionPrediction
from ugmm_ppl.models.base import kind
from ugmm_ppl.models.network import NetworkModel
from ugmm_ppl.nn.network import Network
from ugmm_ppl.nn.spaces import SCALE_FLOOR
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.priors import Prior
from ugmm_ppl.typing import Array, Ops

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.data.standardizer import Standardizer


QUADRATURE_POINTS = np.array([-9.0, -7.0, -5.5, -4.0, -3.0, -2.0, -1.0, 0.0, 1.0, 2.0, 3.0, 4.0, 5.5, 7.0, 9.0])
"""Distances from the location of a component, in its scales, between which its density is smooth."""

LARGEST_LOG_SCALE = 88.0
"""Its exponential is a float32."""


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class Regressor(NetworkModel):
    """p(y | x) = sum_m weights_m(x) N(y; loc_m(x), scale_m(x)^2), an exact density of y given x.

    The 3 M outputs of the network are the mixture logits, the locations and the log scales, in this order.

    Args:
        network: The network.
        components: Number M of mixture components of the output.
        prior: Prior over the parameters.
    """

    network: Network
    components: int = 3
    prior: Prior = dataclasses.field(default_factory=Prior)

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.model_parts(self.network, self.prior, Network, Prior)
        checks.settle(self, components=checks.count("components", self.components))

    @property
    def num_outputs(self) -> int:
        """Three per component."""
        return 3 * self.components

    @property
    def real_target(self) -> bool:
        """True: y is a real number."""
        return True

    def check_target(self, y: Any, rows: int) -> np.ndarray:
        """Finite targets as float64 `(B,)`."""
        return checks.targets(y, rows)

    def mixture(self, ops: Ops, outputs: Array) -> tuple[Array, Array, Array]:
        """(loc, scale, logits) of the mixture, `(..., M)` each, from outputs `(..., 3 M)`."""
        m = self.components
        logits, loc, log_scale = outputs[..., :m], outputs[..., m : 2 * m], outputs[..., 2 * m :]
        return loc, ops.at_least(ops.exp(log_scale), SCALE_FLOOR), logits

    def likelihood(self, backend: Backend, outputs: Array) -> Any:
        """UnivariateGaussianMixture of the PPL."""
        loc, scale, logits = self.mixture(backend.ops, outputs)
        return backend.dist.UnivariateGaussianMixture(loc, scale, logits=logits)

    def defined(self, outputs: np.ndarray) -> np.ndarray:
        """Finite ones that make a finite scale."""
        log_scale = outputs[..., 2 * self.components :]
        return np.all(np.isfinite(outputs), axis=-1) & np.all(log_scale < LARGEST_LOG_SCALE, axis=-1)

    def log_likelihood(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Log density of the mixture at the observed y."""
        loc, scale, logits = self.mixture(NUMPY, outputs)
        with np.errstate(over="ignore"):  # of a y that is far away
            return neuron.log_prob(NUMPY, y, loc, scale, neuron.log_normalize(NUMPY, logits))

    def information(self, outputs: np.ndarray) -> np.ndarray:
        """By Gauss-Legendre quadrature between points a few scales from each other, those of all components.

        s = (r - weights, r z / scale, r (z^2 - 1)) with respect to logits, locations and log scales, where r are the
        responsibilities and z = (y - loc) / scale.
        """
        loc, scale, logits = (a[:, None, :] for a in self.mixture(NUMPY, outputs))  # (B, 1, M)
        log_weights = neuron.log_normalize(NUMPY, logits)
        points = np.sort((loc[..., None] + scale[..., None] * QUADRATURE_POINTS).reshape(len(outputs), -1))
        nodes, masses = np.polynomial.legendre.leggauss(8)
        half = 0.5 * np.diff(points)[..., None]
        y = (points[:, :-1, None] + half * (1.0 + nodes)).reshape(len(outputs), -1)  # (B, Q)
        mass = (half * masses).reshape(y.shape) * np.exp(neuron.log_prob(NUMPY, y, loc, scale, log_weights))
        r, z = neuron.responsibilities(NUMPY, y, loc, scale, log_weights), (y[..., None] - loc) / scale
        score = np.concatenate([r - np.exp(log_weights), r * z / scale, r * (z * z - 1.0)], axis=-1)  # (B, Q, 3 M)
        return np.swapaxes(score * mass[..., None], 1, 2) @ score

    def sample_target(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """A component by the Gumbel-max trick, then a value from it."""
        loc, scale, logits = self.mixture(NUMPY, outputs)
        k = gumbel_max(logits, rng)[..., None]
        loc, scale = np.take_along_axis(loc, k, -1)[..., 0], np.take_along_axis(scale, k, -1)[..., 0]
        return loc + scale * rng.normal(size=loc.shape)

    def prediction(
        self, outputs: np.ndarray, units: Standardizer | None, backend: Backend, weights: np.ndarray | None = None
    ) -> RegressionPrediction:
        """The posterior predictive density, a mixture over draws and components, in the units of the data."""
        loc, scale, logits = self.mixture(NUMPY, outputs)
        if units is not None:
            loc, scale = units.restore(loc), scale * units.scale
        return RegressionPrediction(loc, scale, neuron.log_normalize(NUMPY, logits), backend, weights)

    def output_names(self, class_names: list[str] | None) -> list[str]:
        """The roles of the outputs, by component."""
        return [f"{role}_{m}" for role in ("logit", "loc", "log_scale") for m in range(self.components)]

    def start(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Components spread over the standardised target, each of scale 0.6."""
        if self.network.readout == "linear":
            m = self.components
            loc = np.linspace(-0.5, 0.5, m) if m > 1 else np.zeros(1)
            values["readout.bias"] = np.concatenate([np.zeros(m), loc, np.full(m, -0.5)])
            values["readout.weight"] = 0.1 * values["readout.weight"]
        return values
