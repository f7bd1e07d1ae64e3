"""From a fit to one ArviZ tree; the only file that knows ArviZ's versions (0.2x: InferenceData, 1.x: DataTree)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backend import require

if TYPE_CHECKING:
    from ugmm_ppl.posterior import Fit

GUIDE_NOTE = (
    "Draws are independent draws from a Gaussian guide: R-hat and ESS say nothing about its quality, and az.loo "
    "takes them for posterior draws. The correction for that needs log_p and log_q in sample_stats; it is not applied."
)


def to_arviz(
    fit: Fit,
    x: Any = None,
    y: Any = None,
    *,
    num_draws: int | None = None,
    num_prior_draws: int = 100,
    var_names: list[str] | None = None,
    derived: bool = False,
    seed: int | None = None,
) -> Any:
    """Put a fit into one tree, the same for both backends: dims chain and draw everywhere, named coordinates.

    Groups: posterior, posterior_predictive, log_likelihood, sample_stats (SVI, Laplace: log_p, log_q; NUTS: diverging),
    prior, prior_predictive, observed_data, constant_data. Layer l has the dims `neuron_l` and `input_l`; outputs have
    `class` or `output`; data have `row`. Log values are in nats, y and its densities in the user's units. The weights
    of the chains are the coordinate `chain_weight`; the draws themselves are not weighted.

    Args:
        fit: The fit.
        x: The training inputs, if the fit does not hold them (after `load`); without data only the posterior is
            exported.
        y: The training targets, likewise.
        num_draws: Draws per chain; None is 500, one for "map", and all that NUTS kept.
        num_prior_draws: Draws of the prior groups; 0 leaves them out.
        var_names: Sites to keep in posterior and prior; None keeps all.
        derived: Add `scale` and `weights` where `log_scale` and `logits` are sampled.
        seed: Seed of the draws; None is the seed of the fit.

    Returns:
        `arviz.InferenceData` under ArviZ 0.2x, `xarray.DataTree` under 1.x.

    Raises:
        MissingExtraError: ArviZ is not installed.
        ValueError: An unknown name in var_names, or only one of x and y.
    """
    az = require("arviz", "arviz")
    sites, log_q = fit._draws(range(fit._count_draws(num_draws)), seed)
    draws = sites | fit._derived(sites) if derived else sites
    if var_names is not None:
        checks.names("var_names", var_names, draws)
    keep = set(draws if var_names is None else var_names)
    dims, coords = _dims(fit, draws), _coords(fit)
    groups: dict[str, dict[str, np.ndarray]] = {"posterior": {n: v for n, v in draws.items() if n in keep}}
    if x is not None or y is not None or fit.train_x is not None:
        x, y = fit._checked_data(x, y)
        coords["row"] = np.arange(len(x))
        dims |= {"y": ["row"], "x": ["row", "input_0" if fit.model.observed == "y" else "column"]}
        outputs = fit.outputs(x, num_draws=num_draws, seed=seed)
        pointwise = fit._pointwise(outputs, y)
        groups["posterior_predictive"] = fit.replicates(sites, outputs, seed)
        groups["log_likelihood"] = {fit.model.observed: pointwise - fit.log_unit(x)}
        if fit.is_gaussian:
            groups["sample_stats"] = {"log_p": fit._log_prior(sites) + pointwise.sum(-1), "log_q": log_q}
        if num_prior_draws:
            prior = fit.prior_draws(x, checks.count("num_prior_draws", num_prior_draws), derived=derived, seed=seed)
            groups["prior_predictive"] = {n: prior.pop(n) for n in ("x", "y") if n in prior}
            groups["prior"] = {n: v for n, v in prior.items() if n in keep}
        given = {"x": checks.floats(x), "y": y}
        groups["observed_data"] = {n: given[n] for n in groups["posterior_predictive"]}
        groups["constant_data"] = {n: given[n] for n in given if n not in groups["posterior_predictive"]}
    if fit.method == "nuts":
        groups["sample_stats"] = {n: v[:, : next(iter(draws.values())).shape[1]] for n, v in fit.stats.items()}
    attrs = {
        "inference": fit.method, "backend": fit.backend, "guide": "none" if fit.method == "nuts" else _said(fit.guide),
        "bayesian": _said(fit.bayesian), "model": type(fit.model).__name__, "temperature": fit.temperature,
        "weighting": fit.weighting, "library": "ugmm_ppl",
    }  # fmt: skip
    if fit.is_gaussian:
        attrs["note"] = GUIDE_NOTE
    order = (
        "posterior",
        "posterior_predictive",
        "log_likelihood",
        "sample_stats",
        "prior",
        "prior_predictive",
        "observed_data",
        "constant_data",
    )
    return tree_of(az, {name: groups[name] for name in order if name in groups}, dims, coords, fit.weights, attrs)


def plot_forest(tree: Any, var_names: list[str], coords: Mapping[str, Any], path: Path) -> None:
    """Write ArviZ's forest plot of some variables to a PNG file."""
    az = require("arviz", "arviz")
    import matplotlib.pyplot as plt

    if _is_old(az):
        axes = az.plot_forest(tree, var_names=var_names, coords=dict(coords), combined=True, figsize=(8, 10))
        axes.ravel()[0].figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close("all")
    else:
        plot = az.plot_forest(tree, var_names=var_names, coords=dict(coords), combined=True, backend="matplotlib")
        plot.savefig(str(path), dpi=110, bbox_inches="tight")
        plt.close("all")


