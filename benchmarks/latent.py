"""Latent networks on Iris (a two-sample test of their samples) and on digits (log density of test rows).

    python benchmarks/latent.py iris --backend numpyro
    python benchmarks/latent.py digits --backend numpyro

Iris: each of five splits has 75 rows for training and 75 for the test, stratified. The network is chosen once, by the
evidence of 23 rows kept out of the training half of split 0, and fitted to the training half of every split. 75 rows
drawn from the fit are compared with the 75 test rows by the energy distance (Szekely and Rizzo 2004), columns divided
by their spread in the training half; p-value by 9999 permutations. Beside it the same test between training half and
test half, what two samples of the truth give.

Digits: the rows and the transform of benchmarks/density.py; the network is chosen by the evidence of the validation
rows, and the test rows are scored once, by importance sampling; the first 40 also by annealed importance sampling.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from density import PIXELS, digits
from scipy.spatial.distance import cdist
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import ugmm_ppl as up

IRIS: dict[str, dict[str, Any]] = {
    "2-4, classes": {"sizes": (2, 4), "classes": 3},
    "4-4, classes": {"sizes": (4, 4), "classes": 3},
    "4-4, classes, 2 components": {"sizes": (4, 4), "classes": 3, "components": 2},
    "2-4, 3 components": {"sizes": (2, 4), "components": 3},
    "4-4, 3 components": {"sizes": (4, 4), "components": 3},
    "2-6-4, classes": {"sizes": (2, 6, 4), "classes": 3},
}
IRIS_SETTINGS: dict[str, Any] = {"num_steps": 2000, "learning_rate": 0.02, "seed": 0, "progress": False}

DIGITS: dict[str, dict[str, Any]] = {
    "24-64, 3 components": {"sizes": (24, 64), "components": 3},
    "32-64": {"sizes": (32, 64)},
    "64-64, 2 components": {"sizes": (64, 64), "components": 2},
    "16-48-64": {"sizes": (16, 48, 64)},
}
DIGITS_SETTINGS: dict[str, Any] = {
    "method": "map", "num_steps": 3000, "batch_size": 128, "learning_rate": 0.01, "seed": 0, "progress": False,
}  # fmt: skip


def energy_test(a: np.ndarray, b: np.ndarray, permutations: int = 9999) -> tuple[float, float]:
    """Energy distance of two samples, and the p-value of the hypothesis that they are of one distribution."""
    both = np.concatenate([a, b])
    distances, rng = cdist(both, both), np.random.default_rng(0)

    def statistic(order: np.ndarray) -> float:
        one, other = order[: len(a)], order[len(a) :]
        across, within = distances[np.ix_(one, other)], (distances[np.ix_(part, part)] for part in (one, other))
        return float(2.0 * across.mean() - sum(part.mean() for part in within))

    observed = statistic(np.arange(len(both)))
    above = sum(statistic(rng.permutation(len(both))) >= observed for _ in range(permutations))
    return observed, (1 + above) / (1 + permutations)


def fit_iris(change: dict[str, Any], x: np.ndarray, y: np.ndarray, backend: str) -> Any:
    model = up.LatentNetwork(**change, encoder_widths=(32,))
    return up.fit(model, x, y if "classes" in change else None, backend=backend, **IRIS_SETTINGS)


def iris(backend: str) -> dict[str, Any]:
    x, y = load_iris(return_X_y=True)

    def halves(split: int) -> Any:
        return train_test_split(x, y, test_size=0.5, stratify=y, random_state=split)

    train_x, _, train_y, _ = halves(0)
    part_x, kept_x, part_y, _ = train_test_split(train_x, train_y, test_size=0.3, stratify=train_y, random_state=0)
    scores = {}
    for name, change in IRIS.items():
        found = fit_iris(change, part_x, part_y, backend).log_evidence(kept_x, num_samples=4000)
        scores[name] = found.total / len(kept_x)
        print(f"{name}: {scores[name]:.3f} nats a row of validation, error {found.total_error / len(kept_x):.3f}")
    chosen = max(scores, key=lambda name: scores[name])
    results = []
    for split in range(5):
        train_x, test_x, train_y, _ = halves(split)
        fit, spread = fit_iris(IRIS[chosen], train_x, train_y, backend), train_x.std(0)
        drawn = fit.sample(len(test_x), seed=split)
        by_model, by_data = (energy_test(a / spread, test_x / spread) for a in (drawn, train_x))
        density = fit.log_evidence(test_x, num_samples=4000).total / len(test_x)
        results.append({"energy": by_model[0], "p": by_model[1], "p_of_data": by_data[1], "test_log_density": density})
        print(chosen, split, results[-1], flush=True)
    return {"validation": scores, "chosen": chosen, "splits": results}


def images(backend: str) -> dict[str, Any]:
    x, y = digits()
    scores, fits = {}, {}
    for name, change in DIGITS.items():
        model = up.LatentNetwork(classes=10, encoder_widths=(128,), **change)
        fits[name] = up.fit(model, x["train"], y["train"], backend=backend, **DIGITS_SETTINGS)
        found = fits[name].log_evidence(x["validation"], num_samples=500)
        scores[name] = found.total / len(x["validation"]) / PIXELS
        print(f"{name}: {scores[name]:.4f} nats a dimension of validation", flush=True)
    chosen = max(scores, key=lambda name: scores[name])
    fit = fits[chosen]
    result: dict[str, Any] = {"validation": scores, "chosen": chosen}
    for method, samples, rows in (("importance", 1000, 360), ("importance", 1000, 40), ("annealed", 8, 40)):
        found = fit.log_evidence(x["test"][:rows], method=method, num_samples=samples, num_temperatures=100)
        name, entries = f"{method}, {rows} rows", rows * PIXELS
        result[name] = {
            "per_dimension": found.total / entries, "error": found.total_error / entries,
            "standard_error": float(found.value.std() / np.sqrt(rows) / PIXELS),
            "median_ess": float(np.median(found.ess)), "samples": samples,
        }  # fmt: skip
        print(name, result[name], flush=True)
    right = fit.posterior_class(x["test"], num_samples=1000).argmax(1) == y["test"]
    return result | {"accuracy": float(right.mean())}


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("what", choices=("iris", "digits"))
    parser.add_argument("--backend", default="numpyro")
    arguments = parser.parse_args()
    result = (iris if arguments.what == "iris" else images)(arguments.backend) | {"backend": arguments.backend}
    target = Path(__file__).parent / "results" / f"latent_{arguments.what}.json"
    target.write_text(json.dumps(result, indent=2) + "\n")
