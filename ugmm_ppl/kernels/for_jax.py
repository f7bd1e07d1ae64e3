"""Equation (2) on JAX arrays by the fastest kernel: dispatch, the native kernel by `jax.ffi`, Pallas on a GPU, chunks.

Three primitives, which are compiled to the kernel of the platform where the computation runs: the activations, their
tangent, and their gradients. Forward mode takes the tangent, by the reference formula; it is linear in the tangents,
and its transpose, which reverse mode runs, are the gradients. Second derivatives go through the reference formula.
A program that `jax.export` makes runs where the kernels may not be, and is given the formula in chunks.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax import Array, export
from jax.extend.core import Primitive
from jax.interpreters import ad, batching, mlir

from ugmm_ppl import budgets, checks, neuron
from ugmm_ppl.kernels import library
from ugmm_ppl.ops.jax import OPS
from ugmm_ppl.ops.jax_arrays import symbolic

ON_GPU = "triton"
"""What `auto` takes on a GPU: "triton" (`ugmm_ppl.kernels.pallas_kernels`), "chunked", or "reference", which leaves the
formula to XLA's own fusion."""


class _Kernels(NamedTuple):
    """The kernel on the CPU, and the one on a GPU; none where this process sees no GPU."""

    cpu: str
    gpu: str | None


def activation(x: Array, loc: Array | float, scale: Array, log_weights: Array) -> Array:
    """Equation (2): arguments, result and errors as `neuron.activation`; shapes `(..., K)` and `(..., J, K)`."""
    arguments = _common(x, loc, scale, log_weights)
    kernels = _choose(str(arguments[0].dtype))
    if kernels.cpu == "reference":
        return _reference(*arguments)
    if (kernels.cpu == "chunked" and kernels.gpu in (None, "chunked")) or symbolic(*arguments):
        return _chunked(*arguments)
    return activation_p.bind(*arguments, kernels=kernels)


def _choose(dtype: str) -> _Kernels:
    cpu = library.choose("cpu", dtype, lambda: "")
    if cpu == "triton" or library.requested() == "native" or not _on_gpu():
        return _Kernels(cpu, None)
    gpu = library.choose("cuda", dtype, _pallas_problem)
    return _Kernels(cpu, ON_GPU if gpu == "triton" and library.requested() == "auto" else gpu)


@functools.cache
def _on_gpu() -> bool:
    """Whether this process computes on NVIDIA GPUs too; without them the kernels for them are not even traced."""
    try:
        return bool(jax.devices("cuda"))
    except RuntimeError:  # JAX's way of saying that there is none
        return False


@functools.cache
def _pallas_problem() -> str:
    """Why the kernels do not run on a GPU; empty if they do. Finds out by compiling them."""
    shapes = (1, 2), *[(1, 1, 2)] * 3

    def both(*arguments: Array) -> Any:
        out = _pallas().forward(*arguments)
        return _pallas().backward((True,) * 4, shapes, *arguments, out, out)

    try:
        with jax.default_device(jax.devices("cuda")[0]):
            jax.jit(both).lower(*(jax.ShapeDtypeStruct(shape, "float32") for shape in shapes)).compile()
    except Exception as error:  # whatever Pallas, its compiler and the driver may raise
        return f"Pallas's Triton compiler fails with {type(error).__name__}: {error}"
    return ""


def _common(x: Array, loc: Array | float, scale: Array, log_weights: Array) -> tuple[Array, ...]:
    """The arguments as arrays of one dtype and with as many leading axes, the parameters of one `(J, K)`.

    An x of one input, `(..., 1)`, which all components share, stays as it is.
    """
    loc = jnp.full(jnp.shape(scale)[-2:], loc) if isinstance(loc, float) else loc
    checks.activation_shapes(*(jnp.shape(a) for a in (x, loc, scale, log_weights)))
    dtype = jnp.result_type(x, loc, scale, log_weights)
    checks.floating("activation", str(dtype), jnp.issubdtype(dtype, jnp.floating))
    x, *parameters = (jnp.asarray(a, dtype) for a in (x, loc, scale, log_weights))
    own = jnp.broadcast_shapes(*(p.shape[-2:] for p in parameters), (1, x.shape[-1]))
    depth = max(x.ndim - 1, *(p.ndim - 2 for p in parameters))

    def shaped(a: Array, tail: tuple[int, ...]) -> Array:
        leading = a.shape[: a.ndim - len(tail)]
        return jnp.broadcast_to(a, (*leading, *tail)).reshape(*[1] * (depth - len(leading)), *leading, *tail)

    return _equally_varying(shaped(x, x.shape[-1:]), *(shaped(p, own) for p in parameters))


