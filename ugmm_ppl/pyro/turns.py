"""Turns of threads at what Pyro and torch have one of for all of them: handlers, random state, default dtype."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from typing import Any

import pyro
import torch

from ugmm_ppl.backends.threads import Turns
from ugmm_ppl.ops.torch_arrays import default_dtype, kept_random_state, seed_torch

TURNS = Turns()


def exclusive() -> AbstractContextManager[None]:
    """Context of a thread that runs Pyro models, or draws from torch's generator; this library's own wait meanwhile.

    A training gives it back between two steps, "nuts" between two draws, if another thread waits for it.
    """
    return TURNS


def in_turns(step: Callable[[int], object], count: int, *contexts: Callable[[], AbstractContextManager[Any]]) -> None:
    """step(0), step(1), ... `exclusive` and in some contexts, which are left between two steps where a thread waits."""
    done = 0
    while done < count:
        with contextlib.ExitStack() as stack:
            for context in (exclusive, *contexts):
                stack.enter_context(context())
            while done < count:
                step(done)
                done += 1
                if TURNS.wanted():
                    break


def unchecked() -> AbstractContextManager[None]:
    """Context without Pyro's validation, for threads that have their turn."""
    return pyro.validation_enabled(False)


@contextlib.contextmanager
def as_default() -> Iterator[None]:
    """The dtype of the `settings` around as torch's default, for code that is not ours: all threads see it."""
    own = default_dtype()
    with TURNS:
        before = torch.get_default_dtype()
        torch.set_default_dtype(own)
        try:
            yield
        finally:
            torch.set_default_dtype(before)


class RandomState:
    """Torch's random numbers from a seed, which go on in the next turn where they ended; `state()` is a turn."""

    def __init__(self, seed: int) -> None:
        self._seed = seed
        self._reached: list[torch.Tensor] | None = None

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        """A turn; the user's random state is left as it was."""
        gpu = torch.get_default_device().type == "cuda"
        with kept_random_state():
            if self._reached is None:
                seed_torch(self._seed)
            else:
                torch.set_rng_state(self._reached[0])
                if gpu:
                    torch.cuda.set_rng_state(self._reached[1], torch.get_default_device())
            try:
                yield
            finally:
                self._reached = [torch.get_rng_state()]
                if gpu:
                    self._reached.append(torch.cuda.get_rng_state(torch.get_default_device()))
