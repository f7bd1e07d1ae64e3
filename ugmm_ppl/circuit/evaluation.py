"""The circuits of some draws evaluated on rows: passes, joint densities of states, and completed rows, in float64."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np

from ugmm_ppl import budgets
from ugmm_ppl.circuit import checks, passes, tracing
from ugmm_ppl.circuit.model import Circuit
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.neuron import log_normalize, logsumexp, near_zero
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Draws, Outputs, PerDraw, PerFeature, PerRow, RowDraws, Rows, SiteDraws


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Evaluation:
    """What the queries of a density share; its fields are described at `CircuitDensity`."""

    model: Circuit
    values: Mapping[str, Draws]
    log_weights: PerDraw | None = None
    units: Standardizer | None = None
    feature_names: list[str] | None = None
    columns: list[str] | None = None

    @property
    def num_draws(self) -> int:
        """Number of draws S."""
        return len(next(iter(self.values.values())))

    @cached_property
    def natural(self) -> SiteDraws:
        """The parameters that the passes need, `(S, ...)`."""
        return self.model.natural(NUMPY, {name: value.astype(np.float64) for name, value in self.values.items()})

    @cached_property
    def scale(self) -> PerFeature:
        """Unit of every feature in the units of the data, `(K,)`."""
        return np.ones(self.model.features) if self.units is None else self.units.scale

    @cached_property
    def names(self) -> list[str]:
        """Names of the features."""
        return self.feature_names or [f"x{i}" for i in range(self.model.features)]

    def checked(self, x: Any, y: Any) -> tuple[Rows, PerRow]:
        """Rows as the model sees them, and class codes."""
        x = self.rows(x)
        y = self.model.check_target(y, len(x))
        with np.errstate(over="ignore"):  # what is inf is impossible
            return x if self.units is None else self.units.standardize(x), y

    def rows(self, x: Any) -> Rows:
        """Rows as they came, as an array in float64; columns of a table are found by name."""
        return self.model.check_inputs(x, names=self.columns or self.feature_names).astype(np.float64, copy=False)

    def restored(self, full: Rows, x: Rows) -> Rows:
        """Completed rows `(..., B, K)` in the units of the data; values that x has are kept to the last bit."""
        return np.where(np.isnan(x), full if self.units is None else self.units.restore(full), x)

    def log_unit(self, x: Rows) -> PerRow:
        """What the log density of seen values loses on the way to the units of the data, `(B,)`."""
        return (~np.isnan(x)) @ np.log(self.scale)

    def chunks(self, rows: int, factor: int = 1) -> Iterator[slice]:
        """Slices of rows of which the temporaries are not too large."""
        model = self.model
        nodes, leaves = model.forest.num_nodes, len(model.all_leaves.features)
        per_row = self.num_draws * model.neurons * max(nodes * factor, leaves * model.components)
        size = max(1, budgets.TEMPORARY // per_row)
        return (slice(start, start + size) for start in range(0, rows, size))

    def up(self, x: Rows) -> passes.Upward:
        """The pass up for rows as the model sees them."""
        leaf_values = self.model.all_leaves.log_prob(NUMPY, self.natural, x)
        return passes.upward(NUMPY, self.model.forest, leaf_values, self.natural)

    def log_roots(self, up: passes.Upward, y: PerRow) -> RowDraws:
        """log p(draw, class, tree, root state, what is seen), `(S, B, O, T, J)`."""
        allowed = (y[:, None] < 0) | (y[:, None] == np.arange(self.model.num_outputs))
        prior = self.log_draws[:, None, None] + np.where(allowed, 0.0, -np.inf)
        return passes.root_terms(self.model.forest, self.natural, up, prior)

    def log_leaf_states(self, x: Rows, y: PerRow) -> RowDraws:
        """log p(draw, tree, state at the leaf | seen), `(S, L, B, J)`, for rows as the model sees them."""
        up = self.up(x)
        terms = self.log_roots(up, y)
        by_row = np.moveaxis(terms, 1, 0)  # (B, S, O, T, J)
        flat = near_zero(NUMPY, by_row.reshape(len(x), -1))
        total = logsumexp(NUMPY, flat)
        checks.impossible_evidence(total)
        terms = np.moveaxis(flat.reshape(by_row.shape), 0, 1)
        posterior = logsumexp(NUMPY, np.moveaxis(terms, 2, -1)) - total[:, None, None]  # (S, B, T, J)
        return passes.downward(NUMPY, self.model.forest, self.natural, up, posterior)[:, self.model.forest.leaf_nodes]

    @cached_property
    def log_draws(self) -> PerDraw:
        """Normalised log weights of the draws `(S,)`."""
        weights = np.zeros(self.num_draws) if self.log_weights is None else self.log_weights
        return log_normalize(NUMPY, np.asarray(weights, dtype=np.float64))

    def log_joint(self, x: Rows) -> Outputs:
        """log p(seen, class) `(B, O)` in the units of the model."""
        found = self.up(x).log_joint + self.log_draws[:, None, None]
        return logsumexp(NUMPY, np.moveaxis(found, 0, -1))

    def log_seen(self, x: Rows, y: PerRow) -> PerRow:
        """log p(seen), and of the class where it is known, `(B,)`."""
        return self.model.log_likelihood(self.log_joint(x), y)

    def draw(self, x: Any, y: Any, n: int, seed: int) -> tuple[Rows, PerRow]:
        """Completed rows `(n, B, K)` in the units of the data, and their classes `(n, B)`."""
        x = self.rows(x)
        seen, y = self.checked(x, y)
        rng = np.random.default_rng(seed)
        full, labels = np.empty((n, *seen.shape)), np.empty((n, len(seen)), dtype=np.int64)
        for rows in self.chunks(len(seen)):
            up, own = self.up(seen[rows]), seen[rows]
            roots = self.log_roots(up, y[rows])
            checks.impossible_evidence(logsumexp(NUMPY, np.moveaxis(roots, 1, 0).reshape(len(own), -1)))
            at_once = max(1, budgets.TEMPORARY // (len(own) * self.model.forest.num_nodes * self.model.neurons))
            for first in range(0, n, at_once):
                draws = slice(first, min(n, first + at_once))
                count = draws.stop - first
                which = np.tile(np.arange(len(own)), count)
                way = tracing.trace(self.model.forest, self.natural, up.values, roots, which, rng)
                drawn = tracing.fill(self.model.all_leaves, self.natural, way, own[which], rng)
                full[draws, rows], labels[draws, rows] = drawn.reshape(count, *own.shape), way.label.reshape(count, -1)
        return self.restored(full, x), labels
