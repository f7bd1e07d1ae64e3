"""Checkpoints of a training: written whole or not at all, read without unpickling, refused if another fit's."""

from __future__ import annotations

import hashlib
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.data.files import write_arrays


class Checkpoint:
    """A file that a training leaves, and goes on from.

    Args:
        path: The file, `.npz`.
        every: Steps between two writings; it is written at the end of the next block of steps.
        settings: Everything that makes the training what it is, as plain JSON values.
    """

    def __init__(self, path: Path, every: int, settings: Mapping[str, Any]) -> None:
        self._path, self._every = path, every
        self._settings = json.loads(json.dumps(settings))

    def read(self) -> dict[str, np.ndarray] | None:
        """The arrays of the last writing, or None if there was none.

        Of a training by the other backend, which has ended, those that both backends share; a warning says so.

        Raises:
            ValueError: The file cannot be read, or was written by a fit with other settings or data.
        """
        if not self._path.exists():
            return None
        try:
            with self._path.open("rb") as file:  # which closes it even if it is broken
                arrays = dict(np.load(file, allow_pickle=False))
            settings = json.loads(str(arrays.pop("settings")))
        except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
            raise checks.unreadable_checkpoint(self._path, error) from error
        changed = [name for name in {**settings, **self._settings} if settings.get(name) != self._settings.get(name)]
        if changed == ["backend"] and "final" in arrays:
            checks.checkpoint_of_other_backend(self._path, settings["backend"])
            return {name: a for name, a in arrays.items() if not name.startswith("state/")}
        if changed:
            then, now = ({name: each.get(name) for name in changed} for each in (settings, self._settings))
            raise checks.other_checkpoint(self._path, then, now)
        return arrays

    def is_due(self, block: slice) -> bool:
        """Whether a multiple of `every` steps was reached in a block."""
        return block.stop // self._every > block.start // self._every

    def write(self, arrays: Mapping[str, np.ndarray]) -> None:
        """Replace the file.

        Raises:
            CheckpointError: The disk is full, the folder is not there; the old file stays.
        """
        try:
            write_arrays(self._path, {"settings": np.array(json.dumps(self._settings)), **arrays})
        except OSError as error:
            raise checks.CheckpointError(self._path, error) from error


def digest(*arrays: np.ndarray) -> str:
    """A short name of the values, shapes and dtypes of arrays."""
    found = hashlib.sha256()
    for a in arrays:
        found.update(f"{a.dtype.str}{a.shape}".encode())
        found.update(np.ascontiguousarray(a).data)
    return found.hexdigest()[:16]
