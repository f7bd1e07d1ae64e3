"""Draws of the parameters of a fit; all arrays out are NumPy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.guides.guide import Guide, make_guide
from ugmm_ppl.guides.sites import inferred_sites, latent_sites, natural_values
from ugmm_ppl.models import evaluation
from ugmm_ppl.posterior.record import Record
from ugmm_ppl.typing import Outputs, PerDraw, PerRow, Rows, SiteDraws, SiteValues

NUM_DRAWS = 500
"""Draws per chain from a guide where none are asked for."""


class Drawn(Record):
    """The part of a fit that draws parameters, and what exporters ask of it."""

    def points(self) -> list[SiteValues]:
        """The centre of each restart's guide, unconstrained values by site; of "svi" and "map"."""
        if self.inference.markov:
            raise checks.no_centre()
        found = []
        with self.settings():
            for params in self.state:
                moments = self.family.moments({name: self.primitives.array(value) for name, value in params.items()})
                found.append(
                    {name: self.primitives.numpy(mean).astype(np.float64) for name, (mean, _) in moments.items()}
                )
        return found

    @cached_property
    def family(self) -> Guide:
        """The guide over the latent sites of the model; needs no data."""
        return self.family_of_parameters()

    def family_of_parameters(self) -> Guide:
        """The guide over the parameters alone."""
        with self.settings():
            sites, _ = latent_sites(self.primitives, self.model, self.model.template(), self.seed)
            inferred = inferred_sites(self.bayesian, sites, self.model.readout_sites)
            return make_guide(
                self.guide, self.primitives, sites, init_scale=self.init_scale, rank=self.rank, inferred=inferred
            )

    @property
    def num_parameters(self) -> int:
        """Entries of all latent sites, those held at a point among them."""
        return sum(math.prod(site.shape) for site in self.family.sites.values())

    def posterior(self, num_draws: int | None = None, *, derived: bool = False, seed: int | None = None) -> SiteDraws:
        """Posterior draws of all latent sites; a site held at a point has the same value in every draw of a chain.

        Args:
            num_draws: Draws S per chain; None is 500, one for "map", and all that a sampler kept.
            derived: Add `scale` and `weights` of every layer where `log_scale` and `logits` are sampled (not by a
                callable).
            seed: Seed of draws from a guide; None is the seed of the fit.

        Returns:
            Site name -> array `(C, S, ...)`.
        """
        draws = self.draws(range(self.count_draws(num_draws)), seed)[0]
        if derived:
            draws |= self.derived(draws)
        return draws

    def log_q(self, num_draws: int | None = None, *, seed: int | None = None) -> PerDraw:
        """Log density of the guide at the draws of `posterior` of the same arguments, `(C, S)` in nats.

        For "svi" and "laplace" only. It counts the inferred sites; a site held at a point has no density.
        """
        if not self.inference.density:
            raise checks.no_log_q(self.method)
        return self.draws(range(self.count_draws(num_draws)), seed)[1]

    def prior_draws(self, x: Any, num_draws: int, *, derived: bool = False, seed: int | None = None) -> SiteDraws:
        """Draws from the prior as one chain, `(1, S, ...)` by site, and `replicates` of the data."""
        base = self.seed if seed is None else seed
        with self.settings():
            network_x = self.to_network(self.check_inputs(x))
            draws = evaluation.prior_draws(self.primitives, self.model, num_draws, base)
            outputs = evaluation.outputs(self.primitives, self.model, draws, network_x, self.model.rows_at_once)
        if derived:
            draws |= self.derived(draws)
        one_chain = {name: value[None] for name, value in draws.items()}
        return one_chain | self.replicates(one_chain, outputs[None], seed)

    def evaluate(self, draws: SiteDraws, x: Rows, chunk_size: int, params: SiteValues | None) -> Outputs:
        """Outputs of the model `(S, B, O)`.

        Args:
            draws: Parameters `(S, ...)` by site.
            x: Inputs as the network sees them `(B, K)`.
            chunk_size: Rows at a time.
            params: Parameters of the guide that the draws come from, if there is one.
        """
        del params
        return evaluation.outputs(self.primitives, self.model, draws, x, chunk_size)

    def replicates(self, draws: SiteDraws, outputs: Outputs, seed: int | None) -> SiteDraws:
        """New data for every draw in the units of the data, `(C, S, B, ...)` by name.

        Args:
            draws: Parameters `(C, S, ...)` by site.
            outputs: What the model makes of the inputs with them, `(C, S, B, O)`.
            seed: Seed of the data.
        """
        del draws
        return {"y": self.targets(outputs, seed)}

    def derived(self, draws: SiteDraws) -> SiteDraws:
        """`scale` and `weights` by site; not where a callable prior gives a site a meaning of its own."""
        plain = self.model.plain_sites
        return natural_values({name: value for name, value in draws.items() if name in plain})

    def log_prior(self, draws: SiteDraws) -> PerDraw:
        """Log prior density of draws `(C, S, ...)`: `(C, S)`."""
        with self.settings():
            chains = (_chain(draws, c) for c in range(self.num_chains))
            return np.stack([evaluation.log_prior(self.primitives, self.model, chain) for chain in chains])

    def pointwise(self, outputs: Outputs, y: PerRow) -> PerRow:
        """Log likelihood in the units of the likelihood, `(C, S, B)`, chain by chain in float64."""
        target = self.to_network_target(y)
        return np.stack([self.model.log_likelihood(chain.astype(np.float64), target) for chain in outputs])

    def count_draws(self, num_draws: int | None) -> int:
        """Draws per chain: those asked for, or what the method has."""
        num_draws = None if num_draws is None else checks.count("num_draws", num_draws)
        if self.inference.point:
            return 1
        if self.inference.markov:
            kept = next(iter(self.state[0].values())).shape[1]
            checks.kept_draws(num_draws, kept)
            return num_draws or kept
        return num_draws or NUM_DRAWS

    def draws(self, indices: range, seed: int | None) -> tuple[SiteDraws, PerDraw]:
        """Draws of the given numbers, `(C, S, ...)` by site, and their log q `(C, S)`."""
        base = self.seed if seed is None else checks.count("seed", seed, least=0)
        chains = [self.chain_draws(c, indices, base) for c in range(self.num_chains)]
        values = {name: np.stack([chain[name] for chain, _ in chains]) for name in chains[0][0]}
        return values, np.stack([log_q for _, log_q in chains])

    def chain_draws(self, chain: int, indices: range, seed: int) -> tuple[SiteDraws, PerDraw]:
        """The same of one chain, `(S, ...)` and `(S,)`; "nuts" has no log q."""
        if self.inference.markov:
            drawn = {name: value[chain, indices.start : indices.stop] for name, value in self.state[0].items()}
            held = {n: np.broadcast_to(value, (len(indices), *value.shape)) for n, value in self.held.items()}
            return drawn | held, np.empty(0)
        with self.settings():
            return self.family.draws(self.primitives, self.state[chain], indices, seed + 1_000_003 * (chain + 1))


def stacked(values: Mapping[str, np.ndarray], axes: int) -> dict[str, np.ndarray]:
    """Values with their first `axes` axes made one."""
    return {name: value.reshape(-1, *value.shape[axes:]) for name, value in values.items()}


def _chain(draws: SiteDraws, chain: int) -> dict[str, np.ndarray]:
    return {name: value[chain] for name, value in draws.items()}
