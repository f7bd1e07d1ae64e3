"""Categorical: y is a class code, and the outputs are logits of the classes."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any, ClassVar

import numpy as np

from ugmm_ppl import checks, metrics
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.likelihoods.base import Likelihood, likelihood
from ugmm_ppl.neuron import if_any_possible, log_normalize, near_zero
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Outputs, PerChain, PerRow, Probs, RowDraws, RowMatrices


@likelihood
@dataclasses.dataclass(frozen=True)
class Categorical(Likelihood):
    """p(y = c | outputs) = exp(outputs_c) / sum_c' exp(outputs_c').

    Where all outputs of a row are -inf, as for inputs so far out that no class reaches them, all classes count alike.

    Args:
        classes: Number of classes; y holds codes 0..classes-1.
        log_densities: Whether outputs are log densities, which may be -inf and, all together, far from zero; for the
            logits of a linear readout False is a little faster.
    """

    classes: int
    log_densities: bool = True

    discrete: ClassVar[bool] = True
    picture: ClassVar[str] = "classes"
    takes_log_densities: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.settle(
            self,
            classes=checks.count("classes", self.classes),
            log_densities=checks.flag("log_densities", self.log_densities),
        )

    @property
    def num_outputs(self) -> int:
        """One per class."""
        return self.classes

    @property
    def num_classes(self) -> int:
        """Number of classes."""
        return self.classes

    def names(self, class_names: list[str] | None) -> list[str]:
        """The classes."""
        return class_names or [str(c) for c in range(self.classes)]

    def check(self, y: Any, rows: int) -> PerRow:
        """Class codes as int64 `(B,)`."""
        return checks.labels(y, rows, self.classes)

    def distribution(self, backend: Backend, outputs: Array) -> Any:
        """Categorical of the PPL."""
        if self.log_densities:
            outputs = near_zero(backend.ops, if_any_possible(backend.ops, outputs))
        return backend.dist.Categorical(logits=outputs)

    def log_probs(self, outputs: Outputs) -> Probs:
        """log p(class | outputs) in NumPy, `(..., classes)` to the same."""
        return log_normalize(NUMPY, if_any_possible(NUMPY, outputs) if self.log_densities else outputs)

    def log_prob(self, outputs: Outputs, y: PerRow) -> PerRow:
        """Log softmax at the observed class."""
        at = np.broadcast_to(y[..., None], (*outputs.shape[:-1], 1))
        return np.take_along_axis(self.log_probs(outputs), at, axis=-1)[..., 0]

    def defined(self, outputs: Outputs) -> PerRow:
        """All but NaN and inf; -inf is an impossible class."""
        return np.all(outputs < np.inf, axis=-1)

    def information(self, outputs: Outputs) -> RowMatrices:
        """diag(p) - p p^T with class probabilities p."""
        probs = np.exp(self.log_probs(outputs))
        return probs[..., None] * (np.eye(self.classes) - probs[..., None, :])

    def sample(self, outputs: Outputs, rng: np.random.Generator) -> PerRow:
        """Class codes, by the Gumbel-max trick."""
        return gumbel_max(if_any_possible(NUMPY, outputs), rng)

    def prediction(
        self, outputs: Outputs, units: Standardizer | None, backend: Backend, weights: PerChain | None = None
    ) -> ClassPrediction:
        """p(class | x, parameters) of every draw."""
        del units, backend
        draws = np.empty(outputs.shape)
        for index in np.ndindex(outputs.shape[:2]):  # a draw at a time: no temporaries of the size of all
            draws[index] = np.exp(self.log_probs(outputs[index].astype(np.float64)))
        return ClassPrediction(draws, weights)


@dataclasses.dataclass(frozen=True)
class ClassPrediction:
    """Class probabilities.

    Attributes:
        draws: p(class | x, theta) for every posterior draw, `(C, S, B, classes)`.
        weights: What each chain counts for, `(C,)`; None if all count alike.
    """

    draws: Probs
    weights: PerChain | None = None

    @cached_property
    def probs(self) -> Probs:
        """Posterior predictive class probabilities, the mean over draws, weighted by chain, `(B, classes)`."""
        if self.weights is None:
            return self.draws.mean((0, 1), dtype=np.float64)
        return np.tensordot(self.weights, self.draws.mean(1, dtype=np.float64), 1)

    @property
    def label(self) -> PerRow:
        """Most probable class code, `(B,)`."""
        return self.probs.argmax(-1)

    def log_density(self, y: PerRow) -> PerRow:
        """log p(y | x, data) in nats of class codes y `(B,)`: `(B,)`."""
        return NUMPY.log(np.take_along_axis(self.probs, checks.labels(y, *self.probs.shape)[:, None], axis=-1)[:, 0])

    def profile(self, row: int, y: float) -> tuple[PerRow, RowDraws]:
        """The five most probable classes of a row and the observed one; and their probabilities."""
        shown = np.sort(np.unique(np.r_[np.argsort(-self.probs[row])[:5], int(y)]))
        return shown, self.probs[row, shown]

    def metrics(self, y: PerRow, row_weights: PerRow | None = None) -> dict[str, float]:
        """Accuracy, Brier score and ECE for observed class codes y `(B,)`; described at `ugmm_ppl.metrics.evaluate`."""
        return {
            "accuracy": metrics.accuracy(self.probs, y, row_weights=row_weights),
            "brier": metrics.brier(self.probs, y, row_weights=row_weights),
            "ece": metrics.expected_calibration_error(self.probs, y, row_weights=row_weights),
        }

    def columns(self, class_names: list[str] | None) -> dict[str, PerRow]:
        """The most probable class, and the probability of each."""
        names = class_names or [str(c) for c in range(self.probs.shape[1])]
        probs = {f"p({name})": p for name, p in zip(names, self.probs.T, strict=True)}
        return {"label": np.array(names)[self.label]} | probs
