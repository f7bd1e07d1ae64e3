"""What half precision costs in predictions: the layers of fitted networks with bfloat16 and float16 tensors.

    python benchmarks/half_precision.py

The model files of Iris, digits and diabetes are fitted in float32 by SVI on Pyro. Then the test rows are predicted from
the same 50 draws of the posterior, with all that goes into equation (2) and comes out of it in half precision. Given is
the change of the log likelihood of a test row, in nats: its mean, its standard deviation, the largest.
Writes benchmarks/results/half_precision.json.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any
from unittest import mock

import measure
import numpy as np
import torch
from scipy.special import logsumexp

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.cli.run import load_model_file

MODELS = Path(__file__).parents[1] / "models"
FILES = ("iris_classifier", "digits_classifier", "diabetes_regressor")
OF_MAP = {"method": "svi", "num_steps": 1000, "temperature": 0.1, "num_restarts": 1}
"""Settings for a file that asks for MAP."""
DRAWS = 50


def per_row(fit: up.Fit, data: up.Data) -> np.ndarray:
    """Log likelihood of every test row, (B,)."""
    draws = fit.log_likelihood(data.x_test, data.y_test, DRAWS)
    return logsumexp(draws.reshape(-1, draws.shape[-1]), axis=0) - np.log(DRAWS)


def changes(name: str) -> list[dict[str, Any]]:
    """One model file."""
    file = load_model_file(MODELS / f"{name}.py")
    data, ops = file.data(), load_backend("pyro").ops
    settings = file.settings | (OF_MAP if file.settings["method"] == "map" else {})
    fit = up.fit(file.model, data.x, data.y, backend="pyro", progress=False, **settings)
    exact, activation, rows = per_row(fit, data), ops.activation, []
    for dtype in (torch.bfloat16, torch.float16):

        def half(*arguments: Any, dtype: torch.dtype = dtype) -> torch.Tensor:
            return activation(*(a.to(dtype) if torch.is_tensor(a) else a for a in arguments)).float()

        with mock.patch.object(type(ops), "activation", staticmethod(half)):
            change = per_row(fit, data) - exact
        rows.append({
            "model": name, "dtype": str(dtype).removeprefix("torch."), "log_likelihood": float(exact.mean()),
            "mean_change": float(change.mean()), "sd": float(change.std()), "largest": float(np.abs(change).max()),
        })  # fmt: skip
        print(rows[-1])
    return rows


def main() -> None:
    """All model files."""
    rows = [row for name in FILES for row in changes(name)]
    print(measure.write("half_precision", {"machine": measure.machine(), "rows": rows}))


if __name__ == "__main__":
    main()
