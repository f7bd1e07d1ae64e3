"""From a fit to one ArviZ tree; the only file that knows ArviZ's versions (0.2x: InferenceData, 1.x: DataTree)."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.backends.threads import DRAWING, silence
from ugmm_ppl.checks import files as checks
from ugmm_ppl.checks.machine import require
from ugmm_ppl.groups import Collector, Request, axes

if TYPE_CHECKING:
    from ugmm_ppl.posterior import Fit

GUIDE_NOTE = (
    "Draws are independent draws from a Gaussian guide: R-hat and ESS say nothing about its quality, and az.loo "
    "takes them for posterior draws. The correction for that needs log_p and log_q in sample_stats; it is not applied."
)

OLDEST = (0, 21)
"""The oldest ArviZ whose trees and functions are used here."""


def arviz() -> Any:
    """The module arviz.

    Raises:
        MissingExtraError: It is not installed.
        ImportError: It is too old.
    """
    az = require("arviz", "arviz")
    if tuple(int(part) for part in az.__version__.split(".")[:2]) < OLDEST:
        raise ImportError(
            f"ArviZ {OLDEST[0]}.{OLDEST[1]} or newer is needed; got {az.__version__}. "
            'Upgrade it with: pip install --upgrade "ugmm-ppl[arviz]"'
        )
    return az


def to_arviz(
    fit: Fit,
    x: Any = None,
    y: Any = None,
    *,
    num_draws: int | None = None,
    num_prior_draws: int = 100,
    var_names: Sequence[str] | None = None,
    groups: Sequence[str] | None = None,
    derived: bool = False,
    keep: str = "auto",
    thin: int = 1,
    probe: Any = None,
    seed: int | None = None,
) -> Any:
    """Put a fit into one tree, the same for both backends: dims chain and draw everywhere, named coordinates.

    Groups: posterior, posterior_summary (of sites whose draws are not kept), functional (outputs of the network and
    what they say of y at the probe inputs), posterior_predictive, log_likelihood, log_prior (of each site, summed over
    its entries, in the space in which it is sampled), sample_stats (chain_weight; SVI, Laplace: log_p, log_q; NUTS:
    diverging, energy, tree_depth, n_steps), training (the trace), prior, prior_predictive, observed_data,
    constant_data. Layer l has the dims `neuron_l` and `input_l`; outputs have `class` or `output`; data have `row`. Log
    values are in nats, y and its densities in the user's units. What each chain counts for is `chain_weight` in
    sample_stats; the draws themselves are not weighted.

    Args:
        fit: The fit.
        x: The training inputs, if the fit does not hold them (after `load`); without data only what needs none is
            exported.
        y: The training targets, likewise.
        num_draws: Draws per chain; None is 500, one for "map", and all that NUTS kept.
        num_prior_draws: Draws of the prior groups; 0 leaves them out.
        var_names: Sites to keep in posterior and prior; None keeps all.
        groups: Groups to make; None makes all that can be made.
        derived: Add `scale` and `weights` where `log_scale` and `logits` are sampled.
        keep: "draws" keeps the draws of all sites, "summary" none: mean, standard deviation and quantiles of each chain
            in their place. "auto" keeps those of the small sites, 2^25 entries in all.
        thin: Keep every thin-th draw of "nuts"; draws of a guide are independent, of which it makes fewer.
        probe: Inputs `(P, K)` of the group functional; None is 50 training rows, evenly spaced.
        seed: Seed of the draws; None is the seed of the fit.

    Returns:
        `arviz.InferenceData` under ArviZ 0.2x, `xarray.DataTree` under 1.x.

    Raises:
        MissingExtraError: ArviZ is not installed.
        ValueError: An unknown name in var_names or groups, only one of x and y, or neither where a group needs them.
    """
    az = arviz()
    request = Request(num_draws, num_prior_draws, var_names, groups, derived, keep, thin, probe, seed)
    collector = Collector(fit, x, y, request)
    return _as_tree(az, datasets(collector, collector.collect()))


def export(fit: Fit, path: str | os.PathLike[str], x: Any = None, y: Any = None, **options: Any) -> None:
    """Write the tree of `to_arviz` to a file, draws of the posterior a block at a time: for large posteriors.

    Args:
        fit: The fit.
        path: A netCDF file `NAME.nc`, which is replaced when it is complete; or a new Zarr folder `NAME.zarr`.
        x: As in `to_arviz`.
        y: As in `to_arviz`.
        options: As in `to_arviz`; `keep` is "draws" if not given.

    Raises:
        TypeError: No path.
        ValueError: Another ending of the path, or a Zarr folder that is there.
        MissingExtraError: h5netcdf or zarr is not installed.
    """
    arviz()
    checks.path("path", path)
    path = Path(path)
    if path.suffix not in (".nc", ".zarr"):
        raise ValueError(f"path must end in .nc (netCDF) or .zarr; got {path}.")
    if path.suffix == ".zarr" and path.exists():
        raise ValueError(f"path must be a new Zarr folder; {path} is there. Delete it, or give another path.")
    require("h5py" if path.suffix == ".nc" else "zarr", "arviz")
    from ugmm_ppl import streaming

    collector = Collector(fit, x, y, Request(**{"keep": "draws"} | options))
    partial = path.with_name(f"{path.stem}.{threading.get_native_id()}.partial{path.suffix}")
    try:
        streaming.write(collector, partial)
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)


def read(path: str | os.PathLike[str], needs: Sequence[str] = ()) -> Any:
    """Open a tree that `export`, the command line or ArviZ wrote, under whichever version; arrays are read when used.

    Args:
        path: A netCDF file or a Zarr folder.
        needs: Groups that must be there.

    Returns:
        As `to_arviz`.

    Raises:
        FileNotFoundError: No such file.
        TypeError: No path.
        ValueError: It cannot be read, or lacks a group.
    """
    az = arviz()
    import xarray

    checks.path("path", path)
    if not Path(path).exists():
        raise FileNotFoundError(f"a netCDF file or Zarr folder is needed; {path} does not exist. Check the path.")
    engine = "zarr" if Path(path).is_dir() else "h5netcdf"
    require(engine, "arviz")
    try:
        tree = xarray.open_datatree(path, engine=engine)
    except Exception as error:  # each engine has errors of its own
        raise ValueError(
            f"{path} must be a netCDF file or Zarr folder of an ArviZ tree; it cannot be read as one "
            f"({type(error).__name__}: {error}). It may be cut short: write it again with fit.export(path)."
        ) from error
    missing = [name for name in needs if name not in tree.children]
    if missing:
        raise ValueError(
            f"{path} must have the groups {', '.join(needs)}; it lacks {', '.join(missing)} and has "
            f"{', '.join(tree.children)}. Write it again with these groups, from a fit that has its data."
        )
    return _as_tree(az, {name: node.to_dataset() for name, node in tree.children.items()} | {"": tree.to_dataset()})


def psis(log_weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Pareto smoothed importance sampling over the last axis: normalised log weights `(..., S)` and k-hat `(...)`.

    Source: Vehtari et al. 2024, JMLR 25(72).
    """
    log_weights = np.asarray(log_weights, dtype=np.float64)
    if _is_old(arviz()):
        smoothed, k = arviz().psislw(log_weights)
        return np.asarray(smoothed), np.asarray(k)
    from arviz_stats.base import array_stats

    return array_stats.psislw(-log_weights)  # it takes minus the log weights, a log likelihood


