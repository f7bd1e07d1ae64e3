"""Families: likelihoods whose parameters are outputs of the network through a link, or sites shared by all rows."""

from __future__ import annotations

import abc
import dataclasses
import math
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions.described import Distribution, dist
from ugmm_ppl.likelihoods.information import information
from ugmm_ppl.likelihoods.law import Law, Lawful
from ugmm_ppl.likelihoods.outcome import Outcome
from ugmm_ppl.nn.base import Role
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import (
    Array,
    Ops,
    Outputs,
    PerChain,
    PerOutput,
    PerRow,
    Readout,
    RowMatrices,
    Shape,
    SiteValues,
    Values,
)

LARGEST_LOG = 88.0
"""Its exponential is a float32."""


class Parameter(NamedTuple):
    """A parameter of a family.

    Attributes:
        name: What it is called.
        link: "identity", or "log": the output is its logarithm.
        start: The output at which a training starts.
        prior: Prior of that output where all rows share it.
        least: The smallest value of a parameter with the log link.
        size: Entries of a vector; None for a number.
    """

    name: str
    link: str = "identity"
    start: float | tuple[float, ...] = 0.0
    prior: Distribution = dist.Normal(0.0, 1.0)
    least: float = 0.0
    size: int | None = None

    @property
    def places(self) -> int:
        """How many outputs it takes."""
        return 1 if self.size is None else self.size

    @property
    def output(self) -> str:
        """What its output is called."""
        return self.name if self.link == "identity" else f"log_{self.name}"


