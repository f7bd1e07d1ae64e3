"""The univariate Gaussian mixture as a Pyro distribution.

The mathematics is in `ugmm_ppl.distributions`.
"""

from __future__ import annotations

import functools
import math
from typing import Any

import numpy as np
import torch
from pyro.distributions import Normal, TorchDistribution
from torch import Tensor
from torch.distributions import constraints, register_kl
from torch.distributions.utils import lazy_property

from ugmm_ppl import checks, neuron
from ugmm_ppl.checks.basic import native
from ugmm_ppl.distributions import closed_form, mixture, pathwise
from ugmm_ppl.distributions.methods import MixtureQueries
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.kernels.torch_ops import OPS
from ugmm_ppl.ops.torch import HALF
from ugmm_ppl.ops.torch_arrays import default_dtype


class _Lazy(lazy_property):
    """torch's lazy property, which keeps its value; but not that of inference mode, without a graph, nor of a trace."""

    def __get__(self, instance: Any, obj_type: Any = None) -> Any:
        """The value, or the property where it is asked of the class."""
        if instance is None or torch.compiler.is_compiling():
            return super().__get__(instance, obj_type)
        passing = torch.is_inference_mode_enabled() or torch.jit.is_tracing()
        return self.wrapped(instance) if passing else super().__get__(instance, obj_type)


