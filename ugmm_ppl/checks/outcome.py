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


def held_out_extras(validation: Any, given: Collection[str]) -> None:
    """Refuse held-out rows without the extra columns that the training rows have."""
    if given and isinstance(validation, tuple | list):
        asked = ", ".join(f"{name}=" for name in given)
        raise ValueError(f"validation must be a share of the rows where these bring along {asked}; got rows. Use 0.1.")


def same_extras(given: Collection[str], needed: Collection[str]) -> None:
    """Refuse rows that bring along other extra columns than those of the training."""
    if set(given) != set(needed):
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