@dataclasses.dataclass(frozen=True)
class Family(Lawful):
    """y ~ a distribution whose parameters are functions of one output each.

    Complete outputs `(..., B, P)` are those of the network, then the shared parameters, then the extra columns that
    rows bring along, such as an exposure.

    Args:
        shared: Names of parameters that are no outputs of the network but sites, the same for all rows, named
            `likelihood.log_scale` and so on; their priors are entries of `Prior(likelihood=...)`.

    Raises:
        ValueError: A parameter that the family does not have, or none left for the network.
    """

    shared: tuple[str, ...] = dataclasses.field(default=(), kw_only=True)

    def __post_init__(self) -> None:
        """Check the arguments."""
        names = [parameter.name for parameter in self.parameters]
        checks.settle(self, shared=checks.shared_parameters(type(self).__name__, self.shared, names))

    @property
    @abc.abstractmethod
    def parameters(self) -> tuple[Parameter, ...]:
        """Its parameters, in the order of the outputs."""

    @abc.abstractmethod
    def ppl(self, backend: Backend, of: Values) -> Any:
        """The PPL's distribution of y for parameters `(..., B)` by name."""

    @abc.abstractmethod
    def law(self, of: Values) -> Law:
        """The distribution of y in NumPy for parameters `(..., B)` by name."""

    def density(self, backend: Backend, of: Values, y: Array) -> Array:
        """log p(y), for families that no PPL has; `ppl` is then a `FamilyDistribution`."""
        return self.ppl(backend, of).log_prob(y)

    @property
    def has_zeros(self) -> bool:
        """Whether y is a count, of which 0 is one."""
        return type(self).log_zero is not Family.log_zero

    def log_zero(self, ops: Ops, of: Values) -> Array:
        """log p(0), accurate near 0."""
        del ops, of
        return -math.inf

    @property
    def has_tails(self) -> bool:
        """Whether there are `log_tails`."""
        return type(self).log_tails is not Family.log_tails

    def log_tails(self, ops: Ops, of: Values, y: Array) -> tuple[Array, Array]:
        """log p(Y <= y) and log p(Y > y) for finite y, written with `ops`; not of all families."""
        raise checks.no_tails(type(self).__name__)

    @cached_property
    def _placed(self) -> tuple[Parameter, ...]:
        """The parameters by their place in the complete outputs: first those of the network, then the shared ones."""
        return tuple(sorted(self.parameters, key=lambda parameter: parameter.name in self.shared))

    @cached_property
    def _logs(self) -> np.ndarray:
        """Which of the complete outputs are logarithms."""
        logs = [each.link == "log" for each in self._placed for _ in range(each.places)]
        return np.array([*logs, *(False for _ in self.extras)])

    @property
    def _of_network(self) -> list[Parameter]:
        return [each for each in self._placed if each.name not in self.shared]

    @property
    def _of_all_rows(self) -> list[Parameter]:
        return [each for each in self._placed if each.name in self.shared]

    @property
    def num_outputs(self) -> int:
        """Those of the parameters that are not shared."""
        return sum(each.places for each in self._of_network)

    @property
    def width(self) -> int:
        """Those of all parameters, and one for each column."""
        return sum(each.places for each in self._placed) + len(self.extras)

    def names(self, class_names: list[str] | None) -> list[str]:
        """Those of the parameters, with log_ before what has the log link."""
        del class_names
        return [
            each.output if each.size is None else f"{each.output}_{i}"
            for each in self._of_network
            for i in range(each.places)
        ]

    def roles(self) -> dict[str, Role]:
        """The shared parameters, on the scale of the outputs."""
        return {each.output: Role((each.places,), (each.output,), each.prior) for each in self._of_all_rows}

    def shared_start(self) -> SiteValues:
        """Those of the parameters."""
        return {each.output: np.broadcast_to(each.start, each.places).astype(float) for each in self._of_all_rows}

    def complete(self, ops: Ops, outputs: Array, values: Values, extras: Array) -> Array:
        """The shared parameters and the extras after the outputs of the network."""
        if not self.shared and not self.extras:
            return outputs
        zero = 0.0 * outputs[..., :1]
        shared = [values[role] + zero for role in self.roles()]
        given = extras.shape[-1]
        missing = [zero + checks.neutral(type(self).__name__, each) for each in self.extras[given:]]
        return ops.concat([outputs, *shared, *([extras] if given else []), *missing])

    def of(self, ops: Ops, outputs: Array) -> dict[str, Array]:
        """Parameters and extras by name, `(..., B)` or, of vectors, `(..., B, size)`, from complete outputs."""
        found, at = {}, 0
        for each in self._placed:
            value = outputs[..., at] if each.size is None else outputs[..., at : at + each.size]
            found[each.name] = value if each.link == "identity" else _positive(ops, value, each.least)
            at += each.places
        return found | {each.name: outputs[..., at + i] for i, each in enumerate(self.extras)}

    def distribution(self, backend: Backend, outputs: Array) -> Any:
        """`ppl` of the parameters."""
        return self.ppl(backend, self.of(backend.ops, outputs))

    def given(self, outputs: Outputs) -> Law:
        """`law` of the parameters."""
        return self.law(self.of(NUMPY, outputs.astype(np.float64)))

    def log_prob(self, outputs: Outputs, y: PerRow) -> PerRow:
        """That of the law."""
        return self.given(outputs).log_prob(y)

    def defined(self, outputs: Outputs) -> PerRow:
        """Finite ones, with parameters that are finite."""
        own = outputs[..., : self.width - len(self.extras)]  # extra columns may be infinite
        return np.all(np.isfinite(own), axis=-1) & ~np.any(outputs[..., self._logs] >= LARGEST_LOG, axis=-1)

    def information(self, outputs: Outputs) -> RowMatrices:
        """By sums over outcomes or quadrature, with scores by differences (`likelihoods.information`)."""
        return information(self, outputs)

    def sample(self, outputs: Outputs, rng: np.random.Generator) -> PerRow:
        """From the law; outputs that overflow, as draws from a wide prior may, count as the largest that do not."""
        return self.given(np.minimum(outputs, np.where(self._logs, LARGEST_LOG, np.inf))).sample(rng)

    def prediction(
        self, outputs: Outputs, units: Standardizer | None, backend: Backend, weights: PerChain | None = None
    ) -> Any:
        """The mixture of the laws of all draws."""
        del backend
        return Outcome(self, outputs, units, weights)

    def start(self, weight: Readout, bias: PerOutput) -> tuple[Readout, PerOutput]:
        """Outputs near those at which the parameters start."""
        return 0.1 * weight, bias + np.concatenate([np.broadcast_to(e.start, e.places) for e in self._of_network])


def _positive(ops: Ops, output: Array, least: float) -> Array:
    value = ops.exp(output)
    return ops.at_least(value, least) if least else value


def batch_shape(family: Family, of: Values) -> Shape:
    """Shape of the rows that parameters by name belong to."""
    vectors = {each.name for each in family.parameters if each.size is not None}
    return np.broadcast_shapes(*(v.shape[: v.ndim - (name in vectors)] for name, v in of.items()))
