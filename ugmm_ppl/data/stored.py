"""What files hold as plain data: frozen dataclasses, found again by the name of their class."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self, TypeVar

from ugmm_ppl.checks.files import unknown_kind

S = TypeVar("S", bound="Stored")


class Stored:
    """A frozen dataclass whose fields are plain data."""

    def described(self) -> dict[str, Any]:
        """It as JSON values, the name of its class under "kind"."""
        return {"kind": type(self).__name__, **dataclasses.asdict(self)}  # type: ignore[call-overload]

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Self:
        """It from what `described` gave but its kind, in a file that messages call `file`."""
        del file
        return cls(**parts)


def restored(parts: Mapping[str, Any], register: Mapping[str, type[S]], what: str, file: str) -> S:
    """What `described` described.

    Args:
        parts: What it gave.
        register: Classes by name.
        what: What they are, for messages.
        file: The file, for messages.

    Raises:
        ValueError: A class that is not registered; says which are.
    """
    given = dict(parts)
    name = given.pop("kind")
    if name not in register:
        raise unknown_kind(file, what, name, register)
    return register[name].from_description(given, file)
