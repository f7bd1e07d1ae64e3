"""A fit to disk: one `.npz` file with a JSON description; nothing is pickled."""

from __future__ import annotations

import json
from typing import Any

import numpy as np

from ugmm_ppl.data.files import Target, write_arrays
from ugmm_ppl.models.base import BaseModel
from ugmm_ppl.posterior.predictive import Predictive
from ugmm_ppl.posterior.record import HISTORIES

FORMAT = 1
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
    "extras",
    "class_names",
    "training",
    "weighting",
)


def save(fit: Predictive, path: Target) -> None:
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


def describe_model(model: BaseModel) -> dict[str, Any]:
    """A model as JSON values."""
    return {"kind": type(model).__name__, **model.described()}