def loo_approximate_posterior(pointwise: np.ndarray, log_ratio: np.ndarray) -> tuple[np.ndarray, np.ndarray] | None:
    """ArviZ's LOO for draws from a guide: elpd `(B,)` and k-hat `(B,)` of every row; None where it has none.

    Args:
        pointwise: Log likelihood `(C, S, B)`.
        log_ratio: log p(theta, y) - log q(theta), `(C, S)`.
    """
    az = arviz()
    if not hasattr(az, "loo_approximate_posterior"):
        return None
    import xarray

    dataset = xarray.Dataset({"y": (["chain", "draw", "row"], np.asarray(pointwise, dtype=np.float64))})
    tree = xarray.DataTree.from_dict({"log_likelihood": dataset, "posterior": dataset[["chain", "draw"]]})
    log_ratio = np.asarray(log_ratio, dtype=np.float64).ravel()
    with silence():  # about large k-hats, which are returned
        found = az.loo_approximate_posterior(tree, log_p=log_ratio, log_q=0.0 * log_ratio, pointwise=True)
    return np.asarray(found.elpd_i), np.asarray(found.pareto_k)


def rhat(values: np.ndarray) -> np.ndarray:
    """Rank-normalised split R-hat `(...)` of values `(C, S, ...)`. Source: Vehtari et al. 2021, arXiv:1903.08008."""
    return _by_entry("rhat", values)


def ess(values: np.ndarray) -> np.ndarray:
    """Bulk effective sample size `(...)` of values `(C, S, ...)`. Source: as `rhat`."""
    return _by_entry("ess", values)


def bfmi(energy: np.ndarray) -> np.ndarray:
    """Estimated Bayesian fraction of missing information `(C,)` from energies `(C, S)`. Source: arXiv:1604.00695."""
    az = arviz()
    if _is_old(az):
        return np.asarray(az.bfmi(energy))
    from arviz_stats.base import array_stats

    return np.asarray(array_stats.bfmi(energy, chain_axis=None, draw_axis=-1))


