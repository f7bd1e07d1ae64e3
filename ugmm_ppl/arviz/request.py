"""What of a fit goes into its tree."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from ugmm_ppl import checks

GROUPS = (
    "posterior",
    "posterior_summary",
    "functional",
    "posterior_predictive",
    "log_likelihood",
    "log_prior",
    "sample_stats",
    "training",
    "prior",
    "prior_predictive",
    "observed_data",
    "constant_data",
)


OF_DATA = ("posterior_predictive", "log_likelihood", "sample_stats", *GROUPS[8:])
"""Groups that need the data of the fit."""


KEEPING = ("auto", "draws", "summary")


@dataclasses.dataclass(frozen=True)
class Request:
    """What of a fit goes into its tree; described at `ugmm_ppl.arviz.to_arviz`."""

    num_draws: int | None = None
    num_prior_draws: int = 100
    var_names: Sequence[str] | None = None
    groups: Sequence[str] | None = None
    derived: bool = False
    keep: str = "auto"
    thin: int = 1
    probe: Any = None
    seed: int | None = None

    def __post_init__(self) -> None:
        """Check the names and numbers."""
        checks.choice("keep", self.keep, KEEPING)
        checks.settle(
            self,
            thin=checks.count("thin", self.thin),
            num_prior_draws=checks.count("num_prior_draws", self.num_prior_draws, least=0),
            derived=checks.flag("derived", self.derived),
            seed=None if self.seed is None else checks.count("seed", self.seed, least=0),
        )
        if self.groups is not None:
            checks.names("groups", self.groups, GROUPS)

    def wants(self, *names: str) -> bool:
        """Whether one of these groups is asked for."""
        return self.groups is None or any(name in self.groups for name in names)
