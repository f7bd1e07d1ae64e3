"""The settings of the methods: what `fit` takes, checks and stores, each of them said once."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.guides.base import FAMILIES
from ugmm_ppl.infer.checkpoint import digest
from ugmm_ppl.infer.loop import OPTIMIZERS, Moment

STARTS = ("data", "map")


def setting(default: Any, check: Callable[[str, Any], Any] | None = None, *, identifies: bool = True) -> Any:
    """A field with its default, and `check(name, value)`, which returns the value or says what is wrong with it.

    One that `identifies` makes the result what it is: it is stored, and a checkpoint is not gone on from with another.
    """
    return dataclasses.field(default=default, metadata={"check": check, "identifies": identifies})


def optional(check: Callable[[str, Any], Any]) -> Callable[[str, Any], Any]:
    """A check that lets None through."""
    return lambda name, got: None if got is None else check(name, got)


POSITIVE = functools.partial(checks.number, low=0.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What every method has.

    Args:
        start: Where every run or chain begins: "data" (values drawn to fit the inputs), "map" (a MAP from there; what
            of the settings "map" has is for it too), or a `Fit` of the same model by "svi" or "map", whose restarts are
            gone through.
    """

    start: Any = setting("data")

    runs: ClassVar[str]
    """The setting that says how many runs or chains there are."""

    length: ClassVar[str]
    """The setting that says how long one is."""

    def __post_init__(self) -> None:
        """Check each by itself."""
        for field in dataclasses.fields(self):
            if field.metadata["check"] is not None:
                checks.settle(self, **{field.name: field.metadata["check"](field.name, getattr(self, field.name))})

    @classmethod
    def names(cls) -> list[str]:
        """Names of the settings."""
        return [field.name for field in dataclasses.fields(cls)]

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Self:
        """Those of the given settings that there are."""
        return cls(**{name: given[name] for name in cls.names() if name in given})

    def check(self, backend: str) -> None:
        """Check what depends on other settings, or on the backend."""
        if not hasattr(self.start, "points"):  # of a fit
            checks.choice("start", self.start, STARTS)

    def for_rows(self, rows: int) -> Self:
        """The same for that many rows of data."""
        del rows
        return self

    @property
    def num_runs(self) -> int:
        """Number of runs or chains."""
        return cast(int, getattr(self, self.runs))

    @property
    def families(self) -> dict[str, str]:
        """Families of the guide by pattern, where the user chooses."""
        return {}

    def described(self) -> dict[str, Any]:
        """What makes a result what it is, as JSON values: objects by name, data and fits by a digest."""
        fields = [field for field in dataclasses.fields(self) if field.metadata["identifies"]]
        return {field.name: _described(getattr(self, field.name)) for field in fields}


