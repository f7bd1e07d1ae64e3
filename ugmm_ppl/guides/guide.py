"""Guides: variational families over all latent sites of a model, written once for both backends.

A guide is a product of independent blocks (`ugmm_ppl.guides.base`) in the unconstrained space u of all latent sites;
a bijector per site maps it to the support. `ugmm_ppl.infer.elbo` has the loss that is minimised over a guide. Source:
Kucukelbir et al. 2017 (ADVI), JMLR 18(14).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import TYPE_CHECKING, Any

from ugmm_ppl import checks
from ugmm_ppl.guides.base import FAMILIES, Block
from ugmm_ppl.guides.delta import DeltaBlock, ModeBlock
from ugmm_ppl.guides.sites import LatentSite, constrain
from ugmm_ppl.typing import Array, PerDraw, SiteDraws, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend


@dataclasses.dataclass(frozen=True, eq=False)
class Guide:
    """A product of independent blocks over the unconstrained values of all sites; parameters and noise are dicts.

    Args:
        sites: The latent sites, in the order in which the model samples them.
        blocks: The blocks; every site is in one of them.
    """

    sites: Mapping[str, LatentSite]
    blocks: tuple[Block, ...]

    @functools.cached_property
    def inferred(self) -> frozenset[str]:
        """Sites that have a density; all others are held at a point."""
        return frozenset(name for block in self.blocks if block.has_density for name in block.sites)

    @functools.cached_property
    def factorised(self) -> frozenset[str]:
        """Sites of which every entry is independent of all others, so that their moments hold at any draw of those."""
        return frozenset(name for block in self.blocks if block.factorised for name in block.sites)

    def at_points(self) -> Guide:
        """The guide that finds the mode of the density which this one approximates: a point in place of every block."""
        return Guide(self.sites, tuple((ModeBlock if b.has_density else DeltaBlock)(b.sites) for b in self.blocks))

    def initial(self, start: Values) -> SiteValues:
        """Parameters around unconstrained start values."""
        return _merged(block.initial(start) for block in self.blocks)

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard normal numbers that one draw needs."""
        return _merged(block.noise_shapes() for block in self.blocks)

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """Unconstrained values of all sites."""
        drawn = _merged(block.draw(params, noise) for block in self.blocks)
        return {name: drawn[name] for name in self.sites}

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(mean, variance) of the unconstrained values of each site."""
        return _merged(block.moments(params) for block in self.blocks)

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """H[q(u)] in nats, of the inferred sites."""
        return sum(block.entropy(params) for block in self.blocks)

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """log q(u) in nats, of the inferred sites."""
        return sum(block.log_prob(params, unconstrained) for block in self.blocks)

    def log_q(
        self, params: Mapping[str, Array], unconstrained: Mapping[str, Array], log_dets: Mapping[str, Array]
    ) -> Array:
        """Log density of the values theta, log q(u) - sum log |d theta / d u|, in nats, of the inferred sites."""
        return self.log_prob(params, unconstrained) - sum(
            log_dets[name] for name in self.sites if name in self.inferred
        )

    def sample(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> tuple[dict[str, Array], Array]:
        """A draw of the values of all sites, and its log density."""
        unconstrained = self.draw(params, noise)
        values, log_dets = constrain(self.sites, unconstrained)
        return values, self.log_q(params, unconstrained, log_dets)

    def draws(self, backend: Backend, params: Values, indices: range, seed: int) -> tuple[SiteDraws, PerDraw]:
        """Draws of the given numbers, `(S, ...)` by site, and their log q `(S,)`."""
        values, log_q = backend.inference.draws(self.sample, self.noise_shapes(), params, indices, seed)
        return {name: values[name] for name in self.sites}, log_q

    def complete(self, model: Callable[..., Any], params: Mapping[str, Array]) -> Callable[..., Any]:
        """The model with what else than its sites the guide has for it: here nothing."""
        del params
        return model

    def culprits(self, gradients: Values) -> list[str]:
        """Names of the sites with a gradient that is not finite."""
        return sorted(name for block in self.blocks for name in block.culprits(gradients))


def make_guide(
    families: str | Mapping[str, str],
    backend: Backend,
    sites: Mapping[str, LatentSite],
    *,
    init_scale: float,
    rank: int,
    inferred: Collection[str] | None = None,
) -> Guide:
    """The guide of a family, or of several families by pattern.

    Args:
        families: One of `ugmm_ppl.guides.FAMILIES` for all sites; or a mapping from patterns of site names, such
            as "readout.*" and "*", to families: each makes one block of the sites that it is the first to match.
        backend: The backend.
        sites: The latent sites.
        init_scale: Start scale.
        rank: Rank of lowrank blocks.
        inferred: Sites that the families are for; None is all. The others are held at a point.

    Raises:
        TypeError, ValueError: Unknown families, patterns without sites, sites without a pattern, too large a block.
    """
    families = checks.guide(families, FAMILIES)
    chosen = {name: next((p for p in families if fnmatch.fnmatchcase(name, p)), None) for name in sites}
    own = sites if inferred is None else {name: site for name, site in sites.items() if name in inferred}
    checks.guide_patterns(families, chosen, own)
    groups = {p: {name: site for name, site in own.items() if chosen[name] == p} for p in families}
    blocks = [
        FAMILIES[families[pattern]].make(backend, group, pattern, init_scale=init_scale, rank=rank)
        for pattern, group in groups.items()
        if group
    ]
    held = {name: site for name, site in sites.items() if name not in own}
    return Guide(sites, (*blocks, DeltaBlock(held)) if held else tuple(blocks))


def _merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}
