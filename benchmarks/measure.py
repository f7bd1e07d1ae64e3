"""What the speed benchmarks share: contenders timed in turn, and a description of the machine.

Times of one run are compared with each other, so a slow spell of the machine must hit all contenders alike: they take
turns in rounds. The minimum is what the code can do; the median tells how noisy the run was.
"""

from __future__ import annotations

import json
import os
import platform
import statistics
import time
from collections.abc import Callable, Mapping
from datetime import date
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
PACKAGES = ("ugmm-ppl", "numpy", "torch", "pyro-ppl", "jax", "jaxlib", "numpyro", "optax")


def in_rounds(
    calls: Mapping[str, Callable[[], Any]], *, rounds: int, seconds: float = 0.1, most: int = 50
) -> dict[str, dict[str, Any]]:
    """Time calls that take turns.

    Args:
        calls: Contenders by name; a call returns when its result is there.
        rounds: How often every contender has its turn.
        seconds: Length of a turn; a turn is at least one call.
        most: At most so many calls a turn.

    Returns:
        `summary` of the times by name. The first call of a turn, which finds the caches full of another contender's
        data, is left out where the turn has more.
    """
    times: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            turn: list[float] = []
            end = time.perf_counter() + seconds
            while not turn or (time.perf_counter() < end and len(turn) <= most):
                start = time.perf_counter()
                call()
                turn.append(time.perf_counter() - start)
            times[name] += turn[1:] or turn
    return {name: summary(found) for name, found in times.items()}


def summary(times: list[float]) -> dict[str, Any]:
    """Minimum, median (ms) and number of times given in seconds."""
    return {"ms": 1e3 * min(times), "median_ms": 1e3 * statistics.median(times), "count": len(times)}


class Others:
    """How much of the machine other processes used since this was made; Linux only."""

    def __init__(self) -> None:
        self._before = self._now()

    def cores(self) -> float | None:
        """Cores that others kept busy, on average: above 0.1 or so the times are not to be trusted."""
        if self._before is None or (now := self._now()) is None:
            return None
        seconds, busy, own = (b - a for a, b in zip(self._before, now, strict=True))
        return round((busy - own) / seconds, 2)

    @staticmethod
    def _now() -> tuple[float, float, float] | None:
        """(time, seconds the cores were busy, of which with this process and its finished children)."""
        stat = Path("/proc/stat")
        if not stat.is_file():
            return None
        user, nice, system, _idle, _wait, irq, soft_irq, steal, *_ = map(
            int, stat.read_text().split("\n")[0].split()[1:]
        )
        busy = (user + nice + system + irq + soft_irq + steal) / os.sysconf("SC_CLK_TCK")
        return time.perf_counter(), busy, sum(os.times()[:4])


def machine() -> dict[str, Any]:
    """Processor, cores, date, versions and what the native kernel uses."""
    from ugmm_ppl import kernels

    info = kernels.info()
    return {
        "date": str(date.today()),
        "cpu": _processor(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: found for package in PACKAGES if (found := _version(package))},
        "kernel": {"kernel": info.kernel, "instruction_set": info.instruction_set, "openmp": info.openmp},
    }


def write(name: str, content: Mapping[str, Any]) -> Path:
    """Write `results/NAME.json`."""
    RESULTS.mkdir(exist_ok=True)
    target = RESULTS / f"{name}.json"
    target.write_text(json.dumps(content, indent=1) + "\n")
    return target


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        fields = dict(line.split(":", 1) for line in cpuinfo.read_text().splitlines() if ":" in line)
        named = {key.strip(): value.strip() for key, value in fields.items()}
        if "model name" in named:
            number = f"family {named.get('cpu family')}, model {named.get('model')}"
            return f"{named['model name']} ({number})"
    return platform.processor() or platform.machine()


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
