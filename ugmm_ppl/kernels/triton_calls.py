"""The calls of the Triton kernels from torch: layout, tiles, launches; `for_torch` calls `forward` and `backward`."""

from __future__ import annotations

import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
from torch import Tensor

from ugmm_ppl.kernels import gpu, triton_kernels
from ugmm_ppl.kernels.gpu import Shape, Tile, ceil

PADDING = 128
"""Components are padded to a multiple of this by impossible ones: the largest tile along k."""

TUNE = "UGMM_PPL_TUNE"
"""Environment variable: 1 has the best tile measured at the first call of a shape, which then takes some seconds."""


class _Call(NamedTuple):
    """One call as the kernels take it: leading axes along which a parameter varies as groups, the others as rows."""

    x: Tensor  # (groups, rows, K)
    parameters: tuple[Tensor, ...]  # (groups, J, K) each
    order: tuple[int, ...]  # the leading axes, those of the groups first
    sizes: tuple[int, ...]  # their sizes in that order
    split: int  # how many of them are of the groups

    @property
    def shape(self) -> Shape:
        """Its sizes."""
        groups, rows, inputs = self.x.shape
        return Shape(groups, rows, self.parameters[0].shape[-2], inputs)

    def arranged(self, a: Tensor) -> Tensor:
        """`(*leading, n)` as `(groups, rows, n)`, contiguous."""
        leading = tuple(self.sizes[self.order.index(i)] for i in range(len(self.order)))
        whole = a.expand(*leading, a.shape[-1]).permute(*self.order, len(self.order))
        return whole.reshape(*self.x.shape[:2], a.shape[-1]).contiguous()

    def back(self, a: Tensor, rows: bool) -> Tensor:
        """`(groups, rows, ...)`, or `(groups, ...)` without rows, over all leading axes."""
        tail = a.shape[1 + rows :]
        sizes = (*self.sizes[: self.split], *(n if rows else 1 for n in self.sizes[self.split :]))
        axes = [self.order.index(i) for i in range(len(self.order))]
        return a.reshape(*sizes, *tail).permute(*axes, *range(len(axes), len(axes) + len(tail)))


def forward(x: Tensor, loc: Tensor, scale: Tensor, log_weights: Tensor, leading: tuple[int, ...]) -> Tensor:
    """Equation (2) of x `(..., K)` and parameters `(..., J, K)` of one dtype; `leading` is their leading axes."""
    call = _arrange(leading, x, loc, scale, log_weights)
    groups, rows, neurons, _ = call.shape
    out = x.new_empty((groups, rows, neurons))
    if out.numel() > 0:
        with _on(x.device):
            _activations(call, *_packed(call), out)
    return call.back(out, rows=True).contiguous()


