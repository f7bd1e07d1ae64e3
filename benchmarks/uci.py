"""Regression on tables: concrete, energy and yacht, the 20 standard splits of each (Hernandez-Lobato and Adams 2015).

    UGMM_PPL_DATA=folder python benchmarks/uci.py [--sets yacht] [--contenders ugmm] [--splits 5] [--validation]

One configuration for all three sets, chosen on training rows (`--validation` scores a tenth of them in place of the
test rows): 50 neurons, three output components, mean-field SVI from eight restarts, every step's batch dealt out to
eight draws of the guide. Beside it temperature 1, networks of rectified linear units of as many parameters under the
same training, and scikit-learn's gradient boosting and Gaussian process. Log likelihoods are in nats per row, in the
units of the data. The folder holds uci/<set>.npz with x, y and test_mask `(20, rows)`.
Adds to benchmarks/results/uci.json (uci_validation.json), set by set and contender by contender.
"""

from __future__ import annotations

import argparse
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import measure
import numpy as np
import relu
from scipy import stats
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.gaussian_process import GaussianProcessRegressor, kernels
from sklearn.model_selection import cross_val_predict

import ugmm_ppl as up

SETS = ("concrete", "energy", "yacht")
NEURONS, COMPONENTS, DRAWS = 50, 3, 20
SETTINGS = {
    "method": "svi", "guide": "normal", "temperature": 0.03, "num_restarts": 8, "num_steps": 3000, "batch_size": 128,
    "learning_rate": 0.01, "init_scale": 0.02, "num_particles": 8, "split_batch": True,
}  # fmt: skip
OF_GUIDES = ("guide", "init_scale")
NUTS = {
    "method": "nuts", "start": "map", "temperature": 1.0, "num_chains": 4, "num_warmup": 100, "num_draws": 100,
    "max_tree_depth": 6,
}  # fmt: skip
PUBLISHED = {  # (mean test log likelihood, mean RMSE) of tuned Monte Carlo dropout, on these splits
    "concrete": (-2.937, 4.826), "energy": (-1.212, 0.539), "yacht": (-1.250, 0.666),
}  # fmt: skip
Scores = tuple[float, float, int | None]  # log likelihood, RMSE, parameters


def prior(neurons: int) -> up.Prior:
    """Wide enough a readout for sharp densities, and a noise level that begins small."""
    location, spread = np.repeat([0.0, 0.0, -2.0], COMPONENTS), np.repeat([1.0, 1.0, 0.5], COMPONENTS)
    return up.Prior(
        readout=up.dist.Normal(0.0, 3.0 / math.sqrt(neurons)), readout_bias=up.dist.Normal(location, spread)
    )


def ugmm(features: int) -> Any:
    """The model of the default configuration."""
    return up.Regressor(up.Network((features, NEURONS)), COMPONENTS, prior(NEURONS))


def rectified(features: int) -> Any:
    """A network of rectified linear units of as many parameters."""
    sizes = relu.widths_of_size((features, NEURONS), 3 * COMPONENTS, relu.count(ugmm(features)))
    return up.Regressor(relu.relu_network(sizes), COMPONENTS, prior(sizes[-1]))


def _settings(changes: dict[str, Any]) -> dict[str, Any]:
    """The settings with changes, without those that NUTS does not have."""
    found = SETTINGS | changes
    return {name: value for name, value in found.items() if found["method"] == "svi" or name not in OF_GUIDES}


def network(
    make: Callable[[int], Any], **changes: Any
) -> Callable[[np.ndarray, np.ndarray, np.ndarray, np.ndarray, int, str], Scores]:
    """A contender that is fitted by the project."""

    def run(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray, seed: int, backend: str) -> Scores:
        model = make(x.shape[1])
        fit = up.fit(model, x, y, backend=backend, seed=1000 * seed, progress=False, **_settings(changes))
        predicted = fit.predict(x_new, num_draws=None if fit.method == "nuts" else DRAWS)
        error = math.sqrt(((predicted.mean - y_new) ** 2).mean())
        return float(predicted.log_density(y_new).mean()), error, relu.count(model)

    return run


def boosting(x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray, seed: int, backend: str) -> Scores:
    """Gradient boosting, with a normal density as wide as its errors in five-fold cross-validation."""
    del backend
    trees = HistGradientBoostingRegressor(random_state=seed)
    noise = math.sqrt(((cross_val_predict(trees, x, y, cv=5) - y) ** 2).mean())
    mean = trees.fit(x, y).predict(x_new)
    score = stats.norm.logpdf(y_new, mean, noise).mean()
    return float(score), math.sqrt(((mean - y_new) ** 2).mean()), None