def _described(value: Any) -> Any:
    if hasattr(value, "state"):  # a fit
        return digest(*value.state[0].values())
    if value is None or isinstance(value, bool | int | float | str | Mapping):
        return value
    if isinstance(value, tuple | list) and all(isinstance(part, np.ndarray) for part in value):
        return digest(*value)
    return getattr(value, "__name__", type(value).__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stepwise(Settings):
    """Those of methods that take steps, as "em".

    Args:
        num_steps: Steps.
        batch_size: Rows of a mini-batch; None for all.
        learning_rate: Peak of the learning rate; for "em" the fraction of a step that is taken, for "sghmc" the size of
            all steps. Default 0.01, for "sghmc" 0.05.
        schedule: "one-cycle" (a rise over 5 % of the steps, then a cosine to 1 %), "cosine", "constant", or a function
            of the fraction done that gives the factor of the learning rate.
        num_restarts: Independent runs, side by side; their draws become chains.
        validation: Held-out data whose log predictive density is watched: a share of the rows, drawn by the seed, or
            (x, y) or (x, y, weights). The parameters of the best of some 50 evaluations are kept. A share is not
            trained on.
        patience: Evaluations without a better one, of every restart, after which training ends; needs `validation`.
        checkpoint: An `.npz` file for all that a training needs to go on. If it is there, the fit goes on from it, and
            ends with the same bits as one that was never stopped.
        every: Steps between two checkpoints.
        callbacks: Functions that are called with a `ugmm_ppl.infer.Moment` after every block of steps. One that
            returns True ends the training.
    """

    num_steps: int = setting(2000, checks.count)
    batch_size: int | None = setting(None, optional(checks.count))
    learning_rate: float = setting(0.01, POSITIVE)
    schedule: str | Callable[[float], float] = setting("one-cycle")
    num_restarts: int = setting(1, checks.count)
    validation: float | tuple[Any, ...] | None = setting(None)
    patience: int | None = setting(None, optional(checks.count))
    checkpoint: str | os.PathLike[str] | None = setting(None, optional(checks.checkpoint_path), identifies=False)
    every: int = setting(500, checks.count, identifies=False)
    callbacks: Sequence[Callable[[Moment], Any]] = setting((), checks.callbacks, identifies=False)

    runs: ClassVar[str] = "num_restarts"
    length: ClassVar[str] = "num_steps"

    def check(self, backend: str) -> None:
        """Patience needs something to look at."""
        super().check(backend)
        checks.patience(self.patience, self.validation)

    @property
    def parts(self) -> int:
        """Parts of which a batch is a multiple."""
        return 1

    def for_rows(self, rows: int) -> Self:
        """The same with a batch of at most that many rows, a multiple of its parts."""
        size = min(self.batch_size or rows, rows)
        checks.split_batch(size, self.parts)
        return dataclasses.replace(self, batch_size=size // self.parts * self.parts)

    @property
    def file(self) -> Path | None:
        """The checkpoint."""
        return None if self.checkpoint is None else Path(self.checkpoint)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Descent(Stepwise):
    """Those of methods whose steps go down a gradient, as "map".

    Args:
        optimizer: "adam", "sgd" (momentum 0.9), for "pyro" also a function of parameters that makes a
            `torch.optim.Optimizer`, for "numpyro" also an `optax.GradientTransformation` made with learning rate 1.
        clip_norm: Largest norm of the gradient over all parameters; None for no limit.
        num_particles: Draws of the guide, and of dropout, that a step averages over.
        split_batch: Deal the batch to the particles: each draw sees its own part, so that a step costs hardly more than
            one draw. The size of the batch is lowered to a multiple of their number.
        temperature: Factor of the KL term (a cold posterior below 1); 1 is Bayes' rule.
        kl_warmup: Share of the steps over which the factor of the KL term rises from 0 to the temperature, in [0, 1).
    """

    optimizer: Any = setting("adam")
    clip_norm: float | None = setting(None, optional(POSITIVE))
    num_particles: int = setting(1, checks.count)
    split_batch: bool = setting(False, checks.flag)
    temperature: float = setting(1.0, POSITIVE)
    kl_warmup: float = setting(0.0, functools.partial(checks.number, low=0.0, high=1.0, closed_low=True))

    def check(self, backend: str) -> None:
        """Optimisers are of the backend's library."""
        super().check(backend)
        checks.optimizer(self.optimizer, backend, OPTIMIZERS)

    @property
    def parts(self) -> int:
        """One for each particle."""
        return self.num_particles if self.split_batch else 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Guided(Descent):
    """Those of methods with a guide that the user chooses, as "laplace".

    Args:
        guide: Gaussian family: "normal" (mean field), "full", "lowrank" ("svi" only), or "delta" (a point, the same as
            method="map"); or a mapping from patterns of site names to families, e.g.
            `{"readout.*": "full", "*": "normal"}`: one independent block per pattern, over the sites that it is the
            first to match. A full block has at most 4096 entries.
    """

    guide: str | Mapping[str, str] = setting("normal", lambda _, got: checks.plain(got))

    @property
    def families(self) -> dict[str, str]:
        """As they were given."""
        return checks.guide(self.guide, FAMILIES)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sampled(Settings):
    """Those of samplers, which draw from Markov chains.

    Args:
        num_chains: Chains, side by side.
        num_warmup: Steps of each chain before its first draw. Default 500, for "sghmc" 2000.
        num_draws: Draws of each chain that are kept.
        temperature: The likelihood is raised to the power 1 / temperature; 1 is Bayes' rule.
    """

    num_chains: int = setting(4, checks.count)
    num_warmup: int = setting(500, checks.count)
    num_draws: int = setting(500, checks.count)
    temperature: float = setting(1.0, POSITIVE)

    runs: ClassVar[str] = "num_chains"
    length: ClassVar[str] = "num_draws"
