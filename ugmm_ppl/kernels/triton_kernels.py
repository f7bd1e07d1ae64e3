"""Equation (2) and its gradient on an NVIDIA GPU, as Triton kernels; `ugmm_ppl.kernels.triton_calls` runs them.

In base 2, with r = sqrt(log2(e) / 2) / scale and c = log2(weights / (scale sqrt(2 pi))), the term of a component is
t = c - ((x - loc) r)^2, so that a = log(2) log2 sum_k 2^t. An SM has 16 exponentials per clock and 4 x 32 other
instructions, which is 8 of those for each exponential.

- `pack` stores loc, r and c - peak of every neuron, where peak is its largest c. No term exceeds it, so the forward
  pass needs no maximum: it adds up 2^(t - peak), five instructions for a term. Sums that come out too small to be exact
  (all inputs some nine scales away) are found again with the largest term, by those tiles alone.
- The backward pass recomputes the shares 2^(t - a). Where a is so far from zero that its rounding would be felt in
  them, `anchor` puts the largest term in its place; the upstream gradient then takes the rest.
- `gradients` makes every share once, and adds it up both over rows, for the parameters, in registers, and over
  neurons, for the inputs: over those of a tile in registers, over one tile after another in memory, where nobody else
  writes. That is some twelve instructions for a term.

All sums are float32. Threads lie along the inputs k, warps along the neurons. Where there are too few tiles for the
device, rows or neurons are split, and the parts are added in a fixed order: the same call gives the same bits.
float32, bfloat16 and float16 are read and written; float64 is left to chunks, as the device has no exponential for it.
Nothing waits for the device, so calls can be captured in a CUDA graph.
"""

import triton
import triton.language as tl

from ugmm_ppl.kernels import gpu

# A kernel sees the constants of its own module, and these alone.
LN2, LOG2E = tl.constexpr(gpu.LN2), tl.constexpr(gpu.LOG2E)
HALF_LOG2_2PI, ROOT_HALF_LOG2E = tl.constexpr(gpu.HALF_LOG2_2PI), tl.constexpr(gpu.ROOT_HALF_LOG2E)
HUGE, REACH = tl.constexpr(gpu.HUGE), tl.constexpr(gpu.REACH)
SMALL, FAR = tl.constexpr(gpu.SMALL), tl.constexpr(gpu.FAR)
INFINITE = tl.constexpr(float("inf"))


# --------------------------------------------------------------------------------------------------------- the kernels


