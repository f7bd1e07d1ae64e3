"""A fit's ArviZ tree to a netCDF file or a Zarr folder, draws block by block."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.arviz.dims import axes
from ugmm_ppl.arviz.groups import Collector
from ugmm_ppl.arviz.request import Request
from ugmm_ppl.arviz.tree import datasets
from ugmm_ppl.arviz.version import installed
from ugmm_ppl.checks import files as checks
from ugmm_ppl.checks.machine import require

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive


def write(collector: Collector, path: Path) -> None:
    """All groups but the draws at once, then the draws block by block, to NAME.nc or NAME.zarr."""
    import xarray

    found = datasets(collector, collector.collect(posterior=False))
    drawn = {n: collector.shapes[n] for n in collector.drawn} if collector.request.wants("posterior") else {}
    whole = (collector.fit.num_chains, collector.num_draws)
    if drawn:
        empty = {n: np.broadcast_to(np.float32(0.0), (*whole, *shape)) for n, shape in drawn.items()}
        posterior = datasets(collector, {"posterior": empty})
        found["posterior"] = posterior["posterior"].drop_vars(list(drawn))
    tree = xarray.DataTree.from_dict({name or "/": dataset for name, dataset in found.items()})
    if path.suffix == ".nc":
        tree.to_netcdf(path, engine="h5netcdf")
        import h5netcdf

        with h5netcdf.File(path, "a") as file:
            _stream(collector, drawn, _NetCDF(file["posterior"] if drawn else None))
    else:
        import zarr

        tree.to_zarr(path, consolidated=False, zarr_format=2)  # the format that old and new readers share
        _stream(collector, drawn, _Zarr(zarr.open_group(path, mode="a")["posterior"] if drawn else None))
        zarr.consolidate_metadata(path)


class _NetCDF:
    """Variables of a group of a netCDF file."""

    def __init__(self, group: Any) -> None:
        self.group = group

    def create(self, name: str, shape: tuple[int, ...], dims: list[str], chunks: tuple[int, ...], dtype: str) -> Any:
        for dim, size in zip(dims, shape, strict=True):
            if dim not in self.group.dimensions:
                self.group.dimensions[dim] = size
        return self.group.create_variable(name, dims, dtype, chunks=chunks)


class _Zarr(_NetCDF):
    """Arrays of a group of a Zarr folder."""

    def create(self, name: str, shape: tuple[int, ...], dims: list[str], chunks: tuple[int, ...], dtype: str) -> Any:
        attributes = {"_ARRAY_DIMENSIONS": dims}
        return self.group.create_array(name, shape=shape, chunks=chunks, dtype=dtype, attributes=attributes)


def _stream(collector: Collector, drawn: Mapping[str, tuple[int, ...]], target: _NetCDF) -> None:
    """Write the draws of some sites, a block at a time; a chunk of the file is one block of one chain."""
    if not drawn:
        return
    arrays = {}
    for chain, block, draws, _ in collector.blocks():
        for name, shape in drawn.items():
            if name not in arrays:
                dims = axes("posterior", name, collector.dims, 2 + len(shape))
                sizes = (collector.fit.num_chains, collector.num_draws, *shape)
                chunks = (1, block.stop - block.start, *shape)
                arrays[name] = target.create(name, sizes, dims, chunks, collector.fit.dtype)
            arrays[name][chain, block] = draws[name]


def export(fit: Predictive, path: str | os.PathLike[str], x: Any = None, y: Any = None, **options: Any) -> None:
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
    installed()
    checks.path("path", path)
    path = Path(path)
    checks.new_tree(path)
    require("h5py" if path.suffix == ".nc" else "zarr", "arviz")
    collector = Collector(fit, x, y, Request(**{"keep": "draws"} | options))
    partial = path.with_name(f"{path.stem}.{threading.get_native_id()}.partial{path.suffix}")
    try:
        write(collector, partial)
        partial.replace(path)
    finally:
        if partial.is_dir():
            shutil.rmtree(partial)
        partial.unlink(missing_ok=True)
