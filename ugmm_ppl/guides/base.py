"""What a block of a guide is: a family over the unconstrained values of some sites, written once for both backends.

Every block lives in the unconstrained space u of its sites. Parameters and noise are dicts of arrays, named after the
sites, `layers.0.loc:log_scale`, or after the pattern that chose the sites where one array holds the entries of all of
them, `readout.*:factor`; for the pattern `*` it is left out, `factor`.
"""

from __future__ import annotations

import abc
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, ClassVar, TypeVar

import numpy as np

from ugmm_ppl.neuron import HALF_LOG_2PI
from ugmm_ppl.typing import Array, Matrix, Ops, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.guides.sites import LatentSite

FAMILIES: dict[str, type[Block]] = {}
"""The families by name, in the order of messages; a module that defines one fills it in by `family`."""

B = TypeVar("B", bound="type[Block]")


def family(name: str) -> Callable[[B], B]:
    """Register a class of blocks under the name by which `guide=` asks for it."""

    def register(kind: B) -> B:
        FAMILIES[name] = kind
        return kind

    return register


class Block(abc.ABC):
    """A family over the unconstrained values of some sites; what distinguishes it is said as facts.

    Attributes:
        sites: The sites, in the order in which the model samples them.
    """

    sites: Mapping[str, LatentSite]

    factorised: ClassVar[bool] = False
    """Whether every entry is independent of all others."""

    has_density: ClassVar[bool] = True
    """Whether it is a density over u, to which log |d theta / d u| belongs, and not a point theta.

    A guide of points alone is the method "map".
    """

    from_curvature: ClassVar[bool] = False
    """Whether it can be made of a point and a precision there, by `around`, which method="laplace" needs."""

    @classmethod
    @abc.abstractmethod
    def make(
        cls, backend: Backend, sites: Mapping[str, LatentSite], pattern: str, *, init_scale: float, rank: int
    ) -> Block:
        """The block over the sites that a pattern chose.

        Args:
            backend: The backend.
            sites: The sites.
            pattern: The pattern, from which `prefix_of` names parameters that all sites share.
            init_scale: Start scale, in units of u.
            rank: Rank, of families that have one.

        Raises:
            ValueError: It cannot be made over these sites.
        """

    @abc.abstractmethod
    def initial(self, start: Values) -> SiteValues:
        """Parameters around unconstrained start values."""

    def around(self, start: Values, precision: Matrix) -> SiteValues:
        """Parameters at unconstrained start values with a precision; for blocks with `from_curvature`.

        Args:
            start: Start values by site.
            precision: That of all n entries, `(n, n)`, or if `factorised` its diagonal `(n,)`, in 1 / units of u^2.

        Raises:
            numpy.linalg.LinAlgError: The precision is not positive definite.
        """
        raise NotImplementedError

    @abc.abstractmethod
    def noise_shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes of the standard normal numbers that one draw needs."""

    @abc.abstractmethod
    def draw(self, params: Mapping[str, Array], noise: Mapping[str, Array]) -> dict[str, Array]:
        """Unconstrained values of the sites."""

    @abc.abstractmethod
    def moments(self, params: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
        """(mean, variance) of the unconstrained values of each site."""

    @abc.abstractmethod
    def entropy(self, params: Mapping[str, Array]) -> Array:
        """H[q(u)] in nats; 0 if it has no density."""

    @abc.abstractmethod
    def log_prob(self, params: Mapping[str, Array], unconstrained: Mapping[str, Array]) -> Array:
        """log q(u) in nats; 0 if it has no density."""

    @abc.abstractmethod
    def culprits(self, gradients: Values) -> list[str]:
        """Names of the sites with a gradient that is not finite."""


def prefix_of(pattern: str) -> str:
    """What stands before the names of parameters that all sites of a pattern share; nothing for the pattern "*"."""
    return "" if pattern == "*" else f"{pattern}:"


def entries(sites: Mapping[str, LatentSite]) -> int:
    """Number of unconstrained entries of all sites together."""
    return sum(math.prod(site.unconstrained_shape) for site in sites.values())


def join(sites: Mapping[str, LatentSite], values: Mapping[str, np.ndarray]) -> np.ndarray:
    """Unconstrained values in NumPy as one vector `(n,)`."""
    return np.concatenate([np.ravel(values[name]) for name in sites])


def split(sites: Mapping[str, LatentSite], flat: Array) -> dict[str, Array]:
    """One vector `(n,)` of any library as unconstrained values; the inverse of `join`."""
    parts, start = {}, 0
    for name, site in sites.items():
        stop = start + math.prod(site.unconstrained_shape)
        parts[name] = flat[start:stop].reshape(site.unconstrained_shape)
        start = stop
    return parts


def normal_log_prob(ops: Ops, value: Array, loc: Array, scale: Array) -> Array:
    """log N(value; loc, scale^2), elementwise."""
    z = (value - loc) / scale
    return -0.5 * z * z - ops.log(scale) - HALF_LOG_2PI
