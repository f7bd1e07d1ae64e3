"""Checks of what a user gives to latent networks, and the wording of their errors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks import choice, count
from ugmm_ppl.checks.basic import finite
from ugmm_ppl.checks.data import shape
from ugmm_ppl.checks.prior import prior_layers
from ugmm_ppl.checks.table import Asked, numeric
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.priors import NEURON_ROLES, Prior
from ugmm_ppl.typing import PerRow

ENCODERS = ("mlp", "per-example")


def sizes(given: Any) -> tuple[int, ...]:
    """The widths of all layers, z first and the data last."""
    if not hasattr(given, "__len__") or isinstance(given, str) or len(given) < 2:
        raise ValueError(
            "sizes needs the number of latent variables, the widths of hidden layers and the number of columns of the "
            f"data, e.g. (2, 16, 4); got {given!r}."
        )
    return tuple(count("each of sizes", size) for size in given)


def encoder(given: Any) -> None:
    """Refuse anything but a known name or a function that makes modules."""
    if isinstance(given, str):
        choice("encoder, unless a function (in_features, out_features) -> module,", given, ENCODERS)
    elif not callable(given) or (hasattr(given, "parameters") and not isinstance(given, type)):
        raise TypeError(
            f"encoder must be one of {', '.join(map(repr, ENCODERS))} or a function (in_features, out_features) -> "
            f"module, which is called for every layer, e.g. lambda i, o: torch.nn.Linear(i, o); got {given!r}."
        )


def table(x: Any, columns: int, *, what: str, convert: bool, first_row: int, names: Sequence[str] | None) -> np.ndarray:
    """Return rows as a float `(B, columns)` array of finite numbers, or say what is wrong with it."""
    asked = Asked(what, do="A Circuit has leaves for codes.")
    a = numeric(x, asked, names=names, features=columns, convert=convert)
    do = f"Give {what} these columns, or the network sizes=(..., {{columns}})."
    shape(a, columns, what, "the last of the network's sizes", do)
    advice = "Drop such rows, or use a Circuit, which integrates missing values out exactly."
    finite(a, what, advice, first_row)
    return a


def prior(what: str, given: Any, layers: int) -> None:
    """Refuse priors of another kind, of a readout, or of layers that are not there."""
    if not isinstance(given, Prior):
        raise TypeError(f"{what} must be an up.Prior; got {given!r}.")
    if given.readout is not None or given.readout_bias is not None:
        raise ValueError(f"{what} must be over neurons alone: a LatentNetwork has no readout. Leave readout out.")
    prior_layers(what, given.layers, dict.fromkeys(range(layers), NEURON_ROLES))


def prior_value(must_be: str, given: Any) -> None:
    """Refuse anything but a distribution or a callable."""
    if not isinstance(given, Distribution) and not callable(given):
        raise TypeError(f"{must_be} a prior such as up.dist.Normal(0.0, 1.0); got {given!r}.")


def known_classes(y: PerRow, classes: int | None) -> None:
    """Refuse to sample where a discrete variable is not known."""
    unknown = np.flatnonzero(y < 0)
    if classes is not None and unknown.size:
        raise ValueError(
            f"method='nuts' needs the class of every row; row {unknown[0]} has none ({unknown.size} such rows). Use "
            "method='svi', which sums unknown classes out, or leave these rows out."
        )


def small_enough(entries: int, limit: int) -> None:
    """Refuse to sample the values of too many rows."""
    if entries > limit:
        raise ValueError(
            f"method='nuts' samples the layers of every row, {entries} numbers here, and takes at most {limit}. Use "
            "method='svi', or fewer rows or smaller layers."
        )


def no_outputs() -> TypeError:
    """The error for outputs without a guide."""
    return TypeError(
        "a LatentNetwork has no outputs in closed form: its density of x is an integral over z. Fit it, and use "
        "fit.log_evidence(x), fit.outputs(x) or fit.sample(n); or run the model as a program, model.bind(backend)."
    )


def possible(log_weight: np.ndarray) -> None:
    """Refuse to average over samples of which none is possible; by the largest log weight of every row."""
    bad = np.flatnonzero(np.isneginf(log_weight))
    if bad.size:
        raise ValueError(
            f"at least one sample of every row must have a density above zero; row {bad[0]} has none ({bad.size} such "
            "rows). Its values are far from those that were trained on: look for fill values, and drop such rows."
        )


def layer(given: int | None, hidden: int) -> int:
    """The number of a layer above the data; None is the last."""
    if given is None:
        return hidden - 1
    given = count("layer", given, least=0)
    if given >= hidden:
        raise ValueError(f"layer must be a number in 0..{hidden - 1}, 0 for z; got {given}.")
    return given


def label(y: Any, classes: int | None) -> int | None:
    """Return the code of a class to draw from, None for all of them."""
    if y is None:
        return None
    if classes is None:
        raise ValueError("this latent network has no classes, so y must be None. Leave it out.")
    y = count("y", y, least=0)
    if y >= classes:
        raise ValueError(f"y must be a class code in 0..{classes - 1}; got {y}.")
    return y
