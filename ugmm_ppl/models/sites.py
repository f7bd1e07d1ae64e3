"""The sites of a model: their priors, shapes and axes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.priors import PriorValue
from ugmm_ppl.typing import Array

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend


def draw(backend: Backend, prior: PriorValue, name: str, shape: tuple[int, ...], like: Array) -> Array:
    """Sample one site from its prior, inside a model.

    Args:
        backend: Where to sample.
        prior: A description, or a callable that does it all.
        name: Name of the site.
        shape: Shape of the value.
        like: Array whose dtype and device the value takes.

    Raises:
        ValueError: A callable returned another shape.
    """
    if isinstance(prior, Distribution):
        return backend.sample(name, backend.build(prior, shape, like))
    with backend.as_default():
        value = prior(backend, name, shape)
    if tuple(np.shape(value))[-len(shape) :] != shape:
        raise ValueError(
            f"the prior of {name} must return an array of shape {shape}; got shape {tuple(np.shape(value))}."
        )
    return value
