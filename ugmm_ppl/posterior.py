"""`Fit`: a fitted model; draws, predictions, log likelihood, ArviZ, save and load. All arrays out are NumPy."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any

import numpy as np

from ugmm_ppl import checks, storage
from ugmm_ppl.backend import Backend, load_backend
from ugmm_ppl.data import Standardizer
from ugmm_ppl.guide import Guide, inferred_sites, latent_sites, make_guide, natural_values
from ugmm_ppl.model.base import NetworkModel

NUM_DRAWS = 500
"""Draws per chain from a guide where none are asked for."""


@dataclasses.dataclass(eq=False, kw_only=True, repr=False)
class Fit:
    """A fitted model. Made by `ugmm_ppl.fit` and `ugmm_ppl.load`.

    Attributes:
        model: The model.
        backend: "pyro" or "numpyro".
        method: "svi", "map", "laplace" or "nuts".
        guide: A family, or families by pattern of site names.
        bayesian: What is inferred: "all", "readout", or site names and patterns.
        losses: Negative ELBO (or log joint) in nats by restart and step, `(restarts, steps)`; NaN after a run that
            ended early.
        interrupted: Training was stopped from the keyboard.
        feature_names: Names of the K inputs.
        class_names: Names of the classes, or None.
        state: Guide parameters of each restart; for "nuts" one dict of draws `(C, S, ...)`.
        held: For "nuts", values of the sites that are not inferred.
        stats: For "nuts", statistics per draw `(C, S)`.
        train_x, train_y: The data it was fitted to; None after `load`.
    """

    model: NetworkModel
    backend: str
    method: str
    guide: str | Mapping[str, str]
    dtype: str
    device: str
    seed: int
    temperature: float
    init_scale: float
    rank: int
    x_units: Standardizer | None
    y_units: Standardizer | None
    feature_names: list[str]
    class_names: list[str] | None
    bayesian: str | Sequence[str] = "all"
    train_x: np.ndarray | None = None
    train_y: np.ndarray | None = None
    state: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    held: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    stats: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    losses: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    interrupted: bool = False

    def __repr__(self) -> str:
        """One line: what was fitted, and how."""
        return f"Fit({self.model!r}, backend={self.backend!r}, method={self.method!r}, chains={self.num_chains})"

    @property
    def num_chains(self) -> int:
        """Number of chains C: restarts, or chains of NUTS."""
        return len(next(iter(self.state[0].values()))) if self.method == "nuts" else len(self.state)

    def add_restart(self, params: dict[str, np.ndarray], losses: np.ndarray, num_steps: int) -> None:
        """Append one run of training."""
        self.state.append(params)
        row = np.full((1, num_steps), np.nan)
        row[0, : len(losses)] = losses
        self.losses = row if len(self.losses) == 0 else np.concatenate([self.losses, row])

    def to_network(self, x: np.ndarray) -> np.ndarray:
        """Inputs as the network sees them."""
        return x if self.x_units is None else self.x_units.standardize(x)

    def to_network_target(self, y: np.ndarray) -> np.ndarray:
        """Targets as the likelihood sees them."""
        return y if self.y_units is None else self.y_units.standardize(y)

    def network_data(self) -> tuple[np.ndarray, np.ndarray]:
        """The training data as the network and the likelihood see them."""
        x, y = self._training_data(None, None)
        return self.to_network(x), self.to_network_target(y)

    @cached_property
    def family(self) -> Guide:
        """The guide over the latent sites of the model; needs no data."""
        with self._settings():
            sites, _ = latent_sites(
                self._backend, self.model, self.model.network.zeros(self.model.num_outputs), self.seed
            )
            inferred = inferred_sites(self.bayesian, sites, self.model.network.readout_sites)
            return make_guide(
                self.guide, self._backend, sites, init_scale=self.init_scale, rank=self.rank, inferred=inferred
            )

    @property
    def is_gaussian(self) -> bool:
        """Whether draws come from a Gaussian guide, whose density is known."""
        return self.method in ("svi", "laplace")

    @property
    def num_parameters(self) -> int:
        """Entries of all latent sites, those held at a point among them."""
        return sum(math.prod(site.shape) for site in self.family.sites.values())

    def posterior(
        self, num_draws: int | None = None, *, derived: bool = False, seed: int | None = None
    ) -> dict[str, np.ndarray]:
        """Posterior draws of all latent sites; a site held at a point has the same value in every draw of a chain.

        Args:
            num_draws: Draws S per chain; None is 500, one for "map", and all that were kept for "nuts".
            derived: Add `scale` and `weights` of every layer where `log_scale` and `logits` are sampled (not by a
                callable).
            seed: Seed of draws from a guide; None is the seed of the fit.

        Returns:
            Site name -> array `(C, S, ...)`.
        """
        draws = self._draws(range(self._count_draws(num_draws)), seed)[0]
        if derived:
            draws |= self._derived(draws)
        return draws

    def log_q(self, num_draws: int | None = None, *, seed: int | None = None) -> np.ndarray:
        """Log density of the guide at the draws of `posterior` of the same arguments, `(C, S)` in nats.

        For "svi" and "laplace" only. It counts the inferred sites; a site held at a point has no density.
        """
        if not self.is_gaussian:
            raise ValueError(
                f"log_q needs method='svi' or 'laplace'; this fit is by {self.method!r}, which has no guide density."
            )
        return self._draws(range(self._count_draws(num_draws)), seed)[1]

    def log_p(
        self, x: Any = None, y: Any = None, num_draws: int | None = None, *, seed: int | None = None
    ) -> np.ndarray:
        """Log joint density log p(theta) + log p(y | x, theta) of the training data at the draws, `(C, S)` in nats.

        Args:
            x: The training inputs, if the fit does not hold them (after `load`).
            y: The training targets, likewise.
            num_draws: As in `posterior`.
            seed: As in `posterior`.
        """
        draws, _ = self._draws(range(self._count_draws(num_draws)), seed)
        x, y = self._checked_data(x, y)
        outputs = self.outputs(x, num_draws=num_draws, seed=seed)
        return self._log_prior(draws) + self._pointwise(outputs, y).sum(-1)

    def predict(
        self, x: Any, *, num_draws: int | None = None, chunk_size: int | None = None, seed: int | None = None
    ) -> Any:
        """Posterior predictive distribution of y for each row of x.

        Args:
            x: Inputs `(B, K)`, in the units of the training data.
            num_draws: Draws per chain; None is 500, one for "map", and all that were kept for "nuts".
            chunk_size: Rows at a time, which bounds the memory; None keeps the largest temporary near 16 MiB.
            seed: Seed of the draws.

        Returns:
            `ClassPrediction` or `RegressionPrediction`.
        """
        return self.model.prediction(
            self.outputs(x, num_draws=num_draws, chunk_size=chunk_size, seed=seed),
            self.y_units,
            self._backend,
        )

    def outputs(
        self, x: Any, *, num_draws: int | None = None, chunk_size: int | None = None, seed: int | None = None
    ) -> np.ndarray:
        """Network outputs for every posterior draw, `(C, S, B, O)`; arguments as in `predict`."""
        x = self.to_network(checks.inputs(x, self.model.network.sizes[0]))
        total = self._count_draws(num_draws)
        chunk_size = self.model.rows_at_once if chunk_size is None else checks.count("chunk_size", chunk_size)
        draws_at_once = max(1, 2**24 // self.num_parameters)  # 64 MiB of float32 parameters
        result = np.empty((self.num_chains, total, len(x), self.model.num_outputs), dtype=self.dtype)
        for first in range(0, total, draws_at_once):
            block = range(first, min(total, first + draws_at_once))
            draws, _ = self._draws(block, seed)
            with self._settings():
                for c in range(self.num_chains):
                    result[c, block.start : block.stop] = self._backend.inference.outputs(
                        self.model, _chain(draws, c), x, chunk_size
                    )
        return result

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
        outputs = self.outputs(x, num_draws=num_draws, chunk_size=chunk_size, seed=seed)
        return self._pointwise(outputs, y) - self._log_unit()

    def sample_predictive(self, x: Any, *, num_draws: int | None = None, seed: int | None = None) -> np.ndarray:
        """One y per posterior draw and row of x, `(C, S, B)`, in the units of the data."""
        return self._targets(self.outputs(x, num_draws=num_draws, seed=seed), seed)

    def prior_draws(
        self, x: Any, num_draws: int, *, derived: bool = False, seed: int | None = None
    ) -> dict[str, np.ndarray]:
        """Draws from the prior as one chain, `(1, S, ...)` by site, and `y` `(1, S, B)` in the units of the data."""
        base = self.seed if seed is None else seed
        with self._settings():
            network_x = self.to_network(checks.inputs(x, self.model.network.sizes[0]))
            draws = self._backend.inference.prior_draws(self.model, num_draws, base)
            outputs = self._backend.inference.outputs(self.model, draws, network_x, self.model.rows_at_once)
        if derived:
            draws |= self._derived(draws)
        draws["y"] = self._targets(outputs, seed)
        return {name: value[None] for name, value in draws.items()}

    def to_arviz(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Everything in one ArviZ tree; see `ugmm_ppl.arviz.to_arviz` for the options."""
        from ugmm_ppl.arviz import to_arviz

        return to_arviz(self, x, y, **options)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the fit to one `.npz` file: arrays and a JSON description, no pickle, no training data."""
        storage.save(self, path)

    @property
    def _backend(self) -> Backend:
        return load_backend(self.backend)

    def _settings(self) -> Any:
        return self._backend.settings(dtype=self.dtype, device=self.device)

    def _derived(self, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`scale` and `weights` by site; not where a callable prior gives a site a meaning of its own."""
        plain = self.model.plain_sites()
        return natural_values({name: value for name, value in draws.items() if name in plain})

    def _pointwise(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """Log likelihood in the units of the likelihood, `(C, S, B)`, chain by chain in float64."""
        target = self.to_network_target(y)
        return np.stack([self.model.log_likelihood(chain.astype(np.float64), target) for chain in outputs])

    def _log_unit(self) -> float:
        """What a density loses on its way from the units of the likelihood to those of y."""
        return 0.0 if self.y_units is None else float(np.log(self.y_units.scale))

    def _targets(self, outputs: np.ndarray, seed: int | None) -> np.ndarray:
        """One y per output row, in the units of the data."""
        drawn = self.model.sample_target(outputs, np.random.default_rng(self.seed if seed is None else seed))
        return drawn if self.y_units is None else self.y_units.restore(drawn)

    def _log_prior(self, draws: dict[str, np.ndarray]) -> np.ndarray:
        """Log prior density of draws `(C, S, ...)`: `(C, S)`."""
        with self._settings():
            log_prior = self._backend.inference.log_prior
            return np.stack([log_prior(self.model, _chain(draws, c)) for c in range(self.num_chains)])

    def _checked_data(self, x: Any, y: Any) -> tuple[np.ndarray, np.ndarray]:
        """The given data, or the training data, as arrays."""
        x, y = self._training_data(x, y)
        x = checks.inputs(x, self.model.network.sizes[0])
        return x, self.model.check_target(y, len(x))

    def _count_draws(self, num_draws: int | None) -> int:
        if num_draws is not None:
            checks.count("num_draws", num_draws)
        if self.method == "map":
            return 1
        if self.method == "nuts":
            kept = next(iter(self.state[0].values())).shape[1]
            if num_draws is not None and num_draws > kept:
                raise ValueError(
                    f"num_draws must be at most {kept}, the draws that NUTS kept per chain; got {num_draws}."
                )
            return num_draws or kept
        return num_draws or NUM_DRAWS

    def _draws(self, indices: range, seed: int | None) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """Draws of the given numbers, `(C, S, ...)` by site, and their log q `(C, S)`."""
        if self.method == "nuts":
            drawn = {name: value[:, indices.start : indices.stop] for name, value in self.state[0].items()}
            leading = (self.num_chains, len(indices))
            held = {name: np.broadcast_to(value, (*leading, *value.shape)) for name, value in self.held.items()}
            return drawn | held, np.empty((0, 0))
        base = self.seed if seed is None else checks.count("seed", seed, least=0)
        with self._settings():
            chains = [
                self._backend.inference.guide_draws(self.family, params, indices, base + 1_000_003 * (c + 1))
                for c, params in enumerate(self.state)
            ]
        return {name: np.stack([values[name] for values, _ in chains]) for name in chains[0][0]}, np.stack(
            [q for _, q in chains]
        )

    def _training_data(self, x: Any, y: Any) -> tuple[Any, Any]:
        if x is None and y is None and self.train_x is not None:
            return self.train_x, self.train_y
        if x is None or y is None:
            raise ValueError(
                "x and y are needed: this fit was loaded from a file, which holds no training data. Give both."
            )
        return x, y


def _chain(draws: dict[str, np.ndarray], chain: int) -> dict[str, np.ndarray]:
    return {name: value[chain] for name, value in draws.items()}
