"""`Backend` for NumPyro."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions
from jax import Array
from numpyro import handlers
from numpyro.distributions import constraints
from numpyro.distributions.transforms import Transform, biject_to

from ugmm_ppl import checks
from ugmm_ppl.backends import devices
from ugmm_ppl.backends.base import Bijector, Site
from ugmm_ppl.checks.machine import require
from ugmm_ppl.distributions.described import SIMPLEX, Distribution
from ugmm_ppl.kernels.jax_ops import OPS
from ugmm_ppl.numpyro import derivatives, inference
from ugmm_ppl.numpyro.distribution import UnivariateGaussianMixture
from ugmm_ppl.numpyro.family import FamilyDistribution
from ugmm_ppl.numpyro.training import Trainer
from ugmm_ppl.ops.jax_arrays import to_array
from ugmm_ppl.typing import SiteValues, Values


class JaxBijector:
    """A NumPyro transform from the reals onto a support."""

    def __init__(self, transform: Transform) -> None:
        self._transform = transform

    def constrain(self, u: Array) -> tuple[Array, Array]:
        """Constrained value and the sum of log |d value / d u|."""
        value = self._transform(u)
        return value, self._transform.log_abs_det_jacobian(u, value).sum()

    def unconstrain(self, value: Array) -> Array:
        """Inverse of `constrain`."""
        return self._transform.inv(value)


class NumpyroBackend:
    """The primitives of NumPyro under the names of `ugmm_ppl.backends.base.Backend`."""

    name = "numpyro"
    ops = OPS
    dist = SimpleNamespace(
        **vars(numpyro.distributions),
        FamilyDistribution=FamilyDistribution,
        UnivariateGaussianMixture=UnivariateGaussianMixture,
    )
    inference = inference
    derivatives = derivatives

    @property
    def trainer(self) -> type[Trainer]:
        """The class that takes the steps of a training."""
        return Trainer

    def sample(self, name: str, distribution: Any, obs: Array | None = None) -> Array:
        """`numpyro.sample`."""
        return numpyro.sample(name, distribution, obs=obs)

    def plate(self, name: str, size: int) -> Any:
        """`numpyro.plate` along axis -1."""
        return numpyro.plate(name, size, dim=-1)

    def scale(self, factor: float | Array) -> Any:
        """`handlers.scale`."""
        return handlers.scale(scale=factor)

    def deterministic(self, name: str, value: Array) -> Array:
        """`numpyro.deterministic`."""
        return numpyro.deterministic(name, value)

    def factor(self, name: str, value: Array) -> None:
        """`numpyro.factor`."""
        numpyro.factor(name, value)

    def uniform(self, shape: tuple[int, ...], like: Array) -> Array:
        """Uniform numbers from the key of the surrounding seed handler."""
        return jax.random.uniform(numpyro.prng_key(), shape, like.dtype)

    def normal(self, shape: tuple[int, ...], like: Array) -> Array:
        """Standard normal numbers from the key of the surrounding seed handler."""
        return jax.random.normal(numpyro.prng_key(), shape, like.dtype)

    def module(self, module: Any) -> tuple[SiteValues, Callable[[Mapping[str, Array], Array], Array]]:
        """Of a `flax.nnx.Module`; its parameters are named by their numbers."""
        nnx = require("flax.nnx", "flax", ("flax",))
        if not isinstance(module, nnx.Module):
            raise checks.no_module(module, "flax.nnx.Module", "lambda i, o: nnx.Linear(i, o, rngs=nnx.Rngs(0))")
        graph, state, rest = nnx.split(module, nnx.Param, ...)
        if jax.tree.leaves(rest):
            raise checks.module_with_state(module)
        leaves, tree = jax.tree.flatten(state)

        def apply(params: Mapping[str, Array], x: Array) -> Array:
            held = jax.tree.unflatten(tree, [params[str(i)] for i in range(len(leaves))])
            return nnx.merge(graph, held, rest)(x)

        return {str(i): np.asarray(leaf, dtype=np.float64) for i, leaf in enumerate(leaves)}, apply

    def array(self, value: Any) -> Array:
        """Array of default dtype and device; whole numbers stay whole."""
        return to_array(value)

    def numpy(self, value: Array) -> np.ndarray:
        """A copy from a GPU, a view on the CPU."""
        return np.asarray(value)

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join 1-D arrays."""
        return jnp.concatenate(list(parts))

    def below_diagonal(self, matrix: Array) -> Array:
        """`jnp.tril` without the diagonal."""
        return jnp.tril(matrix, -1)

    def build(self, spec: Distribution, shape: tuple[int, ...], like: Array | None = None) -> Any:
        """The NumPyro distribution of a description, expanded to `shape`, all of it one event."""
        dtype = jnp.zeros(()).dtype if like is None else like.dtype
        args, kwargs = (
            [to_array(a, dtype) for a in spec.args],
            {k: to_array(a, dtype) for k, a in spec.kwargs.items()},
        )
        if spec.name in SIMPLEX:  # a scalar concentration is symmetric
            args = [jnp.broadcast_to(a, (shape[-1],)) if a.ndim == 0 else a for a in args]
            kwargs = {k: jnp.broadcast_to(a, (shape[-1],)) if a.ndim == 0 else a for k, a in kwargs.items()}
        with checks.building(spec):
            _validate(spec)
            distribution = getattr(numpyro.distributions, spec.name)(*args, **kwargs)
            return distribution.expand(shape[: len(shape) - distribution.event_dim]).to_event(
                len(shape) - distribution.event_dim
            )

    def normal_parameters(self, distribution: Any) -> tuple[Array, Array] | None:
        """(loc, scale) of a Normal under any number of Independent and Expanded wrappers."""
        wrappers = (numpyro.distributions.Independent, numpyro.distributions.ExpandedDistribution)
        while isinstance(distribution, wrappers):
            distribution = distribution.base_dist
        return (distribution.loc, distribution.scale) if type(distribution) is numpyro.distributions.Normal else None

    def bijector(self, distribution: Any) -> Bijector | None:
        """`biject_to` the support, None for the reals."""
        support = distribution.support
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        if isinstance(support, type(constraints.real)):
            return None
        return JaxBijector(biject_to(distribution.support))

    def in_support(self, distribution: Any, value: Array) -> bool:
        """Whether all of a value lies in the support."""
        return bool(distribution.support(np.asarray(value)).all())  # NumPy: nothing to compile

    def condition(self, model: Callable[..., Any], values: Values) -> Callable[..., Any]:
        """`handlers.condition`."""
        return handlers.condition(model, data=values)

    def trace(self, model: Callable[..., Any], values: Values, *args: Any, **kwargs: Any) -> dict[str, Site]:
        """Sample sites of one run with the given values; random numbers come from the surrounding seed handler."""
        trace = handlers.trace(handlers.substitute(model, data=values)).get_trace(*args, **kwargs)
        return {
            name: Site(
                site["fn"],
                site["value"],
                1.0 if site["scale"] is None else site["scale"],
                site["is_observed"],
            )
            for name, site in trace.items()
            if site["type"] == "sample"
        }

    @contextlib.contextmanager
    def settings(self, *, dtype: str, device: str | int) -> Iterator[None]:
        """Default dtype and device of JAX, for this thread."""
        exact = jax.default_matmul_precision("float32")  # a GPU would multiply matrices with 10 bits
        with jax.enable_x64(dtype == "float64"), jax.default_device(self.device(device)), exact:
            yield

    def as_default(self) -> contextlib.AbstractContextManager[None]:
        """JAX has defaults for every thread, which `settings` sets."""
        return contextlib.nullcontext()

    def device(self, device: str | int) -> Any:
        """The JAX device called "cpu", "gpu", "cuda", "cuda:1" or 1.

        Raises:
            ValueError: It is not there; the message lists what is.
        """
        kind, _, index = self.device_name(device).partition(":")
        return _devices(kind)[int(index or 0)]

    def device_name(self, device: str | int) -> str:
        """The name of a device that is there."""
        return devices.choose(device, len(_devices("cuda")))


def _devices(kind: str) -> list[Any]:
    try:
        return jax.devices(kind)
    except RuntimeError:  # JAX's way of saying that there is none
        return []


@functools.lru_cache(maxsize=256)
def _validate(spec: Distribution) -> None:
    """Refuse wrong arguments, once, also where NumPyro's own checks are off."""
    args, kwargs = spec.arrays()
    getattr(numpyro.distributions, spec.name)(*args, **kwargs, validate_args=True)


BACKEND = NumpyroBackend()
