"""Functions drawn from the posterior: networks with fixed parameters, evaluated in bounded memory on any inputs."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.typing import Outputs, RowDraws, Rows

if TYPE_CHECKING:
    from ugmm_ppl.posterior.drawn import Drawn

VECTOR = 16
"""Rows that a kernel takes together."""


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Functions:
    """C x S networks f(x; theta_cs), theta_cs drawn from the posterior; made by `Fit.sample_functions`.

    The draws are fixed: every call sees the same functions, and the value at a row does not depend on the other rows
    (up to the last digits, where a library sums in another order for arrays of another size). Few parameters are
    held; of many, each draw is made again from its number and the seed when it is needed.

    Attributes:
        fit: Where the parameters are drawn from.
        num_draws: Draws S per chain.
        seed: Seed of the draws.
    """

    fit: Drawn
    num_draws: int
    seed: int

    def __repr__(self) -> str:
        """How many, of what."""
        return f"Functions({self.fit!r}, num_draws={self.num_draws}, seed={self.seed})"

    def __call__(self, x: Any, *, chunk_size: int | None = None, **extras: Any) -> RowDraws:
        """What each function says of y: its mean in the units of y, `(C, S, B)`, or its class probabilities.

        Args:
            x: Inputs `(B, K)`, in the units of the training data.
            chunk_size: As in `Fit.predict`.
            extras: As in `Fit.predict`.

        Returns:
            The attribute `draws` of the prediction, `(C, S, B)` or `(C, S, B, classes)`.
        """
        return self.predict(x, chunk_size=chunk_size, **extras).draws

    def predict(self, x: Any, *, chunk_size: int | None = None, **extras: Any) -> Any:
        """The prediction that averages over the functions by the weights of the fit; arguments as in `Fit.predict`."""
        return self._prediction(self.fit.with_extras(x, extras), chunk_size, 0)

    def _prediction(self, x: Any, chunk_size: int | None, first_row: int) -> Any:
        outputs = self.outputs(x, chunk_size=chunk_size, first_row=first_row)
        fit = self.fit
        return fit.model.likelihood.prediction(outputs, fit.y_units, fit.primitives, fit.unequal_weights)

    def predict_iter(self, x: Any, *, chunk_size: int | None = None, **extras: Any) -> Iterator[Any]:
        """Predictions of successive rows; arguments as in `Fit.predict_iter`."""
        chunk_size, x = self.chunk_size(chunk_size), self.fit.with_extras(x, extras)
        checks.streamable(x)

        def predictions() -> Iterator[Any]:
            done = 0
            for rows in [x] if isinstance(x, Mapping) else _cut(x, chunk_size) if hasattr(x, "shape") else x:
                checked = self.fit.check_inputs(_inputs_of(rows), convert=False, first_row=done)
                yield self._prediction(checked, chunk_size, done)
                done += len(checked)

        return predictions()

    def outputs(self, x: Any, *, chunk_size: int | None = None, first_row: int = 0, **extras: Any) -> Outputs:
        """Complete outputs of the networks, `(C, S, B, O)`; arguments as in `map`."""
        shape, x = (self.fit.model.num_outputs,), self.fit.with_extras(x, extras)
        return self.map(x, lambda outputs, _: outputs, shape, chunk_size=chunk_size, first_row=first_row)

    def map(
        self,
        x: Any,
        function: Callable[[Outputs, slice], RowDraws],
        shape: tuple[int, ...] = (),
        *,
        dtype: str | None = None,
        chunk_size: int | None = None,
        first_row: int = 0,
    ) -> RowDraws:
        """Apply a function to the outputs of the networks, of which only those of one chunk are held.

        Args:
            x: Inputs `(B, K)`, in the units of the training data; a memory map is read a chunk at a time.
            function: Takes outputs `(draws, rows, O)` and the slice of the rows, returns `(draws, rows, *shape)`.
            shape: The last axes of what it returns.
            dtype: Of the result; None is that of the fit.
            chunk_size: Rows at a time.
            first_row: Number of the first row of x, for messages, where x is a part of something longer.

        Returns:
            `(C, S, B, *shape)`.

        Raises:
            ValueError: Rows so far out that their outputs overflow, or that no density reaches them; says which.
        """
        fit = self.fit
        x = fit.check_inputs(x, convert=False)
        chunk_size = self.chunk_size(chunk_size)
        result = np.empty((fit.num_chains, self.num_draws, len(x), *shape), dtype or fit.dtype)
        with fit.settings():
            for chain, block, draws in self._blocks():
                params = None if fit.inference.markov else fit.state[chain]
                for start in range(0, len(x), chunk_size):
                    rows = slice(start, start + chunk_size)
                    inputs = fit.to_network(x[rows], first_row=first_row + start)
                    padded = _pad(inputs) if chunk_size >= VECTOR else inputs
                    outputs = fit.evaluate(draws, padded, len(padded), params)[:, : len(inputs)]
                    checks.defined(fit.model.likelihood.defined(outputs), first_row + start)
                    result[chain, block, rows] = function(outputs, rows)
        return result

    def chunk_size(self, given: int | None = None) -> int:
        """Rows at a time: those given, or as many as keep temporaries and outputs of a chunk small."""
        if given is not None:
            return checks.count("chunk_size", given)
        model = self.fit.model
        rows = min(model.rows_at_once, budgets.HELD // (self.fit.num_chains * self.num_draws * model.num_outputs))
        return rows - rows % VECTOR if rows >= VECTOR else max(1, rows)

    @cached_property
    def _held(self) -> dict[str, np.ndarray] | None:
        """All draws `(C, S, ...)` by site if they are few, else None."""
        if self.fit.num_chains * self.num_draws * self.fit.num_parameters > budgets.HELD:
            return None
        return self.fit.draws(range(self.num_draws), self.seed)[0]

    def _blocks(self) -> Iterator[tuple[int, slice, dict[str, np.ndarray]]]:
        """Chain, numbers of the draws, and the draws `(S, ...)` by site, as many as may be held together."""
        at_once = max(1, budgets.HELD // self.fit.num_parameters)
        for chain in range(self.fit.num_chains):
            for first in range(0, self.num_draws, at_once):
                block = range(first, min(self.num_draws, first + at_once))
                if self._held is None:
                    draws = self.fit.chain_draws(chain, block, self.seed)[0]
                else:
                    draws = {name: value[chain, first : block.stop] for name, value in self._held.items()}
                yield chain, slice(block.start, block.stop), draws


def _cut(x: Any, chunk_size: int) -> Iterator[Any]:
    """Successive rows of anything that has a shape and can be sliced; what is not sliced is not read."""
    rows = x.iloc if hasattr(x, "dtypes") and hasattr(x, "iloc") else x  # pandas slices by its index
    for start in range(0, x.shape[0], chunk_size):
        yield rows[start : start + chunk_size]


def _inputs_of(batch: Any) -> Any:
    """x of a batch (x, y, ...), as data loaders give them; anything else is x itself."""
    if not isinstance(batch, list | tuple) or not batch:
        return batch
    first = batch[0]
    rows = isinstance(first, list | tuple) and len(first) > 0 and isinstance(first[0], list | tuple)
    return first if rows or len(getattr(first, "shape", ())) == 2 else batch


def _pad(x: Rows) -> np.ndarray:
    """Rows of zeros added to make a multiple of 16 of them, or of an eighth of their number.

    Kernels treat the last few rows differently from whole vectors of them, and programs are compiled for each number.
    """
    step = max(VECTOR, 2 ** (len(x).bit_length() - 4))
    return np.pad(x, ((0, -len(x) % step), (0, 0)))
