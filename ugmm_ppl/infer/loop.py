"""The loop over blocks of steps of a training, written once for both backends.

A backend's `Trainer` takes the steps. Everything random in a step is a function of the restart's seed and the number of
the step, so a run that goes on from a checkpoint takes the same steps as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.progress import block_size
from ugmm_ppl.backends.trainer import Steps, Trainer
from ugmm_ppl.typing import Numbers, PerChain, PerStep, SiteValues

if TYPE_CHECKING:
    from ugmm_ppl.backends.progress import Progress
    from ugmm_ppl.infer.checkpoint import Checkpoint

OPTIMIZERS = ("adam", "sgd")
"""Those that both backends have with the same settings; any of torch.optim or optax can be given as an object."""

EVALUATIONS = 50
"""Times that held-out data are scored in the course of a training."""

SECOND_TRY = 0.1
"""Factor of the learning rate after a step that was not finite."""


@dataclasses.dataclass
class Run:
    """A training on its way, or at its end; R restarts, T steps, E evaluations.

    Attributes:
        losses, log_likelihoods, kls: As in `Steps`, `(R, T)`, NaN where no step was taken.
        scores: Held-out log predictive density per row at each evaluation, `(R, E)`, in nats.
        score_steps: Steps taken at each evaluation, `(E,)`.
        step: Steps taken.
        params: Parameters of every restart; with held-out data those of its best evaluation.
        lowered: Restarts whose learning rate was lowered after a step that was not finite, `(R,)`.
        failed: (restart, number of the step, gradient) of a step that was not finite a second time.
        interrupted: The user stopped it from the keyboard.
    """

    losses: PerStep
    log_likelihoods: PerStep
    kls: PerStep
    scores: PerStep
    score_steps: Numbers
    lowered: PerChain
    params: list[SiteValues]
    step: int = 0
    failed: tuple[int, int, SiteValues] | None = None
    interrupted: bool = False

    @classmethod
    def of(cls, restarts: int, num_steps: int, params: list[dict[str, np.ndarray]]) -> Run:
        """Before its first step."""
        one, two, three = (np.full((restarts, num_steps), np.nan) for _ in range(3))
        lowered = np.zeros(restarts, dtype=bool)
        return cls(one, two, three, np.empty((restarts, 0)), np.empty(0, int), lowered, params)

    def record(self, found: Steps, counts: np.ndarray) -> None:
        """Keep the first `counts` `(R,)` steps of a block."""
        for restart, count in enumerate(counts):
            block = slice(self.step, self.step + count)
            for name in ("losses", "log_likelihoods", "kls"):
                getattr(self, name)[restart, block] = getattr(found, name)[restart, :count]

    def score(self, scores: np.ndarray, params: list[dict[str, np.ndarray]]) -> None:
        """Keep the parameters of every restart that is better than ever before."""
        for restart, score in enumerate(scores):
            if not np.any(self.scores[restart] >= score):
                self.params[restart] = params[restart]
        self.scores = np.concatenate([self.scores, scores[:, None]], 1)
        self.score_steps = np.append(self.score_steps, self.step)

    def stale(self) -> int:
        """Evaluations since any restart was last at its best."""
        return min(len(row) - 1 - int(np.argmax(row)) for row in self.scores)


class Moment(NamedTuple):
    """What callbacks are told after every block of steps, one entry per restart.

    Attributes:
        step: Steps taken.
        num_steps: Steps in all.
        losses, log_likelihoods, kls: Means over the block, `(R,)`.
        scores: The last held-out score, `(R,)`, or None.
        params: Gives the parameters of every restart.
    """

    step: int
    num_steps: int
    losses: PerStep
    log_likelihoods: PerStep
    kls: PerStep
    scores: PerStep | None
    params: Callable[[], list[SiteValues]]

    def watched(self) -> dict[str, float]:
        """What stands beside the progress bar: means over the restarts."""
        score = {} if self.scores is None else {"held_out": float(self.scores.mean())}
        return {"loss": float(self.losses.mean())} | score


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the steps are: learning rates and KL weights `(T,)`, and the row numbers of a step of a restart."""

    rates: PerStep
    kl_weights: PerStep
    batch: Callable[[int, int], Numbers]
    patience: int | None = None


