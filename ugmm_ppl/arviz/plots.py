"""ArviZ's plots of a tree, under either version."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ugmm_ppl.arviz.tree import group
from ugmm_ppl.arviz.version import installed, is_old
from ugmm_ppl.backends.threads import DRAWING


def plot_forest(tree: Any, var_names: list[str], coords: Mapping[str, Any], path: Path) -> None:
    """Write ArviZ's forest plot of some variables to a PNG file."""
    az = installed()
    import matplotlib.pyplot as plt

    options = {"var_names": var_names, "coords": dict(coords), "combined": True}
    with DRAWING:
        if is_old(az):
            figure = az.plot_forest(tree, figsize=(8, 10), **options).ravel()[0].figure
        else:
            figure = az.plot_forest(tree, backend="matplotlib", **options).get_viz("figure")
        figure.savefig(path, dpi=110, bbox_inches="tight")
        plt.close(figure)


def forest_figure(tree: Any, var_names: list[str], coords: Mapping[str, Any], kind: str) -> Any:
    """ArviZ's forest plot ("forest") or ridge plot ("ridge") of some variables, as a matplotlib figure."""
    az = installed()
    lines = sum(
        int(np.prod(group(tree, "posterior")[name].sel(_within(tree, name, coords)).shape[2:])) for name in var_names
    )
    options = {"var_names": var_names, "coords": dict(coords), "combined": True}
    if is_old(az):
        size = (4.8, 0.7 + 0.22 * lines)
        drawn = az.plot_forest(tree, kind=f"{kind}plot", figsize=size, textsize=7, **options)
        return drawn.ravel()[0].figure
    plot = az.plot_forest if kind == "forest" else az.plot_ridge
    figure = plot(tree, backend="matplotlib", **options).get_viz("figure")
    figure.set_size_inches(4.8, 0.7 + 0.22 * lines)
    return figure


def _within(tree: Any, name: str, coords: Mapping[str, Any]) -> dict[str, Any]:
    return {dim: value for dim, value in coords.items() if dim in group(tree, "posterior")[name].dims}
