"""Trees of the installed ArviZ: of a fit, from a file, and their groups."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.arviz.dims import axes
from ugmm_ppl.arviz.groups import Collector
from ugmm_ppl.arviz.request import Request
from ugmm_ppl.arviz.version import installed, is_old
from ugmm_ppl.checks import files as checks
from ugmm_ppl.checks.machine import require

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive

GUIDE_NOTE = (
    "Draws are independent draws from a Gaussian guide: R-hat and ESS say nothing about its quality, and az.loo "
    "takes them for posterior draws. The correction for that needs log_p and log_q in sample_stats; it is not applied."
)


def to_arviz(
    fit: Predictive,
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
        num_draws: Draws per chain; None is 500, one for "map", and all that a sampler kept.
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
    az = installed()
    request = Request(num_draws, num_prior_draws, var_names, groups, derived, keep, thin, probe, seed)
    collector = Collector(fit, x, y, request)
    return _as_tree(az, datasets(collector, collector.collect()))


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
    az = installed()
    import xarray

    checks.path("path", path)
    if not Path(path).exists():
        raise checks.missing_tree(path)
    engine = "zarr" if Path(path).is_dir() else "h5netcdf"
    require(engine, "arviz")
    try:
        tree = xarray.open_datatree(path, engine=engine)
    except Exception as error:  # each engine has errors of its own
        raise checks.no_tree(path, error) from error
    checks.groups(path, needs, list(tree.children))
    return _as_tree(az, {name: node.to_dataset() for name, node in tree.children.items()} | {"": tree.to_dataset()})


def group(tree: Any, name: str) -> Any:
    """A group of a tree of either ArviZ as a dataset.

    Raises:
        ValueError: The tree lacks it.
    """
    try:
        found = tree[name]
    except KeyError:
        raise checks.no_group(name) from None
    return found.to_dataset() if hasattr(found, "to_dataset") else found


def datasets(collector: Collector, groups: Mapping[str, Mapping[str, np.ndarray]]) -> dict[str, Any]:
    """The groups as `xarray.Dataset`, and under the name "" one with the attributes of the whole."""
    import xarray

    fit = collector.fit
    attrs = {
        "inference": fit.method, "backend": fit.backend, "guide": "none" if fit.inference.markov else _said(fit.guide),
        "bayesian": _said(fit.bayesian), "model": type(fit.model).__name__, "temperature": fit.temperature,
        "weighting": fit.weighting, "library": "ugmm_ppl",
    }  # fmt: skip
    if fit.inference.density:
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
    if is_old(az):
        return az.InferenceData(attrs=dict(found[""].attrs), **groups)
    tree = xarray.DataTree.from_dict(groups)
    tree.attrs.update(found[""].attrs)
    return tree


def _said(choice: Any) -> str:
    """A setting as text: files have no attributes that are mappings or lists."""
    if isinstance(choice, Mapping):
        return ", ".join(f"{pattern}: {family}" for pattern, family in choice.items())
    return choice if isinstance(choice, str) else ", ".join(choice)


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
    if is_old(az):
        return az.InferenceData(attrs=attrs, **datasets)
    tree = xarray.DataTree.from_dict(datasets)
    tree.attrs.update(attrs)
    return tree