def _said(choice: Any) -> str:
    """A setting as text: files have no attributes that are mappings or lists."""
    if isinstance(choice, Mapping):
        return ", ".join(f"{pattern}: {family}" for pattern, family in choice.items())
    return choice if isinstance(choice, str) else ", ".join(choice)


def _is_old(az: Any) -> bool:
    return int(az.__version__.split(".")[0]) == 0


def tree_of(
    az: Any,
    groups: dict[str, dict[str, np.ndarray]],
    dims: dict[str, list[str]],
    coords: dict[str, Any],
    weights: np.ndarray,
    attrs: dict[str, Any],
) -> Any:
    """One ArviZ tree of groups of variables; those of groups named `..._data` have no chains and draws."""
    import xarray

    datasets = {}
    for group, variables in groups.items():
        sample = [] if group.endswith("_data") else ["chain", "draw"]
        arrays = {}
        for name, value in variables.items():
            shape = value.shape[len(sample) :]
            own = dims.get(name, [f"{name}_dim_{i}" for i in range(len(shape))])[: len(shape)]
            arrays[name] = ([*sample, *own], value)
        used = {dim for names, _ in arrays.values() for dim in names}
        index = {dim: coords[dim] for dim in coords if dim in used}
        if sample:
            chains, draws = next(iter(variables.values())).shape[:2]
            index = {"chain": np.arange(chains), "draw": np.arange(draws)} | index
            if not group.startswith("prior"):
                index["chain_weight"] = ("chain", weights)
        datasets[group] = xarray.Dataset(arrays, coords=index, attrs=attrs)
    if _is_old(az):
        return az.InferenceData(attrs=attrs, **datasets)
    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs.update(attrs)
    return tree


def _dims(fit: Fit, draws: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Names of the axes of every site of the model; sites of callables get ArviZ's default names."""
    axes = fit.model.axes(_output_dim(fit))
    return {n: names for n, (names, sizes) in axes.items() if n in draws and draws[n].shape[2:] == sizes}


def _coords(fit: Fit) -> dict[str, Any]:
    return fit.model.coordinates(fit.feature_names) | {_output_dim(fit): fit.model.output_names(fit.class_names)}


def _output_dim(fit: Fit) -> str:
    return "output" if fit.model.real_target else "class"
