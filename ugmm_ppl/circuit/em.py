r"""Expectation and maximisation for circuits, on the whole data or stepwise on mini-batches.

The expected counts of a circuit are derivatives of its log density (Darwiche 2003). With weights w that need not sum
to one, the expected number of times that a choice is taken is n = d log p / d log w, and for a component of a neuron
with responsibilities r_b

    sum_b r_b (x_b - loc) = scale^2 d log p / d loc,     sum_b r_b (x_b - loc)^2 = scale^2 (d log p / d log scale + n).

So one gradient gives the E step, on either backend, with any values missing. The M step has the closed form of
conjugate priors: Dirichlet(1 + a) for weights, and a normal inverse-gamma, which is a location at 0 seen `LOC_COUNT`
times and a variance `SCALE_GUESS`^2 seen `SCALE_COUNT` times. A step of size s moves weights, locations and second
moments the fraction s of the way (Cappé and Moulines 2009, J. R. Stat. Soc. B 71(3)); s = 1 on all rows is EM, which
never lowers the joint density of data and parameters.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.backends.trainer import Steps, Trainer
from ugmm_ppl.circuit import passes
from ugmm_ppl.circuit.model import Circuit
from ugmm_ppl.distributions.described import SIMPLEX, Distribution
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.guides.sites import constrain
from ugmm_ppl.infer.method import Task, method
from ugmm_ppl.infer.settings import Stepwise
from ugmm_ppl.infer.trained import Trained
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Numbers, PerStep, RowArrays, SiteValues

WEIGHT_COUNT = 0.1
"""a of weights whose prior is no Dirichlet."""

LOC_COUNT = 0.1
SCALE_COUNT = 1.0
SCALE_GUESS = 0.6
"""In units of the standardised feature."""

LEAST = 1e-12
"""Smallest weight."""

STEMS = {
    "log_weights": "leaves",
    "log_bins": "bins",
    "log_sums": "sums",
    "log_roots": "roots",
    "log_classes": "classes",
}


@method
class EM(Trained):
    """Expectation and maximisation."""

    name = "em"
    settings = Stepwise
    point = True
    family = "delta"

    def refuse(self, model: BaseModel, families: Mapping[str, str], bayesian: Any, *, weighted: bool) -> None:
        """Refuse other models than circuits."""
        if not isinstance(model, Circuit):
            raise checks.no_em(model)

    def kl_weights(self, task: Task) -> PerStep:
        """One: the prior counts as it is."""
        return np.ones(task.settings.num_steps)

    def trainer(self, task: Task, guide: Guide, seeds: list[int]) -> Trainer:
        """Steps of EM."""
        return EMTrainer(task.backend, cast(Circuit, task.model), guide, task.data)


class EMTrainer:
    """`ugmm_ppl.backends.trainer.Trainer` that takes steps of EM; restarts one after the other.

    Args:
        backend: Takes the gradients.
        model: The circuit.
        guide: Points over its sites, between whose unconstrained values and ours it translates.
        data: Rows `(N, K)` as the model sees them, class codes `(N,)` and, if rows have them, weights `(N,)`.
    """

    def __init__(self, backend: Backend, model: Circuit, guide: Guide, data: tuple[RowArrays, ...]) -> None:
        self._backend, self._model, self._guide = backend, model, guide
        self._data = data
        self._counts = backend.derivatives.value_and_gradients(self._log_likelihood)
        self._pseudo = {name: _pseudo_count(model, stem) for name, stem in STEMS.items()}

    def start(self, initial: Sequence[SiteValues]) -> list[SiteValues]:
        """The parameters of the passes, with log_scale in place of scale."""
        return [self._natural(params) for params in initial]

    def advance(self, state: Any, first: int, rows: Numbers, rates: PerStep, kl_weights: PerStep) -> tuple[Any, Steps]:
        """Take n steps of every restart."""
        del first, kl_weights
        shape = (len(state), len(rows))
        losses, log_likelihoods, kls = (np.full(shape, np.nan) for _ in range(3))
        good = np.zeros(shape, dtype=bool)
        new = list(state)
        for restart in range(len(state)):
            for n, at in enumerate(rows[:, restart]):
                factor = len(self._data[0]) / len(at)
                value, gradients = self._gradients(new[restart], at)
                if not (np.isfinite(value) and all(np.isfinite(g).all() for g in gradients.values())):
                    break
                good[restart, n] = True
                log_likelihoods[restart, n] = factor * value
                kls[restart, n] = -self.log_prior(new[restart])
                new[restart] = self._maximised(new[restart], gradients, factor, float(rates[n, restart]))
        losses[...] = kls - log_likelihoods
        return new, Steps(losses, log_likelihoods, kls, good)

    def params(self, state: Any) -> list[SiteValues]:
        """Unconstrained values of every restart's sites, under the names of a guide of points."""
        return [self._unconstrained(each) for each in state]

    def gradient(self, state: Any, restart: int, step: int, rows: Numbers, kl_weight: float) -> SiteValues:
        """Not a number at every site whose counts are not."""
        del step, kl_weight
        _, gradients = self._gradients(state[restart], rows)
        bad = {STEMS.get(name, "leaves") for name, g in gradients.items() if not np.isfinite(g).all()}
        return {f"{s}:loc": np.full(1, np.nan if s.split(".")[0] in bad else 0.0) for s in self._guide.sites}

    def arrays(self, state: Any) -> dict[str, np.ndarray]:
        """The parameters of all restarts."""
        return {f"{r}/{name}": value for r, each in enumerate(state) for name, value in each.items()}

    def restore(self, arrays: dict[str, np.ndarray], initial: Sequence[SiteValues]) -> Any:
        """The state from its `arrays`."""
        return [{name: arrays[f"{r}/{name}"] for name in self._natural(params)} for r, params in enumerate(initial)]

    def log_prior(self, natural: Mapping[str, np.ndarray]) -> float:
        """Log density of the parameters under the pseudo-counts, up to a constant."""
        total = sum(
            a * np.where(np.isfinite(natural[name]), natural[name], 0.0).sum()
            for name, a in self._pseudo.items()
            if name in natural
        )
        if "loc" in natural:
            precision = np.exp(-2.0 * natural["log_scale"])
            pull = LOC_COUNT * natural["loc"] ** 2 + SCALE_COUNT * SCALE_GUESS**2
            total += float((-0.5 * pull * precision - SCALE_COUNT * natural["log_scale"]).sum())
        return float(total)

    def _log_likelihood(self, natural: Mapping[str, Array], x: Array, y: Array, weights: Array | None = None) -> Array:
        ops, model = self._backend.ops, self._model
        own = dict(natural)
        if "log_scale" in own:
            own["scale"] = ops.exp(own.pop("log_scale"))
        outputs = passes.log_joint(ops, model.forest, model.all_leaves, own, x)
        log_density = model.seen(ops, outputs, y)
        return (log_density if weights is None else weights * log_density).sum()

    def _gradients(self, natural: dict[str, np.ndarray], at: np.ndarray) -> tuple[float, dict[str, np.ndarray]]:
        backend = self._backend
        arrays = {name: backend.array(value) for name, value in natural.items()}
        return self._counts(arrays, *(backend.array(a[at]) for a in self._data))

    def _maximised(
        self, natural: dict[str, np.ndarray], gradients: dict[str, np.ndarray], factor: float, step: float
    ) -> dict[str, np.ndarray]:
        """The M step, of which the fraction `step` is taken."""
        new = {}
        for name in STEMS:
            if name in natural:
                old = np.exp(natural[name])
                counts = np.where(np.isfinite(natural[name]), factor * gradients[name] + self._pseudo[name], 0.0)
                total = counts.sum(-1, keepdims=True)
                weights = np.where(total > 0.0, counts / np.where(total > 0.0, total, 1.0), old)
                weights = (1.0 - step) * old + step * weights
                new[name] = np.where(np.isfinite(natural[name]), np.log(np.maximum(weights, LEAST)), -np.inf)
        if "loc" in natural:
            loc, variance = natural["loc"], np.exp(2.0 * natural["log_scale"])
            n = factor * gradients["log_weights"]
            sum1 = factor * variance * gradients["loc"]
            sum2 = variance * (factor * gradients["log_scale"] + n)
            best = (n * loc + sum1) / (n + LOC_COUNT)
            move = best - loc
            squares = np.maximum(sum2 - 2.0 * move * sum1 + n * move**2, 0.0)
            spread = (squares + LOC_COUNT * best**2 + SCALE_COUNT * SCALE_GUESS**2) / (n + SCALE_COUNT)
            new["loc"] = loc + step * move
            second = (1.0 - step) * (variance + loc**2) + step * (spread + best**2)
            new["log_scale"] = 0.5 * np.log(np.maximum(second - new["loc"] ** 2, LEAST))
        return new

    def _natural(self, params: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        sites = self._guide.sites
        values, _ = constrain(sites, {name: self._backend.array(params[f"{name}:loc"]) for name in sites})
        natural = self._model.natural(NUMPY, {n: self._backend.numpy(v).astype(np.float64) for n, v in values.items()})
        if "scale" in natural:
            natural["log_scale"] = np.log(natural.pop("scale"))
        return natural

    def _unconstrained(self, natural: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        logs = {stem: natural[name] for name, stem in STEMS.items() if name in natural}
        found = {}
        for name, site in self._guide.sites.items():
            stem, role = name.split(".")
            log = natural["log_scale"] if role in ("log_scale", "scale") else logs[stem]
            value = natural["loc"] if role == "loc" else log if role in ("log_scale", "logits") else np.exp(log)
            value = np.where(np.isfinite(value), value, 0.0)  # logits of padding
            if site.bijector is not None:
                value = self._backend.numpy(site.bijector.unconstrain(self._backend.array(value))).astype(np.float64)
            found[f"{name}:loc"] = value
        return found


def _pseudo_count(model: Circuit, stem: str) -> Any:
    prior = next(p for site, p in model.prior.sites().items() if site in (f"{stem}.logits", f"{stem}.weights"))
    if not (isinstance(prior, Distribution) and prior.name in SIMPLEX):
        return WEIGHT_COUNT
    concentration = prior.args[0] if prior.args else next(iter(prior.kwargs.values()))
    return np.maximum(np.asarray(concentration, dtype=np.float64) - 1.0, 0.0)
