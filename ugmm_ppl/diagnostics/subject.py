"""The fit as the checks look at it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import budgets, checks, kernels
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.models import evaluation
from ugmm_ppl.models.network import BaseNetworkModel
from ugmm_ppl.models.score import JointScore
from ugmm_ppl.typing import PerDraw, PerRow

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive


FEWEST_DRAWS = 100
"""Draws below which tails say nothing."""


MOST_ROWS = 2000
"""Rows that checks of single rows look at."""


class Subject:
    """A fit, its data, and what several checks need of them, computed once.

    Attributes:
        fit: The fit.
        model: Its model.
        x, y: The data it was fitted to, or None.
        num_draws: Draws per chain.
        seed: Seed of the draws.
    """

    def __init__(self, fit: Predictive, x: Any, y: Any, num_draws: int | None, seed: int | None) -> None:
        """Take the data from the fit if it holds them.

        Raises:
            TypeError: The model of the fit is no density of y given what a network makes of x.
        """
        if not isinstance(fit.model, BaseNetworkModel) or isinstance(fit.model, JointScore):
            raise checks.no_diagnosis(fit.model)
        self.model = fit.model
        self.fit, self.seed = fit, fit.seed if seed is None else seed
        self.x: Any = None
        self.y: Any = None
        if x is not None or y is not None or fit.train_x is not None:
            self.x, self.y = fit.checked_data(x, y)
        count = fit.count_draws(num_draws)
        self.num_draws = count if num_draws is not None else max(1, min(count, self._affordable()))

    def _affordable(self) -> int:
        """Draws per chain that take little time and memory."""
        fit = self.fit
        held = budgets.DIAGNOSED // (fit.num_chains * fit.num_parameters)
        if self.x is None:
            return int(held)
        work = budgets.DIAGNOSIS_WORK[kernels.info().kernel] / (len(self.x) * self.model.row_work * fit.num_chains)
        return int(max(20, min(held, work)))

    @cached_property
    def rows(self) -> np.ndarray:
        """Numbers of the rows that are looked at one by one, evenly spaced."""
        return np.unique(np.linspace(0, len(self.x) - 1, min(len(self.x), MOST_ROWS)).round().astype(int))

    @cached_property
    def probes(self) -> np.ndarray:
        """Up to 50 of these rows, `(P, K)`, in the units of the data."""
        return self.x[self.rows[:: max(1, len(self.rows) // 50)][:50]]

    @cached_property
    def network_x(self) -> np.ndarray:
        """Up to 200 of these rows as the network sees them."""
        return self.fit.to_network(self.x[self.rows[:: max(1, len(self.rows) // 200)][:200]])

    @property
    def network_features(self) -> np.ndarray:
        """The same without extra columns."""
        return self.network_x[:, : self.model.num_inputs]

    @cached_property
    def drawn(self) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Draws `(C, S, ...)` by site, and log q `(C, S)`."""
        return self.fit.draws(range(self.num_draws), self.seed)

    @property
    def draws(self) -> dict[str, np.ndarray]:
        """Draws `(C, S, ...)` by site."""
        return self.drawn[0]

    @cached_property
    def prior(self) -> dict[str, np.ndarray]:
        """Two hundred draws of the prior, `(S, ...)` by site; fewer of a large model."""
        count = int(np.clip(budgets.DIAGNOSED // self.fit.num_parameters, 20, 200))
        with self.fit.settings():
            return evaluation.prior_draws(self.fit.primitives, self.fit.model, count, self.seed)

    @cached_property
    def pointwise(self) -> PerRow:
        """Log likelihood in the units of the likelihood `(C, S, B)`."""
        fit, target = self.fit, self.fit.to_network_target(self.y)
        functions = fit.sample_functions(self.num_draws, seed=self.seed)
        return functions.map(
            self.x, lambda outputs, rows: fit.model.log_likelihood(outputs.astype(np.float64), target[rows])
        )

    @cached_property
    def log_ratio(self) -> PerDraw:
        """log p(theta, y)^(1/T of the likelihood) - log q(theta), `(C, S)`; 0 for "nuts"."""
        if not self.fit.inference.density:
            return np.zeros((self.fit.num_chains, self.num_draws))
        draws, log_q = self.drawn
        total = self.fit.over_rows(self.pointwise)
        return self.fit.log_prior(draws) + total / self.fit.temperature - log_q

    @cached_property
    def values(self) -> np.ndarray:
        """What each draw says of y at the probes, `(C, S, P)` or `(C, S, P, classes)`."""
        return self.fit.sample_functions(self.num_draws, seed=self.seed)(self.probes)
