"""The Pallas kernels beyond what all kernels have in common (`test_kernel.py`), in Pallas's interpreter on the CPU."""

import numpy as np
import pytest
from helpers import assert_relative
from kernel_cases import agree_with_oracle, assert_gradients, at_all_distances, close, draw, oracle, oracle_gradients
from tolerances import GRADIENT32, HALF16

jax = pytest.importorskip("jax", reason="jax is not installed here")
pytest.importorskip("numpyro", reason="numpyro is not installed here")
from jax.sharding import AbstractDevice, AbstractMesh, use_abstract_mesh  # noqa: E402

from ugmm_ppl.kernels import for_jax, gpu, pallas_kernels  # noqa: E402

pytestmark = pytest.mark.usefixtures("quick_compiler")


@pytest.fixture(autouse=True)
def interpreted(monkeypatch):
    """The kernels are in use, in the interpreter."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    monkeypatch.setenv("UGMM_PPL_KERNEL", "triton")


def run(arguments, upstream, dtype="float32"):
    """Activations and gradients of NumPy arguments."""

    @jax.jit
    def both(upstream, *arguments):
        out, vjp = jax.vjp(for_jax.activation, *arguments)
        return out, vjp(upstream)

    return both(*(jax.numpy.asarray(a, dtype) for a in (upstream, *arguments)))


@pytest.mark.parametrize(("shape", "multiprocessors", "parts"), [((32, 16, 64), 3, 4), ((35, 17, 65), 1, 1)])
def test_shapes_that_do_and_do_not_fill_the_tiles(monkeypatch, rng, shape, multiprocessors, parts):
    """Gradients in parts, with several tiles of neurons in one, as on a device with many multiprocessors."""
    tile = gpu.Tile(4, 4, 32, 2)
    monkeypatch.setattr(gpu, "OF_GRADIENTS", (tile,))
    monkeypatch.setattr(pallas_kernels, "MULTIPROCESSORS", multiprocessors)
    rows, neurons, inputs = shape
    found = gpu.parts(gpu.Shape(1, *shape), tile, multiprocessors, (True,) * 4)
    assert found.of_neurons * found.of_rows == parts
    assert found.neurons > tile.neurons
    arguments = draw(rng, (rows,), [()] * 3, neurons, inputs, "float32")
    agree_with_oracle(run, arguments, rng)


def test_some_gradients(rng):
    """Those that are not wanted are not computed."""
    arguments = [jax.numpy.asarray(a) for a in draw(rng, (5,), [()] * 3, 3, 8, "float32")]
    own = [arguments[0], *(a[None] for a in arguments[1:])]
    out = pallas_kernels.forward(*own, interpret=True)
    want = oracle_gradients([np.asarray(a) for a in arguments], np.ones((5, 3)))
    shapes = tuple(a.shape for a in own)
    for wanted in ((0,), (1, 3), (2,), (3,)):
        flags = tuple(i in wanted for i in range(4))
        found = pallas_kernels.backward(flags, shapes, *own, out, jax.numpy.ones((5, 3)), interpret=True)
        for i, one in enumerate(found):
            close(one.reshape(arguments[i].shape), want[i] if flags[i] else 0.0 * want[i], GRADIENT32)


def test_inputs_at_all_distances(rng):
    """Also where 2^(t - peak) leaves float32, for some rows and neurons of a tile."""
    agree_with_oracle(run, at_all_distances(rng), rng)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_half_precision_is_storage_only(rng, dtype):
    """Against the exact answer for the rounded arguments: only results are rounded, to 2^-8 (bfloat16) or 2^-11."""
    rounded = [np.asarray(jax.numpy.asarray(a, dtype), np.float64) for a in draw(rng, (9,), [()] * 3, 5, 40)]
    want, *_ = oracle(*rounded)
    upstream = np.asarray(jax.numpy.asarray(rng.normal(size=want.shape), dtype), np.float64)
    out, found = run(rounded, upstream, dtype)
    assert out.dtype == dtype
    unit = float(jax.numpy.finfo(dtype).eps)
    np.testing.assert_allclose(np.asarray(out, float), want.astype(float), rtol=unit)
    for one, other in zip(found, oracle_gradients(rounded, upstream), strict=True):
        assert one.dtype == dtype
        largest = float(np.abs(other).max())
        np.testing.assert_allclose(np.asarray(one, float), other.astype(float), rtol=unit, atol=GRADIENT32 * largest)


def test_transformations(rng):
    """vmap of gradients, also nested, and second derivatives."""
    x, loc, scale, log_weights = (jax.numpy.asarray(a) for a in draw(rng, (4,), [()] * 3, 2, 5, "float32"))

    def loss(x, loc):
        return (for_jax.activation(x, loc, scale, log_weights) ** 2).sum()

    found = jax.jit(jax.grad(loss, (0, 1)))(x, loc)
    each = jax.jit(jax.vmap(jax.vmap(jax.grad(loss, (0, 1)), (0, None)), (None, 0)))(
        x, jax.numpy.stack([loc, 2.0 * loc])
    )
    close(each[0][0], found[0], GRADIENT32)
    close(each[1][0].sum(0), found[1], GRADIENT32)
    hessian = jax.jit(jax.hessian(lambda loc: loss(x, loc)))(loc)
    by_reference = jax.hessian(lambda loc: (for_jax._reference(x, loc, scale, log_weights) ** 2).sum())(loc)
    close(hessian, by_reference, GRADIENT32)


@pytest.mark.filterwarnings("ignore:The Pallas Triton backend is deprecated")
@pytest.mark.parametrize("x64", [False, True])
def test_they_are_lowered_for_a_gpu(x64):
    """As far as that goes without one: to Triton's intermediate code; also where Python's numbers have 64 bits."""
    device = AbstractDevice(device_kind="NVIDIA H100", num_cores=132, platform="gpu")
    x, parameter = (jax.ShapeDtypeStruct(shape, "float32") for shape in ((128, 784), (1, 128, 784)))

    def both(*arguments):
        out = pallas_kernels.forward(*arguments)
        shapes = tuple(a.shape for a in arguments)
        return pallas_kernels.backward((True,) * 4, shapes, *arguments, out, out)

    with jax.enable_x64(x64), use_abstract_mesh(AbstractMesh((1,), ("device",), abstract_device=device)):
        lowered = jax.jit(both).trace(x, parameter, parameter, parameter).lower(lowering_platforms=("cuda",))
    assert lowered.as_text().count("custom_call") == 4


@pytest.mark.parametrize("on_gpu", ["triton", "chunked", "reference"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_a_process_with_a_gpu_computes_on_the_cpu_too(monkeypatch, rng, on_gpu, dtype):
    """There are branches for both; here, where the GPU is pretended, the one for the CPU is taken."""
    monkeypatch.delenv("TRITON_INTERPRET")
    monkeypatch.setenv("UGMM_PPL_KERNEL", "auto")
    monkeypatch.setattr(for_jax, "_on_gpu", lambda: True)
    monkeypatch.setattr(for_jax, "_pallas_problem", lambda: "")
    monkeypatch.setattr(for_jax, "ON_GPU", on_gpu)
    assert for_jax._choose(dtype).gpu == on_gpu
    assert for_jax._choose("float64").gpu == "chunked"
    arguments = draw(rng, (3,), [()] * 3, 2, 5, dtype)
    want, *_ = oracle(*arguments)
    upstream = np.ones(want.shape)
    out, found = run(arguments, upstream, dtype)
    tolerance = GRADIENT32 if dtype == "float32" else HALF16
    assert_relative(out, want, tolerance)
    assert_gradients(found, oracle_gradients(arguments, upstream), tolerance)