def _equally_varying(*arrays: Array) -> tuple[Array, ...]:
    """Inside `shard_map`, mark every array as varying over the mesh axes over which any of them does."""
    axes = frozenset().union(*(_manual(a).varying for a in arrays))
    return tuple(
        jax.lax.pcast(a, tuple(missing), to="varying") if (missing := axes - _manual(a).varying) else a for a in arrays
    )


def _manual(a: Array) -> Any:
    """How an array varies over the mesh axes of a surrounding `shard_map`."""
    return jax.typeof(a).manual_axis_type


def _result(shape: tuple[int, ...], like: Array) -> jax.ShapeDtypeStruct:
    """What a native call gives back: like its arguments, it may live inside a `shard_map`."""
    sharding = jax.sharding.NamedSharding(jax.typeof(like).sharding.mesh, jax.P(*[None] * len(shape)))
    return jax.ShapeDtypeStruct(shape, like.dtype, sharding=sharding, manual_axis_type=_manual(like))


def _reference(*arguments: Array) -> Array:
    dtype = arguments[0].dtype
    if dtype.itemsize == 2:  # half precision cannot hold the squares, so it is left until the end
        return neuron.activation(OPS, *(a.astype("float32") for a in arguments)).astype(dtype)
    return neuron.activation(OPS, *arguments)


def _chunked(*arguments: Array) -> Array:
    """A few rows at a time; what the backward pass needs is computed again there."""
    on_cpu, elsewhere = (functools.partial(_in_chunks, size) for size in budgets.COMPILED_CHUNK.values())
    return jax.lax.platform_dependent(*arguments, cpu=on_cpu, default=elsewhere)


