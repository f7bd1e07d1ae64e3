"""SVI: the negative ELBO is minimised over a variational family. Source: Kucukelbir et al. 2017, JMLR 18(14)."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ugmm_ppl import checks
from ugmm_ppl.guides.base import FAMILIES
from ugmm_ppl.infer.method import METHODS, Method, method
from ugmm_ppl.infer.settings import POSITIVE, Descent, Guided, setting
from ugmm_ppl.infer.trained import Trained
from ugmm_ppl.models.base import BaseModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class SVISettings(Guided):
    """Those of "svi".

    Args:
        init_scale: Start scale of the guide, in unconstrained units.
        rank: Rank of the "lowrank" guide.
    """

    init_scale: float = setting(0.05, POSITIVE)
    rank: int = setting(10, checks.count)


@method
class SVI(Trained):
    """Stochastic variational inference."""

    name = "svi"
    settings = SVISettings
    density = True
    bound = True
    loss = "negative ELBO"

    def chosen(self, families: Mapping[str, str]) -> Method:
        """With a point at every site it is "map"."""
        return self if any(FAMILIES[family].has_density for family in families.values()) else METHODS["map"]


@method
class MAP(Trained):
    """The maximum of the joint density of data and parameters."""

    name = "map"
    settings = Descent
    point = True
    family = "delta"

    def refuse(self, model: BaseModel, families: Mapping[str, str], bayesian: Any, *, weighted: bool) -> None:
        """Refuse to infer some sites: it infers none."""
        checks.nothing_inferred(bayesian)
