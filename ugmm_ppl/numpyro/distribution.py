"""The univariate Gaussian mixture as a NumPyro distribution; the mathematics is in `ugmm_ppl.neuron`."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, constraints
from numpyro.distributions.util import validate_sample

from ugmm_ppl import checks, neuron
from ugmm_ppl.numpyro.ops import OPS


class UnivariateGaussianMixture(Distribution):
    """Mixture of K univariate Gaussians, p(y) = sum_k weights_k N(y; loc_k, scale_k^2).

    Args:
        loc: Component means, real, `(..., K)`.
        scale: Component standard deviations, positive, `(..., K)`.
        logits: Log weights up to a constant, `(..., K)`; -inf is weight zero. Exactly one of logits and probs.
        probs: Weights on the simplex, `(..., K)`; zeros allowed.
        validate_args: Check the values of the arguments; default as for every NumPyro distribution.

    The arguments broadcast; batch shape `(...)`, event shape `()`, support the real line.

    Raises:
        ValueError: Both or neither of logits and probs, shapes that do not broadcast, values outside their support.
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.real_vector,
        "scale": constraints.independent(constraints.positive, 1),
        "logits": constraints.independent(constraints.less_than(math.inf), 1),  # -inf is weight zero
        "probs": constraints.simplex,
    }
    support = constraints.real
    pytree_data_fields = ("loc", "scale", "_logits", "_probs")

    def __init__(
        self,
        loc: Array,
        scale: Array,
        *,
        logits: Array | None = None,
        probs: Array | None = None,
        validate_args: bool | None = None,
    ) -> None:
        validate = bool(self._validate_args if validate_args is None else validate_args)  # type: ignore[has-type]
        concrete = not any(isinstance(a, jax.core.Tracer) for a in (loc, scale, logits, probs))
        checks.mixture_parameters(loc, scale, logits, probs, values=validate and concrete)
        dtype = jnp.result_type(float, *(jnp.asarray(a) for a in (loc, scale, logits, probs) if a is not None))
        self.loc, self.scale, weights = jnp.broadcast_arrays(
            *(jnp.asarray(a, dtype) for a in (loc, scale, logits if probs is None else probs))
        )
        self._logits: Array | None = weights if probs is None else None
        self._probs: Array | None = weights if logits is None else None
        super().__init__(self.loc.shape[:-1], (), validate_args=False)  # checked above, in our words
        self._validate_args = validate

    @property
    def logits(self) -> Array:
        """The logits as given, or log probs, `(..., K)`."""
        return neuron.safe_log(OPS, self._probs) if self._logits is None else self._logits

    @property
    def probs(self) -> Array:
        """Weights `(..., K)`."""
        return jnp.exp(self.log_weights) if self._probs is None else self._probs

    @property
    def log_weights(self) -> Array:
        """Log weights that sum to one, `(..., K)`."""
        return neuron.log_normalize(OPS, self.logits)

    def expand(self, batch_shape: tuple[int, ...]) -> UnivariateGaussianMixture:
        """The same mixture with a larger batch shape."""
        shape = (*batch_shape, self.loc.shape[-1])
        loc, scale, weights = (
            jnp.broadcast_to(a, shape)
            for a in (self.loc, self.scale, self._probs if self._logits is None else self._logits)
        )
        given = {"probs" if self._logits is None else "logits": weights}
        new = UnivariateGaussianMixture(loc, scale, **given, validate_args=False)
        new._validate_args = self._validate_args
        return new

    @validate_sample
    def log_prob(self, value: Array) -> Array:
        """Log density in nats, `(...)` to `(...)`."""
        return neuron.log_prob(OPS, jnp.asarray(value), self.loc, self.scale, self.log_weights)

    @validate_sample
    def cdf(self, value: Array) -> Array:
        """p(Y <= value), `(...)` to `(...)`."""
        return neuron.cdf(OPS, jnp.asarray(value), self.loc, self.scale, self.log_weights)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw values of shape sample_shape + batch_shape; no gradient."""
        key_component, key_value = jax.random.split(key)
        shape = (*sample_shape, *self.loc.shape[:-1])  # under jax.vmap `batch_shape` still is the one outside
        k = jax.random.categorical(key_component, self.log_weights, shape=shape)[..., None]
        loc, scale = (
            jnp.take_along_axis(jnp.broadcast_to(a, (*shape, a.shape[-1])), k, -1)[..., 0]
            for a in (self.loc, self.scale)
        )
        return jax.lax.stop_gradient(loc + scale * jax.random.normal(key_value, shape, loc.dtype))

    @property
    def mean(self) -> Array:
        """Mean `(...)`."""
        return neuron.mean(OPS, self.loc, self.log_weights)

    @property
    def variance(self) -> Array:
        """Variance `(...)`."""
        return neuron.variance(OPS, self.loc, self.scale, self.log_weights)

    def responsibilities(self, value: Array) -> Array:
        """Posterior probability of each component given a value, `(...)` to `(..., K)`."""
        return neuron.responsibilities(OPS, jnp.asarray(value), self.loc, self.scale, self.log_weights)
