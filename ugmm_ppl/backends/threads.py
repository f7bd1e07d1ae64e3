"""What threads share: turns at a library that has one state for all of them, attributes made once, silence."""

from __future__ import annotations

import contextlib
import os
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any, Generic, Self, TypeVar, overload

T = TypeVar("T")


class Turns:
    """A lock that the thread which has it may take again, and that goes round.

    With a plain lock a thread that gives it back and asks again at once has it again, and all others starve. Here
    whoever waits holds a second lock, which the one that gave the first one back must have to ask again.
    """

    def __init__(self) -> None:
        self._begin()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self._begin_in_child)

    def _begin(self) -> None:
        self._lock, self._next = threading.RLock(), threading.Lock()
        self._owner: int | None = None
        self._depth = 0

    def _begin_in_child(self) -> None:
        """The threads that have it, or wait for it, do not live in a forked process, but for the one that forked."""
        if self._owner == threading.get_ident():
            self._next = threading.Lock()
        else:
            self._begin()

    def __enter__(self) -> None:
        if self._owner == threading.get_ident():
            self._lock.acquire()
        else:
            with self._next:
                self._lock.acquire()
            self._owner = threading.get_ident()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        self._depth -= 1
        if self._depth == 0:
            self._owner = None
        self._lock.release()

    def wanted(self) -> bool:
        """Whether another thread waits for the one that has it, and would get it now."""
        return self._next.locked() and self._depth == 1


class cached_property(Generic[T]):  # noqa: N801
    """`functools.cached_property` without the lock that it has before Python 3.12, one for all objects of a class.

    With it two threads could wait for each other for ever: one has that lock and waits for its turn at a library, the
    other has its turn and waits for the attribute of another object. Here both make the value, and keep the first.
    """

    def __init__(self, function: Callable[[Any], T]) -> None:
        self._function, self.__doc__ = function, function.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type | None = None) -> Self: ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> T: ...
    def __get__(self, instance: object | None, owner: type | None = None) -> Self | T:
        if instance is None:
            return self
        return vars(instance).setdefault(self._name, self._function(instance))


DRAWING = threading.RLock()
"""For the thread that draws: matplotlib has one style and one list of figures for all of them."""

_SILENCE = threading.RLock()


@contextlib.contextmanager
def silence() -> Iterator[None]:
    """No warnings. Python has one list of filters, which the last of several threads to end would leave changed."""
    with _SILENCE, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
