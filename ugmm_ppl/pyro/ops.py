"""`Ops` for torch."""

import math

import torch
from torch import Tensor

from ugmm_ppl.ops import Ops


class TorchOps:
    """The array operations of `ugmm_ppl.ops.Ops` for torch tensors."""

    exp = staticmethod(torch.exp)
    log = staticmethod(torch.log)
    sqrt = staticmethod(torch.sqrt)
    where = staticmethod(torch.where)
    isfinite = staticmethod(torch.isfinite)

    @staticmethod
    def ndtr(a: Tensor) -> Tensor:
        """Standard normal distribution function; `torch.special.ndtr` loses the lower tail, 0 below -5.5 in float32."""
        return 0.5 * torch.erfc(-math.sqrt(0.5) * a)

    @staticmethod
    def at_least(a: Tensor, floor: float) -> Tensor:
        """Maximum with a number."""
        return torch.clamp(a, min=floor)

    @staticmethod
    def max(a: Tensor, axis: int) -> Tensor:
        """Maximum, axis kept, no gradient."""
        return torch.amax(a.detach(), axis, keepdim=True)

    @staticmethod
    def sum(a: Tensor, axis: int) -> Tensor:
        """Sum, axis removed."""
        return torch.sum(a, axis)

    @staticmethod
    def mean(a: Tensor, axis: int) -> Tensor:
        """Mean, axis kept."""
        return torch.mean(a, axis, keepdim=True)

    @staticmethod
    def matvec(matrix: Tensor, vector: Tensor) -> Tensor:
        """Matrix times vector over leading axes."""
        if matrix.ndim == 2:
            return vector @ matrix.T
        return torch.einsum("...oj,...j->...o", matrix, vector)

    @staticmethod
    def activation(x: Tensor, loc: Tensor | float, scale: Tensor, log_weights: Tensor) -> Tensor:
        """Equation (2) by the fastest kernel."""
        from ugmm_ppl.kernels import for_torch  # which falls back on the operations of this class

        return for_torch.activation(x, loc, scale, log_weights)


OPS: Ops = TorchOps()
