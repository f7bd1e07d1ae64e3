"""The Triton kernels beyond what all kernels have in common (`test_kernel.py`), in Triton's interpreter on the CPU."""

import importlib
import subprocess
import sys

import numpy as np
import pytest
from helpers import assert_relative
from kernel_cases import (
    NO_TRITON,
    agree_with_oracle,
    assert_gradients,
    at_all_distances,
    close,
    draw,
    oracle,
    oracle_gradients,
)
from tolerances import GRADIENT32, ORACLE32

if NO_TRITON:
    pytest.skip(NO_TRITON, allow_module_level=True)
torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("pyro", reason="pyro is not installed here")
from ugmm_ppl.kernels import for_torch, gpu  # noqa: E402

pytestmark = pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")


@pytest.fixture
def kernels(monkeypatch):
    """The module of the kernels, interpreted and in use."""
    monkeypatch.setenv("TRITON_INTERPRET", "1")  # asked for when the module is first imported
    monkeypatch.setenv("UGMM_PPL_KERNEL", "triton")
    module = importlib.import_module("ugmm_ppl.kernels.triton_calls")
    if type(module.triton_kernels.forward).__name__ != "InterpretedFunction":
        pytest.skip("the kernels were compiled for the GPU in this process")
    with np.errstate(all="ignore"):  # the interpreter computes by NumPy, which warns of log2(0) = -inf
        yield module


def run(arguments, upstream, dtype=torch.float32):
    """Activations and gradients of NumPy arguments."""
    leaves = [torch.tensor(a, dtype=dtype).requires_grad_() for a in arguments]
    out = for_torch.activation(*leaves)
    found = torch.autograd.grad(out, leaves, torch.tensor(upstream, dtype=dtype))
    return out.detach(), found


@pytest.mark.parametrize("shape", [(8, 8, 64), (16, 8, 128), (9, 17, 65), (1, 1, 1), (33, 5, 130)])
def test_shapes_that_do_and_do_not_fill_the_tiles(kernels, rng, shape):
    rows, neurons, inputs = shape
    arguments = draw(rng, (rows,), [()] * 3, neurons, inputs, "float32")
    agree_with_oracle(run, arguments, rng)


@pytest.mark.parametrize(("kind", "number"), [("OF_ACTIVATIONS", 1), ("OF_ACTIVATIONS", 3), ("OF_GRADIENTS", 1)])
def test_other_tiles(kernels, monkeypatch, rng, kind, number):
    """They differ in the order of sums only."""
    monkeypatch.setattr(gpu, kind, getattr(gpu, kind)[number:])
    arguments = draw(rng, (18,), [()] * 3, 34, 70, "float32")
    agree_with_oracle(run, arguments, rng)


ALL, X_ALONE, PARAMETERS = (True,) * 4, (True, False, False, False), (False, True, True, True)


