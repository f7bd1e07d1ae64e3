"""What a likelihood is: facts about y, its density given the outputs of a model, and its predictions."""

from __future__ import annotations

import abc
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, Protocol, TypeVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.data.stored import Stored
from ugmm_ppl.nn.base import Role
from ugmm_ppl.typing import (
    Array,
    Ops,
    Outputs,
    PerChain,
    PerLevel,
    PerOutput,
    PerRow,
    Readout,
    RowDraws,
    RowMatrices,
    SiteValues,
    Values,
)

LIKELIHOODS: dict[str, type[Likelihood]] = {}
"""Likelihoods by the name under which files hold them."""

L = TypeVar("L", bound="type[Likelihood]")


def likelihood(kind: L) -> L:
    """Register a class of likelihoods, so that fits with it can be loaded."""
    LIKELIHOODS[kind.__name__] = kind
    return kind


class Extra(NamedTuple):
    """An extra column that rows bring along besides x, an argument of `fit` and of whatever takes rows.

    Attributes:
        name: Its name.
        neutral: What stands for it where it is not given, or None if it must be.
        check: Returns `(values, rows)` as an array `(B,)`, or says what is wrong.
        said: What it is, for the documentation of `fit`.
        of_target: Whether it is in the units of y, and standardised as y is.
        with_target: Whether it says something of an observed y, and is not asked for where there is none.
    """

    name: str
    neutral: float | None
    check: Callable[[Any, int], PerRow]
    said: str
    of_target: bool = False
    with_target: bool = False


EXTRAS: dict[str, Extra] = {}
"""All extra columns by name."""


def extra(
    name: str,
    neutral: float | None,
    check: Callable[[Any, int], PerRow],
    said: str,
    *,
    of_target: bool = False,
    with_target: bool = False,
) -> Extra:
    """Register an extra column, so that `fit` knows it; arguments are those of `Extra`."""
    return EXTRAS.setdefault(name, Extra(name, neutral, check, said, of_target, with_target))


class Prediction(Protocol):
    """What a fit says of y at B rows, in the units of the data."""

    @property
    def draws(self) -> RowDraws:
        """What every posterior draw says of y, `(C, S, B)` or `(C, S, B, classes)`."""

    def log_density(self, y: PerRow) -> PerRow:
        """log p(y | x, data) in nats, `(B,)` to `(B,)`."""

    def metrics(self, y: PerRow, row_weights: PerRow | None = None) -> dict[str, float]:
        """Other metrics than the log density, by name, of rows that count `row_weights` `(B,)` times."""

    def profile(self, row: int, y: float) -> tuple[PerRow, RowDraws]:
        """Values around what is probable in a row and around an observed y, and their densities or probabilities."""

    def columns(self, class_names: list[str] | None) -> dict[str, PerRow]:
        """The prediction as columns of a table, `(B,)` each."""


class OrderedPrediction(abc.ABC):
    """What predictions of numbers share: quantiles, and the columns of a table."""

    @property
    @abc.abstractmethod
    def mean(self) -> PerRow:
        """Posterior predictive mean `(B,)`."""

    @property
    @abc.abstractmethod
    def std(self) -> PerRow:
        """Posterior predictive standard deviation `(B,)`, of noise and parameters together."""

    def quantile(self, q: float | PerLevel) -> PerRow:
        """Quantiles of the predictive distribution, of counts the smallest y with p(Y <= y) >= q.

        Args:
            q: A probability in (0, 1), or an array of them `(Q,)`.

        Returns:
            `(B,)` for a number, `(Q, B)` for an array.

        Raises:
            ValueError: A probability outside (0, 1).
        """
        levels = [checks.number("q", level, 0.0, 1.0) for level in np.atleast_1d(np.asarray(q, dtype=np.float64))]
        found = self._quantiles(levels)
        return found[0] if np.ndim(q) == 0 else found

    def interval(self, level: float = 0.9) -> tuple[PerRow, PerRow]:
        """Lower and upper end of the central interval of a probability, `(B,)` each."""
        tail = 0.5 * (1.0 - checks.number("level", level, 0.0, 1.0))
        low, high = self.quantile(np.array([tail, 1.0 - tail]))
        return low, high

    @abc.abstractmethod
    def _quantiles(self, levels: list[float]) -> np.ndarray:
        """`(Q, B)`."""

    def columns(self, class_names: list[str] | None) -> dict[str, PerRow]:
        """Mean, standard deviation, and the quantiles 5, 50 and 95 %."""
        del class_names
        low, median, high = self.quantile(np.array([0.05, 0.5, 0.95]))
        return {"mean": self.mean, "std": self.std, "q05": low, "q50": median, "q95": high}


