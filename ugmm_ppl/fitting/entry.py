"""`fit`: from a model and data to a posterior, by a method of `ugmm_ppl.infer` on either backend."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.checks.data import names_of
from ugmm_ppl.data.standardizer import Standardizer, as_seen, no_variance, repeated
from ugmm_ppl.fitting import storage
from ugmm_ppl.fitting.registry import fit_type
from ugmm_ppl.fitting.result import Fit
from ugmm_ppl.guides.base import FAMILIES
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.guides.sites import latent_sites
from ugmm_ppl.infer.checkpoint import Checkpoint, digest
from ugmm_ppl.infer.loop import OPTIMIZERS, Moment
from ugmm_ppl.infer.method import Task, by_name
from ugmm_ppl.infer.settings import Settings
from ugmm_ppl.models.base import Model

STARTS = ("data", "map")

_Data: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray | None]

EVALUATION_DRAWS = 16
"""Draws of the guide in a held-out score."""


def fit(
    model: Model,
    x: Any,
    y: Any = None,
    *,
    weights: Any = None,
    backend: str = "numpyro",
    method: str = "svi",
    guide: str | Mapping[str, str] = "normal",
    bayesian: str | Sequence[str] = "all",
    num_steps: int = 2000,
    batch_size: int | None = None,
    learning_rate: float = 0.01,
    num_restarts: int = 1,
    start: str | Fit = "data",
    optimizer: Any = "adam",
    schedule: str | Callable[[float], float] = "one-cycle",
    clip_norm: float | None = None,
    num_particles: int = 1,
    split_batch: bool = False,
    temperature: float = 1.0,
    kl_warmup: float = 0.0,
    validation: float | tuple[Any, Any] | None = None,
    patience: int | None = None,
    checkpoint: str | os.PathLike[str] | None = None,
    every: int = 500,
    callbacks: Sequence[Callable[[Moment], Any]] = (),
    init_scale: float = 0.05,
    rank: int = 10,
    num_chains: int = 4,
    num_warmup: int = 500,
    num_draws: int = 500,
    max_tree_depth: int = 10,
    seed: int = 0,
    device: str | int = "cpu",
    dtype: str | None = None,
    standardize: bool | str = True,
    feature_names: Any = None,
    class_names: Any = None,
    progress: bool = True,
) -> Fit:
    """Fit a model to data.

    "svi" minimises the negative ELBO over a Gaussian family, "map" finds the maximum of the joint density, "laplace"
    puts a Gaussian around it by the curvature there (`ugmm_ppl.infer.laplace`), "nuts" samples the posterior. "em" is
    expectation and maximisation for a `Circuit` (`ugmm_ppl.circuit.em`); its learning rate is the fraction of a step
    that is taken. The likelihood of a mini-batch is multiplied by N / B, once, so that losses are in nats of the whole
    data set.

    Args:
        model: `Classifier`, `Regressor`, `NetworkModel` of any likelihood, `JointScore`, `Circuit` or `LatentNetwork`.
        x: Inputs `(N, K)`, finite; for a `Circuit` NaN where missing. An array or tensor of any real numbers, or a
            table: a frame of pandas, polars, pyarrow or xarray, a structured array, a dict of columns. Names of its
            columns are taken, and tables to come may have them in another order.
        y: Class codes 0..classes-1, or real targets, `(N,)`. For a `Circuit` or `LatentNetwork` -1 where the class is
            not known, or None.
        weights: How often each row counts `(N,)`, at least 0: its log likelihood is multiplied by it, and it counts as
            often for means and scales. A row of weight 2 is the same as two rows, one of weight 0 is left out, and
            weights that sum to N leave the prior its influence. None counts every row once.
        backend: "pyro" or "numpyro".
        method: "svi", "map", "laplace", "em" or "nuts".
        guide: Gaussian family of "svi" and "laplace": "normal" (mean field), "full", "lowrank" ("svi" only), or "delta"
            (a point, the same as method="map"); or a mapping from patterns of site names to families, e.g.
            `{"readout.*": "full", "*": "normal"}`: one independent block per pattern, over the sites that it is the
            first to match. A full block has at most 4096 entries.
        bayesian: Sites that are inferred: "all", "readout", or a list of site names and patterns. All others are held
            at a point: for "svi" and "laplace" one that is optimised with its prior, for "nuts" their start value.
        num_steps: Steps of "svi", "map" and "laplace".
        batch_size: Rows of a mini-batch; None for all. "nuts" always takes all.
        learning_rate: Peak of the learning rate.
        num_restarts: Independent runs of "svi" or "map", side by side; their draws become chains.
        start: Where every run or chain begins: "data" (values drawn to fit the inputs), "map" (a MAP from there, by the
            same training settings), or a `Fit` of the same model by "svi" or "map", whose restarts are gone through.
        optimizer: "adam", "sgd" (momentum 0.9), for "pyro" also a function of parameters that makes a
            `torch.optim.Optimizer`, for "numpyro" also an `optax.GradientTransformation` made with learning rate 1.
        schedule: "one-cycle" (a rise over 5 % of the steps, then a cosine to 1 %), "cosine", "constant", or a function
            of the fraction done that gives the factor of the learning rate.
        clip_norm: Largest norm of the gradient over all parameters; None for no limit.
        num_particles: Draws of the guide that a step averages over.
        split_batch: Deal the batch to the particles: each draw sees its own part, so that a step costs hardly more than
            one draw. The size of the batch is lowered to a multiple of their number.
        temperature: Factor of the KL term (a cold posterior below 1); 1 is Bayes' rule.
        kl_warmup: Share of the steps over which the factor of the KL term rises from 0 to the temperature, in [0, 1).
        validation: Held-out data whose log predictive density is watched: a share of the rows, drawn by the seed, or
            (x, y) or (x, y, weights). The parameters of the best of some 50 evaluations are kept. A share is not
            trained on.
        patience: Evaluations without a better one, of every restart, after which training ends; needs `validation`.
        checkpoint: An `.npz` file for all that a training needs to go on. If it is there, the fit goes on from it, and
            ends with the same bits as one that was never stopped.
        every: Steps between two checkpoints.
        callbacks: Functions that are called with a `ugmm_ppl.infer.loop.Moment` after every block of steps. One that
            returns True ends the training.
        init_scale: Start scale of the guide, in unconstrained units.
        rank: Rank of the "lowrank" guide.
        num_chains: Chains of "nuts".
        num_warmup: Adaptation steps of "nuts".
        num_draws: Draws per chain that "nuts" keeps.
        max_tree_depth: "nuts" takes at most 2^max_tree_depth - 1 leapfrog steps per draw.
        seed: Seed of everything random. The same seed on the same machine gives the same result.
        device: "cpu", "gpu", "cuda", "cuda:1" or the number of a GPU. Data are moved there once.
        dtype: "float32" or "float64"; None is "float64" for "nuts" and "float32" otherwise.
        standardize: True standardises each column of x, "jointly" all columns by one mean and scale (pixels), False
            none. With either the target of a regressor is standardised too. Predictions are in the user's units.
        feature_names: Names of the K inputs. Of a table with names these choose the columns, or rename all of them.
        class_names: Names of the classes.
        progress: Show a progress bar.

    Returns:
        A `Fit`. If training is interrupted from the keyboard it holds what was reached, and `interrupted` is true.

    Raises:
        ValueError, TypeError: Bad data or settings; the message says what is needed.
        NonFiniteError: A loss or gradient was not finite, and not with a tenth of the learning rate either; its
            attribute `fit` holds the last good state.
        CheckpointError: A checkpoint could not be written; its attribute `fit` holds what was reached.
    """
    checks.known_model(model, Model)
    backend, guide, bayesian = (checks.plain(word) for word in (backend, guide, bayesian))
    families = checks.guide(guide, FAMILIES)
    way = by_name(method).chosen(families)
    way.refuse(model, families, bayesian, weighted=weights is not None)
    dtype = checks.choice("dtype", dtype or way.dtype, ("float32", "float64"))
    num_steps, num_restarts = checks.count("num_steps", num_steps), checks.count("num_restarts", num_restarts)
    num_chains, num_warmup = checks.count("num_chains", num_chains), checks.count("num_warmup", num_warmup)
    num_draws, max_tree_depth = checks.count("num_draws", num_draws), checks.count("max_tree_depth", max_tree_depth)
    rank, num_particles = checks.count("rank", rank), checks.count("num_particles", num_particles)
    every, seed = checks.count("every", every), checks.count("seed", seed, least=0)
    batch_size = None if batch_size is None else checks.count("batch_size", batch_size)
    patience = None if patience is None else checks.count("patience", patience)
    learning_rate = checks.number("learning_rate", learning_rate, 0.0)
    temperature = checks.number("temperature", temperature, 0.0)
    init_scale = checks.number("init_scale", init_scale, 0.0)
    clip_norm = None if clip_norm is None else checks.number("clip_norm", clip_norm, 0.0)
    kl_warmup = checks.number("kl_warmup", kl_warmup, 0.0, 1.0, closed_low=True)
    split_batch, progress = checks.flag("split_batch", split_batch), checks.flag("progress", progress)
    standardize = checks.plain(standardize)
    checks.optimizer(optimizer, backend, OPTIMIZERS)
    checks.training(way.markov, validation, patience, checkpoint, callbacks)
    if not isinstance(start, Fit):
        checks.choice("start", start, STARTS)
    primitives = load_backend(backend)
    device = primitives.device_name(device)
    with primitives.settings(dtype=dtype, device=device):
        columns, feature_names = checks.training_names(x, feature_names)
        x = model.check_inputs(x, names=columns)
        model.check_training(x)
        y = model.check_target(y, len(x))
        weights = checks.row_weights(weights, len(x))
        features = names_of(feature_names, x.shape[1], "x", "feature_names")
        classes = _class_names(class_names, model.likelihood.num_classes)
        x_units, y_units = _units(
            model, standardize, x, y if model.likelihood.standardizes else None, weights, features
        )
        as_seen(_counted(x, weights), x_units, dtype, observed=model.observed == "x")
        if model.likelihood.standardizes:
            as_seen(_counted(y, weights), y_units, dtype, observed=True, what="y")
        (x, y, weights), held_out = _split(validation, model, (x, y, weights), seed, columns)
        result = fit_type(model)(
            model=model, backend=backend, method=way.name, dtype=dtype, bayesian=bayesian, device=device,
            guide=way.family or (guide if isinstance(guide, str) else families),
            seed=seed, temperature=temperature, init_scale=init_scale, rank=rank, x_units=x_units,
            y_units=y_units, feature_names=features, columns=columns, class_names=classes, train_x=x, train_y=y,
            row_weights=weights,
        )  # fmt: skip
        settings = Settings(
            num_chains=num_chains if way.chains == "num_chains" else num_restarts, num_steps=num_steps,
            batch_size=_batch_size(batch_size, result.num_rows, num_particles if split_batch else 1),
            learning_rate=learning_rate, schedule=schedule, optimizer=optimizer, clip_norm=clip_norm,
            num_particles=num_particles, split_batch=split_batch, kl_warmup=kl_warmup, held_out=held_out,
            patience=patience, start=start, checkpoint=None if checkpoint is None else Path(checkpoint), every=every,
            callbacks=callbacks, num_warmup=num_warmup, num_draws=num_draws, max_tree_depth=max_tree_depth,
            progress=progress,
        )  # fmt: skip
        _run(result, settings)
    return result


def _run(fit: Fit, settings: Settings) -> None:
    """Run the method of a fit, which keeps what it reaches."""
    way = fit.inference
    fit.training = {} if way.markov else settings.described()
    task = Task(
        backend=fit.primitives, model=fit.model, guide=fit.family, data=fit.network_data(),
        starts=_starts(fit, settings), settings=settings, seed=fit.seed, temperature=fit.temperature,
        scorer=functools.partial(_scorer, fit, settings.held_out), checkpoint=_checkpoint(fit, settings),
    )  # fmt: skip
    try:
        reached = way.run(task)
    except checks.CheckpointError as error:
        fit.keep(error.reached)
        error.fit = fit
        raise
    fit.keep(reached)
    if reached.failed:
        raise checks.NonFiniteError(*reached.failed, fit)


def _class_names(given: Any, count: int | None) -> list[str] | None:
    """Names of the classes, if there are any."""
    return None if count is None else names_of(given, count, "", "class_names")


def _batch_size(asked: int | None, rows: int, parts: int) -> int:
    """Rows of a batch, a multiple of the number of its parts."""
    size = min(asked or rows, rows)
    checks.split_batch(size, parts)
    return size // parts * parts


def _split(
    validation: Any, model: Model, data: _Data, seed: int, columns: list[str] | None
) -> tuple[_Data, tuple[np.ndarray, ...] | None]:
    """(x, y, weights or None), and of held-out rows x, y and weights if there are any, or None."""
    x, y, weights = data
    if validation is None:
        return data, None
    checks.held_out_pair(validation)
    if isinstance(validation, tuple | list):
        held_x = model.check_inputs(validation[0], what="validation[0]", names=columns)
        held = (held_x, model.check_target(validation[1], len(held_x)))
        own = checks.row_weights(validation[2] if len(validation) == 3 else None, len(held_x), "validation[2]")
        return data, held if own is None else (*held, own)
    count = checks.held_out_rows(validation, len(x))
    order = np.random.default_rng([seed, len(x)]).permutation(len(x))
    held_rows, kept = np.sort(order[:count]), np.sort(order[count:])
    if weights is None:
        return (x[kept], y[kept], None), (x[held_rows], y[held_rows])
    checks.held_out_weights(weights[held_rows], weights[kept])
    return (x[kept], y[kept], weights[kept]), (x[held_rows], y[held_rows], weights[held_rows])


def _scorer(fit: Fit, held_out: tuple[np.ndarray, ...] | None, guide: Guide) -> Callable[..., np.ndarray] | None:
    """Log predictive density of held-out data per row, in nats and the units of y, for parameters of every restart."""
    if held_out is None:
        return None
    backend, model = fit.primitives, fit.model
    weights = held_out[2] if len(held_out) == 3 else None
    x, y = fit.to_network(held_out[0], what="validation[0]"), fit.to_network_target(held_out[1])
    draws = range(EVALUATION_DRAWS if guide.noise_shapes() else 1)

    def score(params: dict[str, np.ndarray]) -> float:
        values, _ = guide.draws(backend, params, draws, fit.seed)
        outputs = fit.evaluate(values, x, model.rows_at_once, params).astype(np.float64)
        log_density = np.logaddexp.reduce(model.log_likelihood(outputs, y), axis=0) - np.log(len(draws))
        mean = float(np.average(log_density - fit.log_unit(held_out[0]), weights=weights))
        return -np.inf if np.isnan(mean) else mean

    return lambda params: np.array([score(each) for each in params])


def _checkpoint(fit: Fit, settings: Settings) -> Checkpoint | None:
    """Where the training is stored, with what it must have been begun with."""
    if settings.checkpoint is None:
        return None
    names = ("backend", "method", "guide", "bayesian", "dtype", "device", "seed", "temperature", "init_scale", "rank")
    described = {name: getattr(fit, name) for name in names} | settings.described()
    described |= {"model": storage.describe_model(fit.model), "data": digest(*fit.network_data())}
    return Checkpoint(settings.checkpoint, settings.every, described)


def _starts(fit: Fit, settings: Settings) -> list[dict[str, np.ndarray]]:
    """Unconstrained start values of every restart or chain."""
    if settings.start == "map":
        first = dataclasses.replace(fit, method="map", guide="delta", bayesian="all")
        path = settings.checkpoint
        path = None if path is None else path.with_suffix(f".map{path.suffix}")
        _run(first, dataclasses.replace(settings, start="data", checkpoint=path))
        return first.points()
    if isinstance(settings.start, Fit):
        points = settings.start.points()
        checks.start_sites(points[0], fit.family.sites)
        return [points[restart % len(points)] for restart in range(settings.num_chains)]
    x, _, *weights = fit.network_data()
    x = repeated(x, *weights)
    return [_start(fit, x, fit.seed + restart) for restart in range(settings.num_chains)]


def _counted(a: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """The values of rows that count, NaN in place of those that do not."""
    return a if weights is None else np.where((weights > 0.0).reshape(-1, *[1] * (a.ndim - 1)), a, np.nan)


def _units(
    model: Model,
    standardize: bool | str,
    x: np.ndarray,
    y: np.ndarray | None,
    weights: np.ndarray | None,
    features: list[str],
) -> tuple[Standardizer | None, Standardizer | None]:
    """What standardises x, and y if it is given."""
    checks.standardize(standardize)
    if standardize is False:
        return None, None
    if weights is not None:
        counted = weights > 0.0
        x, y, weights = x[counted], None if y is None else y[counted], weights[counted]
    if standardize is True:
        checks.constant_columns(no_variance(x), features)
    x_units = model.units(x, jointly=standardize == "jointly", weights=weights)
    return x_units, None if y is None else Standardizer.of(y, weights=weights)


def _start(fit: Fit, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Unconstrained start values of one run, for inputs as the network sees them."""
    return latent_sites(fit.primitives, fit.model, fit.model.initial_values(x, seed), seed)[1]
