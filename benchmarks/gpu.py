"""Equation (2), SVI steps and predictions on a CUDA device, from torch and from JAX, in float32.

    JAX_PLATFORMS=cuda,cpu XLA_PYTHON_CLIENT_PREALLOCATE=false python benchmarks/gpu.py [--name NAME] [--seconds 240]

First what the device can do: exponentials per second in registers, bytes per second of a copy. Then the kernels
forward, and forward with the gradients of x, loc, scale and log_weights, beside the broadcast formula in torch, in
torch.compile and in jit JAX, and `nn.Linear` of the same sizes. The limit is one exponential per term forward and two
with gradients.
Times are medians of bursts of calls, by device events in torch and by waiting for the last result in JAX; a contender
"in a graph" is captured as a CUDA graph, which leaves out the launches. Then whole SVI steps against `by_hand.py`,
eight epochs of MNIST (synthetic images unless $UGMM_PPL_DATA has them), predictions against the broadcast formula, and
steps of a convolution and of a circuit.
Writes benchmarks/results/gpu-NAME.json after every part, so that a run that is cut short leaves what it has.
"""

from __future__ import annotations

import argparse
import gc
import math
import os
import time
from collections.abc import Callable
from typing import Any

os.environ.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")  # for both libraries in one process; see docs/gpu.md

import kernel as formulas
import measure
import numpy as np
import torch
import triton
import triton.language as tl
from gpu_programs import fits, others, predictions, svi_steps
from gpu_timing import Deadline, in_graph, time_jax, time_torch

SHAPES = ((128, 128, 784), (1024, 1024, 1024), (4096, 1024, 1024))
DRAWS = (32, 256, 128, 784)
"""S draws of the parameters, and a batch of B for each."""


@triton.jit
def _exponentials(out, steps, BLOCK: tl.constexpr):
    """`steps` exponentials of every element of a block, in registers."""
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    value = at.to(tl.float32) * 1e-9
    for _ in range(0, steps, 8):
        for _ in tl.static_range(8):
            value = tl.exp2(-value)
    tl.store(out + at, value)


# --------------------------------------------------------------------------------------------- what the device can do


def device() -> dict[str, Any]:
    """Its name, and measured rates."""
    properties = torch.cuda.get_device_properties(0)
    steps, block = 4096, 1024
    programs = properties.multi_processor_count * 16
    out = torch.empty(programs * block, device="cuda")
    exponentials = time_torch(lambda: _exponentials[(programs,)](out, steps, BLOCK=block, num_warps=4))
    assert torch.isfinite(out).all()
    source = torch.empty(2**28, device="cuda")
    target = torch.empty_like(source)
    copy = time_torch(lambda: target.copy_(source))
    rate = 1e3 * programs * block * steps / exponentials["ms"]
    clock = rate / (16 * properties.multi_processor_count)
    return {
        "name": properties.name, "multiprocessors": properties.multi_processor_count,
        "memory_gib": properties.total_memory / 2**30, "cuda": torch.version.cuda,
        "exponentials_per_s": rate, "clock_of_16_per_cycle_ghz": clock / 1e9,
        "copy_bytes_per_s": 1e3 * 2 * 4 * source.numel() / copy["ms"],
    }  # fmt: skip


# --------------------------------------------------------------------------------------------------------- the kernels


def arrays_of(shape: tuple[int, ...]) -> tuple[np.ndarray, ...]:
    """x, loc, scale, log_weights and the upstream gradient; with S draws an axis in front of all."""
    if len(shape) == 3:
        return formulas.inputs(shape)
    draws, *rest = shape
    rng = np.random.default_rng(1)
    x, loc, scale, log_weights, upstream = formulas.inputs(tuple(rest))

    def each(a: np.ndarray) -> np.ndarray:
        return np.stack([a[rng.permutation(len(a))] for _ in range(draws)])

    return each(x), each(loc)[:, None], each(scale)[:, None], each(log_weights)[:, None], each(upstream)


def broadcast(library: Any, logsumexp: Callable[..., Any]) -> Callable[..., Any]:
    """Equation (2) with temporaries (..., B, J, K)."""

    def activation(x: Any, loc: Any, scale: Any, log_weights: Any) -> Any:
        z = (x[..., None, :] - loc) / scale
        return logsumexp(log_weights - library.log(scale) - formulas.HALF_LOG_2PI - 0.5 * z * z, -1)

    return activation


