"""The structure of a circuit as plain data: a forest of latent trees over the features.

Every node of a tree stands for a region, the features at it and below it, and has J states. A node may hold one
feature. The children of a node have disjoint regions, so that a product over them is a density whenever they are
densities (a decomposable circuit). The trees of a forest are alternatives: the root of the circuit mixes them.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence
from functools import cached_property
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl.checks import count, settle
from ugmm_ppl.circuit import checks
from ugmm_ppl.typing import INDEX, Numbers, Rows

NONE = -1
"""No parent, or no feature."""


class Level(NamedTuple):
    """Nodes of one height, which are evaluated together.

    Attributes:
        nodes: Their numbers.
        leaves: Numbers of the leaves that the first of them hold; the others hold none.
        children: Numbers of their children `(nodes, most)`, padded with 0.
        present: Where `children` is no padding, or None if there is no padding.
    """

    nodes: slice
    leaves: slice
    children: np.ndarray
    present: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Structure:
    """A forest of N nodes in T trees; every tree holds each of K features once.

    Nodes are stored by height: children come before their parents, roots come last, and among the nodes of one height
    those with a feature come first. `of` brings any order into this one.

    Args:
        parent: Number of each node's parent, -1 for the T roots, N entries.
        feature: Number of the feature that a node holds, or -1, N entries.

    Raises:
        ValueError: A forest that is none, or trees that do not hold every feature once.
    """

    parent: tuple[int, ...]
    feature: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that this is a forest in the order of its heights."""
        parent, feature = np.array(self.parent), np.array(self.feature)
        checks.forest(parent, feature)
        settle(self, parent=tuple(parent.tolist()), feature=tuple(feature.tolist()))

    @classmethod
    def of(cls, parent: Sequence[int], feature: Sequence[int]) -> Structure:
        """The same forest with its nodes sorted by height."""
        parents, features = np.array(parent), np.array(feature)
        order = np.lexsort((features == NONE, _heights(parents)))
        rank = np.empty(len(order), dtype=int)
        rank[order] = np.arange(len(order))
        moved = np.where(parents[order] == NONE, NONE, rank[parents[order]])
        return cls(tuple(moved.tolist()), tuple(features[order].tolist()))

    def __add__(self, other: Structure) -> Structure:
        """The trees of both."""
        shifted = [p if p == NONE else p + self.num_nodes for p in other.parent]
        return Structure.of([*self.parent, *shifted], [*self.feature, *other.feature])

    def __mul__(self, times: int) -> Structure:
        """Each tree that many times: every copy has parameters of its own."""
        result = self
        for _ in range(times - 1):
            result = result + self
        return result

    def __repr__(self) -> str:
        """The counts."""
        return f"Structure(features={self.num_features}, trees={self.num_trees}, nodes={self.num_nodes})"

    @property
    def num_nodes(self) -> int:
        """Number of nodes N."""
        return len(self.parent)

    @property
    def num_edges(self) -> int:
        """Number of nodes with a parent, N - T; they are the first ones."""
        return self.num_nodes - self.num_trees

    @cached_property
    def num_trees(self) -> int:
        """Number of trees T."""
        return sum(p == NONE for p in self.parent)

    @property
    def num_features(self) -> int:
        """Number of features K."""
        return max(self.feature) + 1

    @cached_property
    def leaf_features(self) -> Numbers:
        """Feature of every leaf, `(T K,)`, in the order of the nodes that hold them."""
        features = np.array(self.feature)
        return features[features != NONE]

    @cached_property
    def leaf_nodes(self) -> Numbers:
        """Node of every leaf, `(T K,)`."""
        return np.flatnonzero(np.array(self.feature) != NONE)

    @cached_property
    def tree_of_node(self) -> Numbers:
        """Tree of every node, `(N,)`."""
        root = np.arange(self.num_nodes)
        for node in range(self.num_edges - 1, -1, -1):
            root[node] = root[self.parent[node]]
        return root - self.num_edges

    @cached_property
    def leaf_of_node(self) -> Numbers:
        """Leaf of every node, `(N,)`, -1 where it has none."""
        found = np.full(self.num_nodes, NONE)
        found[self.leaf_nodes] = np.arange(len(self.leaf_nodes))
        return found

    @cached_property
    def levels(self) -> tuple[Level, ...]:
        """The nodes by height, from below."""
        heights, features = _heights(np.array(self.parent)), np.array(self.feature)
        children: list[list[int]] = [[] for _ in range(self.num_nodes)]
        for node, parent in enumerate(self.parent):
            if parent != NONE:
                children[parent].append(node)
        found, leaves = [], 0
        for height in range(heights.max() + 1):
            nodes = np.flatnonzero(heights == height)
            most = max((len(children[n]) for n in nodes.tolist()), default=0)
            padded = np.zeros((len(nodes), most), dtype=INDEX)
            for row, node in zip(padded, nodes.tolist(), strict=True):
                row[: len(children[node])] = children[node]
            present = np.arange(most) < np.array([len(children[n]) for n in nodes.tolist()])[:, None]
            count = int((features[nodes] != NONE).sum())
            found.append(
                Level(
                    slice(int(nodes[0]), int(nodes[-1]) + 1), slice(leaves, leaves + count),
                    padded, None if present.all() else present,
                )
            )  # fmt: skip
            leaves += count
        return tuple(found)


