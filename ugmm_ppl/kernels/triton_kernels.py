"""Equation (2) and its gradient on an NVIDIA GPU, as Triton kernels; `ugmm_ppl.kernels.triton_calls` runs them.

In base 2, with r = sqrt(log2(e) / 2) / scale and c = log2(weights / (scale sqrt(2 pi))), the term of a component is
t = c - ((x - loc) r)^2, so that a = log(2) log2 sum_k 2^t. An SM has 16 exponentials per clock and 4 x 32 other
instructions, which is 8 of those for each exponential.

- `pack` stores loc, r and c - peak of every neuron, where peak is its largest c. No term exceeds it, so the forward
  pass needs no maximum: it adds up 2^(t - peak), five instructions for a term. Sums that come out too small to be exact
  (all inputs some nine scales away) are found again with the largest term, by those tiles alone.
- The backward pass recomputes the shares 2^(t - a), as 2^(t - peak) times a factor of the row and neuron, which holds
  2^(peak - a) and the upstream gradient. Where a is so far from zero that its rounding would be felt in them, `anchor`
  finds the sum again. Where it is so far below the peak that these powers leave float32, a second run of the kernel
  makes the shares in the careful way; where there is no such row and neuron, it ends at once.
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
LEAST, SMALL, FAR = tl.constexpr(gpu.LEAST), tl.constexpr(gpu.SMALL), tl.constexpr(gpu.FAR)
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
def _exact(x_rows, neurons, plane, x_k, inputs, BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr):
    """Largest t - peak and sum of 2^(t - largest), (rows, neurons)."""
    most = tl.full((BR, BJ, BK), -INFINITE, tl.float32)
    for start in range(0, inputs, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        m, r, c = _components(neurons, plane, k)
        _, t = _terms(_inputs(x_rows, k, x_k, inputs), m, r, c)
        most = tl.maximum(most, t)
    top = tl.max(most, 2)
    shift = tl.where(top == -INFINITE, 0.0, top)
    sums = tl.zeros((BR, BJ, BK), tl.float32)
    for start in range(0, inputs, BK):
        k = start + tl.arange(0, BK).to(tl.int64)
        m, r, c = _components(neurons, plane, k)
        _, t = _terms(_inputs(x_rows, k, x_k, inputs), m, r, c)
        sums += tl.exp2(t - shift[:, :, None])
    return top, tl.sum(sums, 2)


@triton.jit
def _any(condition):
    """Whether it holds anywhere, (rows, neurons)."""
    return tl.max(tl.max(condition.to(tl.int32), 1), 0) > 0


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
    for start in tl.range(0, inputs, BK, num_stages=3):  # the next two tiles are on their way meanwhile
        k = start + tl.arange(0, BK).to(tl.int64)
        m, r, c = _components(components, plane, k)
        _, t = _terms(_inputs(x_rows, k, x_k, inputs), m, r, c)
        sums += tl.exp2(t)
    total = tl.sum(sums, 2)
    peak = tl.broadcast_to(tl.load(peaks + own_neuron)[None, :], (BR, BJ))
    a = peak + tl.log2(total)
    inexact = (total < SMALL) & (peak != -INFINITE)
    if _any(inexact):
        top, total = _exact(x_rows, components, plane, x_k, inputs, BR, BJ, BK)
        a = tl.where(inexact, peak + top + tl.log2(total), a)
    at = out + (group * rows + row[:, None]) * neurons + neuron[None, :]
    tl.store(at, a * LN2, mask=(row < rows)[:, None] & (neuron < neurons)[None, :])


@triton.jit(do_not_specialize=["rows", "neurons", "neuron_tiles", "row_tiles"])
def anchor(
    x, packed, peaks, out, upstream, base, factor, distant, plane, rows, neurons, inputs, padded, x_g, x_r, x_k,
    neuron_tiles, row_tiles, BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """What makes shares times upstream gradients of terms: factor 2^(t - peak), or factor 2^(t - peak - base).

    The second where an activation is so far below the peak that both powers of the first would leave float32; there are
    none, mostly, and `distant` is 1 if there are. `base` is huge elsewhere.
    """
    neuron_tile, row_tile, group = _tile(neuron_tiles, row_tiles)
    group = group.to(tl.int64)
    row = row_tile.to(tl.int64) * BR + tl.arange(0, BR)
    neuron = neuron_tile.to(tl.int64) * BJ + tl.arange(0, BJ)
    own_row, own_neuron = tl.minimum(row, rows - 1), group * neurons + tl.minimum(neuron, neurons - 1)
    x_rows = x + group * x_g + own_row[:, None] * x_r
    components = packed + own_neuron[:, None] * padded
    at = (group * rows + row[:, None]) * neurons + neuron[None, :]
    inside = (row < rows)[:, None] & (neuron < neurons)[None, :]
    a = tl.load(out + at, mask=inside, other=-INFINITE) * LOG2E
    g = tl.load(upstream + at, mask=inside, other=0.0).to(tl.float32)
    impossible = a == -INFINITE
    b = tl.where(impossible, HUGE, a - tl.broadcast_to(tl.load(peaks + own_neuron)[None, :], (BR, BJ)))
    far = (tl.abs(a) > FAR) & ~impossible
    if _any(far):
        top, total = _exact(x_rows, components, plane, x_k, inputs, BR, BJ, BK)
        b = tl.where(far, top, b)
        g = tl.where(far, g / total, g)
    below = b < LEAST
    tl.store(base + at, tl.where(below, b, HUGE), mask=inside)
    tl.store(factor + at, tl.where(impossible, 0.0, tl.where(below, g, g * tl.exp2(-b))), mask=inside)
    if _any(below):
        tl.store(distant, 1.0)


@triton.jit
def _of_rows(
    x, factor, base, row, neuron, k, end, end_neuron, rows, neurons, inputs, x_r, x_k, DISTANT: tl.constexpr
):  # fmt: skip
    """x, (rows, k), and factor and base, (rows, neurons): no share beyond the end. Without DISTANT no base is read."""
    at = row[:, None] * neurons + neuron[None, :]
    inside = (row < end)[:, None] & (neuron < end_neuron)[None, :]
    g = tl.load(factor + at, mask=inside, other=0.0)
    b = g
    if DISTANT:
        b = tl.load(base + at, mask=inside, other=HUGE)
    return _inputs(x + tl.minimum(row, rows - 1)[:, None] * x_r, k, x_k, inputs), g, b


@triton.jit
def _put(at, value, inside, ADD: tl.constexpr):
    """Store a value, or add it to what is there."""
    if ADD:
        value += tl.load(at, mask=inside, other=0.0)
    tl.store(at, value, mask=inside)


@triton.jit(
    do_not_specialize=["groups", "rows", "neurons", "k_tiles", "parts", "splits", "neurons_of_part", "rows_of_split"]
)
def gradients(
    x, packed, base, factor, distant, d_x, d_loc, d_scale, d_weights, plane, groups, rows, neurons, inputs, padded,
    x_g, x_r, x_k, k_tiles, parts, splits, neurons_of_part, rows_of_split,
    X: tl.constexpr, LOC: tl.constexpr, SCALE: tl.constexpr, WEIGHTS: tl.constexpr, DISTANT: tl.constexpr,
    BR: tl.constexpr, BJ: tl.constexpr, BK: tl.constexpr,
):  # fmt: skip
    """Gradients for a tile of inputs, part of the neurons and of the rows, from w = factor 2^(t - peak).

    Then, with DISTANT, what w = factor 2^(t - peak - base) adds to them, where that is anything.
    """
    k_tile, part, rest = _tile(k_tiles, parts)
    split, group, part = (rest % splits).to(tl.int64), (rest // splits).to(tl.int64), part.to(tl.int64)
    k = k_tile.to(tl.int64) * BK + tl.arange(0, BK)
    first, first_neuron = split * rows_of_split, part * neurons_of_part
    end, end_neuron = tl.minimum(first + rows_of_split, rows), tl.minimum(first_neuron + neurons_of_part, neurons)
    x += group * x_g
    base += group * rows * neurons
    factor += group * rows * neurons
    if DISTANT:
        end_neuron = tl.where(tl.load(distant) > 0, end_neuron, first_neuron)
    for begin in range(first_neuron, end_neuron, BJ):
        neuron = begin + tl.arange(0, BJ)
        components = packed + (group * neurons + tl.minimum(neuron, neurons - 1))[:, None] * padded
        m, r, c = _components(components, plane, k)
        later = tl.full((BR, BK), begin, tl.int64) > first_neuron
        w_sum = tl.zeros((BJ, BK), tl.float32)
        q_sum, s_sum = w_sum, w_sum
        row = first + tl.arange(0, BR)
        next_x, next_factor, next_base = _of_rows(
            x, factor, base, row, neuron, k, end, end_neuron, rows, neurons, inputs, x_r, x_k, DISTANT
        )
        for start in range(first, end, BR):
            value, g, b = next_x, next_factor, next_base
            row = start + tl.arange(0, BR)
            own = d_x + ((part * groups + group) * rows + row[:, None]) * inputs + k[None, :]
            of_x = (row < end)[:, None] & (k < inputs)[None, :]
            if X:  # asked for now, as it takes as long as the terms; so do the next rows
                before = tl.load(own, mask=of_x & (later | DISTANT), other=0.0)
            next_x, next_factor, next_base = _of_rows(
                x, factor, base, row + BR, neuron, k, end, end_neuron, rows, neurons, inputs, x_r, x_k, DISTANT
            )
            z, t = _terms(value, m, r, c)
            if DISTANT:
                t -= b[:, :, None]
            w = tl.exp2(t) * g[:, :, None]
            q = w * z
            w_sum += tl.sum(w, 0)
            q_sum += tl.sum(q, 0)
            s_sum += tl.sum(q * z, 0)
            if X:
                tl.store(own, before + tl.sum(q * r[None, :, :], 1) * (-2.0 * LN2), mask=of_x)
        at = ((split * groups + group) * neurons + neuron[:, None]) * inputs + k[None, :]
        inside = (neuron < end_neuron)[:, None] & (k < inputs)[None, :]
        if LOC:
            _put(d_loc + at, q_sum * r * (2.0 * LN2), inside, DISTANT)
        if SCALE:
            _put(d_scale + at, (s_sum * (2.0 * LN2) - w_sum) * (r * (1.0 / ROOT_HALF_LOG2E)), inside, DISTANT)
        if WEIGHTS:
            _put(d_weights + at, w_sum, inside, DISTANT)
        tl.debug_barrier()  # the next tile reads what this one wrote to d_x
