"""What Triton's compiler makes of the kernels for a GPU: instructions for an exponential, registers. Needs no GPU.

    python benchmarks/gpu_code.py [--capability 90]

A multiprocessor takes 4 x 32 instructions and 16 exponentials per clock. So a loop with n instructions for each
exponential reaches at most 8 / n of the exponential limit, or all of it where n is below 8: a bound by counting, not a
measurement. Registers tell how many warps there is room for; a stack is where registers were too few.
Writes benchmarks/results/gpu_code.json.
"""

from __future__ import annotations

import argparse
import collections
import math
import re
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path
from typing import Any

import measure
import triton.backends.nvidia
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, compile

from ugmm_ppl.kernels import gpu, triton_kernels

TOOLS = Path(triton.backends.nvidia.__path__[0]) / "bin"
ARGUMENTS = {
    "x", "out", "upstream", "packed", "peaks", "base", "factor", "distant", "d_x", "d_loc", "d_scale", "d_weights",
}  # fmt: skip
ALIGNED = ARGUMENTS | {"inputs", "padded", "plane", "x_g", "x_r"}
SLOTS = 8
"""Other instructions in the time of one exponential."""


def compiled(name: str, tile: gpu.Tile, capability: int, options: dict[str, Any]) -> bytes:
    """A kernel as machine code, as for contiguous float32 arrays of aligned sizes."""
    kernel = getattr(triton_kernels, name)
    constants = options | {"BR": tile.rows, "BJ": tile.neurons, "BK": tile.inputs, "x_k": 1}
    names = kernel.arg_names
    types = {n: "constexpr" if n in constants else "*fp32" if n in ARGUMENTS else "i32" for n in names}
    source = ASTSource(
        kernel,
        types,
        {(names.index(n),): value for n, value in constants.items()},
        {(names.index(n),): [["tt.divisibility", 16]] for n in names if n in ALIGNED},
    )
    settings = {"num_warps": tile.warps, "enable_fp_fusion": True}
    return bytes(compile(source, target=GPUTarget("cuda", capability, 32), options=settings).asm["cubin"])


def inner_loops(assembly: str) -> list[list[str]]:
    """The instructions of every innermost loop."""
    labels: dict[str, int] = {}
    code: list[str] = []
    for line in assembly.splitlines():
        if label := re.match(r"(\.L_x_\d+):", line.strip()):
            labels[label[1]] = len(code)
        elif found := re.match(r"\s*/\*[0-9a-f]+\*/\s+(.*?);", line):
            code.append(found[1])
    jumps = ((n, re.search(r"BRA.*`\((\.L_x_\d+)\)", text)) for n, text in enumerate(code))
    loops = {(labels[to[1]], n) for n, to in jumps if to and labels.get(to[1], n) < n}
    inner = (a for a in loops if not any(a != b and a[0] <= b[0] and b[1] <= a[1] for b in loops))
    return [code[first : last + 1] for first, last in sorted(inner)]


def report(name: str, tile: gpu.Tile, capability: int, **options: Any) -> dict[str, Any]:
    """Counts of the loop that has an exponential for every term."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(compiled(name, tile, capability, options))
        file.flush()
        used = _output("cuobjdump", "-res-usage", file.name)
        assembly = _output("nvdisasm", "-c", file.name)
    registers, stack = (int(re.search(rf"{what}:(\d+)", used)[1]) for what in ("REG", "STACK"))  # type: ignore[index]
    terms = math.prod(tile[:3]) // (32 * tile.warps)
    loop = next(loop for loop in inner_loops(assembly) if sum("MUFU.EX2" in text for text in loop) == terms)
    kinds = collections.Counter(re.sub(r"^@!?U?P\w+\s+", "", text).split()[0].split(".")[0] for text in loop)
    return {
        "kernel": name, "options": options, "tile": tile._asdict(), "registers": registers, "stack_bytes": stack,
        "instructions_for_an_exponential": len(loop) / terms, "bound_of_limit": min(1.0, SLOTS * terms / len(loop)),
        "loop": dict(kinds.most_common()),
    }  # fmt: skip


def _output(tool: str, *arguments: str) -> str:
    return subprocess.run([TOOLS / tool, *arguments], capture_output=True, text=True, check=True).stdout


def main() -> None:
    """Count all tiles."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--capability", type=int, default=90, help="compute capability, 90 for 9.0")
    capability = parser.parse_args().capability
    parameters = {"LOC": True, "SCALE": True, "WEIGHTS": True, "DISTANT": False}
    rows = [report("forward", tile, capability) for tile in gpu.OF_ACTIVATIONS]
    for tile in gpu.OF_GRADIENTS:
        rows += [report("gradients", tile, capability, X=x, **parameters) for x in (True, False)]
    for row in rows:
        what = row["kernel"] + (", x" if row["options"].get("X") else "")
        tile = "x".join(map(str, row["tile"].values()))
        print(
            f"{what:13} {tile:11} {row['instructions_for_an_exponential']:5.1f} instructions,"
            f" {row['registers']} registers, stack {row['stack_bytes']}, at most {row['bound_of_limit']:.0%}"
        )
    content = {"triton": version("triton"), "capability": capability, "kernels": rows}
    print(measure.write("gpu_code", content))


if __name__ == "__main__":
    main()
