"""The installed ArviZ: 0.2x, whose trees are `InferenceData`, or 1.x, whose trees are `DataTree`."""

from __future__ import annotations

from typing import Any

from ugmm_ppl.checks.machine import old_arviz, require

OLDEST = (0, 21)
"""The oldest ArviZ whose trees and functions are used here."""


def installed() -> Any:
    """The module arviz.

    Raises:
        MissingExtraError: It is not installed.
        ImportError: It is too old.
    """
    az = require("arviz", "arviz")
    if tuple(int(part) for part in az.__version__.split(".")[:2]) < OLDEST:
        raise old_arviz(az.__version__, OLDEST)
    return az


def is_old(az: Any) -> bool:
    """Whether it is 0.2x."""
    return int(az.__version__.split(".")[0]) == 0
