"""Tiles of the kernels on a CUDA device, each timed on some shapes: the source of the tables of `kernels/gpu.py`.

    JAX_PLATFORMS=cuda,cpu XLA_PYTHON_CLIENT_PREALLOCATE=false python benchmarks/gpu_tiles.py [--name NAME]

Triton's `forward` and `gradients` alone, the smaller shapes as CUDA graphs, with all gradients and for some numbers of
warps that a multiprocessor is taken to have room for; JAX's whole backward pass on the largest shape. Every result is
compared with that of another tile. Tiles are compiled by several processes beforehand.
Writes benchmarks/results/gpu_tiles-NAME.json.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import math
import multiprocessing
import os
import time
from collections.abc import Callable, Iterator
from typing import Any
from unittest import mock

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")

import gpu as benchmark
import measure
import torch
from gpu_timing import burst, in_graph

from ugmm_ppl.kernels import gpu, triton_calls
from ugmm_ppl.kernels.gpu import Tile

ACTIVATIONS = [(8, 8, 32, 2), (8, 16, 32, 4), (16, 16, 32, 4), (8, 8, 64, 4), (8, 8, 32, 1), (16, 8, 32, 4)]
GRADIENTS = [
    (4, 16, 64, 2), (8, 8, 32, 1), (4, 16, 32, 1), (8, 8, 64, 2), (4, 32, 32, 2), (8, 16, 32, 2), (2, 32, 32, 2),
    (2, 16, 32, 1), (4, 8, 32, 1), (8, 32, 32, 4), (2, 32, 64, 4), (4, 16, 128, 4), (8, 8, 128, 4), (4, 64, 32, 4),
]  # fmt: skip
WARPS = (8, 12, 16)
SHAPES = ((4096, 1024, 1024), benchmark.DRAWS, (512, 128, 784), (128, 128, 784))
ALL = (True,) * 4
PROCESSES = 14


class Work:
    """The kernels on arrays of one shape, by a given tile."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        x, *parameters, upstream = (torch.from_numpy(a).cuda() for a in benchmark.arrays_of(shape))
        self.call = triton_calls._arrange(tuple(upstream.shape[:-1]), x, *parameters)
        self.packed = triton_calls._packed(self.call)
        self.out = x.new_empty(*self.call.shape[:3])
        self.activations(Tile(8, 8, 32, 1))
        self.shares = triton_calls._anchors(
            self.call, Tile(8, 8, 32, 1), *self.packed, self.out, self.call.arranged(upstream)
        )

    def activations(self, tile: Tile, warps: int = gpu.WARPS) -> list[torch.Tensor]:
        """`forward`."""
        del warps
        with mock.patch.object(gpu, "of_activations", lambda shape: (tile,)):
            return [triton_calls._activations(self.call, *self.packed, self.out)]

    def gradients(self, tile: Tile, warps: int = gpu.WARPS) -> list[torch.Tensor]:
        """`gradients`, and the sums over its parts."""
        with room(warps):
            return triton_calls._gradients(self.call, tile, self.packed[0], self.shares, ALL)


@contextlib.contextmanager
def room(warps: int) -> Iterator[None]:
    """Calls are shared out as if a multiprocessor had room for so many warps."""
    with mock.patch.object(gpu, "WARPS", warps):
        gpu.parts.cache_clear()
        try:
            yield
        finally:
            gpu.parts.cache_clear()


def compile_some(number: int) -> None:
    """A share of the tiles into the cache of Triton, with and without groups."""
    jobs = [("activations", t) for t in ACTIVATIONS] + [("gradients", t) for t in GRADIENTS]
    for shape in (SHAPES[-1], SHAPES[1]):
        work = Work(shape)
        for kind, tile in jobs[number::PROCESSES]:
            getattr(work, kind)(Tile(*tile))


def milliseconds(call: Callable[[], Any]) -> float:
    """Of a call on the device: the best of three bursts."""
    call()
    count = max(2, min(200, int(0.008 / burst(call, 2))))
    return 1e3 * min(burst(call, count) for _ in range(3))


def with_triton(rate: float) -> list[dict[str, Any]]:
    """All tiles and shapes."""
    rows = []
    for shape in SHAPES:
        work, limit = Work(shape), 1e3 * math.prod(shape) / rate
        for kind, tiles, choices in (("activations", ACTIVATIONS, (gpu.WARPS,)), ("gradients", GRADIENTS, WARPS)):
            run = getattr(work, kind)
            expected = [a.clone() for a in run(Tile(8, 16, 32, 2))]
            for tile in tiles:
                for warps in choices:
                    call = functools.partial(run, Tile(*tile), warps)
                    difference = max(
                        float((a - b).abs().max() / b.abs().max()) for a, b in zip(call(), expected, strict=True)
                    )
                    ms = milliseconds(call if math.prod(shape) > 2**30 else in_graph(call))
                    rows.append({
                        "shape": shape, "kernel": kind, "tile": tile, "room": warps, "ms": ms,
                        "of_limit": limit / ms, "difference": difference,
                    })  # fmt: skip
    return rows


def with_pallas(rate: float) -> list[dict[str, Any]]:
    """The backward pass from JAX."""
    import jax

    from ugmm_ppl.kernels import for_jax, pallas_kernels

    shape, device = SHAPES[0], jax.devices("cuda")[0]
    *arguments, upstream = (jax.device_put(a, device) for a in benchmark.arrays_of(shape))
    whole = for_jax._common(*arguments)
    shapes, rows, out = tuple(a.shape for a in whole), [], jax.jit(pallas_kernels.forward)(*whole)
    for tile in GRADIENTS:
        with mock.patch.object(gpu, "of_gradients", lambda shape, tile=tile: (Tile(*tile),)):
            run = jax.jit(functools.partial(pallas_kernels.backward, ALL, shapes)).lower(*whole, out, upstream)
        backward, times = run.compile(), []
        for _ in range(4):
            start = time.perf_counter()
            for _ in range(4):
                found = backward(*whole, out, upstream)
            jax.block_until_ready(found)
            times.append(1e3 * (time.perf_counter() - start) / 4)
        ms = min(times[1:])
        rows.append({"shape": shape, "tile": tile, "ms": ms, "of_limit": 1e3 * math.prod(shape) / rate / ms})
    return rows


def main() -> None:
    """Measure all, the fastest of each shape last on the screen."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help="of the results; default the device's")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu_tiles.py needs a CUDA device, and torch sees none here.")
    with multiprocessing.get_context("spawn").Pool(PROCESSES) as pool:
        pool.map(compile_some, range(PROCESSES))
    device = benchmark.device()
    content: dict[str, Any] = {"machine": measure.machine(), "device": device}
    name = f"gpu_tiles-{options.name or device['name'].lower().replace(' ', '-')}"
    content["triton"] = with_triton(device["exponentials_per_s"])
    measure.write(name, content)
    content["pallas"] = with_pallas(device["exponentials_per_s"])
    for row in sorted(content["triton"] + content["pallas"], key=lambda row: (str(row["shape"]), -row["of_limit"])):
        print(row)
    print(measure.write(name, content))


if __name__ == "__main__":
    main()
