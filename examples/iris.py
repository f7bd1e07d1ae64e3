"""The whole way in Python: data, prior, prior predictive, fit, predict, diagnose, save, load.

You learn the objects of the library one after the other on Fisher's Iris data: a `Network`, a `Prior`, a
`Classifier`; `fit`; the `Fit` with its predictions and draws; and the ArviZ tree. Run it on either backend,
with `python examples/iris.py --backend pyro`.
"""

import argparse
import tempfile
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import ugmm_ppl as up

with warnings.catch_warnings():
    warnings.simplefilter("ignore", FutureWarning)  # ArviZ 0.23 announces 1.0
    import arviz as az


def main(arguments: Sequence[str] | None = None) -> None:
    """Run every step and print a line or two about each."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--steps", type=int, default=2000, help="steps of SVI, per restart")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args(arguments)
    steps, draws = (30, 20) if options.smoke else (options.steps, 500)

    # Data: plain arrays. `fit` standardises the columns and keeps the constants.
    iris = load_iris()
    x, x_test, y, y_test = train_test_split(
        iris.data, iris.target, test_size=0.3, stratify=iris.target, random_state=options.seed
    )

    # Model: prior + network + likelihood, in one description for both backends.
    prior = up.Prior(
        loc=up.dist.Normal(0.0, 1.0),
        log_scale=up.dist.Normal(-0.5, 0.5),
        logits=up.dist.Normal(0.0, 1.0),
        readout=up.dist.Normal(0.0, 0.5),
    )
    model = up.Classifier(up.Network(sizes=(4, 16)), classes=3, prior=prior)

    # Prior predictive: how sure is the model of a class before it has seen data?
    standardised = (x - x.mean(0)) / x.std(0)
    before = prior.predictive(model, standardised, num_draws=draws, backend=options.backend, seed=options.seed)
    logits = before["outputs"] - before["outputs"].max(-1, keepdims=True)  # (S, B, classes)
    confidence = (np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)).max(-1)
    print(f"prior predictive: mean top probability {confidence.mean():.2f}, between 1/3 (no opinion) and 1")

    # Fit: two runs from different starts, which become two chains.
    fit = up.fit(
        model, x, y, backend=options.backend, method="svi", guide="normal", num_steps=steps,
        learning_rate=0.02, num_restarts=2,
        seed=options.seed, feature_names=iris.feature_names, class_names=iris.target_names, progress=False,
    )  # fmt: skip
    print(f"fit: negative ELBO {fit.losses[:, 0].round(1)} -> {fit.losses[:, -1].round(1)} nats")

    # Predict: probabilities averaged over the posterior, and how far the draws differ.
    prediction = fit.predict(x_test, num_draws=draws)
    print(
        f"test accuracy {np.mean(prediction.label == y_test):.3f}, "
        f"log likelihood {prediction.log_density(y_test).mean():.3f} nats per row"
    )
    least_sure = int(prediction.probs.max(-1).argmin())
    spread = prediction.draws[:, :, least_sure].std((0, 1))
    print(
        f"least sure of row {least_sure}: p = {prediction.probs[least_sure].round(2)}, sd over draws {spread.round(2)}"
    )

    # Diagnose: one ArviZ tree, with named dimensions.
    tree = fit.to_arviz(num_draws=draws, num_prior_draws=20, derived=True)
    scales = tree["posterior"]["layers.0.scale"].mean(("chain", "draw"))
    narrow = scales.min("neuron_0").to_series().idxmin()
    print(f"narrowest component: of input {narrow!r}, scale {float(scales.min()):.2f} standard deviations")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a high Pareto k is part of what we look at
        loo = az.loo(tree, pointwise=True)
    elpd = float(loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd)  # ArviZ 0.2x, 1.x
    print(f"PSIS-LOO: elpd {elpd:.1f} nats, largest Pareto k {float(loo.pareto_k.max()):.2f}")

    # Save and load: no pickle, no training data in the file.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "iris.npz"
        fit.save(path)
        again = up.load(path).predict(x_test, num_draws=draws)
        same = np.array_equal(again.probs, prediction.probs)
        print(f"loaded from {path.stat().st_size / 1024:.0f} KiB; the same predictions: {same}")


if __name__ == "__main__":
    main()
