"""`Ops` for torch: the elementary operations, and equation (2) by the fastest kernel."""

import torch
from torch import Tensor

from ugmm_ppl.kernels import for_torch, library
from ugmm_ppl.ops.torch import TorchOps
from ugmm_ppl.typing import Ops

KERNEL_ELEMENTS = 2**15
"""Values times components from which the native kernel is worth its call."""


class FusedTorchOps(TorchOps):
    """The array operations of `ugmm_ppl.typing.Ops` for torch tensors."""

    @staticmethod
    def shared_log_prob(value: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor) -> Tensor | None:
        """The activation of one neuron whose inputs all are the value, by a fused kernel."""
        shared = all(size == 1 or step == 0 for size, step in zip(loc.shape[:-1], loc.stride()[:-1], strict=True))
        small = value.numel() * loc.shape[-1] < KERNEL_ELEMENTS
        if small or not shared or torch.compiler.is_compiling() or value.dtype != loc.dtype:
            return None
        kernel = library.choose(value.device.type, str(value.dtype).removeprefix("torch."))
        if kernel not in ("native", "triton"):
            return None
        shape = torch.broadcast_shapes(value.shape, loc.shape[:-1])
        row = [a[(0,) * (a.ndim - 1)][None] for a in (loc, scale, log_weights)]  # (1, K)
        return for_torch.activation(value.expand(shape).reshape(-1, 1), *row).reshape(shape)

    @staticmethod
    def activation(x: Tensor, loc: Tensor | float, scale: Tensor, log_weights: Tensor) -> Tensor:
        """Equation (2) by the fastest kernel."""
        return for_torch.activation(x, loc, scale, log_weights)


OPS: Ops = FusedTorchOps()
