"""Files that the user gave, by path or open."""

import io
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any


def path(what: str, got: Any) -> None:
    """Refuse anything but a path."""
    if not isinstance(got, str | os.PathLike):
        raise TypeError(
            f"{what} must be the path of a file or folder; got {got!r} of type {type(got).__name__}. Give a path: what "
            "is written or read there is larger than memory, and is not gone through from front to back."
        )


def writable(got: Any) -> None:
    """Refuse what bytes cannot be written to."""
    if not hasattr(got, "write"):
        raise _no_file(got)
    try:
        got.write(b"")
    except TypeError as error:
        raise _text(got, "wb") from error
    except io.UnsupportedOperation as error:
        raise ValueError(f"path must be open for writing; got {got!r}. Open it with mode 'wb'.") from error


def content(got: Any) -> bytes:
    """All bytes that are left in an open file."""
    if not hasattr(got, "read"):
        raise _no_file(got)
    try:
        found = got.read()
    except io.UnsupportedOperation as error:
        raise ValueError(f"path must be open for reading; got {got!r}. Open it with mode 'rb'.") from error
    except UnicodeDecodeError as error:
        raise _text(got, "rb") from error
    if isinstance(found, str):
        raise _text(got, "rb")
    if not found:
        raise ValueError(f"path must have something to read; got {got!r} at its end. After writing, path.seek(0).")
    return bytes(found)


def _no_file(got: Any) -> TypeError:
    return TypeError(f"path must be a path or an open binary file; got {got!r} of type {type(got).__name__}.")


def _text(got: Any, mode: str) -> TypeError:
    return TypeError(
        f"path must be a binary file; got the text file {got!r}. Open it with mode {mode!r}, or io.BytesIO."
    )


def empty_table(name: str) -> ValueError:
    """The error for a table of nothing."""
    return ValueError(f"{name} must have a header and at least one row; it is empty.")


def encoding(name: str, content: bytes, at: int) -> ValueError:
    """The error for text of another encoding, or for what is no text, as the byte there shows."""
    line, byte = content.count(b"\n", 0, at) + 1, content[at]
    return ValueError(
        f"{name} must be text in UTF-8, or in UTF-16 with a byte order mark; got the byte 0x{byte:02x} in line {line}, "
        "which is neither. Save the table as 'CSV UTF-8', or convert it."
    )


def no_csv(name: str, error: Exception) -> ValueError:
    """The error for text that is no table."""
    return ValueError(f"{name} must be a CSV file; it cannot be read as one ({error}). Save the table as CSV.")


def columns(name: str, header: Sequence[str], needed: Sequence[str]) -> None:
    """Refuse a header without the columns that are needed, or with one of them twice."""
    missing = [each for each in needed if each not in header]
    if missing:
        raise ValueError(
            f"{name} must have the columns {list(needed)}; missing: {missing}; its header is {list(header)}. Name the "
            "columns like the fit, or give numbers alone, without a header, in this order."
        )
    twice = [each for each in needed if list(header).count(each) > 1]
    if twice:
        raise ValueError(f"{name} must have every column once; got {twice[0]!r} more than once. Take one out.")


def no_rows(name: str) -> ValueError:
    """The error for a header alone."""
    return ValueError(f"{name} must have at least one row below its header; it has none.")


def wide_row(name: str, number: int, row: Sequence[str], width: int) -> ValueError:
    """The error for a row with more cells than the header."""
    return ValueError(
        f"{name}: row {number} must have {width} cells, as the first line has; got {len(row)}, {list(row)}. A comma "
        "inside a number needs cells that are separated by ';'."
    )


def no_number(name: str, number: int, column: str, cell: str, mark: str) -> ValueError:
    """The error for a cell that is no number."""
    mend = " Write it without separators of thousands." if sum(map(cell.count, ".,'\u00a0\u202f ")) else ""
    what = f"{name}: row {number}, column {column!r}"
    return ValueError(f"{what} must be a number; got {cell!r}. The decimal mark here is {mark!r}.{mend}")


def stored_callable(name: str, callable_: str) -> ValueError:
    """The error for a file of a model that is not all plain data."""
    return ValueError(
        f"{name} holds a fit whose model has the callable {callable_!r}, which is not stored. "
        "Give the model: up.load(path, model=...)."
    )


def no_fit(name: str, error: Exception) -> ValueError:
    """The error for a file that no fit was saved to."""
    return ValueError(f"{name} must be a file written by Fit.save; it cannot be read as one ({error}).")


def newer_format(name: str, found: int, known: int) -> ValueError:
    """The error for a file of a later version."""
    return ValueError(f"{name} has format {found}; this version reads up to {known}. Upgrade ugmm-ppl.")


def unknown_kind(name: str, what: str, kind: str, known: Iterable[str]) -> ValueError:
    """The error for a file of a model or likelihood that is not registered here."""
    return ValueError(
        f"{name} holds a fit of the {what} {kind!r}; known here are {', '.join(sorted(known))}. Import the module that "
        "defines it, or give the model: up.load(path, model=...)."
    )


def new_tree(path: Path) -> None:
    """Refuse to write a tree to a file of another format, or into a folder that is there."""
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(f"path must end in .nc (netCDF) or .zarr; got {path}.")
    if path.suffix == ".zarr" and path.exists():
        raise ValueError(f"path must be a new Zarr folder; {path} is there. Delete it, or give another path.")


def missing_tree(path: Any) -> FileNotFoundError:
    """The error for a tree that is not there."""
    return FileNotFoundError(f"a netCDF file or Zarr folder is needed; {path} does not exist. Check the path.")


def no_tree(path: Any, error: Exception) -> ValueError:
    """The error for a file that no tree was written to, or only a part of one."""
    return ValueError(
        f"{path} must be a netCDF file or Zarr folder of an ArviZ tree; it cannot be read as one "
        f"({type(error).__name__}: {error}). It may be cut short: write it again with fit.export(path)."
    )


def groups(path: Any, needed: Sequence[str], found: Sequence[str]) -> None:
    """Refuse a tree without the groups that are needed."""
    missing = [name for name in needed if name not in found]
    if missing:
        raise ValueError(
            f"{path} must have the groups {', '.join(needed)}; it lacks {', '.join(missing)} and has "
            f"{', '.join(found)}. Write it again with these groups, from a fit that has its data."
        )


def no_group(name: str) -> ValueError:
    """The error for a tree without a group."""
    return ValueError(
        f"the tree needs the group {name}, and has none. Make it by fit.to_arviz(), with the data of the fit."
    )
