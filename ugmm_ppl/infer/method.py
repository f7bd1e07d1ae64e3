"""The register of trainers that methods bring with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T", bound=Callable[..., Any])

TRAINERS: dict[str, Callable[..., Any]] = {}
"""By the name of the method: (backend, model, guide, data) -> `ugmm_ppl.backends.trainer.Trainer`."""


def trainer_of(method: str) -> Callable[[T], T]:
    """Register what takes the steps of a method, in place of the trainer of the backend."""

    def register(trainer: T) -> T:
        TRAINERS[method] = trainer
        return trainer

    return register
