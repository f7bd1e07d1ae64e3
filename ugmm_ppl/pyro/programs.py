"""What a step of a training computes, recorded on a GPU as a CUDA graph; mirrors `ugmm_ppl.numpyro.programs`.

A step is some five hundred kernels, each of which takes a microsecond on the device and ten in Python. A graph launches
all of them at once, and computes the same numbers. On the CPU nothing is recorded.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

WAITS = "called a synchronizing CUDA operation"
"""What torch says, if it is asked to, of code that waits for the device, which cannot be recorded."""


class recorded:  # noqa: N801
    """A function of parameters and tensors that leaves gradients in the parameters, by a graph where it can be.

    The first call of a kind compiles kernels and makes what is made once; the second is recorded. What is random in it
    follows the seed of each call. A function that waits for the device, or that its driver refuses, is called as it is.

    Args:
        function: `function(params, *arguments)` -> tensor; sets `grad` of the parameters.
    """

    def __init__(self, function: Callable[..., Tensor]) -> None:
        self._function = function
        self._graphs: dict[Any, _Graph | None] = {}
        self._called: set[Any] = set()

    def __call__(self, params: Mapping[str, Tensor], *arguments: Any) -> Tensor:
        """Compute it; the result of a graph, and the gradients, hold until the next call."""
        device = next(iter(params.values())).device
        if device.type != "cuda" or not all(isinstance(a, Tensor) for a in arguments):
            return self._function(params, *arguments)
        kind = tuple((a.shape, a.dtype) for a in (*params.values(), *arguments))
        if kind not in self._called:
            self._called.add(kind)
            return self._function(params, *arguments)
        if kind not in self._graphs:
            state = torch.cuda.get_rng_state(device)
            self._graphs[kind] = _recorded(self._function, params, arguments)
            torch.cuda.set_rng_state(state, device)
        return (self._graphs[kind] or self._function)(params, *arguments)


class _Graph:
    """A call on tensors of its own, into which those of every other call are copied."""

    def __init__(self, function: Callable[..., Tensor], params: Mapping[str, Tensor], arguments: Any) -> None:
        self._params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        self._arguments = [a.clone() for a in arguments]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, capture_error_mode="thread_local"):
            self._result = function(self._params, *self._arguments)

    def __call__(self, params: Mapping[str, Tensor], *arguments: Tensor) -> Tensor:
        with torch.no_grad():
            torch._foreach_copy_([*self._params.values(), *self._arguments], [*params.values(), *arguments])
        self._graph.replay()
        for name, p in params.items():
            p.grad = self._params[name].grad
        return self._result


def _recorded(function: Callable[..., Tensor], params: Mapping[str, Tensor], arguments: Any) -> _Graph | None:
    if _waits(function, params, arguments):
        return None
    try:
        return _Graph(function, params, arguments)
    except RuntimeError:  # after which the generator would believe that it is being recorded
        generator = torch.cuda.default_generators[torch.cuda.current_device()]
        generator.graphsafe_set_state(generator.clone_state())
        return None


def _waits(function: Callable[..., Tensor], params: Mapping[str, Tensor], arguments: Any) -> bool:
    """Whether a call waits for the device. Found out by one beforehand: a recording that breaks off leaves traces."""
    before = torch.cuda.get_sync_debug_mode()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            function(params, *arguments)
        finally:
            torch.cuda.set_sync_debug_mode(before)
    return any(WAITS in str(warning.message) for warning in said)


class Potential:
    """A function of a dict of tensors, as NUTS takes it, whose value and gradient are recorded together on a GPU."""

    def __init__(self, function: Callable[[Mapping[str, Tensor]], Tensor]) -> None:
        def derivatives(values: Mapping[str, Tensor]) -> Tensor:
            for value in values.values():
                value.grad = None
            potential = function(values)
            potential.backward()
            return potential.detach()

        self._function, self._derivatives = function, recorded(derivatives)

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        """Its value, a function of the values for autograd."""
        if next(iter(values.values())).device.type != "cuda":
            return self._function(values)
        return _Known.apply(self._derivatives, tuple(values), *values.values())


class _Known(torch.autograd.Function):
    """A value whose gradient was computed with it."""

    @staticmethod
    def forward(ctx: Any, derivatives: recorded, names: tuple[str, ...], *values: Tensor) -> Tensor:
        """Both."""
        own = {name: value.detach().clone().requires_grad_() for name, value in zip(names, values, strict=True)}
        with torch.enable_grad():
            result = derivatives(own).clone()
        ctx.save_for_backward(*(torch.zeros_like(p) if p.grad is None else p.grad.clone() for p in own.values()))
        return result

    @staticmethod
    def backward(ctx: Any, upstream: Tensor) -> tuple[Any, ...]:
        """The gradient of every value."""
        return None, None, *(upstream * gradient for gradient in ctx.saved_tensors)
