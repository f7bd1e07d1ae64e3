"""Blocks of a guide: a Gaussian over all entries of some sites, or a point; written once for both backends.

Every block lives in the unconstrained space u of its sites. Parameters and noise are dicts of arrays. The normal and
the delta block name their parameters after the sites, `layers.0.loc:log_scale`; the lowrank and the full block, which
hold all their entries in one vector, after the pattern that chose the sites, `readout.*:factor`; for the pattern `*` it
is left out, `factor`.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.neuron import HALF_LOG_2PI
from ugmm_ppl.typing import Array, Ops

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.guides.sites import LatentSite

FAMILIES = ("normal", "lowrank", "full", "delta")

FULL_ENTRIES = 4096
"""Most entries of a full block: its factor has the square of that."""


class Block(Protocol):
    """A family over the unconstrained values of some sites."""

    @property
    def sites(self) -> Mapping[str, LatentSite]:
        """The sites, in the order in which the model samples them."""

    @property
    def factorised(self) -> bool:
        """Whether every entry is independent of all others."""

    @property
    def has_density(self) -> bool:
        """Whether it is a density over u, to which log |d theta / d u| belongs, and not a point theta."""

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters around unconstrained start values."""

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard normal numbers that one draw needs."""

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """Unconstrained values of the sites."""

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(mean, variance) of the unconstrained values of each site."""

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """H[q(u)] in nats."""

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """log q(u) in nats."""

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Names of the sites with a gradient that is not finite."""


@dataclasses.dataclass(frozen=True, eq=False)
class NormalBlock:
    """Mean field: q(u) = prod N(u; loc, exp(log_scale)^2), independent over all entries."""

    backend: Backend
    sites: Mapping[str, LatentSite]
    init_scale: float
    factorised = True
    has_density = True

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Centred at the start values, with scale `init_scale`."""
        scales = {
            f"{n}:log_scale": np.full(s.unconstrained_shape, math.log(self.init_scale)) for n, s in self.sites.items()
        }
        return {f"{name}:loc": start[name] for name in self.sites} | scales

    def around(self, start: Mapping[str, np.ndarray], precision: np.ndarray) -> dict[str, np.ndarray]:
        """Centred at the start values, with the precisions `(n,)` of all entries."""
        log_scales = split(self.sites, -0.5 * np.log(precision))
        return self.initial(start) | {f"{name}:log_scale": value for name, value in log_scales.items()}

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One number per entry."""
        return {name: site.unconstrained_shape for name, site in self.sites.items()}

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """loc + scale noise."""
        exp = self.backend.ops.exp
        return {n: params[f"{n}:loc"] + exp(params[f"{n}:log_scale"]) * noise[n] for n in self.sites}

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(loc, scale^2)."""
        exp = self.backend.ops.exp
        return {n: (params[f"{n}:loc"], exp(2.0 * params[f"{n}:log_scale"])) for n in self.sites}

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """sum log_scale + (1 + log 2 pi) / 2."""
        return sum((params[f"{n}:log_scale"] + (0.5 + HALF_LOG_2PI)).sum() for n in self.sites)

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Sum of normal log densities."""
        exp = self.backend.ops.exp
        return sum(
            normal_log_prob(self.backend.ops, unconstrained[n], params[f"{n}:loc"], exp(params[f"{n}:log_scale"])).sum()
            for n in self.sites
        )

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Sites of which some parameter's gradient is not finite."""
        return [
            n for n in self.sites if not all(np.isfinite(gradients[f"{n}:{p}"]).all() for p in ("loc", "log_scale"))
        ]


