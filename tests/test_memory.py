"""Prediction and the native kernel stay within their memory bounds; Linux only, as peaks are read from /proc.

The full case of the prediction is `benchmarks/memory.py`.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from kernel_cases import needs_native

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "memory.py"


@pytest.mark.long
def test_prediction_of_ten_thousand_rows_stays_under_two_gigabytes(backend_name):
    """One draw: further draws add their parameters and outputs only, 1.7 MB each. All rows at once would take 4 GB."""
    command = [sys.executable, str(SCRIPT), "--backend", backend_name, "--draws", "1", "--rows", "10000"]
    result = subprocess.run(command, capture_output=True, text=True, check=True)
    peak = int(re.search(r"peak (\d+) MiB", result.stdout).group(1))
    assert peak < 2048, result.stdout


PREDICTION = """
import mmap
import sys
from pathlib import Path

import numpy as np
import pytest

import ugmm_ppl as up

K, J, O, ROWS, CHUNK = 200, 64, 10, 60000, 2000


def memory(what):
    return 1024 * int(Path("/proc/self/status").read_text().split(what + ":")[1].split()[0])


def bound(fit, draws, rows):
    held = min(2**23, draws * fit.num_parameters)
    return 4 * (16 * rows * K + 4 * held + 4 * draws * rows * O)


def peak(run, quick, *args):
    run(*quick)  # compiles
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins here
    before = memory("VmRSS")
    held = run(*args)
    return memory("VmHWM") - before - held


def predict(x, draws):
    return 1.5 * fit.predict(x, num_draws=draws, chunk_size=CHUNK).draws.nbytes


def predict_from_file(rows):
    x = np.load(path, mmap_mode="r")[:rows]
    return predict(x, 1) + x.nbytes  # its pages count as resident


def stream(rows):
    x = np.load(path, mmap_mode="r")[:rows]
    for prediction in fit.predict_iter(x, num_draws=1, chunk_size=CHUNK):
        rows -= len(prediction.probs)
        x._mmap.madvise(mmap.MADV_DONTNEED)  # nor the pages of earlier chunks
    assert rows == 0
    return 0


rng = np.random.default_rng(0)
x = rng.normal(size=(16, K))
model = up.Classifier(up.Network((K, J)), O)
fit = up.fit(model, x, rng.integers(0, O, 16), backend=sys.argv[1], num_steps=1, progress=False)
path = Path(sys.argv[2])
file = np.lib.format.open_memmap(path, "w+", np.float32, (ROWS, K))
for start in range(0, ROWS, CHUNK):
    file[start : start + CHUNK] = rng.normal(size=(CHUNK, K))
del file
file_bound, draws_bound = bound(fit, 1, CHUNK), bound(fit, 700, len(x))
print(peak(stream, [2 * CHUNK], ROWS) / file_bound, path.stat().st_size / file_bound)
print(peak(predict_from_file, [2 * CHUNK], ROWS) / file_bound, path.stat().st_size / file_bound)
print(peak(predict, [x, 272], x, 700) / draws_bound, 8 * 700 * fit.num_parameters / draws_bound)
"""


@pytest.mark.long
def test_prediction_stays_within_its_stated_bound(backend_name, tmp_path):
    """Rows of a file as a stream and at once, and many draws of many parameters; all at once would not fit."""
    command = [sys.executable, "-c", PREDICTION, backend_name, str(tmp_path / "x.npy")]
    quick = {"MALLOC_MMAP_THRESHOLD_": "1048576", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # what is freed is returned
    result = subprocess.run(command, capture_output=True, text=True, env=os.environ | quick, check=False)
    assert result.returncode == 0, result.stderr
    for line in result.stdout.splitlines():
        share, at_once = map(float, line.split())
        assert share < 1.0, result.stdout
        assert at_once > 1.5, result.stdout


KERNEL = """
import sys
from pathlib import Path

import numpy as np

from ugmm_ppl.backends import load_backend


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
