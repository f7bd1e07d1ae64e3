"""Equation (2) and its gradient on an NVIDIA GPU, as Pallas kernels for its Triton compiler; `for_jax` calls them.

The same scheme as in `ugmm_ppl.kernels.triton_kernels`, where it is explained: sums of 2^(t - peak) without a maximum,
an online maximum for the tiles that need one, and two kernels that add up the gradients of parameters and inputs in
registers. What is small, O(B K + J K + B J), XLA does: packing, padding to whole tiles, the last sums.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plgpu

LN2 = math.log(2.0)
LOG2E = 1.0 / LN2
HALF_LOG2_2PI = 0.5 * math.log2(2.0 * math.pi)
ROOT_HALF_LOG2E = math.sqrt(0.5 * LOG2E)

HUGE = 3e38
"""In place of an activation of -inf, whose components all have no share: 2^(t - HUGE) is 0."""

REACH = 3.4e25
"""An input beyond it is beyond all components; held there, its squares still overflow and its gradient is 0."""

SMALL = 2.0**-60
"""Smallest sum of 2^(t - peak) that is exact: what float32 drops is then below 2^-66 K of it."""

FAR = 32.0
"""Of an activation in base 2: up to here its rounding is not felt in 2^(t - a)."""

ROWS, NEURONS, INPUTS = 8, 8, 64
"""What one program works on at a time, by a warp for every 32 inputs."""

SPLIT_STEPS = 4
"""Least steps of a part of a sum that is split."""

MULTIPROCESSORS = 132
"""Sums are split where the tiles are too few for so many; 132 is an H100. JAX does not always tell."""


class _Call(NamedTuple):
    """One call as the kernels take it: leading axes along which a parameter varies as groups, the others as rows."""

    x: Array  # (groups, rows, K), float32, within reach
    components: tuple[Array, ...]  # loc, r and c - peak: (groups, J, K)
    peaks: Array  # (groups, J)
    order: tuple[int, ...]  # the leading axes, those of the groups first
    sizes: tuple[int, ...]  # their sizes in that order
    split: int  # how many of them are of the groups
    inputs: int  # K without padding
    interpret: bool

    @property
    def tile(self) -> tuple[int, int, int]:
        """Rows, neurons and inputs of a tile."""
        rows, neurons = self.x.shape[1], self.peaks.shape[1]
        return min(ROWS, _power(rows)), min(NEURONS, _power(neurons)), min(INPUTS, _power(max(self.inputs, 16)))

    def arranged(self, a: Array) -> Array:
        """`(*leading, n)` as `(groups, rows, n)`, float32."""
        leading = tuple(self.sizes[self.order.index(i)] for i in range(len(self.order)))
        whole = jnp.broadcast_to(a, (*leading, a.shape[-1])).transpose(*self.order, len(self.order))
        groups, rows = math.prod(self.sizes[: self.split]), math.prod(self.sizes[self.split :])
        return whole.reshape(groups, rows, a.shape[-1]).astype(jnp.float32)

    def back(self, a: Array, rows: bool) -> Array:
        """`(groups, rows, ...)`, or `(groups, ...)` without rows, over all leading axes."""
        tail = a.shape[1 + rows :]
        sizes = (*self.sizes[: self.split], *(n if rows else 1 for n in self.sizes[self.split :]))
        axes = [self.order.index(i) for i in range(len(self.order))]
        return a.reshape(*sizes, *tail).transpose(*axes, *range(len(axes), len(axes) + len(tail)))


def forward(*arguments: Array, interpret: bool = False) -> Array:
    """Equation (2) of x `(..., K)` and parameters `(..., J, K)` with as many leading axes, of one dtype."""
    return _batching(functools.partial(_forward, interpret), whole=False)(*arguments)


def backward(
    wanted: tuple[bool, ...], shapes: tuple[tuple[int, ...], ...], *arguments: Array, interpret: bool = False
) -> list[Array]:
    """Gradients `shapes` of x, loc, scale and log_weights given them, the activations and the upstream gradient.

    One that is not wanted is zero.
    """
    *inputs, out, upstream = arguments
    whole = [jnp.broadcast_to(a, shape) for a, shape in zip(inputs, shapes, strict=True)]
    return _batching(functools.partial(_backward, interpret, wanted), whole=True)(*whole, out, upstream)


def _batching(function: Callable[..., Any], *, whole: bool) -> Callable[..., Any]:
    """`jax.vmap` adds a leading axis to all arguments; to a kernel it would add an axis of its grid.

    Where an argument has none, it is of size 1; or whole, so that each of the batch has its own gradient.
    """
    batched = jax.custom_batching.custom_vmap(function)

    @batched.def_vmap
    def rule(size: int, given: Sequence[bool], *arguments: Array) -> tuple[Any, Any]:
        own = (
            a if has else jnp.broadcast_to(a, (size if whole else 1, *a.shape))
            for a, has in zip(arguments, given, strict=True)
        )
        found = _batching(function, whole=whole)(*own)
        return found, jax.tree.map(lambda _: True, found)

    return batched


def _forward(interpret: bool, *arguments: Array) -> Array:
    leading = _leading(*arguments)
    neurons = arguments[1].shape[-2]
    if math.prod(leading) == 0:
        return jnp.zeros((*leading, neurons), arguments[0].dtype)
    call = _arrange(leading, interpret, *arguments)
    out = _activations(call)[:, : math.prod(call.sizes[call.split :]), :neurons]
    return call.back(out, rows=True).astype(arguments[0].dtype)


def _backward(interpret: bool, wanted: tuple[bool, ...], *arguments: Array) -> list[Array]:
    *inputs, out, upstream = arguments
    leading = jnp.broadcast_shapes(_leading(*inputs), upstream.shape[:-1], out.shape[:-1])
    found = [jnp.zeros_like(a) for a in inputs]
    if math.prod(leading) == 0 or not any(wanted):
        return found
    call = _arrange(leading, interpret, *inputs)
    always = inputs[0].dtype.itemsize == 2  # activations stored in half precision are too coarse for shares
    shares = _anchors(call, call.arranged(out), call.arranged(upstream), always)
    if wanted[0]:
        rows = math.prod(call.sizes[call.split :])
        gradient = _gradient_of_inputs(call, *shares)[:, :rows, : call.inputs]
        found[0] = _fitted(call.back(gradient, rows=True), inputs[0])
    if any(wanted[1:]):
        for i, gradient in enumerate(_gradients_of_parameters(call, *shares), start=1):
            if wanted[i]:
                own = gradient[:, : inputs[i].shape[-2], : call.inputs]
                found[i] = _fitted(call.back(own, rows=False), inputs[i])
    return found


def _leading(x: Array, *parameters: Array) -> tuple[int, ...]:
    return jnp.broadcast_shapes(x.shape[:-1], *(p.shape[:-2] for p in parameters))


def _arrange(leading: tuple[int, ...], interpret: bool, x: Array, *parameters: Array) -> _Call:
    depth, own = len(leading), parameters[0].shape[-2:]
    groups = [i for i in range(depth) if leading[i] > 1 and any(p.shape[i] > 1 for p in parameters)]
    rows = [i for i in range(depth) if i not in groups]
    order, count = (*groups, *rows), math.prod(leading[i] for i in groups)
    all_rows = math.prod(leading[i] for i in rows)
    turned = jnp.broadcast_to(x, (*leading, own[-1])).transpose(*order, depth).reshape(count, all_rows, own[-1])
    turned = jnp.clip(turned.astype(jnp.float32), -REACH, REACH)
    few = tuple(n if i in groups else 1 for i, n in enumerate(leading))
    loc, scale, log_weights = (
        jnp.broadcast_to(p, (*few, *own)).transpose(*order, depth, depth + 1).reshape(count, *own).astype(jnp.float32)
        for p in parameters
    )
    c = log_weights * LOG2E - jnp.log2(scale) - HALF_LOG2_2PI
    peaks = c.max(-1)
    c -= jnp.where(peaks == -jnp.inf, 0.0, peaks)[..., None]
    call = _Call(
        turned, (loc, ROOT_HALF_LOG2E / scale, c), peaks, order, tuple(leading[i] for i in order), len(groups), own[-1],
        interpret,
    )  # fmt: skip
    r, j, k = call.tile
    padded = (_padded(part, (j, k), fill) for part, fill in zip(call.components, (0.0, 1.0, -jnp.inf), strict=True))
    peaks = _padded(peaks[..., None], (j, 1), -jnp.inf)[..., 0]
    return call._replace(x=_padded(turned, (r, k), 0.0), components=tuple(padded), peaks=peaks)


def _padded(a: Array, steps: tuple[int, int], fill: float) -> Array:
    """Whole tiles along the last two axes."""
    missing = [(0, -size % step) for size, step in zip(a.shape[-2:], steps, strict=True)]
    return jnp.pad(a, ((0, 0), *missing), constant_values=fill)


def _fitted(gradient: Array, like: Array) -> Array:
    """Summed over the axes along which an argument was broadcast, in its dtype."""
    axes = tuple(i for i, size in enumerate(like.shape) if size == 1 and gradient.shape[i] > 1)
    return gradient.sum(axes, keepdims=True).astype(like.dtype)


# --------------------------------------------------------------------------------------------------------- the kernels


def _terms(x: Array, loc: Array, r: Array, c: Array) -> tuple[Array, Array]:
    """z and t - peak, (rows, neurons, k)."""
    z = (x[:, None, :] - loc[None, :, :]) * r[None, :, :]
    return z, c[None, :, :] - z * z


def _online(x_ref: Any, refs: Sequence[Any], needed: Array, tile: tuple[int, int, int]) -> tuple[Array, Array]:
    """Largest t - peak and sum of 2^(t - largest), (rows, neurons), if any is needed."""
    rows, neurons, width = tile

    def step(i: Array, carry: tuple[Array, Array]) -> tuple[Array, Array]:
        top, total = carry
        k = pl.ds(i * width, width)
        _, t = _terms(x_ref[:, k], *(ref[:, k] for ref in refs))
        new = jnp.maximum(top, t.max(2))
        shift = jnp.where(new == -jnp.inf, 0.0, new)
        return new, total * jnp.exp2(top - shift) + jnp.exp2(t - shift[:, :, None]).sum(2)

    start = jnp.full((rows, neurons), -jnp.inf, jnp.float32), jnp.zeros((rows, neurons), jnp.float32)
    steps = needed.astype(jnp.float32).max(1).max(0).astype(jnp.int32) * (x_ref.shape[1] // width)
    return jax.lax.fori_loop(0, steps, step, start)


def _activations(call: _Call) -> Array:
    """Activations (groups, rows, J), padded."""
    rows, neurons, width = call.tile
    groups, all_rows, padded = call.x.shape
    all_neurons = call.peaks.shape[1]

    def kernel(x_ref: Any, loc_ref: Any, r_ref: Any, c_ref: Any, peak_ref: Any, out_ref: Any) -> None:
        refs = loc_ref, r_ref, c_ref

        def step(i: Array, sums: Array) -> Array:
            k = pl.ds(i * width, width)
            return sums + jnp.exp2(_terms(x_ref[:, k], *(ref[:, k] for ref in refs))[1])

        start = jnp.zeros((rows, neurons, width), jnp.float32)
        total = jax.lax.fori_loop(0, padded // width, step, start).sum(2)
        peak = jnp.broadcast_to(peak_ref[...][None, :], (rows, neurons))
        inexact = (total < SMALL) & (peak > -jnp.inf)
        top, exact = _online(x_ref, refs, inexact, call.tile)
        a = peak * LN2 + jnp.where(inexact, top * LN2 + jnp.log(exact), jnp.log(total))
        out_ref[...] = jnp.where(peak == -jnp.inf, peak, a)

    grid = (groups * (all_rows // rows) * (all_neurons // neurons),)
    at = _places(all_neurons // neurons, all_rows // rows)
    x_spec = pl.BlockSpec((None, rows, padded), lambda i: (at(i)[2], at(i)[1], 0))
    of_neurons = pl.BlockSpec((None, neurons, padded), lambda i: (at(i)[2], at(i)[0], 0))
    return _run(
        call, kernel, grid, [x_spec, *[of_neurons] * 3, pl.BlockSpec((None, neurons), lambda i: (at(i)[2], at(i)[0]))],
        [(groups, all_rows, all_neurons)],
        [pl.BlockSpec((None, rows, neurons), lambda i: (at(i)[2], at(i)[1], at(i)[0]))],
    )(call.x, *call.components, call.peaks)[0]  # fmt: skip


def _anchors(call: _Call, out: Array, upstream: Array, always: bool) -> tuple[Array, Array]:
    """base and factor, (groups, rows, J) padded: shares times upstream gradients are factor 2^(t - peak - base)."""
    rows, neurons, _ = call.tile
    groups, all_rows, padded = call.x.shape
    all_neurons = call.peaks.shape[1]

    def kernel(
        x_ref: Any, loc_ref: Any, r_ref: Any, c_ref: Any, peak_ref: Any, a_ref: Any, g_ref: Any, b_ref: Any, f_ref: Any
    ) -> None:
        a, g = a_ref[...] * LOG2E, g_ref[...]
        peak = jnp.broadcast_to(peak_ref[...][None, :], (rows, neurons))
        far = peak > -jnp.inf if always else (jnp.abs(a) > FAR) & (a > -jnp.inf)
        top, total = _online(x_ref, (loc_ref, r_ref, c_ref), far, call.tile)
        impossible = (total == 0.0) | (peak == -jnp.inf) if always else a == -jnp.inf
        b_ref[...] = jnp.where(impossible, HUGE, jnp.where(far, top, a - peak))
        f_ref[...] = jnp.where(impossible, 0.0, g / jnp.where(far & (total != 0.0), total, 1.0))

    grid = (groups * (all_rows // rows) * (all_neurons // neurons),)
    at = _places(all_neurons // neurons, all_rows // rows)
    x_spec = pl.BlockSpec((None, rows, padded), lambda i: (at(i)[2], at(i)[1], 0))
    of_neurons = pl.BlockSpec((None, neurons, padded), lambda i: (at(i)[2], at(i)[0], 0))
    of_both = pl.BlockSpec((None, rows, neurons), lambda i: (at(i)[2], at(i)[1], at(i)[0]))
    peak_spec = pl.BlockSpec((None, neurons), lambda i: (at(i)[2], at(i)[0]))
    run = _run(
        call, kernel, grid, [x_spec, *[of_neurons] * 3, peak_spec, of_both, of_both],
        [(groups, all_rows, all_neurons)] * 2, [of_both] * 2,
    )  # fmt: skip
    given = (_padded(a, (rows, neurons), 0.0) for a in (out, upstream))
    base, factor = run(call.x, *call.components, call.peaks, *given)
    return base, factor


def _gradients_of_parameters(call: _Call, base: Array, factor: Array) -> list[Array]:
    """Gradients of loc, scale and log_weights, (groups, J, K) padded, by sums over rows."""
    rows, neurons, width = call.tile
    groups, all_rows, padded = call.x.shape
    all_neurons = call.peaks.shape[1]
    tiles = padded // width, all_neurons // neurons
    splits, each = _split(all_rows, rows, groups * math.prod(tiles), width)
    more = ((0, 0), (0, splits * each - all_rows), (0, 0))
    x, factor = jnp.pad(call.x, more), jnp.pad(factor, more)
    base = jnp.pad(base, more, constant_values=HUGE)

    def kernel(x_ref: Any, loc_ref: Any, r_ref: Any, c_ref: Any, b_ref: Any, f_ref: Any, *out: Any) -> None:
        loc, r, c = loc_ref[...], r_ref[...], c_ref[...]

        def step(i: Array, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            at = pl.ds(i * rows, rows)
            z, t = _terms(x_ref[at, :], loc, r, c)
            w = jnp.exp2(t - b_ref[at, :][:, :, None]) * f_ref[at, :][:, :, None]
            q = w * z
            return tuple(total + part.sum(0) for total, part in zip(sums, (w, q, q * z), strict=True))

        w, q, s = jax.lax.fori_loop(0, each // rows, step, (jnp.zeros((neurons, width), jnp.float32),) * 3)
        out[0][...] = q * r * (2.0 * LN2)
        out[1][...] = (s * (2.0 * LN2) - w) * (r * (1.0 / ROOT_HALF_LOG2E))
        out[2][...] = w

    at = _places(*tiles, splits)
    x_spec = pl.BlockSpec((None, each, width), lambda i: (at(i)[3], at(i)[2], at(i)[0]))
    of_neurons = pl.BlockSpec((None, neurons, width), lambda i: (at(i)[3], at(i)[1], at(i)[0]))
    of_both = pl.BlockSpec((None, each, neurons), lambda i: (at(i)[3], at(i)[2], at(i)[1]))
    found = _run(
        call, kernel, (groups * splits * math.prod(tiles),), [x_spec, *[of_neurons] * 3, of_both, of_both],
        [(splits, groups, all_neurons, padded)] * 3,
        [pl.BlockSpec((None, None, neurons, width), lambda i: (at(i)[2], at(i)[3], at(i)[1], at(i)[0]))] * 3,
    )(x, *call.components, base, factor)  # fmt: skip
    return [a.sum(0) for a in found]


def _gradient_of_inputs(call: _Call, base: Array, factor: Array) -> Array:
    """Gradient of x, (groups, rows, K) padded, by sums over neurons."""
    rows, neurons, width = call.tile
    groups, all_rows, padded = call.x.shape
    all_neurons = call.peaks.shape[1]
    tiles = padded // width, all_rows // rows
    splits, each = _split(all_neurons, neurons, groups * math.prod(tiles), width)
    more = splits * each - all_neurons
    fills = (0.0, 1.0, -jnp.inf)
    components = [
        jnp.pad(a, ((0, 0), (0, more), (0, 0)), constant_values=fill)
        for a, fill in zip(call.components, fills, strict=True)
    ]
    base = jnp.pad(base, ((0, 0), (0, 0), (0, more)), constant_values=HUGE)
    factor = jnp.pad(factor, ((0, 0), (0, 0), (0, more)))

    def kernel(x_ref: Any, loc_ref: Any, r_ref: Any, c_ref: Any, b_ref: Any, f_ref: Any, out_ref: Any) -> None:
        x = x_ref[...]

        def step(i: Array, total: Array) -> Array:
            at = pl.ds(i * neurons, neurons)
            r = r_ref[at, :]
            z, t = _terms(x, loc_ref[at, :], r, c_ref[at, :])
            w = jnp.exp2(t - b_ref[:, at][:, :, None]) * f_ref[:, at][:, :, None]
            return total + (w * z * r[None, :, :]).sum(1)

        total = jax.lax.fori_loop(0, each // neurons, step, jnp.zeros((rows, width), jnp.float32))
        out_ref[...] = total * (-2.0 * LN2)

    at = _places(*tiles, splits)
    x_spec = pl.BlockSpec((None, rows, width), lambda i: (at(i)[3], at(i)[1], at(i)[0]))
    of_neurons = pl.BlockSpec((None, each, width), lambda i: (at(i)[3], at(i)[2], at(i)[0]))
    of_both = pl.BlockSpec((None, rows, each), lambda i: (at(i)[3], at(i)[1], at(i)[2]))
    found = _run(
        call, kernel, (groups * splits * math.prod(tiles),), [x_spec, *[of_neurons] * 3, of_both, of_both],
        [(splits, groups, all_rows, padded)],
        [pl.BlockSpec((None, None, rows, width), lambda i: (at(i)[2], at(i)[3], at(i)[1], at(i)[0]))],
    )(call.x, *components, base, factor)  # fmt: skip
    return found[0].sum(0)


def _run(
    call: _Call, kernel: Callable[..., None], grid: tuple[int], in_specs: Any, shapes: Any, out_specs: Any
) -> Callable[..., list[Array]]:
    return pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in shapes],
        grid=grid,
        in_specs=in_specs,
        out_specs=out_specs,
        compiler_params=plgpu.CompilerParams(num_warps=max(1, call.tile[2] // 32), num_stages=2),
        interpret=call.interpret,
    )


def _places(*tiles: int) -> Callable[[Any], tuple[Any, ...]]:
    """The number of a program as one number for each of some axes, the first fastest, and what is left."""

    def places(number: Any) -> tuple[Any, ...]:
        found = []
        for size in map(np.int32, tiles):  # as the number is, also where JAX's integers are of 64 bits
            found.append(jax.lax.rem(number, size))
            number = jax.lax.div(number, size)
        return (*found, number)

    return places


def _split(size: int, step: int, tiles: int, width: int) -> tuple[int, int]:
    """Parts of a sum so that there are some 16 warps for every multiprocessor, and the length of a part."""
    wanted = pl.cdiv(16 * MULTIPROCESSORS // max(1, width // 32), tiles)
    most = max(1, size // (SPLIT_STEPS * step))
    each = pl.cdiv(pl.cdiv(size, min(wanted, most)), step) * step
    return pl.cdiv(size, each), each


def _power(n: int) -> int:
    return pl.next_power_of_2(n)