class UnivariateGaussianMixture(MixtureQueries, TorchDistribution):
    """Mixture of K univariate Gaussians, p(y) = sum_k weights_k N(y; loc_k, scale_k^2).

    Samples of `rsample` carry pathwise derivatives (implicit reparameterisation, arXiv:1805.08498) with respect to loc,
    scale and logits or probs; so does `icdf`. Of both, first derivatives only. More methods:
    `ugmm_ppl.distributions.methods`.

    Args:
        loc: Component means, real, `(..., K)`.
        scale: Component standard deviations, positive, `(..., K)`.
        logits: Log weights up to a constant, `(..., K)`; -inf is weight zero. Exactly one of logits and probs.
        probs: Weights on the simplex, `(..., K)`; zeros allowed, and their derivatives are those along the simplex.
        validate_args: Check the values of the arguments; default as for every torch distribution.

    The arguments broadcast; batch shape `(...)`, event shape `()`, support the real line.

    Raises:
        ValueError: Both or neither of logits and probs, shapes that do not broadcast, values outside their support.
    """

    arg_constraints = {  # noqa: RUF012
        "loc": constraints.independent(constraints.real, 1),
        "scale": constraints.independent(constraints.positive, 1),
        "logits": constraints.independent(constraints.less_than(math.inf), 1),  # -inf is weight zero
        "probs": constraints.simplex,
    }
    support = constraints.real
    has_rsample = True
    ops = OPS

    def __init__(
        self,
        loc: Tensor,
        scale: Tensor,
        *,
        logits: Tensor | None = None,
        probs: Tensor | None = None,
        validate_args: bool | None = None,
    ) -> None:
        validate = bool(self._validate_args if validate_args is None else validate_args)  # type: ignore[has-type]
        values = validate and OPS.known(*(a for a in (loc, scale, logits, probs) if isinstance(a, Tensor)))
        checks.mixture_parameters(loc, scale, logits, probs, values=values)
        like = _common(*(a for a in (loc, scale, logits, probs) if isinstance(a, Tensor)))
        loc, scale, weights = torch.broadcast_tensors(
            *(_tensor(a, like.dtype, like.device) for a in (loc, scale, logits if probs is None else probs))
        )
        self.loc, self.scale = loc, scale
        setattr(self, "logits" if probs is None else "probs", weights)
        self._given = "logits" if probs is None else "probs"
        super().__init__(loc.shape[:-1], torch.Size(), validate_args=False)  # checked above, in our words
        self._validate_args = validate

    @classmethod
    def from_moments(
        cls, mean: Tensor | float, stddev: Tensor | float, skewness: Tensor | float = 0.0, *, spread: float = 0.5
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
        given = (mean, stddev, skewness)
        like = _common(*(a for a in given if isinstance(a, Tensor)))
        tensors = torch.broadcast_tensors(*(_tensor(a, like.dtype, like.device) for a in given))
        if OPS.known(*tensors):
            checks.moments(*tensors)
        spread = checks.number("spread", spread, 0.0, 1.0)
        wide = (OPS.widened(tensors[0]), OPS.widened(tensors[1]), OPS.widened(tensors[2]))
        found = closed_form.two_components(OPS, *wide, spread)
        loc, scale, probs = (OPS.narrowed(a, like) for a in found)
        return cls(loc, scale, probs=probs, validate_args=False)

    @_Lazy
    def logits(self) -> Tensor:
        """The logits as given, or log probs, `(..., K)`."""
        return neuron.safe_log(OPS, self.probs)

    @_Lazy
    def probs(self) -> Tensor:
        """Weights `(..., K)`."""
        return self._rounded(self._weights)

    @_Lazy
    def log_weights(self) -> Tensor:
        """Log weights that sum to one, `(..., K)`."""
        return self._rounded(self._log_weights)

    @_Lazy
    def _log_weights(self) -> Tensor:
        if self._given == "logits":
            return neuron.log_normalize(OPS, OPS.widened(self.logits))
        return neuron.safe_log(OPS, self._weights)

    @_Lazy
    def _weights(self) -> Tensor:
        """Weights that sum to one, `(..., K)`; by division, so that one of zero has a derivative."""
        if self._given == "logits":
            return torch.exp(self._log_weights)
        probs = OPS.widened(self.probs)
        return probs / probs.sum(-1, keepdim=True)

    @property
    def mixture(self) -> Mixture:
        """The parameters with normalised weights, `(..., K)` each; float32 where they are in half precision."""
        loc, scale = OPS.widened(self.loc), OPS.widened(self.scale)
        return Mixture(loc, scale, self._weights, self._log_weights, weights_vary=self._given == "probs")

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> UnivariateGaussianMixture:
        """The same mixture with a larger batch shape.

        Raises:
            ValueError: Its own batch shape does not broadcast to it.
        """
        checks.expansion(self.batch_shape, batch_shape)
        new = self._get_checked_instance(UnivariateGaussianMixture, _instance)
        shape = (*torch.Size(batch_shape), self.loc.shape[-1])
        new.loc, new.scale, new._given = self.loc.expand(shape), self.scale.expand(shape), self._given
        setattr(new, self._given, getattr(self, self._given).expand(shape))
        super(UnivariateGaussianMixture, new).__init__(torch.Size(batch_shape), torch.Size(), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor | float) -> Tensor:
        """Log density in nats, `(...)` to `(...)`."""
        found = mixture.log_prob(OPS, OPS.widened(self._checked(value)), self.mixture)
        return self._rounded(found, value)

    def cdf(self, value: Tensor | float) -> Tensor:
        """p(Y <= value), `(...)` to `(...)`."""
        self._checked(value)
        return self._in_parts(mixture.cdf, value)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values of shape sample_shape + batch_shape; no gradient."""
        return self.sample_with_component(sample_shape)[0]

    def rsample(self, sample_shape: Any = ()) -> Tensor:
        """As `sample`, with pathwise gradients."""
        found = OPS.in_parts(functools.partial(pathwise.follow, OPS), self._draw(sample_shape)[0], self.mixture)
        return self._rounded(found)

    def sample_with_component(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """Draw values, and the numbers 0..K-1 of the components they come from: two of sample_shape + batch_shape.

        No gradient: given its component, a value no longer knows how the weights would have moved it.
        """
        value, k = self._draw(sample_shape)
        return self._rounded(value), k

    def _draw(self, sample_shape: Any) -> tuple[Tensor, Tensor]:
        """Values and components as the random numbers make them, in float32 where the parameters have less."""
        with torch.no_grad():
            m, shape = self.mixture, self._extended_shape(torch.Size(sample_shape))
            u = torch.rand(shape, dtype=m.loc.dtype, device=m.loc.device)
            k = pathwise.choose(OPS, u, torch.exp(m.log_weights))
            loc, scale = (a.expand(*shape, a.shape[-1]).gather(-1, k[..., None])[..., 0] for a in (m.loc, m.scale))
            return loc + scale * torch.randn_like(u), k

    def stratified_sample(self, sample_shape: Any = ()) -> tuple[Tensor, Tensor]:
        """Draw one value from every component, with the weights that make an expectation of them.

        E[f(y)] is estimated by (weights * f(values)).sum(-1), without bias and with gradients in all parameters. Unlike
        the pathwise gradient of `rsample` it does not divide by the density, which is tiny between far modes.

        Returns:
            Values and weights, sample_shape + batch_shape + `(K,)` each.
        """
        m, shape = self.mixture, (*torch.Size(sample_shape), *self.loc.shape)
        values = m.loc + m.scale * torch.randn(shape, dtype=m.loc.dtype, device=m.loc.device)
        return self._rounded(values), self._rounded(m.weights.expand(shape))

    def component(self, k: int) -> Normal:
        """Component k of each mixture, a Normal of the same batch shape."""
        k = checks.component(k, self.loc.shape[-1])
        return Normal(self.loc[..., k], self.scale[..., k], validate_args=False)

    def condition_on_gaussian(
        self, value: Tensor | float, noise_scale: Tensor | float
    ) -> tuple[UnivariateGaussianMixture, Tensor]:
        """The mixture after a noisy reading of its value, `value` ~ N(y, noise_scale^2): Bayes' rule in closed form.

        Args:
            value: The reading `(...)`.
            noise_scale: Standard deviation of the reading's noise, positive, `(...)`.

        Returns:
            The posterior mixture over y, and the log evidence log p(value) in nats, `(...)`.

        Raises:
            ValueError: A reading that is not finite or a scale that is not positive, where arguments are validated.
        """
        reading = torch.broadcast_tensors(self._array(value), self._array(noise_scale))
        if self._validate_args and OPS.known(*reading):
            checks.reading(*reading)
        found = closed_form.condition(OPS, OPS.widened(reading[0]), OPS.widened(reading[1]), self.mixture)
        loc, scale, log_weights, evidence = (self._rounded(a, value, noise_scale) for a in found)
        return UnivariateGaussianMixture(loc, scale, logits=log_weights, validate_args=False), evidence

    def entropy_estimate(self, num_samples: int = 10_000) -> tuple[Tensor, Tensor]:
        """Entropy in nats by Monte Carlo, and the standard error of the estimate, `(...)` each; no gradient."""
        num_samples = checks.count("num_samples", num_samples, 2)
        with torch.no_grad():
            surprise = -mixture.log_prob(OPS, self._draw((num_samples,))[0], self.mixture)
            error = surprise.std(0) / math.sqrt(num_samples)
            return self._rounded(surprise.mean(0)), self._rounded(error)

    def _checked(self, value: Tensor | float) -> Tensor:
        value = self._array(value)
        if self._validate_args and OPS.known(value):
            self._validate_sample(value)
        return value

    def _looks_at_values(self) -> bool:
        return bool(self._validate_args)

    def _array(self, value: Any) -> Tensor:
        if isinstance(value, Tensor) and value.is_floating_point():
            return value
        return _tensor(value, torch.float32 if self.loc.dtype in HALF else self.loc.dtype, self.loc.device)


@register_kl(UnivariateGaussianMixture, UnivariateGaussianMixture)
def _kl(p: UnivariateGaussianMixture, q: UnivariateGaussianMixture) -> Tensor:
    return p.kl_to(q)


def _tensor(a: Any, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Any real numbers as a tensor."""
    if not isinstance(a, Tensor) and hasattr(a, "dtype"):
        a = native(np.asarray(a))
    return torch.as_tensor(a, dtype=dtype, device=device)


def _common(*tensors: Tensor) -> Tensor:
    """A tensor of the floating-point dtype that all of them fit in, on the device of the first."""
    floats = [a.dtype for a in tensors if a.is_floating_point()]
    dtype = functools.reduce(torch.promote_types, floats) if floats else default_dtype()
    return torch.empty((), dtype=dtype, device=tensors[0].device if tensors else None)
