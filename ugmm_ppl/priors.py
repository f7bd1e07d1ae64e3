"""Priors on the parameters of the neurons, by role and by layer."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.distributions.described import POSITIVE, SIMPLEX, Distribution, describe, from_description
from ugmm_ppl.nn.base import Role
from ugmm_ppl.nn.network import READOUT
from ugmm_ppl.nn.spaces import NATURAL, TWINS
from ugmm_ppl.typing import Array, SiteDraws

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
        likelihood: Parameters that all rows share, as the likelihood calls them, e.g.
            `{"log_scale": dist.Normal(-1.0, 0.3)}`.
        layers: Overrides by layer number, e.g. `{0: dict(loc=dist.Normal(0.0, 3.0))}`, of all roles that the layer has.

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
    likelihood: Mapping[str, PriorValue] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the entries."""
        roles = {role: getattr(self, role) for role in ROLES if getattr(self, role) is not None}
        checks.prior_roles("Prior", roles, Distribution, SIMPLEX, POSITIVE)
        number = "layer number in Prior.layers"
        checks.settle(self, layers={checks.count(number, i, least=0): dict(own) for i, own in self.layers.items()})
        checks.settle(self, likelihood=dict(self.likelihood))
        for role, value in self.likelihood.items():
            checks.prior_value(f"Prior.likelihood[{role!r}]", value, Distribution)
        for index, given in self.layers.items():
            checks.prior_roles(f"Prior.layers[{index}]", given, Distribution, SIMPLEX, POSITIVE)

    def over(self, roles: Mapping[str, Role], stem: str = "") -> dict[str, PriorValue]:
        """Priors of the parameters of a layer: role -> prior, in the order of the roles.

        A role is called as it was given: `scale` or `log_scale`, `weights` or `logits`.

        Args:
            roles: What `Layer.roles` says; those of a network have the places of its layers before them.
            stem: Place of the layer in its network: `layers.0`, for the overrides, or `readout`; "" if it stands alone.
        """
        found: dict[str, PriorValue] = {}
        for site, spec in roles.items():
            inner, dot, role = site.rpartition(".")
            given = self._given(stem or inner)
            name = NATURAL[role] if NATURAL.get(role) in given else role
            found[f"{inner}{dot}{name}"] = given.get(name, spec.prior)
        return found

    def check_layers(self, sites: Iterable[str], sizes: Any = None) -> None:
        """Refuse overrides of layers, or of roles, that a network of these sites does not have."""
        known: dict[int, list[str]] = {}
        for site in sites:
            stem, _, role = site.rpartition(".")
            if (number := _number(stem)) is not None:
                known.setdefault(number, []).extend([role, NATURAL[role]] if role in NATURAL else [role])
        checks.prior_layers("Prior", self.layers, known, sizes)

    def _given(self, stem: str) -> dict[str, PriorValue]:
        """Entries for the layer of a stem by role."""
        if stem == READOUT:
            entries = {"weight": self.readout, "bias": self.readout_bias}
            return {role: prior for role, prior in entries.items() if prior is not None}
        given = {role: getattr(self, role) for role in NEURON_ROLES if getattr(self, role) is not None}
        number = _number(stem)
        override = {} if number is None else self.layers.get(number, {})
        for pair in TWINS.items():
            if any(role in override for role in pair):  # the space that the override names replaces the other one
                given = {role: prior for role, prior in given.items() if role not in pair}
        return given | dict(override)

    def described(self) -> dict[str, Any]:
        """The entries as JSON values."""
        layers = {str(i): {r: describe(p) for r, p in roles.items()} for i, roles in self.layers.items()}
        own = {role: describe(value) for role, value in self.likelihood.items()}
        return {role: describe(getattr(self, role)) for role in ROLES} | {"layers": layers, "likelihood": own}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Prior:
        """What `described` described, in a file that messages call `file`."""
        entries = {role: from_description(value, file) for role, value in parts.items() if role in ROLES}
        own = {role: from_description(value, file) for role, value in parts.get("likelihood", {}).items()}
        layers = {
            int(i): {r: from_description(p, file) for r, p in roles.items()} for i, roles in parts["layers"].items()
        }
        return cls(**entries, layers=layers, likelihood=own)

    def predictive(
        self, model: Any, x: Any, *, num_draws: int = 100, backend: str = "numpyro", seed: int = 0, **extras: Any
    ) -> SiteDraws:
        """Draw parameters from this prior and data from the model under them.

        Args:
            model: A `Classifier` or `Regressor`; its own prior is replaced by this one.
            x: Inputs `(B, K)`, standardised if the model is meant to see standardised inputs.
            num_draws: Number of draws S.
            backend: "pyro" or "numpyro".
            seed: Seed of the draws.
            extras: Extra columns of the rows, such as `trials`.

        Returns:
            Site name -> array `(S, ...)`; besides the parameters the complete `outputs` `(S, B, O)`, and `y` `(S, B)`.
        """
        found: dict[str, np.ndarray] = dataclasses.replace(model, prior=self).prior_predictive(
            x, num_draws=num_draws, backend=backend, seed=seed, **extras
        )
        return found


def _number(stem: str) -> int | None:
    """The number of a layer, of the stem `layers.0` or a longer one."""
    first, _, rest = stem.partition(".")
    return int(rest.partition(".")[0]) if first == "layers" else None


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