def random_trees(features: int, repetitions: int = 4, *, seed: int = 0) -> Structure:
    """Balanced binary trees: the features are cut in two at random, again and again (Peharz et al. 2019, RAT-SPN).

    Args:
        features: Number of features K.
        repetitions: Number of trees T.
        seed: Seed of the cuts.
    """
    features, repetitions = count("features", features), count("repetitions", repetitions)
    rng = np.random.default_rng(count("seed", seed, least=0))

    def halves(members: Sequence[int]) -> Iterator[Sequence[int]]:
        middle = math.ceil(len(members) / 2)
        return iter((members[:middle], members[middle:]))

    trees = [_by_cutting(rng.permutation(features).tolist(), halves) for _ in range(repetitions)]
    return _joined(trees)


def quad_tree(height: int, width: int, *, binary: bool = False) -> Structure:
    """The tree of an image of height x width pixels, row by row: each rectangle is cut into four quarters.

    Args:
        height: Rows of pixels.
        width: Columns of pixels.
        binary: Cut the longer side in two, in place of both sides.
    """
    height, width = count("height", height), count("width", width)
    pixels = np.arange(height * width).reshape(height, width)

    def parts(block: np.ndarray) -> Iterator[np.ndarray]:
        tall, wide = block.shape
        rows = np.array_split(block, 2) if tall > 1 and (tall >= wide or not binary) else [block]
        for part in rows:
            cut = wide > 1 and (len(rows) == 1 or not binary)
            yield from np.array_split(part, 2, axis=1) if cut else [part]

    return _joined([_by_cutting(pixels, parts)])


def chow_liu_tree(x: Any, *, bins: int = 8, rows: int = 5000, seed: int = 0) -> Structure:
    """The spanning tree of largest mutual information between features (Chow and Liu 1968), rooted at its centre.

    Every node holds a feature, with a latent variable beside it (a hidden Chow-Liu tree; Liu and Van den Broeck 2021).
    Mutual information is that of the ranks in `bins` classes of equal size, over rows in which both features are seen.

    Args:
        x: Training rows `(B, K)`, NaN where missing.
        bins: Classes of equal size.
        rows: At most that many rows are looked at, drawn by the seed.
        seed: Seed of the drawing; another one gives another tree.
    """
    x, bins, rows = checks.table(x), count("bins", bins, least=2), count("rows", rows)
    rng = np.random.default_rng(count("seed", seed, least=0))
    if len(x) > rows:
        x = x[rng.permutation(len(x))[:rows]]
    return _joined([_rooted(_spanning_tree(mutual_information(x, bins)))])


