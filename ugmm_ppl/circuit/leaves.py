"""The leaves: densities of one feature given the state of its node.

A feature is a real number, for which each state has a uGMM neuron of M components,

    p(x | state j) = sum_m weights_jm N(x; loc_jm, scale_jm^2),

or falls into one of C bins, for which each state has probabilities,

    p(x | state j) = weights_jc / width_c  in bin c.

Codes 0..C-1 are bins of width one around whole numbers, whose densities are probabilities. A value that is missing
(NaN) counts 1 in every state: it is summed or integrated out.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ugmm_ppl import neuron
from ugmm_ppl.checks import count, settle
from ugmm_ppl.circuit import checks
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import INDEX, Array, Ops


@dataclasses.dataclass(frozen=True)
class Categorical:
    """A feature that is one of the codes 0..categories-1."""

    categories: int

    def __post_init__(self) -> None:
        """Check the number."""
        settle(self, categories=count("categories", self.categories, least=2))

    @property
    def edges(self) -> tuple[float, ...]:
        """Edges of the bins around the codes."""
        return tuple(np.arange(self.categories + 1) - 0.5)


def Bernoulli() -> Categorical:  # noqa: N802
    """A feature that is 0 or 1."""
    return Categorical(2)


@dataclasses.dataclass(frozen=True)
class Binned:
    """A real feature by a histogram: C + 1 increasing edges; a value outside them has density zero.

    A bin holds its left edge, the last one both.
    """

    edges: tuple[float, ...]

    def __post_init__(self) -> None:
        """Check the edges."""
        settle(self, edges=checks.edges(self.edges))

    @classmethod
    def of(cls, values: Any, bins: int = 16) -> Binned:
        """Bins of about equal counts of the values, NaN left out."""
        values = np.asarray(values, dtype=np.float64)
        return cls(tuple(np.unique(np.quantile(values[~np.isnan(values)], np.linspace(0.0, 1.0, bins + 1)))))


Leaf: TypeAlias = Categorical | Binned


@dataclasses.dataclass(frozen=True, eq=False)
class Leaves:
    """Which of L leaves are neurons and which are bins, and what the bins are.

    Attributes:
        features: Feature of every leaf `(L,)`.
        neurons: Numbers of the leaves that are neurons `(Ln,)`.
        bins: Numbers of the leaves that are bins `(Lb,)`.
        low, high: Edges of the bins `(Lb, C)`; NaN where a leaf has fewer than C.
        closed: Whether a bin holds its right edge `(Lb, C)`.
        whole: Whether the bins are codes `(Lb,)`.
    """

    features: np.ndarray
    neurons: np.ndarray
    bins: np.ndarray
    low: np.ndarray
    high: np.ndarray
    closed: np.ndarray
    whole: np.ndarray

    @classmethod
    def of(cls, features: np.ndarray, given: Mapping[int, Leaf]) -> Leaves:
        """The leaves of the given features, of which all that are not given are neurons."""
        is_bins = np.array([int(f) in given for f in features], dtype=bool)
        bins = np.flatnonzero(is_bins)
        edges = [given[int(features[leaf])].edges for leaf in bins]
        most = max((len(e) - 1 for e in edges), default=0)
        low, high, closed = (np.full((len(bins), most), np.nan) for _ in range(3))
        for row, own in enumerate(edges):
            count = len(own) - 1
            low[row, :count], high[row, :count] = own[:-1], own[1:]
            closed[row] = np.arange(most) == count - 1
        whole = np.array([isinstance(given[int(features[leaf])], Categorical) for leaf in bins], dtype=bool)
        neurons = np.flatnonzero(~is_bins).astype(INDEX)
        return cls(features.astype(INDEX), neurons, bins.astype(INDEX), low, high, closed > 0.0, whole)

    @property
    def absent(self) -> np.ndarray:
        """Whether a bin is padding, `(Lb, C)`."""
        return np.isnan(self.low)

    @property
    def log_width(self) -> np.ndarray:
        """Log width of the bins `(Lb, C)`, 0 for padding."""
        return np.where(self.absent, 0.0, np.log(np.where(self.absent, 1.0, self.high - self.low)))

    def inside(self, ops: Ops, x: Array, like: Array) -> Array:
        """One where a value lies in a bin, else zero: `(Lb, B)` to `(Lb, B, C)`."""
        low, high, closed, one = (
            ops.constant(a[:, None, :], like)
            for a in (
                np.where(self.absent, np.inf, self.low), np.where(self.absent, -np.inf, self.high),
                self.closed, np.ones((1, 1)),
            )
        )  # fmt: skip
        x = x[..., None]
        return ((x >= low) & ((x < high) | ((x == high) & (closed > 0.0)))) * one

    def log_prob(self, ops: Ops, parameters: Mapping[str, Array], x: Array) -> Array:
        """Log density of every leaf in every state, 0 where x is missing.

        Args:
            ops: The array library.
            parameters: `loc`, `scale`, `log_weights` `(..., Ln, J, M)`, `log_bins` `(..., Lb, J, C)`.
            x: Rows `(B, K)`, NaN where missing.

        Returns:
            `(..., L, B, J)` in nats, per unit of x.
        """
        at_leaves = x[..., self.features].swapaxes(-1, -2)  # (L, B)
        seen = ops.isfinite(at_leaves) | (abs(at_leaves) == np.inf)  # not NaN; XLA takes |x| >= 0 for true
        at_leaves = ops.where(seen, at_leaves, 0.0)
        parts = []
        if len(self.neurons):
            own = at_leaves if not len(self.bins) else at_leaves[self.neurons]
            loc, scale, log_weights = (parameters[n][..., None, :, :] for n in ("loc", "scale", "log_weights"))
            parts.append(neuron.log_prob(ops, own[..., None], loc, scale, log_weights))
        if len(self.bins):
            parts.append(self._log_bins(ops, parameters["log_bins"], at_leaves[self.bins]))
        values = parts[0] if len(parts) == 1 else ops.join(parts, -3)[..., self._order, :, :]
        return ops.where(seen[..., None], values, 0.0)

    def _log_bins(self, ops: Ops, log_weights: Array, x: Array) -> Array:
        inside = self.inside(ops, x, log_weights)  # (Lb, B, C)
        absent, log_width = (ops.constant(a[:, None, :], log_weights) for a in (self.absent, self.log_width))
        height = ops.where(absent > 0.0, 0.0, log_weights) - log_width  # (..., Lb, J, C)
        possible = height != -math.inf  # a probability of zero must not meet the zeros of `inside`
        hit = inside @ (possible * (1.0 - absent)).swapaxes(-1, -2)
        value = inside @ ops.where(possible, height, 0.0).swapaxes(-1, -2)
        return ops.where(hit > 0.5, value, -math.inf)

    def peaks(self, parameters: Mapping[str, np.ndarray], *, bound: bool) -> np.ndarray:
        """Log of the largest density of any component or bin, in every state, `(..., L, 1, J)`; in NumPy.

        With `bound` all components of a neuron at their peaks together, which no density of the neuron exceeds.
        """
        parts = []
        if len(self.neurons):
            terms = parameters["log_weights"] - np.log(parameters["scale"]) - neuron.HALF_LOG_2PI
            parts.append(neuron.logsumexp(NUMPY, terms) if bound else terms.max(-1))
        if len(self.bins):
            parts.append((parameters["log_bins"] - self.log_width[:, None, :]).max(-1))
        return np.concatenate(parts, -2)[..., self._order, None, :]

    @property
    def _order(self) -> np.ndarray:
        """Where each leaf is among first the neurons, then the bins."""
        return np.argsort(np.concatenate([self.neurons, self.bins]), kind="stable").astype(INDEX)


def kinds() -> tuple[type, ...]:
    """The classes of leaves that can be given."""
    return Categorical, Binned


def names_of_bins(leaf: Leaf) -> Sequence[str]:
    """What the bins are called: codes, or their intervals."""
    if isinstance(leaf, Categorical):
        return [str(code) for code in range(leaf.categories)]
    return [f"[{a:.4g}, {b:.4g})" for a, b in zip(leaf.edges, leaf.edges[1:], strict=False)]
