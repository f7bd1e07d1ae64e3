"""Equation (2) on torch tensors by the fastest kernel: dispatch, the fused kernels as a torch operator, chunks."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.overrides import handle_torch_function, has_torch_function_variadic
from torch.utils.checkpoint import checkpoint

from ugmm_ppl import budgets, checks, neuron
from ugmm_ppl.kernels import library
from ugmm_ppl.ops.torch import OPS

PLAIN = frozenset({Tensor, torch.nn.Parameter})
"""Tensors that are what they seem."""


# What `torch.compiler.assume_constant_result` does, which would import a second's worth of the compiler.
library.choose._dynamo_marked_constant = True  # type: ignore[attr-defined]


def activation(x: Tensor, loc: Tensor | float, scale: Tensor, log_weights: Tensor) -> Tensor:
    """Equation (2): arguments, result and errors as `neuron.activation`; shapes `(..., K)` and `(..., J, K)`."""
    given = (x, loc, scale, log_weights)
    if has_torch_function_variadic(*given):  # a subclass that follows values, as Pyro's do, sees one function of torch
        return handle_torch_function(activation, given, *given)
    x, loc, scale, log_weights = _common(*given)
    kernel = library.choose(x.device.type, str(x.dtype).removeprefix("torch."))
    transforms = [] if torch.compiler.is_compiling() else torch._C._functorch.get_interpreter_stack() or []
    if kernel in ("native", "triton") and not _forward_mode(transforms):
        if transforms:
            return _Transformed.apply(x, loc, scale, log_weights)
        if torch.compiler.is_compiling() or _is_dispatched(x, loc, scale, log_weights):
            return torch.ops.ugmm_ppl.activation(x, loc, scale, log_weights)
        return _Eager.apply(x, loc, scale, log_weights)
    if kernel == "chunked" and not transforms:
        return _chunked(x, loc, scale, log_weights)
    return _reference(x, loc, scale, log_weights)


def _common(x: Tensor, loc: Tensor | float, scale: Tensor, log_weights: Tensor) -> tuple[Tensor, ...]:
    """The arguments as tensors of one dtype, the parameters of one `(J, K)`."""
    if isinstance(loc, Tensor) and _is_plain(x, loc, scale, log_weights):
        return x, loc, scale, log_weights  # by far the most frequent case; the rest would cost more than a small call
    if not isinstance(loc, Tensor):
        loc = scale.new_full((), float(loc)).expand(scale.shape[-2:])
    checks.activation_shapes(x.shape, loc.shape, scale.shape, log_weights.shape)
    tensors = (x, loc, scale, log_weights)
    dtype = x.dtype
    for tensor in tensors[1:]:
        dtype = torch.promote_types(dtype, tensor.dtype)
    checks.floating("activation", str(dtype), dtype.is_floating_point)
    own = torch.broadcast_shapes(loc.shape[-2:], scale.shape[-2:], log_weights.shape[-2:], (1, x.shape[-1]))
    x = x.expand(*x.shape[:-1], own[-1])
    parameters = (t if t.shape[-2:] == own else t.expand(*t.shape[:-2], *own) for t in tensors[1:])
    return tuple(t if t.dtype == dtype else t.to(dtype) for t in (x, *parameters))


def _is_plain(x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor) -> bool:
    """Whether all is in order: parameters `(J, K)`, inputs `(..., K)`, one floating-point dtype."""
    own = scale.shape
    return (
        len(own) == 2
        and own == loc.shape == log_weights.shape
        and x.ndim > 0
        and x.shape[-1] == own[1] > 0
        and x.dtype == loc.dtype == scale.dtype == log_weights.dtype
        and x.is_floating_point()
    )


def _reference(x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor) -> Tensor:
    if x.dtype.itemsize == 2:  # half precision cannot hold the squares, so it is left until the end
        return neuron.activation(OPS, x.float(), loc.float(), scale.float(), log_weights.float()).to(x.dtype)
    return neuron.activation(OPS, x, loc, scale, log_weights)


def _is_dispatched(*tensors: Tensor) -> bool:
    """Whether Python code, of a mode or of a subclass, is to see every operator: its tensors may have no memory."""
    return torch._C._len_torch_dispatch_stack() > 0 or not PLAIN.issuperset(map(type, tensors))


def _forward_mode(transforms: list[Any]) -> bool:
    """Whether forward-mode derivatives are being taken, for which the operator has no rule."""
    jvp = torch._C._functorch.TransformType.Jvp
    return forward_ad._current_level >= 0 or any(level.key() == jvp for level in transforms)


def _chunked(x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor) -> Tensor:
    """A few rows at a time; what the backward pass needs is computed again there."""
    parameters = (loc, scale, log_weights)
    rows = max(1, budgets.CACHED // max(1, *(p.numel() for p in parameters)))
    if x.ndim < 2 or x.shape[-2] <= rows or any(p.ndim > 2 and p.shape[-3] > 1 for p in parameters):
        return _reference(x, *parameters)
    needs_gradient = torch.is_grad_enabled() and any(t.requires_grad for t in (x, *parameters))

    def part(chunk: Tensor) -> Tensor:
        if needs_gradient:
            return checkpoint(_reference, chunk, *parameters, use_reentrant=False, preserve_rng_state=False)
        return _reference(chunk, *parameters)

    return torch.cat([part(chunk) for chunk in x.split(rows, dim=-2)], dim=-2)


# ------------------------------------------------------------------------------------------------------ the operator


def _by_triton(x: Tensor) -> bool:
    """Whether the operator runs the Triton kernels: not on the CPU, unless in their interpreter."""
    return not x.is_cpu or library.interpreted()


def _run_forward(x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor) -> Tensor:
    leading, own = _leading(x, loc, scale, log_weights), tuple(scale.shape[-2:])
    if _by_triton(x):
        from ugmm_ppl.kernels import triton_calls

        return triton_calls.forward(x, loc, scale, log_weights, leading)
    out = x.new_empty((*leading, own[0]))
    strides = _strides(leading, own, x, loc, scale, log_weights)
    _call("ugmm_forward", x, leading, own, strides, None, (x, loc, scale, log_weights, out))
    return out


DEVICES = ("cpu", "cuda")
_forward = torch.library.custom_op("ugmm_ppl::activation", _run_forward, mutates_args=(), device_types=DEVICES)


@_forward.register_fake
def _(x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor) -> Tensor:
    return x.new_empty((*_leading(x, loc, scale, log_weights), scale.shape[-2]))


def _run_backward(
    x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor, out: Tensor, upstream: Tensor, wanted: Sequence[bool]
) -> list[Tensor]:
    inputs = (x, loc, scale, log_weights)
    if _by_triton(x):
        from ugmm_ppl.kernels import triton_calls

        return triton_calls.backward(inputs, out, upstream, wanted)
    leading, own = tuple(upstream.shape[:-1]), tuple(scale.shape[-2:])
    gradients = [t.new_empty(t.shape) if want else t.new_empty(0) for t, want in zip(inputs, wanted, strict=True)]
    strides = _strides(leading, own, *inputs)
    sizes = []
    for gradient, like, want, tail in zip(gradients, inputs, wanted, (own[1:], own, own, own), strict=True):
        strides += gradient.expand(*leading, *tail).stride() if want else [0] * (len(leading) + len(tail))
        sizes.append(like.numel() if want else 0)
    out = out.expand(*leading, own[0]).contiguous()
    _call("ugmm_backward", x, leading, own, strides, sizes, (*inputs, out, upstream.contiguous(), *gradients))
    return gradients


_backward = torch.library.custom_op(
    "ugmm_ppl::activation_backward", _run_backward, mutates_args=(), device_types=DEVICES
)


@_backward.register_fake
def _(
    x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor, out: Tensor, upstream: Tensor, wanted: Sequence[bool]
) -> list[Tensor]:
    del out, upstream
    inputs = (x, loc, scale, log_weights)
    return [t.new_empty(t.shape) if want else t.new_empty(0) for t, want in zip(inputs, wanted, strict=True)]


def _keep(ctx: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
    """What the derivative needs: the inputs and the activations; the responsibilities are computed again."""
    ctx.save_for_backward(*inputs, output)


def _first_derivative(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
    wanted = list(ctx.needs_input_grad)
    if torch._C._functorch.is_legacy_batchedtensor(upstream):  # of `is_grads_batched=True`, which knows no operators
        found = torch.func.vjp(_reference, *ctx.saved_tensors[:-1])[1](upstream)
    else:
        found = torch.ops.ugmm_ppl.activation_backward(*ctx.saved_tensors, upstream, wanted)
    return tuple(gradient if want else None for gradient, want in zip(found, wanted, strict=True))


def _keep_backward(ctx: Any, inputs: tuple[Any, ...], output: Sequence[Tensor]) -> None:
    del output
    *tensors, _, upstream, ctx.wanted = inputs
    ctx.save_for_backward(*tensors, upstream)


def _second_derivative(ctx: Any, upstream: Sequence[Tensor]) -> tuple[Tensor | None, ...]:
    """By the reference formula, as a function of the inputs alone: the saved activations follow from them."""

    def gradients(*arguments: Tensor) -> tuple[Tensor, ...]:
        found = torch.func.vjp(_reference, *arguments[:-1])[1](arguments[-1])
        return tuple(gradient for gradient, want in zip(found, ctx.wanted, strict=True) if want)

    given = tuple(u for u, want in zip(upstream, ctx.wanted, strict=True) if want)
    *inputs, into_upstream = torch.func.vjp(gradients, *ctx.saved_tensors)[1](given)
    return (*inputs, None, into_upstream, None)


def _over_batch(operator: Any, info: Any, in_dims: tuple[Any, ...], *arguments: Any) -> tuple[Any, int]:
    """`torch.vmap`: the new axis goes in front of all others, of size 1 where an argument has none of it."""
    ranks = (1, 2, 2, 2, 1, 1)
    depth = max(a.ndim - (d is not None) - r for a, d, r in zip(arguments, in_dims, ranks, strict=False))
    fresh = []
    for argument, dim, rank in zip(arguments, in_dims, ranks, strict=False):
        batched = argument.unsqueeze(0) if dim is None else argument.movedim(dim, 0)
        fill = depth - (batched.ndim - 1 - rank)
        batched = batched.reshape(batched.shape[0], *[1] * fill, *batched.shape[1:])
        fresh.append(batched.expand(info.batch_size, *batched.shape[1:]) if operator is _backward else batched)
    if operator is _forward:
        return torch.ops.ugmm_ppl.activation(*fresh), 0
    found = torch.ops.ugmm_ppl.activation_backward(*fresh, arguments[-1])
    shaped = [
        gradient.reshape(info.batch_size, *_without(argument, dim)) if want else gradient.new_empty(info.batch_size, 0)
        for gradient, argument, dim, want in zip(found, arguments, in_dims, arguments[-1], strict=False)
    ]
    return shaped, [0] * len(shaped)  # type: ignore[return-value]


def _without(argument: Tensor, dim: int | None) -> tuple[int, ...]:
    shape = list(argument.shape)
    if dim is not None:
        del shape[dim]
    return tuple(shape)


def _is_batched(tensor: Tensor) -> bool:
    functorch = torch._C._functorch
    return functorch.is_functorch_wrapped_tensor(tensor) or functorch.is_legacy_batchedtensor(tensor)


class _Eager(torch.autograd.Function):
    """The kernel without the machinery of an operator, which costs as much as a small layer."""

    @staticmethod
    def forward(ctx: Any, *inputs: Tensor) -> Tensor:
        """Run the kernel."""
        out = _run_forward(*inputs)
        _keep(ctx, inputs, out)
        return out

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """Run the backward kernel; by its operator where second derivatives or batches of gradients are wanted."""
        if torch.is_grad_enabled() or _is_batched(upstream):
            return _first_derivative(ctx, upstream)
        x, loc, scale, log_weights, out = ctx.saved_tensors
        wanted = ctx.needs_input_grad
        found = _run_backward(x, loc, scale, log_weights, out, upstream, wanted)
        return tuple(gradient if want else None for gradient, want in zip(found, wanted, strict=True))


class _Transformed(torch.autograd.Function):
    """The operator under `torch.func` transforms, which do not take the derivative of an operator themselves."""

    generate_vmap_rule = True
    forward = staticmethod(torch.ops.ugmm_ppl.activation)
    setup_context = staticmethod(_keep)

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Tensor | None, ...]:
        """By the backward kernel."""
        wanted = tuple(ctx.needs_input_grad)
        found = _TransformedBackward.apply(*ctx.saved_tensors, upstream, wanted)
        return tuple(gradient if want else None for gradient, want in zip(found, wanted, strict=True))


class _TransformedBackward(torch.autograd.Function):
    """`_Transformed.backward`, with second derivatives."""

    generate_vmap_rule = True
    forward = staticmethod(lambda *arguments: tuple(torch.ops.ugmm_ppl.activation_backward(*arguments)))
    setup_context = staticmethod(_keep_backward)
    backward = staticmethod(lambda ctx, *upstream: _second_derivative(ctx, upstream))


_forward.register_autograd(_first_derivative, setup_context=_keep)
_backward.register_autograd(_second_derivative, setup_context=_keep_backward)
_forward.register_vmap(lambda info, in_dims, *a: _over_batch(_forward, info, in_dims, *a))
_backward.register_vmap(lambda info, in_dims, *a: _over_batch(_backward, info, in_dims, *a))


def _leading(x: Tensor, *parameters: Tensor) -> tuple[int, ...]:
    if all(p.ndim == 2 for p in parameters):
        return tuple(x.shape[:-1])
    return tuple(torch.broadcast_shapes(x.shape[:-1], *(p.shape[:-2] for p in parameters)))


def _strides(leading: tuple[int, ...], own: tuple[int, int], x: Tensor, *parameters: Tensor) -> list[int]:
    """Strides of all arguments over the broadcast axes, one after the other; 0 where an axis is broadcast."""
    result = list(x.expand(*leading, own[1]).stride())
    for parameter in parameters:
        result += parameter.expand(*leading, *own).stride()
    return result


def _call(
    name: str,
    like: Tensor,
    leading: tuple[int, ...],
    own: tuple[int, int],
    strides: list[int],
    sizes: list[int] | None,
    tensors: tuple[Tensor, ...],
) -> None:
    function = getattr(library.load()[0], name)
    failed = function(
        int(like.dtype == torch.float64),
        torch.get_num_threads(),
        ctypes.c_int64(len(leading)),
        _int64(*leading, *own),
        _int64(*strides),
        *([] if sizes is None else [_int64(*sizes)]),
        *(ctypes.c_void_p(t.data_ptr() or None) for t in tensors),
    )
    if failed:
        raise checks.out_of_memory(name, leading, own)


def _int64(*values: int) -> Any:
    return (ctypes.c_int64 * len(values))(*values)
