"""What a method of inference is: facts that others ask for, what it refuses, and the way from a task to a result."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, ClassVar, TypeVar

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.infer.checkpoint import Checkpoint
from ugmm_ppl.infer.loop import Run
from ugmm_ppl.infer.settings import Settings
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.typing import PerChain, PerDraw, RowArrays, SiteValues


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """What a method is given; everything random follows from the seed.

    Attributes:
        backend: The backend, in whose `settings` the method runs.
        model: The model.
        guide: The family over its sites, as it was asked for.
        data: Inputs `(N, K)`, targets `(N, ...)` and, if rows have them, weights `(N,)`, as the model sees them.
        starts: Unconstrained start values of every restart or chain.
        settings: The checked settings, of the class that the method says.
        seed: Seed.
        progress: Show a progress bar.
        scorer: Makes of a guide the function that scores its parameters on held-out data, or None.
        checkpoint: Where to store a training, or None.
    """

    backend: Backend
    model: BaseModel
    guide: Guide
    data: tuple[RowArrays, ...]
    starts: list[SiteValues]
    settings: Any
    seed: int
    progress: bool
    scorer: Callable[[Guide], Callable[[list[SiteValues]], PerChain] | None]
    checkpoint: Checkpoint | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reached:
    """What a method has reached.

    Attributes:
        state: What a fit keeps: parameters of the guide of every restart, or one dict of draws `(C, S, ...)`.
        held: Values of sites that are held beside the draws.
        stats: Statistics of the draws `(C, S)`.
        interrupted: The user stopped it from the keyboard.
        run: The histories of a training, or None.
        failed: (number of the step, sites) of a step that was not finite, or None.
    """

    state: list[SiteValues]
    held: SiteValues = dataclasses.field(default_factory=dict)
    stats: dict[str, PerDraw] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    run: Run | None = None
    failed: tuple[int, list[str]] | None = None


class Method(abc.ABC):
    """A method of inference; what distinguishes it is said as facts."""

    name: ClassVar[str]

    settings: ClassVar[type[Settings]]
    """What `fit` takes for it."""

    point: ClassVar[bool] = False
    """Whether a chain is one value of the parameters, without uncertainty."""

    markov: ClassVar[bool] = False
    """Whether its state is draws of Markov chains, and no parameters of a guide."""

    density: ClassVar[bool] = False
    """Whether its draws are independent ones from a guide, whose log density is known."""

    bound: ClassVar[bool] = False
    """Whether minus its loss is a bound of the log evidence."""

    loss: ClassVar[str] = "minus log joint"
    """What its loss is called."""

    continues: ClassVar[bool] = True
    """Whether more steps from its state are more of the same training."""

    family: ClassVar[str | None] = None
    """The one family of guides that it has, or None if the user chooses."""

    dtype: ClassVar[str] = "float32"
    """The dtype where none is asked for."""

    def chosen(self, families: Mapping[str, str]) -> Method:
        """The method that these families of a guide, by pattern, come down to."""
        del families
        return self

    def refuse(self, model: BaseModel, families: Mapping[str, str], bayesian: Any, *, weighted: bool) -> None:
        """Say what of this it cannot serve, before any step.

        Args:
            model: The model.
            families: Families of the guide by pattern.
            bayesian: What is to be inferred.
            weighted: Whether rows have weights.
        """
        del model, families, bayesian, weighted

    @abc.abstractmethod
    def run(self, task: Task) -> Reached:
        """Do it.

        Raises:
            CheckpointError: A checkpoint could not be written; its attribute `reached` is what was reached.
        """


METHODS: dict[str, Method] = {}
"""The methods by name; a module that defines one fills it in by `method`."""

M = TypeVar("M", bound="type[Method]")


def method(kind: M) -> M:
    """Register a method."""
    METHODS[kind.name] = kind()
    return kind


def by_name(name: str) -> Method:
    """The method of a name.

    Raises:
        ValueError: There is none of that name; the message has the nearest one.
    """
    return METHODS[checks.choice("method", name, METHODS)]
