"""Start values of circuits, from the data."""

from __future__ import annotations

import numpy as np

from ugmm_ppl.circuit.leaves import Leaves
from ugmm_ppl.typing import Rows, SiteValues


def initial_values(
    values: dict[str, np.ndarray],
    leaves: Leaves,
    trees: np.ndarray,
    num_trees: int,
    states: int,
    x: Rows,
    seed: int,
) -> SiteValues:
    """Start values: every state of a tree begins as some row of x, with which its leaves agree.

    State j of tree t is given a row drawn from x; the locations of its neurons are that row's values (other drawn
    values where it has none, and for further components), scales are the spread of the feature, and transitions
    keep the state with probability 1/2.

    Args:
        values: Zeros for every site, which are filled.
        leaves: The leaves of all trees.
        trees: The tree of every leaf `(L,)`.
        states: States J of every node.
        num_trees: Number of trees.
        x: Rows `(B, K)` as the model sees them.
        seed: Seed.
    """
    rng = np.random.default_rng(seed)
    rows = np.stack([rng.choice(len(x), states, replace=len(x) < states) for _ in range(num_trees)])
    for number, leaf in enumerate(leaves.neurons):
        column = x[:, leaves.features[leaf]].astype(np.float64)
        seen = column[~np.isnan(column)]
        drawn = rng.choice(seen, values["leaves.loc"].shape[1:])
        drawn[:, 0] = np.where(np.isnan(column[rows[trees[leaf]]]), drawn[:, 0], column[rows[trees[leaf]]])
        spread = max(float(seen.std()), 1e-3)
        values["leaves.loc"][number] = drawn + 0.1 * spread * rng.normal(size=drawn.shape)
        values["leaves.log_scale"][number] = np.log(0.5 * spread)
    for number, leaf in enumerate(leaves.bins):
        values["bins.logits"][number] = _bins(leaves, number, x[:, leaves.features[leaf]], rows[trees[leaf]])
    if "sums.logits" in values:
        values["sums.logits"] += np.log(max(1, states - 1)) * np.eye(states) + 0.1 * rng.normal(
            size=values["sums.logits"].shape
        )
    for name in ("leaves.logits", "roots.logits"):
        if name in values:
            values[name] += 0.1 * rng.normal(size=values[name].shape)
    return values


def _bins(leaves: Leaves, number: int, column: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Logits `(J, C)`: half by the counts of the bins, half the bin of each state's row."""
    low, high, closed = (a[number] for a in (leaves.low, leaves.high, leaves.closed))
    inside = (column[:, None] >= low) & ((column[:, None] < high) | ((column[:, None] == high) & closed))
    counts = inside.sum(0) + 1.0
    own = inside[rows] / np.maximum(inside[rows].sum(1, keepdims=True), 1)
    return np.where(np.isnan(low), 0.0, np.log(0.5 * counts / counts.sum() + 0.5 * own + 1e-3))
