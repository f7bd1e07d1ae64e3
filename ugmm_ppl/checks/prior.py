"""Priors, by role and as a model samples them."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks.basic import names
from ugmm_ppl.typing import Array


def one_space(where: str, given: Collection[str], one: str, other: str) -> None:
    """Refuse priors over the same parameters in two spaces."""
    if one in given and other in given:
        raise ValueError(f"{where} needs one of {one} and {other}; got both. Keep the space you think in.")


def prior_value(name: str, got: Any, kind: Any) -> None:
    """Refuse anything but a distribution, of that kind, or a callable."""
    if not isinstance(got, kind) and not callable(got):
        raise TypeError(
            f"{name} must be a distribution such as up.dist.Normal(0.0, 1.0), or a callable "
            f"(backend, name, shape); got {got!r}."
        )


def prior_roles(
    where: str, roles: Mapping[str, Any], kind: Any, simplex: Sequence[str], positive: Sequence[str]
) -> None:
    """Check the priors of a network or of one of its layers.

    Args:
        where: What holds them.
        roles: Priors by role.
        kind: Distributions as plain data.
        simplex: Names of those on the simplex.
        positive: Names of those over positive numbers.
    """
    one_space(where, roles, "log_scale", "scale")
    one_space(where, roles, "logits", "weights")
    for role, value in roles.items():
        prior_value(f"{where}.{role}", value, kind)
        if isinstance(value, kind) and (value.name in simplex) != (role == "weights"):
            need = "be on the simplex, e.g. dist.Dirichlet(0.5)" if role == "weights" else "not be on the simplex"
            raise ValueError(f"{where}.{role} must {need}; got {value!r}.")
        if isinstance(value, kind) and role == "scale" and value.name not in positive:
            raise ValueError(
                f"{where}.scale must be a distribution over positive numbers ({', '.join(positive)}); got {value!r}."
            )


def prior_layers(
    where: str, given: Mapping[int, Mapping[str, Any]], roles: Mapping[int, Sequence[str]], sizes: Any = None
) -> None:
    """Check that priors by layer are of layers that there are, and of roles that these have."""
    for index, own in given.items():
        if index not in roles:
            there = f"layers 0..{len(roles) - 1}" + ("" if sizes is None else f" of sizes={sizes}")
            raise ValueError(f"{where}.layers must name {there if roles else 'no layer here'}; got layer {index}.")
        names(f"role in {where}.layers[{index}]", own, roles[index])


def prior_shape(name: str, value: Array, shape: tuple[int, ...]) -> None:
    """Check the last axes of what a callable prior returned."""
    found = tuple(np.shape(value))
    if found[-len(shape) :] != shape:
        raise ValueError(f"the prior of {name} must return an array of shape {shape}; got shape {found}.")