@pytest.mark.parametrize(
    ("multiprocessors", "wanted", "parts", "splits"),
    [(1, ALL, 1, 2), (4, ALL, 3, 2), (1, X_ALONE, 1, 2), (4, PARAMETERS, 3, 2)],
)
def test_gradients_in_parts(kernels, monkeypatch, rng, multiprocessors, wanted, parts, splits):
    """Of neurons and rows, as on devices with one or more multiprocessors; with one, a part has three tiles."""
    tile = gpu.Tile(4, 8, 32, 2)
    monkeypatch.setattr(gpu, "OF_GRADIENTS", (tile,))
    monkeypatch.setattr(kernels, "_multiprocessors", lambda device: multiprocessors)
    found = gpu.parts(gpu.Shape(1, 34, 18, 40), tile, multiprocessors, wanted)
    assert (found.of_neurons, found.of_rows) == (parts, splits)
    arguments = draw(rng, (34,), [()] * 3, 18, 40, "float32")
    upstream = rng.normal(size=(34, 18)).astype(np.float32)
    leaves = [torch.tensor(a).requires_grad_(want) for a, want in zip(arguments, wanted, strict=True)]
    inputs = [leaf for leaf in leaves if leaf.requires_grad]
    found = torch.autograd.grad(for_torch.activation(*leaves), inputs, torch.tensor(upstream))
    want = [a for a, given in zip(oracle_gradients(arguments, upstream), wanted, strict=True) if given]
    for one, other in zip(found, want, strict=True):
        close(one, other, GRADIENT32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_storage_only(kernels, rng, dtype):
    """Against the exact answer for the rounded arguments: only results are rounded, to 2^-8 (bfloat16) or 2^-11."""
    arguments = [torch.tensor(a).to(dtype).double().numpy() for a in draw(rng, (9,), [()] * 3, 5, 40)]
    want, *_ = oracle(*arguments)
    upstream = torch.tensor(rng.normal(size=want.shape)).to(dtype).double().numpy()
    out, found = run(arguments, upstream, dtype)
    assert out.dtype == dtype
    assert all(gradient.dtype == dtype for gradient in found)
    unit = torch.finfo(dtype).eps
    np.testing.assert_allclose(out.double(), want.astype(float), rtol=unit)
    for one, other in zip(found, oracle_gradients(arguments, upstream), strict=True):
        np.testing.assert_allclose(
            one.double(), other.astype(float), rtol=unit, atol=GRADIENT32 * float(np.abs(other).max())
        )


def test_an_input_far_from_all_components(kernels, rng):
    """Sums that vanish beside the largest possible term are found again by their maximum."""
    x, loc, scale, log_weights = draw(rng, (10,), [()] * 3, 9, 70, "float32")
    x[3], scale[2] = 40.0, 1e-3
    log_weights[4, 1:] = -np.inf
    arguments = [x, loc, scale, log_weights]
    want, *_ = oracle(*arguments)
    assert want.min() < -1e4
    upstream = rng.normal(size=want.shape).astype(np.float32)
    out, found = run(arguments, upstream)
    assert_relative(out, want, ORACLE32)
    assert all(torch.isfinite(gradient).all() for gradient in found)
    np.testing.assert_allclose(found[3].sum(-1), upstream.sum(0), rtol=GRADIENT32, atol=GRADIENT32)


def test_inputs_at_all_distances(kernels, rng):
    """Also where 2^(t - peak) leaves float32, for some rows and neurons of a tile."""
    agree_with_oracle(run, at_all_distances(rng), rng)


@pytest.mark.parametrize("layout", ["turned", "every second", "repeated", "beginning later"])
def test_tensors_of_any_layout(kernels, rng, layout):
    """The same numbers as with contiguous ones, and gradients of the shapes of the views."""
    views = {
        "turned": lambda t: t.mT.contiguous().mT,
        "every second": lambda t: t.repeat_interleave(2, -1)[..., ::2],
        "repeated": lambda t: t[:1].expand(t.shape),
        "beginning later": lambda t: torch.cat([t[:1], t])[1:],
    }
    arguments = [views[layout](torch.as_tensor(a)) for a in draw(rng, (6,), [()] * 3, 6, 21, "float32")]
    results = []
    for given in (arguments, [a.clone(memory_format=torch.contiguous_format) for a in arguments]):
        leaves = [a.detach().requires_grad_() for a in given]  # the same storage and strides
        out = for_torch.activation(*leaves)
        results.append([out.detach(), *torch.autograd.grad(out.square().sum(), leaves)])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=0.0, atol=0.0)


def test_some_gradients(kernels, rng):
    """Those that are not wanted are not computed."""
    arguments = draw(rng, (5,), [()] * 3, 3, 8, "float32")
    want = oracle_gradients(arguments, np.ones((5, 3)))
    for wanted in ((0,), (1, 3), (2,), (3,)):
        leaves = [torch.tensor(a).requires_grad_(i in wanted) for i, a in enumerate(arguments)]
        found = torch.autograd.grad(for_torch.activation(*leaves).sum(), [leaves[i] for i in wanted])
        for i, one in zip(wanted, found, strict=True):
            close(one, want[i], GRADIENT32)


