"""Classifier: y ~ Categorical(logits = outputs of the network)."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.model.base import NetworkModel
from ugmm_ppl.network import Network
from ugmm_ppl.neuron import log_normalize
from ugmm_ppl.ops import NUMPY, Array
from ugmm_ppl.prediction import ClassPrediction
from ugmm_ppl.prior import Prior

if TYPE_CHECKING:
    from ugmm_ppl.backend import Backend
    from ugmm_ppl.data import Standardizer


@dataclasses.dataclass(frozen=True, eq=False)
class Classifier(NetworkModel):
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
        checks.model_parts(self.network, self.prior)
        checks.count("classes", self.classes, least=2)

    @property
    def num_outputs(self) -> int:
        """One logit per class."""
        return self.classes

    @property
    def real_target(self) -> bool:
        """False: y is a class code."""
        return False

    def check_target(self, y: Any, rows: int) -> np.ndarray:
        """Class codes as int64 `(B,)`."""
        return checks.labels(y, rows, self.classes)

    def likelihood(self, backend: Backend, outputs: Array) -> Any:
        """Categorical of the PPL."""
        return backend.dist.Categorical(logits=outputs)

    def log_likelihood(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Log softmax at the observed class."""
        log_probs = log_normalize(NUMPY, outputs)
        at = np.broadcast_to(y[..., None], (*outputs.shape[:-1], 1))
        return np.take_along_axis(log_probs, at, axis=-1)[..., 0]

    def information(self, outputs: np.ndarray) -> np.ndarray:
        """diag(p) - p p^T with class probabilities p."""
        probs = np.exp(log_normalize(NUMPY, outputs))
        return probs[..., None] * (np.eye(self.classes) - probs[..., None, :])

    def sample_target(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Class codes by the Gumbel-max trick."""
        return np.argmax(outputs + rng.gumbel(size=outputs.shape), axis=-1)

    def prediction(
        self, outputs: np.ndarray, units: Standardizer | None, backend: Backend, weights: np.ndarray | None = None
    ) -> ClassPrediction:
        """Class probabilities."""
        draws = np.empty(outputs.shape)
        for index in np.ndindex(outputs.shape[:2]):  # a draw at a time: no temporaries of the size of all
            draws[index] = np.exp(log_normalize(NUMPY, outputs[index].astype(np.float64)))
        return ClassPrediction(draws, weights)

    def output_names(self, class_names: list[str] | None) -> list[str]:
        """The classes."""
        return class_names or [str(c) for c in range(self.classes)]
