"""The shared library of the native kernel: finding it, what it can do, and the choice between kernels."""

from __future__ import annotations

import ctypes
import dataclasses
import functools
import os
import warnings
from pathlib import Path

from ugmm_ppl import checks

KERNELS = ("auto", "native", "chunked", "reference")
VARIABLE = "UGMM_PPL_KERNEL"
NATIVE_DTYPES = ("float32", "float64")


@dataclasses.dataclass(frozen=True)
class Info:
    """What computes equation (2) in this process, on the CPU.

    Attributes:
        kernel: "native", "chunked" or "reference".
        reason: Why.
        library: Path of the shared library, None if there is none.
        instruction_set: What the native kernel uses: "avx512", "avx2" or "baseline"; None without it.
        openmp: Whether the native kernel was built with OpenMP, whose threads torch calls use.
    """

    kernel: str
    reason: str
    library: str | None = None
    instruction_set: str | None = None
    openmp: bool = False


def info() -> Info:
    """Which kernel is in use on the CPU for float32 and float64, and why."""
    wanted = requested()
    source = f"{VARIABLE}={wanted}" if VARIABLE in os.environ else "the default, auto"
    library, problem = load()
    found: dict[str, str | bool | None] = (
        {}
        if library is None
        else {
            "library": library._name,
            "instruction_set": library.ugmm_instruction_set().decode(),
            "openmp": bool(library.ugmm_openmp()),
        }
    )
    if wanted in ("chunked", "reference"):
        return Info(wanted, source, **found)  # type: ignore[arg-type]
    if library is None:
        return Info("chunked", f"{source}: {problem}")
    return Info("native", f"{source}: the library is there", **found)  # type: ignore[arg-type]


def requested() -> str:
    """The value of `UGMM_PPL_KERNEL`.

    Raises:
        ValueError: None of the known ones.
    """
    return checks.choice(VARIABLE, os.environ.get(VARIABLE, "auto"), KERNELS)


def choose(device: str, dtype: str) -> str:
    """The kernel for arrays of a device ("cpu", "cuda") and dtype ("float32"): "native", "chunked" or "reference".

    Raises:
        RuntimeError: "native" was asked for and cannot run; says why.
    """
    wanted = requested()
    if wanted in ("chunked", "reference"):
        return wanted
    library, problem = load()
    if library is not None and device != "cpu":
        problem = f"it runs on the CPU only, and the arrays are on {device}"
    elif library is not None and dtype not in NATIVE_DTYPES:
        problem = f"it takes float32 and float64, and the arrays are {dtype}"
    if not problem:
        return "native"
    if wanted == "native":
        raise checks.no_kernel(problem)
    if library is None:
        _say_once(problem)
    return "chunked"


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
    import ugmm_ppl.kernels

    candidates = (Path(folder) / "_native.so" for folder in ugmm_ppl.kernels.__path__)
    return next((path for path in candidates if path.is_file()), None)


@functools.cache
def _say_once(problem: str) -> None:
    warnings.warn(checks.slow_kernel(problem), RuntimeWarning, stacklevel=2)
