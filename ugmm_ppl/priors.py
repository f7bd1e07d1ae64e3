"""Priors on the parameters of the neurons, by role and by layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.distributions.described import POSITIVE, SIMPLEX, Distribution, describe, from_description, normal
from ugmm_ppl.typing import Array

PriorValue: TypeAlias = Distribution | Callable[[Backend, str, tuple[int, ...]], Array]
"""A distribution, or a function (backend, site name, shape) -> array of that shape, free to sample hyper-parameters."""

NEURON_ROLES = ("loc", "log_scale", "scale", "logits", "weights")
ROLES = (*NEURON_ROLES, "readout", "readout_bias")


@dataclasses.dataclass(frozen=True, eq=False)
class Prior:
    """Prior over all parameters of a network, one entry per role.

    A scale is described either by `log_scale` (default) or by `scale`, the weights either by `logits` (default) or by
    `weights`; the site is named after the one that is given, so its name says its space.

    Args:
        loc: Component locations, in units of the standardised layer input. Default Normal(0, 1).
        log_scale: Log of the component scales. Default Normal(-0.5, 0.5).
        logits: Mixture logits. Default Normal(0, 1).
        readout: Weights of the linear readout. Default Normal(0, 1 / sqrt(J)) with J the last hidden width.
        readout_bias: Bias of the linear readout. Default Normal(0, 1).
        scale: Component scales, in place of log_scale, e.g. `dist.InverseGamma(3.0, 1.0)`.
        weights: Mixture weights on the simplex, in place of logits, e.g. `dist.Dirichlet(0.5)`; a scalar concentration
            is symmetric.
        layers: Overrides by layer number, e.g. `{0: dict(loc=dist.Normal(0.0, 3.0))}`.

    Raises:
        ValueError: An unknown role, or both spaces of one parameter.
        TypeError: A value that is neither a distribution nor a callable.
    """

    loc: PriorValue | None = None
    log_scale: PriorValue | None = None
    logits: PriorValue | None = None
    readout: PriorValue | None = None
    readout_bias: PriorValue | None = None
    scale: PriorValue | None = None
    weights: PriorValue | None = None
    layers: Mapping[int, Mapping[str, PriorValue]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the entries."""
        roles = {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}
        checks.prior_roles("Prior", roles, Distribution, SIMPLEX, POSITIVE)
        number = "layer number in Prior.layers"
        checks.settle(self, layers={checks.count(number, i, least=0): dict(own) for i, own in self.layers.items()})
        for index, given in self.layers.items():
            checks.names(f"role in Prior.layers[{index}]", given, NEURON_ROLES)
            checks.prior_roles(f"Prior.layers[{index}]", given, Distribution, SIMPLEX, POSITIVE)

    def layer(self, index: int | None, *, tied: bool) -> dict[str, PriorValue]:
        """Priors of one layer of neurons: role -> prior, in the order in which the sites are sampled.

        Args:
            index: Number of the layer, for the overrides, or None for a layer that stands alone.
            tied: No `loc` (tied means).
        """
        given = {role: getattr(self, role) for role in NEURON_ROLES if getattr(self, role) is not None}
        override = dict(self.layers.get(index, {})) if index is not None else {}
        for one, other in (("scale", "log_scale"), ("weights", "logits")):
            if one in override or other in override:  # the space that the override names replaces the other one
                given.pop(one, None), given.pop(other, None)
        given |= override
        roles: dict[str, PriorValue] = {} if tied else {"loc": given.get("loc", normal(0.0, 1.0))}
        scale = "scale" if "scale" in given else "log_scale"
        roles[scale] = given.get(scale, normal(-0.5, 0.5))
        weights = "weights" if "weights" in given else "logits"
        roles[weights] = given.get(weights, normal(0.0, 1.0))
        return roles

    def linear(self, in_features: int) -> dict[str, PriorValue]:
        """Priors of the linear readout with that many inputs: role -> prior."""
        return {
            "weight": self.readout or normal(0.0, 1.0 / math.sqrt(in_features)),
            "bias": self.readout_bias or normal(0.0, 1.0),
        }

    def described(self) -> dict[str, Any]:
        """The entries as JSON values."""
        layers = {str(i): {r: describe(p) for r, p in roles.items()} for i, roles in self.layers.items()}
        return {role: describe(getattr(self, role)) for role in ROLES} | {"layers": layers}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Prior:
        """What `described` described, in a file that messages call `file`."""
        entries = {role: from_description(value, file) for role, value in parts.items() if role != "layers"}
        layers = {
            int(i): {r: from_description(p, file) for r, p in roles.items()} for i, roles in parts["layers"].items()
        }
        return cls(**entries, layers=layers)

    def predictive(
        self, model: Any, x: Any, *, num_draws: int = 100, backend: str = "numpyro", seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Draw parameters from this prior and data from the model under them.

        Args:
            model: A `Classifier` or `Regressor`; its own prior is replaced by this one.
            x: Inputs `(B, K)`, standardised if the model is meant to see standardised inputs.
            num_draws: Number of draws S.
            backend: "pyro" or "numpyro".
            seed: Seed of the draws.

        Returns:
            Site name -> array `(S, ...)`; besides the parameters `outputs` `(S, B, O)`, the readout, and `y` `(S, B)`.
        """
        found: dict[str, np.ndarray] = dataclasses.replace(model, prior=self).prior_predictive(
            x, num_draws=num_draws, backend=backend, seed=seed
        )
        return found


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
    checks.prior_shape(name, value, shape)
    return value
