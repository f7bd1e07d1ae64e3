"""Layers for NumPyro models of the user's own; equation (2) is in `ugmm_ppl.neuron`."""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
from jax import Array

from ugmm_ppl import checks
from ugmm_ppl.kernels.jax_ops import OPS
from ugmm_ppl.nn.base import Layer
from ugmm_ppl.nn.dense import Dense, neuron_parameters
from ugmm_ppl.nn.spaces import unconstrained
from ugmm_ppl.numpyro.distribution import UnivariateGaussianMixture
from ugmm_ppl.ops.jax_arrays import to_array
from ugmm_ppl.priors import Prior, draw
from ugmm_ppl.typing import Shape, Values


class _Sampled(abc.ABC):
    """What modules of a layer share: sites of its parameters, and calls."""

    prior: Prior | None
    name: str
    seed: int

    @property
    @abc.abstractmethod
    def _placed(self) -> tuple[Layer, Shape]:
        """The layer, and the shape of its inputs."""

    def _check_sites(self) -> None:
        """Refuse inputs that do not fit the layer, and a prior of layers that there are not."""
        layer, inputs = self._placed
        roles = layer.roles(inputs)
        if self.prior is not None:
            self.prior.check_layers(roles)

    def values(self) -> dict[str, Array]:
        """The parameters in the space they live in, by role. Inside a model this samples their sites."""
        from ugmm_ppl.numpyro.backend import BACKEND

        layer, inputs = self._placed
        if self.prior is None:
            ones = np.ones(inputs)
            start = layer.start(np.random.default_rng(self.seed), np.stack([-ones, ones]))
            return {role: numpyro.param(f"{self.name}.{role}", to_array(value)) for role, value in start.items()}
        roles, like = layer.roles(inputs), jnp.zeros(())
        return {
            role: draw(BACKEND, prior, f"{self.name}.{role}", roles[unconstrained(role)].shape, like)
            for role, prior in self.prior.over(roles).items()
        }

    def __call__(self, x: Array, *, values: Values | None = None, train: bool = False) -> Array:
        """Outputs of the layer, of neurons the activations of equation (2).

        Args:
            x: Inputs `(..., *inputs)`.
            values: Parameters from `values()`, to use one sample twice in a model; by default sampled anew.
            train: Apply dropout, with the key of the surrounding seed handler.

        Returns:
            `(..., *outputs)`; activations are in nats.
        """
        layer, inputs = self._placed
        checks.example_shape(x, inputs)
        own = self.values() if values is None else values
        return layer.apply(OPS, own, x, inputs, self._noise(x) if train else None)

    def _noise(self, x: Array) -> dict[str, Array]:
        layer, inputs = self._placed
        shapes = layer.noise_shapes(inputs, x.shape[: x.ndim - len(inputs)])
        return {name: jax.random.uniform(numpyro.prng_key(), shape, x.dtype) for name, shape in shapes.items()}


@dataclasses.dataclass(frozen=True)
class LayerModule(_Sampled):
    """A layer of `ugmm_ppl.nn`, or a network of them, for NumPyro models.

    With a prior its parameters are sample sites named `{name}.loc` and so on, of a network `{name}.layers.0.loc`;
    without one they are `numpyro.param` sites.

    Args:
        layer: The layer, e.g. `Dense(8)`.
        inputs: Number of inputs, or the shape of one example; a network knows its own.
        prior: Priors by role, or None for parameters.
        name: Prefix of the site names.
        seed: Seed of the start values, which take inputs of mean 0 and spread 1.

    Raises:
        ValueError, TypeError: A layer, inputs or a prior that do not fit.
    """

    layer: Layer
    inputs: int | Sequence[int] | None = None
    _: dataclasses.KW_ONLY
    prior: Prior | None = None
    name: str = "layer"
    seed: int = 0

    def __post_init__(self) -> None:
        """Check the description."""
        checks.one_layer(self.layer, Layer)
        checks.layer_prior(self.prior, Prior)
        checks.settle(self, inputs=checks.module_inputs(self.layer, self.inputs))
        self._check_sites()

    @property
    def _placed(self) -> tuple[Layer, Shape]:
        return self.layer, checks.module_inputs(self.layer, self.inputs)


@dataclasses.dataclass(frozen=True)
class UGMMLayer(_Sampled):
    """J uGMM neurons over K inputs: `layer(x)` is equation (2), `layer.conditional(x)` equation (1) as a distribution.

    The `LayerModule` of a `Dense` layer: sites `{name}.loc`, `{name}.log_scale` (or `scale`) and `{name}.logits` (or
    `weights`), `(J, K)` each.

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
        checks.layer_prior(self.prior, Prior)
        checks.settle(self, **checks.layer_sizes(self.in_features, self.out_features))
        dense = self._placed[0]
        checks.settle(self, dropout=dense.dropout)
        self._check_sites()

    @property
    def _placed(self) -> tuple[Dense, Shape]:
        dense = Dense(
            self.out_features, tied=self.tied, dropout=self.dropout, dropout_per_example=self.dropout_per_example
        )
        return dense, (self.in_features,)

    def conditional(self, x: Array, *, values: Values | None = None) -> UnivariateGaussianMixture:
        """The neurons as distributions given their inputs, equation (1).

        Args:
            x: Inputs `(..., K)`.
            values: As in `__call__`.

        Returns:
            Mixture of batch shape `(..., J)` with component means x_k - loc_jk; `.log_prob(0.0)` is `layer(x)`.
        """
        checks.example_shape(x, (self.in_features,))
        loc, scale, log_weights = neuron_parameters(OPS, self.values() if values is None else values)
        return UnivariateGaussianMixture(x[..., None, :] - loc, scale, logits=log_weights)
