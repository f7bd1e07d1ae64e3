"""Rows and targets that the user gave."""

import warnings
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks.basic import finite, first_bad, number, row_blocks, shown
from ugmm_ppl.checks.table import Asked, numeric, refuse_sparse

MISSING_INPUT = (
    "Drop such rows or impute the column first: a model of y given x has no exact answer to a missing x, as it says "
    "nothing about x."
)


def inputs(
    x: Any,
    features: int,
    *,
    what: str = "x",
    where: str = "layer 0",
    convert: bool = True,
    first_row: int = 0,
    names: Sequence[str] | None = None,
) -> np.ndarray:
    """Return x as a float `(B, features)` NumPy array, or say what is wrong with it.

    Floats are not copied, nor are memory maps, which are read a block at a time.

    Args:
        x: What the user gave: anything that becomes an array, or a table whose columns have names.
        features: Number of inputs of the network.
        what: Name of the argument, for the message.
        where: Who needs that many features, for the message.
        convert: Make floats of whole numbers and of other kinds, which copies them; False leaves that to `floats`.
        first_row: Number of the first row of x, for the message, where x is a part of something longer.
        names: The columns of a table that are taken, as in `checks.table.numeric`.

    Raises:
        TypeError: The values are not numbers.
        ValueError: Not 2-D, empty, a wrong number of columns, NaN or infinite values, a table without the names.
    """
    a = numeric(x, Asked(what), names=names, features=features, convert=convert)
    do = f"Give {what} the network's columns, or the network sizes=({{columns}}, ...)."
    shape(a, features, what, f"the number of inputs of {where}", do)
    finite(a, what, MISSING_INPUT, first_row)
    return a


def shape(a: np.ndarray, features: int | None, what: str, whose: str, do: str) -> None:
    """Refuse anything but a table of at least one row and, if it is known, the right number of columns.

    Args:
        a: The array.
        features: How many columns it must have.
        what: Its name.
        whose: Whose number that is.
        do: What to do about another number of `{columns}`.
    """
    if a.ndim != 2:
        columns = "features" if features is None else f"{features} features"
        raise ValueError(
            f"{what} must be 2-D, (examples, {columns}); got shape {a.shape}."
            + (f" For a single example use {what}[None, :]." if a.ndim == 1 else "")
        )
    if a.shape[0] == 0:
        raise ValueError(
            f"{what} must have at least one row; got shape {a.shape}. Check how the data were read or split."
        )
    if features is not None and a.shape[1] != features:
        raise ValueError(
            f"{what} must have {features} columns, {whose}; got shape {a.shape}. {do.format(columns=a.shape[1])}"
        )


def labels(y: Any, rows: int, classes: int) -> np.ndarray:
    """Return y as an int `(B,)` array of class codes 0..classes-1, or say what is wrong with it."""
    return codes(read_codes(y, classes), rows, classes)


def read_codes(y: Any, classes: int) -> np.ndarray:
    """Class codes as numbers, NaN where one is masked, None or NA."""
    need, do = f"whole class codes 0..{classes - 1}", "Encode names first, e.g. numpy.unique(y, return_inverse=True)."
    return numeric(_given(y), Asked("y", need, do), convert=False)


def codes(a: np.ndarray, rows: int, classes: int) -> np.ndarray:
    """Numbers as class codes 0..classes-1."""
    a = _same_length(a, rows, classes)
    if a.dtype.kind == "f":
        finite(a, "y", "Drop such rows first.")
        fractional = np.flatnonzero(a != np.round(a))
        if fractional.size:
            raise ValueError(
                f"y must hold whole class codes 0..{classes - 1}; got {a[fractional[0]]} in row {fractional[0]}. "
                "For a real-valued target use Regressor."
            )
    outside = np.flatnonzero((a < 0) | (a >= classes))
    if outside.size:
        raise ValueError(
            f"y must lie in 0..{classes - 1} (classes={classes}); got {a[outside[0]]} in row {outside[0]}"
            f" ({outside.size} such rows). Recode y, or give the model more classes."
        )
    return a.astype(np.int64)


def targets(y: Any, rows: int) -> np.ndarray:
    """Return y as a float64 `(B,)` array of finite targets, or say what is wrong with it."""
    a = _same_length(numeric(_given(y), Asked("y")), rows)
    finite(a, "y", "Drop such rows first.")
    return a.astype(np.float64, copy=False)


