"""Simulation-based calibration: does a method recover the parameters of data that the model itself made?

Parameters from the prior, data from the model under them, and draws from what the method takes for the posterior: if it
is the posterior, the rank of every parameter among its draws is uniform. Source: Talts et al. 2018, arXiv:1804.06788;
with the log likelihood as one more quantity, Modrák et al. 2023, arXiv:2211.02383; for variational guides, the symmetry
of the ranks, Yao et al. 2018, arXiv:1802.02538.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.checks.machine import require
from ugmm_ppl.data.joined import join
from ugmm_ppl.guides.base import FAMILIES
from ugmm_ppl.guides.guide import make_guide
from ugmm_ppl.guides.sites import latent_sites
from ugmm_ppl.infer.elbo import negative_elbo
from ugmm_ppl.infer.loop import Plan, train
from ugmm_ppl.infer.method import METHODS
from ugmm_ppl.infer.schedule import kl_weights, learning_rates
from ugmm_ppl.models import evaluation
from ugmm_ppl.typing import PerBin, PerDraw, SiteDraws

if TYPE_CHECKING:
    from ugmm_ppl.models.network import BaseNetworkModel

CALIBRATED = ("nuts", "svi")

MOST_QUANTITIES = 20
"""Parameters whose ranks are kept, evenly spaced over all."""


@dataclasses.dataclass(frozen=True)
class Calibration:
    """Ranks of simulation-based calibration.

    Attributes:
        ranks: By quantity, the number of posterior draws below the true value in every simulation `(N,)`, 0..num_draws.
        num_draws: Draws per simulation.
    """

    ranks: dict[str, PerDraw]
    num_draws: int

    def histogram(self, name: str, bins: int | None = None) -> PerBin:
        """Simulations by rank, in bins of equally many ranks; the number of bins divides num_draws + 1."""
        bins = self._bins() if bins is None else bins
        return np.bincount(self.ranks[name] * bins // (self.num_draws + 1), minlength=bins)

    @property
    def p_values(self) -> dict[str, float]:
        """By quantity, the p-value of a chi-square test that the ranks are uniform."""
        stats = require("scipy.stats", "diagnostics", ("scipy",))
        return {name: float(stats.chisquare(self.histogram(name)).pvalue) for name in self.ranks}

    @property
    def p_value(self) -> float:
        """That no rank is other than uniform: the smallest p-value times their number (Bonferroni), at most 1."""
        return min(1.0, len(self.ranks) * min(self.p_values.values()))

    @property
    def symmetry(self) -> dict[str, float]:
        """By quantity, the p-value of a Kolmogorov-Smirnov test that ranks are symmetric: a guide without bias.

        Ranks of a mean-field guide are rarely uniform, as it is too narrow; asymmetry says that its centre is off.
        """
        stats = require("scipy.stats", "diagnostics", ("scipy",))
        return {n: float(stats.ks_2samp(r, self.num_draws - r, method="asymp").pvalue) for n, r in self.ranks.items()}

    def _bins(self) -> int:
        """The largest divisor of num_draws + 1 that leaves at least five simulations in a bin, on average."""
        total, count = self.num_draws + 1, len(next(iter(self.ranks.values())))
        return max(n for n in range(1, total + 1) if total % n == 0 and (n <= max(2, count // 5)))


def sbc(
    model: BaseNetworkModel,
    x: Any,
    *,
    fitted: BaseNetworkModel | None = None,
    num_simulations: int = 200,
    num_draws: int = 31,
    method: str = "nuts",
    backend: str = "numpyro",
    guide: str | Mapping[str, str] = "normal",
    num_warmup: int = 200,
    thin: int = 5,
    max_tree_depth: int = 8,
    num_steps: int = 1000,
    learning_rate: float = 0.03,
    seed: int = 0,
    progress: bool = True,
    **extras: Any,
) -> Calibration:
    """Simulation-based calibration of a method on a model; all simulations run side by side.

    Args:
        model: The model that makes the data.
        x: Inputs `(B, K)` as the network is to see them: nothing is standardised.
        fitted: The model whose posterior is drawn from; None is the same. Another one shows what calibration catches.
        num_simulations: Simulations N.
        num_draws: Draws L of each that are ranked; L + 1 with many divisors is best.
        method: "nuts", or "svi" (variational SBC).
        backend: "pyro" or "numpyro".
        guide: Guide of "svi".
        num_warmup: Adaptation steps of "nuts".
        thin: "nuts" takes this many draws for each that is ranked; ranks of dependent draws are not uniform.
        max_tree_depth: Of "nuts".
        num_steps: Steps of "svi".
        learning_rate: Of "svi".
        seed: Seed of everything random.
        progress: Show a progress bar.
        extras: Extra columns of the rows, such as `trials`.

    Raises:
        ValueError, TypeError: Bad inputs or settings.
    """
    sampler = METHODS[checks.choice("method", method, CALIBRATED)].markov
    num_simulations, num_draws = checks.count("num_simulations", num_simulations), checks.count("num_draws", num_draws)
    num_warmup, thin = checks.count("num_warmup", num_warmup), checks.count("thin", thin)
    max_tree_depth, num_steps = checks.count("max_tree_depth", max_tree_depth), checks.count("num_steps", num_steps)
    learning_rate, seed = checks.number("learning_rate", learning_rate, 0.0), checks.count("seed", seed, least=0)
    families = checks.guide(guide, FAMILIES)
    x, fitted = checks.inputs(x, model.num_inputs), fitted or model
    x = np.asarray(join(x, model.check_extras(extras, len(x))))
    primitives = load_backend(backend)
    dtype = METHODS[method].dtype
    with primitives.settings(dtype=dtype, device="cpu"):
        truth = evaluation.prior_draws(primitives, model, num_simulations, seed)
        outputs = evaluation.outputs(primitives, model, truth, x, len(x)).astype(np.float64)
        y = model.likelihood.sample(outputs, np.random.default_rng(seed))
        starts = _starts(primitives, fitted, truth, seed)
        total = num_warmup + num_draws * thin if sampler else num_steps
        with Progress(total, f"{method}, {num_simulations} simulations", show=progress) as bar:
            if sampler:
                drawn = primitives.inference.nuts(
                    functools.partial(fitted, primitives), (x, y), starts, data_size=float(len(x)),
                    num_warmup=num_warmup, num_draws=num_draws * thin, max_tree_depth=max_tree_depth, seed=seed,
                    progress=bar, own_targets=True,
                )  # fmt: skip
                draws = {name: value[:, thin - 1 :: thin] for name, value in drawn.values.items()}
            else:
                rates = learning_rates(num_steps, learning_rate)
                draws = _guides(primitives, fitted, (x, y), starts, families, rates, num_draws, seed, bar)
        found = {name: _ranks(*pair) for name, pair in _entries(draws, truth).items()}
        likelihood = np.empty((num_simulations, num_draws))
        for i in range(num_simulations):
            own = {name: value[i] for name, value in draws.items()}
            simulated = evaluation.outputs(primitives, model, own, x, len(x))
            likelihood[i] = model.log_likelihood(simulated.astype(np.float64), y[i]).sum(-1)
        true = np.array([model.log_likelihood(outputs[i], y[i]).sum() for i in range(num_simulations)])
    found["log_likelihood"] = _ranks(likelihood, true)
    return Calibration(found, num_draws)


def _ranks(draws: np.ndarray, true: np.ndarray) -> np.ndarray:
    """Draws `(N, L)` below the true values `(N,)`."""
    return (draws < true[:, None]).sum(1)


def _entries(draws: SiteDraws, truth: Mapping[str, np.ndarray]) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Draws `(N, L)` and true values `(N,)` of some parameters, named like `readout.bias[0]`."""
    found = {}
    for name, value in draws.items():
        for index in np.ndindex(value.shape[2:]):
            place = ",".join(map(str, index))
            found[f"{name}[{place}]"] = (value[(slice(None), slice(None), *index)], truth[name][(slice(None), *index)])
    kept = np.unique(np.linspace(0, len(found) - 1, MOST_QUANTITIES).round().astype(int))
    return {name: pair for i, (name, pair) in enumerate(found.items()) if i in kept}


