"""What a step of a training computes, recorded on a GPU as a CUDA graph; mirrors `ugmm_ppl.numpyro.programs`.

A step is some five hundred kernels, each of which takes a microsecond on the device and thirty in Python. A graph
launches all of them at once, and computes the same numbers. On the CPU nothing is recorded.
"""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

WAITS = "called a synchronizing CUDA operation"
"""What torch says, if it is asked to, of code that waits for the device, which cannot be recorded."""


class Recorder:
    """Calls a function of parameters and tensors that leaves gradients in the parameters, by a graph where it can be.

    The first call of a kind compiles kernels and makes what is made once; the second is recorded. What is random in it
    follows the seed of each call; its Python code does not run again. A function that waits for the device, or that its
    driver refuses, is called as it is.
    """

    def __init__(self) -> None:
        self._graphs: dict[Any, _Graph | None] = {}
        self._called: set[Any] = set()

    def __call__(self, function: Callable[..., Tensor], params: Mapping[str, Tensor], *arguments: Any) -> Tensor:
        """`function(params, *arguments)`, the same one in every call; what a graph gives holds until the next."""
        device = next(iter(params.values())).device
        if device.type != "cuda" or not all(isinstance(a, Tensor) for a in arguments):
            return function(params, *arguments)
        kind = (tuple(params), *((a.shape, a.dtype) for a in (*params.values(), *arguments)))
        if kind not in self._called:
            self._called.add(kind)
            return function(params, *arguments)
        with torch.cuda.device(device):
            if kind not in self._graphs:
                state = torch.cuda.get_rng_state(device)
                self._graphs[kind] = _recorded(function, params, arguments, device)
                torch.cuda.set_rng_state(state, device)
            graph = self._graphs[kind]
            return function(params, *arguments) if graph is None else graph(params, *arguments)


class _Graph:
    """A call on tensors of its own, into which those of every other call are copied."""

    def __init__(
        self, function: Callable[..., Tensor], params: Mapping[str, Tensor], arguments: Any, stream: Any, pool: Any
    ) -> None:
        self._params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        self._arguments = [a.clone() for a in arguments]
        self._graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(self._graph, pool=pool, stream=stream, capture_error_mode="thread_local"):
            self._result = function(self._params, *self._arguments)

    def __call__(self, params: Mapping[str, Tensor], *arguments: Tensor) -> Tensor:
        with torch.no_grad():
            torch._foreach_copy_([*self._params.values(), *self._arguments], [*params.values(), *arguments])
        self._graph.replay()
        for name, p in params.items():
            p.grad = self._params[name].grad
        return self._result


def _recorded(
    function: Callable[..., Tensor], params: Mapping[str, Tensor], arguments: Any, device: torch.device
) -> _Graph | None:
    if _waits(function, params, arguments):
        return None
    stream, pool = torch.cuda.Stream(device), torch.cuda.graph_pool_handle()
    try:
        with torch.cuda.stream(stream):  # which is left again also where the recording is not ended
            return _Graph(function, params, arguments, stream, pool)
    except RuntimeError:  # after which the generator and the allocator would believe that they are being recorded
        generator = torch.cuda.default_generators[device.index]
        generator.graphsafe_set_state(generator.clone_state())
        with contextlib.suppress(RuntimeError):
            torch._C._cuda_endAllocateToPool(device.index, pool)
        return None


def _waits(function: Callable[..., Tensor], params: Mapping[str, Tensor], arguments: Any) -> bool:
    """Whether a call waits for the device. Found out by one beforehand: a recording that breaks off leaves traces.

    The mode is the process's: another thread that waits meanwhile may keep a function from being recorded.
    """
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
        self._function, self._recorder = function, Recorder()

    def __call__(self, values: Mapping[str, Tensor]) -> Tensor:
        """Its value, a function of the values for autograd."""
        if next(iter(values.values())).device.type != "cuda":
            return self._function(values)
        return _Known.apply(self.derivatives, tuple(values), *values.values())

    def derivatives(self, values: Mapping[str, Tensor]) -> Tensor:
        """Its value, with the gradient left in the values."""
        return self._recorder(self._differentiate, values)

    def _differentiate(self, values: Mapping[str, Tensor]) -> Tensor:
        for value in values.values():
            value.grad = None
        potential = self._function(values)
        potential.backward()
        return potential.detach()


class _Known(torch.autograd.Function):
    """A value whose gradient was computed with it."""

    @staticmethod
    def forward(
        ctx: Any, derivatives: Callable[[Mapping[str, Tensor]], Tensor], names: tuple[str, ...], *values: Tensor
    ) -> Tensor:
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
