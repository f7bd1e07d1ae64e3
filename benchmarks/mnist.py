"""MNIST by the network of models/mnist_classifier.py: MAP, an ensemble of MAPs, SVI, and the paper's own configuration.

    UGMM_PPL_DATA=folder python benchmarks/mnist.py [--contenders map] [--quick]

SVI is trained on the 60,000 rows without their shifted copies, which are no data of their own, and begins at the MAP.
Its best temperature is the one whose log likelihood is highest on 5,000 training rows, left out of that search.
Accuracy, log likelihood (nats per row) and expected calibration error are those of the 10,000 test rows. Adds to
benchmarks/results/mnist.json, contender by contender.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np

import ugmm_ppl as up
from ugmm_ppl.cli.run import load_model_file
from ugmm_ppl.metrics import evaluate

FILE = load_model_file(Path(__file__).parents[1] / "models" / "mnist_classifier.py")
TEMPERATURES = (1.0, 0.3, 0.1, 0.03)
ROWS, HELD, DRAWS = 60000, 5000, 10
RESTARTS = 4
ORIGINALS = np.arange(ROWS)
"""Training rows that are not shifted."""
KEPT = np.concatenate([np.arange(ROWS - HELD) + ROWS * copy for copy in range(5)])
"""Training rows for a choice of settings, with their shifted copies."""
LEFT_OUT = np.arange(ROWS - HELD, ROWS)
"""Rows on which that choice is made."""


@dataclasses.dataclass
class Run:
    """What the contenders share: data, backend, number of steps, and the MAP that SVI begins at."""

    backend: str
    steps: int
    data: up.Data = dataclasses.field(default_factory=FILE.data)

    def fit(self, rows: Any = slice(None), **changes: Any) -> up.Fit:
        """Fit the model of the file, or the one given, to some training rows."""
        settings = FILE.settings | {"num_steps": self.steps, "backend": self.backend, "progress": False} | changes
        model = settings.pop("model", FILE.model)
        return up.fit(model, self.data.x[rows], self.data.y[rows], **settings)


SVI = {"method": "svi", "init_scale": 0.02, "learning_rate": 0.01}


def svi(run: Run, temperature: float) -> up.Fit:
    """Mean-field SVI from a MAP."""
    return run.fit(ORIGINALS, start=run.fit(), temperature=temperature, **SVI)


def best_temperature(run: Run) -> tuple[up.Fit, dict[str, Any]]:
    """SVI at the temperature that predicts rows best that it was not trained on."""
    start = run.fit(KEPT)
    scores = {}
    for temperature in TEMPERATURES:
        fit = run.fit(ORIGINALS[:-HELD], start=start, temperature=temperature, **SVI)
        predicted = fit.predict(run.data.x[LEFT_OUT], num_draws=DRAWS)
        scores[temperature] = float(predicted.log_density(run.data.y[LEFT_OUT]).mean())
    best = max(scores, key=lambda temperature: scores[temperature])
    return svi(run, best), {"temperature": best, "held_out_log_likelihoods": scores}


def paper(run: Run) -> up.Fit:
    """No normalisation, neurons of the last layer as logits, the paper's start values."""
    model = up.Classifier(up.Network.paper(), classes=10)
    return run.fit(model=model, learning_rate=0.01)


CONTENDERS: dict[str, Callable[[Run], tuple[up.Fit, dict[str, Any]]]] = {
    "map": lambda run: (run.fit(num_restarts=1), {}),
    "map, restarts": lambda run: (run.fit(num_restarts=RESTARTS), {"restarts": RESTARTS}),
    "svi, temperature 1": lambda run: (svi(run, 1.0), {"temperature": 1.0}),
    "svi, best temperature": best_temperature,
    "paper's network, map": lambda run: (paper(run), {}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--backend", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--quick", action="store_true", help="few steps: does it run?")
    options = parser.parse_args()
    run = Run(options.backend, 40 if options.quick else FILE.settings["num_steps"])
    path = measure.RESULTS / "mnist.json"
    for contender in options.contenders:
        watch = measure.Others()
        start = time.perf_counter()
        fit, told = CONTENDERS[contender](run)
        seconds = time.perf_counter() - start
        found = evaluate(fit.predict(run.data.x_test, num_draws=DRAWS), run.data.y_test)
        row = {"contender": contender, "backend": options.backend, **told, **found, "seconds": seconds}
        row |= {"steps": fit.losses.shape[1], "cores_of_others": watch.cores()}
        print("  ".join(f"{k} {v:.4f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        if not options.quick:
            content = json.loads(path.read_text()) if path.is_file() else {"results": []}
            kept = [r for r in content["results"] if r["contender"] != contender]
            kept = sorted([*kept, row], key=lambda r: list(CONTENDERS).index(r["contender"]))
            measure.write("mnist", {"machine": measure.machine(), "results": kept})


if __name__ == "__main__":
    main()
