"""`Circuit`: a joint density of the features, and of a class, with exact marginals and conditionals."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import budgets
from ugmm_ppl.checks import count, settle
from ugmm_ppl.checks.data import classes_or_unknown
from ugmm_ppl.circuit import checks, passes
from ugmm_ppl.circuit.leaves import Binned, Categorical, Leaf, Leaves, kinds
from ugmm_ppl.circuit.prior import CircuitPrior
from ugmm_ppl.circuit.start import initial_values
from ugmm_ppl.circuit.structure import Structure, random_trees
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.models.base import kind
from ugmm_ppl.models.density import DensityModel
from ugmm_ppl.models.sites import SiteSpec
from ugmm_ppl.neuron import log_normalize, logsumexp
from ugmm_ppl.nn.spaces import SCALE_FLOOR, log_weights, unconstrained
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, Outputs, PerFeature, PerRow, Rows, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class Circuit(DensityModel):
    """A mixture of latent trees over K features whose leaves are uGMM neurons: a normalised density p(x, class).

    `ugmm_ppl.circuit.passes` has the equations. Any values may be missing (NaN), in fitting and in every query: they
    are integrated out exactly. The outputs of the model are log p(x, class), one per class.

    Args:
        features: Number of features K.
        classes: Number of classes, each with a root of its own over shared trees; None for a density of x alone.
        structure: The trees; None is `random_trees(features)`.
        neurons: States J of every node, which is the number of neurons at a leaf.
        components: Components M of a neuron.
        leaves: Features that are no real numbers: column -> `Categorical`, `Bernoulli()` or `Binned`.
        prior: Prior over the parameters.

    Raises:
        ValueError, TypeError: Counts below one, a structure of other features, unknown leaves.
    """

    features: int
    classes: int | None = None
    structure: Structure | None = None
    neurons: int = 16
    components: int = 2
    leaves: Mapping[int, Leaf] = dataclasses.field(default_factory=dict)
    prior: CircuitPrior = dataclasses.field(default_factory=CircuitPrior)

    def __post_init__(self) -> None:
        """Check the arguments."""
        settle(self, **{name: count(name, getattr(self, name)) for name in ("features", "neurons", "components")})
        if self.classes is not None:
            settle(self, classes=count("classes", self.classes, least=2))
        settle(self, leaves=checks.leaves(self.leaves, self.features, kinds()))
        checks.parts(self.structure, self.prior, self.features, Structure, CircuitPrior)

    @cached_property
    def forest(self) -> Structure:
        """The structure."""
        return self.structure or random_trees(self.features)

    @cached_property
    def all_leaves(self) -> Leaves:
        """The leaves of all trees."""
        return Leaves.of(self.forest.leaf_features, self.leaves)

    @property
    def num_inputs(self) -> int:
        """Number of features."""
        return self.features

    @property
    def readout_sites(self) -> str:
        """Those of the roots."""
        return "roots.*"

    @property
    def takes_missing(self) -> bool:
        """True: they are integrated out."""
        return True

    @property
    def rows_at_once(self) -> int:
        """By the values of all components of all leaves."""
        return max(1, budgets.TEMPORARY // (len(self.all_leaves.features) * self.neurons * self.components))

    @cached_property
    def continuous(self) -> PerFeature:
        """Whether a feature has neurons, `(K,)`: those features are standardised."""
        return ~np.isin(np.arange(self.features), list(self.leaves))

    @property
    def row_work(self) -> int:
        """Components of all leaves."""
        return len(self.all_leaves.features) * self.neurons * self.components

    def coordinates(self, feature_names: list[str]) -> dict[str, Any]:
        """Leaves by tree and feature."""
        leaves, trees = self.all_leaves, self.forest.tree_of_node[self.forest.leaf_nodes]
        label = np.array([f"tree {t}, {feature_names[f]}" for t, f in zip(trees, leaves.features, strict=True)])
        roots = np.arange(self.forest.num_trees * self.neurons)
        return {
            "leaf": label[leaves.neurons],
            "leaf_of_bins": label[leaves.bins],
            "feature": feature_names,
            "root_state": roots,
        }

    def check_inputs(
        self,
        x: Any,
        *,
        what: str = "x",
        convert: bool = True,
        first_row: int = 0,
        names: Sequence[str] | None = None,
    ) -> Rows:
        """Rows `(B, K)`, NaN where missing; codes must be those of their leaf."""
        x = checks.table(x, self.features, what=what, convert=convert, first_row=first_row, names=names)
        for column, leaf in self.leaves.items():
            if isinstance(leaf, Categorical):
                checks.codes(x, column, leaf.categories, first_row)
        return x

    def check_training(self, x: Rows) -> None:
        """Refuse columns of which nothing is seen, and values that are impossible."""
        checks.empty_columns(x)
        for column, leaf in self.leaves.items():
            checks.outside(x, column, leaf.edges[0], leaf.edges[-1])

    def check_target(self, y: Any, rows: int) -> PerRow:
        """Class codes `(B,)`, -1 where not known; None is all -1."""
        return classes_or_unknown(y, rows, self.classes)

    def units(self, x: Rows, *, jointly: bool, weights: PerRow | None = None) -> Standardizer:
        """Mean and spread of the columns with neurons, over what is seen; 0 and 1 for all others."""
        found = (
            Standardizer.of(x[:, self.continuous], jointly=jointly, weights=weights)
            if self.continuous.any()
            else Standardizer(np.zeros(()), np.ones(()))
        )
        mean, scale = np.zeros(self.features), np.ones(self.features)
        mean[self.continuous], scale[self.continuous] = found.mean, found.scale
        return Standardizer(mean, scale)

    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Stem of a site -> shape; without the sites of weights that could only be one."""
        leaves, forest, states = self.all_leaves, self.forest, self.neurons
        found = {
            "leaves.loc": (len(leaves.neurons), states, self.components),
            "leaves.log_scale": (len(leaves.neurons), states, self.components),
            "leaves.logits": (len(leaves.neurons), states, self.components),
            "bins.logits": (len(leaves.bins), states, leaves.low.shape[1]),
            "sums.logits": (forest.num_edges, states, states),
            "roots.logits": (self.num_outputs, forest.num_trees * states),
            "classes.logits": (self.num_outputs,),
        }
        return {
            name: shape
            for name, shape in found.items()
            if 0 not in shape and not (name.endswith("logits") and shape[-1] == 1)
        }

    @cached_property
    def sites(self) -> dict[str, SiteSpec]:
        """Leaves have states and components, transitions the states of a node and of its child."""
        axes = {
            "leaves.loc": ("leaf", "state", "mixture_component"),
            "leaves.log_scale": ("leaf", "state", "mixture_component"),
            "leaves.logits": ("leaf", "state", "mixture_component"),
            "bins.logits": ("leaf_of_bins", "state", "bin"),
            "sums.logits": ("edge", "state", "child_state"),
            "roots.logits": (self.likelihood.axis, "root_state"),
            "classes.logits": (self.likelihood.axis,),
        }
        shapes = self.shapes()
        stems = {site: unconstrained(site) for site in self.prior.sites()}
        return {
            site: SiteSpec(prior, shapes[stems[site]], axes[stems[site]])
            for site, prior in self.prior.sites().items()
            if stems[site] in shapes
        }

    def initial_values(self, x: Rows, seed: int) -> SiteValues:
        """Start values by `ugmm_ppl.circuit.start`; equal for both backends."""
        return initial_values(
            self.template(), self.all_leaves, self.forest.tree_of_node[self.forest.leaf_nodes], self.forest.num_trees,
            self.neurons, x, seed,
        )  # fmt: skip

    def natural(self, ops: Ops, values: Values) -> dict[str, Array]:
        """What `passes.log_joint` needs, from values of the sites `(..., )` in whichever space they were sampled."""
        found: dict[str, Array] = {}
        if "leaves.loc" in values:
            scale = values["leaves.scale"] if "leaves.scale" in values else ops.exp(values["leaves.log_scale"])
            found["loc"], found["scale"] = values["leaves.loc"], ops.at_least(scale, SCALE_FLOOR)
        like = values["leaves.loc"] if "leaves.loc" in values else next(iter(values.values()))
        draws = like.shape[: like.ndim - len(self.shapes()["leaves.loc" if "leaves.loc" in values else _stem(values)])]
        for name, stem, shape in (
            ("log_weights", "leaves", (len(self.all_leaves.neurons), self.neurons, self.components)),
            ("log_bins", "bins", None),
            ("log_sums", "sums", (self.forest.num_edges, self.neurons, self.neurons)),
            ("log_roots", "roots", (self.num_outputs, self.forest.num_trees * self.neurons)),
            ("log_classes", "classes", (self.num_outputs,)),
        ):
            weights = log_weights(ops, values, stem)
            if name == "log_bins" and weights is not None:
                absent = ops.constant(self.all_leaves.absent[:, None, :], weights)
                weights = log_normalize(ops, ops.where(absent > 0.0, -np.inf, weights))
            if weights is None and shape is not None:  # of one
                weights = ops.constant(np.zeros((*draws, *shape)), like)
            if weights is not None:
                found[name] = weights
        return found

    def outputs(self, ops: Ops, values: Values, x: Array) -> Array:
        """log p(x, class) `(..., B, O)` in nats, for values of the sites and rows as the model sees them."""
        return passes.log_joint(ops, self.forest, self.all_leaves, self.natural(ops, values), x)

    def described(self) -> dict[str, Any]:
        """The circuit as JSON values."""
        return {
            **{name: getattr(self, name) for name in ("features", "classes", "neurons", "components")},
            "structure": dataclasses.asdict(self.forest),
            "leaves": {
                str(c): {"kind": type(leaf).__name__, **dataclasses.asdict(leaf)} for c, leaf in self.leaves.items()
            },
            "prior": self.prior.described(),
        }

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Circuit:
        """The circuit from its JSON values."""
        leaves: dict[int, Leaf] = {}
        for column, own in parts["leaves"].items():
            kind = Categorical(own["categories"]) if own["kind"] == "Categorical" else Binned(tuple(own["edges"]))
            leaves[int(column)] = kind
        structure = Structure(**{name: tuple(value) for name, value in parts["structure"].items()})
        prior = CircuitPrior.from_description(parts["prior"], file)
        counts = {name: parts[name] for name in ("features", "classes", "neurons", "components")}
        return cls(structure=structure, leaves=leaves, prior=prior, **counts)

    def seen(self, ops: Ops, outputs: Array, y: Array | None) -> Array:
        """log p(x, y) where the class y is known, log p(x) where it is -1 or None: `(..., B, O)` to `(..., B)`."""
        log_density = logsumexp(ops, outputs)
        if y is None or self.classes is None:
            return log_density
        codes = ops.constant(np.arange(self.classes), y)
        picked = logsumexp(ops, ops.where(y[..., None] == codes, outputs, -np.inf))
        return ops.where(y < 0, log_density, picked)

    def log_likelihood(self, outputs: Outputs, y: PerRow) -> PerRow:
        """log p(x, y), or log p(x) where y is -1."""
        return self.seen(NUMPY, outputs, y)

    def plot(self, feature_names: Sequence[str] | None = None, *, trees: int = 4) -> Any:
        """Draw the trees; see `ugmm_ppl.circuit.plot.plot`."""
        from ugmm_ppl.circuit.plot import plot

        return plot(self.forest, feature_names, trees=trees)

    def observe(self, backend: Backend, values: Values, x: Array, y: Array | None, *, train: bool) -> Array:
        """The log density of every row as the factor `x`: `(B,)`. Values of x may be NaN, classes -1 or None."""
        del train
        log_density = self.seen(backend.ops, self.outputs(backend.ops, values, x), y)
        backend.factor("x", log_density)
        return log_density


def _stem(values: Values) -> str:
    return next(iter(values)).replace(".weights", ".logits").replace("leaves.scale", "leaves.log_scale")
