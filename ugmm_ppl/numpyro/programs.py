"""Compiled functions that fits share; Pyro compiles nothing, and has no such file."""

from __future__ import annotations

import hashlib
import threading
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import jax

from ugmm_ppl.numpyro.turns import TURNS, exclusively

KEPT = 32
"""Programs of this process that are kept; the one that was not asked for the longest goes first."""

_PROGRAMS: OrderedDict[Any, Any] = OrderedDict()


class compiled:  # noqa: N801
    """`jax.jit`, but functions that come down to the same program share it.

    JAX remembers programs by the function object, and every fit makes its own: without this, a fit like the last one,
    of another fold or seed, would compile anew, which takes far longer than to trace.
    """

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = exclusively(function)  # when it is traced, and where nothing is compiled
        self._jitted = jax.jit(self._function)
        self._own: dict[Any, Any] = {}

    def __call__(self, *arguments: Any) -> Any:
        """Compute it, compiled where it is not yet."""
        return self.program(*arguments)(*arguments)

    def program(self, *arguments: Any) -> Callable[..., Any]:
        """What computes it for arguments of these shapes; for loops, as to find it takes longer than many programs."""
        if jax.config.jax_disable_jit:
            return self._function
        leaves, tree = jax.tree.flatten(arguments)
        kinds = (
            tree,
            jax.config.jax_default_device,
            jax.config.read("jax_disable_most_optimizations"),
            *((jax.typeof(leaf), getattr(leaf, "sharding", None)) for leaf in leaves),
        )
        if kinds not in self._own:
            with TURNS:
                if kinds not in self._own:
                    self._own[kinds] = _shared(self._jitted.lower(*arguments), kinds)
        return self._own[kinds]


class _Program:
    """What was lowered, compiled when it is first called; by one thread, and no other has to wait for its turn."""

    def __init__(self, lowered: Any) -> None:
        self._lowered, self._lock = lowered, threading.Lock()
        self._compiled: Any = None

    def __call__(self, *arguments: Any) -> Any:
        if self._compiled is None:
            with self._lock:
                if self._compiled is None:
                    self._compiled, self._lowered = self._lowered.compile(), None
        return self._compiled(*arguments)


def _shared(lowered: Any, kinds: tuple[Any, ...]) -> Any:
    """The program of what was lowered, of now or before."""
    text = lowered.as_text()
    if "callback" in text:  # of this function's own
        return _Program(lowered)
    key = (hashlib.sha256(text.encode()).digest(), kinds, lowered.out_tree, jax.default_backend())
    if key not in _PROGRAMS:
        _PROGRAMS[key] = _Program(lowered)
    _PROGRAMS.move_to_end(key)
    while len(_PROGRAMS) > KEPT:
        _PROGRAMS.popitem(last=False)
    return _PROGRAMS[key]
