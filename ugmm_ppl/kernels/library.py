"""The choice between kernels, and the shared library of the native one: finding it, and what it can do."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import importlib.util
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path

from ugmm_ppl import checks

KERNELS = ("auto", "native", "triton", "chunked", "reference")
VARIABLE = "UGMM_PPL_KERNEL"
NATIVE_DTYPES = ("float32", "float64")
TRITON_DTYPES = ("float32", "bfloat16", "float16")


@dataclasses.dataclass(frozen=True)
class Info:
    """What computes equation (2) in this process.

    Attributes:
        kernel: On the CPU: "native", "chunked" or "reference".
        reason: Why.
        library: Path of the shared library, None if there is none.
        instruction_set: What the native kernel uses: "avx512", "avx2" or "baseline"; None without it.
        openmp: Whether the native kernel was built with OpenMP, whose threads torch calls use.
        cuda: For torch on a CUDA device, float32 and half precision: "triton", "chunked" or "reference". No device is
            looked for.
    """

    kernel: str
    reason: str
    library: str | None = None
    instruction_set: str | None = None
    openmp: bool = False
    cuda: str = "chunked"


def info() -> Info:
    """Which kernel is in use on the CPU for float32 and float64, and why; and which on a CUDA device."""
    wanted = requested()
    source = f"{VARIABLE}={wanted}" if VARIABLE in os.environ else "the default, auto"
    library, problem = load()
    fixed = wanted in ("chunked", "reference")
    found: dict[str, str | bool | None] = {
        "cuda": wanted if fixed else "triton" if importlib.util.find_spec("triton") else "chunked"
    }
    if library is not None:
        found["library"], found["openmp"] = library._name, bool(library.ugmm_openmp())
        found["instruction_set"] = library.ugmm_instruction_set().decode()
    if fixed:
        return Info(wanted, source, **found)  # type: ignore[arg-type]
    if library is None:
        return Info("chunked", f"{source}: {problem}", **found)  # type: ignore[arg-type]
    return Info("native", f"{source}: the library is there", **found)  # type: ignore[arg-type]


def requested() -> str:
    """The value of `UGMM_PPL_KERNEL`.

    Raises:
        ValueError: None of the known ones.
    """
    return checks.choice(VARIABLE, os.environ.get(VARIABLE, "auto"), KERNELS)


def choose(device: str, dtype: str, broken: Callable[[], str] | None = None) -> str:
    """The kernel for arrays of a device ("cpu", "cuda") and dtype ("float32"): one of `KERNELS` but "auto".

    `broken` tells why the kernels for a GPU cannot run, empty if they can; None is for torch.

    Raises:
        RuntimeError: "native" or "triton" was asked for and cannot run; says why.
    """
    wanted = requested()
    if wanted in ("chunked", "reference"):
        return wanted
    if (device == "cuda" and wanted != "native") or (wanted == "triton" and interpreted()):
        return _triton(wanted, dtype, (broken or _triton_problem)())
    library, problem = load()
    if library is not None and device != "cpu":
        problem = f"it runs on the CPU only, and the arrays are on {device}"
    elif library is not None and dtype not in NATIVE_DTYPES:
        problem = f"it takes float32 and float64, and the arrays are {dtype}"
    if not problem:
        return "native"
    if wanted == "native":
        raise checks.no_kernel("native", problem)
    if library is None:
        _say_once(checks.slow_kernel(problem))
    return "chunked"


def _triton(wanted: str, dtype: str, broken: str) -> str:
    """`choose` on a CUDA device."""
    problem = broken or f"they take {', '.join(TRITON_DTYPES)}, and the arrays are {dtype}"
    if not broken and dtype in TRITON_DTYPES:
        return "triton"
    if wanted == "triton":
        raise checks.no_kernel("triton", problem)
    if broken:
        _say_once(checks.slow_gpu_kernel(broken))
    return "chunked"


def interpreted() -> bool:
    """Whether the kernels for a GPU run on the CPU, in the interpreters of Triton and of Pallas; for tests."""
    return os.environ.get("TRITON_INTERPRET") == "1" and requested() == "triton"


@functools.cache
def _triton_problem() -> str:
    """Why the Triton kernels cannot run; empty if they can."""
    if importlib.util.find_spec("triton") is None:
        return "the package triton is not installed"
    if interpreted():
        return ""
    from ugmm_ppl.kernels import triton_calls

    return triton_calls.problem()


@functools.cache
def load() -> tuple[ctypes.CDLL | None, str]:
    """(the library, "") or (None, why there is none)."""
    path = _find()
    if path is None:
        return None, "it was not built with this installation (no C++ compiler was found then)"
    try:
        library = ctypes.CDLL(str(path))
    except OSError as error:
        return None, f"{path} cannot be loaded: {error}"
    library.ugmm_instruction_set.restype = ctypes.c_char_p
    if library.ugmm_instruction_set() == b"none":
        return None, "this processor lacks SSE4.1"
    return library, ""


def _find() -> Path | None:
    """`_native.so` in one of the folders of this package: an editable installation has two."""
    candidates = (Path(folder) / "_native.so" for folder in sys.modules[__package__ or ""].__path__)
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _say_once(warning: str) -> None:
    warnings.warn(warning, RuntimeWarning, stacklevel=2)
