"""The density of a circuit by its definition: a sum over classes, trees and every assignment of states, in Python."""

import itertools

import numpy as np
from scipy import stats

import ugmm_ppl as up
from ugmm_ppl.circuit import CircuitDensity


def softmax(a):
    e = np.exp(a - a.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def random_density(model, seed, draws=1, spread=1.0, units=None):
    """A density of the model with random values at all sites."""
    rng = np.random.default_rng(seed)
    values = {name: spread * rng.normal(size=(draws, *shape)) for name, shape in model.shapes().items()}
    if "leaves.log_scale" in values:
        values["leaves.log_scale"] = np.maximum(0.3 * values["leaves.log_scale"] - 0.5, -0.7)
    return CircuitDensity(model, values, units=units)


class Oracle:
    """Lists every mixture component of a circuit: (weight, class, tree, {feature: (leaf, state)})."""

    def __init__(self, density, draw=0):
        model = density.model
        values = {name: value[draw] for name, value in density.values.items()}
        self.model, self.values, forest, states = model, values, model.forest, model.neurons
        roots = softmax(values["roots.logits"]) if "roots.logits" in values else np.ones((model.num_outputs, 1))
        classes = softmax(values["classes.logits"]) if "classes.logits" in values else np.ones(1)
        sums = softmax(values["sums.logits"]) if "sums.logits" in values else np.ones((forest.num_edges, 1, 1))
        parents = forest.parent
        children = {n: [c for c in range(forest.num_nodes) if parents[c] == n] for n in range(forest.num_nodes)}
        leaf_of = {int(node): leaf for leaf, node in enumerate(forest.leaf_nodes)}
        self.terms = []
        for tree, root in enumerate(n for n in range(forest.num_nodes) if parents[n] == -1):
            nodes, waiting = [], [root]
            while waiting:
                nodes.append(waiting.pop())
                waiting += children[nodes[-1]]
            for assigned in itertools.product(range(states), repeat=len(nodes)):
                state = dict(zip(nodes, assigned, strict=True))
                inner = np.prod([sums[n, state[parents[n]], state[n]] for n in nodes if n != root])
                held = {forest.feature[n]: (leaf_of[n], state[n]) for n in nodes if forest.feature[n] >= 0}
                for label in range(model.num_outputs):
                    weight = classes[label] * roots[label, tree * states + state[root]] * inner
                    self.terms.append((weight, label, tree, held))

    def leaf(self, leaf, state, x):
        """Density of one leaf at values x `(B,)`, 1 where they are NaN."""
        x = np.asarray(x, dtype=float)
        leaves = self.model.all_leaves
        if leaf in leaves.neurons:
            n = list(leaves.neurons).index(leaf)
            weights = softmax(self.values["leaves.logits"][n, state]) if "leaves.logits" in self.values else np.ones(1)
            loc, scale = self.values["leaves.loc"][n, state], np.exp(self.values["leaves.log_scale"][n, state])
            value = sum(w * stats.norm.pdf(x, m, s) for w, m, s in zip(weights, loc, scale, strict=True))
        else:
            n = list(leaves.bins).index(leaf)
            edges = self.model.leaves[int(leaves.features[leaf])].edges
            probs = softmax(self.values["bins.logits"][n, state, : len(edges) - 1])
            value = np.zeros_like(x)
            for p, a, b in zip(probs, edges, edges[1:], strict=False):
                value = np.where((a <= x) & ((x < b) | ((x == b) & (b == edges[-1]))), p / (b - a), value)
        return np.where(np.isnan(x), 1.0, value)

    def joint(self, x):
        """p(x, class) of rows `(B, K)`, `(B, O)`."""
        x = np.asarray(x, dtype=float)
        states = {pair for *_, held in self.terms for pair in held.items()}
        value = {(f, leaf, s): self.leaf(leaf, s, x[:, f]) for f, (leaf, s) in states}
        total = np.zeros((len(x), self.model.num_outputs))
        for weight, label, _, held in self.terms:
            total[:, label] += weight * np.prod([value[f, leaf, s] for f, (leaf, s) in held.items()], axis=0)
        return total

    def density(self, x):
        """p(x) of rows, `(B,)`."""
        return self.joint(x).sum(1)


CASES = {
    "random": lambda: up.Circuit(3, structure=up.random_trees(3, 2, seed=1), neurons=2, components=2),
    "classes": lambda: up.Circuit(2, classes=3, structure=up.random_trees(2, 2, seed=0), neurons=2, components=1),
    "chain": lambda: up.Circuit(
        3, classes=2, structure=up.Structure.of([1, 2, -1], [2, 0, 1]), neurons=2, components=2
    ),
    "quad": lambda: up.Circuit(4, structure=up.quad_tree(2, 2) + up.random_trees(4, 1), neurons=2, components=2),
    "mixed": lambda: up.Circuit(
        3,
        classes=2,
        structure=up.random_trees(3, 1, seed=2) + up.Structure.of([-1, 0, 0], [1, 0, 2]),
        neurons=2,
        leaves={0: up.Categorical(3), 2: up.Binned((-1.0, 0.0, 0.5, 2.0))},
    ),
    "single": lambda: up.Circuit(1, structure=up.random_trees(1, 1), neurons=1, components=3),
}


def random_rows(model, rows, rng, missing=0.4):
    """Rows of the kinds of the features, some of them not seen."""
    x = rng.normal(size=(rows, model.features))
    for column, leaf in model.leaves.items():
        if isinstance(leaf, up.Categorical):
            x[:, column] = rng.integers(leaf.categories, size=rows)
        else:
            x[:, column] = rng.uniform(leaf.edges[0], leaf.edges[-1], size=rows)
    x[rng.uniform(size=x.shape) < missing] = np.nan
    return x
