"""`Imputation`: completed copies of a table."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np

from ugmm_ppl.checks.machine import require
from ugmm_ppl.typing import Rows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Imputation:
    """n completed copies of a table; made by `CircuitFit.impute`.

    Attributes:
        values: The copies `(n, B, K)`.
        missing: What was missing `(B, K)`.
        feature_names: Names of the features.
    """

    values: Rows
    missing: Rows
    feature_names: list[str]

    def __repr__(self) -> str:
        """The counts."""
        n, rows, _ = self.values.shape
        return f"Imputation(copies={n}, rows={rows}, missing={int(self.missing.sum())} of {self.missing.size})"

    @property
    def mean(self) -> Rows:
        """Mean over the copies `(B, K)`."""
        return self.values.mean(0)

    def quantile(self, q: Any) -> Rows:
        """Quantiles over the copies, `(B, K)` for a number, `(Q, B, K)` for an array."""
        return np.quantile(self.values, q, axis=0)

    def to_arviz(self) -> Any:
        """The copies as the group `predictions`, dims chain, draw, row, feature; what was missing as constant data."""
        from ugmm_ppl.arviz.tree import tree_of

        az = require("arviz", "arviz")
        groups = {"predictions": {"x": self.values[None]}, "predictions_constant_data": {"missing": self.missing}}
        names = ["row", "feature"]
        coords = {"row": np.arange(self.values.shape[1]), "feature": self.feature_names}
        return tree_of(az, groups, {"x": names, "missing": names}, coords, {"library": "ugmm_ppl"})