@functools.partial(jax.jit, static_argnums=0)  # so that it is compiled once outside `jax.jit` too
def _in_chunks(size: int, x: Array, loc: Array, scale: Array, log_weights: Array) -> Array:
    parameters = (loc, scale, log_weights)
    if x.ndim < 2 or symbolic(*parameters) or any(p.shape[-3] > 1 for p in parameters):
        return _reference(x, *parameters)
    rows = max(1, size // max(1, *(p.size for p in parameters)))
    if not export.is_symbolic_dim(x.shape[-2]) and x.shape[-2] <= rows:
        return _reference(x, *parameters)
    count = -(-x.shape[-2] // rows)
    padding = [(0, 0)] * (x.ndim - 2) + [(0, count * rows - x.shape[-2]), (0, 0)]
    chunks = jnp.pad(x, padding).reshape(*x.shape[:-2], count, rows, x.shape[-1])
    part = jax.checkpoint(lambda chunk: _reference(chunk, *parameters))
    found = jnp.moveaxis(jax.lax.map(part, jnp.moveaxis(chunks, -3, 0)), 0, -3)
    return found.reshape(*found.shape[:-3], count * rows, found.shape[-1])[..., : x.shape[-2], :]


# ------------------------------------------------------------------------------------------------ the fused kernels


@functools.cache
def _register() -> None:
    native = library.load()[0]
    for name in ("forward", "backward"):
        handler = jax.ffi.pycapsule(getattr(native, f"ugmm_xla_{name}"))
        jax.ffi.register_ffi_target(f"ugmm_ppl_{name}", handler, platform="cpu")


def _portable(ctx: mlir.LoweringRuleContext) -> bool:
    """Whether what is compiled is for any process, in which `ugmm_ppl` may not be."""
    return bool(ctx.module_context.lowering_parameters.for_export)


def _fused(*arguments: Array, kernels: _Kernels) -> Array:
    """The kernel of the platform where the computation runs, chunks where there is none."""
    if kernels.cpu == "triton":
        return _pallas().forward(*arguments, interpret=True)
    rules: dict[str, Any] = {"cpu": _forward} if kernels.cpu == "native" else {}
    if kernels.gpu in ("triton", "reference"):
        rules["cuda"] = _pallas().forward if kernels.gpu == "triton" else _reference
    return jax.lax.platform_dependent(*arguments, **rules, default=_chunked)


def _pallas() -> Any:
    from ugmm_ppl.kernels import pallas_kernels  # which takes as long to import as JAX itself

    return pallas_kernels


def _forward(x: Array, loc: Array, scale: Array, log_weights: Array) -> Array:
    _register()
    leading = jnp.broadcast_shapes(x.shape[:-1], *(p.shape[:-2] for p in (loc, scale, log_weights)))
    call = jax.ffi.ffi_call("ugmm_ppl_forward", _result((*leading, scale.shape[-2]), x), vmap_method="expand_dims")
    return call(x, loc, scale, log_weights)


def _activation_abstract(x: Any, *parameters: Any, kernels: _Kernels) -> Any:
    del kernels
    leading = jnp.broadcast_shapes(x.shape[:-1], *(p.shape[:-2] for p in parameters))
    return _like(x, (*leading, parameters[0].shape[-2]))


def _like(aval: Any, shape: tuple[int, ...]) -> Any:
    """The kind of array that a kernel gives back: like its arguments, but not split over a mesh."""
    sharding = aval.sharding.update(spec=jax.P(*[None] * len(shape)))
    return aval.update(shape=shape, sharding=sharding, weak_type=False)


def _activation_lowering(ctx: mlir.LoweringRuleContext, *operands: Any, kernels: _Kernels) -> Any:
    function = _chunked if _portable(ctx) else functools.partial(_fused, kernels=kernels)
    return mlir.lower_fun(function, multiple_results=False)(ctx, *operands)


def _activation_jvp(primals: Sequence[Array], tangents: Sequence[Any], *, kernels: _Kernels) -> tuple[Array, Array]:
    out = activation_p.bind(*primals, kernels=kernels)
    inputs = primals[1].shape[-1]  # K, also of an x that all components share
    moved = [ad.instantiate_zeros(t) for t in tangents]
    x, x_tangent = (jnp.broadcast_to(a, (*a.shape[:-1], inputs)) for a in (primals[0], moved[0]))
    return out, tangent_p.bind(x, *primals[1:], out, x_tangent, *moved[1:])


def _activation_batch(arguments: Sequence[Array], dims: Sequence[Any], *, kernels: _Kernels) -> tuple[Array, int]:
    size, moved = _leading_axis(arguments, dims)
    del size
    return activation_p.bind(*moved, kernels=kernels), 0


def _gradients(
    *arguments: Array, kernels: _Kernels, wanted: tuple[bool, ...], shapes: tuple[tuple[int, ...], ...]
) -> list[Array]:
    """Gradients `shapes` of x, loc, scale, log_weights given them, the activations and the upstream gradient."""
    upstream = arguments[-1]
    reference = functools.partial(_gradients_of_reference, wanted, shapes)

    def native(*arguments: Array) -> list[Array]:
        _register()
        results = [_result(shape if want else (0,), upstream) for shape, want in zip(shapes, wanted, strict=True)]
        call = jax.ffi.ffi_call("ugmm_ppl_backward", results, vmap_method="expand_dims")
        found = call(*arguments)
        return [f if w else jnp.broadcast_to(f.sum(), s) for f, w, s in zip(found, wanted, shapes, strict=True)]

    if kernels.cpu == "triton":
        return _pallas().backward(wanted, shapes, *arguments, interpret=True)
    rules: dict[str, Any] = {"cpu": native} if kernels.cpu == "native" else {}
    if kernels.gpu in ("triton", "reference"):
        by_xla = functools.partial(_gradients_of_reference, wanted, shapes, function=_reference)
        by_pallas = functools.partial(_pallas().backward, wanted, shapes)
        rules["cuda"] = by_pallas if kernels.gpu == "triton" else by_xla
    return jax.lax.platform_dependent(*arguments, **rules, default=reference)


def _gradients_of_reference(
    wanted: tuple[bool, ...], shapes: tuple[tuple[int, ...], ...], *arguments: Array, function: Any = None
) -> list[Array]:
    *inputs, _, upstream = arguments
    whole = [jnp.broadcast_to(a, shape) for a, shape in zip(inputs, shapes, strict=True)]
    out, transposed = jax.vjp(function or _chunked, *whole)
    found = transposed(jnp.broadcast_to(upstream, out.shape))  # `jax.vmap` may have batched all but this one
    return [f if want else jnp.zeros_like(f) for f, want in zip(found, wanted, strict=True)]


def _gradients_abstract(*arguments: Any, kernels: _Kernels, wanted: Any, shapes: Any) -> list[Any]:
    del kernels, wanted
    return [_like(arguments[-1], shape) for shape in shapes]


def _gradients_lowering(ctx: mlir.LoweringRuleContext, *operands: Any, kernels: _Kernels, **which: Any) -> Any:
    if _portable(ctx):
        function = functools.partial(_gradients_of_reference, which["wanted"], which["shapes"])
    else:
        function = functools.partial(_gradients, kernels=kernels, **which)
    return mlir.lower_fun(function, multiple_results=True)(ctx, *operands)


def _gradients_jvp(
    primals: Sequence[Array], tangents: Sequence[Any], *, kernels: _Kernels, wanted: Any, shapes: Any
) -> tuple[list[Array], list[Array]]:
    reference = functools.partial(_gradients_of_reference, wanted, shapes)
    found = gradients_p.bind(*primals, kernels=kernels, wanted=wanted, shapes=shapes)
    return found, jax.jvp(reference, tuple(primals), tuple(map(ad.instantiate_zeros, tangents)))[1]


def _gradients_batch(
    arguments: Sequence[Array], dims: Sequence[Any], *, kernels: _Kernels, wanted: Any, shapes: Any
) -> tuple[list[Array], list[int]]:
    size, moved = _leading_axis(arguments, dims)
    shapes = tuple((size, *shape) for shape in shapes)
    return gradients_p.bind(*moved, kernels=kernels, wanted=wanted, shapes=shapes), [0] * len(shapes)


def _tangent_of_reference(*arguments: Array) -> Array:
    primals, _, tangents = arguments[:4], arguments[4], arguments[5:]
    whole = tuple(jnp.broadcast_to(p, t.shape) for p, t in zip(primals, tangents, strict=True))
    return jax.jvp(_reference, whole, tangents)[1]


def _transpose(upstream: Any, *arguments: Any) -> list[Any]:
    linear = arguments[5:]
    wanted = tuple(ad.is_undefined_primal(t) for t in linear)
    if type(upstream) is ad.Zero:
        return [None] * 5 + [ad.Zero(t.aval) if want else None for t, want in zip(linear, wanted, strict=True)]
    shapes = tuple(tuple(t.aval.shape) if want else tuple(t.shape) for t, want in zip(linear, wanted, strict=True))
    kernels = _choose(str(upstream.dtype))
    found = gradients_p.bind(*arguments[:5], upstream, kernels=kernels, wanted=wanted, shapes=shapes)
    return [None] * 5 + [f if want else None for f, want in zip(found, wanted, strict=True)]


def _leading_axis(arguments: Sequence[Array], dims: Sequence[Any]) -> tuple[int, list[Array]]:
    """The size of a batch, and the arguments with it as their first axis; of size 1 where there was none."""
    size = next(a.shape[d] for a, d in zip(arguments, dims, strict=True) if d is not None)
    return size, [
        jnp.expand_dims(a, 0) if d is None else jnp.moveaxis(a, d, 0) for a, d in zip(arguments, dims, strict=True)
    ]


def _batch(arguments: Sequence[Array], dims: Sequence[Any]) -> tuple[Array, int]:
    size, moved = _leading_axis(arguments, dims)
    out = tangent_p.bind(*moved)
    return jnp.broadcast_to(out, (size, *out.shape[1:])), 0


def _abstract(*arguments: Any) -> Any:
    leading = jnp.broadcast_shapes(
        *(arguments[i].shape[:-1] for i in (0, 4, 5)), *(arguments[i].shape[:-2] for i in (1, 2, 3, 6, 7, 8))
    )
    return arguments[4].update(shape=(*leading, arguments[4].shape[-1]))


activation_p = Primitive("ugmm_activation")
"""(x, loc, scale, log_weights) -> activations."""
activation_p.def_impl(jax.jit(_fused, static_argnames="kernels"))
activation_p.def_abstract_eval(_activation_abstract)
ad.primitive_jvps[activation_p] = _activation_jvp
batching.primitive_batchers[activation_p] = _activation_batch
mlir.register_lowering(activation_p, _activation_lowering)

gradients_p = Primitive("ugmm_activation_gradients")
"""(x, loc, scale, log_weights, activations, upstream gradient) -> gradients of the first four."""
gradients_p.multiple_results = True
gradients_p.def_impl(jax.jit(_gradients, static_argnames=("kernels", "wanted", "shapes")))
gradients_p.def_abstract_eval(_gradients_abstract)
ad.primitive_jvps[gradients_p] = _gradients_jvp
batching.primitive_batchers[gradients_p] = _gradients_batch
mlir.register_lowering(gradients_p, _gradients_lowering)

tangent_p = Primitive("ugmm_activation_tangent")
"""(x, loc, scale, log_weights, activations, four tangents) -> tangent of the activations."""
tangent_p.def_impl(jax.jit(_tangent_of_reference))
tangent_p.def_abstract_eval(_abstract)
ad.primitive_transposes[tangent_p] = _transpose
ad.primitive_jvps[tangent_p] = lambda primals, tangents: jax.jvp(
    _tangent_of_reference, tuple(primals), tuple(map(ad.instantiate_zeros, tangents))
)
batching.primitive_batchers[tangent_p] = _batch
mlir.register_lowering(tangent_p, mlir.lower_fun(_tangent_of_reference, multiple_results=False))
