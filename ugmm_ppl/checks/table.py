"""What users keep numbers in: arrays, masked ones, tensors, lists, frames, records, dicts of columns; as arrays.

Libraries are known by what their objects can do, and none of them is imported.
"""

from __future__ import annotations

import decimal
import math
import numbers
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl.checks.basic import as_numpy, floats, listed, shown

PLAIN = {float, int, bool}

MISSING = ("NoneType", "NAType", "MaskedConstant")
"""Names of the types of a missing value: None, `pandas.NA`, `numpy.ma.masked`."""

NUMBERS = (numbers.Real, decimal.Decimal, np.bool_)

ADVICE = {
    "M": "Make numbers of dates first, e.g. days since a day: (t - t0) / numpy.timedelta64(1, 'D').",
    "m": "Make numbers of durations first, e.g. days: t / numpy.timedelta64(1, 'D').",
    "c": "Give real and imaginary parts, or modulus and phase, as columns of their own.",
}
"""What to do with values that are no real numbers, by the kind of their dtype."""


class Asked(NamedTuple):
    """What messages say of an argument.

    Attributes:
        what: Its name.
        need: What it must hold.
        do: What to do about text in it.
    """

    what: str
    need: str = "real numbers"
    do: str = "Encode text and categories as numbers first."

    def refused(self, a: np.ndarray, bad: Any, row: Any, column: Any) -> TypeError:
        """The error for values that are no numbers, of which `bad` is the first."""
        where = "" if row is None else f" in row {row}" + ("" if column is None else f", column {column!r}")
        return TypeError(
            f"{self.what} must hold {self.need}; got dtype {a.dtype} ({shown(bad)}{where}). "
            f"{ADVICE.get(a.dtype.kind, self.do)}"
        )


def numeric(
    x: Any, asked: Asked, *, names: Sequence[str] | None = None, features: int | None = None, convert: bool = True
) -> np.ndarray:
    """Return what came as an array of real numbers, NaN where a value is masked, None or NA; or say what it is.

    Columns of a table with names are found by name, in any order, and others are passed over; what has no names is
    taken by position. Only strings count as names. Arrays are not copied where they can be taken as they are.

    Args:
        x: What the user gave.
        asked: For messages.
        names: The columns that are needed; None for those at hand, or for x0, x1, ... where these are among them.
        features: How many they are, if x is a table.
        convert: Make floats of a kind that both backends take; False leaves that to `floats`.

    Raises:
        TypeError: Values that are no numbers, or a sparse matrix.
        ValueError: A table without some of the names, or rows of several lengths.
    """
    refuse_sparse(x, asked.what)
    own = labels(x)
    order = None if own is None else _order(own, names, features, asked.what)
    if own is None or _labelled_array(x) or (order is None and _uniform(x)):
        found = _numbers(_array(x, asked.what), asked)
        found = found if order is None else found[:, order]
    else:
        found = _stacked(x, own, order, asked)
    return floats(found) if convert else found


def labels(x: Any) -> list[Any] | None:
    """What the columns of x are called, strings or not; None for what has no labels."""
    if isinstance(x, Mapping):
        return list(x)
    if callable(getattr(x, "collect", None)) and not hasattr(x, "shape"):
        raise TypeError(f"a table must be in memory; got a {type(x).__name__}. Collect it first, e.g. x.collect().")
    if _labelled_array(x):
        along = x.dims[-1]
        return x.coords[along].values.tolist() if x.ndim == 2 and along in x.coords else None
    fields = getattr(getattr(x, "dtype", None), "names", None)
    if fields and getattr(x, "ndim", 1) == 1:
        return list(fields)
    columns = getattr(x, "columns", None)  # pandas, polars, astropy; of pyarrow they are no labels
    if columns is None or (isinstance(columns, list) and not all(isinstance(c, str) for c in columns)):
        columns = getattr(x, "column_names", None)
    return list(columns) if isinstance(columns, Iterable) else None


def column_names(x: Any) -> list[str] | None:
    """Names of the columns of x, if it has some: different strings, all of them."""
    own = labels(x)
    if not own or not all(isinstance(label, str) for label in own) or len(set(own)) < len(own):
        return None
    return [str(label) for label in own]


