"""Whole programs on a CUDA device, for `gpu.py`: SVI steps, fits, predictions."""

from __future__ import annotations

import math
import os
import time
from pathlib import Path
from typing import Any

import kernel as formulas
import numpy as np
import svi_step
from gpu_timing import Deadline

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.nn import Conv, Flatten, LayerNorm, Linear


def svi_steps(deadline: Deadline) -> list[dict[str, Any]]:
    """A step of the 784-128-64 classifier of `svi_step.py`, ours and by hand."""
    x, y = svi_step.data()
    rows: list[dict[str, Any]] = []
    for backend in svi_step.BACKENDS:
        if deadline.passed():
            break
        try:
            found, _ = svi_step.compare(backend, x, y, 3, "cuda")
            rows += found
        except Exception as error:
            rows.append({"backend": backend, "problem": f"{type(error).__name__}: {str(error)[:300]}"})
    return rows


def fits(deadline: Deadline) -> list[dict[str, Any]]:
    """Eight epochs of 60,000 rows by SVI, in batches of 512, from the call of `up.fit` to its end; then once more.

    The images are MNIST's if $UGMM_PPL_DATA has mnist.npz, synthetic otherwise.
    """
    rows, folder = [], os.environ.get("UGMM_PPL_DATA")
    if folder:
        with np.load(Path(folder) / "mnist.npz", allow_pickle=False) as file:
            x, y = file["x_train"].reshape(-1, 784).astype(np.float32) / 127.5 - 1.0, file["y_train"].astype(int)
    else:
        x, y = (np.concatenate([a] * (60000 // svi_step.ROWS)) for a in svi_step.data())
    for backend in svi_step.BACKENDS:
        for time_of in ("first", "second"):
            if deadline.passed():
                break
            row = {"backend": backend, "data": "mnist" if folder else "synthetic", "fit": time_of}
            try:
                start = time.perf_counter()
                fit = up.fit(
                    up.Classifier(up.Network(svi_step.SIZES), svi_step.CLASSES), x, y, backend=backend, device="cuda",
                    num_steps=8 * math.ceil(len(x) / 512), batch_size=512, learning_rate=0.01, init_scale=0.02,
                    standardize=False, progress=False,
                )  # fmt: skip
                row["seconds"] = time.perf_counter() - start
                row["accuracy_of_1000_training_rows"] = float(
                    (fit.predict(x[:1000], num_draws=10).probs.argmax(-1) == y[:1000]).mean()
                )
            except Exception as error:
                row["problem"] = f"{type(error).__name__}: {str(error)[:300]}"
            rows.append(row)
    return rows


def predictions(deadline: Deadline) -> list[dict[str, Any]]:
    """10,000 rows by 32 draws of a 784-128-64 classifier: ours, with the fused and with the broadcast formula."""
    x, y = svi_step.data()
    rows = []
    for backend in svi_step.BACKENDS:
        if deadline.passed():
            break
        try:
            fit = up.fit(
                up.Classifier(up.Network(svi_step.SIZES), svi_step.CLASSES), x, y, backend=backend, device="cuda",
                num_steps=20, batch_size=128, standardize=False, progress=False,
            )  # fmt: skip
            for name in ("auto", "reference"):
                with formulas.kernel(name):
                    if load_backend(backend).name == "numpyro":
                        from ugmm_ppl.numpyro import inference

                        inference._compiled_each.cache_clear()
                    fit.predict(x[:2000], num_draws=2)
                    times = []
                    for _ in range(3):
                        start = time.perf_counter()
                        fit.predict(x, num_draws=32)
                        times.append(time.perf_counter() - start)
                rows.append({"backend": backend, "kernel": name, "seconds": sorted(times)})
        except Exception as error:
            rows.append({"backend": backend, "problem": f"{type(error).__name__}: {str(error)[:300]}"})
    return rows


def others(deadline: Deadline) -> list[dict[str, Any]]:
    """A step of a convolutional classifier and of a circuit, batches of 250: slopes of the time of fits."""
    x, y = svi_step.data()
    layers = [Conv(16, 5, stride=2), Flatten(), LayerNorm(), Linear()]
    kinds: dict[str, tuple[Any, tuple[Any, ...], dict[str, Any]]] = {
        "convolution, 16 of 5 x 5": (
            up.Classifier(up.Network(layers, inputs=(1, 28, 28)), svi_step.CLASSES),
            (x, y),
            {"method": "svi"},
        ),
        "circuit, quad tree of 8 x 8, J = 16": (
            up.Circuit(64, structure=up.quad_tree(8, 8), neurons=16, components=16),
            (np.random.default_rng(0).normal(size=(svi_step.ROWS, 64)).astype(np.float32),),
            {"method": "map"},
        ),
    }
    rows = []
    for backend in svi_step.BACKENDS:
        for name, (model, data, settings) in kinds.items():
            row: dict[str, Any] = {"backend": backend, "what": name}
            try:
                seconds = []
                for steps in (40, 40, 240):
                    if deadline.passed():
                        break
                    start = time.perf_counter()
                    up.fit(
                        model, *data, backend=backend, device="cuda", num_steps=steps, batch_size=250,
                        standardize=False, progress=False, **settings,
                    )  # fmt: skip
                    seconds.append(time.perf_counter() - start)
                if len(seconds) == 3:
                    row |= {"first_fit_s": seconds[0], "step_ms": 1e3 * (seconds[2] - seconds[1]) / 200}
            except Exception as error:
                row["problem"] = f"{type(error).__name__}: {str(error)[:300]}"
            rows.append(row)
    return rows
