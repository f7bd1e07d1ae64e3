"""Named train and test arrays."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ugmm_ppl.typing import PerRow, Rows


@dataclasses.dataclass(frozen=True)
class Data:
    """Training and test arrays with names; what `data()` of a model file returns.

    Args:
        x: Training inputs `(B, K)`.
        y: Training targets `(B,)`: class codes or real numbers.
        x_test: Test inputs, or None.
        y_test: Test targets, or None.
        feature_names: Names of the K columns.
        class_names: Names of the classes.
        weights: How often each training row counts `(B,)`, or None for once.
        weights_test: How often each test row counts in the metrics, or None for once.
        extras: Extra columns of the training rows by name, such as `{"exposure": ...}`, `(B,)` each.
        extras_test: Those of the test rows.
    """

    x: Rows
    y: PerRow
    x_test: Rows | None = None
    y_test: PerRow | None = None
    feature_names: list[str] | None = None
    class_names: list[str] | None = None
    weights: PerRow | None = None
    weights_test: PerRow | None = None
    extras: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    extras_test: Mapping[str, Any] = dataclasses.field(default_factory=dict)