@triton.jit(do_not_specialize=["neurons"])
def pack(
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
def _inputs(rows, k, x_k, inputs):
    """x within reach, (rows, k), of pointers to its rows (rows, 1)."""
    value = tl.load(rows + k[None, :] * x_k, mask=(k < inputs)[None, :], other=0.0).to(tl.float32)
    value = tl.where(value > REACH, REACH, value)
    return tl.where(value < -REACH, -REACH, value)


@triton.jit
def _components(neurons, plane, k):
    """loc, r and c - peak, (neurons, k), of pointers to neurons (neurons, 1)."""
    return (
        tl.load(neurons + k[None, :]),
        tl.load(neurons + plane + k[None, :]),
        tl.load(neurons + 2 * plane + k[None, :]),
    )


@triton.jit
def _terms(value, m, r, c):
    """z and t - peak, (rows, neurons, k).

    `tl.fma`, so that every kernel rounds a term alike; a factor of -1 is a sign, where -z would be a subtraction.
    """
    z = (value[:, None, :] - m[None, :, :]) * r[None, :, :]
    return z, tl.fma(z * -1.0, z, tl.broadcast_to(c[None, :, :], z.shape))


@triton.jit
def _exact(x_rows, neurons, plane, x_k, inputs, end, BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr):
    """Largest t - peak and sum of 2^(t - largest), (rows, neurons), over the components up to `end`."""
    most = tl.full((BR, BJ, BK), -INFINITE, tl.float32)
    for start in range(0, end, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        m, r, c = _components(neurons, plane, k)
        _, t = _terms(_inputs(x_rows, k, x_k, inputs), m, r, c)
        most = tl.maximum(most, t)
    top = tl.max(most, 2)
    shift = tl.where(top == -INFINITE, 0.0, top)
    sums = tl.zeros((BR, BJ, BK), tl.float32)
    for start in range(0, end, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        m, r, c = _components(neurons, plane, k)
        _, t = _terms(_inputs(x_rows, k, x_k, inputs), m, r, c)
        sums += tl.exp2(t - shift[:, :, None])
    return top, tl.sum(sums, 2)


@triton.jit
def _tile(first_tiles, second_tiles):
    """(first, second, rest) of the number of this program."""
    number = tl.program_id(0)
    return number % first_tiles, (number // first_tiles) % second_tiles, number // (first_tiles * second_tiles)


@triton.jit(do_not_specialize=["rows", "neurons", "neuron_tiles", "row_tiles"])
def forward(
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
        m, r, c = _components(components, plane, k)
        _, t = _terms(_inputs(x_rows, k, x_k, inputs), m, r, c)
        sums += tl.exp2(t)
    total = tl.sum(sums, 2)
    peak = tl.broadcast_to(tl.load(peaks + own_neuron)[None, :], (BR, BJ))
    a = peak + tl.log2(total)
    inexact = (total < SMALL) & (peak != -INFINITE)
    end = tl.where(tl.max(tl.max(inexact.to(tl.int32), 1), 0) > 0, inputs, 0)
    top, total = _exact(x_rows, components, plane, x_k, inputs, end, BR, BJ, BK)
    a = tl.where(inexact, peak + top + tl.log2(total), a)
    at = out + (group * rows + row[:, None]) * neurons + neuron[None, :]
    tl.store(at, a * LN2, mask=(row < rows)[:, None] & (neuron < neurons)[None, :])


@triton.jit(do_not_specialize=["rows", "neurons", "neuron_tiles", "row_tiles"])
def anchor(
    x, packed, peaks, out, upstream, base, factor, plane, rows, neurons, inputs, padded, x_g, x_r, x_k,
    neuron_tiles, row_tiles, BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
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
    a = tl.load(out + at, mask=inside, other=0.0) * LOG2E
    g = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32)
    peak = tl.broadcast_to(tl.load(peaks + own_neuron)[None, :], (BR, BJ))
    impossible = a == -INFINITE
    far = (tl.abs(a) > FAR) & ~impossible
    end = tl.where(tl.max(tl.max(far.to(tl.int32), 1), 0) > 0, inputs, 0)
    top, total = _exact(x_rows, components, plane, x_k, inputs, end, BR, BJ, BK)
    b = tl.where(far, top, a - peak)
    tl.store(base + at, tl.where(impossible, HUGE, b), mask=inside)
    g /= tl.where(far, total, 1.0)
    tl.store(factor + at, tl.where(impossible, 0.0, g), mask=inside)


@triton.jit(
    do_not_specialize=["groups", "rows", "neurons", "k_tiles", "parts", "splits", "neurons_of_part", "rows_of_split"]
)
def gradients(
    x, packed, base, factor, d_x, d_loc, d_scale, d_weights, plane, groups, rows, neurons, inputs, padded,
    x_g, x_r, x_k, k_tiles, parts, splits, neurons_of_part, rows_of_split,
    X: tl.constexpr, LOC: tl.constexpr, SCALE: tl.constexpr, WEIGHTS: tl.constexpr,
    BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients for a tile of inputs, part of the neurons and of the rows, from w = factor 2^(t - peak - base)."""
    k_tile, part, rest = _tile(k_tiles, parts)
    split, group, part = (rest % splits).to(tl.int64), (rest // splits).to(tl.int64), part.to(tl.int64)
    k = k_tile.to(tl.int64) * BK + tl.arange(0, BK)
    first, first_neuron = split * rows_of_split, part * neurons_of_part
    end, end_neuron = tl.minimum(first + rows_of_split, rows), tl.minimum(first_neuron + neurons_of_part, neurons)
    for begin in range(first_neuron, end_neuron, BJ):
        neuron = begin + tl.arange(0, BJ)
        components = packed + (group * neurons + tl.minimum(neuron, neurons - 1))[:, None] * padded
        m, r, c = _components(components, plane, k)
        later = tl.full((BR, BK), begin, tl.int64) > first_neuron
        w_sum = tl.zeros((BJ, BK), tl.float32)
        q_sum, s_sum = w_sum, w_sum
        for start in range(first, end, BR):
            row = start + tl.arange(0, BR)
            x_rows = x + group * x_g + tl.minimum(row, rows - 1)[:, None] * x_r
            z, t = _terms(_inputs(x_rows, k, x_k, inputs), m, r, c)
            at = (group * rows + row[:, None]) * neurons + neuron[None, :]
            inside = (row < end)[:, None] & (neuron < end_neuron)[None, :]
            b = tl.load(base + at, mask=inside, other=HUGE)
            g = tl.load(factor + at, mask=inside, other=0.0)
            w = tl.exp2(t - b[:, :, None]) * g[:, :, None]
            q = w * z
            w_sum += tl.sum(w, 0)
            q_sum += tl.sum(q, 0)
            s_sum += tl.sum(q * z, 0)
            if X:
                own = d_x + ((part * groups + group) * rows + row[:, None]) * inputs + k[None, :]
                inside = (row < end)[:, None] & (k < inputs)[None, :]
                before = tl.load(own, mask=inside & later, other=0.0)
                tl.store(own, before + tl.sum(q * r[None, :, :], 1) * (-2.0 * LN2), mask=inside)
        at = ((split * groups + group) * neurons + neuron[:, None]) * inputs + k[None, :]
        inside = (neuron < end_neuron)[:, None] & (k < inputs)[None, :]
        if LOC:
            tl.store(d_loc + at, q_sum * r * (2.0 * LN2), mask=inside)
        if SCALE:
            tl.store(d_scale + at, (s_sum * (2.0 * LN2) - w_sum) * (r * (1.0 / ROOT_HALF_LOG2E)), mask=inside)
        if WEIGHTS:
            tl.store(d_weights + at, w_sum, mask=inside)
        tl.debug_barrier()  # the next tile reads what this one wrote to d_x
