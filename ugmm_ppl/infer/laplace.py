"""Laplace approximation: a Gaussian around the mode of the posterior, by the curvature there; for both backends.

Over the unconstrained values u of the inferred sites, with the mode u*, network outputs f_i(u) `(O,)` and a weight
w_i (1 if none is given) for every row i, and temperature T, the precision is the generalised Gauss-Newton matrix plus
that of the prior,

    P = (1 / T) sum_i w_i J_i^T I(f_i) J_i + [ - d^2 / du^2 (log p(theta(u)) + log |d theta / d u|) ]_+,

with J_i = df_i / du `(O, n)` and I(f) the Fisher information of y about the outputs, all of them at u*, and [.]_+ the
positive semi-definite part, which is the whole of it for Normal priors. For a Categorical I(f) is the Hessian of
-log p(y | f); for a mixture that Hessian is indefinite, and its positive part row by row would add precision that the
sum over rows has not, while its expectation I(f) is positive semi-definite. A full block of the guide takes the inverse
of its part of P, a normal block that of its diagonal; blocks are independent. If only the readout is inferred, this is
the last-layer approximation. Sources: Daxberger et al. 2021, arXiv:2106.14806; Martens 2020, arXiv:1412.1193.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.guides.base import FAMILIES, Block, entries, join, split
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.guides.sites import LatentSite, constrain
from ugmm_ppl.infer.loop import Run
from ugmm_ppl.infer.method import Task, method
from ugmm_ppl.infer.settings import Guided
from ugmm_ppl.infer.trained import Trained
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.typing import Array, Rows, SiteValues


def laplace(
    backend: Backend,
    model: BaseModel,
    guide: Guide,
    point: Mapping[str, np.ndarray],
    x: Rows,
    weights: np.ndarray | None = None,
    *,
    temperature: float,
) -> dict[str, np.ndarray]:
    """Parameters of the guide that approximates the posterior around a point, the equation at the head of this file.

    Args:
        backend: The backend.
        model: The model.
        guide: A guide of blocks that have the fact `from_curvature`, and of points.
        point: Unconstrained values of all sites, at the mode.
        x: All inputs `(N, K)`, as the network sees them.
        weights: How often each row counts `(N,)`; None for once.
        temperature: T: the likelihood counts to the power 1 / T.

    Raises:
        ValueError: The precision is not positive definite.
    """
    blocks = [block for block in guide.blocks if block.from_curvature]
    sites = {name: site for block in blocks for name, site in block.sites.items()}  # in the order of the blocks
    posterior = _Posterior(backend, model, guide.sites, sites, point)
    ends = np.cumsum([entries(block.sites) for block in blocks])
    places = [range(end - entries(block.sites), end) for block, end in zip(blocks, ends, strict=True)]
    products = backend.derivatives.hessian_products(posterior.negative_log_prior)
    centre = backend.array(join(sites, point))
    precisions = [
        _prior_precision(backend, products, centre, place, posterior.coupled, full=not block.factorised)
        for block, place in zip(blocks, places, strict=True)
    ]
    temperatures = np.full(len(x), temperature) if weights is None else temperature / weights
    for rows in _root_rows(posterior, centre, x, temperatures):
        for i, place in enumerate(places):
            part = rows[:, place.start : place.stop]
            precisions[i] += part.T @ part if precisions[i].ndim == 2 else (part * part).sum(0)
    params = guide.initial(point)
    for block, precision in zip(blocks, precisions, strict=True):
        params |= _around(block, point, precision)
    return params


class _Posterior:
    """The functions of one vector `(n,)`, all inferred sites one after the other, that are differentiated."""

    def __init__(
        self,
        backend: Backend,
        model: BaseModel,
        all_sites: Mapping[str, LatentSite],
        sites: Mapping[str, LatentSite],
        point: Mapping[str, np.ndarray],
    ) -> None:
        self.backend, self.model, self.all_sites, self.sites = backend, model, all_sites, sites
        self.held = {name: backend.array(point[name]) for name in all_sites if name not in sites}
        self.coupled = np.concatenate(
            [np.full(np.prod(s.unconstrained_shape, dtype=int), not _elementwise(s)) for s in sites.values()]
        )

    def outputs(self, flat: Array, row: Array) -> Array:
        """Outputs of the network for one row: `(n,)` and `(K,)` to `(O,)`."""
        values, _ = self._values(flat)
        parameters = self.model.values(self.backend, values, row)
        return self.model.outputs(self.backend.ops, parameters, row[None])[0]

    def negative_log_prior(self, flat: Array) -> Array:
        """-log density of the unconstrained values under the prior: `(n,)` to `()`."""
        values, log_dets = self._values(flat)
        trace = self.backend.trace(self.model.parameters, values, self.backend, flat[:1])
        total = sum(site.distribution.log_prob(site.value).sum() for site in trace.values())
        return -total - sum(log_dets[name] for name in self.sites)

    def _values(self, flat: Array) -> tuple[dict[str, Array], dict[str, Array]]:
        return constrain(self.all_sites, split(self.sites, flat) | self.held)


def _elementwise(site: LatentSite) -> bool:
    """Whether the prior treats every entry by itself: a fixed distribution, and not one on the simplex."""
    return site.plain and site.shape == site.unconstrained_shape


def _prior_precision(
    backend: Backend,
    products: Callable[..., np.ndarray],
    centre: Array,
    place: range,
    coupled: np.ndarray,
    *,
    full: bool,
) -> np.ndarray:
    """Positive part of the prior's Hessian over the entries `place`: `(m, m)`, or its diagonal `(m,)`.

    Where the prior treats every entry by itself, one product gives all of the diagonal; elsewhere each entry needs one.
    """
    alone = np.where(coupled, 0.0, 1.0)
    diagonal = products(centre, backend.array(alone[None]))[0]
    together = np.array([i for i in place if coupled[i]], dtype=int)
    block = np.zeros((len(together), len(together)) if full else 0)
    step = max(1, budgets.JACOBIANS // len(coupled))
    for first in range(0, len(together), step):
        index = together[first : first + step]
        unit = np.zeros((len(index), len(coupled)))
        unit[np.arange(len(index)), index] = 1.0
        found = products(centre, backend.array(unit))
        diagonal[index] = found[np.arange(len(index)), index]
        if full:
            block[first : first + step] = found[:, together]
    diagonal = np.maximum(diagonal[place.start : place.stop], 0.0)
    if not full:
        return diagonal
    precision, inside = np.diag(diagonal), together - place.start
    values, vectors = np.linalg.eigh(0.5 * (block + block.T))
    precision[np.ix_(inside, inside)] = (vectors * np.maximum(values, 0.0)) @ vectors.T
    return precision


def _root_rows(posterior: _Posterior, centre: Array, x: Rows, temperatures: np.ndarray) -> Iterator[np.ndarray]:
    """Matrices A `(R O, n)`, a few rows of the data at a time, whose A^T A add up to the Gauss-Newton matrix.

    `temperatures` `(N,)` are T / w_i of every row.
    """
    backend = posterior.backend
    jacobians = backend.derivatives.row_jacobians(posterior.outputs)
    information = posterior.model.information
    assert information is not None  # refused before the first step
    size, count = len(posterior.coupled), posterior.model.num_outputs
    step = max(1, budgets.JACOBIANS // (max(size, 64 * count) * count))  # a model may need that much too
    for first in range(0, len(x), step):
        outputs, jacobian = jacobians(centre, backend.array(x[first : first + step]))  # (R, O), (R, O, n)
        values, vectors = np.linalg.eigh(information(outputs))  # (R, O), (R, O, O)
        values = np.maximum(values, 0.0) / temperatures[first : first + step, None]
        root = np.sqrt(values)[:, :, None] * np.swapaxes(vectors, 1, 2)
        yield (root @ jacobian).reshape(-1, size)


def _around(block: Block, point: Mapping[str, np.ndarray], precision: np.ndarray) -> SiteValues:
    """Parameters of a block around a point, if its precision is positive definite."""
    if np.isfinite(precision).all() and (np.diag(precision) if precision.ndim == 2 else precision).min() > 0.0:
        try:
            return block.around(point, precision)
        except np.linalg.LinAlgError:
            pass
    raise checks.no_curvature(block.sites)


@method
class Laplace(Trained):
    """A Gaussian around the maximum of the joint density, by the curvature there."""

    name = "laplace"
    settings = Guided
    density = True
    continues = False

    def refuse(self, model: BaseModel, families: Mapping[str, str], bayesian: Any, *, weighted: bool) -> None:
        """Refuse models without Fisher information, and families that it cannot make of a curvature."""
        if model.information is None:
            raise checks.no_information(model)
        curved = {name: block.factorised for name, block in FAMILIES.items() if block.from_curvature}
        points = {name for name, block in FAMILIES.items() if not block.has_density}
        checks.laplace_families(families, curved, points)

    def guide(self, task: Task) -> Guide:
        """Points, in place of every block."""
        return task.guide.at_points()

    def reached(self, task: Task, run: Run) -> list[SiteValues]:
        """The Gaussians around the points; of a failed run, whose curvature may mean nothing, those of start scale."""
        x, _, *weights = task.data
        found = []
        for params in run.params:
            point = {name: params[f"{name}:loc"] for name in task.guide.sites}
            if run.failed:
                found.append(task.guide.initial(point))
            else:
                found.append(
                    laplace(
                        task.backend, task.model, task.guide, point, x, *weights, temperature=task.settings.temperature
                    )
                )
        return found
