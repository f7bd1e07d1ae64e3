"""SVI: the negative ELBO is minimised over a variational family. Source: Kucukelbir et al. 2017, JMLR 18(14)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ugmm_ppl import checks
from ugmm_ppl.guides.base import FAMILIES
from ugmm_ppl.infer.method import METHODS, Method, method
from ugmm_ppl.infer.trained import Trained
from ugmm_ppl.models.base import Model


@method
class SVI(Trained):
    """Stochastic variational inference."""

    name = "svi"
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
    point = True
    family = "delta"

    def refuse(self, model: Model, families: Mapping[str, str], bayesian: Any, *, weighted: bool) -> None:
        """Refuse to infer some sites: it infers none."""
        checks.nothing_inferred(bayesian)