def row_numbers(values: Any, rows: int, what: str, do: str = "Drop such rows first.") -> np.ndarray:
    """Return one finite number per row as a float64 `(B,)` array, or say what is wrong."""
    a = numeric(values, Asked(what)).astype(np.float64)
    if a.shape == (rows, 1):
        a = a[:, 0]
    if a.shape != (rows,):
        raise ValueError(f"{what} must hold one number per row of x, shape ({rows},); got shape {a.shape}.")
    finite(a, what, do)
    return a


def row_weights(weights: Any, rows: int, what: str = "weights") -> np.ndarray | None:
    """Return weights of rows as a float64 `(B,)` array, None for none, or say what is wrong with them."""
    if weights is None:
        return None
    a = row_numbers(weights, rows, what, "Give a row that is not to count the weight 0.")
    first_bad(a >= 0.0, a, what, "at least 0", "A weight says how often its row counts; 0 leaves it out.")
    if not a.any():
        raise ValueError(f"{what} must have a row that counts; got {rows} weights that are all 0.")
    return a


def held_out_weights(held_out: np.ndarray, kept: np.ndarray) -> None:
    """Refuse a share of held-out rows, or of those that are kept, of which none counts."""
    if not held_out.any() or not kept.any():
        raise ValueError(
            f"validation must leave a row that counts on either side; got {len(held_out)} held-out and {len(kept)} "
            "other rows, all of one side with the weight 0. Give another share or seed, or (x, y, weights)."
        )


def row_scores(what: str, got: np.ndarray) -> None:
    """Refuse anything but one finite score per row."""
    if not (got.ndim == 1 and got.size and np.isfinite(got).all()):
        raise ValueError(
            f"{what} must be finite scores of shape (B,), at least one; got shape {got.shape} with "
            f"{int((~np.isfinite(got)).sum())} that are not finite. Score every row once."
        )


def no_training_data() -> ValueError:
    """The error for a fit without the data that are asked of it."""
    return ValueError("x and y are needed: this fit was loaded from a file, which holds no training data. Give both.")


def no_probe() -> ValueError:
    """The error for a fit without the data that inputs are picked from."""
    return ValueError(
        "the group functional needs probe inputs, and this fit holds no training data to take them from. "
        "Give probe=, an array (P, K), or the training data x and y."
    )


def standardize(got: Any) -> None:
    """Refuse ways to standardise that are not there."""
    if not isinstance(got, bool) and got != "jointly":
        raise ValueError(f"standardize must be True, False or 'jointly'; got {got!r}. Use True for tables.")


def weighted_rows(row_weights: np.ndarray | None, rows: int) -> np.ndarray | None:
    """Return the weights of the training rows, or say that other rows were given."""
    if row_weights is not None and len(row_weights) != rows:
        raise ValueError(
            f"x and y must be the {len(row_weights)} rows of the training, whose weights the fit keeps; got {rows} "
            "rows. For other rows use log_likelihood."
        )
    return row_weights


def far_out(
    a: np.ndarray, seen: np.ndarray, limit: float, *, refuse: bool, what: str = "x", first_row: int = 0
) -> bool:
    """Whether values lie beyond the limit in size as the model sees them, NaN aside; warns, and names the first.

    Args:
        a: What the user gave, `(B, ...)`.
        seen: The same as the model sees it.
        limit: The largest size.
        refuse: Raise an error in place of the warning.
        what: Name of the argument, for the message.
        first_row: Number of the first row, for the message.
    """
    first, total = None, 0
    for rows in row_blocks(seen):
        far = np.abs(seen[rows]) > limit
        if far.any():
            total += int(far.sum())
            first = first or (rows.start + int(np.argwhere(far)[0][0]), *np.argwhere(far)[0][1:].tolist())
    if first is None:
        return False
    where = f"row {first_row + first[0]}" + "".join(f", column {k}" for k in first[1:])
    told = (
        f"{what} should be at most {limit:.1e} in size as the model sees it, in units of the training data where these "
        f"are standardised; got {a[first]:g} in {where}, which is {seen[first]:.3g} ({total} such values)."
    )
    if refuse:
        raise ValueError(f"{told} No density reaches so far. Look for fill values and wrong units; drop such rows.")
    warnings.warn(f"{told} They are taken as just so far out. Look for fill values and wrong units.", stacklevel=4)
    return True


def defined(good: np.ndarray, first_row: int = 0) -> None:
    """Refuse rows whose outputs `(S, B)` do not say anything of y under some draw of the parameters."""
    bad = np.flatnonzero(~good.all(0))
    if bad.size:
        raise ValueError(
            f"the outputs of a row must be finite; those of row {first_row + bad[0]} are not, under "
            f"{int((~good[:, bad[0]]).sum())} of {len(good)} draws ({bad.size} such rows). Look for values far from "
            "those that were trained on, and drop such rows; a network with normalization='layer' bears with them."
        )


