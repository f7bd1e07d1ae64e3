"""The network: layers in turn, as one pure function of the parameters.

h^0 = x;   h^l = layer_l(h^{l-1});   outputs = h^L
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.nn.base import Layer, Role, layer_of, values_of
from ugmm_ppl.nn.dense import STARTS, Dense
from ugmm_ppl.nn.linear import Linear
from ugmm_ppl.nn.norm import LayerNorm
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Inputs, Ops, Rows, Shape, Values

READOUT = "readout"

START_ROWS = 1000
"""Rows that start values are made from."""


class Placed(NamedTuple):
    """A layer in its place: the stem of its sites, "" where it has none, and the shape of its inputs."""

    stem: str
    layer: Layer
    inputs: Shape


@dataclasses.dataclass(frozen=True, init=False)
class Network:
    """Layers in turn; parameters come from a prior, data or a posterior.

    The short form `Network((4, 32))` is `Network([Dense(32), LayerNorm(), Linear()], inputs=4)`. Layers with parameters
    have sites of the stems `layers.0`, `layers.1`, ..., a linear one at the end `readout`.

    Args:
        layers: The layers, each one of `ugmm_ppl.nn`; or the sizes of the short form.
        inputs: Number of inputs, or the shape of one example, such as `(1, 28, 28)` for images in rows of 784 numbers.
        sizes: Number of inputs, then the width of every hidden layer, e.g. `(4, 32)`: the short form, which the
            following arguments belong to.
        tied: Tied means: loc = 0, the component means are the inputs.
        normalization: "layer" normalises the activations of every hidden layer over its J neurons; None does not.
        readout: "linear", or "ugmm" (the paper): one more layer of neurons, whose activations are the outputs.
        dropout: Probability that a component is dropped in training, one number or one per layer of neurons.
        dropout_per_example: As in `Dense`.
        initial: "spread" or "paper", as in `Dense`.

    Raises:
        ValueError: Layers, sizes, names or probabilities that make no network.
        TypeError: Sizes that are not whole numbers, or layers that are none.
    """

    layers: tuple[Layer, ...]
    inputs: Shape
    placed: tuple[Placed, ...] = dataclasses.field(init=False, repr=False, compare=False)
    """The layers in their places."""

    def __init__(
        self, layers: Sequence[Layer] | Sequence[int] | None = None, *, inputs: int | Sequence[int] | None = None,
        sizes: Sequence[int] | None = None, tied: bool = False, normalization: str | None = "layer",
        readout: str = "linear", dropout: float | Sequence[float] = 0.0, dropout_per_example: bool = False,
        initial: str = "spread",
    ) -> None:  # fmt: skip
        made = None if sizes is not None else checks.as_layers(layers, Layer)
        if made is not None:
            given = (tied, normalization, readout, dropout, dropout_per_example, initial)
            checks.long_form(given == (False, "layer", "linear", 0.0, False, "spread"), inputs)
            shape = checks.shape("inputs", inputs)
        else:
            checks.short_form(layers, sizes, inputs)
            shape, made = _short(
                layers if sizes is None else sizes, normalization, readout, dropout, tied=tied,
                dropout_per_example=dropout_per_example, initial=initial,
            )  # fmt: skip
        checks.open_units([each.is_open for each in made])
        checks.settle(self, layers=made, inputs=shape, placed=_placed(made, shape))

    @classmethod
    def paper(cls, sizes: Sequence[int] = (784, 128, 64), **changes: Any) -> Network:
        """The network of arXiv:2509.07569: no normalisation, ugmm readout, the paper's initial values."""
        return cls(tuple(sizes), **({"normalization": None, "readout": "ugmm", "initial": "paper"} | changes))

    @property
    def stems(self) -> list[str]:
        """Stems of the sites, from the inputs to the outputs."""
        return [place.stem for place in self.placed if place.stem]

    @property
    def num_inputs(self) -> int:
        """Number of inputs."""
        return math.prod(self.inputs)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Number of inputs, and the numbers that each hidden layer with parameters makes of an example."""
        shapes = [place.inputs for place in self.placed[1:]]
        made = [math.prod(shape) for place, shape in zip(self.placed, shapes, strict=False) if place.stem]
        return self.num_inputs, *made

    @property
    def dropout(self) -> tuple[float, ...]:
        """Dropout probability of every layer with parameters but the readout."""
        return tuple(place.layer.dropout for place in self.placed if place.stem not in ("", READOUT))

    @property
    def log_densities(self) -> bool:
        """Whether outputs are activations of neurons, log densities."""
        return self.layers[-1].log_densities

    @property
    def readout_sites(self) -> str:
        """Pattern of the names of the sites nearest to the outputs."""
        return f"{self.stems[-1]}.*"

    def completed(self, outputs: int) -> Network:
        """This network with that number of outputs, which the last layer may have left open."""
        *others, last = self.layers
        found = Network([*others, last.completed(outputs)], inputs=self.inputs)
        checks.network_outputs(found.placed[-1].layer.output_shape(found.placed[-1].inputs), outputs)
        return found

    def roles(self) -> dict[str, Role]:
        """Parameters by site, of a completed network."""
        return {
            f"{place.stem}.{role}": value
            for place in self.placed
            for role, value in place.layer.roles(place.inputs).items()
        }

    @property
    def work(self) -> int:
        """Exponentials per example of the largest layer, of a completed network."""
        return max(1, *(place.layer.work(place.inputs) for place in self.placed))

    @property
    def held(self) -> int:
        """Most numbers of one example that are held at a time, but for those of a kernel."""
        return max(place.layer.held(place.inputs) for place in self.placed)

    def noise_shapes(self, rows: Shape) -> dict[str, Shape]:
        """Shapes of the random numbers of training for examples of leading axes `rows`, of a completed network."""
        return {
            f"{place.stem}.{name}": shape
            for place in self.placed
            for name, shape in place.layer.noise_shapes(place.inputs, rows).items()
        }

    def forward(self, ops: Ops, values: Values, x: Inputs, noise: Mapping[str, Array] | None = None) -> Array:
        """Outputs of the network for given parameter values.

        Args:
            ops: The array library.
            values: Site name -> value, `layers.0.loc` `(..., J, K)` and so on; leading axes broadcast with those of x.
            x: Inputs `(..., K)`.
            noise: In training, uniform random numbers of `noise_shapes`.

        Returns:
            Outputs `(..., O)`.
        """
        h = x if len(self.inputs) == 1 else x.reshape(*x.shape[:-1], *self.inputs)
        for stem, each, inputs in self.placed:
            own = values_of(values, stem) if stem else {}
            h = each.apply(ops, own, h, inputs, values_of(noise, stem) if noise and stem else None)
        return h

    def initial_values(self, x: Rows, outputs: int, seed: int) -> dict[str, np.ndarray]:
        """Start values of all parameters, drawn in NumPy so that both backends get the same numbers.

        Layers see what the layers before them make of the data with their start values.

        Args:
            x: Inputs `(B, K)` as the network will see them; the first thousand rows are used.
            outputs: Number of outputs O.
            seed: Seed.

        Returns:
            Site name -> float64 array.
        """
        rng = np.random.default_rng(seed)
        h = np.asarray(x[:START_ROWS], dtype=np.float64).reshape(-1, *self.inputs)
        values: dict[str, np.ndarray] = {}
        *hidden, last = self.completed(outputs).placed
        for stem, each, inputs in hidden:
            start = each.start(rng, h)
            values |= {f"{stem}.{role}": value for role, value in start.items()}
            rows = max(1, budgets.TEMPORARY // max(1, each.work(inputs)))
            h = np.concatenate([each.apply(NUMPY, start, h[i : i + rows], inputs) for i in range(0, len(h), rows)])
        return values | {f"{last.stem}.{role}": value for role, value in last.layer.start(rng, h).items()}

    def described(self) -> dict[str, Any]:
        """The network as JSON values."""
        return {"layers": [each.described() for each in self.layers], "inputs": self.inputs}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Network:
        """The network from its JSON values; older files hold the short form."""
        if "sizes" in parts:
            return cls(**parts)
        return cls([layer_of(each, file) for each in parts["layers"]], inputs=parts["inputs"])


def _placed(layers: Sequence[Layer], inputs: Shape) -> tuple[Placed, ...]:
    """Layers in their places; shapes that do not fit are refused here."""
    found, shape, number = [], inputs, 0
    for i, each in enumerate(layers):
        known = each.completed(1)  # whether there are parameters does not depend on the number of units
        stem = f"layers.{number}" if known.roles(shape) else ""
        if i == len(layers) - 1 and isinstance(each, Linear):
            stem = READOUT
        number += stem not in ("", READOUT)
        found.append(Placed(stem, each, shape))
        shape = known.output_shape(shape)
    return tuple(found)


def _short(
    sizes: Any, normalization: str | None, readout: str, dropout: Any, *, initial: str, **options: Any
) -> tuple[Shape, tuple[Layer, ...]]:
    """Shape of the inputs, and the layers of the short form."""
    inputs, *widths = checks.network_sizes(sizes)
    if normalization is not None:
        checks.choice("normalization, unless None,", normalization, ("layer",))
    checks.choice("readout", readout, ("linear", "ugmm"))
    checks.choice("initial", initial, STARTS)
    checks.normalized_widths(tuple(sizes), normalization)
    rates = checks.dropout_rates(dropout, len(widths) + (readout == "ugmm"))
    neurons = [
        Dense(width, dropout=rate, initial=initial, **options) for width, rate in zip(widths, rates, strict=False)
    ]
    norm = [] if normalization is None else [LayerNorm()]
    hidden = itertools.chain.from_iterable([each, *norm] for each in neurons)
    last = Linear() if readout == "linear" else Dense(None, dropout=rates[-1], initial=initial, **options)
    return (inputs,), (*hidden, last)
