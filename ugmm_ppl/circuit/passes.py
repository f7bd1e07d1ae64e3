r"""Evaluation: one pass up the trees gives the joint log density, one pass down the posterior of all states.

With v_nj the log density of what is seen at and below node n given its state j, W_c the transition from the states of
a node to those of its child c, and w the joint weights of classes, trees and root states,

    v_nj = leaf_nj + sum_{c child of n} m_cj,     m_cj = log sum_k W_cjk exp(v_ck),                      (up)
    log p(x, class) = log sum_{t,j} w_{class,t,j} exp(v_{root t,j}).

Every W_cj and w is on the simplex and every leaf is a density, so p is one: products are over disjoint features, and
sums are over densities of the same features. A missing value has leaf_nj = 0, which integrates it out exactly.
Written once for NumPy, torch and JAX. The axes are (..., nodes, B, J). Sources: Peharz et al. 2020 (EiNets),
arXiv:2004.06231, for sums as matrix products between exponentials and logarithms; Darwiche 2003, J. ACM 50(3), for both
passes.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping

import numpy as np

from ugmm_ppl.circuit.leaves import Leaves
from ugmm_ppl.circuit.structure import Level, Structure
from ugmm_ppl.neuron import near_zero
from ugmm_ppl.typing import Array, Ops


@dataclasses.dataclass(frozen=True)
class Upward:
    """What the pass up leaves behind.

    Attributes:
        values: v `(..., N, B, J)`.
        log_joint: log p(x, class) `(..., B, O)`.
    """

    values: Array
    log_joint: Array


def log_joint(ops: Ops, structure: Structure, leaves: Leaves, parameters: Mapping[str, Array], x: Array) -> Array:
    """log p(x, class) `(..., B, O)` in nats for rows x `(B, K)`, NaN where missing.

    Args:
        ops: The array library.
        structure: The forest.
        leaves: Its leaves.
        parameters: Those of `Leaves.log_prob`, and log weights `log_sums` `(..., N - T, J, J)`, `log_roots`
            `(..., O, T J)`, which sum to one over their last axis, and `log_classes` `(..., O)`.
        x: The rows.
    """
    return upward(ops, structure, leaves.log_prob(ops, parameters, x), parameters).log_joint


def upward(
    ops: Ops,
    structure: Structure,
    leaf_values: Array,
    parameters: Mapping[str, Array],
    mix: Callable[[Ops, Array, Array], Array] | None = None,
) -> Upward:
    """The pass up for log densities of the leaves `(..., L, B, J)`; `mix` in place of `log_mix` for other sums."""
    mix = mix or log_mix
    values: list[Array] = []
    messages: list[Array] = []
    for level in structure.levels:
        value = _products(ops, level, leaf_values, messages)
        values.append(value)
        if level.nodes.start < structure.num_edges:
            messages.append(mix(ops, value, parameters["log_sums"][..., level.nodes, :, :]))
    roots = values[-1].swapaxes(-3, -2)  # (..., B, T, J)
    flat = roots.reshape(*roots.shape[:-2], -1)
    total = mix(ops, flat, parameters["log_roots"]) + parameters["log_classes"][..., None, :]
    return Upward(ops.join(values, -3), total)


def _products(ops: Ops, level: Level, leaf_values: Array, messages: list[Array]) -> Array:
    """v of the nodes of a level."""
    own = leaf_values[..., level.leaves, :, :]
    if level.children.shape[1] == 0:
        return own
    gathered = ops.join(messages, -3)[..., level.children, :, :]  # (..., nodes, children, B, J)
    if level.present is not None:
        gathered = ops.where(ops.constant(level.present[:, :, None, None], gathered) > 0.0, gathered, 0.0)
    below = ops.sum(gathered, -3)
    count = level.leaves.stop - level.leaves.start
    if count == 0:
        return below
    with_leaf = own + below[..., :count, :, :]
    return with_leaf if count == below.shape[-3] else ops.join([with_leaf, below[..., count:, :, :]], -3)


def log_mix(ops: Ops, values: Array, log_weights: Array) -> Array:
    """log sum_k weights_jk exp(values_k), `(..., B, K)` and `(..., J, K)` to `(..., B, J)`.

    A matrix product of exponentials, taken relative to the largest value of each row. A term counts for nothing where
    it is below the largest value by 87 nats in float32, 708 in float64; a sum of such terms alone is -inf.
    """
    peak = ops.max(values, -1)
    peak = ops.where(ops.isfinite(peak), peak, 0.0)
    total = ops.exp(values - peak) @ ops.exp(log_weights).swapaxes(-1, -2)
    possible = total != 0.0  # NaN is passed on
    return ops.where(possible, ops.log(ops.where(possible, total, 1.0)) + peak, -math.inf)


def max_mix(ops: Ops, values: Array, log_weights: Array) -> Array:
    """max_k (log weights_jk + values_k): the shapes of `log_mix`."""
    return ops.max(values[..., None, :] + log_weights[..., None, :, :], -1)[..., 0]


def downward(ops: Ops, structure: Structure, parameters: Mapping[str, Array], up: Upward, log_roots: Array) -> Array:
    """Log posterior probability of every state of every node, `(..., N, B, J)`.

    Args:
        ops: The array library.
        structure: The forest.
        parameters: As in `log_joint`.
        up: The pass up.
        log_roots: Log posterior of the trees and root states `(..., B, T, J)`, -inf for what is impossible. They may
            sum to less than one over the last two axes.

    Returns:
        log p(tree, state of the node | seen); over all trees and the states of one node of each, they sum to what
        `log_roots` sums to.
    """
    parents = np.array(structure.parent)
    found: list[Array] = [log_roots.swapaxes(-3, -2)]  # of the levels from above, (..., nodes, B, J)
    first = structure.levels[-1].nodes.start
    for level in structure.levels[-2::-1]:
        nodes = level.nodes
        above = ops.join(found[::-1], -3)[..., parents[nodes] - first, :, :]
        value, weights = near_zero(ops, up.values[..., nodes, :, :]), parameters["log_sums"][..., nodes, :, :]
        message = log_mix(ops, value, weights)  # that of the pass up less what `near_zero` has taken off
        possible = message != -math.inf
        ratio = ops.where(possible, above - ops.where(possible, message, 0.0), -math.inf)
        found.append(log_mix(ops, ratio, weights.swapaxes(-1, -2)) + value)
        first = nodes.start
    return ops.join(found[::-1], -3)


def root_terms(structure: Structure, parameters: Mapping[str, Array], up: Upward, log_prior: Array) -> Array:
    """log p(class, tree, root state, what is seen), `(..., B, O, T, J)`.

    Args:
        structure: The forest.
        parameters: As in `log_joint`.
        up: The pass up.
        log_prior: Is added, `(..., B, O)`: the log weight of a draw, or -inf for a class that is not the one.
    """
    roots = up.values[..., structure.levels[-1].nodes, :, :].swapaxes(-3, -2)  # (..., B, T, J)
    weights = parameters["log_roots"].reshape(*parameters["log_roots"].shape[:-1], *roots.shape[-2:])  # (..., O, T, J)
    terms = weights[..., None, :, :, :] + roots[..., None, :, :]
    return terms + (log_prior + parameters["log_classes"][..., None, :])[..., None, None]
