"""Densities of x, and of a class of it."""

from __future__ import annotations

from typing import Any

from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.likelihoods.categorical import Categorical
from ugmm_ppl.models.base import BaseModel


class DensityModel(BaseModel):
    """A density of x, and of a class where it has classes; its outputs `(..., B, classes)` are log p(x, class).

    Predictions treat all draws alike; `posterior_class` of the fits weighs them by p(x | parameters).

    Attributes:
        classes: Number of classes; None for a density of x alone, which has one output.
    """

    classes: Any

    @cached_property
    def likelihood(self) -> Categorical:  # type: ignore[override]
        """p(class | x), the outputs normalised over the last axis."""
        return Categorical(self.classes or 1)

    @property
    def needs_target(self) -> bool:
        """False: where the class is not known, it is summed out."""
        return False

    @property
    def observed(self) -> str:
        """The density is that of x, and of the class."""
        return "x"

    @property
    def information(self) -> None:
        """None: the outputs are no parameters of a density of y."""
        return None
