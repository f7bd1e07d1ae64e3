"""Make the pictures of docs/circuits.md from real fits: `python docs/make_circuit_pictures.py BACKEND [NAME ...]`.

BACKEND is numpyro or pyro; NAME is trees, digits or wine. Writes docs/images/circuit_trees.png, circuit_samples.png and
circuit_completions.png (models/digits_circuit.py), and circuit_imputations.png (models/wine_impute.py).
"""

import sys
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from sklearn.datasets import load_wine

import ugmm_ppl as up
from ugmm_ppl.cli.run import load_model_file

ROOT = Path(__file__).parents[1]
IMAGES = ROOT / "docs" / "images"


def tiles(rows: list[tuple[str, np.ndarray]], path: Path) -> None:
    """Rows of 8 x 8 images, each with a name; NaN is drawn in blue."""
    count = len(rows[0][1])
    figure = Figure(figsize=(0.8 * count + 1.6, 0.85 * len(rows)), layout="constrained")
    axes = figure.subplots(len(rows), count, squeeze=False)
    for line, (name, images) in zip(axes, rows, strict=True):
        for axis, image in zip(line, images, strict=True):
            axis.set(xticks=[], yticks=[], facecolor="#9db8dd")
            axis.imshow(np.ma.masked_invalid(image.reshape(8, 8)), cmap="gray_r", vmin=0.0, vmax=17.0)
        line[0].set_ylabel(name, rotation=0, ha="right", va="center")
    figure.savefig(path, dpi=110)


def trees(_: str) -> None:
    """The trees of the wine model."""
    file = load_model_file(ROOT / "models" / "wine_impute.py")
    file.model.plot(file.data().feature_names, trees=2).savefig(IMAGES / "circuit_trees.png", dpi=110)


def digits(backend: str) -> None:
    """Samples by class, and half-hidden test digits with draws and a mode of the hidden half."""
    file = load_model_file(ROOT / "models" / "digits_circuit.py")
    data = file.data()
    fit = up.fit(file.model, data.x, data.y, progress=False, backend=backend, **file.settings)
    density = fit.density()
    samples = [np.stack([density.sample(4, label, seed=label)[i] for label in range(10)]) for i in range(4)]
    tiles(
        [("samples" if i == 0 else "", file.to_pixels(rows)) for i, rows in enumerate(samples)],
        IMAGES / "circuit_samples.png",
    )
    first = np.array([np.flatnonzero(data.y_test == label)[0] for label in range(10)])
    whole = data.x_test[first]
    half = np.where(np.arange(64) < 32, whole, np.nan)
    draws = density.conditional_sample(half, 3, seed=0)
    found = density.most_probable(half)
    rows = [
        ("test digit", whole),
        ("seen", half),
        *(("draw", draw) for draw in draws),
        ("expectation", density.expectation(half)),
        ("mode", found.x),
    ]
    tiles([(name, file.to_pixels(images)) for name, images in rows], IMAGES / "circuit_completions.png")


def wine(backend: str) -> None:
    """Hidden test values beside the 90 % interval of their imputations."""
    file = load_model_file(ROOT / "models" / "wine_impute.py")
    data = file.data()
    fit = up.fit(
        file.model, data.x, data.y, progress=False, feature_names=data.feature_names, backend=backend, **file.settings
    )
    truth = load_wine().data
    of_row = [int(np.flatnonzero(np.nanmax(np.abs(truth - row), axis=1) == 0.0)[0]) for row in data.x_test]
    imputed, missing = fit.impute(data.x_test, 200, seed=0), np.isnan(data.x_test)
    low, high = imputed.quantile(0.05), imputed.quantile(0.95)
    spread, centre = truth.std(0), truth.mean(0)
    standard = [(a - centre) / spread for a in (truth[of_row], imputed.mean, low, high)]
    shown = np.argwhere(missing)
    shown = shown[np.argsort(standard[0][tuple(shown.T)])]
    values, mean, low, high = (a[tuple(shown.T)] for a in standard)
    covered = float(((values >= low) & (values <= high)).mean())
    figure = Figure(figsize=(8.0, 3.4), layout="constrained")
    axis = figure.subplots()
    at = np.arange(len(shown))
    axis.vlines(at, low, high, color="#9db8dd", lw=2.5, label="90 % interval")
    axis.plot(at, mean, ".", color="#3b6fb6", ms=4, label="mean of the imputations")
    axis.plot(at, values, "x", color="#d9822b", ms=4, label="hidden value")
    axis.set(
        xlabel="hidden values of the test rows, sorted",
        ylabel="standard deviations",
        title=f"{covered:.0%} of {len(at)} lie in the interval",
    )
    axis.legend(frameon=False, loc="lower right")
    figure.savefig(IMAGES / "circuit_imputations.png", dpi=110)
    print(f"coverage {covered:.3f} of {len(at)}")


if __name__ == "__main__":
    for name in sys.argv[2:] or ["trees", "digits", "wine"]:
        {"trees": trees, "digits": digits, "wine": wine}[name](sys.argv[1])
