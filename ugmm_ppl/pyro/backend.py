"""`Backend` for Pyro."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyro
import pyro.distributions
import torch
from pyro import poutine
from torch import Tensor

from ugmm_ppl import checks
from ugmm_ppl.backends import devices
from ugmm_ppl.backends.base import Bijector, Site
from ugmm_ppl.checks.basic import native
from ugmm_ppl.distributions.described import SIMPLEX, Distribution
from ugmm_ppl.kernels.torch_ops import OPS
from ugmm_ppl.ops.torch_arrays import chosen_dtype, default_dtype, runs_plainly, to_numpy
from ugmm_ppl.pyro import derivatives, inference
from ugmm_ppl.pyro.distribution import UnivariateGaussianMixture
from ugmm_ppl.pyro.family import FamilyDistribution
from ugmm_ppl.pyro.training import Trainer
from ugmm_ppl.pyro.turns import as_default
from ugmm_ppl.typing import SiteValues


class TorchBijector:
    """A torch transform from the reals onto a support."""

    def __init__(self, transform: torch.distributions.Transform) -> None:
        self._transform = transform

    def constrain(self, u: Tensor) -> tuple[Tensor, Tensor]:
        """Constrained value and the sum of log |d value / d u|."""
        value = self._transform(u)
        return value, self._transform.log_abs_det_jacobian(u, value).sum()

    def unconstrain(self, value: Tensor) -> Tensor:
        """Inverse of `constrain`."""
        return self._transform.inv(value)


class PyroBackend:
    """The primitives of Pyro under the names of `ugmm_ppl.backends.base.Backend`."""

    name = "pyro"
    ops = OPS
    dist = SimpleNamespace(
        **vars(pyro.distributions),
        FamilyDistribution=FamilyDistribution,
        UnivariateGaussianMixture=UnivariateGaussianMixture,
    )
    inference = inference
    derivatives = derivatives

    @property
    def trainer(self) -> type[Trainer]:
        """The class that takes the steps of a training."""
        return Trainer

    def sample(self, name: str, distribution: Any, obs: Tensor | None = None) -> Tensor:
        """`pyro.sample`."""
        return pyro.sample(name, distribution, obs=obs)

    def plate(self, name: str, size: int) -> Any:
        """`pyro.plate` along axis -1."""
        return pyro.plate(name, size, dim=-1)

    def scale(self, factor: float | Tensor) -> Any:
        """`poutine.scale`."""
        return poutine.scale(scale=factor)

    def deterministic(self, name: str, value: Tensor) -> Tensor:
        """`pyro.deterministic`."""
        return pyro.deterministic(name, value)

    def factor(self, name: str, value: Tensor) -> None:
        """`pyro.factor`."""
        pyro.factor(name, value)

    def uniform(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Uniform numbers from torch's generator."""
        return torch.rand(shape, dtype=like.dtype, device=like.device)

    def normal(self, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Standard normal numbers from torch's generator."""
        return torch.randn(shape, dtype=like.dtype, device=like.device)

    def module(self, module: Any) -> tuple[SiteValues, Callable[[Mapping[str, Tensor], Tensor], Tensor]]:
        """Of a `torch.nn.Module`."""
        if not isinstance(module, torch.nn.Module):
            raise checks.no_module(module, "torch.nn.Module", "lambda i, o: torch.nn.Linear(i, o)")
        if any(True for _ in module.buffers()):
            raise checks.module_with_state(module)
        found = {name: to_numpy(value).copy() for name, value in module.named_parameters()}

        def apply(params: Mapping[str, Tensor], x: Tensor) -> Tensor:
            with as_default():  # which no other thread is in: the parameters are put into the one module
                return torch.func.functional_call(module, dict(params), (x,))

        return found, apply

    def array(self, value: Any) -> Tensor:
        """Tensor of default dtype and device; whole numbers stay whole."""
        if isinstance(value, Tensor):
            return value
        value = np.asarray(value)
        kind = default_dtype() if value.dtype.kind == "f" else None
        return torch.as_tensor(np.array(native(value)), dtype=kind, device=torch.get_default_device())

    def numpy(self, value: Tensor) -> np.ndarray:
        """A copy from a GPU, a view on the CPU."""
        return to_numpy(value) if isinstance(value, Tensor) else np.asarray(value)

    def concatenate(self, parts: Sequence[Tensor]) -> Tensor:
        """Join 1-D tensors."""
        return torch.cat(list(parts))

    def below_diagonal(self, matrix: Tensor) -> Tensor:
        """`torch.tril` without the diagonal."""
        return torch.tril(matrix, -1)

    def build(self, spec: Distribution, shape: tuple[int, ...], like: Tensor | None = None) -> Any:
        """The Pyro distribution of a description, expanded to `shape`, all of it one event."""
        reference = torch.empty((), dtype=default_dtype()) if like is None else like
        args, kwargs = _arguments(spec, reference)
        if spec.name in SIMPLEX:  # a scalar concentration is symmetric
            args, kwargs = (
                [a.expand(shape[-1]) if a.ndim == 0 else a for a in args],
                {k: a.expand(shape[-1]) if a.ndim == 0 else a for k, a in kwargs.items()},
            )
        with checks.building(spec):
            _validate(spec)
            distribution = getattr(pyro.distributions, spec.name)(*args, **kwargs)
            return distribution.expand(shape[: len(shape) - distribution.event_dim]).to_event(
                len(shape) - distribution.event_dim
            )

    def normal_parameters(self, distribution: Any) -> tuple[Tensor, Tensor] | None:
        """(loc, scale) of a Normal under any number of Independent wrappers."""
        while isinstance(distribution, torch.distributions.Independent):
            distribution = distribution.base_dist
        if type(distribution) is not pyro.distributions.Normal:
            return None
        return _unexpanded(distribution.loc), _unexpanded(distribution.scale)

    def bijector(self, distribution: Any) -> Bijector | None:
        """`biject_to` the support, None for the reals."""
        support = distribution.support
        while hasattr(support, "base_constraint"):
            support = support.base_constraint
        if isinstance(support, type(torch.distributions.constraints.real)):
            return None
        return TorchBijector(torch.distributions.biject_to(distribution.support))

    def in_support(self, distribution: Any, value: Tensor) -> bool:
        """Whether all of a value lies in the support."""
        return bool(distribution.support.check(value).all())

    def condition(self, model: Callable[..., Any], values: Mapping[str, Tensor]) -> Callable[..., Any]:
        """`poutine.condition`."""
        return poutine.condition(model, data=values)

    def trace(
        self, model: Callable[..., Any], values: Mapping[str, Tensor], *args: Any, **kwargs: Any
    ) -> dict[str, Site]:
        """Sample sites of one run with the given values."""
        nodes = poutine.trace(poutine.condition(model, data=values)).get_trace(*args, **kwargs).nodes
        return {
            name: Site(node["fn"], node["value"], node["scale"], node["is_observed"] and name not in values)
            for name, node in nodes.items()
            if node["type"] == "sample" and type(node["fn"]).__name__ != "_Subsample" and not _is_deterministic(node)
        }

    @contextlib.contextmanager
    def settings(self, *, dtype: str, device: str | int) -> Iterator[None]:
        """Dtype and device of what this thread makes, with gradients and without autocast, whatever the user has set.

        Torch's own default dtype, which all threads share, stays.
        """
        target = self.device(device)
        on_device = contextlib.nullcontext() if target == torch.get_default_device() else torch.device(target)
        cast = torch.is_autocast_enabled(target.type)
        with (
            chosen_dtype(getattr(torch, dtype)),
            on_device,
            torch.autocast(target.type, enabled=False) if cast else contextlib.nullcontext(),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield

    def as_default(self) -> contextlib.AbstractContextManager[None]:
        """The dtype of the `settings` is torch's default meanwhile, and no other thread is inside."""
        return as_default()

    def device(self, device: str | int) -> torch.device:
        """The torch device called "cpu", "gpu", "cuda", "cuda:1" or 1.

        Raises:
            ValueError: It is not there; the message lists what is.
        """
        return torch.device(self.device_name(device))

    def device_name(self, device: str | int) -> str:
        """The name of a device that is there."""
        return devices.choose(device, torch.cuda.device_count())


def _arguments(spec: Distribution, like: Tensor) -> tuple[list[Tensor], dict[str, Tensor]]:
    """Tensors of a description; its numbers are made once: to bring them to a GPU at every run would wait for it."""
    numbers = all(isinstance(a, int | float) for a in (*spec.args, *spec.kwargs.values()))
    if not numbers or not runs_plainly():  # those of a mode or a transform live as long as it lasts
        return _made(spec, like.dtype, like.device)
    args, kwargs = _kept(spec, like.dtype, like.device)
    return list(args), dict(kwargs)


def _made(spec: Distribution, dtype: torch.dtype, device: torch.device) -> tuple[list[Tensor], dict[str, Tensor]]:
    def tensor(a: Any) -> Tensor:
        return torch.as_tensor(np.array(a, dtype=np.float64), dtype=dtype, device=device)

    return [tensor(a) for a in spec.args], {key: tensor(a) for key, a in spec.kwargs.items()}


@functools.lru_cache(maxsize=4096)  # more than a training meets: a graph reads them where they are
def _kept(spec: Distribution, dtype: torch.dtype, device: torch.device) -> tuple[list[Tensor], dict[str, Tensor]]:
    with torch.inference_mode(False):
        return _made(spec, dtype, device)


def _is_deterministic(node: Mapping[str, Any]) -> bool:
    return bool(node["infer"].get("_deterministic", False))


def _unexpanded(a: Tensor) -> Tensor:
    """The tensor without the copies that `expand` made: size 1 along axes of stride 0."""
    return a[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in a.stride())]


@functools.lru_cache(maxsize=256)
def _validate(spec: Distribution) -> None:
    """Refuse wrong arguments, once, also where torch's own checks are off; `torch.compile` turns them off for good."""
    args, kwargs = spec.arrays()
    tensors = [torch.as_tensor(a) for a in args], {key: torch.as_tensor(a) for key, a in kwargs.items()}
    getattr(pyro.distributions, spec.name)(*tensors[0], **tensors[1], validate_args=True)


BACKEND = PyroBackend()
