"""Density of digits by circuits, beside Gaussian mixtures and kernel density; classes of half-seen digits.

    python benchmarks/density.py                                          # digits: results/density_digits.json
    UGMM_PPL_DATA=folder python benchmarks/density.py --parts mnist mnist-mixture   # density_mnist.json

Digits. The transform: z = logit(0.05 + 0.9 (pixel + u) / 17) with u uniform in [0, 1), drawn once, for pixels 0..16
(0.05 as Dinh et al. 2017, arXiv:1605.08803). All log densities are those of z, in nats per dimension, 64 of them. Rows:
1250 for training, 187 for validation and 360 for testing, by one permutation. Circuits keep the parameters of the best
validation score; mixtures and kernels the setting of the best one. The test rows are scored once, with what validation
chose.

Classes: the same rows with half of the pixels of each test row missing, chosen at random for every row. The circuit
integrates over them; the classifier of models/digits_classifier.py gets the mean of the training rows in their place.

MNIST. Pixels are codes 0..255 with a leaf of 256 probabilities each, so log2 p(x) / 784 is exact: bits per dimension.
5,000 training rows are for validation, which chooses when to stop. The Gaussian mixture is one of
pixels + u, fitted to 20,000 rows.
"""

import argparse
import json
import math
import os
import platform
import time
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import measure
import numpy as np
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.mixture import GaussianMixture
from sklearn.neighbors import KernelDensity

import ugmm_ppl as up
from ugmm_ppl.cli.run import load_model_file

ROOT = Path(__file__).parents[1]
PIXELS = 64
EDGE = 0.05


