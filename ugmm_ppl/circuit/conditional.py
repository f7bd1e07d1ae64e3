"""`Conditional`: the distribution of what is missing in rows given what is seen in them."""

from __future__ import annotations

import dataclasses
from functools import cached_property
from typing import Any

import numpy as np

from ugmm_ppl import neuron
from ugmm_ppl.checks import number
from ugmm_ppl.circuit import checks
from ugmm_ppl.circuit.evaluation import Evaluation
from ugmm_ppl.circuit.leaves import names_of_bins
from ugmm_ppl.distributions import pathwise
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.neuron import log_normalize
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import PerRow, Probs, Rows


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Conditional:
    """p(missing | seen) for each of B rows; made by `CircuitDensity.conditional`.

    The marginal of a real feature is a univariate Gaussian mixture over all components of its leaves, weighted by the
    posterior probability of their states; that of a code or histogram is a mixture of its bins. Both are exact.

    Attributes:
        density: The density.
        x: Rows `(B, K)` as the model sees them.
        y: Class codes `(B,)`, -1 where not known.
    """

    density: Evaluation
    x: Rows
    y: PerRow

    def __repr__(self) -> str:
        """How many rows, and how much is missing."""
        return f"Conditional(rows={len(self.x)}, missing={int(np.isnan(self.x).sum())} of {self.x.size})"

    @cached_property
    def log_seen(self) -> PerRow:
        """log p(seen), and of the class where it is known, `(B,)`, in the units of the model."""
        density = self.density
        return np.concatenate([density.log_seen(self.x[rows], self.y[rows]) for rows in density.chunks(len(self.x))])

    def log_density(self, x: Any) -> PerRow:
        """log p(missing = values of x | seen), `(B,)` in nats.

        Args:
            x: Rows `(B, K)` with values for some or all of what is missing; the others stay missing.

        Raises:
            ValueError: Another number of rows, or another value where one is seen.
        """
        given, _ = self.density.checked(x, None)
        checks.completions(given, self.x)
        both = np.where(np.isnan(self.x), given, self.x)
        density = self.density
        log_both = np.concatenate([density.log_seen(both[r], self.y[r]) for r in density.chunks(len(both))])
        checks.impossible_evidence(self.log_seen)
        return log_both - self.log_seen - (density.log_unit(both) - density.log_unit(self.x))

    def sample(self, n: int, *, seed: int = 0) -> Rows:
        """n completions of every row, `(n, B, K)`."""
        units = self.density.units
        x = self.x if units is None else units.restore(self.x)
        y = None if self.density.model.classes is None else self.y
        return self.density.draw(x, y, n, seed)[0]

    @cached_property
    def mean(self) -> Rows:
        """E[x | seen], `(B, K)`; what is seen, where it is."""
        return self._restored(self._moments[0])

    @cached_property
    def std(self) -> Rows:
        """Standard deviation of x given what is seen, `(B, K)`; 0 for what is seen."""
        first, second = self._moments
        spread = np.sqrt(np.maximum(second - first * first, 0.0)) * self.density.scale
        return np.where(np.isnan(self.x), spread, 0.0)

    def mixture(self, feature: int | str) -> Mixture:
        """The marginal of a missing real feature as a mixture, `(B, components)`, in the units of the data.

        Raises:
            ValueError: A feature that has bins, or is seen in some row.
        """
        column = self._missing(feature)
        leaves, natural = self.density.model.all_leaves, self.density.natural
        own = np.flatnonzero(leaves.features == column)
        if not self.density.model.continuous[column]:
            raise checks.no_mixture(self.density.names[column])
        at = np.searchsorted(leaves.neurons, own)
        unit = self.density.scale[column]
        shift = 0.0 if self.density.units is None else self.density.units.mean[column]
        states = self._states(own)[..., None]  # (B, S, Lf, J, 1)
        log_weights = states + natural["log_weights"][:, at]
        rows = len(self.x)
        loc, scale = (
            np.broadcast_to(a.reshape(1, -1), (rows, a.size))
            for a in (shift + unit * natural["loc"][:, at], unit * natural["scale"][:, at])
        )
        log_weights = log_normalize(NUMPY, log_weights.reshape(rows, -1))
        return Mixture(loc, scale, np.exp(log_weights), log_weights)

    def probs(self, feature: int | str) -> Probs:
        """Probabilities of the codes or bins of a missing feature, `(B, C)`."""
        column = self._missing(feature)
        model = self.density.model
        if model.continuous[column]:
            raise checks.no_bins(self.density.names[column])
        leaves = model.all_leaves
        own = np.flatnonzero(leaves.features == column)
        states = np.exp(self._states(own))  # (B, S, Lf, J)
        bins = np.exp(self.density.natural["log_bins"][:, np.searchsorted(leaves.bins, own)])  # (S, Lf, J, C)
        found = np.einsum("bslj,sljc->bc", states, bins)[:, : len(names_of_bins(model.leaves[column]))]
        return found / found.sum(1, keepdims=True)

    def cdf(self, feature: int | str, value: Any) -> PerRow:
        """p(feature <= value | seen) for one value per row, or for all: `(B,)`."""
        column = self._missing(feature)
        value = np.broadcast_to(np.asarray(value, dtype=np.float64), (len(self.x),))
        if self.density.model.continuous[column]:
            return neuron.cdf(NUMPY, value, *self.mixture(feature).parameters)
        edges = np.asarray(self.density.model.leaves[column].edges)
        whole = self.density.model.all_leaves.whole[self._bins_of(column)]
        low, high = edges[:-1], edges[1:]
        within = np.clip((value[:, None] - low) / (high - low), 0.0, 1.0)
        below = value[:, None] >= np.arange(len(low)) if whole else within
        return (self.probs(feature) * below).sum(1)

    def quantile(self, feature: int | str, q: float) -> PerRow:
        """The value below which a missing real feature lies with probability q, `(B,)`."""
        q = number("q", q, 0.0, 1.0)
        return pathwise.quantile(NUMPY, np.full(len(self.x), q), self.mixture(feature))

    def entropy(self, feature: int | str) -> PerRow:
        """Entropy of a missing feature given what is seen, `(B,)` in nats: closed for codes and histograms.

        Raises:
            ValueError: A real feature, whose mixture has no closed entropy.
        """
        column = checks.feature(feature, self.density.names)
        if self.density.model.continuous[column]:
            raise checks.no_entropy(self.density.names[column])
        probs = self.probs(feature)
        width = np.diff(np.asarray(self.density.model.leaves[column].edges))
        return -np.where(probs > 0.0, probs * (np.log(np.where(probs > 0.0, probs, 1.0)) - np.log(width)), 0.0).sum(1)

    def pulls(self) -> tuple[Rows, Rows]:
        """Sums of responsibility loc / scale^2, and of responsibility / scale^2, over the components of each feature.

        `(B, K)` each for completed rows, in the units of the model; zero for codes and bins.
        """
        leaves, natural = self.density.model.all_leaves, self.density.natural
        pull, precision = np.zeros_like(self.x), np.zeros_like(self.x)
        own = leaves.neurons
        loc, scale, log_weights = (natural[n][..., None, :, :] for n in ("loc", "scale", "log_weights"))
        for rows in self.density.chunks(len(self.x)):
            states = np.exp(self.density.log_leaf_states(self.x[rows], self.y[rows])[:, own])  # (S, Ln, b, J)
            at = self.x[rows][:, leaves.features[own]].T[..., None]
            within = neuron.responsibilities(NUMPY, at, loc, scale, log_weights)  # (S, Ln, b, J, M)
            share = states[..., None] * within / scale**2
            for total, part in ((pull, share * loc), (precision, share)):
                np.add.at(total[rows].T, leaves.features[own], part.sum((0, -1, -2)))
        return pull, precision

    @cached_property
    def _log_states(self) -> np.ndarray:
        """log p(draw, tree, state at the leaf | seen), `(S, L, B, J)`."""
        density = self.density
        parts = [density.log_leaf_states(self.x[rows], self.y[rows]) for rows in density.chunks(len(self.x))]
        return np.concatenate(parts, axis=2)

    def _states(self, leaves: np.ndarray) -> np.ndarray:
        """The same of some leaves, `(B, S, leaves, J)`."""
        return np.moveaxis(self._log_states[:, leaves], 2, 0)

    @cached_property
    def _moments(self) -> tuple[np.ndarray, np.ndarray]:
        """First and second moment of every feature, `(B, K)` each, in the units of the model."""
        leaves, natural = self.density.model.all_leaves, self.density.natural
        shape = (self.density.num_draws, len(leaves.features), self.density.model.neurons)
        first, second = np.empty(shape), np.empty(shape)
        if len(leaves.neurons):
            weights = np.exp(natural["log_weights"])
            first[:, leaves.neurons] = (weights * natural["loc"]).sum(-1)
            second[:, leaves.neurons] = (weights * (natural["loc"] ** 2 + natural["scale"] ** 2)).sum(-1)
        if len(leaves.bins):
            weights = np.where(leaves.absent[:, None, :], 0.0, np.exp(natural["log_bins"]))
            width = np.where(leaves.whole[:, None], 0.0, np.exp(leaves.log_width))  # codes are points
            middle = np.where(leaves.absent, 0.0, 0.5 * (leaves.low + leaves.high))
            first[:, leaves.bins] = (weights * middle[:, None, :]).sum(-1)
            second[:, leaves.bins] = (weights * (middle**2 + width**2 / 12.0)[:, None, :]).sum(-1)
        states = np.exp(self._log_states)
        found = []
        for moment, power in ((first, 1), (second, 2)):
            total = np.zeros_like(self.x)
            np.add.at(total.T, leaves.features, np.einsum("slbj,slj->lb", states, moment))
            found.append(np.where(np.isnan(self.x), total, self.x**power))
        return found[0], found[1]

    def _restored(self, a: np.ndarray) -> np.ndarray:
        return a if self.density.units is None else self.density.units.restore(a)

    def _missing(self, feature: int | str) -> int:
        column = checks.feature(feature, self.density.names)
        checks.missing(self.density.names[column], self.x[:, column])
        return column

    def _bins_of(self, column: int) -> int:
        leaves = self.density.model.all_leaves
        return int(np.flatnonzero(leaves.features[leaves.bins] == column)[0])
