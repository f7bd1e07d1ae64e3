"""What a layer is: facts and pure functions; its parameters are values by role, sampled elsewhere."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Mapping
from typing import NamedTuple, TypeVar

import numpy as np

from ugmm_ppl.data.stored import Stored
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.typing import Array, Examples, Ops, Shape, SiteValues, Values

LAYERS: dict[str, type[Layer]] = {}
"""Layers by the name under which files hold them."""

L = TypeVar("L", bound="type[Layer]")


def layer(kind: L) -> L:
    """Register a class of layers, so that networks of them can be loaded."""
    LAYERS[kind.__name__] = kind
    return kind


class Role(NamedTuple):
    """A parameter of a layer.

    Attributes:
        shape: Shape of its value.
        axes: Names of its axes, for ArviZ: "neuron" counts the outputs of the layer, "input" its inputs.
        prior: Its prior, where a user gives none.
    """

    shape: Shape
    axes: tuple[str, ...]
    prior: Distribution


class Layer(Stored, abc.ABC):
    """A part of a network as pure functions; a frozen dataclass whose fields are plain data, without arrays.

    Shapes are those of one example: `inputs` of `(K,)`, or `(channels, rows, columns)`. Arrays have the axes of draws
    and examples before them.
    """

    @property
    def log_densities(self) -> bool:
        """Whether its outputs are activations of neurons, which are log densities."""
        return False

    @property
    def dropout(self) -> float | tuple[float, ...]:
        """Probability by which parts are left out in training; of a network those of its layers."""
        return 0.0

    @abc.abstractmethod
    def output_shape(self, inputs: Shape) -> Shape:
        """Shape of the outputs, or what is wrong with that of the inputs."""

    def roles(self, inputs: Shape) -> dict[str, Role]:
        """Its parameters by role, in the order in which they are sampled, each in the space where it is unconstrained.

        A role `log_scale` or `logits` may be sampled in natural space too, as `scale` or `weights`.
        """
        del inputs
        return {}

    def start(self, rng: np.random.Generator, h: Examples) -> SiteValues:
        """Start values of all roles for examples `h` `(B, *inputs)`."""
        del rng, h
        return {}

    def noise_shapes(self, inputs: Shape, rows: Shape) -> dict[str, Shape]:
        """Shapes of the uniform random numbers that training takes for examples of leading axes `rows`, by name."""
        del inputs, rows
        return {}

    @abc.abstractmethod
    def apply(
        self, ops: Ops, values: Values, h: Array, inputs: Shape, noise: Mapping[str, Array] | None = None
    ) -> Array:
        """Outputs for inputs `h` `(..., B, *inputs)`.

        Args:
            ops: The array library.
            values: Role -> value `(..., *shape)`, in either space; leading axes broadcast with those of h before B.
            h: Inputs.
            inputs: Their shape in one example.
            noise: In training, uniform random numbers of `noise_shapes`.
        """

    def work(self, inputs: Shape) -> int:
        """Exponentials of one example, which are also the temporaries of the broadcast formula."""
        del inputs
        return 0

    def held(self, inputs: Shape) -> int:
        """Most numbers of one example that are held at a time, but for those of a kernel."""
        return math.prod(inputs)

    @property
    def is_open(self) -> bool:
        """Whether it has a number of units that it leaves open, as None."""
        return getattr(self, "units", 0) is None

    def completed(self, outputs: int) -> Layer:
        """This layer with that number of units, where it leaves them open."""
        return dataclasses.replace(self, units=outputs) if self.is_open else self  # type: ignore[type-var]


def values_of(values: Values, stem: str) -> dict[str, Array]:
    """The values of one layer without their stem: role -> value."""
    return {name[len(stem) + 1 :]: value for name, value in values.items() if name.startswith(stem + ".")}
