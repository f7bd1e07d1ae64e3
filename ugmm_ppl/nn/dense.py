"""A layer of neurons: every neuron has one mixture component for every input."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ugmm_ppl import checks, neuron
from ugmm_ppl.distributions.described import normal
from ugmm_ppl.nn.base import Layer, Role, layer
from ugmm_ppl.nn.dropout import survivors
from ugmm_ppl.nn.spaces import SCALE_FLOOR
from ugmm_ppl.typing import Array, Examples, Inputs, Ops, Shape, SiteValues, Values

STARTS = ("spread", "paper")


def neuron_parameters(ops: Ops, values: Values, keep: Array | None = None) -> tuple[Array, Array, Array]:
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


def layer_activation(ops: Ops, values: Values, x: Inputs, keep: Array | None = None) -> Array:
    """Activations of one layer, equation (2): `(..., K)` to `(..., J)`."""
    return ops.activation(x, *neuron_parameters(ops, values, keep))


def neuron_roles(shape: Shape, axes: tuple[str, ...], *, tied: bool = False) -> dict[str, Role]:
    """Roles of neurons `(..., J)` with K components each, `shape` `(..., J, K)`: N(0, 1), N(-0.5, 0.5) and N(0, 1)."""
    priors = {"loc": normal(0.0, 1.0), "log_scale": normal(-0.5, 0.5), "logits": normal(0.0, 1.0)}
    return {role: Role(shape, axes, prior) for role, prior in priors.items() if not (tied and role == "loc")}


def initial_neurons(rng: np.random.Generator, units: int, h: Examples, *, tied: bool, initial: str) -> SiteValues:
    """Start values for inputs `h` `(B, K)`.

    "spread" draws locations from a normal with mean and spread of each input, and scales log-uniformly between 0.3 and
    1 times that spread; with tied means scales cover the inputs. "paper" are those of the paper's code: loc ~ N(0, 1),
    scale ~ U(0, 1], logits ~ U(0, 1).
    """
    shape = (units, h.shape[1])
    if initial == "paper":
        values = {
            "loc": rng.normal(size=shape),
            "log_scale": np.log(1.0 - rng.uniform(size=shape)),
            "logits": rng.uniform(size=shape),
        }
    else:
        centre, spread = h.mean(0), h.std(0)
        spread = np.where(spread > 1e-3, spread, 1.0)
        reach = np.sqrt(spread**2 + centre**2) if tied else spread
        values = {
            "loc": np.zeros(shape) if tied else centre + spread * rng.normal(size=shape),
            "log_scale": np.log(reach) + rng.uniform(math.log(0.3), 0.0, shape),
            "logits": 0.1 * rng.normal(size=shape),
        }
    if tied:
        del values["loc"]
    return values


@layer
@dataclasses.dataclass(frozen=True)
class Dense(Layer):
    """J uGMM neurons over K inputs, equation (2): a_j = logsumexp_k [log weights_jk + log N(h_k; loc_jk, scale_jk^2)].

    Roles loc, log_scale (or scale) and logits (or weights), `(J, K)` each.

    Args:
        units: Neurons J; None in the last layer of a network, for as many as the likelihood needs.
        tied: Tied means: loc = 0, the component means are the inputs.
        dropout: Probability that a component is dropped in training. At least one component of every neuron survives.
        dropout_per_example: Draw one mask over the K inputs per example, shared by the neurons, in place of one mask
            over components `(J, K)` per batch.
        initial: "spread" (from the spread of the inputs) or "paper" (standard normal locations, uniform scales and
            uniform logits, whatever the data).

    Raises:
        ValueError, TypeError: Units, names or probabilities that make no layer.
    """

    units: int | None = None
    tied: bool = False
    dropout: float = 0.0
    dropout_per_example: bool = False
    initial: str = "spread"

    log_densities: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the description."""
        checks.settle(
            self,
            units=checks.units(self.units),
            tied=checks.flag("tied", self.tied),
            dropout=checks.number("dropout", self.dropout, 0.0, 1.0, closed_low=True),
            dropout_per_example=checks.flag("dropout_per_example", self.dropout_per_example),
        )
        checks.choice("initial", self.initial, STARTS)

    def output_shape(self, inputs: Shape) -> Shape:
        """`(J,)`."""
        checks.layer_inputs("Dense", inputs, 1, "Flatten")
        return (checks.complete("Dense", self.units),)

    def roles(self, inputs: Shape) -> dict[str, Role]:
        """Those of J neurons."""
        return neuron_roles((*self.output_shape(inputs), *inputs), ("neuron", "input"), tied=self.tied)

    def start(self, rng: np.random.Generator, h: Examples) -> SiteValues:
        """As `initial` says."""
        return initial_neurons(rng, checks.complete("Dense", self.units), h, tied=self.tied, initial=self.initial)

    def noise_shapes(self, inputs: Shape, rows: Shape) -> dict[str, Shape]:
        """`keep`: `(*rows, 1, K)` or `(J, K)`."""
        if self.dropout == 0.0:
            return {}
        return {"keep": (*rows, 1, *inputs) if self.dropout_per_example else (*self.output_shape(inputs), *inputs)}

    def apply(
        self, ops: Ops, values: Values, h: Array, inputs: Shape, noise: Mapping[str, Array] | None = None
    ) -> Array:
        """Activations `(..., J)`."""
        del inputs
        return layer_activation(ops, values, h, survivors(ops, noise["keep"], self.dropout) if noise else None)

    def work(self, inputs: Shape) -> int:
        """J K."""
        return math.prod((*self.output_shape(inputs), *inputs))
