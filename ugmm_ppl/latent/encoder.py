r"""Guides over the values of one row, q(h^{L-1}, ..., h^1, z | x), written once for both backends.

The posterior of a Markov chain, here from z down to x, is a Markov chain in the other direction. So has the guide the
form

    q(z, h | x) = q(h^{L-1} | x) q(h^{L-2} | h^{L-1}) ... q(z | h^1),

and every factor is a product of Normals whose loc and log_scale an encoder makes of the layer below. `Encoder` has one
network for each layer; `PerExample` has no network but a loc and a log_scale for every value of every row, and no
dependence between layers. Samples are loc + scale noise, so that gradients pass. Their parameters are named
`encoder.*`, and lie beside those of the guide over the parameters of the model (`LatentGuide`).
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ugmm_ppl.guides.base import normal_log_prob
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.typing import Array, SiteValues

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend

PREFIX = "encoder."

LOG_SCALES = 30.0
"""Largest size of a log scale, far beyond what a posterior has: squares of scales and their inverses are float32."""

Choose = Callable[[int, Array, Array], Array]
"""(number of the layer, loc, scale) -> its value."""


class LocalGuide(Protocol):
    """A guide over the values of all layers but the data."""

    @property
    def backend(self) -> Backend:
        """The backend."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Sizes of all layers, z first and the data last."""

    def initial(self, rows: int, seed: int) -> SiteValues:
        """Start values of the parameters, for that many rows of training data."""

    def factors(self, params: Mapping[str, Array], x: Array, rows: Array, choose: Choose) -> tuple[list[Array], Array]:
        """Go through the factors from the data up.

        Args:
            params: The parameters.
            x: Data `(B, K)` as the model sees them.
            rows: Numbers of the rows in the training data `(B,)`.
            choose: Gives the value of a layer, for its loc and scale.

        Returns:
            The values [z, h^1, ...], `(..., B, d)` each, and log q `(..., B)` in nats.
        """


def draw(
    guide: LocalGuide, params: Mapping[str, Array], x: Array, rows: Array, noise: Array
) -> tuple[list[Array], Array]:
    """Draw from a guide: [z, h^1, ...] and log q, from standard normal numbers `(..., B, d_0 + ... + d_{L-1})`."""
    parts = split(guide.sizes, noise)
    return guide.factors(params, x, rows, lambda layer, loc, scale: loc + scale * parts[layer])


def log_prob(guide: LocalGuide, params: Mapping[str, Array], x: Array, rows: Array, hidden: Sequence[Array]) -> Array:
    """log q(z, h | x) `(..., B)` in nats of given values [z, h^1, ...]."""
    return guide.factors(params, x, rows, lambda layer, *_: hidden[layer])[1]


def split(sizes: Sequence[int], joined: Any) -> list[Any]:
    """The values of all layers but the data, from one array with all of them along its last axis."""
    ends = itertools.accumulate(sizes[:-1], initial=0)
    return [joined[..., start:stop] for start, stop in itertools.pairwise(ends)]


@dataclasses.dataclass(frozen=True, eq=False)
class Encoder:
    """One network for each layer, from the data up: h^l to loc and log_scale of h^{l-1}.

    Attributes:
        networks: The networks, that of z first.
    """

    backend: Backend
    sizes: tuple[int, ...]
    networks: tuple[Network, ...]

    def initial(self, rows: int, seed: int) -> SiteValues:
        """Those of the networks."""
        del rows
        return {
            f"{PREFIX}{layer}.{name}": value
            for layer, network in enumerate(self.networks)
            for name, value in network.initial(seed + layer).items()
        }

    def factors(self, params: Mapping[str, Array], x: Array, rows: Array, choose: Choose) -> tuple[list[Array], Array]:
        """See `LocalGuide`."""
        del rows
        found: list[Array] = []
        log_q, below = 0.0, x
        for layer in reversed(range(len(self.networks))):
            prefix = f"{PREFIX}{layer}."
            own = {name.removeprefix(prefix): value for name, value in params.items() if name.startswith(prefix)}
            out = self.networks[layer].apply(own, below)
            size = self.sizes[layer]
            below, term = _chosen(self.backend, choose, layer, out[..., :size], out[..., size:])
            found.insert(0, below)
            log_q = log_q + term
        return found, log_q


