"""Distributions described as plain data, which a backend builds."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.checks.files import stored_callable

DISTRIBUTIONS = (
    "AsymmetricLaplace", "Beta", "Cauchy", "Chi2", "Dirichlet", "Exponential", "Gamma", "Gumbel", "HalfCauchy",
    "HalfNormal", "InverseGamma", "Kumaraswamy", "Laplace", "LogNormal", "Logistic", "Normal", "Pareto", "SoftLaplace",
    "StudentT", "Uniform", "Weibull",
)  # fmt: skip
"""Names of the continuous distributions that Pyro and NumPyro share."""


@dataclasses.dataclass(frozen=True, eq=False)
class Distribution:
    """A distribution as plain data: its name in both PPLs, and the arguments it will be built with."""

    name: str
    args: tuple[Any, ...] = ()
    kwargs: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __repr__(self) -> str:
        """Read as the call that made it."""
        given = [repr(a) for a in self.args] + [f"{k}={v!r}" for k, v in self.kwargs.items()]
        return f"dist.{self.name}({', '.join(given)})"

    def arrays(self) -> tuple[list[np.ndarray], dict[str, np.ndarray]]:
        """The arguments in float64 with at least one axis, of two entries where one number stands for a simplex."""

        def array(a: Any) -> np.ndarray:
            found = np.atleast_1d(np.asarray(a, dtype=np.float64))
            return np.repeat(found, 2) if self.name in SIMPLEX and len(found) == 1 else found

        return [array(a) for a in self.args], {key: array(a) for key, a in self.kwargs.items()}


class _Distributions:
    """Makes a `Distribution` for each name that both PPLs have: `dist.Normal(0.0, 1.0)`."""

    def __getattr__(self, name: str) -> Callable[..., Distribution]:
        if name.startswith("__"):
            raise AttributeError(name)
        return _maker(checks.choice("distribution", name, DISTRIBUTIONS))

    def __dir__(self) -> list[str]:
        return list(DISTRIBUTIONS)


@functools.cache  # one function for each name, so that pickle finds it again
def _maker(name: str) -> Callable[..., Distribution]:
    def make(*args: Any, **kwargs: Any) -> Distribution:
        """Describe the distribution; the arguments are those of the PPLs' class of that name."""
        return Distribution(name, args, kwargs)

    make.__name__, make.__qualname__ = name, f"dist.{name}"
    return make


dist = _Distributions()


@functools.cache
def normal(loc: float, scale: float) -> Distribution:
    """A default prior: always the same object, so that backends check its arguments once and not at every step."""
    return dist.Normal(loc, scale)


SIMPLEX = ("Dirichlet",)


POSITIVE = (
    "Beta",
    "Chi2",
    "Exponential",
    "Gamma",
    "HalfCauchy",
    "HalfNormal",
    "InverseGamma",
    "Kumaraswamy",
    "LogNormal",
    "Pareto",
    "Uniform",
    "Weibull",
)


def describe(value: Any) -> Any:
    """A distribution as JSON values; None stays None, and of a callable there is only the name."""
    if isinstance(value, Distribution):
        args = [np.asarray(a, dtype=np.float64).tolist() for a in value.args]
        kwargs = {name: np.asarray(a, dtype=np.float64).tolist() for name, a in value.kwargs.items()}
        return {"name": value.name, "args": args, "kwargs": kwargs}
    return None if value is None else {"callable": getattr(value, "__name__", repr(value))}


def from_description(value: Any, file: str) -> Any:
    """What `describe` described, in a file that messages call `file`.

    Raises:
        ValueError: A callable, which is not stored.
    """
    if value is None:
        return None
    if "callable" in value:
        raise stored_callable(file, value["callable"])
    return Distribution(value["name"], tuple(value["args"]), value["kwargs"])
