"""The network: layers of neurons, layer normalisation, and a readout, as pure functions of the parameters.

h^0 = x;   h^l = layer_norm(a^l(h^{l-1}));   outputs = weight h^L + bias (linear) or a^{L+1}(h^L) (ugmm)
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl import checks, neuron
from ugmm_ppl.ops import NUMPY, Array, Ops

SCALE_FLOOR = 1e-6
"""Smallest scale of a component, in the unit of the layer's input."""

LAYER_NORM_EPS = 1e-5

SQUARABLE = 1e15
"""Its square, times any number of neurons, is a float32."""


class LayerShape(NamedTuple):
    """One layer of neurons: the prefix of its sites, K inputs and J neurons."""

    name: str
    in_features: int
    out_features: int


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
        if not hasattr(self.sizes, "__len__") or len(self.sizes) < 2:
            raise ValueError(
                f"sizes needs the number of inputs and at least one hidden width, e.g. (4, 32); got {self.sizes!r}."
            )
        checks.settle(
            self,
            sizes=tuple(checks.count("each of sizes", size) for size in self.sizes),
            tied=checks.flag("tied", self.tied),
            dropout_per_example=checks.flag("dropout_per_example", self.dropout_per_example),
        )
        if self.normalization is not None:
            checks.choice("normalization, unless None,", self.normalization, ("layer",))
        checks.choice("readout", self.readout, ("linear", "ugmm"))
        checks.choice("initial", self.initial, ("spread", "paper"))
        if self.normalization == "layer" and 1 in self.sizes[1:]:
            raise ValueError(
                "hidden widths of at least 2 are needed with normalization='layer' (one neuron normalised by itself is "
                f"always 0); got sizes={self.sizes}. Use a wider layer, or normalization=None."
            )
        depth = len(self.sizes) - (self.readout == "linear")
        given: Any = self.dropout
        rates = tuple(given) if np.ndim(given) else (given,) * depth
        if len(rates) != depth:
            raise ValueError(f"dropout must be one number or one per layer of neurons, {depth}; got {len(rates)}.")
        rates = tuple(checks.number("dropout", rate, 0.0, 1.0, closed_low=True) for rate in rates)
        checks.settle(self, dropout=rates if np.ndim(given) else rates[0])

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

    def zeros(self, outputs: int) -> dict[str, np.ndarray]:
        """Zero for every parameter: site -> value; gives the shapes where no data are at hand."""
        values: dict[str, np.ndarray] = {}
        for layer in self.layers(outputs):
            for role in ("log_scale", "logits") if self.tied else ("loc", "log_scale", "logits"):
                values[f"{layer.name}.{role}"] = np.zeros((layer.out_features, layer.in_features))
        if self.readout == "linear":
            values |= {"readout.weight": np.zeros((outputs, self.sizes[-1])), "readout.bias": np.zeros(outputs)}
        return values

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


def layer_values(values: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The values of one layer without their prefix: role -> value."""
    return {name[len(prefix) + 1 :]: value for name, value in values.items() if name.startswith(prefix + ".")}


def neuron_parameters(ops: Ops, values: Mapping[str, Array], keep: Array | None = None) -> tuple[Array, Array, Array]:
    """(loc, scale, log_weights) of equation (2) from the values of one layer, in whichever space they were sampled.

    Args:
        ops: The array library.
        values: loc (absent if tied), log_scale or scale, logits or weights, each `(..., J, K)`.
        keep: Mask of surviving components, `(..., J, K)` or `(B, 1, K)`; weights are renormalised over the survivors.
    """
    spread, share = (values[a if a in values else b] for a, b in (("scale", "log_scale"), ("weights", "logits")))
    scale, logits = ops.widened(spread), ops.widened(share)
    scale = scale if "scale" in values else ops.exp(scale)
    logits = neuron.safe_log(ops, logits) if "weights" in values else logits
    if keep is not None:
        logits = ops.where(keep, logits, -math.inf)
    scale, log_weights = ops.at_least(scale, SCALE_FLOOR), neuron.log_normalize(ops, logits)
    return values.get("loc", 0.0), ops.narrowed(scale, spread), ops.narrowed(log_weights, share)


def layer_activation(ops: Ops, values: Mapping[str, Array], x: Array, keep: Array | None = None) -> Array:
    """Activations of one layer, equation (2): `(..., K)` to `(..., J)`."""
    return ops.activation(x, *neuron_parameters(ops, values, keep))


def survivors(ops: Ops, uniform: Array, rate: float) -> Array:
    """Dropout mask over the last axis from uniform numbers: keep where u >= rate, and the largest u of every row."""
    return (uniform >= rate) | (uniform == ops.max(uniform, -1))


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


def initial_spread(
    rng: np.random.Generator, layer: LayerShape, h: np.ndarray, *, tied: bool = False
) -> dict[str, np.ndarray]:
    """Start values from mean and spread of the layer inputs `h` `(B, K)`; with tied means scales cover the inputs."""
    shape = (layer.out_features, layer.in_features)
    centre, spread = h.mean(0), h.std(0)
    spread = np.where(spread > 1e-3, spread, 1.0)
    reach = np.sqrt(spread**2 + centre**2) if tied else spread
    return {
        "loc": np.zeros(shape) if tied else centre + spread * rng.normal(size=shape),
        "log_scale": np.log(reach) + rng.uniform(math.log(0.3), 0.0, shape),
        "logits": 0.1 * rng.normal(size=shape),
    }


def initial_paper(rng: np.random.Generator, layer: LayerShape) -> dict[str, np.ndarray]:
    """Start values of the paper's code: loc ~ N(0, 1), scale ~ U(0, 1], logits ~ U(0, 1)."""
    shape = (layer.out_features, layer.in_features)
    return {
        "loc": rng.normal(size=shape),
        "log_scale": np.log(1.0 - rng.uniform(size=shape)),
        "logits": rng.uniform(size=shape),
    }


def _activation_in_rows(values: dict[str, np.ndarray], h: np.ndarray) -> np.ndarray:
    """`layer_activation` in NumPy, a few rows at a time, so that the temporaries stay small."""
    rows = max(1, 2**22 // values["logits"].size)
    return np.concatenate([layer_activation(NUMPY, values, h[i : i + rows]) for i in range(0, len(h), rows)])
