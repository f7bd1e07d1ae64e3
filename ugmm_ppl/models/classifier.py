"""Classifier: y ~ Categorical(logits = outputs of the network)."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.models.base import kind
from ugmm_ppl.models.classes import ClassModel
from ugmm_ppl.models.network import NetworkModel
from ugmm_ppl.nn.network import Network
from ugmm_ppl.priors import Prior


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class Classifier(ClassModel, NetworkModel):
    """p(y | x) = Categorical(y; logits = network(x)), an exact density of y given x.

    Args:
        network: The network.
        classes: Number of classes; y holds codes 0..classes-1.
        prior: Prior over the parameters.
    """

    network: Network
    classes: int
    prior: Prior = dataclasses.field(default_factory=Prior)

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.model_parts(self.network, self.prior, Network, Prior)
        checks.settle(self, classes=checks.count("classes", self.classes, least=2))

    def check_target(self, y: Any, rows: int) -> np.ndarray:
        """Class codes as int64 `(B,)`."""
        return checks.labels(y, rows, self.classes)

    @property
    def log_densities(self) -> bool:
        """Those of a ugmm readout."""
        return self.network.readout == "ugmm"

    def log_likelihood(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Log softmax at the observed class."""
        log_probs = self.log_probs(outputs)
        at = np.broadcast_to(y[..., None], (*outputs.shape[:-1], 1))
        return np.take_along_axis(log_probs, at, axis=-1)[..., 0]

    def information(self, outputs: np.ndarray) -> np.ndarray:
        """diag(p) - p p^T with class probabilities p."""
        probs = np.exp(self.log_probs(outputs))
        return probs[..., None] * (np.eye(self.classes) - probs[..., None, :])
