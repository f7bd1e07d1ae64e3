"""Variational families, written once for both backends.

Every family lives in the unconstrained space u of all latent sites; a bijector per site maps it to the support.
`ugmm_ppl.elbo` has the loss that is minimised over a family. Source: Kucukelbir et al. 2017 (ADVI), JMLR 18(14).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.neuron import HALF_LOG_2PI, log_normalize
from ugmm_ppl.ops import NUMPY, Array, Ops

if TYPE_CHECKING:
    from ugmm_ppl.backend import Backend, Bijector
    from ugmm_ppl.model.base import NetworkModel

GUIDES = ("normal", "lowrank", "delta")


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


class Guide(Protocol):
    """A Gaussian family over the unconstrained values of all sites; parameters and noise are dicts of arrays."""

    @property
    def sites(self) -> Mapping[str, LatentSite]:
        """The latent sites, in the order in which the model samples them."""

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Parameters around unconstrained start values."""

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard normal numbers that one draw needs."""

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """Unconstrained values of all sites."""

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(mean, variance) of the unconstrained values of each site."""

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """H[q(u)] in nats."""

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """log q(u) in nats."""

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Names of the sites with a gradient that is not finite."""

    def __hash__(self) -> int:
        """By identity: a guide is a key of compiled functions."""


@dataclasses.dataclass(frozen=True, eq=False)
class NormalGuide:
    """Mean field: q(u) = prod N(u; loc, exp(log_scale)^2), independent over all entries."""

    backend: Backend
    sites: Mapping[str, LatentSite]
    init_scale: float

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Centred at the start values, with scale `init_scale`."""
        scales = {
            f"{n}:log_scale": np.full(s.unconstrained_shape, math.log(self.init_scale)) for n, s in self.sites.items()
        }
        return {f"{name}:loc": start[name] for name in self.sites} | scales

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
            normal_log_prob(self.backend.ops, u, params[f"{n}:loc"], exp(params[f"{n}:log_scale"])).sum()
            for n, u in unconstrained.items()
        )

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Sites of which some parameter's gradient is not finite."""
        return _bad_sites(gradients)


@dataclasses.dataclass(frozen=True, eq=False)
class LowRankGuide:
    """q(u) = N(u; loc, F F^T + diag(d)^2) over all entries at once, F of the given rank."""

    backend: Backend
    sites: Mapping[str, LatentSite]
    init_scale: float
    rank: int

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Centred at the start values; F small and not zero, so that its columns part from each other."""
        loc = np.concatenate([np.ravel(start[name]) for name in self.sites])
        factor = np.random.default_rng(loc.size).normal(0.0, 0.1 * self.init_scale, (loc.size, self.rank))
        return {"loc": loc, "log_scale": np.full(loc.size, math.log(self.init_scale)), "factor": factor}

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """One number per entry and one per column of F."""
        return {"diagonal": (self._size(),), "factor": (self.rank,)}

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """loc + d noise + F noise'."""
        flat = (
            params["loc"]
            + self.backend.ops.exp(params["log_scale"]) * noise["diagonal"]
            + params["factor"] @ noise["factor"]
        )
        return self._split(flat)

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """Marginal moments, (loc, d^2 + sum F^2)."""
        variance = self.backend.ops.exp(2.0 * params["log_scale"]) + (params["factor"] ** 2).sum(-1)
        locs, variances = self._split(params["loc"]), self._split(variance)
        return {name: (locs[name], variances[name]) for name in self.sites}

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """Entropy of the Gaussian by the determinant lemma."""
        return self._distribution(params).entropy()

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Gaussian log density by the Woodbury identity."""
        flat = self.backend.concatenate([unconstrained[name].reshape(-1) for name in self.sites])
        return self._distribution(params).log_prob(flat)

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Sites of which some entry's gradient is not finite."""
        rows = np.concatenate([gradients["loc"][:, None], gradients["log_scale"][:, None], gradients["factor"]], axis=1)
        return sorted(name for name, row in self._split(rows.sum(1)).items() if not np.isfinite(row).all())

    def _distribution(self, params: Mapping[str, Array]) -> Any:
        diagonal = self.backend.ops.exp(2.0 * params["log_scale"])
        return self.backend.dist.LowRankMultivariateNormal(params["loc"], params["factor"], diagonal)

    def _size(self) -> int:
        return sum(math.prod(site.unconstrained_shape) for site in self.sites.values())

    def _split(self, flat: Array) -> dict[str, Array]:
        parts, start = {}, 0
        for name, site in self.sites.items():
            stop = start + math.prod(site.unconstrained_shape)
            parts[name] = flat[start:stop].reshape(site.unconstrained_shape)
            start = stop
        return parts


@dataclasses.dataclass(frozen=True, eq=False)
class DeltaGuide:
    """A point: the loss is minus the log joint density of values and data, so its minimum is the MAP."""

    backend: Backend
    sites: Mapping[str, LatentSite]

    def initial(self, start: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The start values."""
        return {f"{name}:loc": start[name] for name in self.sites}

    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """None."""
        return {}

    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """The point."""
        return {name: params[f"{name}:loc"] for name in self.sites}

    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(the point, 0)."""
        return {name: (params[f"{name}:loc"], 0.0) for name in self.sites}

    def entropy(self, params: Mapping[str, Array]) -> Array:
        """Zero by convention: a point has no density."""
        return 0.0

    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """Zero by convention."""
        return 0.0

    def culprits(self, gradients: Mapping[str, np.ndarray]) -> list[str]:
        """Sites with a gradient that is not finite."""
        return _bad_sites(gradients)


def _bad_sites(gradients: Mapping[str, np.ndarray]) -> list[str]:
    bad = [name for name, gradient in gradients.items() if not np.isfinite(gradient).all()]
    return sorted({name.partition(":")[0] for name in bad})


def make_guide(kind: str, backend: Backend, sites: Mapping[str, LatentSite], *, init_scale: float, rank: int) -> Guide:
    """The family called "normal", "lowrank" or "delta"."""
    checks.choice("guide", kind, GUIDES)
    if kind == "normal":
        return NormalGuide(backend, sites, init_scale)
    if kind == "lowrank":
        return LowRankGuide(backend, sites, init_scale, rank)
    return DeltaGuide(backend, sites)


def latent_sites(
    backend: Backend, model: NetworkModel, known: Mapping[str, np.ndarray], seed: int
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
            start[name] = backend.array(np.median([np.asarray(draw[name].value) for draw in draws], axis=0))
        bijector = backend.bijector(site.distribution)
        u = start[name] if bijector is None else bijector.unconstrain(start[name])
        unconstrained[name] = np.asarray(u, dtype=np.float64)
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


def normal_log_prob(ops: Ops, value: Array, loc: Array, scale: Array) -> Array:
    """log N(value; loc, scale^2), elementwise."""
    z = (value - loc) / scale
    return -0.5 * z * z - ops.log(scale) - HALF_LOG_2PI