def with_torch(function: Callable[..., Any], arrays: tuple[np.ndarray, ...]) -> tuple[Callable[[], Any], ...]:
    """Calls forward, and forward with gradients."""
    *arguments, upstream = (torch.from_numpy(a).cuda() for a in arrays)
    leaves = [a.clone().requires_grad_() for a in arguments]

    def forward() -> Any:
        with torch.no_grad():
            return function(*arguments)

    def both() -> Any:
        out = function(*leaves)
        return out.detach(), torch.autograd.grad(out, leaves, upstream)

    return forward, both


def with_jax(function: Callable[..., Any], arrays: tuple[np.ndarray, ...]) -> tuple[Callable[[], Any], ...]:
    """The same, compiled."""
    import jax

    def plain(*arguments: Any) -> Any:  # a function of its own: JAX would find the trace of the other kernel
        return function(*arguments)

    def with_gradients(upstream: Any, *arguments: Any) -> Any:
        out, pullback = jax.vjp(function, *arguments)
        return out, pullback(upstream)

    with jax.default_device(jax.devices("cuda")[0]):
        *arguments, upstream = (jax.numpy.asarray(a) for a in arrays)
        forward = jax.jit(plain).lower(*arguments).compile()
        both = jax.jit(with_gradients).lower(upstream, *arguments).compile()
    return lambda: forward(*arguments), lambda: both(upstream, *arguments)


def linear(shape: tuple[int, ...]) -> tuple[Callable[[], Any], ...]:
    """`nn.Linear` with the gradients of input, weight and bias; of S draws `torch.bmm`."""
    *draws, rows, neurons, components = shape
    x = torch.randn(*draws, rows, components, device="cuda", requires_grad=True)
    weight = torch.randn(*draws, neurons, components, device="cuda", requires_grad=True)
    bias = torch.randn(*draws, 1, neurons, device="cuda", requires_grad=True)
    upstream = torch.randn(*draws, rows, neurons, device="cuda")

    def forward() -> Any:
        with torch.no_grad():
            return x @ weight.mT + bias

    def both() -> Any:
        return torch.autograd.grad(x @ weight.mT + bias, (x, weight, bias), upstream)

    return forward, both


def tuned(call: Callable[[], Any]) -> Callable[[], Any]:
    """The call with tiles that are measured at the first one."""

    def run() -> Any:
        os.environ["UGMM_PPL_TUNE"] = "1"
        try:
            return call()
        finally:
            os.environ.pop("UGMM_PPL_TUNE")

    return run


def contenders(arrays: tuple[np.ndarray, ...]) -> dict[str, tuple[str, Callable[[], Any]]]:
    """Name -> (library, function that makes the calls)."""
    from ugmm_ppl.kernels import for_torch

    plain = broadcast(torch, torch.logsumexp)
    found: dict[str, tuple[str, Callable[[], Any]]] = {
        "ours, torch": ("torch", lambda: with_torch(for_torch.activation, arrays)),
        "ours, torch, in a graph": (
            "torch",
            lambda: tuple(in_graph(c) for c in with_torch(for_torch.activation, arrays)),
        ),
        "broadcast, torch": ("torch", lambda: with_torch(plain, arrays)),
    }
    if math.prod(arrays[0].shape) * arrays[1].shape[-2] < 2**26:  # it is made for the cache of a CPU
        found["chunked, torch"] = ("torch", lambda: with_torch(for_torch._chunked, arrays))
    try:
        import jax

        from ugmm_ppl.kernels import for_jax

        jax.devices("cuda")
        found["ours, JAX"] = ("jax", lambda: with_jax(for_jax.activation, arrays))
        found["broadcast, JAX jit"] = ("jax", lambda: with_jax(broadcast(jax.numpy, jax.nn.logsumexp), arrays))
    except (ImportError, RuntimeError) as error:
        print(f"without JAX: {error}")
    found["ours, torch, measured tiles, in a graph"] = (
        "torch",
        lambda: tuple(in_graph(tuned(c)) for c in with_torch(for_torch.activation, arrays)),
    )
    sizes = (*arrays[0].shape, arrays[1].shape[-2])
    found["nn.Linear"] = ("torch", lambda: linear((*sizes[:-2], sizes[-1], sizes[-2])))
    return found


def compiled(arrays: tuple[np.ndarray, ...]) -> dict[str, tuple[str, Callable[[], Any]]]:
    """The broadcast formula as torch's compiler fuses it, which takes it a while."""
    plain = torch.compile(broadcast(torch, torch.logsumexp), dynamic=False)
    return {"broadcast, torch.compile": ("torch", lambda: with_torch(plain, arrays))}


