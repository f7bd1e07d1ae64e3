"""Models evaluated for many draws on a backend: outputs, prior densities, prior draws. Arrays in and out are NumPy."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import numpy as np

from ugmm_ppl import budgets
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.typing import Array, Inputs, Outputs, PerDraw, Rows, SiteDraws


@dataclasses.dataclass(frozen=True)
class _Of:
    """A function of a model on a backend; equal for the same two, by which compiled programs are found again."""

    model: BaseModel
    backend: Backend


class _Outputs(_Of):
    def __call__(self, drawn: Mapping[str, Array], x: Inputs) -> Array:
        """Outputs for one draw: `(B, K)` to `(B, O)`."""
        return self.model.outputs(self.backend.ops, self.model.values(self.backend, drawn, x), x)


class _LogPriors(_Of):
    def __call__(self, drawn: Mapping[str, Array], like: Array) -> dict[str, Array]:
        """Log prior density of one draw by site."""
        trace = self.backend.trace(self.model.parameters, drawn, self.backend, like)
        return {name: site.distribution.log_prob(site.value).sum() for name, site in trace.items()}


class _Parameters(_Of):
    def __call__(self) -> dict[str, Array]:
        """One draw from the prior by site, hyper-parameters among them."""
        like = self.backend.array(np.zeros(()))
        trace = self.backend.trace(self.model.parameters, {}, self.backend, like)
        return {name: site.value for name, site in trace.items()}


def outputs(backend: Backend, model: BaseModel, draws: SiteDraws, x: Rows, chunk_size: int) -> Outputs:
    """Outputs `(S, B, O)` for draws `(S, ...)`, a chunk of rows and a few draws at a time."""
    handlers = model.needs_handlers(draws)
    draws = draws if handlers else {site: draws[site] for site in model.sites}
    rows = min(chunk_size, len(x))
    one_draw = sum(value[0].size for value in draws.values())
    together = min(
        budgets.CACHED * model.rows_at_once // (budgets.TEMPORARY * max(1, rows)), budgets.CACHED // max(1, one_draw)
    )
    parts = []
    for start in range(0, len(x), rows):
        chunk = x[start : start + rows]
        padded = np.pad(chunk, ((0, rows - len(chunk)), (0, 0)))  # one shape: compiled once
        found = backend.inference.each(
            _Outputs(model, backend), draws, padded, handlers=handlers, together=max(1, together)
        )
        parts.append(found[:, : len(chunk)])
    return parts[0] if len(parts) == 1 else np.concatenate(parts, axis=1)


def log_prior(backend: Backend, model: BaseModel, draws: SiteDraws) -> PerDraw:
    """Log prior density of draws `(S, ...)`: `(S,)`."""
    return np.sum(list(log_priors(backend, model, draws).values()), axis=0)


def log_priors(backend: Backend, model: BaseModel, draws: SiteDraws) -> SiteDraws:
    """The same by site, hyper-parameters among them."""
    found = backend.inference.each(_LogPriors(model, backend), draws, np.zeros(()), handlers=True)
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


def prior_draws(backend: Backend, model: BaseModel, num_draws: int, seed: int) -> SiteDraws:
    """Draws from the prior, `(S, ...)` by site."""
    return backend.inference.sampled(_Parameters(model, backend), num_draws, seed)
