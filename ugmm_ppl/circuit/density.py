"""`CircuitDensity`: one normalised density with all its exact queries; NumPy in, NumPy out, in float64.

A posterior over circuits is one more sum: the density is the mixture of the circuits of S posterior draws, and every
query is exact for that mixture. In all queries NaN stands for a value that is not known, row by row.
"""

from __future__ import annotations

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl.checks import count
from ugmm_ppl.circuit import checks, passes, tracing
from ugmm_ppl.circuit.conditional import Conditional
from ugmm_ppl.circuit.evaluation import Evaluation
from ugmm_ppl.neuron import log_normalize, logsumexp
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import PerRow, Probs, Rows

MODE_STEPS = 100
"""Most steps of the ascent to a mode."""


class MostProbable(NamedTuple):
    """Rows completed by `CircuitDensity.most_probable`.

    Attributes:
        x: The rows `(B, K)`, with a value at every NaN.
        label: The class that belongs to them `(B,)`.
        log_explanation: max over states, components and missing values of their joint log density with what is seen
            `(B,)`; exact. It belongs to x before the ascent.
        log_density: log p(x) of the completed rows `(B,)`: not above that of the best completion.
        upper_bound: No completion of the row has a larger log density than this `(B,)`.
    """

    x: Rows
    label: PerRow
    log_explanation: PerRow
    log_density: PerRow
    upper_bound: PerRow


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class CircuitDensity(Evaluation):
    """The mixture of the circuits of S draws; made by `CircuitFit.density`, or from values of its sites.

    Args:
        model: The circuit.
        values: Values of its sites `(S, ...)`.
        log_weights: Log weights of the draws `(S,)`; None for equal ones.
        units: What standardises x; None for nothing.
        feature_names: Names of the features.
        columns: Names by which the columns of a table are found; None for `feature_names`.
    """

    def __repr__(self) -> str:
        """How many draws of what."""
        return f"CircuitDensity({self.model!r}, draws={self.num_draws})"

    def log_density(self, x: Any, y: Any = None) -> PerRow:
        """log p(x) of what is seen in each row, `(B,)` in nats; with class codes y log p(x, y).

        A row of which nothing is seen has log density 0. A row that is impossible has -inf, and is named in a warning.
        """
        x, y = self.checked(x, y)
        found = np.concatenate([self.log_seen(x[rows], y[rows]) for rows in self.chunks(len(x))]) - self.log_unit(x)
        checks.impossible(found)
        return found

    def posterior_class(self, x: Any) -> Probs:
        """p(class | what is seen), `(B, classes)`; the prior for a row of which nothing is seen."""
        x, _ = self.checked(x, None)
        log_joint = np.concatenate([self.log_joint(x[rows]) for rows in self.chunks(len(x))])
        checks.impossible_evidence(logsumexp(NUMPY, log_joint))
        return np.exp(log_normalize(NUMPY, log_joint))

    def conditional(self, x: Any, y: Any = None) -> Conditional:
        """The distribution of what is missing in each row given what is seen in it, and the class y if it is known."""
        x, y = self.checked(x, y)
        return Conditional(self, x, y)

    def sample(self, n: int, y: int | None = None, *, with_class: bool = False, seed: int = 0) -> Any:
        """n independent rows `(n, K)`, of class y if it is given; with their classes `(n,)` if asked for."""
        nothing = np.full((1, self.model.features), np.nan)
        x, label = self.draw(nothing, None if y is None else [y], count("n", n), count("seed", seed, least=0))
        return (x[:, 0], label[:, 0]) if with_class else x[:, 0]

    def conditional_sample(self, x: Any, n: int, y: Any = None, *, seed: int = 0) -> Rows:
        """n draws of what is missing in each row given what is seen in it, `(n, B, K)`; seen values stay."""
        return self.draw(x, y, count("n", n), count("seed", seed, least=0))[0]

    def expectation(self, x: Any, y: Any = None) -> Rows:
        """E[x | what is seen], `(B, K)`: seen values stay. For codes it is the mean of the codes."""
        return self.conditional(x, y).mean

    def cdf(self, feature: int | str, value: Any, x: Any = None, y: Any = None) -> PerRow:
        """p(feature <= value | what is seen in x) for one value per row `(B,)`; x None is one row of nothing seen."""
        return self.conditional(self._nothing() if x is None else x, y).cdf(feature, value)

    def entropy(self, feature: int | str, x: Any = None, y: Any = None) -> PerRow:
        """Entropy in nats of a code or histogram given what is seen in x, `(B,)`; as in `Conditional.entropy`."""
        return self.conditional(self._nothing() if x is None else x, y).entropy(feature)

    def most_probable(self, x: Any, y: Any = None, *, ascend: bool = True) -> MostProbable:
        """A most probable completion of each row.

        First the states of all nodes, the components of missing neurons and the missing values are found that have the
        largest joint density with what is seen; this max-product search is exact, and its values are the centres of
        components. The density of x itself is a sum over all states, whose maximum is hard to find: from there an
        ascent by expectation and maximisation goes to a mode of p(missing | seen) in the real features, and never
        lowers it. The attributes of the result bound how far the best completion can be.

        Args:
            x: Rows `(B, K)`, NaN where missing.
            y: Class codes `(B,)`, -1 where not known.
            ascend: Ascend to a mode.
        """
        x = self.rows(x)
        seen, y = self.checked(x, y)
        parts = [
            self._most_probable(seen[rows], y[rows], ascend) for rows in self.chunks(len(seen), self.model.neurons)
        ]
        full, label, *logs = (np.concatenate(part) for part in zip(*parts, strict=True))
        unit = np.log(self.scale).sum()
        return MostProbable(self.restored(full, x), label, *(part - unit for part in logs))

    def _nothing(self) -> np.ndarray:
        return np.full((1, self.model.features), np.nan)

    def _most_probable(self, x: Rows, y: PerRow, ascend: bool) -> tuple[np.ndarray, ...]:
        """The fields of `MostProbable` in the units of the model."""
        forest, leaves = self.model.forest, self.model.all_leaves
        missing = np.isnan(x)
        at_leaves = missing[:, leaves.features].T[..., None]  # (L, B, 1)
        own = leaves.log_prob(NUMPY, self.natural, x)
        best, bound = (np.where(at_leaves, leaves.peaks(self.natural, bound=b), own) for b in (False, True))
        up = passes.upward(NUMPY, forest, best, self.natural, passes.max_mix)
        roots = self.log_roots(up, y)
        explanation = np.moveaxis(roots, 1, 0).reshape(len(x), -1).max(1)
        checks.impossible_evidence(explanation)
        way = tracing.trace(forest, self.natural, up.values, roots, np.arange(len(x)), None)
        full = tracing.fill(leaves, self.natural, way, x, None)
        if ascend and (missing & self.model.continuous).any():
            full = self._ascend(full, missing & self.model.continuous, y)
        above = passes.upward(NUMPY, forest, bound, self.natural).log_joint + self.log_draws[:, None, None]
        upper = self.model.log_likelihood(logsumexp(NUMPY, np.moveaxis(above, 0, -1)), y)
        return full, way.label, explanation, self.log_seen(full, y), upper

    def _ascend(self, x: Rows, free: np.ndarray, y: PerRow) -> np.ndarray:
        """Rows at a mode in their free features: each goes to the mean of the components, weighted by precision."""
        for _ in range(MODE_STEPS):
            loc, precision = Conditional(self, x, y).pulls()
            new = np.where(free, loc / np.where(free, precision, 1.0), x)
            if np.abs(new - x).max() < 1e-9:
                break
            x = new
        return x