class Likelihood(Stored, abc.ABC):
    """p(y | outputs), outputs `(..., O)` of a model; a frozen dataclass whose fields are plain data.

    Letters: B rows; y and samples are as the model sees them, standardised if `standardizes`.
    """

    information: Callable[[Outputs], RowMatrices] | None = None
    """Fisher information of y about outputs `(B, O)`, E[s s^T] with s = d log p(y | outputs) / d outputs, `(B, O, O)`.

    In NumPy; None if there is none, which method="laplace" needs.
    """

    @property
    def standardizes(self) -> bool:
        """Whether `fit` standardises y."""
        return False

    @property
    def discrete(self) -> bool:
        """Whether y are whole numbers, and the density is a probability."""
        return False

    @property
    def picture(self) -> str:
        """What a report checks y by: "histogram", "classes", "rootogram", "thresholds" or "survival"."""
        return "histogram"

    @property
    def takes_log_densities(self) -> bool:
        """Whether outputs may be activations of neurons, log densities as those of a ugmm readout."""
        return False

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Number of outputs O."""

    @property
    def width(self) -> int:
        """Number of complete outputs: those of the network and what `complete` adds."""
        return self.num_outputs

    @property
    def outcomes(self) -> tuple[float, ...] | None:
        """All values that y may have, if they are finitely many numbers."""
        return None

    @property
    def extras(self) -> tuple[Extra, ...]:
        """What rows bring along besides x."""
        return ()

    def roles(self) -> dict[str, Role]:
        """Parameters that are no outputs of the network, the same for all rows, by role."""
        return {}

    def shared_start(self) -> SiteValues:
        """Start values of `roles`."""
        return {}

    def complete(self, ops: Ops, outputs: Array, values: Values, extras: Array) -> Array:
        """Complete outputs `(..., B, width)`, which all else here takes.

        Args:
            ops: The array library.
            outputs: Those of the network, `(..., B, O)`.
            values: Parameters of `roles`, `(..., size)`.
            extras: As many of `extras` as rows bring along, `(B, E)`.
        """
        del ops, values, extras
        return outputs

    def units(self, y: PerRow, weights: PerRow | None) -> Standardizer | None:
        """What standardises y if `standardizes`, of rows that count `weights` times."""
        return Standardizer.of(y, weights=weights)

    @property
    def num_classes(self) -> int | None:
        """Number of classes, if y is a class code."""
        return None

    @property
    def axis(self) -> str:
        """Name of the axis of the outputs, for ArviZ."""
        return "output" if self.num_classes is None else "class"

    @abc.abstractmethod
    def names(self, class_names: list[str] | None) -> list[str]:
        """Names of the O outputs."""

    @abc.abstractmethod
    def check(self, y: Any, rows: int) -> PerRow:
        """Return y as an array `(B,)`, or say what is wrong with it."""

    @abc.abstractmethod
    def distribution(self, backend: Backend, outputs: Array) -> Any:
        """The PPL's distribution of y, of batch shape `(..., B)`, given outputs `(..., B, O)`."""

    @abc.abstractmethod
    def log_prob(self, outputs: Outputs, y: PerRow) -> PerRow:
        """log p(y | outputs) in nats in NumPy, `(..., B, O)` and `(B,)` to `(..., B)`."""

    @abc.abstractmethod
    def defined(self, outputs: Outputs) -> PerRow:
        """Whether outputs `(..., O)` say anything of y: `(...)`; they may have overflowed."""

    @abc.abstractmethod
    def sample(self, outputs: Outputs, rng: np.random.Generator) -> PerRow:
        """One y per output row in NumPy, `(..., B, O)` to `(..., B)`."""

    @abc.abstractmethod
    def prediction(
        self, outputs: Outputs, units: Standardizer | None, backend: Backend, weights: PerChain | None = None
    ) -> Any:
        """The `Prediction` of outputs `(C, S, B, O)` and weights `(C,)` of chains, in the units of the data."""

    def start(self, weight: Readout, bias: PerOutput) -> tuple[Readout, PerOutput]:
        """Start values of a linear readout, `(O, J)` and `(O,)`, adapted to the meaning of the outputs."""
        return weight, bias

    def per_unit(self, extras: Mapping[str, PerRow]) -> PerRow | float:
        """1 for rows whose density is per unit of y, 0 for those that have a probability, by their extra columns."""
        del extras
        return 1.0

    def check_extras(self, y: PerRow, extras: Mapping[str, PerRow]) -> None:
        """Refuse y and extra columns that do not belong together."""
        del y, extras