def streamable(x: Any) -> None:
    """Refuse what is neither an array or a table nor a stream of them."""
    refuse_sparse(x, "x")
    shape = getattr(x, "shape", None)
    if isinstance(x, str | bytes) or shape == () or not (shape or isinstance(x, Iterable)):
        raise TypeError(
            f"x must be a 2-D array or an iterable of 2-D arrays; got {shown(x)} of type {type(x).__name__}. "
            "Open a file first, e.g. numpy.load(path, mmap_mode='r')."
        )


def held_out(x: np.ndarray, y: np.ndarray, train_x: np.ndarray | None, train_y: np.ndarray | None) -> None:
    """Refuse rows `(B, K)` and `(B,)` that are all among the training data, if these are known."""
    if train_x is None or train_y is None:
        return
    known = {hash((row.tobytes(), value.tobytes())) for row, value in zip(train_x, train_y, strict=True)}
    x, y = x.astype(train_x.dtype, copy=False), y.astype(train_y.dtype, copy=False)
    if all(hash((row.tobytes(), value.tobytes())) in known for row, value in zip(x, y, strict=True)):
        raise ValueError(
            "stacking needs held-out rows; got rows that the fit was trained on, where a restart that overfits "
            "predicts best and would get the weight. Split the data before fit, and give the rows left out."
        )


def held_out_pair(validation: Any) -> None:
    """Check that `validation` is a share, or arrays: x, y and perhaps weights."""
    pair = isinstance(validation, tuple | list)
    if isinstance(validation, bool | str) or (pair and len(validation) not in (2, 3)):
        kind = ValueError if pair else TypeError
        raise kind(
            f"validation must be a share in (0, 1) or held-out data (x, y) or (x, y, weights); got {shown(validation)}."
        )


def held_out_rows(share: Any, rows: int) -> int:
    """The number of rows that `validation` holds out, which leaves some of each."""
    count = round(number("validation", share, 0.0, 1.0) * rows)
    if not 0 < count < rows:
        raise ValueError(
            f"validation must leave at least one row on either side; got {share} of {rows} rows. "
            "Give another share, or held-out data (x, y)."
        )
    return count


def constant_columns(constant: np.ndarray, feature_names: list[str]) -> None:
    """Warn about columns without variance, marked in `constant` `(K,)`, which are kept with scale 1."""
    columns = np.flatnonzero(constant)
    if columns.size:
        shown = ", ".join(feature_names[k] for k in columns[:5]) + (", ..." if columns.size > 5 else "")
        warnings.warn(
            f"{columns.size} of {constant.size} columns of x have zero variance ({shown}); they are kept, with "
            "scale 1. Drop them if they mean nothing; for pixels use standardize='jointly'.",
            stacklevel=4,
        )


def _given(y: Any) -> Any:
    if y is None:
        raise TypeError("y must hold one value per row of x; got None. A model of x alone is up.Circuit.")
    return y


def _same_length(y: np.ndarray, rows: int, classes: int | None = None) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        do = "Use y.ravel()." if y.size == rows else "Models have one target: pick one column, e.g. y[:, 0]."
        if classes is not None and y.ndim == 2 and len(y) == rows:
            do = "If it is one-hot or holds probabilities of classes, use y.argmax(axis=1); else pick one column."
        raise ValueError(f"y must be 1-D, one value per row of x; got shape {y.shape}. {do}")
    if len(y) != rows:
        raise ValueError(f"y must have one value per row of x, {rows}; got {len(y)}. Check how they were split.")
    return y


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


def classes_or_unknown(y: Any, rows: int, classes: int | None, kind: str = "Circuit") -> np.ndarray:
    """Class codes as int64 `(B,)`, -1 where the class is not known: -1, NaN, None or masked. None is all -1."""
    if y is None:
        return np.full(rows, -1, dtype=np.int64)
    a = read_codes(y, classes or 1)
    unknown = (a == -1) | np.isnan(a)
    if classes is None and not (a.shape == (rows,) and unknown.all()):
        raise ValueError(
            f"this {kind} has no classes, so y must be None. Give {kind}(..., classes=...), or leave y out."
        )
    found = codes(np.where(unknown, 0, a), rows, classes or 1)
    return np.where(unknown.reshape(rows), -1, found)
