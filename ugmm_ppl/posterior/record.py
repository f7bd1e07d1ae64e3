"""What a fit holds: the model, settings, what training reached; and data as its model sees them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.data.joined import Joined, join
from ugmm_ppl.data.standardizer import Standardizer, as_seen
from ugmm_ppl.infer.method import METHODS, Method, Reached
from ugmm_ppl.likelihoods.base import EXTRAS
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.typing import Numbers, Outputs, PerChain, PerDraw, PerRow, PerStep, RowArrays, RowDraws, Rows, SiteValues

HISTORIES = ("losses", "log_likelihoods", "kls", "scores", "score_steps")
"""What a fit keeps of the course of a training."""


@dataclasses.dataclass(eq=False, kw_only=True, repr=False)
class Record:
    """What a fit holds.

    Attributes:
        model: The model.
        backend: "pyro" or "numpyro".
        method: "svi", "map", "laplace", "em", "nuts" or "sghmc".
        guide: A family, or families by pattern of site names.
        bayesian: What is inferred: "all", "readout", or site names and patterns.
        losses: Negative ELBO (or log joint) in nats by restart and step, `(restarts, steps)`; NaN after a run that
            ended early. It is minus `log_likelihoods` plus `kls` times the factor of the KL term.
        log_likelihoods: Log likelihood of each step's batch, multiplied by N / B, of the same shape.
        kls: KL(q || p) of each step, or minus the log prior density, of the same shape.
        scores: With `validation`, held-out log predictive density per row in nats, `(restarts, evaluations)`.
        score_steps: Steps taken at each evaluation.
        training: The settings of the method.
        interrupted: Training was stopped from the keyboard.
        feature_names: Names of the K inputs.
        columns: Names by which the columns of a table are found; None takes them by position.
        class_names: Names of the classes, or None.
        state: Guide parameters of each restart; for samplers one dict of draws `(C, S, ...)`.
        held: For samplers, values of the sites that are not inferred.
        stats: For "nuts", statistics per draw `(C, S)`.
        weighting: How the chains were weighed: "equal", "elbo" or "stacking".
        unequal_weights: Their weights `(C,)`, or None if they are equal.
        train_x, train_y: The data it was fitted to, extra columns after those of x; None after `load`.
        row_weights: How often each of these rows counts `(N,)`, or None for once; kept by `save`.
    """

    model: BaseModel
    backend: str
    method: str
    guide: str | Mapping[str, str]
    dtype: str
    device: str
    seed: int
    x_units: Standardizer | None
    y_units: Standardizer | None
    feature_names: list[str]
    class_names: list[str] | None
    columns: list[str] | None = None
    extras: Sequence[str] = ()
    temperature: float = 1.0
    init_scale: float = 0.05
    rank: int = 10
    bayesian: str | Sequence[str] = "all"
    train_x: Rows | None = None
    train_y: PerRow | None = None
    row_weights: PerRow | None = None
    state: list[SiteValues] = dataclasses.field(default_factory=list)
    held: SiteValues = dataclasses.field(default_factory=dict)
    stats: dict[str, PerDraw] = dataclasses.field(default_factory=dict)
    losses: PerStep = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    log_likelihoods: PerStep = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    kls: PerStep = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    scores: PerStep = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    score_steps: Numbers = dataclasses.field(default_factory=lambda: np.empty(0, int))
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    weighting: str = "equal"
    unequal_weights: PerChain | None = None

    def __repr__(self) -> str:
        """One line: what was fitted, and how."""
        return f"Fit({self.model!r}, backend={self.backend!r}, method={self.method!r}, chains={self.num_chains})"

    @property
    def num_chains(self) -> int:
        """Number of chains C: restarts, or chains of NUTS."""
        return len(next(iter(self.state[0].values()))) if self.inference.markov else len(self.state)

    @property
    def inference(self) -> Method:
        """The method, with its facts."""
        return METHODS[self.method]

    def keep(self, reached: Reached) -> None:
        """Take over what a method has reached."""
        self.state, self.held, self.stats = reached.state, reached.held, reached.stats
        self.interrupted = reached.interrupted
        if reached.run is not None:
            for name in HISTORIES:
                setattr(self, name, getattr(reached.run, name))

    @property
    def primitives(self) -> Backend:
        """The backend."""
        return load_backend(self.backend)

    def settings(self) -> Any:
        """Context of the dtype and device of the fit."""
        return self.primitives.settings(dtype=self.dtype, device=self.device)

    def check_inputs(
        self,
        x: Any,
        *,
        what: str = "x",
        convert: bool = True,
        first_row: int = 0,
        extras: Mapping[str, Any] | None = None,
    ) -> Rows:
        """Inputs as an array, columns of a table found by the names of the fit; as `BaseModel.check_inputs`.

        With the extra columns of the training, if it had some, after those of x.
        """
        if isinstance(x, Joined):
            checks.extras_with_rows(extras)
            return x
        extras = {} if extras is None else extras
        checks.same_extras(extras, self.extras, [name for name, each in EXTRAS.items() if each.with_target])
        x = self.model.check_inputs(x, what=what, convert=convert, first_row=first_row, names=self.columns)
        return join(x, self.model.check_extras(extras, len(x)))

    def with_extras(self, x: Any, extras: Mapping[str, Any]) -> Any:
        """Rows with the extra columns that belong to them; None, and rows of a fit that has none, as they are."""
        if x is None:
            checks.extras_with_rows(extras)
            return x
        needed = [name for name in self.extras if not EXTRAS[name].with_target]
        return self.check_inputs(x, extras=extras) if extras or needed else x

    @staticmethod
    def taken(options: dict[str, Any]) -> dict[str, Any]:
        """Extra columns among keyword arguments, which are taken out of them."""
        return {name: options.pop(name) for name in EXTRAS if name in options}

    def to_network(self, x: Rows, *, what: str = "x", first_row: int = 0) -> Rows:
        """Inputs as the network sees them; `first_row` is the number of the first, for messages."""
        observed, own = self.model.observed == "x", self.features(x)
        seen = as_seen(checks.floats(own), self.x_units, self.dtype, observed=observed, what=what, first_row=first_row)
        if own.shape == x.shape:
            return seen
        extras = {each.name: values for each, values in zip(self.model.extras, self.extras_of(x).values(), strict=True)}
        for each in self.model.extras:
            if each.of_target and self.y_units is not None:
                extras[each.name] = self.y_units.standardize(extras[each.name])
        return np.column_stack([seen, *extras.values()]).astype(seen.dtype, copy=False)

    def features(self, x: Rows) -> Rows:
        """Checked inputs without their extra columns."""
        return np.asarray(x)[:, : self.model.num_inputs] if isinstance(x, Joined) else x

    def extras_of(self, x: Rows) -> dict[str, PerRow]:
        """The extra columns of checked inputs, by name."""
        if not isinstance(x, Joined):
            return {}
        return {each.name: np.asarray(x)[:, self.model.num_inputs + i] for i, each in enumerate(self.model.extras)}

    def to_network_target(self, y: PerRow) -> PerRow:
        """Targets as the likelihood sees them; one that is far away has density zero."""
        with np.errstate(over="ignore"):
            return y if self.y_units is None else self.y_units.standardize(y)

    def log_unit(self, x: Rows) -> PerRow | float:
        """What a density loses on its way from the units of the likelihood to those of the data; may be per row."""
        if self.y_units is None:
            return 0.0
        return float(np.log(self.y_units.scale)) * self.model.likelihood.per_unit(self.extras_of(x))

    def targets(self, outputs: Outputs, seed: int | None) -> PerRow:
        """One y per output row, in the units of the data."""
        drawn = self.model.likelihood.sample(outputs, np.random.default_rng(self.seed if seed is None else seed))
        return drawn if self.y_units is None else self.y_units.restore(drawn)

    def checked_data(self, x: Any, y: Any) -> tuple[Rows, PerRow]:
        """The given data, or the training data, as arrays."""
        x, y = self.training_data(x, y)
        x = self.check_inputs(x, convert=False)
        y = self.model.check_target(y, len(x))
        if self.extras and not isinstance(x, Joined):
            checks.same_extras((), self.extras, ())
        self.model.likelihood.check_extras(y, self.extras_of(x))
        return x, y

    def training_data(self, x: Any, y: Any) -> tuple[Any, Any]:
        """The given data, or the training data, unchecked."""
        if x is None and y is None and self.train_x is not None:
            return self.train_x, self.train_y
        if x is None or (y is None and self.model.needs_target):
            raise checks.no_training_data()
        return x, y

    def network_data(self, x: Any = None, y: Any = None) -> tuple[RowArrays, ...]:
        """The training data as the network and the likelihood see them: x, y and, if rows have them, weights.

        Rows of weight 0 are left out. `x` and `y` are the training data, if the fit does not hold them (after `load`).
        """
        x, y = self.training_data(x, y)
        weights = checks.weighted_rows(self.row_weights, len(x))
        if weights is None:
            return self.to_network(x), self.to_network_target(y)
        x, y, weights = (a[weights > 0.0] for a in (x, y, weights))
        return self.to_network(x), self.to_network_target(y), weights

    @property
    def num_rows(self) -> int:
        """Training rows that count."""
        if self.row_weights is not None:
            return int(np.count_nonzero(self.row_weights))
        return len(self.training_data(None, None)[0])

    def over_rows(self, pointwise: RowDraws) -> PerRow:
        """Sum over the training rows, each as often as it counts, `(..., B)` to `(...)`, in float64."""
        weights = checks.weighted_rows(self.row_weights, pointwise.shape[-1])
        if weights is None:
            return pointwise.sum(-1, dtype=np.float64)
        return pointwise[..., weights > 0.0].astype(np.float64) @ weights[weights > 0.0]

    def _counted(self) -> tuple[np.ndarray | None, np.ndarray | None]:
        """The training data that count, if the fit holds them."""
        if self.train_x is None or self.train_y is None or self.row_weights is None:
            return self.train_x, self.train_y
        return self.train_x[self.row_weights > 0.0], self.train_y[self.row_weights > 0.0]

    def _negative_elbos(self) -> np.ndarray:
        """KL minus log likelihood of every step, up to the parameters that were kept, `(C, steps)`; NaN behind them."""
        found = self.kls - self.log_likelihoods
        for row, scores in zip(found, self.scores, strict=False):
            if scores.size:
                row[self.score_steps[np.argmax(scores)] :] = np.nan
        return found
