"""Turns of threads at NumPyro's handlers, of which there is one stack for all of them."""

from __future__ import annotations

import functools
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from ugmm_ppl.backends.threads import Turns

TURNS = Turns()


def exclusive() -> AbstractContextManager[None]:
    """Context of a thread that runs or traces NumPyro models; this library's own wait meanwhile.

    What is compiled knows no handlers, and runs without waiting. JAX's settings are of each thread.
    """
    return TURNS


def exclusively(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function inside `exclusive`: while JAX traces it, or where it compiles nothing."""

    @functools.wraps(function)
    def inside(*arguments: Any) -> Any:
        with TURNS:
            return function(*arguments)

    return inside
