"""The plots of a run, as PNG files."""

from __future__ import annotations

from collections.abc import Container, Iterable
from pathlib import Path
from typing import Any

import numpy as np

from ugmm_ppl.arviz.plots import plot_forest
from ugmm_ppl.likelihoods.categorical import ClassPrediction
from ugmm_ppl.likelihoods.outcome import Survival
from ugmm_ppl.metrics import expected_calibration_error, reliability
from ugmm_ppl.posterior.predictive import Predictive
from ugmm_ppl.typing import PerRow

DATA, MODEL = "0.35", "C0"


def write_plots(
    fit: Predictive, tree: Any, prediction: Any, y: PerRow, predictive: np.ndarray, folder: Path
) -> list[Path]:
    """Write the plots of a fit.

    Args:
        fit: The fit.
        tree: Its ArviZ tree, with derived `scale` and `weights`.
        prediction: Its prediction of held-out rows.
        y: What was observed there `(B,)`.
        predictive: Draws of y for the same rows, `(C, S, B)`.
        folder: Where to write.

    Returns:
        The files.
    """
    import matplotlib as mpl

    mpl.use("Agg")
    files = [folder / "posterior_predictive.png", folder / "forest.png"]
    if fit.losses.size:
        plot_losses(fit, folder / "loss.png")
        files.insert(0, folder / "loss.png")
    if isinstance(prediction, ClassPrediction):
        plot_class_check(fit, predictive, y, files[-2])
        files.append(folder / "reliability.png")
        plot_reliability(prediction, y, files[-1])
    else:
        plot_density_check(predictive, y, files[-2])
        files.append(folder / "predicted.png")
        plot_predicted(prediction, y, files[-1])
    plot_forest(tree, *forest_sites(fit, tree), folder / "forest.png")
    return files


def forest_sites(fit: Predictive, tree: Any) -> tuple[list[str], dict[str, Any]]:
    """Variables of the forest plot, and the coordinates at which they are shown."""
    posterior = tree["posterior"]
    if "roots.weights" in posterior:
        return ["roots.weights"], {"root_state": range(8)}
    if fit.model.observed == "x":  # the layer of the data
        layer = fit.model.readout_sites.removesuffix("*")
        columns, units = posterior[f"{layer}loc"].dims[2:]
        names = [f"{layer}{role}" for role in ("loc", "gain", "weights") if f"{layer}{role}" in posterior]
        return names, {columns: posterior[columns].values[:2], units: posterior[units].values[:4]}
    names = of_features(fit.model, ("layers.0.scale", "layers.0.weights"), posterior)
    if names:
        return names, {"neuron_0": leading_neurons(tree), "input_0": fit.feature_names[:8]}
    first = next(name for name in fit.model.sites if name in posterior)
    return [first], {dim: posterior[dim].values[:4] for dim in posterior[first].dims[2:]}


def of_features(model: Any, names: Iterable[str], there: Container[str]) -> list[str]:
    """Those of the sites that are there, and that neurons of the first layer have for each column of x."""
    axes = model.axes()
    return [name for name in names if name in there and axes[name][0] == ["neuron_0", "input_0"]]


def leading_neurons(tree: Any, count: int = 2) -> list[int]:
    """Numbers of the first layer's neurons that the readout weighs most; the first ones where it sees other layers."""
    posterior = tree["posterior"]
    width = posterior.sizes["neuron_0"]
    if "readout.weight" not in posterior or "neuron_0" not in posterior["readout.weight"].dims:
        return list(range(min(count, width)))
    strength = np.abs(posterior["readout.weight"].values).mean((0, 1, 2))
    return sorted(int(j) for j in np.argsort(-strength)[:count])


def plot_losses(fit: Predictive, path: Path) -> None:
    """Loss of each restart against the step."""
    figure, axis = _figure()
    for i, losses in enumerate(fit.losses):
        axis.plot(losses, lw=0.8, label=f"restart {i}")
    finite = fit.losses[np.isfinite(fit.losses)]
    low, high = np.quantile(finite, [0.0, 0.98]) if finite.size else (0.0, 1.0)
    axis.set_ylim(low - 0.05 * (high - low), high + 0.1 * (high - low))
    axis.set(
        xlabel="step",
        ylabel=f"{fit.inference.loss} (nats)",
        title="Loss",
    )
    if len(fit.losses) > 1:
        axis.legend(frameon=False)
    _write(figure, path)