def numbers(results: Any) -> list[np.ndarray]:
    out, gradients = results
    return [a.cpu().numpy() if isinstance(a, torch.Tensor) else np.asarray(a) for a in (out, *gradients)]


def peak_of(call: Callable[[], Any]) -> float:
    """MiB that a torch call takes beside what is there."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    torch.cuda.synchronize()
    return (torch.cuda.max_memory_allocated() - before) / 2**20


def compare(
    shape: tuple[int, ...], rate: float, deadline: Deadline, make_contenders: Callable[..., dict[str, Any]]
) -> list[dict[str, Any]]:
    """Contenders at one shape."""
    torch._dynamo.reset()
    arrays, terms = arrays_of(shape), math.prod(shape)
    rows: list[dict[str, Any]] = []
    expected: list[np.ndarray] = []
    for name, (library, make) in make_contenders(arrays).items():
        row: dict[str, Any] = {"shape": shape, "contender": name}
        if deadline.passed():
            rows.append(row | {"problem": "no time left"})
            continue
        try:
            begin = time.perf_counter()
            forward, both = make()
            found = both()
            row["first_call_s"] = time.perf_counter() - begin
            if "graph" not in name and name != "nn.Linear":
                mine = numbers(found)
                expected = expected or mine
                row["difference"] = max(
                    float(np.abs(a - b).max() / np.abs(b).max()) for a, b in zip(mine, expected, strict=True)
                )
            del found
            measured = time_torch if library == "torch" else time_jax
            row["forward"], row["both"] = measured(forward), measured(both)
            if library == "torch" and "graph" not in name:
                row["peak_mib"] = peak_of(both)
            limit = 1e3 * terms / rate
            row["forward_of_limit"] = limit / row["forward"]["ms"]
            row["both_of_limit"] = 2.0 * limit / row["both"]["ms"]
            backward = row["both"]["ms"] - row["forward"]["ms"]
            row["backward_of_limit"] = limit / backward if backward > 0.0 else None
        except Exception as error:  # too little memory, mostly; the others shall still be measured
            row["problem"] = f"{type(error).__name__}: {str(error)[:300]}"
        rows.append(row)
        forward = both = None  # type: ignore[assignment]
        gc.collect()
        torch.cuda.empty_cache()
    return rows


def print_tables(content: dict[str, Any]) -> None:
    for row in content.get("kernels", []):
        if "problem" in row:
            print(f"  {row['shape']!s:22} {row['contender']:40} {row['problem'][:80]}")
            continue
        cells = [f"{row[k]['ms']:9.4f} ms ({100 * row[f'{k}_of_limit']:5.1f} %)" for k in ("forward", "both")]
        print(f"  {row['shape']!s:22} {row['contender']:40} {'  '.join(cells)}  {row.get('peak_mib', 0):8.1f} MiB")
    for part in ("svi_steps", "fits", "predictions", "others"):
        for row in content.get(part, []):
            print(f"  {part}: { {k: v for k, v in row.items() if k not in ('count',)} }")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--name", help="of the results; default the device's")
    parser.add_argument("--seconds", type=float, default=240.0, help="after so long nothing more is begun")
    parser.add_argument("--quick", action="store_true", help="the smallest shape only: does it run?")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        raise SystemExit("benchmarks/gpu.py needs a CUDA device, and torch sees none here.")
    deadline = Deadline(options.seconds)
    content: dict[str, Any] = {"machine": measure.machine(), "device": device(), "kernels": []}
    name = f"gpu-{options.name or content['device']['name'].lower().replace(' ', '-')}"
    print(content["device"])
    rate = content["device"]["exponentials_per_s"]

    def kernels(*shapes: tuple[int, ...], of: Callable[..., Any] = contenders) -> None:
        for shape in shapes:
            content["kernels"] += compare(shape, rate, deadline, of)
            measure.write(name, content)

    def programs(**parts: Callable[[Deadline], Any]) -> None:
        for part, run in parts.items():
            content[part] = run(deadline)
            measure.write(name, content)

    kernels(SHAPES[0])
    programs(fits=fits, svi_steps=svi_steps)
    if not options.quick:
        kernels(SHAPES[2], DRAWS, SHAPES[1])
    programs(predictions=predictions, others=others)
    if not options.quick:
        kernels(SHAPES[0], SHAPES[2], of=compiled)
    from ugmm_ppl.kernels import triton_calls

    content["measured_tiles"] = {str(key): tile._asdict() for key, tile in triton_calls._measured.items()}
    print_tables(content)
    print(measure.write(name, content))


if __name__ == "__main__":
    main()