@dataclasses.dataclass(frozen=True, eq=False)
class _JointBlock:
    """What the blocks that correlate all their entries share: one vector of n entries."""

    backend: Backend
    sites: Mapping[str, LatentSite]
    init_scale: float
    prefix: str
    factorised = False
    has_density = True

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Log density of the Gaussian."""
        flat = self.backend.concatenate([unconstrained[name].reshape(-1) for name in self.sites])
        return self._distribution(self._own(params)).log_prob(flat)

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Sites of which some entry's gradient is not finite."""
        rows = sum(g.reshape(len(g), -1).sum(1) for g in self._own(gradients).values())
        return [name for name, row in split(self.sites, rows).items() if not np.isfinite(row).all()]

    def _distribution(self, own: Mapping[str, Array]) -> Any:
        raise NotImplementedError

    def _named(self, own: Mapping[str, Any]) -> dict[str, Any]:
        return {self.prefix + name: value for name, value in own.items()}

    def _own(self, params: Mapping[str, Array]) -> dict[str, Array]:
        """Its parameters without the prefix."""
        return {name: params[self.prefix + name] for name in ("loc", "log_scale", "factor")}

    def _marginals(self, loc: Array, variance: Array) -> dict[str, tuple[Array, Array]]:
        locs, variances = split(self.sites, loc), split(self.sites, variance)
        return {name: (locs[name], variances[name]) for name in self.sites}


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankBlock(_JointBlock):
    """q(u) = N(u; loc, F F^T + diag(exp(log_scale))^2) over all entries at once; F `(n, rank)`."""

    rank: int

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Centred at the start values; F small and not zero, so that its columns part from each other."""
        loc = join(self.sites, start)
        factor = np.random.default_rng(loc.size).normal(0.0, 0.1 * self.init_scale, (loc.size, self.rank))
        log_scale = np.full(loc.size, math.log(self.init_scale))
        return self._named({"loc": loc, "log_scale": log_scale, "factor": factor})

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One number per entry and one per column of F."""
        return self._named({"diagonal": (entries(self.sites),), "factor": (self.rank,)})

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """loc + scale noise + F noise'."""
        own, scale = self._own(params), self.backend.ops.exp(params[f"{self.prefix}log_scale"])
        diagonal, columns = noise[f"{self.prefix}diagonal"], noise[f"{self.prefix}factor"]
        return split(self.sites, own["loc"] + scale * diagonal + own["factor"] @ columns)

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Marginal moments, (loc, scale^2 + sum F^2)."""
        own = self._own(params)
        return self._marginals(own["loc"], self.backend.ops.exp(2.0 * own["log_scale"]) + (own["factor"] ** 2).sum(-1))

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """Entropy of the Gaussian by the determinant lemma."""
        return self._distribution(self._own(params)).entropy()

    def _distribution(self, own: Mapping[str, Array]) -> Any:
        diagonal = self.backend.ops.exp(2.0 * own["log_scale"])
        return self.backend.dist.LowRankMultivariateNormal(own["loc"], own["factor"], diagonal)


@dataclasses.dataclass(frozen=True, eq=False)
class FullBlock(_JointBlock):
    """q(u) = N(u; loc, L L^T) over all entries at once, L = diag(exp(log_scale)) (1 + F / sqrt(n)).

    F `(n, n)` counts below its diagonal only. Its entries have no unit, and a step of Adam in all n of a row changes
    its variance by the square of the step, whatever n, so that one learning rate suits all parameters.
    """

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Centred at the start values, independent entries of scale `init_scale`."""
        loc = join(self.sites, start)
        log_scale = np.full(loc.size, math.log(self.init_scale))
        return self._named({"loc": loc, "log_scale": log_scale, "factor": np.zeros((loc.size, loc.size))})

    def around(self, start: Mapping[str, np.ndarray], precision: np.ndarray) -> dict[str, np.ndarray]:
        """Centred at the start values, with the precision `(n, n)`."""
        backwards = np.linalg.cholesky(precision[::-1, ::-1])
        factor = np.tril(np.linalg.inv(backwards[::-1, ::-1]).T)  # precision = U U^T, so U^-T is the factor we want
        scale = np.diag(factor)
        own = {"loc": join(self.sites, start), "log_scale": np.log(scale)}
        return self._named(own | {"factor": math.sqrt(len(scale)) * np.tril(factor / scale[:, None], -1)})

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One number per entry."""
        return self._named({"entries": (entries(self.sites),)})

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """loc + L noise."""
        own, own_noise = self._own(params), noise[f"{self.prefix}entries"]
        mixed = own_noise + self._below(own) @ own_noise
        return split(self.sites, own["loc"] + self.backend.ops.exp(own["log_scale"]) * mixed)

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Marginal moments, (loc, scale^2 (1 + sum F^2 / n))."""
        own, exp = self._own(params), self.backend.ops.exp
        return self._marginals(own["loc"], exp(2.0 * own["log_scale"]) * (1.0 + (self._below(own) ** 2).sum(-1)))

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """sum log_scale + (1 + log 2 pi) / 2."""
        return (params[f"{self.prefix}log_scale"] + (0.5 + HALF_LOG_2PI)).sum()

    def _distribution(self, own: Mapping[str, Array]) -> Any:
        one = self.backend.array(np.eye(entries(self.sites)))
        scale_tril = self.backend.ops.exp(own["log_scale"])[:, None] * (one + self._below(own))
        return self.backend.dist.MultivariateNormal(own["loc"], scale_tril=scale_tril)

    def _below(self, own: Mapping[str, Array]) -> Array:
        return self.backend.below_diagonal(own["factor"]) / math.sqrt(entries(self.sites))


