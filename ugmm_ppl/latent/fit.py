"""`LatentFit`: a fitted latent network, with densities, samples, reconstructions and posterior means of its layers."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl import budgets
from ugmm_ppl import checks as common
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.fitting.registry import fit_of
from ugmm_ppl.fitting.result import Fit
from ugmm_ppl.latent import checks, density
from ugmm_ppl.latent.encoder import PREFIX, LatentGuide, PerExample, split
from ugmm_ppl.latent.evidence import Evidence, Weighed, Weigher, combine
from ugmm_ppl.latent.model import POINTWISE_SAMPLES, LatentNetwork
from ugmm_ppl.latent.queries import Averages, Draws, Sampling, local_fit, with_rows
from ugmm_ppl.models import evaluation
from ugmm_ppl.neuron import log_normalize, logsumexp
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.posterior.drawn import stacked
from ugmm_ppl.typing import Outputs, Probs, RowArrays, Rows, SiteDraws, SiteValues

QUERY_DRAWS = 20
"""Posterior draws per chain that a query averages over, where none are asked for."""


class Encoded(NamedTuple):
    """Posterior of a layer given the data, `(B, d)` each: mean and standard deviation."""

    mean: np.ndarray
    std: np.ndarray


@fit_of(LatentNetwork)
@dataclasses.dataclass(eq=False, kw_only=True, repr=False)
class LatentFit(Fit):
    """A fitted `LatentNetwork`.

    Queries average over posterior draws of the parameters, and over weighted draws of the layers above the data. These
    begin at the encoder; where there is none (encoder="per-example" and rows that were not trained on, or "nuts") a
    Normal for every value of every row is trained first, with the parameters of the model held at their mean.
    """

    model: LatentNetwork

    @cached_property
    def family(self) -> LatentGuide:
        """The guide over the parameters, with the encoder beside it."""
        whole = self.family_of_parameters()
        rows = 0 if self.train_x is None else len(self.train_x)
        with self.settings():
            local = self.model.local_guide(self.primitives)
        return LatentGuide(whole.sites, whole.blocks, local, rows, self.seed)

    def network_data(self, x: Any = None, y: Any = None) -> tuple[RowArrays, ...]:
        """The training data as the model sees them: x, class codes with numbers of rows `(N, 2)`, perhaps weights."""
        x, y, *weights = super().network_data(x, y)
        numbers = np.arange(len(x)) if self.row_weights is None else np.flatnonzero(self.row_weights)
        return x, with_rows(y, numbers), *weights

    def log_evidence(
        self,
        x: Any = None,
        y: Any = None,
        *,
        method: str = "importance",
        num_samples: int = 1000,
        num_temperatures: int = 100,
        num_draws: int | None = None,
        seed: int | None = None,
    ) -> Evidence:
        """log p(x), or log p(x, y) where y is known, under the posterior predictive density, with its error.

        `ugmm_ppl.latent.evidence` has the equations. Importance sampling is a lower bound in the mean, tight where the
        guide is close to the posterior of a row. Annealed importance sampling costs some 6 `num_temperatures` times as
        much per sample, and is right where importance sampling has a small effective number of weights.

        Args:
            x: Rows `(B, K)` in the units of the data; None for the training data and their classes.
            y: Class codes `(B,)`, -1 where not known; None where no class is known.
            method: "importance" or "annealed".
            num_samples: Samples, or annealed chains, of a row, over all posterior draws.
            num_temperatures: Of "annealed".
            num_draws: Posterior draws per chain; None is 20, one for "map".
            seed: Seed of draws and samples; None is the seed of the fit.

        Raises:
            ValueError, TypeError: Rows that are no data of the model, an unknown method, counts below one.
        """
        rows, codes = self._rows(x, y)
        sampling = Sampling(method, num_samples, num_temperatures, num_draws, seed).checked()
        draws = self._query_draws(num_draws, sampling.seed)
        found = np.empty((len(draws.weights), draws.share(sampling.num_samples), len(rows)))
        for weighed in self._weighed(rows, codes, draws, sampling, trained=x is None):
            found[weighed.draw, :, weighed.rows] = weighed.log_weights(self.model, codes)
        result = combine(found, draws.log_weights)
        return dataclasses.replace(result, value=result.value - self.log_unit(rows))

    def posterior_class(self, x: Any, **options: Any) -> Probs:
        """p(class | x) `(B, classes)`; `options` are the keywords of `log_evidence`."""
        rows, _ = self._rows(x, None)
        unknown = np.full(len(rows), -1)
        sampling = Sampling(**options).checked()
        draws = self._query_draws(sampling.num_draws, sampling.seed)
        found = np.empty((len(draws.weights), len(rows), self.model.num_outputs))
        for weighed in self._weighed(rows, unknown, draws, sampling, trained=x is None):
            found[weighed.draw, weighed.rows] = weighed.log_classes(self.model)
        log_joint = logsumexp(NUMPY, np.moveaxis(found + draws.log_weights[:, None, None], 0, -1))
        checks.possible(log_joint.max(-1))
        return np.exp(log_normalize(NUMPY, log_joint))

    def encode(self, x: Any, layer: int = 0, *, y: Any = None, **options: Any) -> Encoded:
        """Posterior mean and standard deviation of a layer given x, by weighted draws.

        Args:
            x: Rows `(B, K)`; None for the training data.
            layer: Number of the layer, 0 for z.
            y: Class codes, -1 where not known.
            options: Keywords of `log_evidence`.
        """
        layer = checks.layer(layer, len(self.model.layers))
        parts = self._averages(x, y, Sampling(**options).checked())
        mean, square = (split(self.model.sizes, parts.over(a))[layer] for a in (parts.means, parts.squares))
        return Encoded(mean, np.sqrt(np.maximum(square - mean**2, 0.0)))

    def reconstruct(self, x: Any, *, layer: int | None = None, y: Any = None, **options: Any) -> Rows:
        """E[E[x' | h^layer] | x]: the mean of the data, given what x says of a layer; `(B, K)` in the units of x.

        Args:
            x: Rows `(B, K)`; None for the training data.
            layer: Number of the layer; 0 is z, None the last one above the data.
            y: Class codes, -1 where not known.
            options: Keywords of `log_evidence`.
        """
        last = len(self.model.layers)
        layer = checks.layer(layer, last)
        parts = self._averages(x, y, Sampling(**options).checked())
        means = [split(self.model.sizes, mean)[layer] for mean in parts.means]
        outputs = [density.expectation(v, layer, last, mean) for v, mean in zip(parts.values, means, strict=True)]
        found = parts.over(np.stack(outputs))
        return found if self.x_units is None else self.x_units.restore(found)

    def sample(self, n: int, y: int | None = None, *, with_class: bool = False, seed: int | None = None) -> Any:
        """New rows `(n, K)` from the posterior predictive density, in the units of the data.

        Args:
            n: Rows.
            y: Their class; None draws it.
            with_class: Return (rows, class codes).
            seed: Seed; None is the seed of the fit.
        """
        n, y = common.count("n", n), checks.label(y, self.model.classes)
        draws = self._query_draws(None, seed)
        rng = np.random.default_rng([self.seed if seed is None else common.count("seed", seed, least=0), n])
        which = np.sort(rng.choice(len(draws.weights), n, p=draws.weights))
        x, codes = np.empty((n, self.model.num_inputs)), np.empty(n, dtype=np.int64)
        for draw in np.unique(which):
            at = which == draw
            codes[at], x[at] = self._generate(draws.at(draw), int(at.sum()), rng, y)
        order = rng.permutation(n)
        return (x[order], codes[order]) if with_class else x[order]

    def evaluate(self, draws: SiteDraws, x: Rows, chunk_size: int, params: SiteValues | None) -> Outputs:
        """log p(x, class) `(S, B, O)` by importance sampling, a lower bound in the mean.

        All rows share their random numbers, so that the value of a row does not depend on the others.
        """
        mean = {name: value.mean(0) for name, value in draws.items()}
        noise = np.random.default_rng(self.seed).normal(size=(POINTWISE_SAMPLES, 1, self.model.num_latents))
        found = np.empty((len(next(iter(draws.values()))), len(x), self.model.num_outputs))
        weigher, own = self._proposal(mean, x, _local(params))
        for s in range(len(found)):
            values = {name: value[s] for name, value in draws.items()}
            for at in range(0, len(x), chunk_size):
                rows = np.arange(at, min(len(x), at + chunk_size))
                local = np.broadcast_to(noise, (len(noise), len(rows), noise.shape[-1]))
                log_joint = weigher.importance(values, own, x[rows], rows, local).log_joint
                found[s, rows] = logsumexp(NUMPY, np.moveaxis(log_joint, 0, -1)) - math.log(len(noise))
        return found

    def prior_draws(self, x: Any, num_draws: int, *, derived: bool = False, seed: int | None = None) -> SiteDraws:
        """Draws from the prior as one chain, `(1, S, ...)` by site, and as many rows as x has for each."""
        rows = len(self.check_inputs(x))
        with self.settings():
            base = self.seed if seed is None else seed
            draws = evaluation.prior_draws(self.primitives, self.model, num_draws, base)
        draws |= self.derived(draws) if derived else {}
        one_chain = {name: value[None] for name, value in draws.items()}
        return one_chain | self.replicates(one_chain, np.empty((1, num_draws, rows, self.model.num_outputs)), seed)

    def replicates(self, draws: SiteDraws, outputs: Outputs, seed: int | None) -> SiteDraws:
        """As many rows as the data have, for every draw: `x` `(C, S, B, K)`, with classes also `y` `(C, S, B)`."""
        chains, size, rows = outputs.shape[:3]
        x, y = np.empty((chains, size, rows, self.model.num_inputs)), np.empty((chains, size, rows), dtype=np.int64)
        rng = np.random.default_rng(self.seed if seed is None else seed)
        for at in np.ndindex(chains, size):
            y[at], x[at] = self._generate({name: value[at] for name, value in draws.items()}, rows, rng, None)
        return {"x": x} | ({} if self.model.classes is None else {"y": y})

    def log_unit(self, x: Rows) -> float:
        """What a log density loses on the way to the units of the data."""
        del x
        if self.x_units is None:
            return 0.0
        return float(np.log(np.broadcast_to(self.x_units.scale, (self.model.num_inputs,))).sum())

    def _generate(
        self, values: Mapping[str, np.ndarray], n: int, rng: np.random.Generator, y: int | None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Class codes `(n,)` and rows `(n, K)` in the units of the data, for one draw of the parameters."""
        codes, z = density.draw_top(values, self.model.sizes[0], n, rng, y)
        x = density.ancestral(values, z, len(self.model.layers), rng)[-1]
        return codes, x if self.x_units is None else self.x_units.restore(x)

    def _rows(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """Rows as the model sees them, and class codes."""
        rows, codes = self.checked_data(x, y)
        return self.to_network(rows), codes

    def _query_draws(self, num_draws: int | None, seed: int | None) -> Draws:
        if num_draws is None and not self.inference.point:
            num_draws = min(QUERY_DRAWS, self.count_draws(None))
        draws = self.posterior(num_draws, seed=seed)
        per_chain = next(iter(draws.values())).shape[1]
        return Draws(stacked(draws, 2), np.repeat(self.weights, per_chain) / per_chain, per_chain)

    def _proposal(
        self, values: Mapping[str, np.ndarray], x: Rows, own: dict[str, np.ndarray], *, trained: bool = False
    ) -> tuple[Weigher, dict[str, np.ndarray]]:
        """The guide of the layers for some rows, and its parameters; `trained`: they are the training rows."""
        table = self.model.encoder == "per-example"
        if own and (trained or not table):
            return self._weigher, own
        guide = self._weigher.guide if table else PerExample(self.primitives, self.model.sizes)
        weigher = self._weigher if table else self._table_weigher
        return weigher, local_fit(self.primitives, self.model, guide, values, x, self.seed)

    @cached_property
    def _weigher(self) -> Weigher:
        return Weigher(self.model, self.primitives, self.family.local)

    @cached_property
    def _table_weigher(self) -> Weigher:
        return Weigher(self.model, self.primitives, PerExample(self.primitives, self.model.sizes))

    def _weighed(
        self, rows: np.ndarray, codes: np.ndarray, draws: Draws, sampling: Sampling, *, trained: bool = False
    ) -> Iterator[Weighed]:
        """Weighted draws of the layers for every posterior draw and block of rows."""
        base, samples = self.seed if sampling.seed is None else sampling.seed, draws.share(sampling.num_samples)
        largest = max(k * j for k, j in self.model.layers)
        size = min(len(rows), max(1, budgets.TEMPORARY // (samples * largest)))
        for draw in range(len(draws.weights)):
            if draw % draws.per_chain == 0:
                own = {} if self.inference.markov else _local(self.state[draw // draws.per_chain])
                with self.settings():
                    weigher, own = self._proposal(draws.mean(draw), rows, own, trained=trained)
            values = draws.at(draw)
            for start in range(0, len(rows), size):
                rng = np.random.default_rng([base, draw, start])
                at = np.arange(start, start + size).clip(max=len(rows) - 1)  # one shape: compiled once
                with self.settings():  # of a thread, which may be another one when a generator goes on
                    if sampling.method == "annealed":
                        found = weigher.annealed(
                            values, own, rows[at], at, codes[at], num_chains=samples,
                            num_temperatures=sampling.num_temperatures, rng=rng,
                        )  # fmt: skip
                    else:
                        noise = rng.normal(size=(samples, size, self.model.num_latents))
                        found = weigher.importance(values, own, rows[at], at, noise)
                yield Weighed(draw, slice(start, min(len(rows), start + size)), found, values)

    def _averages(self, x: Any, y: Any, sampling: Sampling) -> Averages:
        """Posterior moments of all layers by draw of the parameters."""
        rows, codes = self._rows(x, y)
        draws = self._query_draws(sampling.num_draws, sampling.seed)
        shape = (len(draws.weights), len(rows))
        totals, means, squares = np.empty(shape), *(np.empty((*shape, self.model.num_latents)) for _ in range(2))
        for weighed in self._weighed(rows, codes, draws, sampling, trained=x is None):
            log_w = weighed.log_weights(self.model, codes)
            hidden = weighed.found.hidden[:, : log_w.shape[1]]
            at, total = (weighed.draw, weighed.rows), logsumexp(NUMPY, log_w.T)
            w = np.exp(log_normalize(NUMPY, log_w.T)).T[..., None]
            totals[at], means[at], squares[at] = total, (w * hidden).sum(0), (w * hidden**2).sum(0)
        log_weights = (totals + draws.log_weights[:, None]).T
        checks.possible(log_weights.max(-1))
        weights = np.exp(log_normalize(NUMPY, log_weights)).T
        return Averages(weights, means, squares, [draws.at(draw) for draw in range(len(weights))])


def _local(params: Mapping[str, np.ndarray] | None) -> dict[str, np.ndarray]:
    return {name: value for name, value in (params or {}).items() if name.startswith(PREFIX)}
