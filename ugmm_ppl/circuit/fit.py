"""`CircuitFit`: a fitted circuit, with the queries of `CircuitDensity` as methods."""

from __future__ import annotations

from typing import Any

import numpy as np

from ugmm_ppl.circuit.conditional import Conditional
from ugmm_ppl.circuit.density import CircuitDensity, MostProbable
from ugmm_ppl.circuit.imputation import Imputation
from ugmm_ppl.circuit.model import Circuit
from ugmm_ppl.fitting.registry import fit_of
from ugmm_ppl.fitting.result import Fit
from ugmm_ppl.neuron import safe_log
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.posterior.drawn import stacked
from ugmm_ppl.typing import Outputs, PerRow, Probs, Rows, SiteDraws

QUERY_DRAWS = 20
"""Posterior draws per chain that a query averages over, where none are asked for."""


@fit_of(Circuit)
class CircuitFit(Fit):
    """A fitted `Circuit`. Every query is that of `density`, the mixture over posterior draws.

    `num_draws` and `seed` of a query choose the draws: None is 20 per chain, one for "map" and "em". For many queries
    make the density once, `density = fit.density()`.
    """

    model: Circuit

    def density(self, num_draws: int | None = None, *, seed: int | None = None) -> CircuitDensity:
        """The posterior predictive density of a row: the mixture of the circuits of posterior draws.

        Args:
            num_draws: Draws per chain; None is 20, one for "map" and "em".
            seed: Seed of the draws; None is the seed of the fit.
        """
        if num_draws is None and not self.inference.point:
            num_draws = min(QUERY_DRAWS, self.count_draws(None))
        draws = self.posterior(num_draws, seed=seed)
        per_chain = next(iter(draws.values())).shape[1]
        log_weights = np.repeat(safe_log(NUMPY, self.weights), per_chain)
        names = None if self.columns is None else self.feature_names
        return CircuitDensity(self.model, stacked(draws, 2), log_weights, self.x_units, names, self.columns)

    def log_density(self, x: Any, y: Any = None, **draws: Any) -> PerRow:
        """`CircuitDensity.log_density`."""
        return self.density(**draws).log_density(x, y)

    def posterior_class(self, x: Any, **draws: Any) -> Probs:
        """`CircuitDensity.posterior_class`."""
        return self.density(**draws).posterior_class(x)

    def conditional(self, x: Any, y: Any = None, **draws: Any) -> Conditional:
        """`CircuitDensity.conditional`."""
        return self.density(**draws).conditional(x, y)

    def sample(self, n: int, y: int | None = None, *, with_class: bool = False, seed: int = 0) -> Any:
        """`CircuitDensity.sample`: posterior predictive rows."""
        return self.density().sample(n, y, with_class=with_class, seed=seed)

    def conditional_sample(self, x: Any, n: int, y: Any = None, *, seed: int = 0) -> Rows:
        """`CircuitDensity.conditional_sample`."""
        return self.density().conditional_sample(x, n, y, seed=seed)

    def most_probable(self, x: Any, y: Any = None, *, ascend: bool = True, **draws: Any) -> MostProbable:
        """`CircuitDensity.most_probable`."""
        return self.density(**draws).most_probable(x, y, ascend=ascend)

    def expectation(self, x: Any, y: Any = None, **draws: Any) -> Rows:
        """`CircuitDensity.expectation`."""
        return self.density(**draws).expectation(x, y)

    def cdf(self, feature: int | str, value: Any, x: Any = None, y: Any = None, **draws: Any) -> PerRow:
        """`CircuitDensity.cdf`."""
        return self.density(**draws).cdf(feature, value, x, y)

    def entropy(self, feature: int | str, x: Any = None, y: Any = None, **draws: Any) -> PerRow:
        """`CircuitDensity.entropy`."""
        return self.density(**draws).entropy(feature, x, y)

    def impute(self, x: Any, n: int = 20, y: Any = None, *, seed: int = 0) -> Imputation:
        """n completed copies of a table with missing values: multiple imputation.

        Each missing value is drawn jointly with the others of its row from the posterior predictive distribution given
        what is seen in the row.

        Args:
            x: Rows `(B, K)`, NaN where missing.
            n: Copies.
            y: Class codes `(B,)`, -1 where not known.
            seed: Seed of the draws.
        """
        x = self.check_inputs(x)
        values = self.density().conditional_sample(x, n, y, seed=seed)
        return Imputation(values, np.isnan(x), self.feature_names)

    def replicates(self, draws: SiteDraws, outputs: Outputs, seed: int | None) -> SiteDraws:
        """As many rows as the data have, for every draw: `x` `(C, S, B, K)`, with classes also `y` `(C, S, B)`."""
        chains, size, rows = outputs.shape[:3]
        x, y = np.empty((chains, size, rows, self.model.features)), np.empty((chains, size, rows), dtype=np.int64)
        base = self.seed if seed is None else seed
        for number, at in enumerate(np.ndindex(chains, size)):
            values = {name: value[at][None] for name, value in draws.items()}
            density = CircuitDensity(self.model, values, None, self.x_units, self.feature_names)
            x[at], y[at] = density.sample(rows, with_class=True, seed=base + number)
        return {"x": x} | ({} if self.model.classes is None else {"y": y})

    def log_unit(self, x: Rows) -> PerRow:
        """What the log density of what is seen loses on the way to the units of the data, `(B,)`."""
        if self.x_units is None:
            return np.zeros(len(x))
        return (~np.isnan(np.asarray(x, dtype=np.float64))) @ np.log(self.x_units.scale)
