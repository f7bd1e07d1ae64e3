"""`load`: a fit from the file that `Fit.save` wrote; nothing is unpickled."""

from __future__ import annotations

import json
import zipfile
from typing import Any

import numpy as np

from ugmm_ppl.backends import devices
from ugmm_ppl.checks import files as checks
from ugmm_ppl.checks.data import names_of
from ugmm_ppl.data.files import Target, called, reading
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.fitting.registry import fit_type
from ugmm_ppl.fitting.result import Fit
from ugmm_ppl.fitting.storage import FORMAT
from ugmm_ppl.models.base import KINDS, BaseModel
from ugmm_ppl.posterior.record import HISTORIES


def load(path: Target, *, model: BaseModel | None = None, device: str | int | None = None) -> Fit:
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
            raise checks.no_fit(name, error) from error
    if description["format"] > FORMAT:
        raise checks.newer_format(name, description["format"], FORMAT)
    settings = description["settings"]
    given = settings["feature_names"]
    settings.setdefault("columns", given if given != names_of(None, len(given), "x", "feature_names") else None)
    settings["device"] = devices.of_stored_fit(settings["backend"], settings["device"], device)
    units: dict[str, Any] = {
        name: Standardizer(arrays[f"{name}/mean"], arrays[f"{name}/scale"]) if f"{name}/mean" in arrays else None
        for name in ("x_units", "y_units")
    }
    model = model or _build_model(description["model"], name)
    fit: Fit = fit_type(model)(model=model, **units, **settings)
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


def _build_model(description: dict[str, Any], file: str) -> BaseModel:
    parts = dict(description)
    kind = parts.pop("kind")
    if kind not in KINDS:
        raise checks.unknown_kind(file, "model", kind, KINDS)
    return KINDS[kind].from_description(parts, file)
