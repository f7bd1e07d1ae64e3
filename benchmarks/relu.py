"""Networks of rectified linear units in place of uGMM neurons, with the project's likelihoods, guides and training.

    h_0 = x,  h_i = max(0, W_i h_{i-1} + b_i),  outputs = V h_n + c

The weights of a layer with K inputs have the prior N(0, 2 / K) and start from it (He et al. 2015, arXiv:1502.01852),
its biases the prior N(0, 1), starting at 0; the readout is that of the model.
"""

from __future__ import annotations

import dataclasses
import math
from functools import cached_property
from typing import Any

import numpy as np

import ugmm_ppl as up
from ugmm_ppl.models.sites import SiteSpec
from ugmm_ppl.nn.dense import LayerShape


@dataclasses.dataclass(frozen=True, eq=False)
class ReluNetwork(up.Network):
    """Dense layers of the given sizes; sites `layers.0.weight` `(J, K)` and `layers.0.bias` `(J,)` and so on."""

    def forward(self, ops: Any, values: Any, x: Any, keep: Any = None) -> Any:
        """Outputs `(..., O)`."""
        del keep
        h = x
        for i in range(len(self.sizes) - 1):
            h = ops.at_least(ops.matvec(values[f"layers.{i}.weight"], h) + values[f"layers.{i}.bias"], 0.0)
        return ops.matvec(values["readout.weight"], h) + values["readout.bias"]

    def zeros(self, outputs: int) -> dict[str, np.ndarray]:
        """Zero for every parameter."""
        values: dict[str, np.ndarray] = {}
        for layer in self.layers(outputs):
            values[f"{layer.name}.weight"] = np.zeros((layer.out_features, layer.in_features))
            values[f"{layer.name}.bias"] = np.zeros(layer.out_features)
        return values | {"readout.weight": np.zeros((outputs, self.sizes[-1])), "readout.bias": np.zeros(outputs)}

    def initial_values(self, x: np.ndarray, outputs: int, seed: int) -> dict[str, np.ndarray]:
        """Start values."""
        del x
        rng = np.random.default_rng(seed)
        values = self.zeros(outputs)
        for name in values:
            if name.endswith("weight"):
                gain = 1.0 if name.startswith("readout") else 2.0
                values[name] = rng.normal(0.0, math.sqrt(gain / values[name].shape[1]), values[name].shape)
        return values


class _Relu:
    """Samples the parameters of a `ReluNetwork`; put in front of a model."""

    @cached_property
    def sites(self: Any) -> dict[str, SiteSpec]:
        """Weight and bias of every layer, and of the readout."""
        found = {}
        for layer in self.network.layers(self.num_outputs):
            found |= _dense(layer)
        outputs, width = self.num_outputs, self.network.sizes[-1]
        weight, bias = self.prior.linear(width).values()
        return found | {
            "readout.weight": SiteSpec(weight, (outputs, width), ("output", "neuron")),
            "readout.bias": SiteSpec(bias, (outputs,), ("output",)),
        }


def _dense(layer: LayerShape) -> dict[str, SiteSpec]:
    k, j = layer.in_features, layer.out_features
    weight = up.dist.Normal(0.0, math.sqrt(2.0 / k))
    return {
        f"{layer.name}.weight": SiteSpec(weight, (j, k), ("neuron", "input")),
        f"{layer.name}.bias": SiteSpec(up.dist.Normal(0.0, 1.0), (j,), ("neuron",)),
    }


@dataclasses.dataclass(frozen=True, eq=False)
class ReluRegressor(_Relu, up.Regressor):
    """`Regressor` of a `ReluNetwork`."""


@dataclasses.dataclass(frozen=True, eq=False)
class ReluClassifier(_Relu, up.Classifier):
    """`Classifier` of a `ReluNetwork`."""


def count(model: Any) -> int:
    """Number of parameters of a model."""
    return sum(value.size for value in model.network.zeros(model.num_outputs).values())


def widths_of_size(sizes: tuple[int, ...], outputs: int, parameters: int) -> tuple[int, ...]:
    """Sizes of the `ReluNetwork` nearest in parameters, its hidden widths in the proportions of `sizes`."""

    def scaled(factor: float) -> tuple[int, ...]:
        return (sizes[0], *(max(1, round(factor * width)) for width in sizes[1:]))

    def total(widths: tuple[int, ...]) -> int:
        return sum(value.size for value in ReluNetwork(widths).zeros(outputs).values())

    candidates = {scaled(factor) for factor in np.geomspace(0.5, 10.0, 2000) if min(scaled(factor)[1:]) > 1}
    return min(candidates, key=lambda widths: abs(total(widths) - parameters))
