r"""Stochastic-gradient Hamiltonian Monte Carlo: draws from the posterior by noisy steps with momentum, on mini-batches.

With U(u) = -log p(u, D) over the unconstrained values u of all inferred sites, its gradient g on a mini-batch (the
likelihood multiplied by N / |B|), the step size e, friction a, and a scale s for every entry, one step is

    v <- (1 - a) v - e s g + sqrt(1 - (1 - a)^2) n,   n ~ N(0, 1),      u <- u + e s v,

whose velocities are standard normal in the long run, and u a draw from the posterior, up to an error of order e^2. The
scales are 1 / sqrt(E g^2), which for a Gaussian and all rows is its standard deviation, and at most 1, the unit of the
priors. The first half of the warm-up only goes down, v <- (1 - a) v - e s g, u <- u + e v, since far from the posterior
gradients say nothing of its widths; in the second half E g^2 is averaged on the way; then the scales stand still. The
noise of mini-batches heats the draws by about e^2 s^2 Var(g) / (2 a): lower the learning rate, or raise the batch,
until the posterior no longer widens with it. At temperature T the likelihood counts to the power 1 / T.

Sources: Chen, Fox and Guestrin 2014, arXiv:1402.4102, equation (15); scales from the squares of gradients in the
burn-in: Springenberg, Klein, Falkner and Hutter 2016, NeurIPS.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.backends.trainer import StepRule, Trainer
from ugmm_ppl.guides.delta import ModeBlock
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.guides.sites import constrain
from ugmm_ppl.infer.elbo import negative_elbo
from ugmm_ppl.infer.method import Method, Reached, Task, method
from ugmm_ppl.infer.schedule import Batches
from ugmm_ppl.infer.settings import POSITIVE, Sampled, optional, setting
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.typing import Array, Ops

MEMORY = 0.2
"""Share of half the warm-up over which squares of gradients are averaged."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class SGHMCSettings(Sampled):
    """Those of "sghmc".

    Args:
        num_warmup: Steps of each chain before its first draw.
        thin: Steps from one draw that is kept to the next.
        batch_size: Rows of a mini-batch; None for all.
        learning_rate: Peak of the learning rate; for "sghmc" the size e of all steps.
        friction: Share of the velocity that a step of "sghmc" loses, in (0, 1).
    """

    num_warmup: int = setting(2000, checks.count)
    thin: int = setting(10, checks.count)
    batch_size: int | None = setting(None, optional(checks.count))
    learning_rate: float = setting(0.05, POSITIVE)
    friction: float = setting(0.1, functools.partial(checks.number, low=0.0, high=1.0))

    def for_rows(self, rows: int) -> SGHMCSettings:
        """The same with a batch of at most that many rows."""
        return dataclasses.replace(self, batch_size=min(self.batch_size or rows, rows))


@dataclasses.dataclass(frozen=True)
class Friction(StepRule):
    """The equations at the head of this file.

    Args:
        warmup: Steps of the warm-up.
        temperature: T, by which the gradient is divided.
        friction: a.
    """

    warmup: int
    temperature: float = 1.0
    friction: float = 0.1

    def begin(self, value: Array) -> dict[str, Array]:
        """At rest, with nothing seen."""
        return {"velocity": 0.0 * value, "square": 0.0 * value, "count": 0.0 * value.sum()}

    def move(
        self, ops: Ops, value: Array, gradient: Array, state: Mapping[str, Array], noise: Array, rate: Array
    ) -> tuple[Array, dict[str, Array]]:
        """One step."""
        gradient, count = gradient / self.temperature, state["count"] + 1.0
        half = self.warmup / 2.0
        window = ops.at_most(ops.where(count > half, count - half, count), max(1.0, MEMORY * half))
        seen = state["square"] + (gradient * gradient - state["square"]) / (1.0 + window)
        square = ops.where(count <= self.warmup, seen, state["square"])
        scale = 1.0 / ops.sqrt(ops.at_least(square, 1.0))
        going_down = count <= half
        heat = ops.where(going_down, 0.0, math.sqrt(1.0 - (1.0 - self.friction) ** 2))
        velocity = (1.0 - self.friction) * state["velocity"] - rate * scale * gradient + heat * noise
        moved = value + rate * ops.where(going_down, 1.0, scale) * velocity
        return moved, {"velocity": velocity, "square": square, "count": count}


