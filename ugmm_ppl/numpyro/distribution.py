"""The univariate Gaussian mixture as a NumPyro distribution.

The mathematics is in `ugmm_ppl.distributions`.
"""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array
from numpyro.distributions import Distribution, Normal, constraints
from numpyro.distributions.kl import kl_divergence
from numpyro.distributions.util import validate_sample

from ugmm_ppl import checks, neuron
from ugmm_ppl.distributions import closed_form, mixture, pathwise
from ugmm_ppl.distributions.methods import MixtureQueries
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.kernels.jax_ops import OPS
from ugmm_ppl.ops.jax import HALF
from ugmm_ppl.ops.jax_arrays import to_array


class UnivariateGaussianMixture(MixtureQueries, Distribution):
    """Mixture of K univariate Gaussians, p(y) = sum_k weights_k N(y; loc_k, scale_k^2).

    Samples carry pathwise derivatives (implicit reparameterisation, arXiv:1805.08498) with respect to loc, scale and
    logits or probs; so does `icdf`. More methods: `ugmm_ppl.distributions.methods`.

    Args:
        loc: Component means, real, `(..., K)`.
        scale: Component standard deviations, positive, `(..., K)`.
        logits: Log weights up to a constant, `(..., K)`; -inf is weight zero. Exactly one of logits and probs.
        probs: Weights on the simplex, `(..., K)`; zeros allowed, and their derivatives are those along the simplex.
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
    reparametrized_params = ["loc", "scale", "logits", "probs"]  # noqa: RUF012
    pytree_data_fields = ("loc", "scale", "_logits", "_probs")
    ops = OPS

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
        values = validate and OPS.known(loc, scale, logits, probs)
        checks.mixture_parameters(loc, scale, logits, probs, values=values)
        dtype = jnp.result_type(float, *(to_array(a) for a in (loc, scale, logits, probs) if a is not None))
        self.loc, self.scale, weights = jnp.broadcast_arrays(
            *(to_array(a, dtype) for a in (loc, scale, logits if probs is None else probs))
        )
        self._logits: Array | None = weights if probs is None else None
        self._probs: Array | None = weights if logits is None else None
        super().__init__(self.loc.shape[:-1], (), validate_args=False)  # checked above, in our words
        self._validate_args = validate

    @classmethod
    def from_moments(
        cls, mean: Array, stddev: Array, skewness: Array = 0.0, *, spread: float = 0.5
    ) -> UnivariateGaussianMixture:
        """Two components of equal scale with the given moments, in closed form.

        Args:
            mean: Mean `(...)`.
            stddev: Standard deviation, positive, `(...)`.
            skewness: Third standardised moment, any real number, `(...)`.
            spread: Share of the variance that lies between the two means, in (0, 1).

        Returns:
            The mixture, K = 2, the lighter component first; differentiable in the moments.

        Raises:
            ValueError: A standard deviation that is not positive, a moment that is not finite.
        """
        dtype = jnp.result_type(float, *(to_array(a) for a in (mean, stddev, skewness)))
        arrays = jnp.broadcast_arrays(*(to_array(a, dtype) for a in (mean, stddev, skewness)))
        if OPS.known(*arrays):
            checks.moments(*arrays)
        spread = checks.number("spread", spread, 0.0, 1.0)
        wide = (OPS.widened(arrays[0]), OPS.widened(arrays[1]), OPS.widened(arrays[2]))
        found = closed_form.two_components(OPS, *wide, spread)
        loc, scale, probs = (OPS.narrowed(a, *arrays) for a in found)
        return cls(loc, scale, probs=probs, validate_args=False)

    @property
    def logits(self) -> Array:
        """The logits as given, or log probs, `(..., K)`."""
        return neuron.safe_log(OPS, self._probs) if self._logits is None else self._logits

    @property
    def probs(self) -> Array:
        """Weights `(..., K)`."""
        return self._rounded(self._weights) if self._probs is None else self._probs

    @property
    def log_weights(self) -> Array:
        """Log weights that sum to one, `(..., K)`."""
        return self._rounded(self._log_weights)

    @property
    def _log_weights(self) -> Array:
        if self._probs is None:
            return neuron.log_normalize(OPS, OPS.widened(self._logits))
        return neuron.safe_log(OPS, self._weights)

    @property
    def _weights(self) -> Array:
        """Weights that sum to one, `(..., K)`; by division, so that one of zero has a derivative."""
        if self._probs is None:
            return jnp.exp(self._log_weights)
        probs = OPS.widened(self._probs)
        return probs / probs.sum(-1, keepdims=True)

    @property
    def mixture(self) -> Mixture:
        """The parameters with normalised weights, `(..., K)` each; float32 where they are in half precision."""
        loc, scale = OPS.widened(self.loc), OPS.widened(self.scale)
        return Mixture(loc, scale, self._weights, self._log_weights, weights_vary=self._probs is not None)

    def expand(self, batch_shape: tuple[int, ...]) -> UnivariateGaussianMixture:
        """The same mixture with a larger batch shape.

        Raises:
            ValueError: Its own batch shape does not broadcast to it.
        """
        checks.expansion(self.batch_shape, batch_shape)
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
        found = mixture.log_prob(OPS, OPS.widened(self._array(value)), self.mixture)
        return self._rounded(found, value)

    def cdf(self, value: Array) -> Array:
        """p(Y <= value), `(...)` to `(...)`."""
        return self._in_parts(mixture.cdf, value)

    def sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> Array:
        """Draw values of shape sample_shape + batch_shape, with pathwise gradients."""
        return self._rounded(pathwise.follow(OPS, self._draw(key, sample_shape)[0], self.mixture))

    def sample_with_component(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """Draw values, and the numbers 0..K-1 of the components they come from: two of sample_shape + batch_shape.

        No gradient: given its component, a value no longer knows how the weights would have moved it.
        """
        value, k = self._draw(key, sample_shape)
        return self._rounded(value), k

    def _draw(self, key: Array, sample_shape: tuple[int, ...]) -> tuple[Array, Array]:
        """Values and components as the random numbers make them, in float32 where the parameters have less."""
        key_component, key_value = jax.random.split(key)
        m = self.mixture
        shape = (*sample_shape, *m.loc.shape[:-1])  # under jax.vmap `batch_shape` still is the one outside
        u = jax.random.uniform(key_component, shape, m.loc.dtype)
        k = pathwise.choose(OPS, u, jnp.exp(m.log_weights))
        loc, scale = (
            jnp.take_along_axis(jnp.broadcast_to(a, (*shape, a.shape[-1])), k[..., None], -1)[..., 0]
            for a in (m.loc, m.scale)
        )
        return jax.lax.stop_gradient(loc + scale * jax.random.normal(key_value, shape, loc.dtype)), k

    def stratified_sample(self, key: Array, sample_shape: tuple[int, ...] = ()) -> tuple[Array, Array]:
        """Draw one value from every component, with the weights that make an expectation of them.

        E[f(y)] is estimated by (weights * f(values)).sum(-1), without bias and with gradients in all parameters. Unlike
        the pathwise gradient of `sample` it does not divide by the density, which is tiny between far modes.

        Returns:
            Values and weights, sample_shape + batch_shape + `(K,)` each.
        """
        m, shape = self.mixture, (*sample_shape, *self.loc.shape)
        values = m.loc + m.scale * jax.random.normal(key, shape, m.loc.dtype)
        return self._rounded(values), self._rounded(jnp.broadcast_to(m.weights, shape))

    def component(self, k: int) -> Normal:
        """Component k of each mixture, a Normal of the same batch shape."""
        k = checks.component(k, self.loc.shape[-1])
        return Normal(self.loc[..., k], self.scale[..., k], validate_args=False)

    def condition_on_gaussian(self, value: Array, noise_scale: Array) -> tuple[UnivariateGaussianMixture, Array]:
        """The mixture after a noisy reading of its value, `value` ~ N(y, noise_scale^2): Bayes' rule in closed form.

        Args:
            value: The reading `(...)`.
            noise_scale: Standard deviation of the reading's noise, positive, `(...)`.

        Returns:
            The posterior mixture over y, and the log evidence log p(value) in nats, `(...)`.

        Raises:
            ValueError: A reading that is not finite or a scale that is not positive, where arguments are validated.
        """
        reading = jnp.broadcast_arrays(self._array(value), self._array(noise_scale))
        if self._validate_args and OPS.known(*reading):
            checks.reading(*reading)
        found = closed_form.condition(OPS, OPS.widened(reading[0]), OPS.widened(reading[1]), self.mixture)
        loc, scale, log_weights, evidence = (self._rounded(a, value, noise_scale) for a in found)
        return UnivariateGaussianMixture(loc, scale, logits=log_weights, validate_args=False), evidence

    def entropy_estimate(self, key: Array, num_samples: int = 10_000) -> tuple[Array, Array]:
        """Entropy in nats by Monte Carlo, and the standard error of the estimate, `(...)` each; no gradient."""
        num_samples = checks.count("num_samples", num_samples, 2)
        value, _ = self._draw(key, (num_samples,))
        surprise = jax.lax.stop_gradient(-mixture.log_prob(OPS, value, self.mixture))
        error = surprise.std(0, ddof=1) / math.sqrt(num_samples)
        return self._rounded(surprise.mean(0)), self._rounded(error)

    def _looks_at_values(self) -> bool:
        return bool(self._validate_args)

    def _array(self, value: Any) -> Array:
        if isinstance(value, Array) and jnp.issubdtype(value.dtype, jnp.floating):
            return value
        return to_array(value, jnp.float32 if self.loc.dtype in HALF else self.loc.dtype)


@kl_divergence.register(UnivariateGaussianMixture, UnivariateGaussianMixture)
def _kl(p: UnivariateGaussianMixture, q: UnivariateGaussianMixture) -> Array:
    return p.kl_to(q)
