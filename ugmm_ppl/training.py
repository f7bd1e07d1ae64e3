"""Training, written once for both backends: schedules, the order of the data, and the loop over blocks of steps.

A backend's `Trainer` takes the steps. Everything random in a step is a function of the restart's seed and the number of
the step, so a run that goes on from a checkpoint takes the same steps as one that was never stopped.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from ugmm_ppl import checks

if TYPE_CHECKING:
    from ugmm_ppl.checkpoint import Checkpoint
    from ugmm_ppl.progress import Progress

SCHEDULES = ("one-cycle", "cosine", "constant")
OPTIMIZERS = ("adam", "sgd")
"""Those that both backends have with the same settings; any of torch.optim or optax can be given as an object."""

EVALUATIONS = 50
"""Times that held-out data are scored in the course of a training."""

SECOND_TRY = 0.1
"""Factor of the learning rate after a step that was not finite."""


class Steps(NamedTuple):
    """What some steps of R restarts gave, `(R, n)` each, in nats of the whole data set.

    Attributes:
        losses: -log_likelihoods + kl_weight kls.
        log_likelihoods: Log likelihood of the batch, multiplied by N / B.
        kls: KL(q || p), or minus the log prior of a point.
        good: Whether loss and gradient were finite. After the first that is not, parameters stand still.
    """

    losses: np.ndarray
    log_likelihoods: np.ndarray
    kls: np.ndarray
    good: np.ndarray


class Trainer(Protocol):
    """Stochastic optimisation of R restarts side by side; `ugmm_ppl.{pyro,numpyro}.training` implement it.

    Its state is opaque: parameters and optimiser of every restart.
    """

    def start(self, initial: Sequence[dict[str, np.ndarray]]) -> Any:
        """The state at start parameters, one dict per restart."""

    def advance(
        self, state: Any, first: int, rows: np.ndarray, rates: np.ndarray, kl_weights: np.ndarray
    ) -> tuple[Any, Steps]:
        """Take n steps; the given state stays as it is.

        Args:
            state: Where to begin.
            first: Number of the first step.
            rows: Row numbers of every batch, `(n, R, B)`.
            rates: Learning rates `(n, R)`.
            kl_weights: Factors of the KL term `(n,)`.
        """

    def params(self, state: Any) -> list[dict[str, np.ndarray]]:
        """Parameters of every restart."""

    def gradient(
        self, state: Any, restart: int, step: int, rows: np.ndarray, kl_weight: float
    ) -> dict[str, np.ndarray]:
        """The gradient of one step of one restart."""

    def arrays(self, state: Any) -> dict[str, np.ndarray]:
        """The whole state as plain arrays."""

    def restore(self, arrays: dict[str, np.ndarray], initial: Sequence[dict[str, np.ndarray]]) -> Any:
        """The state from its `arrays`."""


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

    losses: np.ndarray
    log_likelihoods: np.ndarray
    kls: np.ndarray
    scores: np.ndarray
    score_steps: np.ndarray
    lowered: np.ndarray
    params: list[dict[str, np.ndarray]]
    step: int = 0
    failed: tuple[int, int, dict[str, np.ndarray]] | None = None
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
    losses: np.ndarray
    log_likelihoods: np.ndarray
    kls: np.ndarray
    scores: np.ndarray | None
    params: Callable[[], list[dict[str, np.ndarray]]]

    def watched(self) -> dict[str, float]:
        """What stands beside the progress bar: means over the restarts."""
        score = {} if self.scores is None else {"held_out": float(self.scores.mean())}
        return {"loss": float(self.losses.mean())} | score


@dataclasses.dataclass(frozen=True)
class Plan:
    """What the steps are: learning rates and KL weights `(T,)`, and the row numbers of a step of a restart."""

    rates: np.ndarray
    kl_weights: np.ndarray
    batch: Callable[[int, int], np.ndarray]
    patience: int | None = None


def train(
    trainer: Trainer,
    initial: Sequence[dict[str, np.ndarray]],
    plan: Plan,
    *,
    held_out: Callable[[list[dict[str, np.ndarray]]], np.ndarray] | None = None,
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
    arrays = {"step": np.array(run.step), "ended": np.array(ended)}
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
    return trainer.restore(own, initial)


def blocks(total: int) -> Iterator[int]:
    """The sizes of blocks that make up `total` steps, all equal but the last where it must differ."""
    size = block_size(total)
    yield from [size] * (total // size)
    if total % size:
        yield total % size


def block_size(total: int) -> int:
    """Steps of a block: some dozens of equal blocks make up `total` steps, where that is possible."""
    least = max(1, min(500, total // 100))
    return next((n for n in range(least, 3 * least + 1) if total % n == 0), least)


def learning_rates(num_steps: int, peak: float, schedule: str | Callable[[float], float] = "one-cycle") -> np.ndarray:
    """The learning rate of every step, `(num_steps,)`.

    "one-cycle" rises linearly over 5 % of the steps and falls by a cosine to 1 % of the peak, "cosine" only falls,
    "constant" stays. A function gives the factor of the peak at each fraction done, in [0, 1).

    Raises:
        ValueError: An unknown schedule, or a function that gives something else than a number >= 0.
    """
    if callable(schedule):
        factors = np.array([float(schedule(step / num_steps)) for step in range(num_steps)])
        checks.schedule_factors(factors)
        return peak * factors
    if checks.choice("schedule", schedule, SCHEDULES) == "constant":
        return np.full(num_steps, peak)
    rise = max(1, round(0.05 * num_steps)) if schedule == "one-cycle" else 0
    up = (np.arange(rise) + 1.0) / max(1, rise)
    down = 0.01 + 0.99 * 0.5 * (1.0 + np.cos(math.pi * np.linspace(0.0, 1.0, num_steps - rise)))
    return peak * np.concatenate([up, down])[:num_steps]


def kl_weights(num_steps: int, temperature: float, warmup: float) -> np.ndarray:
    """Factor of the KL term at every step, `(num_steps,)`: it rises to the temperature over a share of the steps."""
    return temperature * np.minimum(1.0, (np.arange(num_steps) + 1.0) / max(1.0, warmup * num_steps))


class Batches:
    """Row numbers of each batch, `(batch_size,)`, by the number of its step.

    The data are gone through in a new random order each time; a batch may reach over into the next round, so all
    batches have one size and every row is used equally often.
    """

    def __init__(self, rows: int, batch_size: int, seed: int) -> None:
        self._rows, self._size, self._seed = rows, batch_size, seed
        self._orders: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> np.ndarray:
        """The rows of one step."""
        first, last = step * self._size, (step + 1) * self._size - 1
        rounds = range(first // self._rows, last // self._rows + 1)
        order = np.concatenate([self._order(number) for number in rounds])
        start = first - rounds.start * self._rows
        return order[start : start + self._size]

    def _order(self, number: int) -> np.ndarray:
        if number not in self._orders:
            self._orders = {n: order for n, order in self._orders.items() if n == number - 1}
            self._orders[number] = np.random.default_rng([self._seed, number]).permutation(self._rows)
        return self._orders[number]


@dataclasses.dataclass(frozen=True)
class NutsDraws:
    """Draws of a sampler.

    Attributes:
        values: Values `(C, S, ...)` by site.
        stats: Statistics `(C, S)` by name.
        interrupted: The user stopped it; S is what every chain had reached.
    """

    values: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    interrupted: bool = False


def nuts_stats(diverging: np.ndarray, energy: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics by their names in ArviZ, `(C, S)` each; a tree of depth d has up to 2^d - 1 leapfrog steps."""
    steps = np.maximum(steps, 1).astype(int)
    depth = np.floor(np.log2(steps)).astype(int) + 1
    return {"diverging": diverging, "energy": energy.astype(np.float64), "n_steps": steps, "tree_depth": depth}
