"""A convolution of neurons: the same neurons at every window of an image or a series."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import ClassVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.nn.base import Layer, Role, layer
from ugmm_ppl.nn.dense import STARTS, initial_neurons, neuron_parameters, neuron_roles
from ugmm_ppl.typing import INDEX, Array, Examples, Ops, Shape, SiteValues, Values

START_WINDOWS = 10_000
"""Windows that start values are made from."""


@layer
@dataclasses.dataclass(frozen=True)
class Conv(Layer):
    """J uGMM neurons, each of which sees every window p of its inputs, equation (2) with shared parameters.

    a_jp = logsumexp_k [log w_jkp + log N(h_pk; loc_jk, scale_jk^2)] over the K = channels x kernel numbers of window p.
    What lies in the padding is no component: w_jkp are the weights, renormalised over the components inside.

    Inputs are `(channels, rows, columns)`, or `(channels, steps)`; outputs `(J, rows, columns)`, or `(J, steps)`. Roles
    loc, log_scale (or scale) and logits (or weights), `(J, K)` each, K with the column of the kernel fastest.

    Args:
        channels: Neurons J.
        kernel: Size of a window, one number for all axes or one for each.
        stride: Steps between windows, likewise.
        padding: Places beyond the border that windows may cover, likewise; fewer than the kernel has.
        tied: Tied means: loc = 0.
        initial: As in `Dense`.

    Raises:
        ValueError, TypeError: Sizes that make no windows.
    """

    channels: int
    kernel: int | tuple[int, ...]
    stride: int | tuple[int, ...] = 1
    padding: int | tuple[int, ...] = 0
    tied: bool = False
    initial: str = "spread"

    log_densities: ClassVar[bool] = True

    def __post_init__(self) -> None:
        """Check the description."""
        checks.settle(self, channels=checks.count("channels", self.channels), tied=checks.flag("tied", self.tied))
        for name, least in (("kernel", 1), ("stride", 1), ("padding", 0)):
            given = getattr(self, name)
            sizes = checks.shape(name, given, least)
            checks.settle(self, **{name: sizes if np.ndim(given) else sizes[0]})
        checks.choice("initial", self.initial, STARTS)

    def output_shape(self, inputs: Shape) -> Shape:
        """`(J, ...)`."""
        kernel, stride, padding = self._sizes(inputs)
        checks.windows(inputs, kernel, padding)
        found = zip(inputs[1:], kernel, stride, padding, strict=True)
        return self.channels, *((size + 2 * p - k) // s + 1 for size, k, s, p in found)

    def roles(self, inputs: Shape) -> dict[str, Role]:
        """Those of J neurons."""
        self.output_shape(inputs)
        shape = (self.channels, math.prod((inputs[0], *self._sizes(inputs)[0])))
        return neuron_roles(shape, ("channel", "window"), tied=self.tied)

    def start(self, rng: np.random.Generator, h: Examples) -> SiteValues:
        """As `initial` says, from the windows that are farthest from the border."""
        index = self._index(h.shape[1:])
        inside = (index >= 0).sum(1)
        index = index[inside == inside.max()]
        count = len(h) * len(index)
        some = np.unique(np.linspace(0, count - 1, min(count, START_WINDOWS)).round().astype(int))
        example, place = np.divmod(some, len(index))
        seen = h.reshape(len(h), -1)[example[:, None], index[place]]
        seen = np.where(index[place] >= 0, seen, h.mean())
        return initial_neurons(rng, self.channels, seen, tied=self.tied, initial=self.initial)

    def apply(
        self, ops: Ops, values: Values, h: Array, inputs: Shape, noise: Mapping[str, Array] | None = None
    ) -> Array:
        """Activations `(..., J, rows, columns)`."""
        del noise
        index, leading = self._index(inputs), tuple(h.shape[: h.ndim - len(inputs)])
        flat = h.reshape(*leading, math.prod(inputs))
        inside = index >= 0
        if not inside.all():  # the last place, to which -1 points, is infinitely far from every component
            flat = ops.concat([flat, ops.constant(np.array([np.inf]), flat)])
        windows = flat[..., index]  # (..., B, P, K)
        loc, scale, log_weights = neuron_parameters(ops, values)
        places, width = index.shape
        rows = windows.reshape(*leading[:-1], math.prod(leading[-1:]) * places, width)
        found = ops.activation(rows, loc, scale, log_weights)  # (..., B P, J)
        found = found.reshape(*found.shape[:-2], *leading[-1:], places, self.channels)
        if not inside.all():
            found = found - _log_share(ops, log_weights, inside)
        return found.swapaxes(-1, -2).reshape(*found.shape[:-2], *self.output_shape(inputs))

    def work(self, inputs: Shape) -> int:
        """J K at every window."""
        return self.channels * self._index(inputs).size

    def held(self, inputs: Shape) -> int:
        """All windows."""
        return self._index(inputs).size

    def _sizes(self, inputs: Shape) -> tuple[Shape, Shape, Shape]:
        """Kernel, stride and padding along each axis."""
        axes = len(inputs) - 1
        names = ("kernel", "stride", "padding")
        kernel, stride, padding = (checks.along("Conv", name, getattr(self, name), axes) for name in names)
        return kernel, stride, padding

    def _index(self, inputs: Shape) -> np.ndarray:
        """Places of the numbers of every window in a flat example, `(P, K)`; -1 in the padding."""
        return _windows(tuple(inputs), *self._sizes(inputs))


@functools.lru_cache(maxsize=64)
def _windows(inputs: Shape, kernel: Shape, stride: Shape, padding: Shape) -> np.ndarray:
    """`Conv._index`, made once."""
    border = [(0, 0), *((p, p) for p in padding)]
    places = np.pad(np.arange(math.prod(inputs), dtype=INDEX).reshape(inputs), border, constant_values=-1)
    axes = tuple(range(1, len(inputs)))
    views = np.lib.stride_tricks.sliding_window_view(places, kernel, axes)  # (channels, *outputs, *kernel)
    views = np.moveaxis(views[(slice(None), *(slice(None, None, s) for s in stride))], 0, len(axes))
    return np.array(views.reshape(-1, inputs[0] * math.prod(kernel)))  # a copy, not a view that cannot be written to


def _log_share(ops: Ops, log_weights: Array, inside: np.ndarray) -> Array:
    """Log of the weight of the components inside, `(..., J, K)` to `(..., P, J)`; many windows have the same ones."""
    patterns, which = np.unique(inside, axis=0, return_inverse=True)
    mask = ops.constant(patterns.astype(np.float64), log_weights)[:, None, :] > 0.5
    shares = logsumexp(ops, ops.where(mask, log_weights[..., None, :, :], -math.inf))  # (..., patterns, J)
    return shares[..., which.reshape(-1).astype(INDEX), :]