def digits() -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Transformed images and classes of train, validation and test."""
    images, labels = load_digits(return_X_y=True)
    inside = EDGE + (1.0 - 2.0 * EDGE) * (images + np.random.default_rng(1).uniform(size=images.shape)) / 17.0
    z = np.log(inside) - np.log1p(-inside)
    order = np.random.default_rng(0).permutation(len(z))
    parts = {"train": order[:1250], "validation": order[1250:1437], "test": order[1437:]}
    return {n: z[rows] for n, rows in parts.items()}, {n: labels[rows] for n, rows in parts.items()}


def scikit(z: dict[str, np.ndarray]) -> Iterator[dict[str, Any]]:
    """The best setting of every baseline by validation."""
    families = {
        "GaussianMixture, diagonal": [
            GaussianMixture(k, covariance_type="diag", reg_covar=reg, random_state=0)
            for k in (10, 20, 40, 60, 80)
            for reg in (1e-3, 1e-2, 5e-2)
        ],
        "GaussianMixture, full": [
            GaussianMixture(k, covariance_type="full", reg_covar=reg, random_state=0)
            for k in (1, 2, 3, 5, 8, 12, 20)
            for reg in (1e-2, 5e-2, 2e-1)
        ],
        "KernelDensity": [KernelDensity(bandwidth=h) for h in np.geomspace(0.2, 1.5, 12)],
    }
    for name, candidates in families.items():
        start = time.perf_counter()
        scored = [(float(m.fit(z["train"]).score_samples(z["validation"]).mean()), m) for m in candidates]
        best, model = max(scored, key=lambda pair: pair[0])
        test = model.score_samples(z["test"])
        yield row(name, best, test, time.perf_counter() - start, str(model))


def row(name: str, validation: float, test: np.ndarray, seconds: float, setting: str) -> dict[str, Any]:
    found = {
        "model": name,
        "setting": setting,
        "validation": validation / PIXELS,
        "test": float(test.mean()) / PIXELS,
        "standard_error": float(test.std() / np.sqrt(len(test))) / PIXELS,
        "seconds": round(seconds, 1),
    }
    print(found, flush=True)
    return found


def circuits(z: dict[str, np.ndarray], backend: str, steps: int, count: int) -> Iterator[dict[str, Any]]:
    """Circuits by EM and by MAP."""
    structures = {
        "Chow-Liu tree": up.chow_liu_tree(z["train"]),
        "quad tree": up.quad_tree(8, 8),
        "4 random trees": up.random_trees(PIXELS, 4),
    }
    em = {"method": "em", "num_steps": steps, "learning_rate": 1.0, "schedule": "constant"}
    by_adam = {"method": "map", "num_steps": 10 * steps, "learning_rate": 0.03, "batch_size": 128}
    plans = [
        ("quad tree", 32, 1, em), ("Chow-Liu tree", 32, 1, em),
        ("4 random trees", 16, 2, em), ("quad tree", 32, 1, by_adam),
    ]  # fmt: skip
    for structure, neurons, components, settings in plans[:count]:
        start = time.perf_counter()
        model = up.Circuit(PIXELS, structure=structures[structure], neurons=neurons, components=components)
        fit = up.fit(model, z["train"], backend=backend, validation=(z["validation"], None), progress=False, **settings)
        name = f"Circuit, {structure}, J={neurons}, M={components}, {settings['method']}"
        at = int(fit.score_steps[np.argmax(fit.scores[0])])
        seconds = time.perf_counter() - start
        yield row(name, float(fit.scores.max()), fit.log_density(z["test"]), seconds, f"step {at}")


def classes(
    z: dict[str, np.ndarray], y: dict[str, np.ndarray], backend: str, steps: int, neurons: int
) -> Iterator[dict[str, Any]]:
    """Accuracy on whole and on half-seen test rows; of the circuit also the density of whole rows."""
    half = np.where(np.random.default_rng(2).uniform(size=z["test"].shape) < 0.5, np.nan, z["test"])
    filled = np.where(np.isnan(half), z["train"].mean(0), half)

    def accuracy(name: str, probabilities: Callable[[np.ndarray], np.ndarray], seen: np.ndarray) -> dict[str, Any]:
        right = [float((probabilities(x).argmax(1) == y["test"]).mean()) for x in (z["test"], seen)]
        found = {"model": name, "whole": right[0], "half": right[1]}
        print(found, flush=True)
        return found

    start = time.perf_counter()
    circuit = up.Circuit(PIXELS, classes=10, structure=up.quad_tree(8, 8), neurons=neurons, components=1)
    fit = up.fit(
        circuit, z["train"], y["train"], backend=backend, validation=(z["validation"], y["validation"]), progress=False,
        method="em", num_steps=steps, learning_rate=1.0, schedule="constant",
    )  # fmt: skip
    name, seconds = f"Circuit with classes, quad tree, J={neurons}, M=1, em", time.perf_counter() - start
    density = fit.density()
    at = f"step {int(fit.score_steps[np.argmax(fit.scores[0])])}"
    whole = row(name, float(density.log_density(z["validation"]).mean()), density.log_density(z["test"]), seconds, at)
    yield whole | accuracy(name, density.posterior_class, half)
    logistic = LogisticRegression(max_iter=2000).fit(z["train"], y["train"])
    yield accuracy("LogisticRegression, mean imputation", logistic.predict_proba, filled)
    file = load_model_file(ROOT / "models" / "digits_classifier.py")

    def edges(rows: np.ndarray) -> np.ndarray:
        pixels = (1.0 / (1.0 + np.exp(-rows)) - EDGE) / (1.0 - 2.0 * EDGE)
        return file.edges(pixels.reshape(-1, 8, 8))

    network = up.fit(file.model, edges(z["train"]), y["train"], progress=False, **file.settings | {"backend": backend})
    name = "models/digits_classifier.py, mean imputation"
    yield accuracy(name, lambda x: network.predict(edges(x)).probs, filled)


PUBLISHED = {"hidden Chow-Liu tree (Liu et al. 2022, ICLR)": 1.20, "hierarchical VAE (the same)": 1.27}
"""Bits per dimension of MNIST elsewhere."""


BIT = 784.0 * math.log(2.0)
"""Nats of a bit per dimension."""


def mnist() -> list[np.ndarray]:
    """Pixels of train, validation and test."""
    with np.load(Path(os.environ["UGMM_PPL_DATA"]) / "mnist.npz", allow_pickle=False) as file:
        x, test = (file[key].reshape(-1, 784).astype(np.float32) for key in ("x_train", "x_test"))
    return [x[:55000], x[55000:], test]


def mnist_circuit(backend: str, neurons: int, epochs: int) -> dict[str, Any]:
    """Bits per dimension by a circuit of categorical leaves."""
    start, batch = time.perf_counter(), 500
    train, held, test = mnist()
    model = up.Circuit(
        784, structure=up.quad_tree(28, 28), neurons=neurons, leaves={k: up.Categorical(256) for k in range(784)}
    )
    fit = up.fit(
        model, train, backend=backend, method="em", validation=(held, None), batch_size=batch,
        num_steps=epochs * len(train) // batch, learning_rate=0.3, schedule="cosine", standardize=False,
    )  # fmt: skip
    bits = -fit.log_density(test) / BIT
    return {
        "model": f"Circuit, quad tree, J={neurons}, categorical leaves, {epochs} epochs of em",
        "validation": -float(fit.scores.max()) / BIT, "test": float(bits.mean()),
        "standard_error": float(bits.std() / math.sqrt(len(bits))), "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def mnist_mixture() -> dict[str, Any]:
    """Bits per dimension by a diagonal Gaussian mixture, its components and least variance by validation."""
    start, rng = time.perf_counter(), np.random.default_rng(0)
    train, held, test = (a + rng.uniform(size=a.shape).astype(np.float32) for a in mnist())
    some = train[:20000]
    candidates = [
        GaussianMixture(k, covariance_type="diag", reg_covar=reg, random_state=0)
        for k in (20, 50, 100)
        for reg in (1.0, 10.0, 100.0, 1000.0)
    ]
    scored = [(float(mixture.fit(some).score(held)), mixture) for mixture in candidates]
    best, mixture = max(scored, key=lambda pair: pair[0])
    return {
        "model": f"GaussianMixture, diagonal, {mixture.n_components} components, variances + {mixture.reg_covar:g}",
        "validation": -best / BIT, "test": -float(mixture.score(test)) / BIT,
        "seconds": round(time.perf_counter() - start, 1),
    }  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backend", default="numpyro")
    parser.add_argument("--steps", type=int, default=150, help="steps of EM; Adam takes ten times as many")
    parser.add_argument("--neurons", type=int, default=32, help="states of the circuit with classes")
    parser.add_argument("--circuits", type=int, default=4, help="how many of the circuits")
    parser.add_argument("--epochs", type=int, default=5, help="of MNIST")
    parser.add_argument("--parts", nargs="+", default=["circuits", "scikit", "classes"])
    options = parser.parse_args()
    if options.parts[0].startswith("mnist"):
        target = measure.RESULTS / "density_mnist.json"
        rows = json.loads(target.read_text())["bits_per_dimension"] if target.exists() else {}
        if "mnist" in options.parts:
            rows["circuit"] = mnist_circuit(options.backend, options.neurons, options.epochs)
        if "mnist-mixture" in options.parts:
            rows["mixture"] = mnist_mixture()
        print(rows)
        content = {"machine": measure.machine(), "backend": options.backend, "bits_per_dimension": rows}
        measure.write("density_mnist", content | {"published": PUBLISHED})
        return
    z, y = digits()
    target = ROOT / "benchmarks" / "results" / "density_digits.json"
    found = json.loads(target.read_text()) if target.exists() else {}
    found["machine"] = {"date": str(date.today()), "machine": platform.platform(), "backend": options.backend}
    makers = {
        "circuits": lambda: circuits(z, options.backend, options.steps, options.circuits),
        "scikit": lambda: scikit(z),
        "classes": lambda: classes(z, y, options.backend, options.steps, options.neurons),
    }
    for part in options.parts:
        found[part] = []
        for each in makers[part]():
            found[part].append(each)
            target.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
