"""The work behind the command line: a model file in, a run folder out; a run folder and a table in, predictions out."""

from __future__ import annotations

import contextlib
import csv
import importlib.util
import inspect
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

import ugmm_ppl as up
from ugmm_ppl import budgets, kernels
from ugmm_ppl.checks import command as checks
from ugmm_ppl.checks import names as known_names
from ugmm_ppl.checks.machine import require
from ugmm_ppl.infer.method import METHODS, by_name
from ugmm_ppl.likelihoods import EXTRAS

MAX_REPLICATES = 10
"""Tables that are drawn from a model of x, and as many from its prior."""


def run_fit(
    model_file: Path,
    overrides: dict[str, Any],
    steps: int | None,
    out: Path,
    *,
    progress: bool,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Fit a model file and write its run folder.

    Args:
        model_file: Python file with `model`, `data()` and `settings`.
        overrides: Settings that replace those of the file.
        steps: Training steps, or draws per chain for "nuts"; None keeps the file's.
        out: The run folder.
        progress: Show a progress bar.
        say: Told a line about an interruption, and about settings that are left out.

    Returns:
        The metrics.
    """
    module = load_model_file(model_file)
    settings = dict(getattr(module, "settings", {})) | overrides
    way = by_name(settings.get("method", "svi")).settings
    if steps is not None:
        settings[way.length] = steps
    if "method" in overrides:  # the file's settings are for its own method
        known = {name for each in METHODS.values() for name in each.settings.names()}
        left_out = [name for name in settings if name in known and name not in way.names()]
        settings = {name: value for name, value in settings.items() if name not in left_out}
        if left_out:
            say(f"method {overrides['method']} has no {', '.join(left_out)}; left out of the settings of {model_file}")
    keywords = [p.name for p in inspect.signature(up.fit).parameters.values() if p.kind is p.KEYWORD_ONLY]
    valid = [name for name in keywords if name not in ("weights", *EXTRAS)]  # which belong to the data
    known_names(f"setting in {model_file}", settings, valid)
    for package, extra in (("arviz", "arviz"), ("matplotlib", "cli"), ("scoringrules", "diagnostics")):
        require(package, extra)  # before training, not after it
    try:
        data = module.data()
    except Exception as error:
        raise checks.failing_data(model_file, error) from error
    checks.data(model_file, data, up.Data)
    out.mkdir(parents=True, exist_ok=True)
    names: dict[str, Any] = {"feature_names": data.feature_names, "class_names": data.class_names}
    start, failure = time.perf_counter(), None
    try:
        fit = up.fit(
            module.model, data.x, data.y, weights=data.weights, **data.extras, **names, progress=progress, **settings
        )
    except up.NonFiniteError as error:
        if error.fit is None or not np.isfinite(error.fit.losses).any():
            raise
        fit, failure = error.fit, error
    seconds = time.perf_counter() - start
    fit.save(out / "fit.npz")  # first of all: nothing that comes later can lose it
    metrics = write_results(fit, data, out, seconds)
    if fit.interrupted:
        reached = " ".join(f"{count} {what}" for what, count in _reached(fit).items())
        say(f"interrupted after {reached}; the results are of what was reached")
    if failure:
        raise failure
    return metrics


def write_results(fit: up.Fit, data: up.Data, out: Path, seconds: float) -> dict[str, Any]:
    """Write posterior.nc, metrics.json and the plots; returns the metrics."""
    from ugmm_ppl.metrics import evaluate
    from ugmm_ppl.report.plots import write_plots

    held_out = data.x_test is not None and data.y_test is not None
    x, y = (data.x_test, data.y_test) if held_out else (data.x, data.y)
    row_weights = data.weights_test if held_out else data.weights
    x = fit.check_inputs(x, what="x_test", extras=data.extras_test if held_out else data.extras)
    y = fit.model.check_target(y, len(x))
    parameters = fit.num_parameters
    work = len(data.x) * fit.model.row_work
    limit = min(budgets.EXPORTED // parameters, budgets.EXPORT_WORK[kernels.info().kernel] // work)
    limit = min(limit, MAX_REPLICATES) if fit.model.observed == "x" else limit
    draws = int(np.clip(limit, 20, 500)) if fit.inference.density else None
    prediction = fit.predict(x, num_draws=draws)
    metrics = {
        "test" if held_out else "train": evaluate(prediction, y, row_weights=row_weights),
        "rows": {"train": len(data.x), "test": len(x) if held_out else 0},
        "parameters": parameters, "seconds": round(seconds, 2), "backend": fit.backend, "method": fit.method,
        **_reached(fit), "interrupted": fit.interrupted, "version": up.__version__,
    }  # fmt: skip
    (out / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    tree = fit.to_arviz(num_draws=draws, num_prior_draws=int(np.clip(limit, 10, 100)), derived=True)
    target, partial = out / "posterior.nc", out / "posterior.nc.partial"
    tree.to_netcdf(str(partial))
    partial.replace(target)
    write_plots(fit, tree, prediction, y, fit.sample_predictive(x, num_draws=draws), out)
    return metrics


def _reached(fit: up.Fit) -> dict[str, int]:
    """Draws per chain of samplers, steps of all restarts otherwise."""
    if fit.inference.markov:
        return {"draws": fit.count_draws(None)}
    return {"steps": int(np.isfinite(fit.losses).sum())}


def run_predict(run_dir: Path, data: Path, out: Path | None, device: str = "cpu") -> None:
    """Predict a CSV file with the fit of a run folder."""
    from ugmm_ppl.data.spreadsheet import read_csv

    fit = _load_run(run_dir, device)
    names, extras = fit.columns or fit.feature_names, [n for n in fit.extras if not EXTRAS[n].with_target]
    table = read_csv(data, [*names, *extras], missing=fit.model.takes_missing)
    beside: dict[str, Any] = {name: table[:, len(names) + i] for i, name in enumerate(extras)}
    prediction = fit.predict(table[:, : len(names)], **beside)
    columns = prediction.columns(fit.class_names)
    with contextlib.nullcontext(sys.stdout) if out is None else out.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(columns)
        for row in zip(*columns.values(), strict=True):
            writer.writerow([cell if isinstance(cell, str) else f"{cell:.6g}" for cell in row])


def run_report(run_dir: Path, out: Path) -> Any:
    """Write the report of a run folder, from its fit and the data in its posterior.nc; returns the diagnosis."""
    from ugmm_ppl import arviz
    from ugmm_ppl.report.page import write_report

    fit = _load_run(run_dir)
    tree = arviz.read(run_dir / "posterior.nc", needs=["observed_data", "constant_data"])
    constant = arviz.group(tree, "constant_data")
    x, y = constant["x"].values, arviz.group(tree, "observed_data")["y"].values
    x = fit.with_extras(x, {name: constant[name].values for name in fit.extras})
    return write_report(fit, out, x, y, title=run_dir.resolve().name)


def _load_run(run_dir: Path, device: str = "cpu") -> up.Fit:
    checks.run_folder(run_dir)
    return up.load(run_dir / "fit.npz", device=device)


def load_model_file(path: Path) -> ModuleType:
    """Import a model file.

    Raises:
        FileNotFoundError: No such file.
        ValueError: It fails when run, or lacks `model` or `data`.
    """
    checks.model_file(path)
    spec = importlib.util.spec_from_file_location(path.stem, path)
    if spec is None or spec.loader is None:
        raise checks.no_python(path)
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except up.MissingExtraError:
        raise
    except Exception as error:
        raise checks.failing_model(path, error) from error
    checks.model_names(path, module)
    return module
