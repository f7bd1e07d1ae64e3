"""Simulation-based calibration of NUTS and of mean-field SVI on one neuron: NUTS passes, mean field does not.

    python benchmarks/sbc.py [--backend numpyro] [--simulations 400]

The model is a regressor of one neuron with two inputs, twelve parameters and twenty rows. Each simulation draws the
parameters from the prior and the data from the model; the ranks of the true parameters among draws of the fit are
uniform if the fit is the posterior. "wrong density" is NUTS whose data come from another likelihood.
Writes benchmarks/results/sbc.json, and docs/images/sbc.png with --picture.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import measure
import numpy as np
from matplotlib.figure import Figure
from scipy import stats

import ugmm_ppl as up
from ugmm_ppl.calibration import Calibration, sbc

DRAWS = 19
SHOWN = ("layers.0.loc[0,0]", "layers.0.log_scale[0,0]", "readout.weight[1,0]", "readout.bias[1]", "log_likelihood")
X = np.random.default_rng(0).normal(size=(20, 2))
PRIOR = up.Prior(
    loc=up.dist.Normal(0.0, 0.5),
    log_scale=up.dist.Normal(0.3, 0.3),
    readout=up.dist.Normal(0.0, np.array([[0.5], [0.5], [0.1]])),
    readout_bias=up.dist.Normal(0.0, np.array([1.0, 1.0, 0.3])),
)
MODEL = up.Regressor(up.Network((2, 1), normalization=None), 1, prior=PRIOR)


class Shifted(up.likelihoods.Mixture):
    """Data that lie half a unit higher, and closer, than the fit supposes."""

    def of(self, ops: Any, outputs: Any) -> Any:
        """Moved and narrowed."""
        found = super().of(ops, outputs)
        return found | {"loc": found["loc"] + 0.5, "scale": 0.5 * found["scale"]}


WRONG = up.Model(MODEL.network, Shifted(1), PRIOR)
CONTENDERS: dict[str, dict[str, Any]] = {
    "NUTS": {"method": "nuts"},
    "NUTS, wrong density": {
        "method": "nuts",
        "model": WRONG,
        "fitted": MODEL,
    },
    "mean field": {"method": "svi", "num_steps": 3000, "learning_rate": 0.02},
    "full covariance": {"method": "svi", "guide": "full", "num_steps": 3000, "learning_rate": 0.02},
}


def picture(found: dict[str, Calibration], path: Path) -> None:
    """Rank histograms, with the middle 95 % of what uniform ranks have."""
    figure = Figure(figsize=(2.1 * len(SHOWN), 1.7 * len(found)), layout="constrained")
    axes = figure.subplots(len(found), len(SHOWN), squeeze=False)
    for line, (name, calibration) in zip(axes, found.items(), strict=True):
        for axis, quantity in zip(line, SHOWN, strict=True):
            counts = calibration.histogram(quantity)
            low, high = stats.binom(counts.sum(), 1.0 / len(counts)).ppf([0.025, 0.975])
            axis.axhspan(low, high, color="0.85", lw=0)
            axis.bar(np.arange(len(counts)), counts, width=1.0, color="C0")
            axis.set(xticks=[], yticks=[])
        line[0].set_ylabel(name)
    for axis, quantity in zip(axes[0], SHOWN, strict=True):
        axis.set_title(quantity, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", default="numpyro", choices=("numpyro", "pyro"))
    parser.add_argument("--simulations", type=int, default=400)
    parser.add_argument("--picture", action="store_true")
    options = parser.parse_args()
    found, rows = {}, []
    for name, settings in CONTENDERS.items():
        start = time.perf_counter()
        found[name] = sbc(
            **{"model": MODEL} | settings, x=X, num_simulations=options.simulations, num_draws=DRAWS, thin=4,
            backend=options.backend, progress=False,
        )  # fmt: skip
        row = {"contender": name, "p_value": found[name].p_value, "p_values": found[name].p_values}
        row |= {"symmetry": found[name].symmetry, "seconds": time.perf_counter() - start}
        rows.append(row | {"histograms": {n: found[name].histogram(n).tolist() for n in found[name].ranks}})
        print(f"{name:22} p-value {row['p_value']:.3g}, {row['seconds']:.0f} s", flush=True)
    content = {"machine": measure.machine(), "backend": options.backend, "simulations": options.simulations}
    measure.write("sbc", content | {"draws": DRAWS, "results": rows})
    if options.picture:
        picture(found, Path(__file__).parents[1] / "docs" / "images" / "sbc.png")


if __name__ == "__main__":
    main()
