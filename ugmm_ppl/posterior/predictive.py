"""What a fit says about data: predictions, functions, log likelihood, and the weights of its chains."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any, Self

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.posterior import weighing
from ugmm_ppl.posterior.drawn import Drawn
from ugmm_ppl.posterior.functions import Functions
from ugmm_ppl.typing import Outputs, PerChain, PerDraw, PerRow


class Predictive(Drawn):
    """The part of a fit that meets data."""

    def predict(
        self,
        x: Any,
        *,
        num_draws: int | None = None,
        chunk_size: int | None = None,
        seed: int | None = None,
        **extras: Any,
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
            num_draws: Draws per chain; None is 500, one for "map", and all that a sampler kept.
            chunk_size: Rows at a time; None takes as many as keep R W below 2^22 and C S R O below 2^23.
            seed: Seed of the draws.
            extras: The extra columns that the fit was made with, such as `exposure`, `(B,)` each; here and wherever
                rows are taken.

        Returns:
            The prediction of the likelihood: `ClassPrediction`, `RegressionPrediction`, or the `Outcome` of others.
        """
        return self.sample_functions(num_draws, seed=seed).predict(x, chunk_size=chunk_size, **extras)

    def predict_iter(
        self,
        x: Any,
        *,
        num_draws: int | None = None,
        chunk_size: int | None = None,
        seed: int | None = None,
        **extras: Any,
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
            extras: As in `predict`; x is then an array or a table.

        Returns:
            An iterator of such predictions.
        """
        return self.sample_functions(num_draws, seed=seed).predict_iter(x, chunk_size=chunk_size, **extras)

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
        return Functions(fixed, self.count_draws(num_draws), seed)

    def outputs(
        self,
        x: Any,
        *,
        num_draws: int | None = None,
        chunk_size: int | None = None,
        seed: int | None = None,
        **extras: Any,
    ) -> Outputs:
        """Complete outputs for every posterior draw, `(C, S, B, O)`; arguments as in `predict`."""
        return self.sample_functions(num_draws, seed=seed).outputs(x, chunk_size=chunk_size, **extras)

    def log_likelihood(
        self,
        x: Any = None,
        y: Any = None,
        num_draws: int | None = None,
        *,
        chunk_size: int | None = None,
        seed: int | None = None,
        **extras: Any,
    ) -> PerRow:
        """Pointwise log likelihood log p(y_b | x_b, theta_s), `(C, S, B)` in nats.

        Args:
            x: Inputs `(B, K)`; None for the training data.
            y: Targets `(B,)`; None for the training data.
            num_draws: As in `predict`.
            chunk_size: As in `predict`.
            seed: As in `predict`.
            extras: As in `predict`.

        Returns:
            Log probabilities, or log densities per unit of y as it was given.
        """
        x, y = self.checked_data(self.with_extras(x, extras), y)
        target = self.to_network_target(y)

        def pointwise(outputs: Outputs, rows: slice) -> np.ndarray:
            return self.model.log_likelihood(outputs.astype(np.float64), target[rows])

        functions = self.sample_functions(num_draws, seed=seed)
        return functions.map(x, pointwise, dtype="float64", chunk_size=chunk_size) - self.log_unit(x)

    def sample_predictive(
        self, x: Any, *, num_draws: int | None = None, seed: int | None = None, **extras: Any
    ) -> PerRow:
        """One y per posterior draw and row of x, `(C, S, B)`, in the units of the data; arguments as in `predict`."""
        return self.targets(self.outputs(x, num_draws=num_draws, seed=seed, **extras), seed)

    def log_p(
        self,
        x: Any = None,
        y: Any = None,
        num_draws: int | None = None,
        *,
        seed: int | None = None,
        **extras: Any,
    ) -> PerDraw:
        """Log joint density log p(theta) + log p(y | x, theta) of the training data at the draws, `(C, S)` in nats.

        Args:
            x: The training inputs, if the fit does not hold them (after `load`).
            y: The training targets, likewise.
            num_draws: As in `posterior`.
            seed: As in `posterior`.
            extras: As in `predict`.
        """
        draws, _ = self.draws(range(self.count_draws(num_draws)), seed)
        x, y = self.checked_data(self.with_extras(x, extras), y)
        outputs = self.outputs(x, num_draws=num_draws, seed=seed)
        return self.log_prior(draws) + self.over_rows(self.pointwise(outputs, y))

    @property
    def weights(self) -> PerChain:
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
        **extras: Any,
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
            extras: For "stacking", as in `predict`.

        Raises:
            ValueError: An unknown way, or one that does not apply; rows that the fit was trained on.
        """
        checks.choice("how", how, weighing.WEIGHINGS)
        checks.weighing(how, self.method, self.inference.bound, self.temperature, x is not None and y is not None)
        weights = None
        if how == "elbo":
            weights = weighing.elbo_weights(self._negative_elbos())
        elif how == "stacking":
            x, y = self.checked_data(self.with_extras(x, extras), y)
            checks.held_out(x, y, *self._counted())
            log_densities = self.log_likelihood(x, y, num_draws, chunk_size=chunk_size, seed=seed)
            weights = weighing.stacking_weights(logsumexp(NUMPY, np.moveaxis(log_densities, 1, -1)))
        result = copy.copy(self)
        result.weighting, result.unequal_weights = how, weights
        return result
