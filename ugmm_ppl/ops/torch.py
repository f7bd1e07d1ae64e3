"""The elementary operations for torch; `ugmm_ppl.kernels.torch_ops` adds the fused ones."""

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

from ugmm_ppl import budgets, neuron
from ugmm_ppl.ops.torch_arrays import default_dtype
from ugmm_ppl.typing import Coefficients, Ops, Step

HALF = (torch.float16, torch.bfloat16)


class TorchOps:
    """The array operations of `ugmm_ppl.typing.Ops` for torch tensors."""

    exp = staticmethod(torch.exp)
    erfc = staticmethod(torch.erfc)
    log = staticmethod(torch.log)
    sqrt = staticmethod(torch.sqrt)
    isfinite = staticmethod(torch.isfinite)
    log1p = staticmethod(torch.log1p)
    expm1 = staticmethod(torch.expm1)
    lgamma = staticmethod(torch.lgamma)
    ndtri = staticmethod(torch.special.ndtri)

    @staticmethod
    def where(condition: Tensor, a: Tensor | float, b: Tensor | float) -> Tensor:
        """Two numbers are of this thread's dtype: torch would take its default, which is that of all threads."""
        if isinstance(a, Tensor) or isinstance(b, Tensor) or torch.compiler.is_compiling():
            return torch.where(condition, a, b)
        return torch.where(condition, torch.tensor(a, dtype=default_dtype()), b)

    @staticmethod
    def at_least(a: Tensor, floor: float) -> Tensor:
        """Maximum with a number."""
        return torch.clamp(a, min=floor)

    @staticmethod
    def at_most(a: Tensor, ceiling: float) -> Tensor:
        """Minimum with a number."""
        return torch.clamp(a, max=ceiling)

    @staticmethod
    def eps(a: Tensor) -> float:
        """Spacing at 1."""
        return torch.finfo(a.dtype).eps

    @staticmethod
    def widened(a: Tensor) -> Tensor:
        """float32 for half precision."""
        return a.float() if a.dtype in HALF else a

    @staticmethod
    def narrowed(a: Tensor, like: Tensor, *others: Any) -> Tensor:
        """By torch's rules of promotion, to which a tensor without axes is like a number."""
        if like.dtype not in HALF:
            return a
        found = (torch.result_type(like, b) for b in others if isinstance(b, Tensor))
        dtype = functools.reduce(torch.promote_types, found, like.dtype)
        return a.to(dtype) if dtype in HALF else a

    @staticmethod
    def max(a: Tensor, axis: int) -> Tensor:
        """Maximum, axis kept, no gradient."""
        return torch.amax(a.detach(), axis, keepdim=True)

    @staticmethod
    def sum(a: Tensor, axis: int) -> Tensor:
        """Sum, axis removed."""
        return torch.sum(a, axis)

    @staticmethod
    def twice_phi(value: Tensor, loc: Tensor, scale: Tensor) -> Tensor:
        """Values along the memory, as torch's inner loops are slow where K is small; in place without a gradient."""
        gaps = (loc[:, None] - value).T if loc.ndim == 1 and value.ndim == 1 else loc - value[..., None]
        factor = math.sqrt(0.5) / scale
        alike = factor.shape == gaps.shape[-1:] and factor.dtype == gaps.dtype
        if not (alike and TorchOps.known()) or gaps.requires_grad or factor.requires_grad:
            return torch.erfc(gaps * factor)
        return gaps.mul_(factor).erfc_()

    @staticmethod
    def dot(a: Tensor, b: Tensor) -> Tensor:
        """Sum of products; without a temporary where `b` is one vector, of the same dtype and not cast by autocast."""
        plain = b.ndim == 1 and a.ndim > 0 and a.dtype == b.dtype and not torch.is_autocast_enabled(a.device.type)
        return a @ b if plain else torch.sum(a * b, -1)

    @staticmethod
    def mean(a: Tensor, axis: int) -> Tensor:
        """Mean, axis kept."""
        return torch.mean(a, axis, keepdim=True)

    @staticmethod
    def cumsum(a: Tensor) -> Tensor:
        """Running sum."""
        return torch.cumsum(a, -1)

    @staticmethod
    def count(a: Tensor) -> Tensor:
        """Number of true entries."""
        return torch.sum(a, -1)

    @staticmethod
    def sort(a: Tensor) -> Tensor:
        """Sorted, last axis."""
        return torch.sort(a, -1).values

    @staticmethod
    def concat(arrays: Sequence[Tensor]) -> Tensor:
        """Joined along the last axis."""
        leading = torch.broadcast_shapes(*(a.shape[:-1] for a in arrays))
        return torch.cat([a.expand(*leading, a.shape[-1]) for a in arrays], -1)

    @staticmethod
    def join(arrays: Sequence[Tensor], axis: int) -> Tensor:
        """Joined along one axis."""
        return torch.cat(tuple(arrays), axis)

    @staticmethod
    def constant(a: Any, like: Tensor) -> Tensor:
        """The same numbers."""
        return torch.as_tensor(a, dtype=like.dtype, device=like.device)

    @staticmethod
    def known(*arrays: Any) -> bool:
        """Not under `torch.compile` or `torch.jit.trace`, nor under any `torch.func` transform."""
        del arrays
        if torch.compiler.is_compiling():
            return False
        return not (torch._C._is_tracing() or torch._C._functorch.get_interpreter_stack())

    @staticmethod
    def stop(a: Tensor) -> Tensor:
        """Without a graph."""
        return a.detach()

    @staticmethod
    def attach(value: Tensor, coefficients: Coefficients, *parameters: Tensor) -> Tensor:
        """Adds coefficient (parameter - constant), which is zero: so every mode of differentiation knows it."""
        if not (_transformed() or (torch.is_grad_enabled() and any(p.requires_grad for p in parameters))):
            return value
        constants = [p.detach() for p in parameters]
        found = coefficients(value.detach(), *constants)
        for coefficient, parameter, constant in zip(found, parameters, constants, strict=True):
            if coefficient is not None:
                value = value + torch.sum(coefficient * (parameter - constant), -1)
        return value

    @staticmethod
    def repeat(step: Step, given: tuple[Tensor, ...], state: tuple[Tensor, ...], most: int) -> tuple[Tensor, ...]:
        """A loop; under `torch.compile` and `torch.func` transforms, which cannot look at values, a full one."""
        step = functools.partial(step, OPS, given)
        if torch.compiler.is_compiling():
            return _compiled_loop(step, state, most)
        known = TorchOps.known(*state)
        with torch.no_grad():
            for _ in range(most):
                if known and bool(state[-1].all()):
                    break
                state = step(*state)
        return state

    @staticmethod
    def in_parts(function: Callable[..., Tensor], value: Tensor, mixture: Any) -> Tensor:
        """Some values at a time, so that temporaries `(..., K)` stay in the cache."""
        if value.ndim == 0 or not TorchOps.known():
            return function(value, mixture)
        along = value.ndim < mixture.loc.ndim  # the mixture has the first axis of the values too
        if along and (mixture.loc.ndim > value.ndim + 1 or any(a.stride(0) != 0 for a in mixture[:4])):
            return function(value, mixture)
        if along:
            mixture = mixture._replace(**{name: getattr(mixture, name)[:1] for name in mixture._fields[:4]})
        row = math.prod(torch.broadcast_shapes(value.shape[1:], mixture.loc.shape[int(along) : -1]))
        rows = max(1, budgets.CACHED // max(1, row * mixture.loc.shape[-1]))
        if len(value) <= 2 * rows:
            return function(value, mixture)
        return torch.cat([function(part, mixture) for part in value.split(rows)])

    @staticmethod
    def matvec(matrix: Tensor, vector: Tensor) -> Tensor:
        """Matrix times vector over leading axes."""
        if matrix.ndim == 2:
            return vector @ matrix.T
        return torch.einsum("...oj,...j->...o", matrix, vector)

    @staticmethod
    def shared_log_prob(value: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor) -> Tensor | None:
        """None: the kernels are above this."""
        del value, loc, scale, log_weights
        return None

    @staticmethod
    def activation(x: Tensor, loc: Tensor | float, scale: Tensor, log_weights: Tensor) -> Tensor:
        """Equation (2) by its definition."""
        return neuron.activation(OPS, x, loc, scale, log_weights)


def _compiled_loop(step: Step, state: tuple[Tensor, ...], most: int) -> tuple[Tensor, ...]:
    """One node of the graph, where a plain loop would be `most` copies of the step."""
    from torch._higher_order_ops import while_loop

    count = torch.zeros((), dtype=torch.int64, device=state[-1].device)
    go_on = lambda count, *state: ~state[-1].all() & (count < most)  # noqa: E731
    return while_loop(go_on, lambda count, *state: (count + 1, *step(*state)), (count, *state))[1:]


def _transformed() -> bool:
    """Whether a transform of `torch.func` or forward-mode differentiation is at work."""
    if torch.compiler.is_compiling():
        return False
    return forward_ad._current_level >= 0 or bool(torch._C._functorch.get_interpreter_stack())


OPS: Ops = TorchOps()
