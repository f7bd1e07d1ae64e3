"""The register of fits: which class a fit of a model has."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.posterior.predictive import Predictive

F = TypeVar("F", bound="type[Predictive]")

_FITS: dict[type, type[Predictive]] = {}


def fit_of(model: type) -> Callable[[F], F]:
    """Register the class of the fits of a class of models, and of what is derived from it."""

    def register(fit: F) -> F:
        _FITS[model] = fit
        return fit

    return register


def fit_type(model: BaseModel) -> type[Any]:
    """The class of the fits of a model."""
    return next(_FITS[cls] for cls in type(model).__mro__ if cls in _FITS)