def plot_forest(tree: Any, var_names: list[str], coords: Mapping[str, Any], path: Path) -> None:
    """Write ArviZ's forest plot of some variables to a PNG file."""
    az = arviz()
    import matplotlib.pyplot as plt

    options = {"var_names": var_names, "coords": dict(coords), "combined": True}
    with DRAWING:
        if _is_old(az):
            figure = az.plot_forest(tree, figsize=(8, 10), **options).ravel()[0].figure
        else:
            figure = az.plot_forest(tree, backend="matplotlib", **options).get_viz("figure")
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)


def forest_figure(tree: Any, var_names: list[str], coords: Mapping[str, Any], kind: str) -> Any:
    """ArviZ's forest plot ("forest") or ridge plot ("ridge") of some variables, as a matplotlib figure."""
    az = arviz()
    lines = sum(
        int(np.prod(group(tree, "posterior")[name].sel(_within(tree, name, coords)).shape[2:])) for name in var_names
    )
    options = {"var_names": var_names, "coords": dict(coords), "combined": True}
    if _is_old(az):
        size = (4.8, 0.7 + 0.22 * lines)
        drawn = az.plot_forest(tree, kind=f"{kind}plot", figsize=size, textsize=7, **options)
        return drawn.ravel()[0].figure
    plot = az.plot_forest if kind == "forest" else az.plot_ridge
    figure = plot(tree, backend="matplotlib", **options).get_viz("figure")
    figure.set_size_inches(4.8, 0.7 + 0.22 * lines)
    return figure


def group(tree: Any, name: str) -> Any:
    """A group of a tree of either ArviZ as a dataset.

    Raises:
        ValueError: The tree lacks it.
    """
    try:
        found = tree[name]
    except KeyError:
        raise ValueError(
            f"the tree needs the group {name}, and has none. Make it by fit.to_arviz(), with the data of the fit."
        ) from None
    return found.to_dataset() if hasattr(found, "to_dataset") else found


def _within(tree: Any, name: str, coords: Mapping[str, Any]) -> dict[str, Any]:
    return {dim: value for dim, value in coords.items() if dim in group(tree, "posterior")[name].dims}


def datasets(collector: Collector, groups: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The groups as `xarray.Dataset`, and under the name "" one with the attributes of the whole."""
    import xarray

    fit = collector.fit
    attrs = {
        "inference": fit.method, "backend": fit.backend, "guide": "none" if fit.method == "nuts" else _said(fit.guide),
        "bayesian": _said(fit.bayesian), "model": type(fit.model).__name__, "temperature": fit.temperature,
        "weighting": fit.weighting, "library": "ugmm_ppl",
    }  # fmt: skip
    if fit.is_gaussian:
        attrs["note"] = GUIDE_NOTE
    found = {}
    for group, variables in groups.items():
        arrays = {n: (axes(group, n, collector.dims, value.ndim), value) for n, value in variables.items()}
        sizes = {dim: size for names, value in arrays.values() for dim, size in zip(names, value.shape, strict=True)}
        index: dict[str, Any] = {dim: collector.coords.get(dim, np.arange(size)) for dim, size in sizes.items()}
        if group == "posterior" and collector.request.wants("sample_stats"):
            index["chain_weight"] = ("found_in", ["sample_stats"])  # along `chain` it breaks frames
        found[group] = xarray.Dataset(arrays, coords=index, attrs=attrs)
    return found | {"": xarray.Dataset(attrs=attrs)}


def _as_tree(az: Any, found: Mapping[str, Any]) -> Any:
    """Datasets by group, and "" for the whole, as the tree of the installed ArviZ."""
    import xarray

    groups = {name: dataset for name, dataset in found.items() if name}
    if _is_old(az):
        return az.InferenceData(attrs=dict(found[""].attrs), **groups)
    tree = xarray.DataTree.from_dict(groups)
    tree.attrs.update(found[""].attrs)
    return tree


def _by_entry(name: str, values: np.ndarray) -> np.ndarray:
    """A statistic of ArviZ over chains and draws, for every entry."""
    az = arviz()
    values = np.asarray(values, dtype=np.float64)
    flat = values.reshape(*values.shape[:2], -1)
    if _is_old(az):
        function = getattr(az, name)
        with np.errstate(divide="ignore", invalid="ignore"):  # a value that is the same in all draws has none
            found = np.array([function(flat[..., i]) for i in range(flat.shape[-1])])
    else:
        from arviz_stats.base import array_stats

        with np.errstate(divide="ignore", invalid="ignore"):
            found = getattr(array_stats, name)(flat, chain_axis=0, draw_axis=1)
    return np.asarray(found, dtype=np.float64).reshape(values.shape[2:])


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
        datasets[group] = xarray.Dataset(arrays, coords=index, attrs=attrs)
    if _is_old(az):
        return az.InferenceData(attrs=attrs, **datasets)
    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs.update(attrs)
    return tree
