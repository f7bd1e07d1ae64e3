"""What a fit says about data: predictions, functions, log likelihood, and the weights of its chains."""

from __future__ import annotations

import abc
import copy
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.data.standardizer import as_seen
from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.posterior import weighing
from ugmm_ppl.posterior.functions import Functions

if TYPE_CHECKING:
    from ugmm_ppl.data.standardizer import Standardizer
    from ugmm_ppl.models.base import Model


class Predictive(abc.ABC):
    """The part of `Fit` that meets data; the attributes are described there."""

    model: Model
    method: str
    dtype: str
    seed: int
    temperature: float
    x_units: Standardizer | None
    y_units: Standardizer | None
    columns: list[str] | None
    train_x: np.ndarray | None
    train_y: np.ndarray | None
    row_weights: np.ndarray | None
    state: list[dict[str, np.ndarray]]
    log_likelihoods: np.ndarray
    kls: np.ndarray
    scores: np.ndarray
    score_steps: np.ndarray
    weighting: str
    unequal_weights: np.ndarray | None

    @property
    @abc.abstractmethod
    def num_chains(self) -> int:
        """Number of chains C: restarts, or chains of NUTS."""

    @abc.abstractmethod
    def _count_draws(self, num_draws: int | None) -> int:
        """Draws per chain: those asked for, or what the method has."""

    def predict(
        self, x: Any, *, num_draws: int | None = None, chunk_size: int | None = None, seed: int | None = None
    ) -> Any:
        """Posterior predictive distribution of y for each row of x.

        Memory, besides x and the prediction itself, is at most

            4 (16 R W + 4 D + 4 S R O) bytes in float32, twice that in float64; by default this is at most 512 MiB.

        R is `chunk_size`, rounded up a little from 16 on. W is the widest layer, inputs included, with the native
        kernel, and J K of the largest layer with the others. D is the number of parameters in all C S draws, but not
        more than 2^23 or one draw. The prediction takes 8 bytes for each of C S B classes, or 20 for each of C S B
        components of a `Regressor`, and twice that while it is made; where this is too much, use `predict_iter`.

        Args:
            x: Inputs `(B, K)`, in the units of the training data; a memory map is read a chunk at a time. Columns of a
                table are found by name, if the fit has names.
            num_draws: Draws per chain; None is 500, one for "map", and all that were kept for "nuts".
            chunk_size: Rows at a time; None takes as many as keep R W below 2^22 and C S R O below 2^23.
            seed: Seed of the draws.

        Returns:
            `ClassPrediction` or `RegressionPrediction`.
        """
        return self.sample_functions(num_draws, seed=seed).predict(x, chunk_size=chunk_size)

    def predict_iter(
        self, x: Any, *, num_draws: int | None = None, chunk_size: int | None = None, seed: int | None = None
    ) -> Iterator[Any]:
        """Predictions of successive rows, for inputs or predictions that do not fit in memory.

        All of them use the same draws, so that one after the other they are what `predict` returns for all rows.

        Args:
            x: An array `(B, K)` or a table, or what can be sliced like one, such as a memory map, of which `chunk_size`
                rows are read at a time; or an iterable of arrays `(rows, K)`, for each of which there is one
                prediction. Of batches (x, y, ...), such as those of a data loader, x is taken.
            num_draws: As in `predict`.
            chunk_size: As in `predict`.
            seed: As in `predict`.

        Returns:
            An iterator of `ClassPrediction` or `RegressionPrediction`.
        """
        return self.sample_functions(num_draws, seed=seed).predict_iter(x, chunk_size=chunk_size)

    def sample_functions(self, num_draws: int | None = None, *, seed: int | None = None) -> Functions:
        """Functions drawn from the posterior, C x S networks that stay the same from call to call.

        `functions(x)` is what each of them says of y: its mean, or the class probabilities.

        Args:
            num_draws: As in `predict`.
            seed: As in `predict`.
        """
        seed = self.seed if seed is None else checks.count("seed", seed, least=0)
        fixed: Any = copy.copy(self)
        fixed.state = list(self.state)  # not what further training makes of it
        return Functions(fixed, self._count_draws(num_draws), seed)

    def outputs(
        self, x: Any, *, num_draws: int | None = None, chunk_size: int | None = None, seed: int | None = None
    ) -> np.ndarray:
        """Network outputs for every posterior draw, `(C, S, B, O)`; arguments as in `predict`."""
        return self.sample_functions(num_draws, seed=seed).outputs(x, chunk_size=chunk_size)

    def log_likelihood(
        self,
        x: Any = None,
        y: Any = None,
        num_draws: int | None = None,
        *,
        chunk_size: int | None = None,
        seed: int | None = None,
    ) -> np.ndarray:
        """Pointwise log likelihood log p(y_b | x_b, theta_s), `(C, S, B)` in nats.

        Args:
            x: Inputs `(B, K)`; None for the training data.
            y: Targets `(B,)`; None for the training data.
            num_draws: As in `predict`.
            chunk_size: As in `predict`.
            seed: As in `predict`.

        Returns:
            Log probabilities, or log densities per unit of y as it was given.
        """
        x, y = self._checked_data(x, y)
        target = self.to_network_target(y)

        def pointwise(outputs: np.ndarray, rows: slice) -> np.ndarray:
            return self.model.log_likelihood(outputs.astype(np.float64), target[rows])

        functions = self.sample_functions(num_draws, seed=seed)
        return functions.map(x, pointwise, dtype="float64", chunk_size=chunk_size) - self.log_unit(x)

    def sample_predictive(self, x: Any, *, num_draws: int | None = None, seed: int | None = None) -> np.ndarray:
        """One y per posterior draw and row of x, `(C, S, B)`, in the units of the data."""
        return self._targets(self.outputs(x, num_draws=num_draws, seed=seed), seed)

    @property
    def weights(self) -> np.ndarray:
        """What each chain counts for in a prediction, `(C,)`; they sum to one."""
        return np.full(self.num_chains, 1.0 / self.num_chains) if self.unequal_weights is None else self.unequal_weights

    def weigh(
        self,
        how: str,
        x: Any = None,
        y: Any = None,
        *,
        num_draws: int | None = None,
        chunk_size: int | None = None,
        seed: int | None = None,
    ) -> Self:
        """The same fit with other `weights` of its chains, which `predict` and the like use.

        Draws, `log_likelihood` and `sample_predictive` are per chain, and stay as they are.

        Args:
            how: "equal"; "elbo", proportional to exp(ELBO) of each restart, its bound of the evidence; or "stacking",
                the weights of the mixture of chains that predicts held-out rows best (`weighing.stacking_weights`).
            x: For "stacking", inputs `(B, K)` of held-out rows.
            y: For "stacking", their targets `(B,)`.
            num_draws: For "stacking", as in `predict`.
            chunk_size: For "stacking", as in `predict`.
            seed: For "stacking", as in `predict`.

        Raises:
            ValueError: An unknown way, or one that does not apply; rows that the fit was trained on.
        """
        checks.choice("how", how, weighing.WEIGHINGS)
        checks.weighing(how, self.method, self.temperature, x is not None and y is not None)
        weights = None
        if how == "elbo":
            weights = weighing.elbo_weights(self._negative_elbos())
        elif how == "stacking":
            x, y = self._checked_data(x, y)
            checks.held_out(x, y, *self._counted())
            log_densities = self.log_likelihood(x, y, num_draws, chunk_size=chunk_size, seed=seed)
            weights = weighing.stacking_weights(logsumexp(NUMPY, np.moveaxis(log_densities, 1, -1)))
        result = copy.copy(self)
        result.weighting, result.unequal_weights = how, weights
        return result

    @abc.abstractmethod
    def evaluate(
        self, draws: dict[str, np.ndarray], x: np.ndarray, chunk_size: int, params: dict[str, np.ndarray] | None
    ) -> np.ndarray:
        """Outputs of the model `(S, B, O)`; described at `Fit`."""

    def check_inputs(self, x: Any, *, what: str = "x", convert: bool = True, first_row: int = 0) -> np.ndarray:
        """Inputs as an array, columns of a table found by the names of the fit; as `Model.check_inputs`."""
        return self.model.check_inputs(x, what=what, convert=convert, first_row=first_row, names=self.columns)

    def to_network(self, x: np.ndarray, *, what: str = "x", first_row: int = 0) -> np.ndarray:
        """Inputs as the network sees them; `first_row` is the number of the first, for messages."""
        observed = self.model.observed == "x"
        return as_seen(checks.floats(x), self.x_units, self.dtype, observed=observed, what=what, first_row=first_row)

    def to_network_target(self, y: np.ndarray) -> np.ndarray:
        """Targets as the likelihood sees them; one that is far away has density zero."""
        with np.errstate(over="ignore"):
            return y if self.y_units is None else self.y_units.standardize(y)

    def _pointwise(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Log likelihood in the units of the likelihood, `(C, S, B)`, chain by chain in float64."""
        target = self.to_network_target(y)
        return np.stack([self.model.log_likelihood(chain.astype(np.float64), target) for chain in outputs])

    def over_rows(self, pointwise: np.ndarray) -> np.ndarray:
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

    def log_unit(self, x: np.ndarray) -> np.ndarray | float:
        """What a density loses on its way from the units of the likelihood to those of the data; may be per row."""
        del x
        return 0.0 if self.y_units is None else float(np.log(self.y_units.scale))

    def _targets(self, outputs: np.ndarray, seed: int | None) -> np.ndarray:
        """One y per output row, in the units of the data."""
        drawn = self.model.sample_target(outputs, np.random.default_rng(self.seed if seed is None else seed))
        return drawn if self.y_units is None else self.y_units.restore(drawn)

    def _checked_data(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """The given data, or the training data, as arrays."""
        x, y = self._training_data(x, y)
        x = self.check_inputs(x, convert=False)
        return x, self.model.check_target(y, len(x))

    def _training_data(self, x: Any, y: Any) -> tuple[Any, Any]:
        if x is None and y is None and self.train_x is not None:
            return self.train_x, self.train_y
        if x is None or (y is None and self.model.needs_target):
            raise ValueError(
                "x and y are needed: this fit was loaded from a file, which holds no training data. Give both."
            )
        return x, y
