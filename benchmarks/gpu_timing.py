"""Times on a CUDA device, for `gpu.py`: by device events in torch, by waiting for the last result in JAX."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

BURSTS = 15
BURST_SECONDS = 0.02
SLOW = 0.5
"""Seconds of a call that is timed twice only."""


class Deadline:
    """Tells when to begin nothing more."""

    def __init__(self, seconds: float) -> None:
        self._end = time.perf_counter() + seconds

    def passed(self) -> bool:
        """Whether it is time to end."""
        return time.perf_counter() > self._end


def spread(times: list[float]) -> dict[str, Any]:
    """Median, minimum and quartiles, ms, of times in seconds."""
    ms = sorted(1e3 * t for t in times)
    low, _, high = statistics.quantiles(ms, n=4)
    return {"ms": statistics.median(ms), "min_ms": ms[0], "quartiles_ms": [low, high], "bursts": len(ms)}


def burst(call: Callable[[], Any], count: int) -> float:
    """Seconds of a call on the device, launches included, of so many in a row."""
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    for _ in range(count):
        call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1e3 / count


def time_torch(call: Callable[[], Any]) -> dict[str, Any]:
    """A call's time on the device, of bursts long enough to be measured."""
    burst(call, 1)
    if (slow := burst(call, 1)) > SLOW:
        return spread([slow, burst(call, 1)])
    count = max(1, min(1000, int(BURST_SECONDS / burst(call, 5))))
    return spread([burst(call, count) for _ in range(BURSTS)])


def time_jax(call: Callable[[], Any]) -> dict[str, Any]:
    """A call's time, of bursts of calls that JAX hands over without waiting, up to the last result."""
    import jax

    jax.block_until_ready(call())
    start = time.perf_counter()
    jax.block_until_ready(call())
    count, times = max(1, min(1000, int(BURST_SECONDS / (time.perf_counter() - start)))), []
    for _ in range(BURSTS):
        start = time.perf_counter()
        for _ in range(count):
            last = call()
        jax.block_until_ready(last)
        times.append((time.perf_counter() - start) / count)
    return spread(times)


def in_graph(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call as a CUDA graph."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay
