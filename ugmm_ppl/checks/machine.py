"""What this machine lacks: a library, a device, a kernel."""

import importlib
from collections.abc import Sequence
from typing import Any


class MissingExtraError(ImportError):
    """A library that an optional part needs is not installed."""


def no_device(name: str | int, available: list[str]) -> ValueError:
    """The error for a device that is not there."""
    mend = "" if len(available) > 1 else " For a GPU, install the build of torch or JAX for it."
    return ValueError(f"device must be one of those present, {', '.join(map(repr, available))}; got {name!r}.{mend}")


def fit_of_another_device(name: str) -> str:
    """The words of the warning that a fit is loaded where its device is not."""
    return f"the fit was made on {name!r}, which is not here: it predicts on the CPU. load(path, device=...) chooses."


def no_kernel(name: str, problem: str) -> RuntimeError:
    """UGMM_PPL_KERNEL=native or triton, and it cannot run."""
    return RuntimeError(
        f"UGMM_PPL_KERNEL={name} asks for the {name} kernel, which cannot run: {problem}. "
        "Mend that, or set UGMM_PPL_KERNEL=auto."
    )


def slow_kernel(problem: str) -> str:
    """The words of the warning that the native kernel is not there."""
    return (
        f"the native kernel is not used: {problem}. A slower one in pure Python takes its place. To build it, install "
        "a C++ compiler (GCC or Clang), then ugmm-ppl again; UGMM_PPL_KERNEL=chunked turns this warning off."
    )


def slow_gpu_kernel(problem: str) -> str:
    """The words of the warning that the Triton kernels do not run on a CUDA device."""
    return (
        f"the Triton kernels are not used on this GPU: {problem}. A slower one takes their place. Triton comes with "
        "torch for CUDA, and needs a C compiler; UGMM_PPL_KERNEL=chunked turns this warning off."
    )


def out_of_memory(kernel: str, leading: tuple[int, ...], own: tuple[int, int]) -> MemoryError:
    """The error for a call of a kernel that needs more memory than there is."""
    return MemoryError(f"{kernel} ran out of memory for a call of leading shape {leading} with {own} components.")


def old_arviz(found: str, oldest: tuple[int, int]) -> ImportError:
    """The error for an ArviZ that is too old."""
    return ImportError(
        f"ArviZ {oldest[0]}.{oldest[1]} or newer is needed; got {found}. "
        'Upgrade it with: pip install --upgrade "ugmm-ppl[arviz]"'
    )


def require(module: str, extra: str, needs: Sequence[str] = ()) -> Any:
    """Import a module of an optional part.

    Args:
        module: Module to import.
        extra: The extra that brings it.
        needs: Top-level packages whose absence means that the extra is missing; by default the module's own.

    Raises:
        MissingExtraError: One of them is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        missing = (error.name or "").split(".")[0]
        if missing not in (needs or (module.split(".", maxsplit=1)[0],)):
            raise
        raise MissingExtraError(
            f"{extra} needs the package {missing}, which is not installed. "
            f'Install it with: pip install "ugmm-ppl[{extra}]"'
        ) from error
