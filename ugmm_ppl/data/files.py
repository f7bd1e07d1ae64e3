"""Files given by path or open: a path is replaced in one move, an open file gets all that is written in one go."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import threading
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import numpy as np

from ugmm_ppl.checks import files as checks

Target: TypeAlias = str | os.PathLike[str] | BinaryIO
"""A path, or an open binary file: anything with `write`, or `read`, of bytes."""


def is_path(file: Any) -> bool:
    """Whether this is a path; some open files have one too."""
    return isinstance(file, str | bytes | os.PathLike) and not hasattr(file, "closed")


def called(file: Any) -> str:
    """What a message calls a file."""
    name = os.fsdecode(file) if is_path(file) else getattr(file, "name", None)
    return name if isinstance(name, str) else "the file"


@contextlib.contextmanager
def writing(file: Any) -> Iterator[BinaryIO]:
    """A binary file to write to. What was at a path stays until all is written and on the disk.

    Raises:
        TypeError: Neither a path nor an open binary file.
        ValueError: A file that is not open for writing.
    """
    if not is_path(file):
        checks.writable(file)
        buffer = io.BytesIO()  # an archive is not written from front to back, as a stream must be
        yield buffer
        buffer.seek(0)
        shutil.copyfileobj(buffer, file)
        return
    path = Path(os.fsdecode(file))
    partial = path.with_name(f"{path.name}.{threading.get_native_id()}.partial")  # two threads may write one file
    try:
        with partial.open("wb") as opened:
            yield opened
            opened.flush()
            os.fsync(opened.fileno())
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


@contextlib.contextmanager
def reading(file: Any) -> Iterator[BinaryIO]:
    """A binary file to read from, from where it stands; one that is not closed afterwards if it was given open.

    Raises:
        FileNotFoundError: No such file.
        TypeError: Neither a path nor an open binary file.
        ValueError: A file that is not open for reading, or has nothing left to read.
    """
    if is_path(file):
        with Path(os.fsdecode(file)).open("rb") as opened:
            yield opened
    else:
        yield io.BytesIO(checks.content(file))


def write_arrays(path: Target, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file; an existing one is replaced only when the new one is complete and on the disk."""
    with writing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]
