"""The layer as a Pyro module, for models of the user's own; equation (2) is in `ugmm_ppl.neuron`."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

from ugmm_ppl import checks
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.kernels.torch_ops import OPS
from ugmm_ppl.nn.dense import LayerShape, initial_spread, layer_activation, neuron_parameters
from ugmm_ppl.nn.dropout import survivors
from ugmm_ppl.ops.torch_arrays import default_dtype
from ugmm_ppl.priors import Prior, PriorValue, draw
from ugmm_ppl.pyro.distribution import UnivariateGaussianMixture


class UGMMLayer(PyroModule):
    """J uGMM neurons over K inputs: `layer(x)` is equation (2), `layer.conditional(x)` equation (1) as a distribution.

    With a prior, `loc`, `log_scale` (or `scale`) and `logits` (or `weights`) are `PyroSample` sites named after the
    module's place in the user's model; without one they are `torch.nn.Parameter`s.

    Args:
        in_features: Inputs K.
        out_features: Neurons J.
        prior: Priors by role, or None for parameters.
        tied: Tied means: no loc.
        dropout: Probability that a component is dropped while the module is in training mode.
        dropout_per_example: One mask over the inputs per example, in place of one over components per call.
        seed: Seed of the start values, which take inputs of mean 0 and spread 1.

    Raises:
        ValueError, TypeError: Sizes, prior or dropout that make no layer.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        prior: Prior | None = None,
        tied: bool = False,
        dropout: float = 0.0,
        dropout_per_example: bool = False,
        seed: int = 0,
    ) -> None:
        super().__init__()
        in_features, out_features, dropout = checks.layer(in_features, out_features, prior, dropout, Prior).values()
        self.in_features, self.out_features, self.tied = in_features, out_features, tied
        self.dropout, self.dropout_per_example = dropout, dropout_per_example
        self.register_buffer(
            "_like", torch.empty(0, dtype=default_dtype()), persistent=False
        )  # follows .to(): the priors take its dtype and device
        self._callables: dict[str, PriorValue] = {}
        shape = (out_features, in_features)
        start = initial_spread(
            np.random.default_rng(seed),
            LayerShape("", in_features, out_features),
            np.array([[-1.0], [1.0]]),
            tied=tied,
        )
        if prior is None:
            self._roles = ["log_scale", "logits"] if tied else ["loc", "log_scale", "logits"]
            for role in self._roles:
                setattr(self, role, torch.nn.Parameter(torch.tensor(start[role], dtype=default_dtype())))
            return
        roles = prior.layer(None, tied=tied)
        self._roles = list(roles)
        for role, value in roles.items():
            if isinstance(value, Distribution):
                setattr(self, role, PyroSample(functools.partial(_built, value, shape)))  # which can be pickled
            else:
                self._callables[role] = value

    def values(self) -> dict[str, Tensor]:
        """The parameters in the space they live in: role -> `(..., J, K)`. Inside a model this samples their sites."""
        from ugmm_ppl.pyro.backend import BACKEND

        shape = (self.out_features, self.in_features)
        with self._pyro_context:  # as in `forward`: outside it Pyro would draw values without making them sites
            return {
                role: draw(BACKEND, self._callables[role], self._pyro_get_fullname(role), shape, self._like)
                if role in self._callables
                else getattr(self, role)
                for role in self._roles
            }

    def forward(self, x: Tensor, *, values: Mapping[str, Tensor] | None = None, train: bool | None = None) -> Tensor:
        """Activations, equation (2).

        Args:
            x: Inputs `(..., K)`.
            values: Parameters from `values()`, to use one sample of a callable prior twice; by default taken anew.
            train: Apply dropout; default the module's mode.

        Returns:
            `(..., J)` in nats.
        """
        checks.last_axis(x, self.in_features)
        apply_dropout = self.training if train is None else train
        return layer_activation(
            OPS, self.values() if values is None else values, x, self._keep(x) if apply_dropout else None
        )

    def conditional(self, x: Tensor, *, values: Mapping[str, Tensor] | None = None) -> UnivariateGaussianMixture:
        """The neurons as distributions given their inputs, equation (1).

        Args:
            x: Inputs `(..., K)`.
            values: As in `forward`.

        Returns:
            Mixture of batch shape `(..., J)` with component means x_k - loc_jk; `.log_prob(0.0)` is `forward(x)`.
        """
        checks.last_axis(x, self.in_features)
        loc, scale, log_weights = neuron_parameters(OPS, self.values() if values is None else values)
        return UnivariateGaussianMixture(x[..., None, :] - loc, scale, logits=log_weights)

    def _keep(self, x: Tensor) -> Tensor | None:
        if self.dropout == 0.0:
            return None
        shape = (
            (*x.shape[:-1], 1, self.in_features) if self.dropout_per_example else (self.out_features, self.in_features)
        )
        return survivors(OPS, torch.rand(shape, dtype=x.dtype, device=x.device), self.dropout)


def _built(prior: Distribution, shape: tuple[int, ...], layer: UGMMLayer) -> Any:
    """The Pyro distribution of a described prior, of the dtype and on the device where the layer is."""
    from ugmm_ppl.pyro.backend import BACKEND

    return BACKEND.build(prior, shape, layer._like)
