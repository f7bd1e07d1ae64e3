"""Classifier: y ~ Categorical(logits = outputs of the network)."""

from __future__ import annotations

import dataclasses

from ugmm_ppl import checks
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.likelihoods.categorical import Categorical
from ugmm_ppl.models.base import kind
from ugmm_ppl.models.network import BaseNetworkModel
from ugmm_ppl.nn.network import Network
from ugmm_ppl.priors import Prior


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class Classifier(BaseNetworkModel):
    """p(y | x) = Categorical(y; logits = network(x)), an exact density of y given x.

    Args:
        network: The network.
        classes: Number of classes; y holds codes 0..classes-1.
        prior: Prior over the parameters.
    """

    network: Network
    classes: int
    prior: Prior = dataclasses.field(default_factory=Prior)

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.settle(self, classes=checks.count("classes", self.classes, least=2))
        super().__post_init__()

    @cached_property
    def likelihood(self) -> Categorical:  # type: ignore[override]
        """Of log densities, if the readout is ugmm."""
        return Categorical(self.classes, log_densities=self.network.log_densities)
