"""Checks of outcomes, and of what rows bring along for their likelihood."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks.basic import listed
from ugmm_ppl.checks.data import row_numbers, targets


def _refuse(good: np.ndarray, a: np.ndarray, what: str, needed: str, do: str) -> None:
    wrong = np.flatnonzero(~good)
    if wrong.size:
        raise ValueError(
            f"{what} must hold {needed}; got {a[wrong[0]]} in row {wrong[0]} ({wrong.size} such rows). {do}"
        )


def counts(y: Any, rows: int) -> np.ndarray:
    """Return y as a float64 `(B,)` array of counts 0, 1, 2, ..., or say what is wrong with it."""
    a = targets(y, rows)
    _refuse((a >= 0.0) & (a == np.round(a)), a, "y", "counts 0, 1, 2, ...", "For real numbers use Regressor.")
    return a


def positive(y: Any, rows: int) -> np.ndarray:
    """Return y as a float64 `(B,)` array of positive numbers, or say what is wrong with it."""
    a = targets(y, rows)
    _refuse(a > 0.0, a, "y", "positive numbers", "For any real numbers use Regressor, Normal or StudentT.")
    return a


def proportions(y: Any, rows: int) -> np.ndarray:
    """Return y as a float64 `(B,)` array of numbers between 0 and 1, or say what is wrong with it."""
    a = targets(y, rows)
    _refuse((a > 0.0) & (a < 1.0), a, "y", "proportions, 0 < y < 1", "For successes among trials use Binomial.")
    return a


def binary(y: Any, rows: int) -> np.ndarray:
    """Return y as a float64 `(B,)` array of zeros and ones, or say what is wrong with it."""
    a = targets(y, rows)
    _refuse((a == 0.0) | (a == 1.0), a, "y", "0 or 1", "For more than two classes use Classifier.")
    return a


def exposure(values: Any, rows: int) -> np.ndarray:
    """Return an exposure as a float64 `(B,)` array of positive numbers, or say what is wrong with it."""
    a = row_numbers(values, rows, "exposure")
    _refuse(a > 0.0, a, "exposure", "positive numbers", "Of an offset, the log of the exposure, give the exponential.")
    return a


def trials(values: Any, rows: int) -> np.ndarray:
    """Return trials as a float64 `(B,)` array of whole numbers, or say what is wrong with it."""
    a = row_numbers(values, rows, "trials")
    _refuse((a >= 1.0) & (a == np.round(a)), a, "trials", "whole numbers 1, 2, ...", "Leave rows without trials out.")
    return a


def at_most_trials(y: np.ndarray, trials: np.ndarray) -> None:
    """Refuse more successes than trials."""
    wrong = np.flatnonzero(y > trials)
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"y must be at most the number of trials of its row; got {y[i]:g} of {trials[i]:g} in row {i} "
            f"({wrong.size} such rows)."
        )


CENSORING = {"none": 0.0, "right": 1.0, "left": -1.0, "interval": 2.0}
"""What an observed value is to the outcome, and the codes of it."""


def censored(values: Any, rows: int) -> np.ndarray:
    """Return what is known of rows as codes in float64 `(B,)`, or say what is wrong."""
    a = np.asarray(values)
    if a.dtype.kind in "UO":
        unknown = [i for i, each in enumerate(a.ravel()) if each not in CENSORING]
        if unknown:
            i = unknown[0]
            raise ValueError(f"censored must be one of {listed(CENSORING)}; got {str(a.ravel()[i])!r} in row {i}.")
        a = np.array([CENSORING[each] for each in a.ravel()]).reshape(a.shape)
    a = row_numbers(a, rows, "censored")
    codes = ", ".join(f"{code:g} ({name})" for name, code in CENSORING.items())
    _refuse(np.isin(a, list(CENSORING.values())), a, "censored", f"codes {codes}", "A truth value says right or none.")
    return a


def upper(values: Any, rows: int) -> np.ndarray:
    """Return upper ends as a float64 `(B,)` array, where there is none inf or NaN, or say what is wrong."""
    a = np.asarray(values, dtype=np.float64)
    if a.shape != (rows,):
        raise ValueError(f"upper must hold one number per row of x, shape ({rows},); got shape {a.shape}.")
    return np.where(np.isnan(a), np.inf, a)


def intervals(y: np.ndarray, censored: np.ndarray, upper: np.ndarray) -> None:
    """Refuse intervals whose lower end is not below the upper one, or that have none."""
    wrong = np.flatnonzero((censored == 2.0) & ~((y < upper) & (upper < np.inf)))
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"the interval of a row must end above its beginning, y < upper; got y = {y[i]:g} and upper = {upper[i]:g} "
            f"in row {i} ({wrong.size} such rows). Give upper=, or censor the row to the right."
        )


def limits(values: Any, rows: int) -> np.ndarray:
    """Return limits as a float64 `(B,)` array, which may be infinite, or say what is wrong."""
    a = np.asarray(values, dtype=np.float64)
    if a.shape != (rows,) or np.isnan(a).any():
        raise ValueError(
            f"limits must be one number per row of x, shape ({rows},), infinite for none; got shape {a.shape} "
            f"with {int(np.isnan(a).sum())} NaN."
        )
    return a


def limit_order(low: Any, high: Any) -> dict[str, float]:
    """Return limits as numbers, or say that the lower one is not below the upper one."""
    low, high = float(low), float(high)
    if not low < high:
        raise ValueError(f"Truncated needs low < high; got {low:g} and {high:g}.")
    return {"low": low, "high": high}


def within_limits(y: np.ndarray, low: np.ndarray, high: np.ndarray) -> None:
    """Refuse limits in the wrong order, and outcomes outside of them."""
    wrong = np.flatnonzero(~((low < high) & (low <= y) & (y <= high)))
    if wrong.size:
        i = wrong[0]
        raise ValueError(
            f"y must lie between its limits; got {y[i]:g} with the limits {low[i]:g} and {high[i]:g} in row {i} "
            f"({wrong.size} such rows)."
        )


def base_with_tails(likelihood: str, base: Any) -> None:
    """Check that the tails of the base are there in all libraries."""
    if not base.has_tails:
        raise ValueError(
            f"base of {likelihood} must have exact tails, as Mixture, Normal and LogNormal have; got {base!r}."
        )


def no_tails(likelihood: str) -> NotImplementedError:
    """The error for a family without tails in all libraries."""
    return NotImplementedError(f"{likelihood} has no log_tails; those of Mixture, Normal and LogNormal are there.")


def neutral(likelihood: str, column: Any) -> float:
    """What stands for a column that rows do not bring along, where something can."""
    if column.neutral is None:
        raise ValueError(
            f"the likelihood {likelihood} needs {column.name}= beside x, one number per row; got none. Give it to fit "
            "and to whatever takes rows, or as a further column after those of x in a model function."
        )
    return float(column.neutral)


def known_extras(given: Collection[str], known: Sequence[str], likelihood: str) -> None:
    """Refuse extra columns that a likelihood does not take."""
    for name in given:
        if name not in known:
            takes = listed(known) if known else "no extra columns"
            raise ValueError(f"the likelihood {likelihood} takes {takes}; got {name}=. Leave it out.")


def extras_with_rows(given: Collection[str] | None) -> None:
    """Refuse extra columns for rows that have theirs, those of the training."""
    if given:
        names = ", ".join(f"{name}=" for name in given)
        raise ValueError(f"{names} belong to rows x; got them without x, or with the rows of the training. Give x too.")


def held_out_extras(validation: Any, given: Collection[str]) -> None:
    """Refuse held-out rows without the extra columns that the training rows have."""
    if given and isinstance(validation, tuple | list):
        asked = ", ".join(f"{name}=" for name in given)
        raise ValueError(f"validation must be a share of the rows where these bring along {asked}; got rows. Use 0.1.")


def same_extras(given: Collection[str], needed: Collection[str], with_target: Collection[str]) -> None:
    """Refuse rows that bring along other extra columns than those of the training, but for what belongs to a target."""
    if set(given).difference(with_target) != set(needed).difference(with_target):
        asked = ", ".join(f"{name}=" for name in needed) or "no extra columns"
        got = ", ".join(f"{name}=" for name in given) or "none"
        raise ValueError(f"this fit was made with {asked} beside x, and needs them for all rows; got {got}.")


def shared_parameters(likelihood: str, got: Any, known: Sequence[str]) -> tuple[str, ...]:
    """Return names of shared parameters, or say which there are."""
    if isinstance(got, str) or not all(isinstance(each, str) for each in got):
        raise TypeError(f"shared must be a tuple of names, e.g. ({known[-1]!r},); got {got!r}.")
    for name in got:
        if name not in known:
            raise ValueError(f"shared must name parameters of {likelihood}, {listed(known)}; got {name!r}.")
    if len(set(got)) == len(known):
        raise ValueError(f"shared must leave a parameter of {likelihood} to the network; got all, {listed(known)}.")
    return tuple(got)


def base_of(likelihood: str, got: Any, kind: type) -> None:
    """Check that a likelihood is made of another one."""
    if not isinstance(got, kind):
        raise TypeError(f"base of {likelihood} must be a family of up.likelihoods, e.g. Poisson(); got {got!r}.")


def base_of_counts(likelihood: str, base: Any) -> None:
    """Check that the base has zeros among its counts."""
    if not base.has_zeros:
        raise ValueError(f"base of {likelihood} must be one of counts, such as Poisson(); got {base!r}.")


def no_probs(likelihood: str) -> AttributeError:
    """The error for probabilities of outcomes that are infinitely many."""
    return AttributeError(f"{likelihood} has infinitely many outcomes, so no probs. Ask for log_density(y) or cdf(y).")
