"""Which kernel computes equation (2), what says so, and what is refused before any kernel runs."""

import ctypes
import types
from pathlib import Path

import numpy as np
import pytest
from helpers import assert_relative, refused
from kernel_cases import draw, needs_native, oracle
from tolerances import ORACLE32

from ugmm_ppl import kernels
from ugmm_ppl.kernels import gpu, library


@pytest.fixture
def missing(monkeypatch):
    """An installation without the shared library."""
    monkeypatch.setattr(library, "_find", lambda: None)
    forget()
    yield
    monkeypatch.undo()
    forget()


def forget():
    """As in a new process."""
    library.load.cache_clear()
    library._say_once.cache_clear()


def activation(backend, rng):
    """A small call, with the oracle's answer."""
    arguments = draw(rng, (5,), [()] * 3, 3, 8, "float32")
    return backend.ops.activation(*(backend.array(a) for a in arguments)), oracle(*arguments)[0]


@needs_native
@pytest.mark.parametrize("wanted", [None, "auto", "native", "chunked", "reference"])
def test_info(monkeypatch, wanted):
    monkeypatch.delenv("UGMM_PPL_KERNEL", raising=False)
    if wanted is not None:
        monkeypatch.setenv("UGMM_PPL_KERNEL", wanted)
    info = kernels.info()
    assert info.kernel == ("native" if wanted in (None, "auto") else wanted)
    assert ("default" if wanted is None else f"UGMM_PPL_KERNEL={wanted}") in info.reason
    assert Path(info.library).is_file()
    assert info.instruction_set in ("baseline", "avx2", "avx512")
    assert isinstance(info.openmp, bool)
    monkeypatch.setattr(library.importlib.util, "find_spec", lambda name: None)
    assert kernels.info().cuda == (wanted if wanted == "reference" else "chunked")


def test_info_without_the_library(missing, monkeypatch):
    monkeypatch.setenv("UGMM_PPL_KERNEL", "auto")
    info = kernels.info()
    assert (info.kernel, info.library, info.instruction_set) == ("chunked", None, None)
    assert "not built with this installation" in info.reason


def test_an_unknown_kernel_is_refused_with_the_nearest_name(backend, monkeypatch, rng):
    monkeypatch.setenv("UGMM_PPL_KERNEL", "nativ")
    for ask in (kernels.info, lambda: activation(backend, rng)):
        with refused(
            ValueError, "UGMM_PPL_KERNEL must be one of", "'chunked'", "got 'nativ'", "Did you mean 'native'?"
        ):
            ask()


def test_native_without_the_library_is_refused(backend, missing, monkeypatch, rng):
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")
    with refused(RuntimeError, "UGMM_PPL_KERNEL=native", "cannot run", "no C++ compiler", "UGMM_PPL_KERNEL=auto"):
        activation(backend, rng)


def test_auto_without_the_library_warns_once_and_computes(backend, missing, monkeypatch, rng):
    monkeypatch.setenv("UGMM_PPL_KERNEL", "auto")
    with pytest.warns(RuntimeWarning, match="native kernel is not used.*install a C\\+\\+ compiler") as caught:
        got, want = activation(backend, rng)
    assert len(caught) == 1
    assert_relative(got, want, ORACLE32)
    activation(backend, rng)  # a second warning would be an error


def test_the_warning_can_be_turned_off(backend, missing, monkeypatch, rng):
    monkeypatch.setenv("UGMM_PPL_KERNEL", "chunked")
    assert_relative(*activation(backend, rng), ORACLE32)


def test_a_broken_library_says_why(missing, monkeypatch, tmp_path):
    broken = tmp_path / "_native.so"
    broken.write_text("no library")
    monkeypatch.setattr(library, "_find", lambda: broken)
    assert library.load()[0] is None
    assert f"{broken} cannot be loaded" in kernels.info().reason


def test_an_old_processor_has_no_native_kernel(missing, monkeypatch, tmp_path):
    old = types.SimpleNamespace(ugmm_instruction_set=lambda: b"none")
    monkeypatch.setattr(library, "_find", lambda: tmp_path)
    monkeypatch.setattr(ctypes, "CDLL", lambda path: old)
    assert library.load() == (None, "this processor lacks SSE4.1")


