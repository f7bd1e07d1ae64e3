"""`Fit`: a fitted model; draws of its parameters, ArviZ, save and load. All arrays out are NumPy."""

from __future__ import annotations

import dataclasses
import math
import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.data.files import Target
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.fitting import storage
from ugmm_ppl.fitting.registry import fit_of
from ugmm_ppl.guides.guide import Guide, make_guide
from ugmm_ppl.guides.sites import inferred_sites, latent_sites, natural_values
from ugmm_ppl.infer.loop import Run
from ugmm_ppl.models.base import Model
from ugmm_ppl.posterior.predictive import Predictive

NUM_DRAWS = 500
"""Draws per chain from a guide where none are asked for."""


@fit_of(Model)
@dataclasses.dataclass(eq=False, kw_only=True, repr=False)
class Fit(Predictive):
    """A fitted model, made by `ugmm_ppl.fit` and `ugmm_ppl.load`; predictions are in `ugmm_ppl.posterior.predictive`.

    Attributes:
        model: The model.
        backend: "pyro" or "numpyro".
        method: "svi", "map", "laplace", "nuts" or "em".
        guide: A family, or families by pattern of site names.
        bayesian: What is inferred: "all", "readout", or site names and patterns.
        losses: Negative ELBO (or log joint) in nats by restart and step, `(restarts, steps)`; NaN after a run that
            ended early. It is minus `log_likelihoods` plus `kls` times the factor of the KL term.
        log_likelihoods: Log likelihood of each step's batch, multiplied by N / B, of the same shape.
        kls: KL(q || p) of each step, or minus the log prior density, of the same shape.
        scores: With `validation`, held-out log predictive density per row in nats, `(restarts, evaluations)`.
        score_steps: Steps taken at each evaluation.
        training: The settings of the training, as they were given.
        interrupted: Training was stopped from the keyboard.
        feature_names: Names of the K inputs.
        columns: Names by which the columns of a table are found; None takes them by position.
        class_names: Names of the classes, or None.
        state: Guide parameters of each restart; for "nuts" one dict of draws `(C, S, ...)`.
        held: For "nuts", values of the sites that are not inferred.
        stats: For "nuts", statistics per draw `(C, S)`.
        weighting: How the chains were weighed: "equal", "elbo" or "stacking".
        unequal_weights: Their weights `(C,)`, or None if they are equal.
        train_x, train_y: The data it was fitted to; None after `load`.
        row_weights: How often each of these rows counts `(N,)`, or None for once; kept by `save`.
    """

    model: Model
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
    columns: list[str] | None = None
    bayesian: str | Sequence[str] = "all"
    train_x: np.ndarray | None = None
    train_y: np.ndarray | None = None
    row_weights: np.ndarray | None = None
    state: list[dict[str, np.ndarray]] = dataclasses.field(default_factory=list)
    held: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    stats: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    losses: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    log_likelihoods: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    kls: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    scores: np.ndarray = dataclasses.field(default_factory=lambda: np.empty((0, 0)))
    score_steps: np.ndarray = dataclasses.field(default_factory=lambda: np.empty(0, int))
    training: dict[str, Any] = dataclasses.field(default_factory=dict)
    interrupted: bool = False
    weighting: str = "equal"
    unequal_weights: np.ndarray | None = None

    def __repr__(self) -> str:
        """One line: what was fitted, and how."""
        return f"Fit({self.model!r}, backend={self.backend!r}, method={self.method!r}, chains={self.num_chains})"

    @property
    def num_chains(self) -> int:
        """Number of chains C: restarts, or chains of NUTS."""
        return len(next(iter(self.state[0].values()))) if self.method == "nuts" else len(self.state)

    def keep(self, run: Run) -> None:
        """Take over what a training has reached."""
        self.state, self.interrupted = run.params, run.interrupted
        self.losses, self.log_likelihoods, self.kls = run.losses, run.log_likelihoods, run.kls
        self.scores, self.score_steps = run.scores, run.score_steps

    def points(self) -> list[dict[str, np.ndarray]]:
        """The centre of each restart's guide, unconstrained values by site; of "svi" and "map"."""
        if self.method == "nuts":
            raise ValueError("start must be a fit by 'svi' or 'map', whose restarts have a centre; got one by 'nuts'.")
        found = []
        with self._settings():
            for params in self.state:
                moments = self.family.moments({name: self._backend.array(value) for name, value in params.items()})
                found.append(
                    {name: self._backend.numpy(mean).astype(np.float64) for name, (mean, _) in moments.items()}
                )
        return found

    def network_data(self, x: Any = None, y: Any = None) -> tuple[np.ndarray, ...]:
        """The training data as the network and the likelihood see them: x, y and, if rows have them, weights.

        Rows of weight 0 are left out. `x` and `y` are the training data, if the fit does not hold them (after `load`).
        """
        x, y = self._training_data(x, y)
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
        return len(self._training_data(None, None)[0])

    @cached_property
    def family(self) -> Guide:
        """The guide over the latent sites of the model; needs no data."""
        return self._family_of_parameters()

    def _family_of_parameters(self) -> Guide:
        with self._settings():
            sites, _ = latent_sites(self._backend, self.model, self.model.template(), self.seed)
            inferred = inferred_sites(self.bayesian, sites, self.model.readout_sites)
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
        return self._log_prior(draws) + self.over_rows(self._pointwise(outputs, y))

    def prior_draws(
        self, x: Any, num_draws: int, *, derived: bool = False, seed: int | None = None
    ) -> dict[str, np.ndarray]:
        """Draws from the prior as one chain, `(1, S, ...)` by site, and `replicates` of the data."""
        base = self.seed if seed is None else seed
        with self._settings():
            network_x = self.to_network(self.check_inputs(x))
            draws = self._backend.inference.prior_draws(self.model, num_draws, base)
            outputs = self._backend.inference.outputs(self.model, draws, network_x, self.model.rows_at_once)
        if derived:
            draws |= self._derived(draws)
        one_chain = {name: value[None] for name, value in draws.items()}
        return one_chain | self.replicates(one_chain, outputs[None], seed)

    def evaluate(
        self, draws: dict[str, np.ndarray], x: np.ndarray, chunk_size: int, params: dict[str, np.ndarray] | None
    ) -> np.ndarray:
        """Outputs of the model `(S, B, O)`.

        Args:
            draws: Parameters `(S, ...)` by site.
            x: Inputs as the network sees them `(B, K)`.
            chunk_size: Rows at a time.
            params: Parameters of the guide that the draws come from, if there is one.
        """
        del params
        return self._backend.inference.outputs(self.model, draws, x, chunk_size)

    def replicates(self, draws: dict[str, np.ndarray], outputs: np.ndarray, seed: int | None) -> dict[str, np.ndarray]:
        """New data for every draw in the units of the data, `(C, S, B, ...)` by name.

        Args:
            draws: Parameters `(C, S, ...)` by site.
            outputs: What the model makes of the inputs with them, `(C, S, B, O)`.
            seed: Seed of the data.
        """
        del draws
        return {"y": self._targets(outputs, seed)}

    def to_arviz(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Everything in one ArviZ tree; see `ugmm_ppl.arviz.to_arviz` for the options."""
        from ugmm_ppl.arviz.tree import to_arviz

        return to_arviz(self, x, y, **options)

    def export(self, path: str | os.PathLike[str], x: Any = None, y: Any = None, **options: Any) -> None:
        """Write that tree to a netCDF file or Zarr folder, block by block; see `ugmm_ppl.arviz.export`."""
        from ugmm_ppl.arviz.stream import export

        export(self, path, x, y, **options)

    def diagnose(self, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Look for what is wrong with this fit; see `ugmm_ppl.diagnostics.diagnose` for the options."""
        from ugmm_ppl.diagnostics import diagnose

        return diagnose(self, x, y, **options)

    def report(self, path: Target, x: Any = None, y: Any = None, **options: Any) -> Any:
        """Write the report of this fit, one HTML file; see `ugmm_ppl.report.write_report` for the options."""
        from ugmm_ppl.report.page import write_report

        return write_report(self, path, x, y, **options)

    def save(self, path: Target) -> None:
        """Write the fit to one `.npz` file: arrays and a JSON description, no pickle, no training data.

        Args:
            path: A file, which is replaced when the new one is complete; or an open binary file, which gets it in one
                go.

        Raises:
            TypeError: Neither a path nor an open binary file.
        """
        storage.save(self, path)

    def to(self, device: str | int) -> Fit:
        """This fit, predicting on another device from now on: "cpu", "gpu", "cuda", "cuda:1" or 1.

        Raises:
            ValueError: The device is not there; the message lists what is.
        """
        self.device = self._backend.device_name(device)
        vars(self).pop("family", None)  # its constants are on the old device
        return self

    @property
    def _backend(self) -> Backend:
        return load_backend(self.backend)

    def _settings(self) -> Any:
        return self._backend.settings(dtype=self.dtype, device=self.device)

    def _derived(self, draws: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """`scale` and `weights` by site; not where a callable prior gives a site a meaning of its own."""
        plain = self.model.plain_sites()
        return natural_values({name: value for name, value in draws.items() if name in plain})

    def _log_prior(self, draws: dict[str, np.ndarray]) -> np.ndarray:
        """Log prior density of draws `(C, S, ...)`: `(C, S)`."""
        with self._settings():
            log_prior = self._backend.inference.log_prior
            return np.stack([log_prior(self.model, _chain(draws, c)) for c in range(self.num_chains)])

    def _count_draws(self, num_draws: int | None) -> int:
        num_draws = None if num_draws is None else checks.count("num_draws", num_draws)
        if self.method in ("map", "em"):
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
        base = self.seed if seed is None else checks.count("seed", seed, least=0)
        chains = [self._chain_draws(c, indices, base) for c in range(self.num_chains)]
        values = {name: np.stack([chain[name] for chain, _ in chains]) for name in chains[0][0]}
        return values, np.stack([log_q for _, log_q in chains])

    def _chain_draws(self, chain: int, indices: range, seed: int) -> tuple[dict[str, np.ndarray], np.ndarray]:
        """The same of one chain, `(S, ...)` and `(S,)`; "nuts" has no log q."""
        if self.method == "nuts":
            drawn = {name: value[chain, indices.start : indices.stop] for name, value in self.state[0].items()}
            held = {n: np.broadcast_to(value, (len(indices), *value.shape)) for n, value in self.held.items()}
            return drawn | held, np.empty(0)
        with self._settings():
            return self._backend.inference.guide_draws(
                self.family, self.state[chain], indices, seed + 1_000_003 * (chain + 1)
            )


def _chain(draws: dict[str, np.ndarray], chain: int) -> dict[str, np.ndarray]:
    return {name: value[chain] for name, value in draws.items()}
