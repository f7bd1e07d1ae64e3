"""The layer for NumPyro models of the user's own; equation (2) is in `ugmm_ppl.neuron`."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array

from ugmm_ppl import checks
from ugmm_ppl.kernels.jax_ops import OPS
from ugmm_ppl.nn.dense import LayerShape, initial_spread, layer_activation, neuron_parameters
from ugmm_ppl.nn.dropout import survivors
from ugmm_ppl.numpyro.distribution import UnivariateGaussianMixture
from ugmm_ppl.ops.jax_arrays import to_array
from ugmm_ppl.priors import Prior, draw


@dataclasses.dataclass(frozen=True)
class UGMMLayer:
    """J uGMM neurons over K inputs: `layer(x)` is equation (2), `layer.conditional(x)` equation (1) as a distribution.

    With a prior, `loc`, `log_scale` (or `scale`) and `logits` (or `weights`) are sample sites named `{name}.loc` and so
    on; without one they are `numpyro.param` sites.

    Args:
        in_features: Inputs K.
        out_features: Neurons J.
        prior: Priors by role, or None for parameters.
        tied: Tied means: no loc.
        dropout: Probability that a component is dropped where `train=True` is asked for.
        dropout_per_example: One mask over the inputs per example, in place of one over components per call.
        name: Prefix of the site names.
        seed: Seed of the start values, which take inputs of mean 0 and spread 1.

    Raises:
        ValueError, TypeError: Sizes, prior or dropout that make no layer.
    """

    in_features: int
    out_features: int
    _: dataclasses.KW_ONLY
    prior: Prior | None = None
    tied: bool = False
    dropout: float = 0.0
    dropout_per_example: bool = False
    name: str = "layer"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the description."""
        checks.settle(self, **checks.layer(self.in_features, self.out_features, self.prior, self.dropout, Prior))

    def values(self) -> dict[str, Array]:
        """The parameters in the space they live in: role -> `(..., J, K)`. Inside a model this samples their sites."""
        from ugmm_ppl.numpyro.backend import BACKEND

        shape = (self.out_features, self.in_features)
        if self.prior is None:
            layer = LayerShape(self.name, self.in_features, self.out_features)
            start = initial_spread(np.random.default_rng(self.seed), layer, np.array([[-1.0], [1.0]]), tied=self.tied)
            roles = ["log_scale", "logits"] if self.tied else ["loc", "log_scale", "logits"]
            return {role: numpyro.param(f"{self.name}.{role}", to_array(start[role])) for role in roles}
        like = jnp.zeros(())
        return {
            role: draw(BACKEND, prior, f"{self.name}.{role}", shape, like)
            for role, prior in self.prior.layer(None, tied=self.tied).items()
        }

    def __call__(self, x: Array, *, values: Mapping[str, Array] | None = None, train: bool = False) -> Array:
        """Activations, equation (2).

        Args:
            x: Inputs `(..., K)`.
            values: Parameters from `values()`, to use one sample twice in a model; by default sampled anew.
            train: Apply dropout, with the key of the surrounding seed handler.

        Returns:
            `(..., J)` in nats.
        """
        checks.last_axis(x, self.in_features)
        return layer_activation(OPS, self.values() if values is None else values, x, self._keep(x) if train else None)

    def conditional(self, x: Array, *, values: Mapping[str, Array] | None = None) -> UnivariateGaussianMixture:
        """The neurons as distributions given their inputs, equation (1).

        Args:
            x: Inputs `(..., K)`.
            values: As in `__call__`.

        Returns:
            Mixture of batch shape `(..., J)` with component means x_k - loc_jk; `.log_prob(0.0)` is `layer(x)`.
        """
        checks.last_axis(x, self.in_features)
        loc, scale, log_weights = neuron_parameters(OPS, self.values() if values is None else values)
        return UnivariateGaussianMixture(x[..., None, :] - loc, scale, logits=log_weights)

    def _keep(self, x: Array) -> Array | None:
        if self.dropout == 0.0:
            return None
        shape = (
            (*x.shape[:-1], 1, self.in_features) if self.dropout_per_example else (self.out_features, self.in_features)
        )
        return survivors(OPS, jax.random.uniform(numpyro.prng_key(), shape, x.dtype), self.dropout)
