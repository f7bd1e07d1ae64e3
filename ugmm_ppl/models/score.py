"""JointScore: the uGMM paper's generative classifier, whose score of (x, class) is not a density."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.likelihoods.categorical import Categorical
from ugmm_ppl.models.base import kind
from ugmm_ppl.models.network import BaseNetworkModel
from ugmm_ppl.nn.network import Network
from ugmm_ppl.priors import Prior
from ugmm_ppl.typing import Array, Inputs, Ops, Outputs, PerRow, Rows, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend

OBJECTIVES = ("score", "conditional")


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class JointScore(BaseNetworkModel):
    """A network with one output that sees the class as one more input; score(x, c), class = argmax over c.

    Source: the Iris experiment of uGMM-NN, arXiv:2509.07569, networks 5-10-5-1 and 5-20-8-1 with the code of the class,
    a real number, as the fifth input. The score is the activation of the last neuron, equation (2), and no density of
    (x, c): it is unbounded, and its sum over the data can grow without end as scales shrink. What is exact is

        p(c | x) = exp(score(x, c)) / sum_c' exp(score(x, c')),

    by enumeration of the classes. The outputs of the model are score(x, c), one per class.

    Args:
        network: The network; its inputs are the columns of x and the class, its readout is "ugmm".
        classes: Number of classes; y holds codes 0..classes-1.
        objective: "score" adds score(x, y) to the log joint, as the paper does; under a prior on the scales it has a
            maximum. "conditional" adds log p(y | x).
        prior: Prior over the parameters.

    Raises:
        ValueError: A network with another readout or without a place for the class, or another objective.
    """

    network: Network
    classes: int
    objective: str = "score"
    prior: Prior = dataclasses.field(default_factory=Prior)

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.settle(self, classes=checks.count("classes", self.classes, least=2))
        super().__post_init__()
        checks.choice("objective", self.objective, OBJECTIVES)
        checks.joint_score(self.network)

    @cached_property
    def likelihood(self) -> Categorical:  # type: ignore[override]
        """p(y | x), which is a density, whatever the objective of the fit."""
        return Categorical(self.classes)

    @property
    def information(self) -> None:
        """None: the score is no density."""
        return None

    @property
    def num_inputs(self) -> int:
        """Columns of x: the inputs of the network but the class."""
        return self.network.num_inputs - 1

    @property
    def network_outputs(self) -> int:
        """One: the score."""
        return 1

    @property
    def feature_axis(self) -> str:
        """Not the inputs of the first layer, of which the class is one."""
        return "feature"

    def coordinates(self, feature_names: list[str]) -> dict[str, Any]:
        """The columns, and those of the network, its last input the class."""
        return super().coordinates(feature_names) | {"input_0": [*feature_names, "class"]}

    def initial_values(self, x: Rows, seed: int) -> SiteValues:
        """Those of the network, for every row with a class drawn at random."""
        code = np.random.default_rng(seed).integers(self.classes, size=len(x))
        return self.network.initial_values(np.column_stack([x, self._coded(code)]), 1, seed)

    def outputs(self, ops: Ops, values: Values, x: Inputs, noise: Mapping[str, Array] | None = None) -> Array:
        """score(x, c) for all classes, `(..., B, K)` to `(..., B, classes)`."""
        scores = []
        for code in self._coded(np.arange(self.classes)):
            given = ops.concat([x, 0.0 * x[..., :1] + float(code)])
            scores.append(self.network.forward(ops, values, given, noise))
        return ops.concat(scores)

    def _coded(self, code: np.ndarray) -> np.ndarray:
        """The class as an input: codes, centred and scaled as if all classes were equally frequent."""
        codes = np.arange(self.classes)
        return (code - codes.mean()) / codes.std()

    def scores(self, outputs: Outputs, y: PerRow) -> PerRow:
        """score(x, y) of outputs `(..., B, classes)`: `(..., B)`. Not a log density."""
        at = np.broadcast_to(y[..., None], (*outputs.shape[:-1], 1))
        return np.take_along_axis(outputs, at, axis=-1)[..., 0]

    def observe(self, backend: Backend, values: Values, x: Inputs, y: Array | None, *, train: bool) -> Array:
        """With objective "score" and y given, score(x, y) is the factor `score`; else y is the site `y`."""
        if self.objective == "conditional" or y is None:
            return super().observe(backend, values, x, y, train=train)
        ops = backend.ops
        outputs = self.outputs(ops, values, x, self.noise(backend, x) if train else None)
        codes = ops.constant(np.arange(self.classes), outputs)
        backend.factor("score", ops.sum(ops.where(y[..., None] == codes, outputs, 0.0), -1))
        return y
