"""Ways down a circuit: a class, a tree and a state of each of its nodes, drawn or most probable; in NumPy.

Going down from the root, the state k of a child is taken given the state j of its parent, with probability proportional
to W_jk exp(v_k), where v is what the pass up found; so the states are an exact draw given what is seen. With v of the
max-product pass and the largest term taken each time, they are the most probable ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ugmm_ppl.circuit.leaves import Leaves
from ugmm_ppl.circuit.structure import Structure
from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.typing import Rows


class Way(NamedTuple):
    """R ways down.

    Attributes:
        draw: Number of the posterior draw `(R,)`.
        label: Class code `(R,)`.
        leaf: Leaf of every feature in the tree that was taken `(R, K)`.
        state: Its state `(R, K)`.
    """

    draw: np.ndarray
    label: np.ndarray
    leaf: np.ndarray
    state: np.ndarray


def choose(terms: np.ndarray, rng: np.random.Generator | None) -> np.ndarray:
    """Index of the last axis with probability proportional to exp(terms), or of the largest without a generator."""
    return np.argmax(terms, axis=-1) if rng is None else gumbel_max(terms, rng)


def trace(
    structure: Structure,
    parameters: Mapping[str, np.ndarray],
    values: np.ndarray,
    log_roots: np.ndarray,
    rows: np.ndarray,
    rng: np.random.Generator | None,
) -> Way:
    """Ways down for R rows.

    Args:
        structure: The forest.
        parameters: Natural parameters; `log_sums` `(S, N - T, J, J)`.
        values: v of all nodes `(S, N, B, J)`.
        log_roots: log p(draw, class, tree, root state | seen), up to a constant, `(S, B, O, T, J)`.
        rows: Number of the row of each way `(R,)`.
        rng: Random numbers; None takes the most probable way.
    """
    per_row = np.moveaxis(log_roots, 1, 0)  # (B, S, O, T, J)
    flat = per_row.reshape(len(per_row), -1)
    if len(rows) == len(flat) or rng is None:
        chosen = choose(flat[rows], rng)
    else:  # many ways for each row: by inversion, without a temporary of all terms for every way
        chosen = np.empty(len(rows), dtype=int)
        for row in np.unique(rows):
            own = np.flatnonzero(rows == row)
            total = np.cumsum(np.exp(flat[row] - flat[row].max()))
            chosen[own] = np.searchsorted(total, rng.uniform(size=len(own)) * total[-1], side="right")
    draw, label, tree, root_state = np.unravel_index(chosen, per_row.shape[1:])
    features = structure.num_features
    leaf, state = (np.empty((len(rows), features), dtype=int) for _ in range(2))
    trees, leaf_of = structure.tree_of_node, structure.leaf_of_node
    parents, held = np.array(structure.parent), np.array(structure.feature)
    for t in np.unique(tree):
        own = np.flatnonzero(tree == t)
        states = np.empty((structure.num_nodes, len(own)), dtype=int)
        states[structure.num_edges + t] = root_state[own]
        for level in structure.levels[-2::-1]:
            nodes = np.arange(level.nodes.start, level.nodes.stop)
            nodes = nodes[trees[nodes] == t]
            if nodes.size:
                sums = parameters["log_sums"][draw[own], nodes[:, None], states[parents[nodes]]]  # (nodes, R, J)
                states[nodes] = choose(sums + values[draw[own], nodes[:, None], rows[own]], rng)
        nodes = np.flatnonzero((trees == t) & (held >= 0))
        leaf[np.ix_(own, held[nodes])] = leaf_of[nodes]
        state[np.ix_(own, held[nodes])] = states[nodes].T
    return Way(draw, label, leaf, state)


def fill(
    leaves: Leaves, parameters: Mapping[str, np.ndarray], way: Way, x: Rows, rng: np.random.Generator | None
) -> np.ndarray:
    """Rows `(R, K)` with a value at every NaN, drawn from its leaf, or the most probable one without a generator."""
    result = x.copy()
    place = np.empty(len(leaves.features), dtype=int)  # of a leaf among its kind
    place[leaves.neurons], place[leaves.bins] = np.arange(len(leaves.neurons)), np.arange(len(leaves.bins))
    is_bins = np.isin(np.arange(len(leaves.features)), leaves.bins)
    for kind, values in ((False, _neurons), (True, _bins)):
        at = np.nonzero(np.isnan(x) & (is_bins[way.leaf] == kind))
        if at[0].size:
            where = (way.draw[at[0]], place[way.leaf[at]], way.state[at])
            result[at] = values(leaves, parameters, where, rng)
    return result


def _neurons(
    leaves: Leaves, parameters: Mapping[str, np.ndarray], where: tuple[np.ndarray, ...], rng: np.random.Generator | None
) -> np.ndarray:
    del leaves
    loc, scale, terms = (parameters[name][where] for name in ("loc", "scale", "log_weights"))
    component = choose(terms if rng is not None else terms - np.log(scale), rng)[:, None]
    at = np.take_along_axis(loc, component, -1)[:, 0]
    if rng is None:
        return at
    return at + np.take_along_axis(scale, component, -1)[:, 0] * rng.normal(size=len(at))


def _bins(
    leaves: Leaves, parameters: Mapping[str, np.ndarray], where: tuple[np.ndarray, ...], rng: np.random.Generator | None
) -> np.ndarray:
    terms = parameters["log_bins"][where]
    chosen = choose(terms if rng is not None else terms - leaves.log_width[where[1]], rng)
    low, high = leaves.low[where[1], chosen], leaves.high[where[1], chosen]
    whole = leaves.whole[where[1]]
    within = 0.5 if rng is None else rng.uniform(size=len(chosen))
    return np.where(whole, chosen, low + within * (high - low))
