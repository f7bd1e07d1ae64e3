"""What both backends' training needs that is no PPL's business: results, learning rates, the order of the data."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator

import numpy as np


@dataclasses.dataclass(frozen=True)
class Minimum:
    """Where a minimisation ended.

    Attributes:
        params: Parameters after the last good step.
        losses: Loss of every good step, `(steps,)`.
        failed: (number of the step, its gradients) if it met a loss or gradient that is not finite.
        interrupted: The user stopped it.
    """

    params: dict[str, np.ndarray]
    losses: np.ndarray
    failed: tuple[int, dict[str, np.ndarray]] | None = None
    interrupted: bool = False


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


def learning_rates(num_steps: int, peak: float) -> np.ndarray:
    """One cycle: a linear rise over 5 % of the steps, then a cosine down to 1 % of the peak; `(num_steps,)`."""
    rise = max(1, round(0.05 * num_steps))
    up = (np.arange(rise) + 1.0) / rise
    down = 0.01 + 0.99 * 0.5 * (1.0 + np.cos(math.pi * np.linspace(0.0, 1.0, num_steps - rise)))
    return peak * np.concatenate([up, down])[:num_steps]


def batches(rows: int, batch_size: int, seed: int) -> Iterator[np.ndarray]:
    """Row numbers of one batch after the other, forever, `(batch_size,)` each.

    The data are gone through in a new random order each time; a batch may reach over into the next round, so all
    batches have one size and every row is used equally often.
    """
    if batch_size == rows:
        while True:
            yield np.arange(rows)
    rng = np.random.default_rng(seed)
    order = rng.permutation(rows)
    while True:
        while len(order) < batch_size:
            order = np.concatenate([order, rng.permutation(rows)])
        yield order[:batch_size]
        order = order[batch_size:]
