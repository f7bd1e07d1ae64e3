"""What likelihoods of counts share: a rate, an exposure, and outcomes 0, 1, 2, ..."""

from __future__ import annotations

import dataclasses
from typing import Any, ClassVar

from ugmm_ppl import checks
from ugmm_ppl.likelihoods.base import Extra, extra
from ugmm_ppl.likelihoods.family import Family, Parameter
from ugmm_ppl.typing import Array, PerRow, Values

RATE = Parameter("rate", "log", least=1e-30)
EXPOSURE = extra(
    "exposure", 1.0, checks.exposure, "For how long, or of how many, each row counts events `(N,)`; positive."
)


@dataclasses.dataclass(frozen=True)
class Counts(Family):
    """y is a count of events that come at a rate, while a row is exposed to them."""

    discrete: ClassVar[bool] = True
    picture: ClassVar[str] = "rootogram"

    @property
    def extras(self) -> tuple[Extra, ...]:
        """The exposure."""
        return (EXPOSURE,)

    def check(self, y: Any, rows: int) -> PerRow:
        """Counts as float64 `(B,)`."""
        return checks.counts(y, rows)

    @staticmethod
    def expected(of: Values) -> Array:
        """Mean of y: exposure times rate."""
        return of["rate"] * of["exposure"]
