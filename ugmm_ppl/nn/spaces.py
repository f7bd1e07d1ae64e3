"""The spaces in which parameters are sampled: a scale or its logarithm, weights or their logits."""

from __future__ import annotations

from ugmm_ppl import neuron
from ugmm_ppl.typing import Array, Ops, Values

SCALE_FLOOR = 1e-6
"""Smallest scale of a component, in the unit of the layer's input."""

TWINS = {"scale": "log_scale", "weights": "logits"}
"""Roles in natural space, and those of the same parameter in the space where it is unconstrained."""

NATURAL = {twin: role for role, twin in TWINS.items()}


def unconstrained(site: str) -> str:
    """The name that a site has in the space where it is unconstrained: `layers.0.log_scale` of `layers.0.scale`."""
    stem, dot, role = site.rpartition(".")
    return f"{stem}{dot}{TWINS.get(role, role)}"


def natural(site: str) -> str:
    """The name that a site has in natural space: `layers.0.scale` of `layers.0.log_scale`."""
    stem, dot, role = site.rpartition(".")
    return f"{stem}{dot}{NATURAL.get(role, role)}"


def log_weights(ops: Ops, values: Values, stem: str) -> Array | None:
    """Log of the weights at the sites of a stem, whichever space they were sampled in; None if there are none."""
    if f"{stem}.logits" in values:
        return neuron.log_normalize(ops, values[f"{stem}.logits"])
    if f"{stem}.weights" in values:
        return neuron.log_normalize(ops, neuron.safe_log(ops, values[f"{stem}.weights"]))
    return None