@needs_native
@pytest.mark.parametrize(
    ("device", "dtype", "problem"),
    [("cuda", "float64", "runs on the CPU only, and the arrays are on cuda"), ("cpu", "float16", "arrays are float16")],
)
def test_what_native_cannot_do_is_done_in_chunks_or_refused(monkeypatch, device, dtype, problem):
    monkeypatch.setattr(library, "_triton_problem", lambda: "")
    monkeypatch.setenv("UGMM_PPL_KERNEL", "auto")
    assert library.choose(device, dtype) == "chunked"
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")
    with refused(RuntimeError, "UGMM_PPL_KERNEL=native", problem):
        library.choose(device, dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_triton_on_a_gpu(monkeypatch, dtype):
    """On the CPU, asking for Triton is asking for what is best there."""
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(library, "_triton_problem", lambda: "")
    for wanted in ("auto", "triton"):
        monkeypatch.setenv("UGMM_PPL_KERNEL", wanted)
        assert library.choose("cuda", dtype) == "triton"
        assert library.choose("cpu", "float64") == ("native" if library.load()[0] else "chunked")
    with refused(RuntimeError, "UGMM_PPL_KERNEL=triton", "take float32, bfloat16, float16", "are float64"):
        library.choose("cuda", "float64")
    monkeypatch.setenv("UGMM_PPL_KERNEL", "auto")
    assert library.choose("cuda", "float64") == "chunked"


def test_triton_that_cannot_run(monkeypatch):
    """An error where it was asked for; one warning, and chunks, where it was not."""
    monkeypatch.setattr(library, "_triton_problem", lambda: "the package triton is not installed")
    library._say_once.cache_clear()
    monkeypatch.setenv("UGMM_PPL_KERNEL", "triton")
    with refused(RuntimeError, "UGMM_PPL_KERNEL=triton", "cannot run", "triton is not installed"):
        library.choose("cuda", "float32")
    monkeypatch.setenv("UGMM_PPL_KERNEL", "auto")
    with pytest.warns(RuntimeWarning, match="Triton kernels are not used on this GPU: the package triton"):
        assert library.choose("cuda", "float32") == "chunked"
    assert library.choose("cuda", "float32") == "chunked"  # a second warning would be an error


H100 = 132


@pytest.mark.parametrize(
    ("shape", "tile"),
    [
        ((1, 4096, 1024, 1024), gpu.OF_ACTIVATIONS[0]),
        ((32, 256, 128, 784), gpu.OF_ACTIVATIONS[0]),
        ((1, 512, 128, 784), gpu.OF_ACTIVATIONS[0]),
        ((1, 128, 128, 784), gpu.OF_ACTIVATIONS[-1]),
        ((1, 5, 3, 10), (8, 4, 16, 1)),
    ],
)
def test_tiles_for_a_gpu(shape, tile):
    """The largest of which there are enough for all multiprocessors, and none larger than the call."""
    shape = gpu.Shape(*shape)
    assert gpu.filling(gpu.of_activations(shape), shape, H100) == tile


@pytest.mark.parametrize("wanted", [(True,) * 4, (True, False, False, False), (False, True, True, True)])
@pytest.mark.parametrize("shape", [(1, 4096, 1024, 1024), (32, 256, 128, 784), (1, 100, 70, 33), (1, 1, 1, 1)])
def test_parts_of_gradients_on_a_gpu(shape, wanted):
    """They are whole tiles, cover the call once, fill the device, and no gradient that is not wanted costs copies."""
    shape = gpu.Shape(*shape)
    tile = gpu.of_gradients(shape)[0]
    parts = gpu.parts(shape, tile, H100, wanted)
    for size, step, count, length in (
        (shape.neurons, tile.neurons, parts.of_neurons, parts.neurons),
        (shape.rows, tile.rows, parts.of_rows, parts.rows),
    ):
        assert length % step == 0
        assert (count - 1) * length < size <= count * length
    room = gpu.WARPS * H100 // tile.warps
    programs = shape.groups * gpu.ceil(shape.inputs, tile.inputs) * parts.of_neurons * parts.of_rows
    if shape.rows == 4096:  # all multiprocessors at once
        assert 0.9 * room <= programs <= room
        assert wanted[0] or parts.of_rows == 1  # neurons can be split for nothing
        assert any(wanted[1:]) or parts.of_neurons == 1


SHAPES = {  # of x, loc, scale and log_weights
    "no inputs axis": ([(), (3, 4), (3, 4), (3, 4)], ("x must have shape (..., K)", "got x ()")),
    "one neuron without its axis": ([(4,), (4,), (4,), (4,)], ("scale must have shape (..., J, K)", "scale (4,)")),
    "other numbers of neurons": ([(5, 4), (3, 4), (2, 4), (3, 4)], ("must agree in (J, K)", "scale (2, 4)")),
    "other numbers of components": ([(5, 4), (3, 4), (3, 4), (3, 6)], ("must agree in (J, K)", "log_weights (3, 6)")),
    "other numbers of inputs": ([(5, 7), (3, 4), (3, 4), (3, 4)], ("x must have 4 inputs", "got x (5, 7)")),
    "no inputs": ([(5, 0), (3, 0), (3, 0), (3, 0)], ("at least one input, K >= 1", "got x (5, 0)")),
    "other draws": ([(5, 4), (2, 3, 4), (2, 3, 4), (2, 3, 4)], ("leading axes", "must broadcast", "loc (2, 3, 4)")),
}


@pytest.mark.parametrize("case", SHAPES)
def test_wrong_shapes_are_refused(backend, case):
    shapes, parts = SHAPES[case]
    with refused(ValueError, *parts):
        backend.ops.activation(*(backend.array(np.ones(shape)) for shape in shapes))


@pytest.mark.parametrize("dtype", ["int32", "bool", "complex64"])
def test_numbers_that_are_not_real_floats_are_refused(backend, dtype):
    arrays = [backend.array(np.ones(shape, dtype)) for shape in ((5, 4), (3, 4), (3, 4), (3, 4))]
    with refused(TypeError, "activation needs floating-point arrays", "got", dtype):
        backend.ops.activation(*arrays)
