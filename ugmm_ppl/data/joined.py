"""Rows with the extra columns that they bring along."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ugmm_ppl.typing import PerRow, Rows


class Joined(np.ndarray):
    """Checked inputs `(B, K)` with extra columns after them, `(B, K + E)`; slices of rows are such again."""


def join(x: Rows, extras: Mapping[str, PerRow]) -> Rows:
    """Inputs with extra columns after them; x itself if there are none."""
    if not extras:
        return x
    dtype = x.dtype if x.dtype.kind == "f" else np.float64
    return np.column_stack([x, *extras.values()]).astype(dtype, copy=False).view(Joined)
