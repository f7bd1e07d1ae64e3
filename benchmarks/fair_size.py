"""uGMM neurons against rectified linear units on MNIST: at as many parameters, and at as much training time.

    UGMM_PPL_DATA=folder python benchmarks/fair_size.py [--quick]

All are MAPs by the same training, one restart; the learning rate of each is that of a list that predicts 5,000
training rows best that were left out, after a quarter of the steps. Floating-point operations are those of one example
forward: a term of a neuron is 5 of them and one exponential, counted apart; a weight is 2.
Writes benchmarks/results/fair_size.json, unless --quick.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import time
from typing import Any

import measure
import relu
from mnist import FILE, KEPT, LEFT_OUT

import ugmm_ppl as up
from ugmm_ppl.metrics import evaluate

SIZES, CLASSES = FILE.model.network.sizes, FILE.model.classes


@dataclasses.dataclass
class Contender:
    """A model, the learning rates to choose from, and the steps of its training."""

    name: str
    model: Any
    rates: tuple[float, ...]
    steps: int

    def operations(self) -> dict[str, int]:
        """Floating-point operations and exponentials for one example."""
        *hidden, last = self.model.network.sizes
        dense = last * CLASSES
        terms = sum(k * j for k, j in itertools.pairwise([*hidden, last]))
        if relu.is_relu(self.model.network):
            return {"flops": 2 * (terms + dense), "exponentials": 0}
        return {"flops": 5 * terms + 2 * dense, "exponentials": terms}


def fit(contender: Contender, rate: float, steps: int, data: up.Data, rows: Any, backend: str) -> tuple[up.Fit, float]:
    """(the fit, seconds of training)."""
    settings = FILE.settings | {"num_restarts": 1, "learning_rate": rate, "num_steps": steps}
    start = time.perf_counter()
    found = up.fit(contender.model, data.x[rows], data.y[rows], backend=backend, progress=False, **settings)
    return found, time.perf_counter() - start


def judge(contender: Contender, data: up.Data, backend: str) -> dict[str, Any]:
    """Choose the learning rate, train on all rows, and measure."""
    scores = {}
    for rate in contender.rates:
        found, _ = fit(contender, rate, max(1, contender.steps // 4), data, KEPT, backend)
        scores[rate] = float(found.predict(data.x[LEFT_OUT]).log_density(data.y[LEFT_OUT]).mean())
    rate = max(scores, key=lambda rate: scores[rate])
    found, seconds = fit(contender, rate, contender.steps, data, slice(None), backend)
    predicted = found.predict(data.x_test)  # compiles
    start = time.perf_counter()
    predicted = found.predict(data.x_test)
    inference = time.perf_counter() - start
    batch = FILE.settings["batch_size"]
    return {
        "contender": contender.name, "sizes": contender.model.network.sizes, "parameters": relu.count(contender.model),
        **contender.operations(), "learning_rate": rate, "held_out_log_likelihoods": scores, "steps": contender.steps,
        "training_seconds": seconds, "training_us_per_example": 1e6 * seconds / (contender.steps * batch),
        "inference_us_per_example": 1e6 * inference / len(data.x_test), **evaluate(predicted, data.y_test),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--quick", action="store_true", help="few steps: does it run?")
    options = parser.parse_args()
    steps = 40 if options.quick else FILE.settings["num_steps"]
    data, watch = FILE.data(), measure.Others()
    ours = Contender("ugmm", FILE.model, (0.01, 0.03, 0.1), steps)
    widths = relu.widths_of_size(SIZES, CLASSES, relu.count(FILE.model))
    same_size = Contender(
        "relu, as many parameters", up.Classifier(relu.relu_network(widths), CLASSES), (3e-4, 1e-3, 3e-3), steps
    )
    results = [judge(ours, data, options.backend), judge(same_size, data, options.backend)]
    longer = max(1, round(steps * results[0]["training_seconds"] / results[1]["training_seconds"]))
    same_time = dataclasses.replace(same_size, name="relu, as many parameters and as much time", steps=longer)
    same_widths = Contender("relu, as wide", up.Classifier(relu.relu_network(SIZES), CLASSES), same_size.rates, steps)
    results += [judge(contender, data, options.backend) for contender in (same_time, same_widths)]
    for row in results:
        print("  ".join(f"{k} {v:.4g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if not options.quick:
        content = {"machine": measure.machine(), "backend": options.backend, "cores_of_others": watch.cores()}
        measure.write("fair_size", content | {"results": results})


if __name__ == "__main__":
    main()
