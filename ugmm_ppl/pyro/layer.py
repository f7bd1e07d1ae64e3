"""Layers as Pyro modules, for models of the user's own; equation (2) is in `ugmm_ppl.neuron`."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from pyro.nn import PyroModule, PyroSample
from torch import Tensor

from ugmm_ppl import checks
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.kernels.torch_ops import OPS
from ugmm_ppl.nn.base import Layer
from ugmm_ppl.nn.dense import Dense, neuron_parameters
from ugmm_ppl.nn.spaces import unconstrained
from ugmm_ppl.ops.torch_arrays import default_dtype
from ugmm_ppl.priors import Prior, PriorValue, draw
from ugmm_ppl.pyro.distribution import UnivariateGaussianMixture
from ugmm_ppl.typing import Shape


class _Part(PyroModule):
    """What parameters are attributes of; those of a layer in a network have parts of their own, `layers` and `0`."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer(
            "_like", torch.empty(0, dtype=default_dtype()), persistent=False
        )  # follows .to(): the priors take its dtype and device


class LayerModule(_Part):
    """A layer of `ugmm_ppl.nn`, or a network of them, as a Pyro module.

    With a prior its parameters are `PyroSample` sites named after the module's place in the user's model, in a network
    after their layer's too, `layers.0.loc`; without one they are `torch.nn.Parameter`s.

    Args:
        layer: The layer, e.g. `Dense(8)`.
        inputs: Number of inputs, or the shape of one example; a network knows its own.
        prior: Priors by role, or None for parameters.
        seed: Seed of the start values, which take inputs of mean 0 and spread 1.

    Raises:
        ValueError, TypeError: A layer, inputs or a prior that do not fit.
    """

    def __init__(
        self, layer: Layer, inputs: int | Sequence[int] | None = None, *, prior: Prior | None = None, seed: int = 0
    ) -> None:
        super().__init__()
        checks.one_layer(layer, Layer)
        checks.layer_prior(prior, Prior)
        self.layer, self.inputs = layer, checks.module_inputs(layer, inputs)
        self._callables: dict[str, PriorValue] = {}
        self._shapes: dict[str, Shape] = {}
        roles = layer.roles(self.inputs)
        if prior is None:
            ones = np.ones(self.inputs)
            for role, value in layer.start(np.random.default_rng(seed), np.stack([-ones, ones])).items():
                self._shapes[role] = tuple(value.shape)
                setattr(*self._place(role), torch.nn.Parameter(torch.tensor(value, dtype=default_dtype())))
            return
        prior.check_layers(roles)
        for role, given in prior.over(roles).items():
            shape = self._shapes[role] = roles[unconstrained(role)].shape
            if isinstance(given, Distribution):
                setattr(*self._place(role), PyroSample(functools.partial(_built, given, shape)))  # which can be pickled
            else:
                self._callables[role] = given

    def values(self) -> dict[str, Tensor]:
        """The parameters in the space they live in, by role. Inside a model this samples their sites."""
        from ugmm_ppl.pyro.backend import BACKEND

        with self._pyro_context:  # as in `forward`: outside it Pyro would draw values without making them sites
            return {
                role: draw(BACKEND, self._callables[role], self._pyro_get_fullname(role), shape, self._like)
                if role in self._callables
                else getattr(*self._place(role))
                for role, shape in self._shapes.items()
            }

    def forward(self, x: Tensor, *, values: Mapping[str, Tensor] | None = None, train: bool | None = None) -> Tensor:
        """Outputs of the layer, of neurons the activations of equation (2).

        Args:
            x: Inputs `(..., *inputs)`.
            values: Parameters from `values()`, to use one sample of a callable prior twice; by default taken anew.
            train: Apply dropout; default the module's mode.

        Returns:
            `(..., *outputs)`; activations are in nats.
        """
        checks.example_shape(x, self.inputs)
        train = self.training if train is None else train
        own = self.values() if values is None else values
        return self.layer.apply(OPS, own, x, self.inputs, self._noise(x) if train else None)

    def _place(self, role: str) -> tuple[_Part, str]:
        """The part and the attribute of it that hold a parameter."""
        *path, name = role.split(".")
        part: _Part = self
        for each in path:
            if not hasattr(part, each):
                setattr(part, each, _Part())
            part = getattr(part, each)
        return part, name

    def _noise(self, x: Tensor) -> dict[str, Tensor]:
        shapes = self.layer.noise_shapes(self.inputs, x.shape[: x.ndim - len(self.inputs)])
        return {name: torch.rand(shape, dtype=x.dtype, device=x.device) for name, shape in shapes.items()}


class UGMMLayer(LayerModule):
    """J uGMM neurons over K inputs: `layer(x)` is equation (2), `layer.conditional(x)` equation (1) as a distribution.

    The `LayerModule` of a `Dense` layer: sites or parameters `loc`, `log_scale` (or `scale`) and `logits` (or
    `weights`), `(J, K)` each.

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
        sizes = checks.layer_sizes(in_features, out_features)
        dense = Dense(sizes["out_features"], tied=tied, dropout=dropout, dropout_per_example=dropout_per_example)
        super().__init__(dense, sizes["in_features"], prior=prior, seed=seed)

    layer: Dense

    @property
    def in_features(self) -> int:
        """Inputs K."""
        return self.inputs[0]

    @property
    def out_features(self) -> int:
        """Neurons J."""
        return self.layer.output_shape(self.inputs)[0]

    @property
    def tied(self) -> bool:
        """Whether means are tied."""
        return self.layer.tied

    @property
    def dropout(self) -> float:
        """Probability that a component is dropped in training."""
        return self.layer.dropout

    @property
    def dropout_per_example(self) -> bool:
        """Whether each example has a mask of its own."""
        return self.layer.dropout_per_example

    def conditional(self, x: Tensor, *, values: Mapping[str, Tensor] | None = None) -> UnivariateGaussianMixture:
        """The neurons as distributions given their inputs, equation (1).

        Args:
            x: Inputs `(..., K)`.
            values: As in `forward`.

        Returns:
            Mixture of batch shape `(..., J)` with component means x_k - loc_jk; `.log_prob(0.0)` is `forward(x)`.
        """
        checks.example_shape(x, self.inputs)
        loc, scale, log_weights = neuron_parameters(OPS, self.values() if values is None else values)
        return UnivariateGaussianMixture(x[..., None, :] - loc, scale, logits=log_weights)


def _built(prior: Distribution, shape: Shape, module: _Part) -> Any:
    """The Pyro distribution of a described prior, of the dtype and on the device where the module is."""
    from ugmm_ppl.pyro.backend import BACKEND

    return BACKEND.build(prior, shape, module._like)