def gaussian_process(
    x: np.ndarray, y: np.ndarray, x_new: np.ndarray, y_new: np.ndarray, seed: int, backend: str
) -> Scores:
    """A length scale per input and a noise level, by maximum marginal likelihood."""
    del backend
    centre, spread = x.mean(0), np.where(x.std(0) > 0.0, x.std(0), 1.0)
    kernel = kernels.ConstantKernel() * kernels.RBF(np.ones(x.shape[1])) + kernels.WhiteKernel(0.1)
    process = GaussianProcessRegressor(kernel, normalize_y=True, random_state=seed)
    process.fit((x - centre) / spread, y)
    mean, deviation = process.predict((x_new - centre) / spread, return_std=True)
    score = stats.norm.logpdf(y_new, mean, deviation).mean()
    return float(score), math.sqrt(((mean - y_new) ** 2).mean()), None


CONTENDERS: dict[str, Callable[..., Scores]] = {
    "ugmm": network(ugmm),
    "ugmm, temperature 1": network(ugmm, temperature=1.0),
    "ugmm, NUTS from MAPs, temperature 1": network(ugmm, **NUTS),
    "ugmm, one draw a step": network(ugmm, num_particles=1, split_batch=False),
    "ugmm, one restart": network(ugmm, num_restarts=1),
    "relu": network(rectified),
    "relu, temperature 1": network(rectified, temperature=1.0),
    "gradient boosting": boosting,
    "Gaussian process": gaussian_process,
}


def rows_of(mask: np.ndarray, split: int, *, validation: bool) -> tuple[np.ndarray, np.ndarray]:
    """Numbers of the rows to train on and to score."""
    train, test = np.flatnonzero(~mask), np.flatnonzero(mask)
    if validation:
        order = np.random.default_rng(1000 + split).permutation(train)
        count = max(30, round(0.1 * len(train)))
        train, test = np.sort(order[count:]), np.sort(order[:count])
    return train, test


def run(name: str, contender: str, splits: int, *, validation: bool, backend: str) -> dict[str, Any]:
    """All splits of a set by one contender."""
    table = np.load(Path(os.environ["UGMM_PPL_DATA"]) / "uci" / f"{name}.npz")
    scores = []
    for split in range(splits):
        train, test = rows_of(table["test_mask"][split], split, validation=validation)
        x, y = (table[key].astype(np.float64) for key in ("x", "y"))
        scores.append(CONTENDERS[contender](x[train], y[train], x[test], y[test], split, backend))
        score, error, _ = scores[-1]
        print(f"{name:9}{contender:36}{split:3}{score:9.3f}{error:8.3f}", flush=True)
    found = {"set": name, "contender": contender, "splits": splits, "parameters": scores[0][2], "backend": backend}
    for i, measured in enumerate(("log_likelihood", "rmse")):
        values = np.array([score[i] for score in scores])
        spread = float(values.std(ddof=1) / math.sqrt(splits)) if splits > 1 else None
        found[measured] = {"mean": float(values.mean()), "standard_error": spread, "values": values.tolist()}
    return found


def place(row: dict[str, Any]) -> tuple[int, int]:
    """Where a row of the results belongs."""
    return SETS.index(row["set"]), list(CONTENDERS).index(row["contender"])


def print_table(results: list[dict[str, Any]]) -> None:
    for name in dict.fromkeys(row["set"] for row in results):
        print(f"\n{name}: test log likelihood, RMSE (standard errors); tuned MC dropout {PUBLISHED[name]}")
        for row in results:
            if row["set"] == name:
                told = "  ".join(
                    f"{row[m]['mean']:8.3f} ({row[m]['standard_error'] or math.nan:.3f})"
                    for m in ("log_likelihood", "rmse")
                )
                size = "" if row["parameters"] is None else f"{row['parameters']:6} parameters"
                print(f"  {row['contender']:36}{told}  {row['splits']:3} splits {size}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sets", nargs="+", default=SETS, choices=SETS)
    parser.add_argument("--contenders", nargs="+", default=list(CONTENDERS), choices=list(CONTENDERS))
    parser.add_argument("--splits", type=int, default=20)
    parser.add_argument("--backend", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--validation", action="store_true", help="score a tenth of the training rows")
    options = parser.parse_args()
    name = "uci_validation" if options.validation else "uci"
    path = measure.RESULTS / f"{name}.json"
    for data_set in options.sets:
        for contender in options.contenders:
            row = run(data_set, contender, options.splits, validation=options.validation, backend=options.backend)
            content = json.loads(path.read_text()) if path.is_file() else {"results": []}
            kept = [r for r in content["results"] if (r["set"], r["contender"]) != (data_set, contender)]
            content = {
                "machine": measure.machine(), "settings": SETTINGS, "published": PUBLISHED,
                "results": sorted([*kept, row], key=place),
            }  # fmt: skip
            measure.write(name, content)
    print_table(content["results"])


if __name__ == "__main__":
    main()
