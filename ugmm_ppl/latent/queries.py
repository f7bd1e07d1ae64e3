"""What the queries of `LatentFit` share: their settings, draws of the parameters, averages, and guides of new rows."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.infer.loop import Plan, train
from ugmm_ppl.infer.schedule import kl_weights, learning_rates
from ugmm_ppl.latent.encoder import LocalGuide
from ugmm_ppl.latent.model import LatentNetwork
from ugmm_ppl.neuron import safe_log
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, PerRow, Rows

METHODS = ("importance", "annealed")

LOCAL_STEPS = 500
LOCAL_RATE = 0.05
"""Of the training of a Normal for every row, where no encoder knows the row."""


class Sampling(NamedTuple):
    """How layers are drawn; described at `LatentFit.log_evidence`."""

    method: str = "importance"
    num_samples: int = 1000
    num_temperatures: int = 100
    num_draws: int | None = None
    seed: int | None = None

    def checked(self) -> Sampling:
        """The same as plain values; unknown methods and numbers that are no counts are refused."""
        return self._replace(
            method=checks.choice("method", self.method, METHODS),
            num_samples=checks.count("num_samples", self.num_samples),
            num_temperatures=checks.count("num_temperatures", self.num_temperatures),
            seed=None if self.seed is None else checks.count("seed", self.seed, least=0),
        )


class Draws(NamedTuple):
    """Draws of the parameters of all chains, one after the other, and what each counts for."""

    values: dict[str, np.ndarray]
    weights: np.ndarray
    per_chain: int

    @property
    def log_weights(self) -> np.ndarray:
        """Their logarithms."""
        return safe_log(NUMPY, self.weights)

    def at(self, draw: int) -> dict[str, np.ndarray]:
        """The values of one."""
        return {name: value[draw] for name, value in self.values.items()}

    def mean(self, first: int) -> dict[str, np.ndarray]:
        """The mean over a chain, given by its first draw."""
        return {name: value[first : first + self.per_chain].mean(0) for name, value in self.values.items()}

    def share(self, num_samples: int) -> int:
        """Samples for each."""
        return max(1, math.ceil(num_samples / len(self.weights)))


class Averages(NamedTuple):
    """Posterior moments of all layers under D draws of the parameters.

    Attributes:
        weights: What each draw counts for, by row, `(D, B)`.
        means, squares: First and second moments of z and all hidden layers, `(D, B, d)`.
        values: The parameters.
    """

    weights: np.ndarray
    means: np.ndarray
    squares: np.ndarray
    values: list[dict[str, np.ndarray]]

    def over(self, a: np.ndarray) -> np.ndarray:
        """The average over draws of `(D, B, ...)`."""
        return np.einsum("db,db...->b...", self.weights, a)


def local_fit(
    backend: Backend,
    model: LatentNetwork,
    guide: LocalGuide,
    values: Mapping[str, np.ndarray],
    x: Rows,
    seed: int,
) -> Any:
    """Train a Normal for every value of every row, with the parameters of the model held."""
    held = {name: backend.array(value) for name, value in values.items()}

    def objective(params: Any, noise: Any, batch: Any, kl_weight: Any) -> tuple[Array, tuple[Array, Array]]:
        del noise, kl_weight
        x, y = batch
        bound = model.bound(backend, held, x, y, guide, params).sum()
        return -bound, (bound, 0.0 * bound)

    data = (x, with_rows(np.full(len(x), -1), np.arange(len(x))))
    trainer = backend.trainer(
        objective, {}, data, [seed], optimizer="adam", clip_norm=None, num_particles=1, split_batch=False
    )
    rates = learning_rates(LOCAL_STEPS, LOCAL_RATE)
    plan = Plan(rates, kl_weights(LOCAL_STEPS, 1.0, 0.0), lambda *_: np.arange(len(x)))
    with Progress(LOCAL_STEPS, "rows", show=False) as bar:
        return train(trainer, [guide.initial(len(x), seed)], plan, progress=bar).params[0]


def with_rows(y: PerRow, numbers: np.ndarray) -> np.ndarray:
    """Class codes and numbers of rows, `(B, 2)`."""
    return np.stack([y, numbers], -1)
