"""What a training is planned from: learning rates, weights of the KL term, the order of the data."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.typing import PerStep

SCHEDULES = ("one-cycle", "cosine", "constant")


def learning_rates(num_steps: int, peak: float, schedule: str | Callable[[float], float] = "one-cycle") -> PerStep:
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


def kl_weights(num_steps: int, temperature: float, warmup: float) -> PerStep:
    """Factor of the KL term at every step, `(num_steps,)`: it rises to the temperature over a share of the steps."""
    return temperature * np.minimum(1.0, (np.arange(num_steps) + 1.0) / max(1.0, warmup * num_steps))


class Batches:
    """Row numbers of each batch, `(batch_size,)`, by the number of its step.

    The data are gone through in a new random order each time; a batch may reach over into the next round, so all
    batches have one size and every row is used equally often. A batch of all rows has them as they stand, unless
    `mixed`: to be dealt out in parts, or because random numbers belong to the places in a batch.
    """

    def __init__(self, rows: int, batch_size: int, seed: int, *, mixed: bool = False) -> None:
        self._rows, self._size, self._seed = rows, batch_size, seed
        self._whole = np.arange(rows) if batch_size == rows and not mixed else None
        self._orders: dict[int, np.ndarray] = {}

    def __call__(self, step: int) -> np.ndarray:
        """The rows of one step."""
        if self._whole is not None:
            return self._whole
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
