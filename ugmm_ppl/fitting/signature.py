"""The settings of the methods in the signature and in the documentation of what takes them."""

from __future__ import annotations

import dataclasses
import inspect
import re
from collections.abc import Callable
from typing import Any, TypeVar

from ugmm_ppl.infer.method import METHODS
from ugmm_ppl.infer.settings import Settings
from ugmm_ppl.likelihoods.base import EXTRAS

F = TypeVar("F", bound=Callable[..., Any])


def with_settings(function: F) -> F:
    """Show the extra columns and the settings of all methods in place of `**settings`, and say what each is.

    One whose default depends on the method has `...` for it.
    """
    kinds = dict.fromkeys(
        kind for method in METHODS.values() for kind in reversed(method.settings.__mro__) if issubclass(kind, Settings)
    )
    fields = {field.name: field for kind in kinds for field in dataclasses.fields(kind)}
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    more = []
    for name, field in fields.items():
        defaults = {own.default for kind in kinds for own in dataclasses.fields(kind) if own.name == name}
        default = field.default if len(defaults) == 1 else ...
        more.append(inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=field.type))
    beside = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None, annotation="Any") for name in EXTRAS
    ]
    function.__signature__ = signature.replace(parameters=[*own, *beside, *more])  # type: ignore[attr-defined]
    before, returns, after = (function.__doc__ or "").partition("\n    Returns:")
    said = {name: lines for kind in reversed(kinds) for name, lines in _arguments(kind).items()}
    columns = "".join(f"        {each.name}: {each.said}\n" for each in EXTRAS.values())
    function.__doc__ = before.rstrip() + "\n" + columns + "".join(said[name] for name in fields) + returns + after
    return function


def _arguments(kind: type) -> dict[str, str]:
    """The lines of a docstring that say what each argument is, indented as those of a function."""
    lines = (kind.__doc__ or "").partition("Args:\n")[2].partition("\n\n")[0].rstrip()
    entries = re.split(r"^(?=        \w+:)", lines + "\n" if lines else "", flags=re.MULTILINE)
    return {entry.strip().partition(":")[0]: entry for entry in entries if entry.strip()}
