"""What models with one output per class share."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.likelihoods.prediction import ClassPrediction
from ugmm_ppl.models.base import Model
from ugmm_ppl.neuron import if_any_possible, log_normalize, near_zero
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.data.standardizer import Standardizer


class ClassModel(Model):
    """A model whose outputs `(..., B, classes)`, normalised over the last axis, are log p(class | x).

    Where all outputs of a row are -inf, as for inputs so far out that no class reaches them, all classes count alike.

    Attributes:
        classes: Number of classes; None for a density of x alone, which has one output.
    """

    classes: Any

    @property
    def num_outputs(self) -> int:
        """Number of classes, or one."""
        return self.classes or 1

    @property
    def real_target(self) -> bool:
        """False: y is a class code."""
        return False

    @property
    def log_densities(self) -> bool:
        """Whether the outputs are log densities, which may be -inf and, all together, far from zero."""
        return True

    def likelihood(self, backend: Backend, outputs: Array) -> Any:
        """p(class | x): Categorical of the PPL."""
        if self.log_densities:
            outputs = near_zero(backend.ops, if_any_possible(backend.ops, outputs))
        return backend.dist.Categorical(logits=outputs)

    def defined(self, outputs: np.ndarray) -> np.ndarray:
        """All but NaN and inf; -inf is an impossible class."""
        return np.all(outputs < np.inf, axis=-1)

    def log_probs(self, outputs: np.ndarray) -> np.ndarray:
        """log p(class | x) in NumPy."""
        return log_normalize(NUMPY, if_any_possible(NUMPY, outputs))

    def sample_target(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Class codes given x, by the Gumbel-max trick; 0 without classes."""
        return gumbel_max(if_any_possible(NUMPY, outputs), rng)

    def prediction(
        self, outputs: np.ndarray, units: Standardizer | None, backend: Backend, weights: np.ndarray | None = None
    ) -> ClassPrediction:
        """p(class | x, parameters) of every draw."""
        draws = np.empty(outputs.shape)
        for index in np.ndindex(outputs.shape[:2]):  # a draw at a time: no temporaries of the size of all
            draws[index] = np.exp(self.log_probs(outputs[index].astype(np.float64)))
        return ClassPrediction(draws, weights)

    def output_names(self, class_names: list[str] | None) -> list[str]:
        """The classes."""
        return class_names or [str(c) for c in range(self.num_outputs)]


class DensityModel(ClassModel):
    """A density of x, and of a class where it has classes; its outputs are log p(x, class).

    `prediction` treats all draws alike; `posterior_class` of the fits weighs them by p(x | parameters).
    """

    @property
    def needs_target(self) -> bool:
        """False: where the class is not known, it is summed out."""
        return False

    @property
    def observed(self) -> str:
        """The density is that of x, and of the class."""
        return "x"