def train(
    trainer: Trainer,
    initial: Sequence[SiteValues],
    plan: Plan,
    *,
    held_out: Callable[[list[SiteValues]], PerChain] | None = None,
    callbacks: Sequence[Callable[[Moment], Any]] = (),
    checkpoint: Checkpoint | None = None,
    progress: Progress,
) -> Run:
    """Take all steps of a plan, or those that a checkpoint has not.

    A block with a step that is not finite is taken again with a tenth of the learning rate for that restart, which it
    keeps; the second time the training ends.

    Args:
        trainer: Takes the steps.
        initial: Start parameters of every restart.
        plan: The steps.
        held_out: Scores of parameters on held-out data `(R,)`; the best parameters are kept.
        callbacks: Called with a `Moment` after every block; one that returns True ends the training.
        checkpoint: Where to store what is needed to go on, and to find it.
        progress: Is told the loss and the score.
    """
    total = len(plan.rates)
    run, state = Run.of(len(initial), total, list(initial)), trainer.start(initial)
    stored = None if checkpoint is None else checkpoint.read()
    if stored is not None:
        state = _unpack(stored, run, trainer, initial)
        progress.update(run.step)
    size = block_size(total)
    pause = size * math.ceil(total / size / EVALUATIONS)  # steps between evaluations
    try:
        while run.step < total and run.failed is None:
            block = slice(run.step, min(run.step + size, total))
            state, found = _advance(trainer, state, plan, run, block)
            if found is None:
                continue
            ended = run.step == total
            if held_out is not None and (run.step % pause == 0 or ended):
                params = trainer.params(state)
                run.score(held_out(params), params)
                ended |= plan.patience is not None and run.stale() >= plan.patience
            moment = _moment(run, found, total, functools.partial(trainer.params, state))
            progress.update(block.stop - block.start, **moment.watched())
            for callback in callbacks:
                ended |= callback(moment) is True
            if checkpoint is not None and (ended or checkpoint.is_due(block)):
                _store(checkpoint, run, state, trainer, ended=ended)
            if ended:
                break
    except KeyboardInterrupt:
        run.interrupted = True
        if checkpoint is not None:
            _store(checkpoint, run, state, trainer, ended=False)
    if run.scores.size == 0:
        run.params = trainer.params(state)
    return run


def _advance(trainer: Trainer, state: Any, plan: Plan, run: Run, block: slice) -> tuple[Any, Steps | None]:
    """Take a block of steps, or find that it must be taken again, or that the run has failed: then None."""
    numbers = range(block.start, block.stop)
    rows = np.stack([[plan.batch(restart, step) for restart in range(len(run.losses))] for step in numbers])
    rates = plan.rates[block, None] * np.where(run.lowered, SECOND_TRY, 1.0)
    new, found = trainer.advance(state, block.start, rows, rates, plan.kl_weights[block])
    bad = ~found.good.all(1)
    counts = np.where(bad, np.argmin(found.good, 1), len(numbers))
    if not bad.any():
        run.record(found, counts)
        run.step = block.stop
        return new, found
    hopeless = bad & run.lowered
    if not hopeless.any():
        run.lowered = run.lowered | bad
        return state, None
    run.record(found, counts)
    restart = int(np.argmax(hopeless))
    at = int(counts[restart])
    gradient = trainer.gradient(new, restart, numbers[at], rows[at, restart], float(plan.kl_weights[numbers[at]]))
    run.failed = (restart, numbers[at], gradient)
    return new, None


def _moment(run: Run, found: Steps, total: int, params: Callable[[], Any]) -> Moment:
    losses, log_likelihoods, kls = (a.mean(1) for a in found[:3])
    score = run.scores[:, -1] if run.scores.size else None
    return Moment(run.step, total, losses, log_likelihoods, kls, score, params)


HISTORIES = ("losses", "log_likelihoods", "kls", "scores", "score_steps", "lowered")


def _store(checkpoint: Checkpoint, run: Run, state: Any, trainer: Trainer, *, ended: bool) -> None:
    """Write all that a training needs to go on."""
    if ended and run.scores.size == 0:
        run.params = trainer.params(state)
    arrays = {"step": np.array(run.step), "ended": np.array(ended)}
    arrays |= {"final": np.array(True)} if ended else {}  # the parameters "best" are what the training gives
    arrays |= {f"run/{name}": getattr(run, name) for name in HISTORIES}
    arrays |= {f"state/{name}": value for name, value in trainer.arrays(state).items()}
    arrays |= {f"best/{r}/{name}": a for r, params in enumerate(run.params) for name, a in params.items()}
    try:
        checkpoint.write(arrays)
    except checks.CheckpointError as error:
        if run.scores.size == 0:
            run.params = trainer.params(state)
        error.reached = run
        raise


def _unpack(stored: dict[str, np.ndarray], run: Run, trainer: Trainer, initial: Sequence[dict[str, np.ndarray]]) -> Any:
    """Fill the run from a checkpoint, and return the state; a training that had ended has no steps left."""
    for name in HISTORIES:
        setattr(run, name, stored[f"run/{name}"])
    run.params = [{name: stored[f"best/{r}/{name}"] for name in params} for r, params in enumerate(initial)]
    run.step = run.losses.shape[1] if stored["ended"] else int(stored["step"])
    own = {name.removeprefix("state/"): value for name, value in stored.items() if name.startswith("state/")}
    return trainer.restore(own, initial) if own else trainer.start(run.params)
