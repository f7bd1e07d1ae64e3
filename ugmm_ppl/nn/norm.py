"""Layer normalisation."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

from ugmm_ppl import checks
from ugmm_ppl.nn.base import Layer, layer
from ugmm_ppl.typing import Array, Ops, Shape, Values

LAYER_NORM_EPS = 1e-5

SQUARABLE = 1e15
"""Its square, times any number of neurons, is a float32."""


def layer_norm(ops: Ops, h: Array) -> Array:
    """Normalise over the last axis, (h - mean) / sqrt(variance + 1e-5), without an affine part.

    The result is finite for all h but NaN. -inf counts as -1e37, in float64 -1e307, so that a row of nothing else gives
    zeros. Rows so large that their squares would overflow are scaled and moved first, which changes nothing.
    """
    wide = ops.widened(h)
    wide = ops.at_least(wide, -1e307 if ops.eps(wide) < 1e-10 else -1e37)
    largest = ops.max(abs(ops.stop(wide)), -1)
    unit = ops.where(largest > SQUARABLE, largest, 1.0)
    wide = wide / unit + ops.at_most(unit - 1.0, 1.0)  # equal entries of a large row are now 0, without a rounding
    centred, small = wide - ops.mean(wide, -1), ops.at_most(unit, SQUARABLE)
    return ops.narrowed(centred / ops.sqrt(ops.mean(centred * centred, -1) + LAYER_NORM_EPS / (small * small)), h)


@layer
@dataclasses.dataclass(frozen=True)
class LayerNorm(Layer):
    """Layer normalisation over all outputs of the layer before, without parameters; `layer_norm` has the equation."""

    def output_shape(self, inputs: Shape) -> Shape:
        """That of the inputs."""
        checks.normalized(inputs)
        return inputs

    def apply(
        self, ops: Ops, values: Values, h: Array, inputs: Shape, noise: Mapping[str, Array] | None = None
    ) -> Array:
        """Normalised, of the same shape."""
        del values, noise
        if len(inputs) == 1:
            return layer_norm(ops, h)
        return layer_norm(ops, h.reshape(*h.shape[: -len(inputs)], -1)).reshape(h.shape)