@method
class SGHMC(Method):
    """Draws of chains side by side, one every `thin` steps; sites that are not inferred are held at their start."""

    name = "sghmc"
    settings = SGHMCSettings
    markov = True
    loss = ""
    continues = False
    family = "normal"

    def refuse(self, model: BaseModel, families: Mapping[str, str], bayesian: Any, *, weighted: bool) -> None:
        """Refuse densities that change from call to call, and rows with variables of their own."""
        checks.sampler(self.name, model.dropout)
        if model.has_local_variables:
            raise checks.no_stochastic_gradients(model)

    def run(self, task: Task) -> Reached:
        """Warm up, then keep a draw every few steps."""
        settings, backend = task.settings, task.backend
        inferred, first = task.guide.inferred, task.starts[0]
        held, _ = constrain(task.guide.sites, {n: backend.array(u) for n, u in first.items() if n not in inferred})
        sites = {name: site for name, site in task.guide.sites.items() if name in inferred}
        guide = Guide(sites, (ModeBlock(sites),))
        chains = _Chains(task, guide, self._trainer(task, guide, held))
        label = f"{self.name}, {settings.num_chains} chains"
        with Progress(settings.num_warmup + settings.num_draws * settings.thin, label, show=task.progress) as bar:
            drawn = chains.draw(bar)
        values, _ = constrain(sites, {name: backend.array(u) for name, u in drawn.items()})
        return Reached(
            state=[{name: backend.numpy(value) for name, value in values.items()}],
            held={name: backend.numpy(value) for name, value in held.items()},
            interrupted=chains.interrupted, failed=chains.failed,
        )  # fmt: skip

    @staticmethod
    def _trainer(task: Task, guide: Guide, held: Mapping[str, Array]) -> Trainer:
        settings, backend = task.settings, task.backend
        model = backend.condition(functools.partial(task.model, backend), held)
        objective = functools.partial(negative_elbo, backend, model, guide, data_size=len(task.data[0]))
        rule = Friction(settings.num_warmup, settings.temperature, settings.friction)
        seeds = [task.seed + chain for chain in range(settings.num_chains)]
        return backend.trainer(
            objective, {}, task.data, seeds, optimizer=rule, clip_norm=None, num_particles=1, split_batch=False
        )


class _Chains:
    """The chains on their way.

    Attributes:
        interrupted: The user stopped them from the keyboard.
        failed: (number of the step, sites) of a step that was not finite, or None.
    """

    def __init__(self, task: Task, guide: Guide, trainer: Trainer) -> None:
        self._task, self._guide, self._trainer = task, guide, trainer
        settings = task.settings
        rows, size = len(task.data[0]), settings.batch_size
        self._orders = [Batches(rows, size, task.seed + chain) for chain in range(settings.num_chains)]
        self._state = trainer.start([{f"{n}:loc": start[n] for n in guide.sites} for start in task.starts])
        self._step = 0
        self.interrupted = False
        self.failed: tuple[int, list[str]] | None = None

    def draw(self, bar: Progress) -> dict[str, np.ndarray]:
        """Unconstrained draws by site, `(C, S, ...)`; fewer after an interruption or a step that was not finite."""
        settings = self._task.settings
        kept: list[list[dict[str, np.ndarray]]] = []
        try:
            while self._step < settings.num_warmup and self.failed is None:
                self._advance(min(settings.thin, settings.num_warmup - self._step), bar)
            while len(kept) < settings.num_draws and self.failed is None:
                if self._advance(settings.thin, bar):
                    kept.append(self._trainer.params(self._state))
        except KeyboardInterrupt:
            if not kept:
                raise
            self.interrupted = True
        kept = kept or [self._trainer.params(self._state)]
        return {n: np.stack([[chain[f"{n}:loc"] for chain in each] for each in kept], 1) for n in self._guide.sites}

    def _advance(self, count: int, bar: Progress) -> bool:
        """Take some steps; False if one of them was not finite, before which the chains then stand."""
        settings, numbers = self._task.settings, range(self._step, self._step + count)
        rows = np.stack([[order(number) for order in self._orders] for number in numbers])
        rates = np.full((count, settings.num_chains), settings.learning_rate)
        kl_weights = np.full(count, settings.temperature)
        state, found = self._trainer.advance(self._state, self._step, rows, rates, kl_weights)
        if not found.good.all():
            chain = int(np.argmin(found.good.all(1)))
            at = int(np.argmin(found.good[chain]))
            gradient = self._trainer.gradient(state, chain, numbers[at], rows[at, chain], settings.temperature)
            self.failed = (numbers[at], self._guide.culprits(gradient))
            return False
        self._state, self._step = state, self._step + count
        bar.update(count, loss=float(found.losses[:, -1].mean()))
        return True
