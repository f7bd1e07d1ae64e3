"""NumPy arrays to torch tensors of this thread's dtype and device, and back; random tensors and their seed."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ugmm_ppl.checks.basic import native


class _Chosen(threading.local):
    """What each thread has chosen."""

    dtype: torch.dtype | None = None


_CHOSEN = _Chosen()


@contextlib.contextmanager
def chosen_dtype(dtype: torch.dtype) -> Iterator[None]:
    """The dtype of the floats that this thread makes inside. Torch's own default is that of all threads."""
    before, _CHOSEN.dtype = _CHOSEN.dtype, dtype
    try:
        yield
    finally:
        _CHOSEN.dtype = before


def default_dtype() -> torch.dtype:
    """The dtype that this thread has chosen, or torch's default."""
    return _CHOSEN.dtype or torch.get_default_dtype()


def to_tensor(a: np.ndarray) -> Tensor:
    """A tensor of its own; floats take the default dtype."""
    kind = default_dtype() if a.dtype.kind == "f" else None
    return torch.as_tensor(np.array(native(a)), dtype=kind, device=torch.get_default_device())


def tensors(given: Any) -> Any:
    """An array, or a dict of such, as tensors."""
    return {name: tensors(a) for name, a in given.items()} if isinstance(given, dict) else to_tensor(given)


def to_numpy(a: Tensor) -> np.ndarray:
    """A view where that is possible."""
    return a.detach().cpu().numpy()


def own_generator() -> torch.Generator:
    """A source of random numbers on the default device, of its own: other threads may go on with torch's."""
    return torch.Generator(torch.get_default_device())


def normals(shapes: Mapping[str, tuple[int, ...]], generator: torch.Generator | None = None) -> dict[str, Tensor]:
    """Standard normal numbers of the given shapes."""
    kind = default_dtype()
    return {name: torch.randn(shape, generator=generator, dtype=kind) for name, shape in shapes.items()}


def runs_plainly() -> bool:
    """Whether operators run as they are: no mode, transform or compiler sees them."""
    return not (
        torch.compiler.is_compiling()
        or torch._C._len_torch_dispatch_stack()
        or torch._C._functorch.get_interpreter_stack()
    )


def seed_torch(seed: int) -> None:
    """As `torch.manual_seed`, which formats a stack trace for every kind of device that is not in use: 1 ms a call."""
    torch.default_generator.manual_seed(seed)
    if torch.get_default_device().type == "cuda":
        torch.cuda.manual_seed_all(seed)


def kept_random_state() -> AbstractContextManager[None]:
    """Context that leaves torch's random state, on the CPU and the default device, as it was."""
    device = torch.get_default_device()
    return torch.random.fork_rng([device.index or 0] if device.type == "cuda" else [])
