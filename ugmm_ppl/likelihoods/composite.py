"""Families that are made of another one."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Self

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.data.stored import restored
from ugmm_ppl.likelihoods.base import LIKELIHOODS, Extra
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.typing import PerRow, Values

ZERO = Parameter("zero_log_odds")


@dataclasses.dataclass(frozen=True)
class Composite(Family):
    """A family whose parameters are those of its base, and some of its own.

    Args:
        base: The other family.
        shared: Parameters that all rows share, besides those that the base shares.
    """

    base: Family

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.base_of(type(self).__name__, self.base, Family)
        checks.settle(self, shared=tuple(dict.fromkeys([*self.base.shared, *self.shared])))
        super().__post_init__()

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the base, and its own."""
        return *self.base.parameters, *self.own

    @property
    def own(self) -> tuple[Parameter, ...]:
        """Parameters besides those of the base."""
        return (ZERO,)

    @property
    def discrete(self) -> bool:
        """That of the base."""
        return self.base.discrete

    @property
    def picture(self) -> str:
        """That of the base."""
        return self.base.picture

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Those of the base."""
        return self.base.extras

    def check(self, y: Any, rows: int) -> PerRow:
        """As the base does."""
        return self.base.check(y, rows)

    def check_extras(self, y: PerRow, extras: Mapping[str, PerRow]) -> None:
        """As the base does."""
        self.base.check_extras(y, extras)

    def ppl(self, backend: Backend, of: Values) -> Any:
        """A distribution by its density."""
        return backend.dist.FamilyDistribution(self, backend, of)

    def described(self) -> dict[str, Any]:
        """The fields, with the description of the base."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return {"kind": type(self).__name__, **own, "base": self.base.described()}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Self:
        """The likelihood from its JSON values."""
        return cls(**{**parts, "base": restored(parts["base"], LIKELIHOODS, "likelihood", file)})


@dataclasses.dataclass(frozen=True)
class Limited(Composite):
    """A base with exact tails of which bounds or a part are seen; described at `Censored` and `Truncated`."""

    def __post_init__(self) -> None:
        """Check the arguments."""
        super().__post_init__()
        checks.base_with_tails(type(self).__name__, self.base)

    @property
    def own(self) -> tuple[Parameter, ...]:
        """None."""
        return ()

    @property
    def standardizes(self) -> bool:
        """That of the base."""
        return self.base.standardizes

    def units(self, y: PerRow, weights: PerRow | None) -> Standardizer | None:
        """Those of the base."""
        return self.base.units(y, weights)
