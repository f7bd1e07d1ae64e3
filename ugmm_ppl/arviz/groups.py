"""The groups of a fit's tree as plain arrays, made in bounded memory; `ugmm_ppl.arviz.tree` makes a tree of them."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.arviz.dims import coordinates, site_dims, site_shapes
from ugmm_ppl.arviz.request import GROUPS, OF_DATA, Request
from ugmm_ppl.models import evaluation

if TYPE_CHECKING:
    from ugmm_ppl.models import evaluation
from ugmm_ppl.posterior.predictive import Predictive
from ugmm_ppl.typing import Outputs

STATISTICS = {"mean": None, "sd": None, "q05": 0.05, "q50": 0.5, "q95": 0.95}
"""What is kept of sites that are summarised; numbers are quantiles."""

NUM_PROBES = 50
"""Rows of the training data at which functions are looked at where none are given."""


class Collector:
    """The groups of one fit, one request.

    Attributes:
        fit: The fit, thinned.
        groups: Group -> variable -> array; leading axes are chain and draw but for data, training and summaries.
        dims: Names of a variable's own axes, by variable.
        coords: Coordinates by dim.
        drawn: Sites, derived ones too, whose draws belong in the group posterior.
    """

    def __init__(self, fit: Predictive, x: Any, y: Any, request: Request) -> None:
        """Check what is asked for and given."""
        self.request = request
        self.fit, self.num_draws = _thinned(fit, request)
        self.seed = fit.seed if request.seed is None else request.seed
        self.shapes = site_shapes(fit, derived=request.derived)
        if request.var_names is not None:
            checks.names("var_names", request.var_names, self.shapes)
            self.shapes = {name: self.shapes[name] for name in self.shapes if name in request.var_names}
        self.dims, self.coords = site_dims(fit, self.shapes), coordinates(fit)
        self.groups: dict[str, dict[str, np.ndarray]] = {}
        needs_data = request.groups is not None and request.wants(*OF_DATA)
        self.x: Any = None
        if x is not None or y is not None or fit.train_x is not None or needs_data:
            self.x, self.y = self.fit.checked_data(x, y)
            self.coords["row"] = np.arange(len(self.x))
        self.drawn = self._drawn()

    def collect(self, *, posterior: bool = True) -> dict[str, dict[str, np.ndarray]]:
        """All groups that are asked for; without `posterior` the draws of the sites are left to somebody else."""
        if posterior and self.request.wants("posterior"):
            shape = (self.fit.num_chains, self.num_draws)
            held = {n: np.empty((*shape, *self.shapes[n]), self.fit.dtype) for n in self.drawn}
            for chain, block, draws, _ in self.blocks():
                for name, value in held.items():
                    value[chain, block] = draws[name]
            self.groups["posterior"] = held
        summarised = [name for name in self.shapes if name not in self.drawn]
        if summarised and self.request.wants("posterior_summary"):
            self._summarise(summarised)
        self._functional()
        if self.x is not None and self.request.wants("posterior_predictive", "log_likelihood", "sample_stats"):
            self._pointwise()
        if self.request.wants("log_prior"):
            self._log_prior()
        if self.request.wants("sample_stats"):
            weights = np.repeat(self.fit.weights[:, None], self.num_draws, 1)  # a coordinate would be in every frame
            sampled = {n: v[:, : self.num_draws] for n, v in self.fit.stats.items()}
            self.groups["sample_stats"] = sampled | self.groups.get("sample_stats", {}) | {"chain_weight": weights}
        self._training()
        if self.x is not None and self.request.num_prior_draws and self.request.wants("prior", "prior_predictive"):
            self._prior()
        self._data()
        return {name: self.groups[name] for name in GROUPS if self.groups.get(name)}

    def blocks(self) -> Iterator[tuple[int, slice, dict[str, np.ndarray], np.ndarray]]:
        """Chain, numbers of the draws, draws `(S, ...)` by site, log q `(S,)`: as many draws as may be held."""
        at_once = max(1, budgets.HELD // self.fit.num_parameters)
        for chain in range(self.fit.num_chains):
            for first in range(0, self.num_draws, at_once):
                block = range(first, min(self.num_draws, first + at_once))
                draws, log_q = self.fit.chain_draws(chain, block, self.seed)
                if self.request.derived:
                    draws = draws | self.fit.derived(draws)
                yield chain, slice(block.start, block.stop), draws, log_q

    def _drawn(self) -> list[str]:
        """Sites whose draws are kept: all or none that are asked for, or small ones up to `budgets.TREE` entries."""
        if self.request.keep != "auto":
            return list(self.shapes) if self.request.keep == "draws" else []
        room, kept = budgets.TREE // (self.fit.num_chains * self.num_draws), set()
        for name in sorted(self.shapes, key=lambda name: math.prod(self.shapes[name])):
            room -= math.prod(self.shapes[name])
            if room >= 0:
                kept.add(name)
        return [name for name in self.shapes if name in kept]

    def _summarise(self, names: list[str]) -> None:
        """Mean, standard deviation and quantiles over the draws of each chain, a part of the entries at a time."""
        sizes = [math.prod(self.shapes[name]) for name in names]
        total, step = sum(sizes), max(1, budgets.SUMMARISED // self.num_draws)
        found = np.empty((self.fit.num_chains, len(STATISTICS), total), self.fit.dtype)
        for first in range(0, total, step):
            part = slice(first, min(total, first + step))
            values = np.empty((self.num_draws, part.stop - part.start), self.fit.dtype)
            for chain, block, draws, _ in self.blocks():
                flat = np.concatenate([draws[name].reshape(len(draws[name]), -1) for name in names], 1)
                values[block] = flat[:, part]
                if block.stop == self.num_draws:
                    levels = [q for q in STATISTICS.values() if q is not None]
                    found[chain, :2, part] = values.mean(0), values.std(0)
                    found[chain, 2:, part] = np.quantile(values, levels, axis=0)
        cut = np.split(found, np.cumsum(sizes)[:-1], axis=2)
        self.coords["statistic"] = list(STATISTICS)
        self.groups["posterior_summary"] = {
            name: value.reshape(*value.shape[:2], *self.shapes[name]) for name, value in zip(names, cut, strict=True)
        }

    def _functional(self) -> None:
        """Outputs of the network, and what they say of y, at the probe inputs."""
        probe = self.request.probe
        if probe is None and self.x is None:
            if self.request.groups is not None and "functional" in self.request.groups:
                raise checks.no_probe()
            return
        if self.fit.model.observed == "x" or not self.request.wants("functional"):
            return  # a density of x is no function of x with an uncertain value
        if probe is None:
            rows = np.unique(np.linspace(0, len(self.x) - 1, min(len(self.x), NUM_PROBES)).round().astype(int))
            probe, self.coords["probe"] = self.x[rows], rows
        probe = self.fit.check_inputs(probe, what="probe")
        self.coords.setdefault("probe", np.arange(len(probe)))
        functions = self.fit.sample_functions(self.num_draws, seed=self.seed)
        outputs = functions.outputs(probe)
        prediction = self.fit.model.likelihood.prediction(outputs, self.fit.y_units, self.fit.primitives, None)
        named = outputs[..., : self.fit.model.likelihood.num_outputs]
        self.groups["functional"] = {"outputs": named, "value": prediction.draws}
        self.groups["constant_data"] = {"probe_x": self.fit.features(probe)}
        output = self.fit.model.likelihood.axis
        self.dims |= {"outputs": ["probe", output], "probe_x": ["probe", self.fit.model.feature_axis]}
        self.dims["value"] = ["probe", output][: prediction.draws.ndim - 2]

    def _pointwise(self) -> None:
        """Log likelihood and predictive draws by row, and the densities of the draws themselves."""
        fit, observed = self.fit, self.fit.model.observed
        if observed == "x":
            pointwise, replicates = self._densities()
        else:
            pointwise, predicted = self._targets()
            drawn = predicted if fit.y_units is None else fit.y_units.restore(predicted)
            replicates = {"y": drawn.astype(np.int32) if fit.model.likelihood.discrete else drawn}
        if fit.inference.density and self.request.wants("sample_stats"):
            log_p, log_q = np.empty((2, fit.num_chains, self.num_draws))
            with fit.settings():
                for chain, block, draws, density in self.blocks():
                    sites = {name: draws[name] for name in fit.family.sites}
                    log_p[chain, block] = evaluation.log_prior(fit.primitives, fit.model, sites)
                    log_q[chain, block] = density
            log_p += fit.over_rows(pointwise)
            self.groups["sample_stats"] = {"log_p": log_p, "log_q": log_q}
        self.dims["y"] = ["row"]
        if self.request.wants("log_likelihood"):
            self.groups["log_likelihood"] = {observed: pointwise - fit.log_unit(self.x)}
            self.dims.setdefault(observed, ["row"])
        if self.request.wants("posterior_predictive"):
            self.groups["posterior_predictive"] = replicates

    def _log_prior(self) -> None:
        """Log density of the prior at the draws, by site."""
        fit, shape = self.fit, (self.fit.num_chains, self.num_draws)
        found: dict[str, np.ndarray] = {}
        with fit.settings():
            for chain, block, draws, _ in self.blocks():
                sites = {name: draws[name] for name in fit.family.sites}
                for name, value in evaluation.log_priors(fit.primitives, fit.model, sites).items():
                    found.setdefault(name, np.empty(shape))[chain, block] = value
        self.groups["log_prior"] = found

    def _densities(self) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """Log density by row `(C, S, B)`, and new data, of a model of x."""
        sites, _ = self.fit.draws(range(self.num_draws), self.seed)
        outputs = self.fit.outputs(self.x, num_draws=self.num_draws, seed=self.seed)
        return self.fit.pointwise(outputs, self.y), self.fit.replicates(sites, outputs, self.seed)

    def _targets(self) -> tuple[np.ndarray, np.ndarray]:
        """Log likelihood and new targets by row, `(C, S, B)` each, as the network sees them."""
        fit, target = self.fit, self.fit.to_network_target(self.y)
        rng = np.random.default_rng(self.seed)

        def both(outputs: Outputs, rows: slice) -> np.ndarray:
            log_likelihood = fit.model.log_likelihood(outputs.astype(np.float64), target[rows])
            return np.stack([log_likelihood, fit.model.likelihood.sample(outputs, rng)], -1)

        size = fit.num_chains * self.num_draws * len(self.x)
        functions = fit.sample_functions(self.num_draws, seed=self.seed)
        found = functions.map(self.x, both, (2,), dtype="float64" if size <= budgets.HELD else fit.dtype)
        return found[..., 0], found[..., 1]

    def _training(self) -> None:
        """The trace of the training: by step, and by evaluation on held-out rows."""
        fit = self.fit
        if not (fit.losses.size and self.request.wants("training")):
            return
        self.coords["step"] = np.arange(fit.losses.shape[1])
        trace = {"loss": fit.losses, "log_likelihood": fit.log_likelihoods, "kl": fit.kls}
        if fit.scores.size:
            self.coords["evaluated_at"] = fit.score_steps
            trace["score"] = fit.scores
        self.groups["training"] = trace

    def _prior(self) -> None:
        prior = self.fit.prior_draws(
            self.x, self.request.num_prior_draws, derived=self.request.derived, seed=self.request.seed
        )
        drawn: dict[str, np.ndarray] = {name: prior.pop(name) for name in ("x", "y") if name in prior}
        if self.request.wants("prior_predictive"):
            self.groups["prior_predictive"] = drawn
        if self.request.wants("prior"):
            self.groups["prior"] = {name: prior[name] for name in self.drawn if name in prior}

    def _data(self) -> None:
        if self.x is not None:
            self.dims |= {"x": ["row", self.fit.model.feature_axis], "y": ["row"], "weight": ["row"]}
            given: dict[str, np.ndarray] = {"x": checks.floats(self.fit.features(self.x)), "y": self.y}
            for name, values in self.fit.extras_of(self.x).items():
                given[name], self.dims[name] = values, ["row"]
            if self.fit.row_weights is not None and len(self.fit.row_weights) == len(self.x):
                given["weight"] = self.fit.row_weights
            observed = set(self.groups.get("posterior_predictive", {self.fit.model.observed}))
            if self.request.wants("observed_data"):
                self.groups["observed_data"] = {n: a for n, a in given.items() if n in observed}
            if self.request.wants("constant_data"):
                constant = {n: a for n, a in given.items() if n not in observed}
                self.groups["constant_data"] = constant | self.groups.get("constant_data", {})


def _thinned(fit: Predictive, request: Request) -> tuple[Predictive, int]:
    """The fit with every thin-th draw, and the number of draws per chain."""
    count = fit.count_draws(request.num_draws)
    if request.thin == 1:
        return fit, count
    if not fit.inference.markov:
        return fit, max(1, count // request.thin)
    every = slice(0, count, request.thin)
    state = {name: value[:, every] for name, value in fit.state[0].items()}
    stats = {name: value[:, every] for name, value in fit.stats.items()}
    return dataclasses.replace(fit, state=[state], stats=stats), len(range(count)[every])
