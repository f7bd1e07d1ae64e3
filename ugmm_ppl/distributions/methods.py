"""What both distributions answer in the same words: methods of `UnivariateGaussianMixture` that need no PPL."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, ClassVar

from ugmm_ppl import checks, neuron
from ugmm_ppl.distributions import closed_form, mixture, pathwise
from ugmm_ppl.distributions.kl import kl
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.distributions.modes import modes
from ugmm_ppl.typing import Array, Ops

TOLERANCE = 1e-6
"""Nats, of `kl_to`; ten times the rounding of the numbers' dtype where that is more."""

FINEST = 64


class MixtureQueries:
    """Methods over `self.mixture`, for the distribution classes of both backends to inherit.

    Where a method takes a probability or a value `(...)`, a number or an array that broadcasts with the batch shape is
    meant; results have the broadcast shape.
    """

    ops: ClassVar[Ops]

    @property
    def mixture(self) -> Mixture:
        """The parameters, `(..., K)` each, with normalised weights; float32 where they are given in half precision."""
        raise NotImplementedError

    loc: Array

    def _array(self, value: Any) -> Array:
        """Any real number or array as an array of the library: floats of it as they are, all else like the mixture."""
        raise NotImplementedError

    def _looks_at_values(self) -> bool:
        """Whether arguments are validated."""
        raise NotImplementedError

    def _rounded(self, answer: Array, *given: Any) -> Array:
        """An answer in half precision, if the parameters and the arrays that were given are in it."""
        return self.ops.narrowed(answer, self.loc, *given)

    def _in_parts(self, function: Callable[..., Array], value: Any) -> Array:
        """`function(ops, value, mixture)`, elementwise in the value; half precision is computed in float32."""
        array = self.ops.widened(self._array(value))
        found = self.ops.in_parts(functools.partial(function, self.ops), array, self.mixture)
        return self._rounded(found, value)

    def log_cdf(self, value: Any) -> Array:
        """log p(Y <= value) in nats, accurate in both tails: `(...)` to `(...)`."""
        return self._in_parts(mixture.log_cdf, value)

    def log_survival(self, value: Any) -> Array:
        """log p(Y > value) in nats, accurate in both tails: `(...)` to `(...)`."""
        return self._in_parts(mixture.log_survival, value)

    def icdf(self, u: Any) -> Array:
        """The value y with p(Y <= y) = u, by a bracketed Newton search; differentiable in u and in the parameters.

        Args:
            u: Probabilities in [0, 1], `(...)`; 0 gives -inf, 1 gives inf.

        Returns:
            Quantiles `(...)`.

        Raises:
            ValueError: A probability outside [0, 1], where arguments are validated; else the answer is NaN.
        """
        levels = self._array(u)
        if self._looks_at_values() and self.ops.known(levels):
            checks.probabilities(levels)
        return self._in_parts(pathwise.quantile, u)

    def quantile(self, u: Any) -> Array:
        """Another name of `icdf`."""
        return self.icdf(u)

    @property
    def median(self) -> Array:
        """The value below which half of the mass lies, `(...)`."""
        return self.icdf(0.5)

    def interval(self, level: float) -> tuple[Array, Array]:
        """The ends, `(...)` each, of the interval that holds `level` of the mass and leaves out as much on each side.

        Raises:
            ValueError: A level outside (0, 1).
        """
        tail = 0.5 * (1.0 - checks.number("level", level, 0.0, 1.0))
        return self.icdf(tail), self.icdf(1.0 - tail)

    @property
    def mean(self) -> Array:
        """Mean `(...)`."""
        m = self.mixture
        return self._rounded(neuron.mean(self.ops, m.loc, m.weights))

    @property
    def variance(self) -> Array:
        """Variance `(...)`."""
        return self._rounded(neuron.variance(self.ops, *self.mixture.parameters))

    @property
    def stddev(self) -> Array:
        """Standard deviation `(...)`."""
        return self._rounded(self.ops.sqrt(neuron.variance(self.ops, *self.mixture.parameters)))

    @property
    def skewness(self) -> Array:
        """Third standardised moment `(...)`."""
        return self._rounded(mixture.skewness(self.ops, self.mixture))

    def responsibilities(self, value: Any) -> Array:
        """Posterior probability of each component given a value, `(...)` to `(..., K)`."""
        m, array = self.mixture, self.ops.widened(self._array(value))
        return self._rounded(neuron.responsibilities(self.ops, array, m.loc, m.scale, m.log_weights), value)

    def modes(self) -> Array:
        """All local maxima of the density, ascending, `(..., K)`, filled up with NaN. Not differentiable."""
        return self._rounded(modes(self.ops, self.mixture))

    def entropy_bounds(self) -> tuple[Array, Array]:
        """A lower and an upper bound of the entropy in nats, `(...)` each, in closed form (Huber et al. 2008)."""
        lower, upper = closed_form.entropy_bounds(self.ops, self.mixture)
        return self._rounded(lower), self._rounded(upper)

    def kl_to(self, other: MixtureQueries, tolerance: float = TOLERANCE) -> Array:
        """KL(self || other) in nats by Gauss-Legendre quadrature, `(...)`; differentiable in all parameters.

        The panels are halved until two answers differ by less than the tolerance. Under `jax.jit`, `torch.compile` and
        the like, which cannot look at values, they are halved three times.

        Args:
            other: A mixture of the same backend; batch shapes broadcast.
            tolerance: Nats, or the part of the answer where that is above one.

        Raises:
            FloatingPointError: 64 panels for every two scales are not enough.
        """
        p, q = self.mixture, other.mixture
        tolerance = max(checks.number("tolerance", tolerance, 0.0), 10.0 * self.ops.eps(p.loc))
        if not self.ops.known(*p.parameters, *q.parameters):
            return self._rounded(kl(self.ops, p, q, 8), other.loc)
        coarse, refinement = kl(self.ops, p, q, 1), 2
        while refinement <= FINEST:
            fine = kl(self.ops, p, q, refinement)
            if bool((abs(fine - coarse) <= tolerance * (1.0 + abs(fine))).all()):
                return self._rounded(fine, other.loc)
            coarse, refinement = fine, 2 * refinement
        raise checks.not_converged("kl_to", tolerance)
