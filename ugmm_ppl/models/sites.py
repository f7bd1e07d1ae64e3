"""The table of the sites of a model: prior, shape and axes of every parameter."""

from __future__ import annotations

from typing import NamedTuple

from ugmm_ppl.priors import PriorValue


class SiteSpec(NamedTuple):
    """One parameter.

    Attributes:
        prior: A described distribution, or a callable, which is free to sample hyper-parameters.
        shape: Shape of the value.
        axes: Names of its axes, for ArviZ.
    """

    prior: PriorValue
    shape: tuple[int, ...]
    axes: tuple[str, ...]
