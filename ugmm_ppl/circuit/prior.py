"""Priors on the parameters of a circuit, described as plain data."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ugmm_ppl.circuit import checks
from ugmm_ppl.distributions.described import SIMPLEX, Distribution, describe, from_description, normal
from ugmm_ppl.priors import PriorValue

ON_SIMPLEX = ("components", "bins", "sums", "roots", "classes")
ROLES = ("loc", "log_scale", "scale", *ON_SIMPLEX)


@dataclasses.dataclass(frozen=True, eq=False)
class CircuitPrior:
    """Prior over all parameters of a circuit, one entry per role.

    Weights are described by a Dirichlet (over the weights, sites `...weights`; a scalar concentration is symmetric) or
    by any other distribution or callable (over their logits, sites `...logits`).

    Args:
        loc: Locations of the components of the leaves, in units of the standardised feature. Default Normal(0, 1).
        log_scale: Log of their scales. Default Normal(-0.5, 0.5).
        scale: Their scales, in place of log_scale, e.g. `dist.InverseGamma(3.0, 1.0)`.
        components: Mixture weights of the leaves. Default Normal(0, 1) over logits.
        bins: Probabilities of codes and bins. Default Normal(0, 1) over logits.
        sums: Transitions from the states of a node to those of a child. Default Normal(0, 1) over logits.
        roots: Weights of trees and root states, by class. Default Normal(0, 1) over logits.
        classes: Probabilities of the classes. Default Normal(0, 1) over logits.

    Raises:
        ValueError: Both of log_scale and scale, or a distribution of another support.
        TypeError: A value that is neither a distribution nor a callable.
    """

    loc: PriorValue | None = None
    log_scale: PriorValue | None = None
    scale: PriorValue | None = None
    components: PriorValue | None = None
    bins: PriorValue | None = None
    sums: PriorValue | None = None
    roots: PriorValue | None = None
    classes: PriorValue | None = None

    def __post_init__(self) -> None:
        """Check the entries."""
        given = {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}
        checks.prior_roles(given, ON_SIMPLEX)

    def described(self) -> dict[str, Any]:
        """The entries as JSON values."""
        return {role: describe(getattr(self, role)) for role in ROLES}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> CircuitPrior:
        """What `described` described, in a file that messages call `file`."""
        return cls(**{role: from_description(value, file) for role, value in parts.items()})

    def sites(self) -> dict[str, PriorValue]:
        """Site -> prior, of all sites that a circuit can have."""
        scale = "log_scale" if self.scale is None else "scale"
        found: dict[str, PriorValue] = {
            "leaves.loc": self.loc or normal(0.0, 1.0),
            f"leaves.{scale}": getattr(self, scale) or normal(-0.5, 0.5),
        }
        for role in ON_SIMPLEX:
            value = getattr(self, role) or normal(0.0, 1.0)
            over_weights = isinstance(value, Distribution) and value.name in SIMPLEX
            stem = "leaves" if role == "components" else role
            found[f"{stem}.{'weights' if over_weights else 'logits'}"] = value
        return found
