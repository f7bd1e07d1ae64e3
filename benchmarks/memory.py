"""Peak resident memory of posterior prediction: draws x rows of a 784-128-64 classifier.

    python benchmarks/memory.py --backend numpyro --draws 100 --rows 10000

Prints the peak of the whole process in MiB, libraries and data included, and the seconds of the prediction.
"""

import argparse
import time
from pathlib import Path

import numpy as np

import ugmm_ppl as up


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="numpyro", choices=("pyro", "numpyro"))
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--rows", type=int, default=10000)
    parser.add_argument("--chunk-size", type=int, default=None)
    options = parser.parse_args()
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(64, 784)), rng.integers(0, 10, 64)
    model = up.Classifier(up.Network((784, 128, 64)), 10)
    fit = up.fit(model, x, y, backend=options.backend, num_steps=1, progress=False)
    rows = rng.normal(size=(options.rows, 784))
    start = time.perf_counter()
    prediction = fit.predict(rows, num_draws=options.draws, chunk_size=options.chunk_size)
    seconds = time.perf_counter() - start
    assert prediction.probs.shape == (options.rows, 10)
    # VmHWM, not getrusage: the latter starts from the peak of the process that started this one
    status = Path("/proc/self/status").read_text()
    peak = int(next(line for line in status.splitlines() if line.startswith("VmHWM")).split()[1]) / 1024
    print(f"{options.backend}: {options.draws} draws x {options.rows} rows, peak {peak:.0f} MiB, {seconds:.1f} s")


if __name__ == "__main__":
    main()