def training_names(x: Any, feature_names: Iterable[Any] | None) -> tuple[list[str] | None, list[str] | None]:
    """(columns, features) of training inputs, or None: names by which columns are found, and what they are called.

    `feature_names` choose among the columns of a table, or give other names to all of them.

    Raises:
        ValueError: Some of them are columns of the table, and some are not.
    """
    own = column_names(x)
    given = None if feature_names is None else [str(name) for name in feature_names]
    if own is None or given is None:
        return own or given, given or own
    missing = [name for name in given if name not in own]
    if missing and len(missing) < len(given):
        raise ValueError(
            f"feature_names must be columns of x, or new names for all of them; got {listed(missing)}, which x has "
            f"not, among others that it has. Its columns are {listed(own)}. Leave feature_names out to take these."
        )
    return (own if missing else given), given


def _order(own: Sequence[Any], names: Sequence[str] | None, features: int | None, what: str) -> list[int] | None:
    """Places of the needed columns among labels; None for all as they are."""
    strings = [label for label in own if isinstance(label, str)]
    needed = [f"x{k}" for k in range(features or 0)] if names is None else list(names)
    missing = [name for name in needed if name not in strings]
    if not strings or not needed or (names is None and missing):
        return None
    if missing:
        raise ValueError(
            f"{what} must have the columns {listed(needed)}, those of the fit; missing: {listed(missing)}; its columns "
            f"are {listed(strings)}. Name them alike, or give an array, whose columns are taken in order."
        )
    twice = [name for name in needed if strings.count(name) > 1]
    if twice:
        raise ValueError(f"{what} must have one column {twice[0]!r}; got {strings.count(twice[0])}. Drop the others.")
    order = [own.index(name) for name in needed]
    return None if order == list(range(len(own))) else order


def _labelled_array(x: Any) -> bool:
    """Whether x is an `xarray.DataArray`: an array, of which an axis may have labels."""
    return isinstance(getattr(x, "dims", None), tuple) and hasattr(x, "coords")


def _uniform(x: Any) -> bool:
    """Whether x is a frame of pandas whose columns are of NumPy's own numbers: it becomes an array by itself."""
    dtypes = getattr(x, "dtypes", None)
    if dtypes is None or not hasattr(x, "iloc"):
        return False
    kinds = {dtype.kind if isinstance(dtype, np.dtype) else "O" for dtype in dtypes}
    return kinds <= set("iuf") or kinds == {"b"}


def _stacked(x: Any, own: Sequence[Any], order: list[int] | None, asked: Asked) -> np.ndarray:
    """Columns one by one, as an array `(B, columns)`."""
    at = range(len(own)) if order is None else order
    given = _columns(x, own)
    parts = [_numbers(_array(given[k], asked.what), asked, own[k]) for k in at]
    for k, part in zip(at, parts, strict=True):
        if part.shape != parts[0].shape or part.ndim != 1:
            raise ValueError(
                f"every column of {asked.what} must hold one number per row, equally many; got shape {part.shape} in "
                f"column {own[k]!r}, {parts[0].shape} in {own[at[0]]!r}. Of an array with all columns give the array."
            )
    plain = order is None and all(part.dtype.kind in "iuf" for part in parts)
    if plain and hasattr(x, "__array__") and not (isinstance(x, np.ndarray | Mapping) or hasattr(x, "iloc")):
        whole = np.asanyarray(x)  # polars, pyarrow: in the memory layout of the library
        if whole.ndim == 2 and whole.dtype.kind in "iuf":
            return whole
    return np.stack(parts).T if parts else np.empty((0, 0))


def _columns(x: Any, own: Sequence[Any]) -> Sequence[Any]:
    """The columns of a table, in the order of its labels."""
    if callable(getattr(x, "items", None)):  # dicts, pandas, xarray, astropy
        return [column for _, column in x.items()]
    columns = getattr(x, "columns", None)
    if isinstance(columns, list) and not all(isinstance(c, str) for c in columns):  # pyarrow
        return columns
    return [x[label] for label in own]


