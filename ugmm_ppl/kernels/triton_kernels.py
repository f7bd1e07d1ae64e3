"""Equation (2) and its gradient on an NVIDIA GPU, as Triton kernels; `for_torch` calls `forward` and `backward`.

In base 2, with r = sqrt(log2(e) / 2) / scale and c = log2(weights / (scale sqrt(2 pi))), the term of a component is
t = c - ((x - loc) r)^2, so that a = log(2) log2 sum_k 2^t. An SM has 16 exponentials per clock and 4 x 32 other
instructions, which is 8 of those for each exponential.

- `_pack` stores loc, r and c - peak of every neuron, where peak is its largest c. No term exceeds it, so the forward
  pass needs no maximum: it adds up 2^(t - peak), five instructions for a term. Sums that come out too small to be exact
  (all inputs some nine scales away) are found again with an online maximum, by those tiles alone.
- The backward pass recomputes the shares 2^(t - a). Where a is so far from zero that its rounding would be felt in
  them, `_anchor` puts the largest term in its place; the upstream gradient then takes the rest.
- Two kernels add up the gradients: those of the parameters over rows, those of the inputs over neurons. In one kernel
  one of both sums would have to leave the registers: by atomics, whose order is not fixed, or by a copy of x for every
  few neurons, whose traffic costs more than the second exponential. A first layer needs only one of them.

All sums are float32. Threads lie along the inputs k, so sums over rows and neurons need no exchange between threads.
Where there are too few tiles for the device, a sum is split, and the parts are added in a fixed order: the same input
gives the same bits. float32, bfloat16 and float16 are read and written; float64 is left to chunks, as the device has no
exponential for it. Nothing waits for the device, so calls can be captured in a CUDA graph.
"""

import contextlib
import functools
import math
import os
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

LN2 = tl.constexpr(math.log(2.0))
LOG2E = tl.constexpr(1.0 / math.log(2.0))
HALF_LOG2_2PI = tl.constexpr(0.5 * math.log2(2.0 * math.pi))
ROOT_HALF_LOG2E = tl.constexpr(math.sqrt(0.5 / math.log(2.0)))

INFINITE = tl.constexpr(float("inf"))
HUGE = tl.constexpr(3e38)
"""In place of an activation of -inf, whose components all have no share: 2^(t - HUGE) is 0."""

REACH = tl.constexpr(3.4e25)
"""An input beyond it is beyond all components; held there, its squares still overflow and its gradient is 0."""

SMALL = tl.constexpr(2.0**-60)
"""Smallest sum of 2^(t - peak) that is exact: what float32 drops is then below 2^-66 K of it."""

FAR = tl.constexpr(32.0)
"""Of an activation in base 2: up to here its rounding is not felt in 2^(t - a)."""

SPLIT_STEPS = 4
"""Least steps of a part of a sum that is split."""

PADDING = 128
"""Components are padded to a multiple of this by impossible ones: the largest tile along k."""


# --------------------------------------------------------------------------------------------------------- the kernels


