"""Checks of what a user gives to circuits, and the wording of their errors."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks import count
from ugmm_ppl.checks import names as known_names
from ugmm_ppl.checks.basic import finite
from ugmm_ppl.checks.data import shape
from ugmm_ppl.checks.prior import one_space, prior_value
from ugmm_ppl.checks.table import Asked, numeric
from ugmm_ppl.distributions.described import POSITIVE, SIMPLEX, Distribution
from ugmm_ppl.typing import Rows


def forest(parent: np.ndarray, feature: np.ndarray) -> None:
    """Refuse anything but a forest whose trees hold every feature once, sorted by height."""
    if parent.shape != feature.shape or parent.ndim != 1 or len(parent) == 0:
        raise ValueError(
            f"Structure needs parent and feature of one length; got shapes {parent.shape} and {feature.shape}."
        )
    nodes, roots = np.arange(len(parent)), parent == -1
    if not roots.any() or not np.all(roots | ((parent > nodes) & (parent < len(parent)))):
        raise ValueError(
            "Structure needs parent[n] > n for every node but the roots, which have -1; got "
            f"{parent[:10].tolist()}... Use Structure.of(parent, feature), which sorts the nodes."
        )
    top = nodes.copy()
    for node in nodes[::-1]:
        if not roots[node]:
            top[node] = top[parent[node]]
    wanted = list(range(feature.max() + 1))
    for root in nodes[roots]:
        held = sorted(feature[(top == root) & (feature >= 0)].tolist())
        if held != wanted:
            raise ValueError(
                f"every tree of a Structure must hold each of the features 0..{len(wanted) - 1} once; the tree of node "
                f"{root} holds {held[:20]}."
            )
    childless = np.setdiff1d(nodes[feature < 0], parent)
    if childless.size:
        raise ValueError(f"every node of a Structure needs a feature or children; node {childless[0]} has neither.")


def table(
    x: Any,
    features: int | None = None,
    *,
    what: str = "x",
    convert: bool = True,
    first_row: int = 0,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return rows as a float `(B, K)` array in which NaN stands for missing, or say what is wrong."""
    asked = Asked(what, "numbers, NaN where missing", "Encode categories as codes first.")
    a = numeric(x, asked, names=names, features=features, convert=convert)
    do = f"Give {what} these columns, or the circuit features={{columns}}."
    shape(a, features, what, "the features of the circuit", do)
    finite(a, what, "Write NaN for a value that is not known.", first_row, missing=True)
    return a


def empty_columns(x: Rows) -> None:
    """Refuse to fit columns of which nothing is known."""
    empty = np.flatnonzero(np.isnan(x).all(0))
    if empty.size:
        raise ValueError(
            f"every column of x needs at least one value to fit; column {empty[0]} is all NaN ({empty.size} such "
            "columns). Drop it."
        )


def codes(x: Rows, column: int, categories: int, first_row: int = 0) -> None:
    """Refuse codes that are not 0..categories-1; NaN is missing."""
    values = x[:, column]
    bad = np.flatnonzero(~np.isnan(values) & ~((values >= 0) & (values < categories) & (values == np.round(values))))
    if bad.size:
        raise ValueError(
            f"column {column} of x holds codes 0..{categories - 1}, or NaN; got {values[bad[0]]} in row "
            f"{bad[0] + first_row} ({bad.size} such rows). Recode it, or give its leaf more categories."
        )


def outside(x: Rows, column: int, low: float, high: float) -> None:
    """Refuse to fit values that a leaf calls impossible."""
    values = x[:, column]
    bad = np.flatnonzero((values < low) | (values > high))
    if bad.size:
        raise ValueError(
            f"column {column} of x must lie in the support [{low}, {high}] of its leaf to fit; got {values[bad[0]]} in "
            f"row {bad[0]} ({bad.size} such rows). Widen the edges of the leaf, or write NaN."
        )


def impossible(log_density: np.ndarray) -> None:
    """Warn of rows that have no density."""
    bad = np.flatnonzero(np.isneginf(log_density))
    if bad.size:
        warnings.warn(
            f"{bad.size} rows are impossible under the circuit, log density -inf; the first is row {bad[0]}.",
            stacklevel=3,
        )


def impossible_evidence(log_density: np.ndarray) -> None:
    """Refuse to condition on rows that have no density."""
    bad = np.flatnonzero(np.isneginf(log_density))
    if bad.size:
        raise ValueError(
            f"the seen values of a row must be possible to condition on them; row {bad[0]} has log density -inf "
            f"({bad.size} such rows). Write NaN for its wrong value."
        )


