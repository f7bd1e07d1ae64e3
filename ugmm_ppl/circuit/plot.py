"""A picture of the trees of a circuit."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks.machine import require
from ugmm_ppl.circuit.structure import NONE, Structure

NAMED = 40
"""Most features whose names are written at their leaves."""


def plot(structure: Structure, feature_names: Sequence[str] | None = None, *, trees: int = 4) -> Any:
    """Draw the first trees of a structure: nodes by height, features as squares.

    Args:
        structure: The forest.
        feature_names: What is written at the leaves, if they are not too many.
        trees: At most that many trees.

    Returns:
        A `matplotlib.figure.Figure`.

    Raises:
        MissingExtraError: Matplotlib is not installed.
    """
    figures = require("matplotlib.figure", "cli")
    shown = min(trees, structure.num_trees)
    figure = figures.Figure(figsize=(4.0 * shown, 3.2), layout="constrained")
    axes = np.atleast_1d(figure.subplots(1, shown))
    names = feature_names or [str(k) for k in range(structure.num_features)]
    heights = np.empty(structure.num_nodes)
    for height, level in enumerate(structure.levels):
        heights[level.nodes] = height
    for tree, axis in enumerate(axes):
        nodes: list[int] = np.flatnonzero(structure.tree_of_node == tree).tolist()
        across = _places(structure, nodes)
        for node in nodes:
            parent = structure.parent[node]
            if parent != NONE:
                axis.plot(
                    [across[node], across[parent]], [heights[node], heights[parent]], color="0.6", lw=0.8, zorder=1
                )
        for held, marker, colour in ((False, "o", "tab:blue"), (True, "s", "tab:orange")):
            own = [n for n in nodes if (structure.feature[n] != NONE) == held]
            axis.scatter(
                [across[n] for n in own], [heights[n] for n in own], s=18, marker=marker, color=colour, zorder=2
            )
            if held and len(own) <= NAMED:
                for node in own:
                    axis.annotate(
                        names[structure.feature[node]], (across[node], heights[node]), fontsize=7,
                        xytext=(0, -5), textcoords="offset points", ha="center", va="top", rotation=90,
                    )  # fmt: skip
        axis.set(title=f"tree {tree}", xticks=[], ylabel="height" if tree == 0 else "")
        axis.spines[["top", "right", "bottom"]].set_visible(False)  # names hang below the leaves
        axis.yaxis.get_major_locator().set_params(integer=True)
        axis.margins(0.05, 0.25)
    return figure


def _places(structure: Structure, nodes: Sequence[int]) -> dict[int, float]:
    """Place of every node from left to right: those without children side by side, others above their children."""
    children: dict[int, list[int]] = {n: [] for n in nodes}
    for node in nodes:
        if structure.parent[node] != NONE:
            children[structure.parent[node]].append(node)
    place: dict[int, float] = {}
    waiting, count = [nodes[-1]], 0
    while waiting:  # depth first; a node is placed once its children are
        node = waiting[-1]
        open_children = [c for c in children[node] if c not in place]
        if open_children:
            waiting.append(open_children[0])
            continue
        waiting.pop()
        if children[node]:
            place[node] = sum(place[c] for c in children[node]) / len(children[node])
        else:
            place[node], count = float(count), count + 1
    return place