@triton.jit(do_not_specialize=["neurons"])
def _pack(
    loc, scale, log_weights, packed, peaks, plane, neurons, inputs, padded,
    loc_g, loc_j, loc_k, scale_g, scale_j, scale_k, weights_g, weights_j, weights_k, BK: tl.constexpr,
):  # fmt: skip
    """One neuron: loc, r and c - peak into three planes of `packed`, peak into `peaks`."""
    row = tl.program_id(0).to(tl.int64)
    group, neuron = row // neurons, row % neurons
    loc += group * loc_g + neuron * loc_j
    scale += group * scale_g + neuron * scale_j
    log_weights += group * weights_g + neuron * weights_j
    packed += row * padded
    peak = tl.full((BK,), -INFINITE, tl.float32)
    for start in range(0, padded, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        width = tl.load(scale + k * scale_k, mask=k < inputs, other=1.0).to(tl.float32)
        share = tl.load(log_weights + k * weights_k, mask=k < inputs, other=-INFINITE).to(tl.float32)
        peak = tl.maximum(peak, share * LOG2E - tl.log2(width) - HALF_LOG2_2PI)
    top = tl.max(peak, 0)
    tl.store(peaks + row, top)
    top = tl.where(top == -INFINITE, 0.0, top)
    for start in range(0, padded, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        m = tl.load(loc + k * loc_k, mask=k < inputs, other=0.0).to(tl.float32)
        width = tl.load(scale + k * scale_k, mask=k < inputs, other=1.0).to(tl.float32)
        share = tl.load(log_weights + k * weights_k, mask=k < inputs, other=-INFINITE).to(tl.float32)
        tl.store(packed + k, m, mask=k < padded)
        tl.store(packed + plane + k, tl.div_rn(tl.full((BK,), ROOT_HALF_LOG2E, tl.float32), width), mask=k < padded)
        c = share * LOG2E - tl.log2(width) - HALF_LOG2_2PI - top
        tl.store(packed + 2 * plane + k, c, mask=k < padded)


@triton.jit
def _terms(x_rows, components, plane, k, x_k, inputs):
    """z and t - peak, (rows, neurons, k), of pointers to rows of x (rows, 1) and of components (neurons, 1).

    `tl.fma`, so that every kernel rounds a term alike.
    """
    value = tl.load(x_rows + k[None, :] * x_k, mask=(k < inputs)[None, :], other=0.0).to(tl.float32)
    value = tl.where(value > REACH, REACH, value)
    value = tl.where(value < -REACH, -REACH, value)
    m = tl.load(components + k[None, :])
    r = tl.load(components + plane + k[None, :])
    c = tl.load(components + 2 * plane + k[None, :])
    z = (value[:, None, :] - m[None, :, :]) * r[None, :, :]
    return z, tl.fma(-z, z, tl.broadcast_to(c[None, :, :], z.shape))


@triton.jit
def _online(x_rows, components, plane, x_k, inputs, end, BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr):
    """Largest t - peak and sum of 2^(t - largest), (rows, neurons), over the components up to `end`."""
    top = tl.full((BR, BJ), -INFINITE, tl.float32)
    total = tl.zeros((BR, BJ), tl.float32)
    for start in range(0, end, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        _, t = _terms(x_rows, components, plane, k, x_k, inputs)
        new = tl.maximum(top, tl.max(t, 2))
        shift = tl.where(new == -INFINITE, 0.0, new)
        total = total * tl.exp2(top - shift) + tl.sum(tl.exp2(t - shift[:, :, None]), 2)
        top = new
    return top, total


@triton.jit
def _tile(first_tiles, second_tiles):
    """(first, second, rest) of the number of this program."""
    number = tl.program_id(0)
    return number % first_tiles, (number // first_tiles) % second_tiles, number // (first_tiles * second_tiles)


@triton.jit(do_not_specialize=["rows", "neurons", "neuron_tiles", "row_tiles"])
def _forward(
    x, packed, peaks, out, plane, rows, neurons, inputs, padded, x_g, x_r, x_k, neuron_tiles, row_tiles,
    BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Activations of a tile of rows and neurons."""
    neuron_tile, row_tile, group = _tile(neuron_tiles, row_tiles)
    group = group.to(tl.int64)
    row = row_tile.to(tl.int64) * BR + tl.arange(0, BR)
    neuron = neuron_tile.to(tl.int64) * BJ + tl.arange(0, BJ)
    own_row, own_neuron = tl.minimum(row, rows - 1), group * neurons + tl.minimum(neuron, neurons - 1)
    x_rows = x + group * x_g + own_row[:, None] * x_r
    components = packed + own_neuron[:, None] * padded
    sums = tl.zeros((BR, BJ, BK), tl.float32)
    for start in range(0, inputs, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        _, t = _terms(x_rows, components, plane, k, x_k, inputs)
        sums += tl.exp2(t)
    total = tl.sum(sums, 2)
    peak = tl.broadcast_to(tl.load(peaks + own_neuron)[None, :], (BR, BJ))
    a = peak + tl.log2(total)
    inexact = (total < SMALL) & (peak != -INFINITE)
    end = tl.where(tl.max(tl.max(inexact.to(tl.int32), 1), 0) > 0, inputs, 0)
    top, total = _online(x_rows, components, plane, x_k, inputs, end, BR, BJ, BK)
    a = tl.where(inexact, peak + top + tl.log2(total), a)
    at = out + (group * rows + row[:, None]) * neurons + neuron[None, :]
    tl.store(at, a * LN2, mask=(row < rows)[:, None] & (neuron < neurons)[None, :])


@triton.jit(do_not_specialize=["rows", "neurons", "neuron_tiles", "row_tiles"])
def _anchor(
    x, packed, peaks, out, upstream, base, factor, plane, rows, neurons, inputs, padded, x_g, x_r, x_k,
    neuron_tiles, row_tiles, ALWAYS: tl.constexpr, BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """What makes shares times upstream gradients of terms: factor 2^(t - peak - base)."""
    neuron_tile, row_tile, group = _tile(neuron_tiles, row_tiles)
    group = group.to(tl.int64)
    row = row_tile.to(tl.int64) * BR + tl.arange(0, BR)
    neuron = neuron_tile.to(tl.int64) * BJ + tl.arange(0, BJ)
    own_row, own_neuron = tl.minimum(row, rows - 1), group * neurons + tl.minimum(neuron, neurons - 1)
    x_rows = x + group * x_g + own_row[:, None] * x_r
    components = packed + own_neuron[:, None] * padded
    at = (group * rows + row[:, None]) * neurons + neuron[None, :]
    inside = (row < rows)[:, None] & (neuron < neurons)[None, :]
    a = tl.load(out + at, mask=inside, other=0.0).to(tl.float32) * LOG2E
    g = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32)
    peak = tl.broadcast_to(tl.load(peaks + own_neuron)[None, :], (BR, BJ))
    far = peak != -INFINITE if ALWAYS else (tl.abs(a) > FAR) & (a != -INFINITE)
    end = tl.where(tl.max(tl.max(far.to(tl.int32), 1), 0) > 0, inputs, 0)
    top, total = _online(x_rows, components, plane, x_k, inputs, end, BR, BJ, BK)
    impossible = (total == 0.0) | (peak == -INFINITE) if ALWAYS else a == -INFINITE
    b = tl.where(far, top, a - peak)
    tl.store(base + at, tl.where(impossible, HUGE, b), mask=inside)
    g /= tl.where(far & ~impossible, total, 1.0)
    tl.store(factor + at, tl.where(impossible, 0.0, g), mask=inside)


@triton.jit(do_not_specialize=["groups", "rows", "neurons", "k_tiles", "neuron_tiles", "splits", "rows_of_split"])
def _parameters(
    x, packed, base, factor, d_loc, d_scale, d_weights, plane, groups, rows, neurons, inputs, padded, x_g, x_r, x_k,
    k_tiles, neuron_tiles, splits, rows_of_split,
    LOC: tl.constexpr, SCALE: tl.constexpr, WEIGHTS: tl.constexpr,
    BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of components, over some rows, from w = factor 2^(t - peak - base)."""
    k_tile, neuron_tile, rest = _tile(k_tiles, neuron_tiles)
    split, group = (rest % splits).to(tl.int64), (rest // splits).to(tl.int64)
    k = k_tile.to(tl.int64) * BK + tl.arange(0, BK)
    neuron = neuron_tile.to(tl.int64) * BJ + tl.arange(0, BJ)
    own_neuron = group * neurons + tl.minimum(neuron, neurons - 1)
    components = packed + own_neuron[:, None] * padded
    w_sum, q_sum, s_sum = tl.zeros((BJ, BK), tl.float32), tl.zeros((BJ, BK), tl.float32), tl.zeros((BJ, BK), tl.float32)
    first = split * rows_of_split
    end = tl.minimum(first + rows_of_split, rows)
    for start in range(first, end, BR):
        row = start + tl.arange(0, BR)
        x_rows = x + group * x_g + tl.minimum(row, rows - 1)[:, None] * x_r
        z, t = _terms(x_rows, components, plane, k, x_k, inputs)
        at = (group * rows + row[:, None]) * neurons + neuron[None, :]
        inside = (row < end)[:, None] & (neuron < neurons)[None, :]
        b = tl.load(base + at, mask=inside, other=HUGE)
        g = tl.load(factor + at, mask=inside, other=0.0)
        w = tl.exp2(t - b[:, :, None]) * g[:, :, None]
        w_sum += tl.sum(w, 0)
        if LOC or SCALE:
            q = w * z
            q_sum += tl.sum(q, 0)
            if SCALE:
                s_sum += tl.sum(q * z, 0)
    r = tl.load(components + plane + k[None, :])
    at = ((split * groups + group) * neurons + neuron[:, None]) * inputs
    at += k[None, :]
    inside = (neuron < neurons)[:, None] & (k < inputs)[None, :]
    if LOC:
        tl.store(d_loc + at, q_sum * r * (2.0 * LN2), mask=inside)
    if SCALE:
        tl.store(d_scale + at, (s_sum * (2.0 * LN2) - w_sum) * (r * (1.0 / ROOT_HALF_LOG2E)), mask=inside)
    if WEIGHTS:
        tl.store(d_weights + at, w_sum, mask=inside)


@triton.jit(do_not_specialize=["groups", "rows", "neurons", "k_tiles", "row_tiles", "splits", "neurons_of_split"])
def _inputs(
    x, packed, base, factor, d_x, plane, groups, rows, neurons, inputs, padded, x_g, x_r, x_k,
    k_tiles, row_tiles, splits, neurons_of_split, BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients of a tile of inputs, over some neurons."""
    k_tile, row_tile, rest = _tile(k_tiles, row_tiles)
    split, group = (rest % splits).to(tl.int64), (rest // splits).to(tl.int64)
    k = k_tile.to(tl.int64) * BK + tl.arange(0, BK)
    row = row_tile.to(tl.int64) * BR + tl.arange(0, BR)
    x_rows = x + group * x_g + tl.minimum(row, rows - 1)[:, None] * x_r
    sums = tl.zeros((BR, BK), tl.float32)
    first = split * neurons_of_split
    end = tl.minimum(first + neurons_of_split, neurons)
    for start in range(first, end, BJ):
        neuron = start + tl.arange(0, BJ)
        components = packed + (group * neurons + tl.minimum(neuron, neurons - 1))[:, None] * padded
        z, t = _terms(x_rows, components, plane, k, x_k, inputs)
        at = (group * rows + row[:, None]) * neurons + neuron[None, :]
        inside = (row < rows)[:, None] & (neuron < end)[None, :]
        b = tl.load(base + at, mask=inside, other=HUGE)
        g = tl.load(factor + at, mask=inside, other=0.0)
        r = tl.load(components + plane + k[None, :])
        sums += tl.sum(tl.exp2(t - b[:, :, None]) * g[:, :, None] * z * r[None, :, :], 1)
    at = ((split * groups + group) * rows + row[:, None]) * inputs
    at += k[None, :]
    tl.store(d_x + at, sums * (-2.0 * LN2), mask=(row < rows)[:, None] & (k < inputs)[None, :])


# ---------------------------------------------------------------------------------------------------- how they are run


class Tile(NamedTuple):
    """What one program works on at a time: rows x neurons x inputs, by some warps of 32 threads along the inputs."""

    rows: int
    neurons: int
    inputs: int
    warps: int


TILES = (
    Tile(8, 8, 64, 2),
    Tile(4, 8, 64, 2),
    Tile(8, 8, 32, 1),
    Tile(4, 8, 128, 4),
    Tile(8, 8, 128, 4),
    Tile(16, 4, 64, 2),
)
"""Tiles to choose from; without a measurement the first, or the second where the first would be too few."""

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
    def shape(self) -> tuple[int, int, int, int]:
        """Groups, rows, neurons, inputs."""
        groups, rows, inputs = self.x.shape
        return groups, rows, self.parameters[0].shape[-2], inputs

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
            packed, peaks = _packed(call)
            _with_tile("forward", call, lambda tile: _run_forward(call, tile, packed, peaks, out))
    return call.back(out, rows=True).contiguous()


def backward(inputs: Sequence[Tensor], out: Tensor, upstream: Tensor, wanted: Sequence[bool]) -> list[Tensor]:
    """Gradients of x, loc, scale and log_weights in their shapes; of size 0 where one is not wanted."""
    x, *parameters = inputs
    found = [t.new_zeros(t.shape) if want else t.new_empty(0) for t, want in zip(inputs, wanted, strict=True)]
    if upstream.numel() == 0 or not any(wanted):
        return found
    call = _arrange(tuple(upstream.shape[:-1]), x, *parameters)
    out, upstream = call.arranged(out), call.arranged(upstream)
    with _on(x.device):
        packed, peaks = _packed(call)
        half = x.dtype.itemsize == 2  # activations that were stored in half precision are too coarse for shares
        shares = _with_tile("anchor", call, lambda tile: _run_anchor(call, tile, packed, peaks, out, upstream, half))
        if wanted[0]:
            d_x = _with_tile("inputs", call, lambda tile: _run_inputs(call, tile, packed, shares))
            found[0] = _fitted(call.back(d_x, rows=True), x)
        if any(wanted[1:]):
            given = tuple(wanted[1:])
            sums = _with_tile("parameters", call, lambda tile: _run_parameters(call, tile, packed, shares, given))
            for i, parameter in enumerate(parameters):
                if given[i]:
                    found[1 + i] = _fitted(call.back(sums[i], rows=False), parameter)
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
    padded = _ceil(inputs, PADDING) * PADDING
    packed = call.x.new_empty((3, groups, neurons, padded), dtype=torch.float32)
    peaks = call.x.new_empty((groups, neurons), dtype=torch.float32)
    strides = [s for p in call.parameters for s in p.stride()]
    block = min(1024, triton.next_power_of_2(padded))
    _pack[(groups * neurons,)](
        *call.parameters, packed, peaks, packed[0].numel(), neurons, inputs, padded, *strides, BK=block, num_warps=4,
        enable_fp_fusion=True,
    )  # fmt: skip
    return packed, peaks


def _run_forward(call: _Call, tile: Tile, packed: Tensor, peaks: Tensor, out: Tensor) -> None:
    groups, rows, neurons, inputs = call.shape
    tiles = _ceil(neurons, tile.neurons), _ceil(rows, tile.rows)
    _forward[(groups * math.prod(tiles),)](
        call.x, packed, peaks, out, packed[0].numel(), rows, neurons, inputs, packed.shape[-1],
        *call.x.stride(), *tiles, **_options(tile),
    )  # fmt: skip


def _run_anchor(
    call: _Call, tile: Tile, packed: Tensor, peaks: Tensor, out: Tensor, upstream: Tensor, always: bool
) -> tuple[Tensor, Tensor]:
    groups, rows, neurons, inputs = call.shape
    tiles = _ceil(neurons, tile.neurons), _ceil(rows, tile.rows)
    base = out.new_empty((2, *out.shape), dtype=torch.float32)
    _anchor[(groups * math.prod(tiles),)](
        call.x, packed, peaks, out, upstream, base[0], base[1], packed[0].numel(), rows, neurons, inputs,
        packed.shape[-1], *call.x.stride(), *tiles, ALWAYS=always, **_options(tile),
    )  # fmt: skip
    return base[0], base[1]


def _run_parameters(
    call: _Call, tile: Tile, packed: Tensor, shares: tuple[Tensor, Tensor], wanted: tuple[bool, ...]
) -> list[Tensor]:
    groups, rows, neurons, inputs = call.shape
    tiles = _ceil(inputs, tile.inputs), _ceil(neurons, tile.neurons)
    splits, each = _split(rows, tile.rows, groups * math.prod(tiles), tile, call.x.device)
    sums = [packed.new_empty((splits, groups, neurons, inputs)) if want else packed for want in wanted]
    _parameters[(groups * splits * math.prod(tiles),)](
        call.x, packed, *shares, *sums, packed[0].numel(), groups, rows, neurons, inputs, packed.shape[-1],
        *call.x.stride(), *tiles, splits, each, LOC=wanted[0], SCALE=wanted[1], WEIGHTS=wanted[2], **_options(tile),
    )  # fmt: skip
    return [a.sum(0) if splits > 1 else a[0] for a in sums]


def _run_inputs(call: _Call, tile: Tile, packed: Tensor, shares: tuple[Tensor, Tensor]) -> Tensor:
    groups, rows, neurons, inputs = call.shape
    tiles = _ceil(inputs, tile.inputs), _ceil(rows, tile.rows)
    splits, each = _split(neurons, tile.neurons, groups * math.prod(tiles), tile, call.x.device)
    sums = packed.new_empty((splits, groups, rows, inputs))
    _inputs[(groups * splits * math.prod(tiles),)](
        call.x, packed, *shares, sums, packed[0].numel(), groups, rows, neurons, inputs, packed.shape[-1],
        *call.x.stride(), *tiles, splits, each, **_options(tile),
    )  # fmt: skip
    return sums.sum(0) if splits > 1 else sums[0]


def _options(tile: Tile) -> dict[str, Any]:
    return {
        "BR": tile.rows, "BJ": tile.neurons, "BK": tile.inputs, "num_warps": tile.warps, "enable_fp_fusion": True,
    }  # fmt: skip


def _split(size: int, step: int, tiles: int, tile: Tile, device: torch.device) -> tuple[int, int]:
    """Parts of a sum so that there are some 16 warps for every multiprocessor, and the length of a part."""
    wanted = _ceil(16 * _multiprocessors(device) // tile.warps, tiles)
    most = max(1, size // (SPLIT_STEPS * step))
    each = _ceil(_ceil(size, min(wanted, most)), step) * step
    return _ceil(size, each), each


@functools.cache
def _multiprocessors(device: torch.device) -> int:
    return torch.cuda.get_device_properties(device).multi_processor_count if device.type == "cuda" else 1


def _tiles(rows: int, neurons: int, inputs: int) -> list[Tile]:
    """Tiles for a shape, none larger than it."""
    most = [triton.next_power_of_2(n) for n in (rows, neurons, max(inputs, 16))]
    cut = [[min(a, b) for a, b in zip(tile, most, strict=False)] for tile in TILES]
    return list(dict.fromkeys(Tile(r, j, k, max(1, k // 32)) for r, j, k in cut))


_measured: dict[tuple[Any, ...], Tile] = {}


def _with_tile(kind: str, call: _Call, run: Callable[[Tile], Any]) -> Any:
    """Run with a tile that gives all multiprocessors work, or that was measured to be the best for this work."""
    groups, rows, neurons, inputs = call.shape
    tiles = _tiles(rows, neurons, inputs)
    if os.environ.get(TUNE) != "1" or not call.x.is_cuda:
        few = groups * _ceil(rows, tiles[0].rows) * _ceil(neurons, tiles[0].neurons) < 4 * _multiprocessors(
            call.x.device
        )
        return run(tiles[min(1, len(tiles) - 1)] if few else tiles[0])
    key = (kind, groups, triton.next_power_of_2(rows), neurons, inputs, call.x.dtype, call.x.device)
    if key not in _measured and not torch.cuda.is_current_stream_capturing():
        times = {tile: triton.testing.do_bench(functools.partial(run, tile), warmup=2, rep=20) for tile in tiles}
        _measured[key] = min(times, key=times.__getitem__)
    return run(_measured.get(key, tiles[0]))


def _on(device: torch.device) -> Any:
    """Triton launches on the current device."""
    if device.type != "cuda" or device.index == torch.cuda.current_device():
        return contextlib.nullcontext()
    return torch.cuda.device(device)


def _ceil(a: int, b: int) -> int:
    return -(-a // b)
