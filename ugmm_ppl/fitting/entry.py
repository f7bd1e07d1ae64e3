"""`fit`: from a model and data to a posterior, by a method of `ugmm_ppl.infer` on either backend."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.checks.data import names_of
from ugmm_ppl.data.joined import join
from ugmm_ppl.data.standardizer import Standardizer, as_seen, no_variance, repeated
from ugmm_ppl.fitting import storage
from ugmm_ppl.fitting.registry import fit_type
from ugmm_ppl.fitting.result import Fit
from ugmm_ppl.fitting.signature import with_settings
from ugmm_ppl.guides.guide import Guide
from ugmm_ppl.guides.sites import latent_sites
from ugmm_ppl.infer.checkpoint import Checkpoint, digest
from ugmm_ppl.infer.method import METHODS, Method, Task, by_name
from ugmm_ppl.infer.settings import Settings, Stepwise
from ugmm_ppl.likelihoods.base import EXTRAS
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.typing import PerRow, Rows

_Data: TypeAlias = tuple[np.ndarray, np.ndarray, np.ndarray | None]

EVALUATION_DRAWS = 16
"""Draws of the guide in a held-out score."""


@with_settings
def fit(
    model: BaseModel,
    x: Any,
    y: Any = None,
    *,
    weights: Any = None,
    backend: str = "numpyro",
    method: str = "svi",
    bayesian: str | Sequence[str] = "all",
    seed: int = 0,
    device: str | int = "cpu",
    dtype: str | None = None,
    standardize: bool | str = True,
    feature_names: Any = None,
    class_names: Any = None,
    progress: bool = True,
    **settings: Any,
) -> Fit:
    """Fit a model to data.

    "svi" minimises the negative ELBO over a Gaussian family, "map" finds the maximum of the joint density, "laplace"
    puts a Gaussian around it by the curvature there (`ugmm_ppl.infer.laplace`). "nuts" samples the posterior, "sghmc"
    does on mini-batches (`ugmm_ppl.infer.sghmc`). "em" is expectation and maximisation for a `Circuit`
    (`ugmm_ppl.circuit.em`). The likelihood of a mini-batch is multiplied by N / B, once, so that losses are in nats of
    the whole data set.

    Args:
        model: `Classifier`, `Regressor`, `Model` of any likelihood, `JointScore`, `Circuit` or `LatentNetwork`.
        x: Inputs `(N, K)`, finite; for a `Circuit` NaN where missing. An array or tensor of any real numbers, or a
            table: a frame of pandas, polars, pyarrow or xarray, a structured array, a dict of columns. Names of its
            columns are taken, and tables to come may have them in another order.
        y: Class codes 0..classes-1, or real targets, `(N,)`. For a `Circuit` or `LatentNetwork` -1 where the class is
            not known, or None.
        weights: How often each row counts `(N,)`, at least 0: its log likelihood is multiplied by it, and it counts as
            often for means and scales. A row of weight 2 is the same as two rows, one of weight 0 is left out, and
            weights that sum to N leave the prior its influence. None counts every row once.
        backend: "pyro" or "numpyro".
        method: "svi", "map", "laplace", "em", "nuts" or "sghmc".
        bayesian: Sites that are inferred: "all", "readout", or a list of site names and patterns. All others are held
            at a point: for "svi" and "laplace" one that is optimised with its prior, for samplers their start
            value.
        seed: Seed of everything random. The same seed on the same machine gives the same result.
        device: "cpu", "gpu", "cuda", "cuda:1" or the number of a GPU. Data are moved there once.
        dtype: "float32" or "float64"; None is "float64" for "nuts" and "float32" otherwise.
        standardize: True standardises each column of x, "jointly" all columns by one mean and scale (pixels), False
            none. With either the target of a regressor is standardised too. Predictions are in the user's units.
        feature_names: Names of the K inputs. Of a table with names these choose the columns, or rename all of them.
        class_names: Names of the classes.
        progress: Show a progress bar.
        settings: What the method has of the following; one that it does not have is refused.

    Returns:
        A `Fit`. If training is interrupted from the keyboard it holds what was reached, and `interrupted` is true.

    Raises:
        ValueError, TypeError: Bad data or settings; the message says what is needed.
        NonFiniteError: A loss or gradient was not finite, and not with a tenth of the learning rate either; its
            attribute `fit` holds the last good state.
        CheckpointError: A checkpoint could not be written; its attribute `fit` holds what was reached.
    """
    checks.known_model(model, BaseModel)
    extras = {name: settings.pop(name) for name in EXTRAS if name in settings}
    extras = {name: values for name, values in extras.items() if values is not None}
    backend, bayesian = checks.plain(backend), checks.plain(bayesian)
    way = by_name(method)
    own, first = _settings(way, settings, backend)
    way = way.chosen(own.families)
    way.refuse(model, own.families, bayesian, weighted=weights is not None)
    dtype = checks.choice("dtype", dtype or way.dtype, ("float32", "float64"))
    seed, progress = checks.count("seed", seed, least=0), checks.flag("progress", progress)
    standardize = checks.plain(standardize)
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
        x_units, y_units = _units(model, standardize, x, y, weights, features)
        as_seen(_counted(x, weights), x_units, dtype, observed=model.observed == "x")
        beside = model.check_extras(extras, len(x))
        model.likelihood.check_extras(y, beside)
        x = join(x, beside)
        if model.likelihood.standardizes:
            as_seen(_counted(y, weights), y_units, dtype, observed=True, what="y")
        validation = next((each.validation for each in (own, first) if isinstance(each, Stepwise)), None)
        checks.held_out_extras(validation, extras)
        (x, y, weights), held_out = _split(validation, model, (x, y, weights), seed, columns)
        names = ("guide", "temperature", "init_scale", "rank")
        kept = {name: getattr(own, name) for name in names if hasattr(own, name)}
        kept |= {} if way.family is None else {"guide": way.family}
        result = fit_type(model)(
            model=model, backend=backend, method=way.name, dtype=dtype, bayesian=bayesian, device=device,
            seed=seed, x_units=x_units, y_units=y_units,
            feature_names=features, columns=columns, extras=tuple(extras), class_names=classes,
            train_x=x, train_y=y, row_weights=weights,
            **kept,
        )  # fmt: skip
        _run(result, own, first, held_out, progress=progress)
    return result


def _settings(way: Method, given: Mapping[str, Any], backend: str) -> tuple[Settings, Settings | None]:
    """Checked settings of a method and, where it starts at a MAP, of that."""
    at_map = isinstance(given.get("start"), str) and given["start"] == "map"
    known = {*way.settings.names(), *(METHODS["map"].settings.names() if at_map else ())}
    for name in given:
        if name not in known:
            having = [each.name for each in METHODS.values() if name in each.settings.names()]
            raise checks.no_setting(name, way.name, having, inspect.signature(fit).parameters)
    own = way.settings.of(given)
    own.check(backend)
    if not at_map:
        return own, None
    shared = {**given, "start": "data", "num_restarts": own.num_runs}
    if given.get("checkpoint") is not None:
        path = Path(checks.checkpoint_path("checkpoint", given["checkpoint"]))
        shared["checkpoint"] = path.with_suffix(f".map{path.suffix}")
    first = METHODS["map"].settings.of(shared)
    first.check(backend)
    return own, first


def _run(
    fit: Fit, settings: Settings, first: Settings | None, held_out: tuple[np.ndarray, ...] | None, *, progress: bool
) -> None:
    """Run the method of a fit, which keeps what it reaches; `first` are the settings of a MAP that it begins at."""
    settings = settings.for_rows(fit.num_rows)
    described = settings.described() | ({"validation": digest(*held_out)} if held_out is not None else {})
    fit.training = described
    task = Task(
        backend=fit.primitives, model=fit.model, guide=fit.family, data=fit.network_data(),
        starts=_starts(fit, settings, first, held_out, progress=progress), settings=settings, seed=fit.seed,
        scorer=functools.partial(_scorer, fit, held_out), checkpoint=_checkpoint(fit, settings), progress=progress,
    )  # fmt: skip
    try:
        reached = fit.inference.run(task)
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


def _split(
    validation: Any, model: BaseModel, data: _Data, seed: int, columns: list[str] | None
) -> tuple[_Data, tuple[np.ndarray, ...] | None]:
    """(x, y, weights or None), and of held-out rows x, y and weights if there are any, or None."""
    x, y, weights = data
    if validation is None:
        return data, None
    checks.held_out_pair(validation)
    if isinstance(validation, tuple | list):
        held_x = model.check_inputs(validation[0], what="validation[0]", names=columns)
        beside = model.check_extras({}, len(held_x))
        held_x = join(held_x, beside)
        held = (held_x, model.check_target(validation[1], len(held_x)))
        model.likelihood.check_extras(held[1], beside)
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
    if not isinstance(settings, Stepwise) or settings.file is None:
        return None
    names = ("backend", "method", "guide", "bayesian", "dtype", "device", "seed")
    described = {name: getattr(fit, name) for name in names} | fit.training
    described |= {"model": storage.describe_model(fit.model), "data": digest(*fit.network_data())}
    return Checkpoint(settings.file, settings.every, described)


def _starts(
    fit: Fit, settings: Settings, first: Settings | None, held_out: tuple[np.ndarray, ...] | None, *, progress: bool
) -> list[dict[str, np.ndarray]]:
    """Unconstrained start values of every restart or chain."""
    if first is not None:
        at_map = dataclasses.replace(fit, method="map", guide="delta", bayesian="all")
        _run(at_map, first, None, held_out, progress=progress)
        return at_map.points()
    if isinstance(settings.start, Fit):
        points = settings.start.points()
        checks.start_sites(points[0], fit.family.sites)
        return [points[restart % len(points)] for restart in range(settings.num_runs)]
    x, _, *weights = fit.network_data()
    x = repeated(x, *weights)
    return [_start(fit, x, fit.seed + restart) for restart in range(settings.num_runs)]


def _counted(a: np.ndarray, weights: np.ndarray | None) -> np.ndarray:
    """The values of rows that count, NaN in place of those that do not."""
    return a if weights is None else np.where((weights > 0.0).reshape(-1, *[1] * (a.ndim - 1)), a, np.nan)


def _units(
    model: BaseModel,
    standardize: bool | str,
    x: Rows,
    y: PerRow,
    weights: np.ndarray | None,
    features: list[str],
) -> tuple[Standardizer | None, Standardizer | None]:
    """What standardises x, and y if the likelihood standardises it."""
    checks.standardize(standardize)
    if standardize is False:
        return None, None
    if weights is not None:
        counted = weights > 0.0
        x, y, weights = x[counted], y[counted], weights[counted]
    if standardize is True:
        checks.constant_columns(no_variance(x), features)
    x_units = model.units(x, jointly=standardize == "jointly", weights=weights)
    return x_units, model.likelihood.units(y, weights) if model.likelihood.standardizes else None


def _start(fit: Fit, x: Rows, seed: int) -> dict[str, np.ndarray]:
    """Unconstrained start values of one run, for inputs as the network sees them."""
    return latent_sites(fit.primitives, fit.model, fit.model.initial_values(x, seed), seed)[1]
