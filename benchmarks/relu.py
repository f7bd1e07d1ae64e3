"""Networks of rectified linear units in place of uGMM neurons, with the project's likelihoods, guides and training.

    h_0 = x,  h_i = max(0, W_i h_{i-1} + b_i),  outputs = V h_n + c

The weights of a layer with K inputs have the prior N(0, 2 / K) and start from it (He et al. 2015, arXiv:1502.01852),
its biases the prior N(0, 1), starting at 0; the readout is that of the model.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np

import ugmm_ppl as up
from ugmm_ppl.nn import Layer, Linear, Role, layer


@layer
@dataclasses.dataclass(frozen=True)
class Relu(Layer):
    """J rectified linear units; roles weight `(J, K)` and bias `(J,)`."""

    units: int

    def output_shape(self, inputs: Any) -> Any:
        """`(J,)`."""
        return (self.units,)

    def roles(self, inputs: Any) -> dict[str, Role]:
        """Weight and bias."""
        weight = up.dist.Normal(0.0, math.sqrt(2.0 / inputs[0]))
        return {
            "weight": Role((self.units, *inputs), ("neuron", "input"), weight),
            "bias": Role((self.units,), ("neuron",), up.dist.Normal(0.0, 1.0)),
        }

    def start(self, rng: np.random.Generator, h: np.ndarray) -> dict[str, np.ndarray]:
        """Weights from the prior, biases 0."""
        shape = (self.units, h.shape[1])
        return {"weight": rng.normal(0.0, math.sqrt(2.0 / h.shape[1]), shape), "bias": np.zeros(self.units)}

    def apply(self, ops: Any, values: Any, h: Any, inputs: Any, noise: Any = None) -> Any:
        """`(..., J)`."""
        return ops.at_least(ops.matvec(values["weight"], h) + values["bias"], 0.0)


def relu_network(sizes: tuple[int, ...]) -> up.Network:
    """Inputs, hidden widths, and a linear readout."""
    return up.Network([*(Relu(width) for width in sizes[1:]), Linear()], inputs=sizes[0])


def is_relu(network: up.Network) -> bool:
    """Whether it is one of these."""
    return any(isinstance(each, Relu) for each in network.layers)


def count(model: Any) -> int:
    """Number of parameters of a model."""
    return sum(math.prod(spec.shape) for spec in model.sites.values())


def widths_of_size(sizes: tuple[int, ...], outputs: int, parameters: int) -> tuple[int, ...]:
    """Sizes of the network nearest in parameters, its hidden widths in the proportions of `sizes`."""

    def scaled(factor: float) -> tuple[int, ...]:
        return (sizes[0], *(max(1, round(factor * width)) for width in sizes[1:]))

    def total(widths: tuple[int, ...]) -> int:
        roles = relu_network(widths).completed(outputs).roles((widths[0],))
        return sum(math.prod(role.shape) for role in roles.values())

    candidates = {scaled(factor) for factor in np.geomspace(0.5, 10.0, 2000) if min(scaled(factor)[1:]) > 1}
    return min(candidates, key=lambda widths: abs(total(widths) - parameters))
