"""Fits on disk: one `.npz` file with a JSON description; nothing is pickled."""

from __future__ import annotations

import dataclasses
import json
import zipfile
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.backends import devices
from ugmm_ppl.checks.data import names_of
from ugmm_ppl.circuit.model import Circuit
from ugmm_ppl.data.files import Target, called, reading, writing
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.latent.model import LatentNetwork
from ugmm_ppl.model import Classifier, JointScore, Model, Regressor
from ugmm_ppl.nn.network import Network
from ugmm_ppl.priors import ROLES, Prior

if TYPE_CHECKING:
    from ugmm_ppl.posterior import Fit

FORMAT = 1
MODELS: dict[str, Any] = {"Classifier": Classifier, "Regressor": Regressor, "JointScore": JointScore}
SETTINGS = (
    "backend",
    "method",
    "guide",
    "bayesian",
    "dtype",
    "device",
    "seed",
    "temperature",
    "init_scale",
    "rank",
    "feature_names",
    "columns",
    "class_names",
    "training",
    "weighting",
)
HISTORIES = ("losses", "log_likelihoods", "kls", "scores", "score_steps")


def save(fit: Fit, path: Target) -> None:
    """Write a fit; described at `Fit.save`."""
    description = {
        "format": FORMAT,
        "model": describe_model(fit.model),
        "settings": {name: getattr(fit, name) for name in SETTINGS},
        "interrupted": fit.interrupted,
    }
    arrays: dict[str, np.ndarray] = {"description": np.array(json.dumps(description))}
    arrays |= {name: getattr(fit, name) for name in HISTORIES}
    for name, units in (("x_units", fit.x_units), ("y_units", fit.y_units)):
        if units is not None:
            arrays |= {f"{name}/mean": np.asarray(units.mean), f"{name}/scale": np.asarray(units.scale)}
    arrays |= {} if fit.unequal_weights is None else {"weights": fit.unequal_weights}
    arrays |= {} if fit.row_weights is None else {"row_weights": fit.row_weights}
    for i, state in enumerate(fit.state):
        arrays |= {f"state/{i}/{name}": value for name, value in state.items()}
    for part in ("held", "stats"):
        arrays |= {f"{part}/{name}": value for name, value in getattr(fit, part).items()}
    write_arrays(path, arrays)


def write_arrays(path: Target, arrays: Mapping[str, np.ndarray]) -> None:
    """Write an `.npz` file; an existing one is replaced only when the new one is complete and on the disk."""
    with writing(path) as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def load(path: Target, *, model: Model | None = None, device: str | int | None = None) -> Fit:
    """Read a fit that `Fit.save` wrote.

    Args:
        path: The file, or an open binary one, which is read from where it stands to its end.
        model: The model, needed only if its prior has callables, which are not stored.
        device: Where to predict; None is the device it was fitted on, or the CPU, with a warning, where that is not.

    Raises:
        FileNotFoundError: No such file.
        TypeError: Neither a path nor an open binary file.
        ValueError: Not a file of this library, or of a newer version of it, or a model with callables and none given,
            or a device that is not there.
    """
    name = called(path)
    with reading(path) as file:
        try:
            arrays = dict(np.load(file, allow_pickle=False))
            description = json.loads(str(arrays["description"]))
        except (TypeError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            raise ValueError(
                f"{name} must be a file written by Fit.save; it cannot be read as one ({error})."
            ) from error
    if description["format"] > FORMAT:
        raise ValueError(
            f"{name} has format {description['format']}; this version reads up to {FORMAT}. Upgrade ugmm-ppl."
        )
    settings = description["settings"]
    given = settings["feature_names"]
    settings.setdefault("columns", given if given != names_of(None, len(given), "x", "feature_names") else None)
    settings["device"] = devices.of_stored_fit(settings["backend"], settings["device"], device)
    units: dict[str, Any] = {
        name: Standardizer(arrays[f"{name}/mean"], arrays[f"{name}/scale"]) if f"{name}/mean" in arrays else None
        for name in ("x_units", "y_units")
    }
    model = model or _build_model(description["model"], name)
    fit = model.fit_type(model=model, **units, **settings)
    fit.interrupted = description["interrupted"]
    for name in HISTORIES:
        setattr(fit, name, arrays[name])
    fit.unequal_weights, fit.row_weights = arrays.get("weights"), arrays.get("row_weights")
    runs = 1 + max(int(name.split("/")[1]) for name in arrays if name.startswith("state/"))
    for i in range(runs):
        prefix = f"state/{i}/"
        fit.state.append(
            {name.removeprefix(prefix): value for name, value in arrays.items() if name.startswith(prefix)}
        )
    for part in ("held", "stats"):
        prefix = f"{part}/"
        setattr(fit, part, {n.removeprefix(prefix): value for n, value in arrays.items() if n.startswith(prefix)})
    return fit


def describe_model(model: Any) -> dict[str, Any]:
    """A model as JSON values."""
    if isinstance(model, Circuit):
        return {"kind": "Circuit", **model.described(_describe_prior)}
    if isinstance(model, LatentNetwork):
        return {"kind": "LatentNetwork", **model.described(_describe_prior, _describe_priors)}
    fields = {f.name: getattr(model, f.name) for f in dataclasses.fields(model) if f.name not in ("network", "prior")}
    return {
        "kind": type(model).__name__,
        "network": dataclasses.asdict(model.network),
        "prior": _describe_priors(model.prior),
        **fields,
    }


def _describe_priors(prior: Prior) -> dict[str, Any]:
    layers = {str(i): {r: _describe_prior(p) for r, p in roles.items()} for i, roles in prior.layers.items()}
    return {role: _describe_prior(getattr(prior, role)) for role in ROLES} | {"layers": layers}


def _describe_prior(value: Any) -> Any:
    if isinstance(value, Distribution):
        args = [np.asarray(a, dtype=np.float64).tolist() for a in value.args]
        kwargs = {name: np.asarray(a, dtype=np.float64).tolist() for name, a in value.kwargs.items()}
        return {"name": value.name, "args": args, "kwargs": kwargs}
    return None if value is None else {"callable": getattr(value, "__name__", repr(value))}


def _build_model(description: dict[str, Any], name: str) -> Model:
    parts = dict(description)
    if parts["kind"] == "Circuit":
        return Circuit.from_description(parts, lambda value: _build_prior(value, name))
    if parts["kind"] == "LatentNetwork":
        del parts["kind"]
        return LatentNetwork.from_description(
            parts, lambda value: _build_prior(value, name), lambda value: _build_priors(value, name)
        )
    kind, network, prior = parts.pop("kind"), parts.pop("network"), parts.pop("prior")
    return MODELS[kind](network=Network(**network), prior=_build_priors(prior, name), **parts)


def _build_priors(given: Mapping[str, Any], name: str) -> Prior:
    parts = dict(given)
    layers = {int(i): {r: _build_prior(p, name) for r, p in roles.items()} for i, roles in parts.pop("layers").items()}
    return Prior(**{role: _build_prior(value, name) for role, value in parts.items()}, layers=layers)


def _build_prior(value: Any, name: str) -> Any:
    if value is None:
        return None
    if "callable" in value:
        raise ValueError(
            f"{name} holds a fit whose model has the callable {value['callable']!r}, which is not stored. "
            "Give the model: up.load(path, model=...)."
        )
    return Distribution(value["name"], tuple(value["args"]), value["kwargs"])
