"""Iris by generative classifiers: the uGMM paper's score, a circuit and a latent network, on the same honest splits.

    python benchmarks/iris.py [--splits 10] [--backend numpyro]

Ten stratified 80/20 splits. The states of the circuit by EM were chosen on a quarter of the training rows of four of
them. Accuracy and log p(class | x) of the test rows; log p(x, class) where the model is a density (of the latent net
by importance sampling with 1,000 samples, a lower bound in the mean), in nats per row and cm. The mean score of
the paper's networks is no density, and is there to show how far it grows.
Writes benchmarks/results/iris.json.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
from scipy import stats

import ugmm_ppl as up
from ugmm_ppl.cli.run import load_model_file

MODELS = Path(__file__).parents[1] / "models"
PAPER, JOINT = (load_model_file(MODELS / f"{name}.py") for name in ("iris_paper_score", "iris_joint"))
LATENT = up.LatentNetwork((4, 4), classes=3, encoder_widths=(32,))  # chosen by benchmarks/latent.py
LATENT_SETTINGS = {"num_steps": 2000, "learning_rate": 0.02, "seed": 0}
LARGER = up.JointScore(up.Network((5, 20, 8), normalization=None, readout="ugmm", initial="paper"), classes=3)
EM = {"method": "em", "num_steps": 30, "learning_rate": 1.0, "schedule": "constant", "seed": 0}
CONTENDERS: dict[str, tuple[Any, dict[str, Any]]] = {
    "JointScore 5-10-5-1": (PAPER.model, PAPER.settings),
    "JointScore 5-20-8-1": (LARGER, PAPER.settings),
    "Circuit, SVI": (JOINT.model, JOINT.settings),
    "Circuit, EM": (up.Circuit(4, 3, up.random_trees(4, 3), neurons=3, components=1), EM),
    "LatentNetwork 4-4": (LATENT, LATENT_SETTINGS),
}


def judge(fit: up.Fit, data: up.Data) -> dict[str, float]:
    """Accuracy, log p(class | x), and log p(x, class) or the score."""
    rows = np.arange(len(data.y_test))
    if isinstance(fit.model, up.JointScore):
        probs = fit.predict(data.x_test).probs
        scores = fit.model.scores(fit.outputs(data.x_test), data.y_test)
        found = {"score": float(scores.mean())}
    else:
        probs = fit.posterior_class(data.x_test)
        density = (
            fit.log_density(data.x_test, data.y_test)
            if isinstance(fit.model, up.Circuit)
            else fit.log_evidence(data.x_test, data.y_test).value
        )
        found = {"log_joint": float(np.mean(density))}
    return {
        "accuracy": float((probs.argmax(1) == data.y_test).mean()),
        "log_class": float(np.log(np.maximum(probs[rows, data.y_test], 1e-300)).mean()), **found,
    }  # fmt: skip


def gaussians(data: up.Data) -> dict[str, float]:
    """A full Gaussian per class: quadratic discriminant analysis, for scale."""
    classes = np.unique(data.y)
    joint = np.stack(
        [
            stats.multivariate_normal(data.x[data.y == c].mean(0), np.cov(data.x[data.y == c].T)).logpdf(data.x_test)
            + math.log((data.y == c).mean())
            for c in classes
        ],
        1,
    )
    own = joint[np.arange(len(joint)), data.y_test]
    log_class = own - np.logaddexp.reduce(joint, 1)
    return {
        "accuracy": float((joint.argmax(1) == data.y_test).mean()), "log_class": float(log_class.mean()),
        "log_joint": float(own.mean()),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=10)
    parser.add_argument("--backend", default="numpyro", choices=("numpyro", "pyro"))
    options = parser.parse_args()
    rows = []
    for name in [*CONTENDERS, "a Gaussian per class"]:
        found, start = [], time.perf_counter()
        for split in range(options.splits):
            data = JOINT.data(split)
            if name in CONTENDERS:
                model, settings = CONTENDERS[name]
                fit = up.fit(model, data.x, data.y, progress=False, **settings | {"backend": options.backend})
                found.append(judge(fit, data))
            else:
                found.append(gaussians(data))
        row: dict[str, Any] = {"model": name, "splits": options.splits, "seconds": time.perf_counter() - start}
        for key in found[0]:
            values = np.array([each[key] for each in found])
            row[key] = {
                "mean": float(values.mean()), "standard_error": float(values.std(ddof=1) / math.sqrt(len(values))),
                "values": values.tolist(),
            }  # fmt: skip
        rows.append(row)
        told = "  ".join(
            f"{k} {v['mean']:.3f} ({v['standard_error']:.3f})" for k, v in row.items() if isinstance(v, dict)
        )
        print(f"{name:22} {told}", flush=True)
    measure.write("iris", {"machine": measure.machine(), "backend": options.backend, "results": rows})


if __name__ == "__main__":
    main()