def test_transformations(kernels, rng):
    """vmap of gradients, second derivatives, fake tensors and compilation, by the same operator as on the CPU."""
    arguments = [torch.tensor(a) for a in draw(rng, (4,), [()] * 3, 2, 5, "float32")]
    x, loc, scale, log_weights = arguments

    def loss(row, loc):
        return for_torch.activation(row, loc, scale, log_weights).square().sum()

    each = torch.func.vmap(torch.func.grad(loss, (0, 1)), (0, None))(x, loc)
    whole = torch.func.grad(lambda x, loc: for_torch.activation(x, loc, scale, log_weights).square().sum(), (0, 1))
    found = whole(x, loc)
    close(each[0], found[0], GRADIENT32)
    close(each[1].sum(0), found[1], GRADIENT32)
    hessian = torch.func.hessian(lambda loc: loss(x, loc))(loc)
    by_reference = torch.func.hessian(lambda loc: for_torch._reference(x, loc, scale, log_weights).square().sum())(loc)
    close(hessian, by_reference, GRADIENT32)
    leaves = [a.requires_grad_() for a in arguments]
    torch.library.opcheck(torch.ops.ugmm_ppl.activation, leaves, test_utils=("test_schema", "test_faketensor"))
    compiled = torch.compile(lambda *a: 2.0 * for_torch.activation(*a), fullgraph=True, backend="aot_eager")
    out = compiled(*leaves)
    plain = [a.detach().numpy() for a in leaves]
    close(out.detach(), 2.0 * oracle(*plain)[0], ORACLE32)
    assert_gradients(
        torch.autograd.grad(out.sum(), leaves), oracle_gradients(plain, 2.0 * np.ones(out.shape)), GRADIENT32
    )


COMPILE = """
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile
from ugmm_ppl.kernels import gpu
from ugmm_ppl.kernels import triton_kernels as kernels

POINTERS = {"x", "loc", "scale", "log_weights", "out", "upstream"}
BUFFERS = {"packed", "peaks", "base", "factor", "distant", "d_loc", "d_scale", "d_weights", "d_x"}
def of(tile, **options):
    return {"BR": tile.rows, "BJ": tile.neurons, "BK": tile.inputs} | options, tile.warps


FIRST, PARAMETERS = gpu.OF_GRADIENTS[0], {"LOC": True, "SCALE": True, "WEIGHTS": True}
CASES = [("pack", {"BK": 128}, 4), ("forward", *of(gpu.OF_ACTIVATIONS[0])), ("anchor", *of(gpu.OF_ACTIVATIONS[1]))]
CASES += [("gradients", *of(FIRST, X=x, DISTANT=not x, **PARAMETERS)) for x in (True, False)]
CASES.append(("gradients", *of(FIRST, X=True, LOC=False, SCALE=False, WEIGHTS=False, DISTANT=True)))
for name, constants, warps in CASES:
    kernel = getattr(kernels, name)
    types = {n: "*bf16" if n in POINTERS else "*fp32" if n in BUFFERS else "i32" for n in kernel.arg_names}
    types |= {n: "constexpr" for n in constants}
    source = ASTSource(kernel, types, {(kernel.arg_names.index(n),): value for n, value in constants.items()})
    options = {"num_warps": warps, "enable_fp_fusion": True}
    print(name, len(compile(source, target=GPUTarget("cuda", 90, 32), options=options).asm["cubin"]) > 0)
"""


@pytest.mark.long
def test_they_compile_for_a_gpu(tmp_path, monkeypatch):
    """To machine code for compute capability 9.0, which needs no GPU; in a process without the interpreter."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    monkeypatch.setenv("PYTHONPATH", ":".join(p for p in sys.path if p))
    result = subprocess.run([sys.executable, "-c", COMPILE], capture_output=True, text=True, check=False)
    names = ("pack", "forward", "anchor", *["gradients"] * 3)
    assert result.stdout.splitlines() == [f"{name} True" for name in names], result.stderr[-3000:]
