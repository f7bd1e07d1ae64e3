"""Equation (2) and its gradient on an NVIDIA GPU, as Pallas kernels for its Triton compiler; `for_jax` calls them.

The same scheme as in `ugmm_ppl.kernels.triton_kernels`, where it is explained: sums of 2^(t - peak) without a maximum,
the largest term for the tiles that need it, and one kernel that adds up all gradients. What is small,
O(B K + J K + B J), XLA does: packing, padding to whole tiles, the last sums.
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

from ugmm_ppl.kernels import gpu
from ugmm_ppl.kernels.gpu import FAR, HALF_LOG2_2PI, HUGE, LEAST, LN2, LOG2E, REACH, ROOT_HALF_LOG2E, SMALL

FILLS = (0.0, 1.0, -jnp.inf)
"""Impossible components: loc, r and c, to fill tiles."""

MULTIPROCESSORS = 132
"""Of an H100: calls are shared out to so many. JAX does not always tell."""


class _Call(NamedTuple):
    """One call as the kernels take it: leading axes along which a parameter varies as groups, the others as rows."""

    x: Array  # (groups, rows, K), float32, within reach
    components: tuple[Array, ...]  # loc, r and c - peak: (groups, J, K)
    peaks: Array  # (groups, J)
    order: tuple[int, ...]  # the leading axes, those of the groups first
    sizes: tuple[int, ...]  # their sizes in that order
    split: int  # how many of them are of the groups
    interpret: bool

    @property
    def shape(self) -> gpu.Shape:
        """Its sizes."""
        groups, rows, inputs = self.x.shape
        return gpu.Shape(groups, rows, self.peaks.shape[1], inputs)

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
    return call.back(_activations(call), rows=True).astype(arguments[0].dtype)


def _backward(interpret: bool, wanted: tuple[bool, ...], *arguments: Array) -> list[Array]:
    *inputs, out, upstream = arguments
    leading = jnp.broadcast_shapes(_leading(*inputs), upstream.shape[:-1], out.shape[:-1])
    found = [jnp.zeros_like(a) for a in inputs]
    if math.prod(leading) == 0 or not any(wanted):
        return found
    call = _arrange(leading, interpret, *inputs)
    # Activations that were stored in half precision are too coarse for shares.
    exact = _activations(call) if inputs[0].dtype.itemsize == 2 else call.arranged(out)
    base, factor = _anchors(call, exact, call.arranged(upstream))
    gradients = _gradients(call, base, factor, wanted)
    for i, like in enumerate(inputs):
        if wanted[i]:
            found[i] = _fitted(call.back(gradients.pop(0), rows=i == 0), like)
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
    components = loc, ROOT_HALF_LOG2E / scale, c
    return _Call(turned, components, peaks, order, tuple(leading[i] for i in order), len(groups), interpret)


def _padded(a: Array, steps: tuple[int, int], fill: float) -> Array:
    """Whole tiles along the last two axes."""
    missing = [(0, -size % step) for size, step in zip(a.shape[-2:], steps, strict=True)]
    return jnp.pad(a, ((0, 0), *missing), constant_values=fill)


def _fitted(gradient: Array, like: Array) -> Array:
    """Summed over the axes along which an argument was broadcast, in its dtype."""
    axes = tuple(i for i, size in enumerate(like.shape) if size == 1 and gradient.shape[i] > 1)
    return gradient.sum(axes, keepdims=True).astype(like.dtype)


# --------------------------------------------------------------------------------------------------------- the kernels


def _exp2(interpret: bool, t: Array) -> Array:
    """2^t in one instruction; `jnp.exp2` takes four, for results below the normal numbers."""
    if interpret:
        return jnp.exp2(t)
    return _instruction("ex2.approx.ftz.f32 $0, $1;", t)


def _terms(interpret: bool, x: Array, loc: Array, r: Array, c: Array) -> tuple[Array, Array]:
    """z and t - peak, (rows, neurons, k). XLA fuses no multiplication and addition in a Pallas kernel."""
    z = (x[:, None, :] - loc[None, :, :]) * r[None, :, :]
    c = jnp.broadcast_to(c[None, :, :], z.shape)
    if interpret:
        return z, c - z * z
    return z, _instruction("{ .reg .f32 n; neg.f32 n, $1; fma.rn.f32 $0, n, $1, $2; }", z, c)


def _instruction(code: str, *arguments: Array) -> Array:
    kind = jax.ShapeDtypeStruct(arguments[0].shape, jnp.float32)
    letters = ",".join("f" for _ in arguments)
    return plgpu.elementwise_inline_asm(
        code, args=arguments, constraints=f"=f,{letters}", pack=1, result_shape_dtypes=[kind]
    )[0]


def _exact(x_ref: Any, refs: Sequence[Any], needed: Array, tile: gpu.Tile, interpret: bool) -> tuple[Array, Array]:
    """Largest t - peak and sum of 2^(t - largest), (rows, neurons), if any is needed."""
    steps = needed.astype(jnp.float32).max(1).max(0).astype(jnp.int32) * (x_ref.shape[1] // tile.inputs)

    def terms(i: Array) -> Array:
        k = pl.ds(i * tile.inputs, tile.inputs)
        return _terms(interpret, x_ref[:, k], *(ref[:, k] for ref in refs))[1]

    none = jnp.full((tile.rows, tile.neurons, tile.inputs), -jnp.inf, jnp.float32)
    top = jax.lax.fori_loop(0, steps, lambda i, most: jnp.maximum(most, terms(i)), none).max(2)
    shift = jnp.where(top == -jnp.inf, 0.0, top)[:, :, None]
    sums = jax.lax.fori_loop(
        0, steps, lambda i, sums: sums + _exp2(interpret, terms(i) - shift), jnp.zeros(none.shape, jnp.float32)
    )
    return top, sums.sum(2)


def _activations(call: _Call) -> Array:
    """Activations (groups, rows, J)."""
    tile = gpu.filling(gpu.of_activations(call.shape), call.shape, MULTIPROCESSORS)

    def kernel(x_ref: Any, loc_ref: Any, r_ref: Any, c_ref: Any, peak_ref: Any, out_ref: Any) -> None:
        refs = loc_ref, r_ref, c_ref

        def step(i: Array, sums: Array) -> Array:
            k = pl.ds(i * tile.inputs, tile.inputs)
            _, t = _terms(call.interpret, x_ref[:, k], *(ref[:, k] for ref in refs))
            return sums + _exp2(call.interpret, t)

        start = jnp.zeros((tile.rows, tile.neurons, tile.inputs), jnp.float32)
        total = jax.lax.fori_loop(0, x_ref.shape[1] // tile.inputs, step, start).sum(2)
        peak = jnp.broadcast_to(peak_ref[...][None, :], total.shape)
        inexact = (total < SMALL) & (peak > -jnp.inf)
        top, exact = _exact(x_ref, refs, inexact, tile, call.interpret)
        a = peak * LN2 + jnp.where(inexact, top * LN2 + jnp.log(exact), jnp.log(total))
        out_ref[...] = jnp.where(peak == -jnp.inf, peak, a)

    return _of_pairs(call, tile, kernel, (), 1)[0]


def _anchors(call: _Call, out: Array, upstream: Array) -> list[Array]:
    """base and factor, (groups, rows, J), as `anchor` in `ugmm_ppl.kernels.triton_kernels` describes."""
    tile = gpu.filling(gpu.of_activations(call.shape), call.shape, MULTIPROCESSORS)

    def kernel(
        x_ref: Any, loc_ref: Any, r_ref: Any, c_ref: Any, peak_ref: Any, a_ref: Any, g_ref: Any, b_ref: Any, f_ref: Any
    ) -> None:
        a, g = a_ref[...] * LOG2E, g_ref[...]
        peak = jnp.broadcast_to(peak_ref[...][None, :], a.shape)
        impossible = a == -jnp.inf
        far = (jnp.abs(a) > FAR) & ~impossible
        top, total = _exact(x_ref, (loc_ref, r_ref, c_ref), far, tile, call.interpret)
        b = jnp.where(impossible, HUGE, jnp.where(far, top, a - peak))
        g = jnp.where(far, g / total, g)
        below = b < LEAST
        b_ref[...] = jnp.where(below, b, HUGE)
        f_ref[...] = jnp.where(impossible, 0.0, jnp.where(below, g, g * _exp2(call.interpret, -b)))

    return _of_pairs(call, tile, kernel, (out, upstream), 2)


def _of_pairs(call: _Call, tile: gpu.Tile, kernel: Callable[..., None], given: Sequence[Array], count: int) -> Any:
    """Run for every tile of rows and neurons, with all inputs; `count` results, (groups, rows, J)."""
    rows, neurons, width, _ = tile
    x = _padded(call.x, (rows, width), 0.0)
    components = (_padded(a, (neurons, width), fill) for a, fill in zip(call.components, FILLS, strict=True))
    peaks = _padded(call.peaks[..., None], (neurons, 1), -jnp.inf)[..., 0]
    given = [_padded(a, (rows, neurons), 0.0) for a in given]
    groups, all_rows, padded = x.shape
    all_neurons = peaks.shape[1]
    tiles = all_neurons // neurons, all_rows // rows
    at = _places(*tiles)
    of_rows = pl.BlockSpec((None, rows, padded), lambda i: (at(i)[2], at(i)[1], 0))
    of_neurons = pl.BlockSpec((None, neurons, padded), lambda i: (at(i)[2], at(i)[0], 0))
    of_peaks = pl.BlockSpec((None, neurons), lambda i: (at(i)[2], at(i)[0]))
    of_both = pl.BlockSpec((None, rows, neurons), lambda i: (at(i)[2], at(i)[1], at(i)[0]))
    found = pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct((groups, all_rows, all_neurons), jnp.float32)] * count,
        grid=(groups * math.prod(tiles),),
        in_specs=[of_rows, *[of_neurons] * 3, of_peaks, *[of_both] * len(given)],
        out_specs=[of_both] * count,
        compiler_params=plgpu.CompilerParams(num_warps=tile.warps),
        interpret=call.interpret,
    )(x, *components, peaks, *given)
    return [a[:, : call.shape.rows, : call.shape.neurons] for a in found]


def _gradients(call: _Call, base: Array, factor: Array, wanted: Sequence[bool]) -> list[Array]:
    """Gradients that are wanted, of x, (groups, rows, K), and of loc, scale and log_weights, (groups, J, K)."""
    shape = call.shape
    tile = gpu.of_gradients(shape)[0]
    width = tile.inputs
    parts = gpu.parts(shape, tile, MULTIPROCESSORS, tuple(wanted))
    x = _padded(call.x, (parts.rows, width), 0.0)
    components = (_padded(a, (parts.neurons, width), fill) for a, fill in zip(call.components, FILLS, strict=True))
    base, factor = (_padded(a, (parts.rows, parts.neurons), fill) for a, fill in ((base, HUGE), (factor, 0.0)))
    sizes = [(parts.of_neurons, *x.shape), *[(parts.of_rows, shape.groups, base.shape[2], x.shape[2])] * 3]
    places = _places(x.shape[2] // width, parts.of_neurons, parts.of_rows)

    def block(sizes: tuple[int | None, ...], *axes: int) -> pl.BlockSpec:
        """Of an array whose leading axes are of the given places: tile, part of the neurons, of the rows, group."""
        return pl.BlockSpec(sizes, lambda i: tuple(places(i)[axis] for axis in axes))

    of_x, of_both = block((None, parts.rows, width), 3, 2, 0), block((None, parts.rows, parts.neurons), 3, 2, 1)
    of_components = block((None, parts.neurons, width), 3, 1, 0)
    of_d_x, of_sums = (
        block((None, None, parts.rows, width), 1, 3, 2, 0),
        block((None, None, parts.neurons, width), 2, 3, 1, 0),
    )
    results = zip(sizes, (of_d_x, *[of_sums] * 3), (shape.rows, *[shape.neurons] * 3), wanted, strict=True)
    made = [(size, spec, length) for size, spec, length, want in results if want]

    def run(distant: bool, *arguments: Array) -> list[Array]:
        of_given = [of_x, *[of_components] * 3, of_both]
        if distant:  # the flag, the base, and the sums that are added to
            of_given += [pl.BlockSpec((1,), lambda i: (0,)), of_both, *(spec for _, spec, _ in made)]
        return pl.pallas_call(
            functools.partial(_sum_gradients, call.interpret, tile, parts, tuple(wanted), distant),
            out_shape=[jax.ShapeDtypeStruct(size, jnp.float32) for size, _, _ in made],
            grid=(shape.groups * (x.shape[2] // width) * parts.of_neurons * parts.of_rows,),
            in_specs=of_given,
            out_specs=[spec for _, spec, _ in made],
            input_output_aliases={len(of_given) - len(made) + i: i for i in range(len(made))} if distant else {},
            compiler_params=plgpu.CompilerParams(num_warps=tile.warps),
            interpret=call.interpret,
        )(*arguments)

    given = x, *components, factor
    found = run(False, *given)
    found = run(True, *given, (base < HUGE).any().astype(jnp.int32)[None], base, *found)
    return [a.sum(0)[:, :length, : shape.inputs] for a, (_, _, length) in zip(found, made, strict=True)]


def _sum_gradients(
    interpret: bool, tile: gpu.Tile, parts: gpu.Parts, wanted: tuple[bool, ...], distant: bool,
    x_ref: Any, loc_ref: Any, r_ref: Any, c_ref: Any, factor_ref: Any, *refs: Any,
) -> None:  # fmt: skip
    """Gradients as `gradients` in `ugmm_ppl.kernels.triton_kernels`."""
    rows, neurons, width, _ = tile
    last, all_neurons = parts.rows // rows - 1, parts.neurons // neurons
    flag_ref, base_ref = refs[:2] if distant else (None, None)
    if flag_ref is not None:
        all_neurons *= (flag_ref[0] > 0).astype(jnp.int32)
    outputs = iter(refs[-sum(wanted) :])
    d_x, d_loc, d_scale, d_weights = (next(outputs) if want else None for want in wanted)

    def put(ref: Any, here: Any, value: Array) -> None:
        if ref is not None:
            ref[here, :] = ref[here, :] + value if distant else value

    def of_neurons(j: Array, nothing: tuple[()]) -> tuple[()]:
        here = pl.ds(j * neurons, neurons)
        loc, r, c = loc_ref[here, :], r_ref[here, :], c_ref[here, :]

        def given(i: Array) -> tuple[Array, ...]:
            at = pl.ds(i * rows, rows)
            return x_ref[at, :], factor_ref[at, here], *(() if base_ref is None else (base_ref[at, here],))

        def of_rows(i: Array, carry: tuple[tuple[Array, ...], ...]) -> tuple[tuple[Array, ...], ...]:
            sums, (x, factor, *base) = carry
            at = pl.ds(i * rows, rows)
            # Asked for now, as it takes as long as the terms; so do the next rows.
            before, following = None if d_x is None else d_x[at, :], given(jnp.minimum(i + 1, last))
            z, t = _terms(interpret, x, loc, r, c)
            if base:
                t = t - base[0][:, :, None]
            w = _exp2(interpret, t) * factor[:, :, None]
            q = w * z
            if d_x is not None:
                first = False if distant else j == 0
                d_x[at, :] = jnp.where(first, 0.0, before) + (q * r[None, :, :]).sum(1) * (-2.0 * LN2)
            return tuple(total + part.sum(0) for total, part in zip(sums, (w, q, q * z), strict=False)), following

        none = (jnp.zeros((neurons, width), jnp.float32),) * (3 * any(wanted[1:]))
        sums, _ = jax.lax.fori_loop(0, last + 1, of_rows, (none, given(0)))
        if sums:
            put(d_loc, here, sums[1] * r * (2.0 * LN2))
            put(d_scale, here, (sums[2] * (2.0 * LN2) - sums[0]) * (r * (1.0 / ROOT_HALF_LOG2E)))
            put(d_weights, here, sums[0])
        if not interpret:
            plgpu.debug_barrier()  # the next tile reads what this one wrote to d_x
        return nothing

    jax.lax.fori_loop(0, all_neurons, of_neurons, ())


def _places(*tiles: int) -> Callable[[Any], tuple[Any, ...]]:
    """The number of a program as one number for each of some axes, the first fastest, and what is left."""

    def places(number: Any) -> tuple[Any, ...]:
        found = []
        for size in map(np.int32, tiles):  # as the number is, also where JAX's integers are of 64 bits
            found.append(jax.lax.rem(number, size))
            number = jax.lax.div(number, size)
        return (*found, number)

    return places
