"""One value: a choice, a flag, a number; and what the messages of the other files are made of."""

import difflib
import math
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np

from ugmm_ppl import budgets
from ugmm_ppl.typing import Array


def choice(what: str, got: Any, valid: Iterable[str]) -> str:
    """Return `got` if it is one of `valid`, else raise a ValueError that names the nearest one."""
    options = list(valid)
    if isinstance(got, str) and got in options:
        return options[options.index(got)]
    near = difflib.get_close_matches(str(got), options, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what} must be one of {', '.join(map(repr, options))}; got {got!r}.{hint}")


def plain(got: Any) -> Any:
    """A NumPy scalar, or an array or tensor without axes, as the Python value that it holds; all else as it is."""
    return got.item() if getattr(got, "shape", None) == () and hasattr(got, "item") else got


def settle(described: Any, **checked: Any) -> None:
    """Put what checks returned in the place of what was given, in a frozen dataclass."""
    for name, value in checked.items():
        object.__setattr__(described, name, value)


def flag(what: str, got: Any) -> bool:
    """Return `got` as a bool if it is True or False."""
    got = plain(got)
    if not isinstance(got, bool):
        raise TypeError(f"{what} must be True or False; got {got!r}.")
    return got


def names(what: str, got: Iterable[str], valid: Iterable[str]) -> None:
    """Refuse unknown names, each with the nearest valid one."""
    options = list(valid)
    for name in got:
        choice(what, name, options)


def count(what: str, got: Any, least: int = 1) -> int:
    """Return `got` as an int if it is a whole number of at least `least`."""
    got = plain(got)
    if isinstance(got, bool) or not isinstance(got, int):
        raise TypeError(f"{what} must be a whole number; got {got!r} of type {type(got).__name__}.")
    if got < least:
        raise ValueError(f"{what} must be at least {least}; got {got}.")
    return int(got)


def number(what: str, got: Any, low: float, high: float = math.inf, *, closed_low: bool = False) -> float:
    """Return `got` as a float if it lies in (low, high), or [low, high) with `closed_low`."""
    got = plain(got)
    if isinstance(got, bool) or not isinstance(got, int | float | np.floating):  # a long double stays one
        raise TypeError(f"{what} must be a number; got {got!r} of type {type(got).__name__}.")
    if not ((low <= got if closed_low else low < got) and got < high):
        raise ValueError(f"{what} must lie in {'[' if closed_low else '('}{low:g}, {high:g}); got {got}.")
    return float(got)


def floats(a: np.ndarray) -> np.ndarray:
    """Floats of a kind that both backends take: float32 and float64 as they are, whole numbers as float64."""
    if a.dtype.kind in "iub":
        return a.astype(np.float64)
    return native(a.astype(np.float32) if a.dtype.itemsize == 2 else a)


def shown(value: Any) -> str:
    """What came, shortly."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def listed(names_: Iterable[str]) -> str:
    """Names as a message shows them."""
    return ", ".join(map(repr, names_))


def as_numpy(a: Array) -> np.ndarray:
    """A tensor or array of either backend as a NumPy array; of bfloat16, which NumPy lacks, as float32."""
    if hasattr(a, "detach"):
        a = a.detach().cpu()
        return (a.float() if "bfloat16" in str(a.dtype) else a).numpy()
    array = np.asarray(a)
    return array.astype(np.float32) if array.dtype.name == "bfloat16" else array


def row_blocks(a: np.ndarray) -> Iterator[slice]:
    """Slices of the rows of an array, which together are looked at in bounded memory."""
    step = max(1, budgets.BLOCK * len(a) // max(1, a.size))
    return (slice(start, start + step) for start in range(0, len(a), step))


def broadcast(*shapes: Sequence[int]) -> tuple[int, ...]:
    """The shape that shapes broadcast to, of which `jax.export` may leave sizes open; a ValueError if there is none."""
    try:
        return np.broadcast_shapes(*map(tuple, shapes))
    except TypeError:  # NumPy's, of a size that is no number
        import jax.numpy

        return tuple(jax.numpy.broadcast_shapes(*map(tuple, shapes)))


def finite(a: np.ndarray, what: str, do: str, first_row: int = 0, *, missing: bool = False) -> None:
    """Refuse NaN (unless it stands for `missing`) and infinity; names the first, in rows counted from `first_row`."""
    if a.dtype.kind != "f":
        return
    first, total = None, 0
    for rows in row_blocks(a):
        bad = np.isinf(a[rows]) if missing else ~np.isfinite(a[rows])
        if bad.any():
            total += int(bad.sum())
            first = first or (rows.start + int(np.argwhere(bad)[0][0]), *np.argwhere(bad)[0][1:].tolist())
    if first:
        where = f"row {first_row + first[0]}" + "".join(f", column {k}" for k in first[1:])
        need = "finite, or NaN where missing" if missing else "finite"
        raise ValueError(f"{what} must be {need}; got {a[first]} in {where} ({total} such values). {do}")


def first_bad(good: np.ndarray, values: np.ndarray, what: str, need: str, do: str) -> None:
    """Refuse values of which not all are `good`; shows the first that is not."""
    if not np.all(good):
        index = tuple(int(i) for i in np.argwhere(~np.asarray(good))[0])
        at = f" at index {index}" if index else ""
        raise ValueError(
            f"{what} must be {need}; got {np.asarray(values)[index]}{at}, in shape {np.shape(values)}. {do}"
        )


def native(a: np.ndarray) -> np.ndarray:
    """The same numbers in a dtype that every library has: bytes in this machine's order, long doubles as float64."""
    return a.astype(np.float64) if a.dtype.char == "g" else a.astype(a.dtype.newbyteorder("="), copy=False)
