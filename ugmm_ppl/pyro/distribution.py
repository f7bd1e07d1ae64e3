"""The univariate Gaussian mixture as a Pyro distribution; the mathematics is in `ugmm_ppl.neuron`."""

from __future__ import annotations

import functools
import math
from typing import Any

import torch
from pyro.distributions import TorchDistribution
from torch import Tensor
from torch.distributions import constraints
from torch.distributions.utils import lazy_property

from ugmm_ppl import checks, neuron
from ugmm_ppl.pyro.ops import OPS


class UnivariateGaussianMixture(TorchDistribution):
    """Mixture of K univariate Gaussians, p(y) = sum_k weights_k N(y; loc_k, scale_k^2).

    Args:
        loc: Component means, real, `(..., K)`.
        scale: Component standard deviations, positive, `(..., K)`.
        logits: Log weights up to a constant, `(..., K)`; -inf is weight zero. Exactly one of logits and probs.
        probs: Weights on the simplex, `(..., K)`; zeros allowed.
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
    has_rsample = False

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
        checks.mixture_parameters(loc, scale, logits, probs, values=validate)
        like = _common(*(a for a in (loc, scale, logits, probs) if isinstance(a, Tensor)))
        loc, scale, weights = torch.broadcast_tensors(
            *(
                torch.as_tensor(a, dtype=like.dtype, device=like.device)
                for a in (loc, scale, logits if probs is None else probs)
            )
        )
        self.loc, self.scale = loc, scale
        setattr(self, "logits" if probs is None else "probs", weights)
        self._given = "logits" if probs is None else "probs"
        super().__init__(loc.shape[:-1], torch.Size(), validate_args=False)  # checked above, in our words
        self._validate_args = validate

    @lazy_property
    def logits(self) -> Tensor:
        """The logits as given, or log probs, `(..., K)`."""
        return neuron.safe_log(OPS, self.probs)

    @lazy_property
    def probs(self) -> Tensor:
        """Weights `(..., K)`."""
        return torch.exp(self.log_weights)

    @lazy_property
    def log_weights(self) -> Tensor:
        """Log weights that sum to one, `(..., K)`."""
        return neuron.log_normalize(OPS, self.logits)

    def expand(self, batch_shape: torch.Size, _instance: Any = None) -> UnivariateGaussianMixture:
        """The same mixture with a larger batch shape."""
        new = self._get_checked_instance(UnivariateGaussianMixture, _instance)
        shape = (*torch.Size(batch_shape), self.loc.shape[-1])
        new.loc, new.scale, new._given = self.loc.expand(shape), self.scale.expand(shape), self._given
        setattr(new, self._given, getattr(self, self._given).expand(shape))
        super(UnivariateGaussianMixture, new).__init__(torch.Size(batch_shape), torch.Size(), validate_args=False)
        new._validate_args = self._validate_args
        return new

    def log_prob(self, value: Tensor | float) -> Tensor:
        """Log density in nats, `(...)` to `(...)`."""
        value = self._tensor(value)
        if self._validate_args:
            self._validate_sample(value)
        return neuron.log_prob(OPS, value, self.loc, self.scale, self.log_weights)

    def cdf(self, value: Tensor | float) -> Tensor:
        """p(Y <= value), `(...)` to `(...)`."""
        value = self._tensor(value)
        if self._validate_args:
            self._validate_sample(value)
        return neuron.cdf(OPS, value, self.loc, self.scale, self.log_weights)

    def sample(self, sample_shape: Any = ()) -> Tensor:
        """Draw values of shape sample_shape + batch_shape; no gradient."""
        with torch.no_grad():
            shape = self._extended_shape(torch.Size(sample_shape))
            k = torch.distributions.Categorical(logits=self.log_weights).sample(torch.Size(sample_shape))[..., None]
            loc, scale = (a.expand(*shape, a.shape[-1]).gather(-1, k)[..., 0] for a in (self.loc, self.scale))
            return torch.normal(loc, scale)

    @property
    def mean(self) -> Tensor:
        """Mean `(...)`."""
        return neuron.mean(OPS, self.loc, self.log_weights)

    @property
    def variance(self) -> Tensor:
        """Variance `(...)`."""
        return neuron.variance(OPS, self.loc, self.scale, self.log_weights)

    def responsibilities(self, value: Tensor | float) -> Tensor:
        """Posterior probability of each component given a value, `(...)` to `(..., K)`."""
        return neuron.responsibilities(OPS, self._tensor(value), self.loc, self.scale, self.log_weights)

    def _tensor(self, value: Tensor | float) -> Tensor:
        return (
            value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=self.loc.dtype, device=self.loc.device)
        )


def _common(*tensors: Tensor) -> Tensor:
    """A tensor of the floating-point dtype that all of them fit in, on the device of the first."""
    floats = [a.dtype for a in tensors if a.is_floating_point()]
    dtype = functools.reduce(torch.promote_types, floats) if floats else torch.get_default_dtype()
    return torch.empty((), dtype=dtype, device=tensors[0].device if tensors else None)