def feature(given: Any, feature_names: Sequence[str]) -> int:
    """The number of a feature, given by number or name."""
    if isinstance(given, str):
        known_names("feature", [given], feature_names)
        return list(feature_names).index(given)
    column = count("feature", given, least=0)
    if column >= len(feature_names):
        raise ValueError(f"feature must be a number in 0..{len(feature_names) - 1} or a name; got {given!r}.")
    return column


def leaves(given: Mapping[Any, Any], features: int, kinds: tuple[type, ...]) -> dict[int, Any]:
    """Return leaves by column; those of features that are not there, or that are none, are refused."""
    for column, leaf in given.items():
        if not isinstance(column, int | np.integer) or not 0 <= column < features:
            raise ValueError(f"leaves must name columns 0..{features - 1}; got {column!r}.")
        if not isinstance(leaf, kinds):
            raise TypeError(f"leaves[{column}] must be one of {', '.join(k.__name__ for k in kinds)}; got {leaf!r}.")
    return {int(column): leaf for column, leaf in given.items()}


def edges(given: Any) -> tuple[float, ...]:
    """Return the edges of bins as floats."""
    found = np.asarray(given, dtype=np.float64)
    if found.ndim != 1 or len(found) < 2 or not (np.isfinite(found).all() and (np.diff(found) > 0.0).all()):
        raise ValueError(f"Binned needs at least two finite, increasing edges; got {given!r}.")
    return tuple(found.tolist())


def prior_roles(roles: Mapping[str, Any], on_simplex: Sequence[str]) -> None:
    """Check the priors of a circuit by role, of which some may be on the simplex."""
    one_space("CircuitPrior", roles, "log_scale", "scale")
    for role, value in roles.items():
        prior_value(f"CircuitPrior.{role}", value, Distribution)
        if not isinstance(value, Distribution):
            continue
        if value.name in SIMPLEX and role not in on_simplex:
            raise ValueError(f"CircuitPrior.{role} must not be on the simplex; got {value!r}.")
        if role == "scale" and value.name not in POSITIVE:
            raise ValueError(f"CircuitPrior.scale must be over positive numbers; got {value!r}.")


def parts(structure: Any, prior: Any, features: int, kind: Any, prior_kind: Any) -> None:
    """Refuse a structure or a prior of another kind, or of other features."""
    if structure is not None and not isinstance(structure, kind):
        raise TypeError(f"structure must be a Structure, e.g. up.random_trees({features}); got {structure!r}.")
    given: Any = structure
    if given is not None and given.num_features != features:
        raise ValueError(f"structure must have the {features} features of the circuit; got {structure!r}.")
    if not isinstance(prior, prior_kind):
        raise TypeError(f"prior must be an up.CircuitPrior; got {prior!r}.")


def completions(given: np.ndarray, seen: np.ndarray) -> None:
    """Refuse values of missing features that contradict what is seen."""
    if given.shape != seen.shape:
        raise ValueError(f"x must have the {len(seen)} rows that are conditioned on; got {len(given)}.")
    both = ~np.isnan(given) & ~np.isnan(seen)
    other = np.argwhere(both & (np.abs(given - seen) > 1e-9 * (1.0 + np.abs(seen))))
    if other.size:
        row, column = other[0]
        raise ValueError(
            f"x must keep the values that are seen; row {row}, column {column} has another. Write NaN or that value."
        )


def missing(name: str, values: np.ndarray) -> None:
    """Refuse the distribution of a feature that is seen in some row."""
    seen = np.flatnonzero(~np.isnan(values))
    if seen.size:
        raise ValueError(
            f"feature {name!r} must be missing in every row for its distribution; it is seen "
            f"in row {seen[0]} ({seen.size} such rows). Write NaN there."
        )


def no_mixture(name: str) -> ValueError:
    """The error for the mixture of a feature that falls into bins."""
    return ValueError(f"feature {name!r} has bins, and no mixture; use `probs`.")


def no_bins(name: str) -> ValueError:
    """The error for the bins of a feature that is a real number."""
    return ValueError(f"feature {name!r} is real, and has no bins; use `mixture`.")


def no_entropy(name: str) -> ValueError:
    """The error for the entropy of a feature that is a real number."""
    return ValueError(
        f"the entropy of the Gaussian mixture of feature {name!r} has no closed form; "
        "only codes and histograms have. Average -log_density over samples of it."
    )
