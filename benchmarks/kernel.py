"""Speed and memory of equation (2), forward and with the gradients of x, loc, scale and log_weights, in float32.

    python benchmarks/kernel.py [--quick]

Contenders: the fused kernel from torch and from JAX, the chunked fallback, the broadcast formula in torch, in
torch.compile and in jit JAX, and as floors `nn.Linear` + ReLU of the same sizes and the machine's limit: B J K
exponentials out of the L1 cache on all cores, twice that with gradients, since the responsibilities are computed again
in the backward pass. Then: growth with B, J and K, the cost of a tiny call, and peak memory.
Writes benchmarks/results/kernel.json, unless --quick.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import gc
import json
import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import measure
import numpy as np

SHAPES = ((128, 128, 784), (512, 64, 32), (32, 512, 512))
GROWTH_BASE = (128, 128, 256)
SMALL = (4, 2, 3)
MEMORY_SHAPE = (1024, 256, 784)
IN_MEMORY = ("ours, torch", "ours, JAX", "chunked, torch", "chunked, JAX", "broadcast, torch", "broadcast, JAX jit")
HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)


class Contender(NamedTuple):
    """Calls without arguments that return (a) and (a, gradients of x, loc, scale, log_weights)."""

    forward: Callable[[], Any]
    both: Callable[[], Any]


def broadcast(log: Callable[..., Any], logsumexp: Callable[..., Any], x: Any, loc: Any, scale: Any, log_w: Any) -> Any:
    """Equation (2) as one would write it by hand: everything at once, with temporaries `(B, J, K)`."""
    z = (x[:, None, :] - loc) / scale
    return logsumexp(log_w - log(scale) - HALF_LOG_2PI - 0.5 * z * z, -1)


def inputs(shape: tuple[int, int, int]) -> tuple[np.ndarray, ...]:
    """x, loc, scale, log_weights and the upstream gradient, float32."""
    rows, neurons, components = shape
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(neurons, components))
    log_weights = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    scale = np.exp(rng.uniform(math.log(0.3), 0.0, (neurons, components)))
    arrays = (rng.normal(size=(rows, components)), rng.normal(size=(neurons, components)), scale, log_weights)
    return (*(a.astype(np.float32) for a in arrays), rng.normal(size=(rows, neurons)).astype(np.float32))


@contextlib.contextmanager
def kernel(name: str) -> Iterator[None]:
    """Ask the library for a kernel; torch asks at every call, JAX when it traces."""
    before = os.environ.get("UGMM_PPL_KERNEL")
    os.environ["UGMM_PPL_KERNEL"] = name
    try:
        yield
    finally:
        os.environ.pop("UGMM_PPL_KERNEL")
        os.environ |= {} if before is None else {"UGMM_PPL_KERNEL": before}


def with_torch(function: Callable[..., Any], arrays: tuple[np.ndarray, ...], kernel_name: str = "auto") -> Contender:
    """A torch function of x, loc, scale, log_weights."""
    import torch

    *arguments, upstream = (torch.from_numpy(a) for a in arrays)
    leaves = [a.clone().requires_grad_() for a in arguments]

    def forward() -> Any:
        with torch.no_grad():
            return function(*arguments)

    def both() -> Any:
        out = function(*leaves)
        return out.detach(), torch.autograd.grad(out, leaves, upstream)

    if kernel_name == "auto":
        return Contender(forward, both)
    return Contender(kernel(kernel_name)(forward), kernel(kernel_name)(both))


def with_jax(function: Callable[..., Any], arrays: tuple[np.ndarray, ...], kernel_name: str = "auto") -> Contender:
    """A JAX function of x, loc, scale, log_weights, compiled here for these shapes."""
    import jax

    *arguments, upstream = (jax.numpy.asarray(a) for a in arrays)

    def plain(*arguments: Any) -> Any:  # a function of its own: JAX would find the trace of the other kernel
        return function(*arguments)

    def with_gradients(upstream: Any, *arguments: Any) -> Any:
        out, pullback = jax.vjp(function, *arguments)
        return out, pullback(upstream)

    with kernel(kernel_name):
        forward = jax.jit(plain).lower(*arguments).compile()
        both = jax.jit(with_gradients).lower(upstream, *arguments).compile()
    return Contender(
        lambda: jax.block_until_ready(forward(*arguments)), lambda: jax.block_until_ready(both(upstream, *arguments))
    )


def linear(shape: tuple[int, int, int]) -> Contender:
    """`nn.Linear` + ReLU with the gradients of input, weight and bias."""
    import torch

    rows, neurons, components = shape
    layer = torch.nn.Linear(components, neurons)
    x, upstream = torch.randn(rows, components, requires_grad=True), torch.randn(rows, neurons)

    def forward() -> Any:
        with torch.no_grad():
            return torch.relu(layer(x))

    def both() -> Any:
        return torch.autograd.grad(torch.relu(layer(x)), (x, *layer.parameters()), upstream)

    return Contender(forward, both)


def contender(name: str, arrays: tuple[np.ndarray, ...]) -> Contender:
    """The contender of that name."""
    if name.endswith("torch"):
        import torch

        from ugmm_ppl.kernels import for_torch

        if name.startswith("broadcast"):
            return with_torch(lambda *a: broadcast(torch.log, torch.logsumexp, *a), arrays)
        return with_torch(for_torch.activation, arrays, "chunked" if name.startswith("chunked") else "auto")
    if name == "broadcast, torch.compile":
        import torch

        compiled = torch.compile(lambda *a: broadcast(torch.log, torch.logsumexp, *a), dynamic=False)
        return with_torch(compiled, arrays)
    import jax

    from ugmm_ppl.kernels import for_jax

    if name.startswith("broadcast"):
        return with_jax(lambda *a: broadcast(jax.numpy.log, jax.nn.logsumexp, *a), arrays)
    return with_jax(for_jax.activation, arrays, "chunked" if name.startswith("chunked") else "auto")


def exponentials(count: int, threads: int) -> Callable[[], float]:
    """A call that returns the seconds for `count` exponentials in float32, dealt to threads that each stay in their L1.

    A turn computes several times as many, so that starting the threads and the last one to finish weigh nothing.
    """
    from ugmm_ppl.kernels import library

    native, problem = library.load()
    if native is None:
        raise SystemExit(f"The limit needs the native kernel: {problem}")
    size, apart = 2048, 2048 + 256  # input and output 4 KiB apart would be taken for each other by the processor
    several = max(1, 2**27 // count)
    repeats = max(1, round(several * count / threads / size))
    buffers = [np.zeros(apart + size, np.float32) for _ in range(threads)]
    for buffer in buffers:
        buffer[:size] = np.linspace(-20.0, 0.0, size)
    spans = np.zeros((threads, 2))

    def work(thread: int, barrier: threading.Barrier) -> None:
        address = buffers[thread].ctypes.data
        arguments = (0, ctypes.c_int64(size), ctypes.c_int64(repeats))
        barrier.wait()
        start = time.perf_counter()
        native.ugmm_exponentials(*arguments, ctypes.c_void_p(address), ctypes.c_void_p(address + 4 * apart))
        spans[thread] = start, time.perf_counter()

    def call() -> float:
        barrier = threading.Barrier(threads)
        workers = [threading.Thread(target=work, args=(i, barrier)) for i in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
        return float(spans[:, 1].max() - spans[:, 0].min()) * count / (repeats * size * threads)

    call()
    found = np.concatenate([buffer[apart:] for buffer in buffers])
    assert np.allclose(found, np.tile(np.exp2(buffers[0][:size]), threads), rtol=1e-6)
    return call


def agree(name: str, mine: Contender, expected: Any) -> None:
    """Contenders that compute something else are not compared."""
    out, gradients = mine.both()
    for found, wanted in zip((out, *gradients), (expected[0], *expected[1]), strict=True):
        error = np.abs(np.asarray(found) - np.asarray(wanted)).max() / np.abs(np.asarray(wanted)).max()
        assert error < 1e-3, f"{name} differs by {error}"


def compare(shape: tuple[int, int, int], names: list[str], rounds: int, cores: int) -> list[dict[str, Any]]:
    """All contenders at one shape."""
    import torch

    torch._dynamo.reset()
    arrays = inputs(shape)
    contenders = {name: contender(name, arrays) for name in names}
    reference = contenders[names[0]].both()
    for name, one in contenders.items():
        agree(name, one, reference)
    contenders["nn.Linear + ReLU"] = linear(shape)
    limit = exponentials(math.prod(shape), cores)
    limits: list[float] = []
    calls: dict[str, Callable[[], Any]] = {}
    for name, one in contenders.items():
        calls |= {f"{name}: forward": one.forward, f"{name}: both": one.both}
    calls["limit"] = lambda: limits.append(limit())  # timed inside
    found = measure.in_rounds(calls, rounds=rounds)
    rows = [
        {"shape": shape, "contender": n, "forward": found[f"{n}: forward"], "both": found[f"{n}: both"]}
        for n in contenders
    ]
    once, twice = measure.summary(limits), measure.summary([2 * t for t in limits])
    return [*rows, {"shape": shape, "contender": "exponentials in L1", "forward": once, "both": twice}]


def growth(rounds: int) -> list[dict[str, Any]]:
    """Our time with B, J and K doubled, from torch with 1 and 2 threads and from JAX with its own."""
    import torch

    base = GROWTH_BASE
    rows, neurons, components = base
    shapes = {"base": base, "2 B": (2 * rows, neurons, components)}
    shapes |= {"2 J": (rows, 2 * neurons, components), "2 K": (rows, neurons, 2 * components)}
    calls: dict[str, Callable[[], Any]] = {}
    before = torch.get_num_threads()

    def on(threads: int, call: Callable[[], Any]) -> Callable[[], Any]:
        def run() -> Any:
            if torch.get_num_threads() != threads:
                torch.set_num_threads(threads)
            return call()

        return run

    for label, shape in shapes.items():
        arrays = inputs(shape)
        for threads in (1, 2):
            ours = contender("ours, torch", arrays)
            calls[f"torch, {threads} threads|{label}|forward"] = on(threads, ours.forward)
            calls[f"torch, {threads} threads|{label}|both"] = on(threads, ours.both)
        ours = contender("ours, JAX", arrays)
        calls[f"JAX|{label}|forward"], calls[f"JAX|{label}|both"] = ours.forward, ours.both
    found = measure.in_rounds(calls, rounds=rounds, seconds=0.05)
    torch.set_num_threads(before)
    result = []
    for who in ("torch, 1 threads", "torch, 2 threads", "JAX"):
        for label, shape in shapes.items():
            times = {kind: found[f"{who}|{label}|{kind}"] for kind in ("forward", "both")}
            ratios = {f"{kind}_over_base": times[kind]["ms"] / found[f"{who}|base|{kind}"]["ms"] for kind in times}
            result.append({"who": who, "change": label, "shape": shape, **times, **ratios})
    return result


def small(rounds: int, names: list[str]) -> list[dict[str, Any]]:
    """A tiny call, where only the overhead counts: 200 calls at a time."""
    import torch

    torch._dynamo.reset()
    contenders = {name: contender(name, inputs(SMALL)) for name in names} | {"nn.Linear + ReLU": linear(SMALL)}

    def many(call: Callable[[], Any]) -> Callable[[], None]:
        def run() -> None:
            for _ in range(200):
                call()

        return run

    calls = {f"{n}: {kind}": many(getattr(c, kind)) for n, c in contenders.items() for kind in ("forward", "both")}
    found = measure.in_rounds(calls, rounds=rounds)

    def microseconds(name: str, kind: str) -> dict[str, float]:
        times = found[f"{name}: {kind}"]
        return {"us": 1e3 * times["ms"] / 200, "median_us": 1e3 * times["median_ms"] / 200}

    return [
        {"shape": SMALL, "contender": n, "forward": microseconds(n, "forward"), "both": microseconds(n, "both")}
        for n in contenders
    ]


def memory_of(name: str, shape: tuple[int, int, int]) -> float:
    """MiB by which forward + backward raises the peak of this process, its results included; Linux only.

    Libraries are warmed up on a tiny call and JAX compiles before the measurement.
    """
    contender(name, inputs(SMALL)).both()
    mine = contender(name, inputs(shape))
    gc.collect()
    with contextlib.suppress(AttributeError):  # glibc: what was freed shall not serve in place of new memory
        ctypes.CDLL(None).malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is forgotten
    before = _status("VmRSS")
    mine.both()
    return (_status("VmHWM") - before) / 1024


def _status(field: str) -> int:
    status = Path("/proc/self/status").read_text()
    return int(next(line for line in status.splitlines() if line.startswith(field)).split()[1])


def memory(shape: tuple[int, int, int]) -> list[dict[str, Any]]:
    """Peak memory of forward + backward of each contender in a process of its own."""
    rows, neurons, components = shape
    arguments = 4 * (rows * components + 3 * neurons * components) / 2**20
    outputs = arguments + 4 * rows * neurons / 2**20
    result = []
    for name in IN_MEMORY:
        command = [sys.executable, __file__, "--memory-of", name, "--shape", *map(str, shape)]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
        peak = json.loads(done.stdout.splitlines()[-1])
        result.append(
            {"shape": shape, "contender": name, "peak_mib": peak, "inputs_mib": arguments, "outputs_mib": outputs}
            | {"temporary_mib": peak - outputs, "whole_temporary_mib": 4 * math.prod(shape) / 2**20}
        )
    return result


def print_tables(content: dict[str, Any]) -> None:
    times = content["times"]
    for shape in dict.fromkeys(tuple(row["shape"]) for row in times):
        mine = [row for row in times if tuple(row["shape"]) == shape]
        ours = {kind: mine[0][kind]["ms"] for kind in ("forward", "both")}
        print(f"\n(B, J, K) = {shape}, float32: minimum (median) in ms, and times 'ours, torch'")
        print(f"  {'':26}{'forward':>20}{'':8}{'forward + backward':>20}")
        for row in mine:
            cells = [
                f"{row[kind]['ms']:9.2f} ({row[kind]['median_ms']:7.2f}){row[kind]['ms'] / ours[kind]:7.2f}x"
                for kind in ("forward", "both")
            ]
            print(f"  {row['contender']:26}{'  '.join(cells)}")
        both = {row["contender"]: row["both"]["ms"] for row in mine}
        for own, other in (("ours, torch", "broadcast, torch"), ("ours, JAX", "broadcast, JAX jit")):
            print(f"  forward + backward, {other} over {own}: {both[other] / both[own]:.1f}")
    print("\nGrowth: ms (times the base); forward, forward + backward")
    for row in content["growth"]:
        cells = [f"{row[k]['ms']:8.2f} ({row[f'{k}_over_base']:4.2f}x)" for k in ("forward", "both")]
        print(f"  {row['who']:18}{row['change']:6}{row['shape']!s:18}{'  '.join(cells)}")
    print(f"\nA call at {SMALL}: minimum (median) in microseconds; forward, forward + backward")
    for row in content["small"]:
        cells = [f"{row[k]['us']:8.1f} ({row[k]['median_us']:7.1f})" for k in ("forward", "both")]
        print(f"  {row['contender']:26}{'  '.join(cells)}")
    for row in content["memory"][:1]:
        print(
            f"\nForward + backward at {row['shape']}, MiB; libraries and inputs ({row['inputs_mib']:.1f}) not counted"
        )
        print(f"  outputs {row['outputs_mib']:.1f}; one temporary B x J x K would be {row['whole_temporary_mib']:.0f}")
    for row in content["memory"]:
        print(f"  {row['contender']:26}{row['peak_mib']:9.1f}, less outputs {row['temporary_mib']:9.1f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small shapes, few rounds: does it run?")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--no-compile", action="store_true", help="without torch.compile")
    parser.add_argument("--memory-of", choices=IN_MEMORY, help=argparse.SUPPRESS)
    parser.add_argument("--shape", type=int, nargs=3, default=MEMORY_SHAPE, help=argparse.SUPPRESS)
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    if options.memory_of:
        print(json.dumps(memory_of(options.memory_of, tuple(options.shape))))
        return
    names = ["ours, torch", "ours, JAX", "chunked, torch", "chunked, JAX"]
    names += ["broadcast, torch", "broadcast, torch.compile", "broadcast, JAX jit"]
    if options.no_compile:
        names.remove("broadcast, torch.compile")
    rounds, shapes = (2, ((16, 16, 64),)) if options.quick else (options.rounds, SHAPES)
    described = measure.machine()
    content: dict[str, Any] = {"machine": described, "threads": "torch: cores, JAX: XLA's default", "rounds": rounds}
    if described["kernel"]["kernel"] != "native":
        raise SystemExit(f"This compares the native kernel, and in use is {described['kernel']}.")
    watch = measure.Others()
    content["times"] = [row for shape in shapes for row in compare(shape, names, rounds, described["cores"])]
    content["growth"] = growth(rounds)
    content["small"] = small(rounds, [name for name in names if not name.startswith("chunked")])
    content["memory"] = memory((128, 64, 784) if options.quick else MEMORY_SHAPE)
    content["cores_of_others"] = watch.cores()
    print_tables(content)
    print(f"\nOther processes kept {content['cores_of_others']} cores busy meanwhile.")
    if not options.quick:
        print(f"\n{measure.write('kernel', content)}")


if __name__ == "__main__":
    main()
