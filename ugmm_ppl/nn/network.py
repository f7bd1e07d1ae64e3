"""The network: layers in turn, as one pure function of the parameters.

h^0 = x;   h^l = layer_l(h^{l-1});   outputs = h^L
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.data.stored import restored
from ugmm_ppl.nn.base import LAYERS, Layer, Role, layer, values_of
from ugmm_ppl.nn.dense import STARTS, Dense
from ugmm_ppl.nn.linear import Linear
from ugmm_ppl.nn.norm import LayerNorm
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Examples, Inputs, Ops, Rows, Shape, SiteValues, Values

READOUT = "readout"

START_ROWS = 1000
"""Rows that start values are made from."""


class Placed(NamedTuple):
    """A layer in its place: the stem of its sites, "" where it has none, and the shape of its inputs."""

    stem: str
    layer: Layer
    inputs: Shape


@layer
@dataclasses.dataclass(frozen=True, init=False)
class Network(Layer):
    """Layers in turn, themselves a layer; parameters come from a prior, data or a posterior.

    The short form `Network((4, 32))` is `Network([Dense(32), LayerNorm(), Linear()], inputs=4)`. Layers with parameters
    have sites of the stems `layers.0`, `layers.1`, ..., a linear one at the end `readout`. A network among the layers
    stands for its layers.

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
        placed = _placed(made, shape)
        checks.settle(self, layers=tuple(place.layer for place in placed), inputs=shape, placed=placed)

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
        own = (place.layer.dropout for place in self.placed if place.stem not in ("", READOUT))
        return tuple(itertools.chain.from_iterable(np.ravel(rate).tolist() for rate in own))

    @property
    def log_densities(self) -> bool:
        """Whether outputs are activations of neurons, log densities."""
        return self.layers[-1].log_densities

    @property
    def readout_sites(self) -> str:
        """Pattern of the names of the sites nearest to the outputs."""
        return f"{self.stems[-1]}.*"

    @property
    def is_open(self) -> bool:
        """Whether the last layer leaves its number of units open."""
        return self.layers[-1].is_open

    def completed(self, outputs: int) -> Network:
        """This network with that number of outputs, where the last layer leaves it open."""
        if not self.is_open:
            return self
        *others, last = self.layers
        return Network([*others, last.completed(outputs)], inputs=self.inputs)

    def output_shape(self, inputs: Shape) -> Shape:
        """That of the last layer."""
        checks.layer_shape("Network", self.inputs, inputs)
        last = self.placed[-1]
        return last.layer.output_shape(last.inputs)

    def roles(self, inputs: Shape) -> dict[str, Role]:
        """Parameters by site, `layers.0.loc` and so on, of a completed network."""
        checks.layer_shape("Network", self.inputs, inputs)
        return {
            f"{place.stem}.{role}": value
            for place in self.placed
            for role, value in place.layer.roles(place.inputs).items()
        }

    def work(self, inputs: Shape) -> int:
        """Exponentials per example of the largest layer, of a completed network."""
        del inputs
        return max(1, *(place.layer.work(place.inputs) for place in self.placed))

    def held(self, inputs: Shape) -> int:
        """That of the layer which holds most."""
        del inputs
        return max(place.layer.held(place.inputs) for place in self.placed)

    def noise_shapes(self, inputs: Shape, rows: Shape) -> dict[str, Shape]:
        """Those of the layers, by site, of a completed network."""
        del inputs
        return {
            f"{place.stem}.{name}": shape
            for place in self.placed
            for name, shape in place.layer.noise_shapes(place.inputs, rows).items()
        }

    def apply(
        self, ops: Ops, values: Values, h: Array, inputs: Shape, noise: Mapping[str, Array] | None = None
    ) -> Array:
        """Outputs for inputs `h` `(..., B, *inputs)`, for parameters by site."""
        del inputs
        for stem, each, shape in self.placed:
            own = values_of(values, stem) if stem else {}
            h = each.apply(ops, own, h, shape, values_of(noise, stem) if noise and stem else None)
        return h

    def forward(self, ops: Ops, values: Values, x: Inputs, noise: Mapping[str, Array] | None = None) -> Array:
        """Outputs of the network for examples as a table holds them, in rows of numbers.

        Args:
            ops: The array library.
            values: Site name -> value, `layers.0.loc` `(..., J, K)` and so on; leading axes broadcast with those of x.
            x: Inputs `(..., K)`.
            noise: In training, uniform random numbers of `noise_shapes`.

        Returns:
            Outputs `(..., O)`.
        """
        h = x if len(self.inputs) == 1 else x.reshape(*x.shape[:-1], *self.inputs)
        return self.apply(ops, values, h, self.inputs, noise)

    def start(self, rng: np.random.Generator, h: Examples) -> SiteValues:
        """Start values of a completed network; layers see what those before them make of `h` with theirs."""
        values: dict[str, np.ndarray] = {}
        *hidden, last = self.placed
        for stem, each, inputs in hidden:
            start = each.start(rng, h)
            values |= {f"{stem}.{role}": value for role, value in start.items()}
            rows = max(1, budgets.TEMPORARY // max(1, each.work(inputs)))
            h = np.concatenate([each.apply(NUMPY, start, h[i : i + rows], inputs) for i in range(0, len(h), rows)])
        return values | {f"{last.stem}.{role}": value for role, value in last.layer.start(rng, h).items()}

    def initial_values(self, x: Rows, outputs: int, seed: int) -> SiteValues:
        """Start values of all parameters, drawn in NumPy so that both backends get the same numbers.

        Args:
            x: Inputs `(B, K)` as the network will see them; the first thousand rows are used.
            outputs: Number of outputs O.
            seed: Seed.

        Returns:
            Site name -> float64 array.
        """
        h = np.asarray(x[:START_ROWS], dtype=np.float64).reshape(-1, *self.inputs)
        return self.completed(outputs).start(np.random.default_rng(seed), h)

    def described(self) -> dict[str, Any]:
        """The network as JSON values."""
        layers = [each.described() for each in self.layers]
        return {"kind": type(self).__name__, "layers": layers, "inputs": self.inputs}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Self:
        """The network from its JSON values; older files hold the short form."""
        if "sizes" in parts:
            return cls(**parts)
        return cls([restored(each, LAYERS, "layer", file) for each in parts["layers"]], inputs=parts["inputs"])


def _placed(layers: Sequence[Layer], inputs: Shape) -> tuple[Placed, ...]:
    """Layers in their places; shapes that do not fit are refused here."""
    found: list[Placed] = []
    shape, number, pending = inputs, 0, list(layers)
    while pending:
        each = pending.pop(0)
        if isinstance(each, Network):
            checks.layer_shape("Network", each.inputs, shape)
            pending = [*each.layers, *pending]
            continue
        known = each.completed(1)  # whether there are parameters does not depend on the number of units
        stem = f"layers.{number}" if known.roles(shape) else ""
        if not pending and isinstance(each, Linear):
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
