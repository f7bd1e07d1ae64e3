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


TWINS = {"scale": "log_scale", "weights": "logits"}
"""Roles in natural space, and those of the same parameter in the space where it is unconstrained."""


NATURAL = {twin: role for role, twin in TWINS.items()}


def unconstrained(site: str) -> str:
    """The name that a site has in the space where it is unconstrained: `layers.0.log_scale` of `layers.0.scale`."""
    stem, _, role = site.rpartition(".")
    return f"{stem}.{TWINS.get(role, role)}"


def natural(site: str) -> str:
    """The name that a site has in natural space: `layers.0.scale` of `layers.0.log_scale`."""
    stem, _, role = site.rpartition(".")
    return f"{stem}.{NATURAL.get(role, role)}"