def backward(inputs: Sequence[Tensor], out: Tensor, upstream: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """Gradients of x, loc, scale and log_weights in their shapes; of size 0 where one is not wanted."""
    x, *parameters = inputs
    if upstream.numel() == 0:
        return [t.new_zeros(t.shape) if want else t.new_empty(0) for t, want in zip(inputs, wanted, strict=True)]
    found = [t.new_empty(0) for t in inputs]
    if not any(wanted):
        return found
    call = _arrange(tuple(upstream.shape[:-1]), x, *parameters)
    out, upstream = call.arranged(out), call.arranged(upstream)
    with _on(x.device):
        packed, peaks = _packed(call)
        if x.dtype.itemsize == 2:  # activations that were stored in half precision are too coarse for shares
            out = _activations(call, packed, peaks, out.new_empty(out.shape, dtype=torch.float32))
        shares = _with_tile("anchor", call, lambda t: _anchors(call, t, packed, peaks, out, upstream))
        given = tuple(wanted)
        sums = _with_tile("gradients", call, lambda t: _gradients(call, t, packed, shares, given), given)
    for i, (gradient, like) in enumerate(zip(sums, inputs, strict=True)):
        if wanted[i]:
            found[i] = _fitted(call.back(gradient, rows=i == 0), like)
    return found


@functools.cache
def problem() -> str:
    """Why the kernels do not run on the current CUDA device; empty if they do. Finds out by running one."""
    try:
        with torch.utils._python_dispatch._disable_current_modes(), torch.no_grad():
            ones = torch.ones((1, 1, 2), device="cuda")
            _packed(_Call(ones, (ones, ones, ones), (), (), 0))
    except Exception as error:  # whatever Triton, its compiler and the driver may raise
        return f"a first kernel fails with {type(error).__name__}: {error}"
    return ""


def _arrange(leading: tuple[int, ...], x: Tensor, *parameters: Tensor) -> _Call:
    depth = len(leading)

    def size(parameter: Tensor, axis: int) -> int:
        own = axis - depth + parameter.ndim - 2
        return parameter.shape[own] if own >= 0 else 1

    groups = [i for i in range(depth) if leading[i] > 1 and any(size(p, i) > 1 for p in parameters)]
    rows = [i for i in range(depth) if i not in groups]
    count = math.prod(leading[i] for i in groups)
    own = parameters[0].shape[-2:]
    turned = x.expand(*leading, x.shape[-1]).permute(*groups, *rows, depth)
    shaped = []
    for parameter in parameters:
        one = parameter.expand(*(n if i in groups else 1 for i, n in enumerate(leading)), *own)
        shaped.append(one.permute(*groups, *rows, depth, depth + 1).reshape(count, *own))
    all_rows = math.prod(leading[i] for i in rows)
    order = (*groups, *rows)
    return _Call(
        turned.reshape(count, all_rows, x.shape[-1]),
        tuple(shaped),
        order,
        tuple(leading[i] for i in order),
        len(groups),
    )


def _fitted(gradient: Tensor, like: Tensor) -> Tensor:
    """Summed over the axes along which an argument was broadcast, in its dtype."""
    return gradient.sum_to_size(like.shape).to(like.dtype).contiguous()


def _packed(call: _Call) -> tuple[Tensor, Tensor]:
    groups, _, neurons, inputs = call.shape
    padded = ceil(inputs, PADDING) * PADDING
    packed = call.x.new_empty((3, groups, neurons, padded), dtype=torch.float32)
    peaks = call.x.new_empty((groups, neurons), dtype=torch.float32)
    strides = [s for p in call.parameters for s in p.stride()]
    block = min(1024, gpu.power_of_2(padded))
    triton_kernels.pack[(groups * neurons,)](
        *call.parameters, packed, peaks, packed[0].numel(), neurons, inputs, padded, *strides, BK=block, num_warps=4,
        enable_fp_fusion=True,
    )  # fmt: skip
    return packed, peaks


def _activations(call: _Call, packed: Tensor, peaks: Tensor, out: Tensor) -> Tensor:
    """Into `out`, (groups, rows, J)."""
    _, rows, neurons, inputs = call.shape

    def run(tile: Tile) -> None:
        tiles = ceil(neurons, tile.neurons), ceil(rows, tile.rows)
        triton_kernels.forward[(len(out) * math.prod(tiles),)](
            call.x, packed, peaks, out, packed[0].numel(), rows, neurons, inputs, packed.shape[-1],
            *call.x.stride(), *tiles, **_options(tile),
        )  # fmt: skip

    _with_tile("forward", call, run)
    return out


def _anchors(
    call: _Call, tile: Tile, packed: Tensor, peaks: Tensor, out: Tensor, upstream: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """base and factor, (groups, rows, J), and whether a base is needed anywhere, as the kernel `anchor` describes."""
    groups, rows, neurons, inputs = call.shape
    tiles = ceil(neurons, tile.neurons), ceil(rows, tile.rows)
    base, factor = out.new_empty((2, *out.shape), dtype=torch.float32)
    distant = out.new_zeros(1, dtype=torch.float32)
    triton_kernels.anchor[(groups * math.prod(tiles),)](
        call.x, packed, peaks, out, upstream, base, factor, distant, packed[0].numel(), rows, neurons, inputs,
        packed.shape[-1], *call.x.stride(), *tiles, **_options(tile),
    )  # fmt: skip
    return base, factor, distant


def _gradients(
    call: _Call, tile: Tile, packed: Tensor, shares: tuple[Tensor, Tensor, Tensor], wanted: tuple[bool, ...]
) -> list[Tensor]:
    """Gradients of x, (groups, rows, K), and of loc, scale and log_weights, (groups, J, K), where they are wanted."""
    groups, rows, neurons, inputs = call.shape
    k_tiles = ceil(inputs, tile.inputs)
    parts = gpu.parts(call.shape, tile, _multiprocessors(call.x.device), wanted)
    sizes = [(parts.of_neurons, groups, rows, inputs), *[(parts.of_rows, groups, neurons, inputs)] * 3]
    sums = [packed.new_empty(size) if want else packed for size, want in zip(sizes, wanted, strict=True)]
    for distant in (False, True):
        triton_kernels.gradients[(groups * k_tiles * parts.of_neurons * parts.of_rows,)](
            call.x, packed, *shares, *sums, packed[0].numel(), groups, rows, neurons, inputs, packed.shape[-1],
            *call.x.stride(), k_tiles, parts.of_neurons, parts.of_rows, parts.neurons, parts.rows,
            **dict(zip(("X", "LOC", "SCALE", "WEIGHTS"), wanted, strict=True)), DISTANT=distant, **_options(tile),
        )  # fmt: skip
    return [a.sum(0) if want and len(a) > 1 else a[0] for a, want in zip(sums, wanted, strict=True)]


def _options(tile: Tile) -> dict[str, Any]:
    return {
        "BR": tile.rows, "BJ": tile.neurons, "BK": tile.inputs, "num_warps": tile.warps, "enable_fp_fusion": True,
    }  # fmt: skip


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


_measured: dict[tuple[Any, ...], Tile] = {}


def _with_tile(kind: str, call: _Call, run: Callable[[Tile], Any], wanted: tuple[bool, ...] = ()) -> Any:
    """Run with a tile that gives all multiprocessors work, or that was measured to be the best for this work."""
    tiles = (gpu.of_gradients if wanted else gpu.of_activations)(call.shape)
    if os.environ.get(TUNE) == "1" and call.x.is_cuda:
        rows = gpu.power_of_2(call.shape.rows)
        key = (kind, *call.shape._replace(rows=rows), *wanted, call.x.dtype, call.x.device)
        if key not in _measured and not torch.cuda.is_current_stream_capturing():
            times = {tile: triton.testing.do_bench(functools.partial(run, tile), warmup=2, rep=20) for tile in tiles}
            _measured[key] = min(times, key=times.__getitem__)
        if key in _measured:
            return run(_measured[key])
    return run(tiles[0] if wanted else gpu.filling(tiles, call.shape, _multiprocessors(call.x.device)))


def _on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)
