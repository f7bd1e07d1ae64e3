"""From an image to a vector."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

from ugmm_ppl.nn.base import Layer, layer
from ugmm_ppl.typing import Array, Ops, Shape, Values


@layer
@dataclasses.dataclass(frozen=True)
class Flatten(Layer):
    """All numbers of an example in one axis, the last index fastest."""

    def output_shape(self, inputs: Shape) -> Shape:
        """Their number."""
        return (math.prod(inputs),)

    def apply(
        self, ops: Ops, values: Values, h: Array, inputs: Shape, noise: Mapping[str, Array] | None = None
    ) -> Array:
        """`(..., B, *inputs)` to `(..., B, K)`."""
        del ops, values, noise
        return h.reshape(*h.shape[: h.ndim - len(inputs)], math.prod(inputs))