@dataclasses.dataclass(frozen=True, eq=False)
class PerExample:
    """A Normal for every value of every row of the training data: `encoder.loc` and `encoder.log_scale`, `(N, d)`."""

    backend: Backend
    sizes: tuple[int, ...]

    def initial(self, rows: int, seed: int) -> SiteValues:
        """Small random locations, scale one half."""
        shape = (rows, sum(self.sizes[:-1]))
        loc = 0.1 * np.random.default_rng(seed).normal(size=shape)
        return {f"{PREFIX}loc": loc, f"{PREFIX}log_scale": np.full(shape, math.log(0.5))}

    def factors(self, params: Mapping[str, Array], x: Array, rows: Array, choose: Choose) -> tuple[list[Array], Array]:
        """See `LocalGuide`."""
        del x
        locs, log_scales = (split(self.sizes, params[f"{PREFIX}{name}"][rows]) for name in ("loc", "log_scale"))
        chosen = [_chosen(self.backend, choose, i, *own) for i, own in enumerate(zip(locs, log_scales, strict=True))]
        return [value for value, _ in chosen], sum(term for _, term in chosen)


def _chosen(backend: Backend, choose: Choose, layer: int, loc: Array, log_scale: Array) -> tuple[Array, Array]:
    """The value of a layer, and its log density summed over the layer."""
    ops = backend.ops  # the limits are for rows far from those trained on
    scale = ops.exp(ops.at_least(ops.at_most(log_scale, LOG_SCALES), -LOG_SCALES))
    value = choose(layer, loc, scale)
    return value, ops.sum(normal_log_prob(ops, value, loc, scale), -1)


class Network(Protocol):
    """A function with parameters."""

    def initial(self, seed: int) -> SiteValues:
        """Start values by name."""

    def apply(self, params: Mapping[str, Array], x: Array) -> Array:
        """`(..., K)` to `(..., 2 d)`."""


@dataclasses.dataclass(frozen=True, eq=False)
class Perceptron:
    """Layers of rectified linear units beside a linear map: skip x + out(relu(...relu(x))).

    The linear map alone is the exact encoder of a linear model with normal noise.
    """

    backend: Backend
    widths: tuple[int, ...]

    def initial(self, seed: int) -> SiteValues:
        """He's normal weights; the last ones and the linear map are small, so that q starts near N(0, 1)."""
        rng = np.random.default_rng(seed)
        found = {"skip": 0.01 * rng.normal(size=(self.widths[-1], self.widths[0]))}
        for i, (inputs, outputs) in enumerate(itertools.pairwise(self.widths)):
            last = i == len(self.widths) - 2
            found[f"{i}.weight"] = rng.normal(size=(outputs, inputs)) * (0.01 if last else math.sqrt(2.0 / inputs))
            found[f"{i}.bias"] = np.zeros(outputs)
        return found

    def apply(self, params: Mapping[str, Array], x: Array) -> Array:
        """See `Network`."""
        ops, h = self.backend.ops, x
        for i in range(len(self.widths) - 1):
            h = ops.matvec(params[f"{i}.weight"], h if i == 0 else ops.at_least(h, 0.0)) + params[f"{i}.bias"]
        return ops.matvec(params["skip"], x) + h


@dataclasses.dataclass(frozen=True, eq=False)
class Module:
    """A `torch.nn.Module` or a `flax.nnx.Module` as a function of its parameters."""

    parameters: Mapping[str, np.ndarray]
    function: Callable[[Mapping[str, Array], Array], Array]

    def initial(self, seed: int) -> SiteValues:
        """The parameters it was made with."""
        del seed
        return dict(self.parameters)

    def apply(self, params: Mapping[str, Array], x: Array) -> Array:
        """See `Network`."""
        return self.function(params, x)


def make_local_guide(
    backend: Backend, sizes: tuple[int, ...], encoder: str | Callable[[int, int], Any], widths: Sequence[int]
) -> LocalGuide:
    """The guide of an encoder: "mlp" with these hidden widths, "per-example", or a function that makes modules."""
    if encoder == "per-example":
        return PerExample(backend, sizes)
    ends = [(below, 2 * above) for above, below in itertools.pairwise(sizes)]
    if callable(encoder):
        with backend.inference.seeded(0), backend.as_default():
            return Encoder(backend, sizes, tuple(Module(*backend.module(encoder(*end))) for end in ends))
    networks = (Perceptron(backend, (inputs, *widths, outputs)) for inputs, outputs in ends)
    return Encoder(backend, sizes, tuple(networks))


@dataclasses.dataclass(frozen=True, eq=False)
class LatentGuide(Guide):
    """A guide over the parameters of a latent network, and one over the values of a row beside it."""

    local: LocalGuide
    rows: int
    seed: int

    def initial(self, start: Mapping[str, np.ndarray]) -> SiteValues:
        """Parameters of both."""
        return super().initial(start) | self.local.initial(self.rows, self.seed)

    def complete(self, model: Callable[..., Any], params: Mapping[str, Array]) -> Callable[..., Any]:
        """The model with its encoder."""
        own = {name: value for name, value in params.items() if name.startswith(PREFIX)}
        return functools.partial(model, encoder=(self.local, own))

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Also parameters of the encoder."""
        own = (name for name in gradients if name.startswith(PREFIX))
        return super().culprits(gradients) + sorted(n for n in own if not np.isfinite(gradients[n]).all())
