"""A model as a model function of a PPL."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.typing import Array, Inputs


@dataclasses.dataclass(frozen=True, eq=False)
class Bound:
    """The program of a model in a PPL, made by `BaseModel.bind`; an object, so that it goes to processes by pickle.

    Attributes:
        model: What it runs.
        backend: "pyro" or "numpyro".
    """

    model: Callable[..., Array]
    backend: str

    def __call__(
        self,
        x: Inputs,
        y: Array | None = None,
        weights: Array | None = None,
        *,
        data_size: float | None = None,
        train: bool = False,
    ) -> Array:
        """Run the model; arguments as in `BaseModel.__call__`."""
        primitives = load_backend(self.backend)
        data = (primitives.array(a) if isinstance(a, np.ndarray) else a for a in (x, y, weights))
        return self.model(primitives, *data, data_size=data_size, train=train)
