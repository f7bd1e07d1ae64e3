"""A linear map, the readout of most networks."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.distributions.described import normal
from ugmm_ppl.nn.base import Layer, Role, layer
from ugmm_ppl.typing import Array, Examples, Ops, Shape, SiteValues, Values


@layer
@dataclasses.dataclass(frozen=True)
class Linear(Layer):
    """y = weight h + bias, with weights N(0, 1 / K) and biases N(0, 1).

    Roles weight `(O, K)` and bias `(O,)`. As the last layer it is the readout, whose sites are `readout.weight` and
    `readout.bias`, and whose priors `Prior.readout` and `Prior.readout_bias`.

    Args:
        units: Outputs O; None in the last layer of a network, for as many as the likelihood needs.

    Raises:
        ValueError, TypeError: Units that are no positive whole number.
    """

    units: int | None = None

    def __post_init__(self) -> None:
        """Check the description."""
        checks.settle(self, units=checks.units(self.units))

    def output_shape(self, inputs: Shape) -> Shape:
        """`(O,)`."""
        checks.layer_inputs("Linear", inputs, 1, "Flatten")
        return (checks.complete("Linear", self.units),)

    def roles(self, inputs: Shape) -> dict[str, Role]:
        """Weight and bias."""
        outputs = self.output_shape(inputs)
        return {
            "weight": Role((*outputs, *inputs), ("neuron", "input"), normal(0.0, 1.0 / math.sqrt(*inputs))),
            "bias": Role(outputs, ("neuron",), normal(0.0, 1.0)),
        }

    def start(self, rng: np.random.Generator, h: Examples) -> SiteValues:
        """Weights from the default prior, biases 0."""
        outputs, width = checks.complete("Linear", self.units), h.shape[1]
        return {"weight": rng.normal(0.0, 1.0 / math.sqrt(width), (outputs, width)), "bias": np.zeros(outputs)}

    def apply(
        self, ops: Ops, values: Values, h: Array, inputs: Shape, noise: Mapping[str, Array] | None = None
    ) -> Array:
        """`(..., O)`."""
        del inputs, noise
        return ops.matvec(values["weight"], h) + values["bias"]
