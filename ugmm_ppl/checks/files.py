"""Files that the user gave, by path or open."""

import io
import os
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