def plot_class_check(fit: Predictive, predictive: np.ndarray, y: PerRow, path: Path) -> None:
    """Class counts observed and under the posterior predictive, with 90 % intervals."""
    names = fit.class_names or []
    counts = (predictive.reshape(-1, len(y))[:, :, None] == np.arange(len(names))).sum(1)  # (draws, classes)
    low, middle, high = np.quantile(counts, [0.05, 0.5, 0.95], axis=0)
    figure, axis = _figure()
    axis.bar(np.arange(len(names)), np.bincount(y, minlength=len(names)), color="0.8", label="observed")
    error = np.stack([middle - low, high - middle])
    axis.errorbar(np.arange(len(names)), middle, error, fmt="o", color=MODEL, capsize=4, label="predicted, 90 %")
    axis.set_xticks(np.arange(len(names)), names, rotation=30 if len(names) > 5 else 0)
    axis.set(ylabel="rows", title="Posterior predictive check: class counts")
    axis.legend(frameon=False)
    _write(figure, path)


def plot_density_check(predictive: np.ndarray, y: PerRow, path: Path) -> None:
    """Histogram of y observed, and of posterior predictive data sets."""
    figure, axis = _figure()
    edges = np.histogram_bin_edges(y, bins=min(30, max(8, len(y) // 8)))
    width = edges[1] - edges[0]
    edges = np.concatenate([edges[0] - width * np.arange(4, 0, -1), edges, edges[-1] + width * np.arange(1, 5)])
    for i, draw in enumerate(predictive.reshape(-1, len(y))[:50]):
        heights, _ = np.histogram(draw, edges)
        axis.stairs(heights, edges, color=MODEL, alpha=0.15, label="predicted" if i == 0 else None)
    axis.stairs(np.histogram(y, edges)[0], edges, color=DATA, lw=2, label="observed")
    axis.set(xlabel="y", ylabel="rows", title="Posterior predictive check")
    axis.legend(frameon=False)
    _write(figure, path)


def plot_reliability(prediction: ClassPrediction, y: PerRow, path: Path) -> None:
    """Accuracy against confidence, with the share of rows in each bin."""
    mean, right, share = reliability(prediction.probs, y)
    figure, axis = _figure()
    axis.plot([0, 1], [0, 1], color="0.6", ls="--", lw=1)
    axis.bar((np.arange(len(share)) + 0.5) / len(share), share, width=0.09, color="0.85", label="share of rows")
    seen = share > 0
    axis.plot(mean[seen], right[seen], "o-", color=MODEL, label="accuracy")
    ece = expected_calibration_error(prediction.probs, y)
    axis.set(
        xlabel="confidence",
        ylabel="accuracy",
        xlim=(0, 1),
        ylim=(0, 1.02),
        title=f"Reliability, ECE {ece:.3f}",
    )
    axis.legend(frameon=False, loc="upper left")
    _write(figure, path)


def plot_predicted(prediction: Any, y: PerRow, path: Path) -> None:
    """Observed against predicted mean, with 90 % intervals; of censored outcomes the median, of times by logarithm."""
    low, median, high = prediction.quantile(np.array([0.05, 0.5, 0.95]))
    centre, name = (median, "median") if isinstance(prediction, Survival) else (prediction.mean, "mean")
    figure, axis = _figure()
    axis.vlines(centre, low, high, color=MODEL, alpha=0.3, lw=1, label="90 % interval")
    axis.plot(centre, y, "o", ms=3, color=DATA, label="observed")
    ends = [min(y.min(), centre.min()), max(y.max(), centre.max())]
    axis.plot(ends, ends, color="0.6", ls="--", lw=1)
    axis.set(xlabel=f"predicted {name}", ylabel="y", title="Predicted and observed")
    if isinstance(prediction, Survival) and min(y.min(), low.min()) > 0.0:
        axis.set(xscale="log", yscale="log")
    axis.legend(frameon=False)
    _write(figure, path)


def _figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure  # without pyplot, whose list of figures is that of the user

    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    return figure, figure.subplots()


def _write(figure: Any, path: Path) -> None:
    figure.savefig(path, dpi=110)
