"""The register of fits: which class a fit of a model has."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

from ugmm_ppl.models.base import Model

if TYPE_CHECKING:
    from ugmm_ppl.fitting.result import Fit

F = TypeVar("F", bound="type[Fit]")

_FITS: dict[type, type[Fit]] = {}


def fit_of(model: type) -> Callable[[F], F]:
    """Register the class of the fits of a class of models, and of what is derived from it."""

    def register(fit: F) -> F:
        _FITS[model] = fit
        return fit

    return register


def fit_type(model: Model) -> type[Fit]:
    """The class of the fits of a model."""
    return next(_FITS[cls] for cls in type(model).__mro__ if cls in _FITS)
