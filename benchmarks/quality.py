"""Test quality of the model files over several splits, on both backends, beside a baseline.

    python benchmarks/quality.py --splits 5 --backends numpyro pyro

Baselines: BayesianRidge for the regressor, LogisticRegression (standardised) for the classifiers. Settings are those of
the model files, which were chosen by validation inside the training part of split 0. Writes
benchmarks/results/quality_MODEL.json.
"""

import argparse
import json
import platform
import time
from datetime import date
from pathlib import Path

import numpy as np
from scipy import stats
from sklearn.linear_model import BayesianRidge, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import ugmm_ppl as up
from ugmm_ppl.cli.run import load_model_file
from ugmm_ppl.metrics import evaluate

ROOT = Path(__file__).parents[1]


def baseline(data: up.Data, real: bool) -> dict[str, float]:
    if real:
        ridge = BayesianRidge().fit(data.x, data.y)
        mean, sd = ridge.predict(data.x_test, return_std=True)
        return {
            "log_likelihood": float(stats.norm.logpdf(data.y_test, mean, sd).mean()),
            "rmse": float(np.sqrt(np.mean((mean - data.y_test) ** 2))),
        }
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=5000)).fit(data.x, data.y)
    log_probs = model.predict_log_proba(data.x_test)
    return {
        "log_likelihood": float(log_probs[np.arange(len(data.y_test)), data.y_test].mean()),
        "accuracy": float((log_probs.argmax(-1) == data.y_test).mean()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--backends", nargs="+", default=["numpyro", "pyro"])
    parser.add_argument("--models", nargs="+", default=["iris_classifier", "digits_classifier", "diabetes_regressor"])
    options = parser.parse_args()
    machine = {"date": str(date.today()), "machine": platform.platform(), "python": platform.python_version()}
    results = ROOT / "benchmarks" / "results"
    results.mkdir(exist_ok=True)
    for name in options.models:
        rows = []
        file = load_model_file(ROOT / "models" / f"{name}.py")
        for split in range(options.splits):
            data = file.data(split)
            real = file.model.likelihood.standardizes
            rows.append({"model": name, "split": split, "fit": "baseline", **baseline(data, real)})
            for backend in options.backends:
                start = time.perf_counter()
                fit = up.fit(file.model, data.x, data.y, progress=False, **file.settings | {"backend": backend})
                seconds = time.perf_counter() - start
                found = evaluate(fit.predict(data.x_test), data.y_test)
                rows.append({"model": name, "split": split, "fit": backend, **found, "seconds": seconds})
                print(rows[-1], flush=True)
        for kind in ("baseline", *options.backends):
            mine = [row for row in rows if row["fit"] == kind]
            keys = [key for key in mine[0] if key not in ("model", "split", "fit")]
            print(name, kind, {key: round(float(np.mean([row[key] for row in mine])), 4) for key in keys}, flush=True)
        target = results / f"quality_{name}.json"
        target.write_text(json.dumps({"machine": machine, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
