"""The latent sites of a model, and the maps between their values and the unconstrained space."""

from __future__ import annotations

import dataclasses
import fnmatch
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.neuron import log_normalize
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend, Bijector
    from ugmm_ppl.models.base import BaseModel


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


def inferred_sites(bayesian: str | Sequence[str], sites: Collection[str], readout: str) -> list[str]:
    """The sites that `bayesian` names: "all", "readout" (those that the pattern `readout` matches), or patterns."""
    matched = {
        pattern: [name for name in sites if fnmatch.fnmatchcase(name, pattern)]
        for pattern in checks.bayesian(bayesian, readout)
    }
    checks.bayesian_patterns(matched, sites)
    return [name for name in sites if any(name in names for names in matched.values())]


def latent_sites(
    backend: Backend, model: BaseModel, known: Values, seed: int
) -> tuple[dict[str, LatentSite], SiteValues]:
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
    plain = model.plain_sites
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
