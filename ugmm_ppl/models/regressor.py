"""Regressor: y ~ a univariate Gaussian mixture whose parameters are the outputs of the network."""

from __future__ import annotations

import dataclasses

from ugmm_ppl import checks
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.likelihoods.mixture import Mixture
from ugmm_ppl.models.base import kind
from ugmm_ppl.models.network import BaseNetworkModel
from ugmm_ppl.nn.network import Network
from ugmm_ppl.priors import Prior


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class Regressor(BaseNetworkModel):
    """p(y | x) = sum_m weights_m(x) N(y; loc_m(x), scale_m(x)^2), an exact density of y given x.

    The 3 M outputs of the network are the mixture logits, the locations and the log scales, in this order.

    Args:
        network: The network.
        components: Number M of mixture components of the output.
        prior: Prior over the parameters.
    """

    network: Network
    components: int = 3
    prior: Prior = dataclasses.field(default_factory=Prior)

    def __post_init__(self) -> None:
        """Check the arguments."""
        checks.settle(self, components=checks.count("components", self.components))
        super().__post_init__()

    @cached_property
    def likelihood(self) -> Mixture:  # type: ignore[override]
        """A mixture of so many components."""
        return Mixture(self.components)
