"""Data on their way into a model: named train and test arrays, standardisation, CSV files."""

from __future__ import annotations

import csv
import dataclasses
import os
from pathlib import Path
from typing import Any

import numpy as np

from ugmm_ppl import checks

MOST_REPEATED = 2**17
"""Rows that whole weights may make."""


@dataclasses.dataclass(frozen=True)
class Data:
    """Training and test arrays with names; what `data()` of a model file returns.

    Args:
        x: Training inputs `(B, K)`.
        y: Training targets `(B,)`: class codes or real numbers.
        x_test: Test inputs, or None.
        y_test: Test targets, or None.
        feature_names: Names of the K columns.
        class_names: Names of the classes.
        weights: How often each training row counts `(B,)`, or None for once.
        weights_test: How often each test row counts in the metrics, or None for once.
    """

    x: np.ndarray
    y: np.ndarray
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    feature_names: list[str] | None = None
    class_names: list[str] | None = None
    weights: np.ndarray | None = None
    weights_test: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Standardizer:
    """Mean and standard deviation of each column, to standardise with and to restore.

    Attributes:
        mean: `(K,)`, or `()` for targets and for columns taken jointly.
        scale: `(K,)` or `()`; 1 where the data have no variance.
    """

    mean: np.ndarray
    scale: np.ndarray

    @classmethod
    def of(cls, a: np.ndarray, *, jointly: bool = False, weights: np.ndarray | None = None) -> Standardizer:
        """The constants of training data `(B, K)` or `(B,)`, NaN left out; `jointly` takes all columns as one."""
        if jointly:
            weights = None if weights is None else np.repeat(weights, a.shape[1])
            a = a.ravel()
        if weights is not None:
            mean, std = _weighted_moments(a, weights)
            return cls(mean, np.where(no_variance(a), 1.0, std))
        missing = np.isnan(a).any()
        mean, std = (np.nanmean(a, 0), np.nanstd(a, 0)) if missing else (a.mean(0), a.std(0))
        return cls(mean, np.where(no_variance(a), 1.0, std))

    def standardize(self, a: np.ndarray) -> np.ndarray:
        """(a - mean) / scale."""
        return (a - self.mean) / self.scale

    def restore(self, a: np.ndarray) -> np.ndarray:
        """mean + scale a."""
        return self.mean + self.scale * a


def _weighted_moments(a: np.ndarray, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean and standard deviation of columns whose rows count `weights` `(B,)` times, NaN left out."""
    seen = ~np.isnan(a)
    share = np.where(seen, weights.reshape(-1, *[1] * (a.ndim - 1)), 0.0)
    share /= share.sum(0)
    mean = (share * np.where(seen, a, 0.0)).sum(0)
    return mean, np.sqrt((share * np.where(seen, a - mean, 0.0) ** 2).sum(0))


def repeated(x: np.ndarray, weights: np.ndarray | None = None) -> np.ndarray:
    """Rows `(B, K)`, each as often as it counts: exactly for whole weights, else in proportion and B in all."""
    if weights is None:
        return x
    total = float(weights.sum())
    whole = total <= MOST_REPEATED and bool(np.all(weights == np.round(weights)))
    count = round(total) if whole else len(x)
    return x[np.searchsorted(np.cumsum(weights), (np.arange(count) + 0.5) * (total / count), side="right")]


def no_variance(a: np.ndarray) -> np.ndarray:
    """Whether each column has one value throughout, `(B, K)` to `(K,)`; a mean's rounding does not count as spread."""
    return np.fmax.reduce(a, axis=0) == np.fmin.reduce(a, axis=0)


def names_of(given: Any, count: int, prefix: str, what: str) -> list[str]:
    """Names as a list of `count` strings, or `prefix0`, `prefix1`, ... if none are given.

    Raises:
        ValueError: Another number of names, or a name given twice.
    """
    if given is None:
        return [f"{prefix}{i}" for i in range(count)]
    names = [str(name) for name in given]
    if len(names) != count or len(set(names)) != count:
        raise ValueError(
            f"{what} needs {count} different names; got {len(names)}: {names[:5]}{'...' if len(names) > 5 else ''}."
        )
    return names


def read_csv(path: str | os.PathLike[str], feature_names: list[str]) -> np.ndarray:
    """Read the columns of a CSV file that a fit needs.

    The file has a header; columns are found by name, in any order, and others are passed over. If no header cell is a
    feature name, the columns are taken in order.

    Args:
        path: The file.
        feature_names: The K columns that are needed.

    Returns:
        Array `(B, K)`.

    Raises:
        ValueError: Missing columns, no rows, or a cell that is not a number; says which.
    """
    with Path(path).open(newline="") as file:
        rows = [row for row in csv.reader(file) if row]
    if not rows:
        raise ValueError(f"{path} must have a header and at least one row; it is empty.")
    header = [cell.strip() for cell in rows[0]]
    if not set(header) & set(feature_names) and len(header) == len(feature_names):
        body = rows if _is_number(header[0]) else rows[1:]
        columns = list(range(len(header)))
    else:
        missing = [name for name in feature_names if name not in header]
        if missing:
            raise ValueError(
                f"{path} must have the columns {feature_names}; missing: {missing}; its header is {header}."
            )
        columns, body = [header.index(name) for name in feature_names], rows[1:]
    if not body:
        raise ValueError(f"{path} must have at least one row below its header; it has none.")
    table = np.empty((len(body), len(columns)))
    for i, row in enumerate(body):
        for j, column in enumerate(columns):
            cell = row[column].strip() if column < len(row) else ""
            if not _is_number(cell):
                raise ValueError(f"{path}: row {i + 1}, column {feature_names[j]!r} must be a number; got {cell!r}.")
            table[i, j] = float(cell)
    return checks.inputs(table, len(columns), what=str(path))


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True
