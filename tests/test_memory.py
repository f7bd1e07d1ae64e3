"""Prediction and the native kernel stay within their memory bounds; Linux only, as peaks are read from /proc.

The full case of the prediction is `benchmarks/memory.py`.
"""

import re
import subprocess
import sys
from pathlib import Path

from kernel_cases import needs_native

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"


def test_prediction_of_ten_thousand_rows_stays_under_two_gigabytes(backend_name):
    """One draw: further draws add their parameters and outputs only, 1.7 MB each. All rows at once would take 4 GB."""
    command = [sys.executable, str(SCRIPT), "--backend", backend_name, "--draws", "1", "--rows", "10000"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(re.search(r"peak (\d+) MiB", result.stdout).group(1))
    assert peak < 2048, result.stdout


KERNEL = """
import sys
from pathlib import Path

import numpy as np

from ugmm_ppl.backend import load_backend


def memory(what):
    return 1024 * int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])


backend = load_backend(sys.argv[1])
activation = backend.ops.activation
sizes = [(1024, 784), (256, 784), (256, 784), (256, 784), (1024, 256)]
rng = np.random.default_rng(0)
x, loc, scale, log_weights, upstream = (np.abs(rng.normal(size=s)).astype(np.float32) for s in sizes)
arrays = [backend.array(a) for a in (x, loc, scale + 0.5, -log_weights, upstream)]
if sys.argv[1] == "pyro":

    def run(*arrays):
        import torch

        leaves = [a.requires_grad_() for a in arrays[:4]]
        out = activation(*leaves)
        return [out, *torch.autograd.grad(out, leaves, arrays[4])]

    run(*(a[:2] for a in arrays[:4]), arrays[4][:2, :2])  # threads and the like
else:
    import jax

    def run(*arrays):
        out, vjp = jax.vjp(activation, *arrays[:4])
        return [out, *vjp(arrays[4])]

    run = jax.jit(run).lower(*arrays).compile()
Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
before = memory("VmRSS")
results = run(*arrays)
assert all(np.isfinite(np.asarray(r.detach() if hasattr(r, "detach") else r)).all() for r in results)
print((memory("VmHWM") - before) / sum(a.nbytes for a in [*arrays, *results]))
"""


@needs_native
def test_the_native_kernel_makes_no_large_temporaries(backend_name, monkeypatch):
    """Forward and backward, at most 1.5 times inputs and outputs; one array of all terms would be 60 times as much."""
    monkeypatch.setenv("UGMM_PPL_KERNEL", "native")
    command = [sys.executable, "-c", KERNEL, backend_name]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    assert 0.3 < float(result.stdout) < 1.5
