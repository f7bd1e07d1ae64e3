"""The network: layers of neurons, layer normalisation, and a readout, as pure functions of the parameters.

h^0 = x;   h^l = layer_norm(a^l(h^{l-1}));   outputs = weight h^L + bias (linear) or a^{L+1}(h^L) (ugmm)
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.nn.dense import (
    LayerShape,
    _activation_in_rows,
    initial_paper,
    initial_spread,
    layer_activation,
    layer_values,
)
from ugmm_ppl.nn.norm import layer_norm
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops


@dataclasses.dataclass(frozen=True)
class Network:
    """A network of uGMM neurons, described by its sizes; parameters come from a prior, data or a posterior.

    Args:
        sizes: Number of inputs, then the width of every hidden layer, e.g. `(4, 32)`.
        tied: Tied means: loc = 0, the component means are the inputs.
        normalization: "layer" normalises the activations of every hidden layer over its J neurons; None does not.
        readout: "linear", or "ugmm" (the paper): one more layer of neurons, whose activations are the outputs.
        dropout: Probability that a component is dropped in training, one number or one per layer of neurons. At least
            one component of every neuron survives.
        dropout_per_example: Draw one mask over the K inputs per example, shared by the neurons, in place of one mask
            over components `(J, K)` per batch.
        initial: "spread" (from the spread of each layer's inputs) or "paper" (standard normal locations, uniform scales
            and uniform logits, whatever the data).

    Raises:
        ValueError: Sizes, names or probabilities that make no network.
        TypeError: Sizes that are not whole numbers.
    """

    sizes: tuple[int, ...]
    tied: bool = False
    normalization: str | None = "layer"
    readout: str = "linear"
    dropout: float | tuple[float, ...] = 0.0
    dropout_per_example: bool = False
    initial: str = "spread"

    def __post_init__(self) -> None:
        """Check the description."""
        checks.settle(
            self,
            sizes=checks.network_sizes(self.sizes),
            tied=checks.flag("tied", self.tied),
            dropout_per_example=checks.flag("dropout_per_example", self.dropout_per_example),
        )
        if self.normalization is not None:
            checks.choice("normalization, unless None,", self.normalization, ("layer",))
        checks.choice("readout", self.readout, ("linear", "ugmm"))
        checks.choice("initial", self.initial, ("spread", "paper"))
        checks.normalized_widths(self.sizes, self.normalization)
        rates = checks.dropout_rates(self.dropout, len(self.sizes) - (self.readout == "linear"))
        checks.settle(self, dropout=rates if np.ndim(self.dropout) else rates[0])

    @classmethod
    def paper(cls, sizes: Sequence[int] = (784, 128, 64), **changes: Any) -> Network:
        """The network of arXiv:2509.07569: no normalisation, ugmm readout, the paper's initial values."""
        return cls(tuple(sizes), **({"normalization": None, "readout": "ugmm", "initial": "paper"} | changes))

    def layers(self, outputs: int) -> list[LayerShape]:
        """The layers of neurons; with a ugmm readout the last one has J = `outputs`."""
        widths = [*self.sizes, outputs] if self.readout == "ugmm" else list(self.sizes)
        return [LayerShape(f"layers.{i}", k, j) for i, (k, j) in enumerate(itertools.pairwise(widths))]

    def dropout_rates(self) -> tuple[float, ...]:
        """Dropout probability of every layer of neurons."""
        depth = len(self.sizes) - (self.readout == "linear")
        return self.dropout if isinstance(self.dropout, tuple) else (self.dropout,) * depth

    @property
    def readout_sites(self) -> str:
        """Pattern of the names of the readout's sites; a ugmm readout is the last layer of neurons."""
        return "readout.*" if self.readout == "linear" else f"layers.{len(self.sizes) - 1}.*"

    def largest_layer(self, outputs: int) -> int:
        """J K of the largest layer: temporaries per example of the broadcast formula."""
        return max(layer.in_features * layer.out_features for layer in self.layers(outputs))

    def forward(
        self, ops: Ops, values: Mapping[str, Array], x: Array, keep: Sequence[Array | None] | None = None
    ) -> Array:
        """Outputs of the network for given parameter values.

        Args:
            ops: The array library.
            values: Site name -> value, `layers.0.loc` `(..., J, K)` and so on; leading axes broadcast with those of x.
            x: Inputs `(..., K)`.
            keep: For every layer a mask of surviving components, or None.

        Returns:
            Outputs `(..., O)`.
        """
        h = x
        depth = len(self.dropout_rates())
        for i, mask in enumerate(keep or [None] * depth):
            h = layer_activation(ops, layer_values(values, f"layers.{i}"), h, mask)
            if self.normalization == "layer" and not (self.readout == "ugmm" and i == depth - 1):
                h = layer_norm(ops, h)
        if self.readout == "linear":
            return ops.matvec(values["readout.weight"], h) + values["readout.bias"]
        return h

    def initial_values(self, x: np.ndarray, outputs: int, seed: int) -> dict[str, np.ndarray]:
        """Start values of all parameters, drawn in NumPy so that both backends get the same numbers.

        Every location is drawn from a normal with the mean and spread of its layer input, every scale log-uniformly
        between 0.3 and 1 times that spread; later layers see the activations of the layers before them.

        Args:
            x: Inputs `(B, K)` as the network will see them; the first thousand rows are used.
            outputs: Number of outputs O.
            seed: Seed.

        Returns:
            Site name -> float64 array: loc, log_scale and logits of each layer, and the readout.
        """
        rng = np.random.default_rng(seed)
        h = np.asarray(x[:1000], dtype=np.float64)
        values: dict[str, np.ndarray] = {}
        layers = self.layers(outputs)
        for layer in layers:
            start = (
                initial_paper(rng, layer) if self.initial == "paper" else initial_spread(rng, layer, h, tied=self.tied)
            )
            if self.tied:
                del start["loc"]
            values |= {f"{layer.name}.{role}": value for role, value in start.items()}
            h = _activation_in_rows(start, h)
            if self.normalization == "layer":
                h = layer_norm(NUMPY, h)
        if self.readout == "linear":
            width = layers[-1].out_features
            values["readout.weight"] = rng.normal(0.0, 1.0 / math.sqrt(width), (outputs, width))
            values["readout.bias"] = np.zeros(outputs)
        return values