def _starts(
    backend: Backend, model: BaseNetworkModel, truth: Mapping[str, np.ndarray], seed: int
) -> list[dict[str, np.ndarray]]:
    """Unconstrained start values of every simulation: the true values of the one before it."""
    sites, _ = latent_sites(backend, model, model.template(), seed)
    values = {}
    for name, site in sites.items():
        rolled = np.roll(truth[name], 1, axis=0)
        array = backend.array(rolled)
        values[name] = rolled if site.bijector is None else np.asarray(site.bijector.unconstrain(array))
    return [{name: value[i] for name, value in values.items()} for i in range(len(rolled))]


def _guides(
    backend: Backend,
    model: BaseNetworkModel,
    data: tuple[np.ndarray, np.ndarray],
    starts: list[dict[str, np.ndarray]],
    families: Mapping[str, str],
    rates: np.ndarray,
    num_draws: int,
    seed: int,
    bar: Progress,
) -> dict[str, np.ndarray]:
    """Draws `(N, L, ...)` of guides that are trained side by side: restarts, each of which sees its own rows."""
    x, y = data
    count, rows = y.shape
    sites, _ = latent_sites(backend, model, model.template(), seed)
    rank = min(10, sum(math.prod(site.shape) for site in sites.values()))
    guide = make_guide(families, backend, sites, init_scale=0.05, rank=rank)
    objective = functools.partial(negative_elbo, backend, functools.partial(model, backend), guide, data_size=rows)
    trainer = backend.trainer(
        objective, guide.noise_shapes(), (np.tile(x, (count, 1)), y.ravel()), [seed + i for i in range(count)],
        optimizer="adam", clip_norm=None, num_particles=1, split_batch=False,
    )  # fmt: skip
    plan = Plan(rates, kl_weights(len(rates), 1.0, 0.0), lambda i, _: np.arange(i * rows, (i + 1) * rows), None)
    run = train(trainer, [guide.initial(start) for start in starts], plan, progress=bar)
    drawn = [guide.draws(backend, params, range(num_draws), seed + i)[0] for i, params in enumerate(run.params)]
    return {name: np.stack([each[name] for each in drawn]) for name in drawn[0]}