def mutual_information(x: Rows, bins: int) -> np.ndarray:
    """Mutual information in nats between the ranks of all pairs of columns, `(B, K)` with NaN to `(K, K)`."""
    codes = np.full(x.shape, -1)
    for column, values in enumerate(x.T):
        seen = ~np.isnan(values)
        if seen.any():
            edges = np.unique(np.quantile(values[seen], np.linspace(0.0, 1.0, bins + 1)[1:-1]))
            codes[seen, column] = np.searchsorted(edges, values[seen], side="right")
    one_hot = (codes[:, :, None] == np.arange(bins)).astype(np.float64)  # (B, K, bins)
    flat = one_hot.reshape(len(x), -1)
    features = x.shape[1]
    joint = (flat.T @ flat).reshape(features, bins, features, bins).transpose(0, 2, 1, 3)  # (K, K, bins, bins)
    joint = joint / np.maximum(joint.sum((2, 3), keepdims=True), 1.0)
    product = joint.sum(3, keepdims=True) * joint.sum(2, keepdims=True)
    ratio = np.divide(joint, product, out=np.ones_like(joint), where=joint > 0.0)
    return (joint * np.log(ratio)).sum((2, 3))


def _spanning_tree(weight: np.ndarray) -> list[list[int]]:
    """Neighbours of every node in the tree of largest total weight, by Prim's algorithm."""
    count = len(weight)
    neighbours: list[list[int]] = [[] for _ in range(count)]
    best, source = weight[0].copy(), np.zeros(count, dtype=np.int64)
    outside = np.arange(count) != 0
    for _ in range(count - 1):
        node = int(np.argmax(np.where(outside, best, -np.inf)))
        neighbours[node].append(int(source[node]))
        neighbours[source[node]].append(node)
        outside[node] = False
        closer = weight[node] > best
        best, source = np.where(closer, weight[node], best), np.where(closer, node, source)
    return neighbours


def _rooted(neighbours: list[list[int]]) -> tuple[list[int], list[int]]:
    """(parents, features) of the tree rooted at the middle of its longest path, so that it is shallow."""

    def walk(start: int) -> list[int]:
        parents, order = [NONE] * len(neighbours), [start]
        for node in order:
            for other in neighbours[node]:
                if other != parents[node]:
                    parents[other] = node
                    order.append(other)
        return [*parents, order[-1]]

    *_, end = walk(0)
    *parents, other = walk(end)
    path = [other]
    while parents[path[-1]] != NONE:
        path.append(parents[path[-1]])
    *parents, _ = walk(path[len(path) // 2])
    return parents, list(range(len(neighbours)))


def _by_cutting(whole: Any, cut: Any) -> tuple[list[int], list[int]]:
    """(parents, features) of the tree that cuts a collection of features until single ones are left."""
    parents, features, waiting = [], [], [(whole, NONE)]
    while waiting:
        members, parent = waiting.pop()
        single = np.size(members) == 1
        parents.append(parent)
        features.append(int(np.ravel(members)[0]) if single else NONE)
        if not single:
            waiting.extend((part, len(parents) - 1) for part in cut(members))
    return parents, features


def _joined(trees: Sequence[tuple[list[int], list[int]]]) -> Structure:
    parents: list[int] = []
    features: list[int] = []
    for own_parents, own_features in trees:
        start = len(parents)
        parents += [p if p == NONE else p + start for p in own_parents]
        features += own_features
    return Structure.of(parents, features)


def _heights(parents: np.ndarray) -> np.ndarray:
    """Longest way down from every node; all roots are as high as the highest."""
    heights = np.zeros(len(parents), dtype=int)
    changed = True
    while changed:
        below = np.zeros_like(heights)
        has = parents != NONE
        np.maximum.at(below, parents[has], heights[has] + 1)
        changed = bool((below > heights).any())
        heights = np.maximum(heights, below)
    return np.where(parents == NONE, heights.max(), heights)