@dataclasses.dataclass(frozen=True, eq=False)
class DeltaBlock:
    """A point.

    Its loss is minus the log joint density of values and data, so its minimum is the MAP; with `has_density` it is that
    of unconstrained values and data, so its minimum is the mode of the density that a Gaussian approximates.
    """

    sites: Mapping[str, LatentSite]
    has_density: bool = False
    factorised = True

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The start values."""
        return {f"{name}:loc": start[name] for name in self.sites}

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """None."""
        return {}

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """The point."""
        del noise
        return {name: params[f"{name}:loc"] for name in self.sites}

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(the point, 0)."""
        return {name: (params[f"{name}:loc"], 0.0) for name in self.sites}

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """Zero by convention: a point has no density."""
        del params
        return 0.0

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Zero by convention."""
        del params, unconstrained
        return 0.0

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Sites with a gradient that is not finite."""
        return [name for name in self.sites if not np.isfinite(gradients[f"{name}:loc"]).all()]


def make_block(
    family: str, backend: Backend, sites: Mapping[str, LatentSite], pattern: str, *, init_scale: float, rank: int
) -> Block:
    """The block of one of `FAMILIES` over the sites that a pattern chose."""
    if family == "normal":
        return NormalBlock(backend, sites, init_scale)
    if family == "delta":
        return DeltaBlock(sites)
    prefix = "" if pattern == "*" else f"{pattern}:"
    if family == "lowrank":
        return LowRankBlock(backend, sites, init_scale, prefix, rank)
    checks.full_block(pattern, entries(sites), FULL_ENTRIES)
    return FullBlock(backend, sites, init_scale, prefix)


def entries(sites: Mapping[str, LatentSite]) -> int:
    """Number of unconstrained entries of all sites together."""
    return sum(math.prod(site.unconstrained_shape) for site in sites.values())


def join(sites: Mapping[str, LatentSite], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Unconstrained values in NumPy as one vector `(n,)`."""
    return np.concatenate([np.ravel(values[name]) for name in sites])


def split(sites: Mapping[str, LatentSite], flat: Array) -> dict[str, Array]:
    """One vector `(n,)` of any library as unconstrained values; the inverse of `join`."""
    parts, start = {}, 0
    for name, site in sites.items():
        stop = start + math.prod(site.unconstrained_shape)
        parts[name] = flat[start:stop].reshape(site.unconstrained_shape)
        start = stop
    return parts


def normal_log_prob(ops: Ops, value: Array, loc: Array, scale: Array) -> Array:
    """log N(value; loc, scale^2), elementwise."""
    z = (value - loc) / scale
    return -0.5 * z * z - ops.log(scale) - HALF_LOG_2PI
