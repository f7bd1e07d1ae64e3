"""Guides: variational families over all latent sites of a model, written once for both backends.

A guide is a product of independent blocks (`ugmm_ppl.blocks`) in the unconstrained space u of all latent sites; a
bijector per site maps it to the support. `ugmm_ppl.elbo` has the loss that is minimised over a guide. Source:
Kucukelbir et al. 2017 (ADVI), JMLR 18(14).
"""

from __future__ import annotations

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.blocks import FAMILIES, Block, DeltaBlock, make_block
from ugmm_ppl.neuron import log_normalize
from ugmm_ppl.ops import NUMPY, Array

if TYPE_CHECKING:
    from ugmm_ppl.backend import Backend, Bijector
    from ugmm_ppl.model.base import Model


@dataclasses.dataclass(frozen=True)
class LatentSite:
    """One latent site.

    Attributes:
        shape: Shape of its value.
        unconstrained_shape: Shape of its unconstrained value.
        bijector: The map between them; None is the identity.
        plain: Its prior is a fixed distribution, which depends on no other site.
    """

    shape: tuple[int, ...]
    unconstrained_shape: tuple[int, ...]
    bijector: Bijector | None
    plain: bool


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
        return Guide(self.sites, tuple(DeltaBlock(block.sites, block.has_density) for block in self.blocks))

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
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

    def complete(self, model: Callable[..., Any], params: Mapping[str, Array]) -> Callable[..., Any]:
        """The model with what else than its sites the guide has for it: here nothing."""
        del params
        return model

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
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
        families: One of `ugmm_ppl.blocks.FAMILIES` for all sites; or a mapping from patterns of site names, such as
            "readout.*" and "*", to families: each makes one block of the sites that it is the first to match.
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
        make_block(families[pattern], backend, group, pattern, init_scale=init_scale, rank=rank)
        for pattern, group in groups.items()
        if group
    ]
    held = {name: site for name, site in sites.items() if name not in own}
    return Guide(sites, (*blocks, DeltaBlock(held)) if held else tuple(blocks))


def inferred_sites(bayesian: str | Sequence[str], sites: Collection[str], readout: str) -> list[str]:
    """The sites that `bayesian` names: "all", "readout" (those that the pattern `readout` matches), or patterns."""
    matched = {
        pattern: [name for name in sites if fnmatch.fnmatchcase(name, pattern)]
        for pattern in checks.bayesian(bayesian, readout)
    }
    checks.bayesian_patterns(matched, sites)
    return [name for name in sites if any(name in names for names in matched.values())]


def _merged(parts: Iterable[dict[str, Any]]) -> dict[str, Any]:
    return {name: value for part in parts for name, value in part.items()}


def latent_sites(
    backend: Backend, model: Model, known: Mapping[str, np.ndarray], seed: int
) -> tuple[dict[str, LatentSite], dict[str, np.ndarray]]:
    """The latent sites of a model in the order in which it samples them, and unconstrained start values.

    Args:
        backend: The backend.
        model: The model; only its priors are run, on no data.
        known: Values of loc, log_scale, logits and the readout. A site in natural space is found under its twin:
            `scale` as exp of `log_scale`, `weights` as the softmax of `logits`.
        seed: Seed for sites whose value is not known, or lies outside their support: they start at the median of 15
            prior draws.

    Returns:
        Site by name, and start value by name.
    """
    values = {name: backend.array(value) for name, value in (dict(known) | natural_values(known)).items()}
    plain = model.plain_sites()
    given = {name: value for name, value in values.items() if name in plain}  # a callable may sample another shape
    like = backend.array(np.zeros(()))
    with backend.inference.seeded(seed):
        trace = backend.trace(model.parameters, given, backend, like)
        start = {
            n: values[n] for n, site in trace.items() if n in values and _fits(backend, site.distribution, values[n])
        }
        draws = (
            [backend.trace(model.parameters, {}, backend, like) for _ in range(15)] if len(start) < len(trace) else []
        )
    sites, unconstrained = {}, {}
    for name, site in trace.items():
        if name not in start:
            start[name] = backend.array(np.median([backend.numpy(draw[name].value) for draw in draws], axis=0))
        bijector = backend.bijector(site.distribution)
        u = start[name] if bijector is None else bijector.unconstrain(start[name])
        unconstrained[name] = backend.numpy(u).astype(np.float64)
        sites[name] = LatentSite(tuple(np.shape(start[name])), unconstrained[name].shape, bijector, name in plain)
    return sites, unconstrained


def _fits(backend: Backend, distribution: Any, value: Array) -> bool:
    """Whether a value has the shape of a site and lies in its support."""
    shape = tuple(distribution.batch_shape) + tuple(distribution.event_shape)
    return tuple(np.shape(value)) == shape and backend.in_support(distribution, value)


def natural_values(values: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """`scale` and `weights` of every layer whose `log_scale` and `logits` are given."""
    natural = {}
    for name, value in values.items():
        if name.endswith(".log_scale"):
            natural[name.removesuffix("log_scale") + "scale"] = np.exp(value)
        if name.endswith(".logits"):
            natural[name.removesuffix("logits") + "weights"] = np.exp(log_normalize(NUMPY, value))
    return natural


def constrain(
    sites: Mapping[str, LatentSite], unconstrained: Mapping[str, Array]
) -> tuple[dict[str, Array], dict[str, Array]]:
    """Values of all sites, and per site the log determinant of its map (0.0 for the identity)."""
    values, log_dets = {}, {}
    for name, u in unconstrained.items():
        bijector = sites[name].bijector
        values[name], log_dets[name] = (u, 0.0) if bijector is None else bijector.constrain(u)
    return values, log_dets