def _array(x: Any, what: str) -> np.ndarray:
    """An array of any dtype, maybe a masked one."""
    if hasattr(x, "get_data") and hasattr(x, "get_mask"):  # torch.masked, true where a value is seen
        return np.ma.masked_array(as_numpy(x.get_data()), ~as_numpy(x.get_mask()))
    if hasattr(x, "detach"):
        return as_numpy(x)
    if hasattr(x, "to_numpy") and not hasattr(x, "__array__"):
        return np.asanyarray(x.to_numpy())
    try:
        with np.errstate(invalid="ignore"):  # categories of pandas, some of them missing
            return np.asanyarray(_plain_rows(x) if isinstance(x, list | tuple) else x)
    except ValueError as error:
        raise ValueError(
            f"{what} must be a table whose rows are equally long; got {shown(x)} ({error}). Of pairs (x, y), as data "
            "sets and loaders have, give x and y apart, each as one array."
        ) from error


def _plain_rows(x: Sequence[Any]) -> Sequence[Any]:
    """A nested list whose masked values are None, and whose tensors are arrays."""
    if set(map(type, x)) <= PLAIN:
        return x
    rows: list[Any] = []
    for row in x:
        if row is np.ma.masked:
            rows.append(None)
        elif isinstance(row, np.ma.MaskedArray):
            rows.append(np.ma.filled(row.astype(np.float64), np.nan) if row.dtype.kind in "iubf" else row.tolist())
        elif isinstance(row, list | tuple):
            rows.append(_plain_rows(row))
        else:
            rows.append(as_numpy(row) if hasattr(row, "detach") else row)
    return rows


def _numbers(a: np.ndarray, asked: Asked, column: Any = None) -> np.ndarray:
    """An array of real numbers, NaN where values are masked or missing."""
    hidden = np.ma.getmaskarray(a) if np.ma.is_masked(a) else None
    a = np.asarray(a)
    if a.dtype.kind == "O":
        a = _from_objects(a if hidden is None else np.where(hidden, np.array(None), a), asked, column)
    elif a.dtype.kind == "V" and not issubclass(a.dtype.type, np.void):
        a = a.astype(np.float32)  # bfloat16 and the like, which NumPy does not have itself
    elif a.dtype.kind not in "iubf":
        first = np.unravel_index(0, a.shape) if a.size else None
        raise asked.refused(a, a.shape if first is None else a[first].item(), *_place(first, column))
    return a if hidden is None else np.where(hidden, np.nan, a)


def _from_objects(a: np.ndarray, asked: Asked, column: Any) -> np.ndarray:
    """float64 of Python's numbers, of any kinds; NaN where there is None or NA."""
    cells = a.ravel()
    kinds = set(map(type, cells))
    missing = {kind for kind in kinds if kind.__name__ in MISSING}
    wrong = {kind for kind in kinds - missing if not issubclass(kind, NUMBERS)}
    if a.ndim == 0:
        raise TypeError(f"{asked.what} must be an array or a table of numbers; got {shown(a.item())}.")
    if wrong:
        first = next(i for i, cell in enumerate(cells) if type(cell) in wrong)
        raise asked.refused(a, cells[first], *_place(np.unravel_index(first, a.shape), column))
    if missing:
        cells = np.array([None if type(cell) in missing else cell for cell in cells], dtype=object)
    return cells.astype(np.float64).reshape(a.shape)


def _place(index: tuple[Any, ...] | None, column: Any) -> tuple[Any, Any]:
    """Row and column of a message."""
    if not index:
        return None, None
    return int(index[0]), int(index[1]) if column is None and len(index) > 1 else column


def refuse_sparse(x: Any, what: str) -> None:
    """Refuse sparse matrices of SciPy, torch, JAX and others: these networks see every number of a row."""
    of_torch = str(getattr(x, "layout", "")).startswith("torch.sparse")
    dense = next((name for name in ("toarray", "todense") if callable(getattr(x, name, None))), None)
    if not (of_torch or dense):
        return
    raise TypeError(
        f"{what} must be dense; got a sparse {type(x).__name__} of shape {tuple(x.shape)}. Give "
        f"{what}.{'to_dense' if of_torch else dense}(), which takes {8 * math.prod(x.shape):,} bytes in float64, or "
        "fewer columns, e.g. by sklearn.decomposition.TruncatedSVD."
    )
