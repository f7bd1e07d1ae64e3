"""What takes the steps of a training on a backend."""

from __future__ import annotations

import abc
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

import numpy as np

from ugmm_ppl.typing import Array, Numbers, Ops, PerStep, SiteValues


class Steps(NamedTuple):
    """What some steps of R restarts gave, `(R, n)` each, in nats of the whole data set.

    Attributes:
        losses: -log_likelihoods + kl_weight kls.
        log_likelihoods: Log likelihood of the batch, multiplied by N / B.
        kls: KL(q || p), or minus the log prior of a point.
        good: Whether loss and gradient were finite. After the first that is not, parameters stand still.
    """

    losses: PerStep
    log_likelihoods: PerStep
    kls: PerStep
    good: PerStep


class StepRule(abc.ABC):
    """What is done with a gradient, written once for both backends; each array of parameters by itself."""

    @abc.abstractmethod
    def begin(self, value: Array) -> dict[str, Array]:
        """The state beside an array of parameters, arrays by name."""

    @abc.abstractmethod
    def move(
        self, ops: Ops, value: Array, gradient: Array, state: Mapping[str, Array], noise: Array, rate: Array
    ) -> tuple[Array, dict[str, Array]]:
        """The array and its state after a step.

        Args:
            ops: The array library.
            value: Parameters.
            gradient: Of the loss.
            state: As `begin` and `move` give it.
            noise: Standard normal numbers of the shape of the value.
            rate: The learning rate, a scalar.
        """


class Trainer(Protocol):
    """Stochastic optimisation of R restarts side by side; `ugmm_ppl.{pyro,numpyro}.training` implement it.

    Its state is opaque: parameters and optimiser of every restart.
    """

    def start(self, initial: Sequence[SiteValues]) -> Any:
        """The state at start parameters, one dict per restart."""

    def advance(self, state: Any, first: int, rows: Numbers, rates: PerStep, kl_weights: PerStep) -> tuple[Any, Steps]:
        """Take n steps; the given state stays as it is.

        Args:
            state: Where to begin.
            first: Number of the first step.
            rows: Row numbers of every batch, `(n, R, B)`.
            rates: Learning rates `(n, R)`.
            kl_weights: Factors of the KL term `(n,)`.
        """

    def params(self, state: Any) -> list[SiteValues]:
        """Parameters of every restart."""

    def gradient(self, state: Any, restart: int, step: int, rows: Numbers, kl_weight: float) -> SiteValues:
        """The gradient of one step of one restart."""

    def arrays(self, state: Any) -> dict[str, np.ndarray]:
        """The whole state as plain arrays."""

    def restore(self, arrays: dict[str, np.ndarray], initial: Sequence[SiteValues]) -> Any:
        """The state from its `arrays`."""
