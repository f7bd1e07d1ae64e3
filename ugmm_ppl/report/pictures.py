"""The pictures of the report, as SVG that takes the colour of the text around it: right in light and in dark."""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import arviz, neuron
from ugmm_ppl.backends.threads import DRAWING, silence
from ugmm_ppl.likelihoods.outcome import Outcome
from ugmm_ppl.metrics import expected_calibration_error, reliability
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import PerRow, Probs, RowDraws, Rows, SiteDraws

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive

INK = "#010203"
"""Stands for the colour of the text in what matplotlib writes."""

MODEL, PRIOR, DATA = "#3d7fd9", "#e07b39", "#8b93a1"
SIZE = (4.8, 3.2)
STYLE = {
    "text.color": INK, "axes.labelcolor": INK, "axes.edgecolor": INK, "xtick.color": INK, "ytick.color": INK,
    "axes.spines.top": False, "axes.spines.right": False, "axes.linewidth": 0.6, "font.size": 9.0,
    "legend.frameon": False, "svg.fonttype": "path", "text.parse_math": False, "savefig.transparent": True,
    "axes.facecolor": "none", "figure.facecolor": "none",
}  # fmt: skip
MOST_COUNTS = 60
"""Bars of a rootogram."""

MOST_STEPS = 500
BARS = 15


@contextlib.contextmanager
def drawing() -> Iterator[Any]:
    """The module pyplot in the style of the report, without a display; the user's settings and figures stay."""
    import matplotlib as mpl
    import matplotlib.pyplot as plt

    with DRAWING:
        before, figures = mpl.get_backend(), set(plt.get_fignums())
        mpl.use("Agg")
        try:
            with mpl.rc_context(STYLE):
                yield plt
        finally:
            for number in set(plt.get_fignums()) - figures:
                plt.close(number)
            mpl.use(before)


def svg(figure: Any, name: str) -> str:
    """A figure as an SVG element; `name` makes its ids different from those of other figures."""
    import matplotlib as mpl

    file = io.StringIO()
    with mpl.rc_context({"svg.hashsalt": name}):
        figure.savefig(file, format="svg", bbox_inches="tight", metadata={"Date": None, "Creator": None})
    text = re.sub(r"<!--.*?-->", "", file.getvalue(), flags=re.DOTALL)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = text[text.index("<svg") :]
    for size in ("width", "height"):
        text = re.sub(rf'(<svg[^>]*?) {size}="[^"]*"', r"\1", text, count=1)
    for ids in set(re.findall(r'id="([^"]+)"', text)):
        text = text.replace(f'"{ids}"', f'"{name}-{ids}"').replace(f"#{ids}", f"#{name}-{ids}")
    return text.replace(INK, "currentColor").replace("#000000", "currentColor").replace("<svg", '<svg role="img"', 1)


def losses(plt: Any, fit: Predictive) -> Any:
    """Loss of every restart, medians of up to 500 parts of the steps."""
    figure, axis = plt.subplots(figsize=SIZE)
    drawn = []
    for i, row in enumerate(fit.losses):
        taken = row[np.isfinite(row)]
        parts = np.array_split(np.arange(len(taken)), min(MOST_STEPS, max(1, len(taken))))
        middle = np.array([np.median(taken[part]) for part in parts if part.size])
        axis.plot([part.mean() for part in parts if part.size], middle, lw=1.0, color=MODEL, alpha=0.4 + 0.6 / (i + 1))
        drawn.append(middle)
    finite = np.concatenate(drawn) if drawn else np.zeros(1)
    if finite.size:
        low, high = np.quantile(finite, [0.0, 0.97])
        axis.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.1 * (high - low) + 1e-9)
    axis.set(xlabel="step", ylabel=f"{fit.inference.loss} (nats)")
    return figure


def check_real(plt: Any, y: PerRow, prior: np.ndarray, posterior: np.ndarray) -> Any:
    """Histogram of y, and the middle 90 % of histograms of data sets drawn from prior and posterior."""
    figure, axis = plt.subplots(figsize=SIZE)
    width = np.ptp(y) or 1.0
    edges = np.linspace(y.min() - 0.25 * width, y.max() + 0.25 * width, 31)
    for drawn, colour, label in ((prior, PRIOR, "prior"), (posterior, MODEL, "posterior")):
        counts = np.array([np.histogram(row, edges)[0] for row in drawn.reshape(-1, len(y))[:200]])
        low, high = np.quantile(counts, [0.05, 0.95], axis=0)
        axis.stairs(high, edges, baseline=low, fill=True, color=colour, alpha=0.35, label=f"{label}, 90 %")
    axis.stairs(np.histogram(y, edges)[0], edges, color=INK, lw=1.2, label="observed")
    axis.set(xlabel="y", ylabel="rows")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.0)
    return figure


def check_classes(plt: Any, y: PerRow, prior: np.ndarray, posterior: np.ndarray, names: list[str]) -> Any:
    """Class counts, observed and in data sets drawn from prior and posterior, 90 % intervals."""
    figure, axis = plt.subplots(figsize=SIZE)
    at = np.arange(len(names))
    axis.bar(at, np.bincount(y, minlength=len(names)), color=DATA, alpha=0.45, label="observed")
    for shift, drawn, colour, label in ((-0.15, prior, PRIOR, "prior"), (0.15, posterior, MODEL, "posterior")):
        counts = (drawn.reshape(-1, len(y))[:, :, None] == at).sum(1)
        low, middle, high = np.quantile(counts, [0.05, 0.5, 0.95], axis=0)
        error = [middle - low, high - middle]
        axis.errorbar(at + shift, middle, error, fmt="o", ms=4, color=colour, capsize=3, label=f"{label}, 90 %")
    axis.set_xticks(at, [short(name) for name in names], rotation=30 if len(names) > 4 else 0)
    axis.set_ylabel("rows")
    axis.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=3, columnspacing=1.0)
    return figure


def rootogram(plt: Any, y: PerRow, posterior: RowDraws) -> Any:
    """Square roots of how often each count is observed, hanging from those of data sets drawn from the posterior.

    Bars that end at zero are as observed. Source: Kleiber and Zeileis 2016.
    """
    figure, axis = plt.subplots(figsize=SIZE)
    last = int(min(max(np.quantile(y, 0.995), 1.0), MOST_COUNTS))
    edges = np.arange(last + 2) - 0.5
    drawn = np.array([np.histogram(row, edges)[0] for row in posterior.reshape(-1, len(y))[:200]])
    expected, observed = np.sqrt(drawn.mean(0)), np.sqrt(np.histogram(y, edges)[0])
    low, high = np.quantile(np.sqrt(drawn), [0.05, 0.95], axis=0)
    axis.bar(np.arange(last + 1), observed, bottom=expected - observed, color=DATA, alpha=0.45, label="observed")
    axis.fill_between(np.arange(last + 1), low, high, color=MODEL, alpha=0.35, label="posterior, 90 %")
    axis.plot(np.arange(last + 1), expected, color=MODEL)
    axis.axhline(0.0, color=INK, lw=1.0)
    axis.set(xlabel="y", ylabel="square root of rows")
    axis.legend(loc="upper right")
    return figure


def survival(plt: Any, y: PerRow, censored: PerRow, prediction: Outcome) -> Any:
    """Kaplan-Meier estimate of rows that are observed or censored to the right, and their mean predicted survival."""
    from scipy import stats

    figure, axis = plt.subplots(figsize=SIZE)
    known = (censored == 0.0) | (censored == 1.0)
    estimate = stats.ecdf(stats.CensoredData.right_censored(y[known], censored[known] == 1.0)).sf
    band = estimate.confidence_interval(0.9)
    times = np.linspace(min(0.0, y.min()), y.max(), 60)
    predicted = prediction.survival(np.repeat(times[:, None], len(y), 1))[:, known].mean(1)
    axis.step(estimate.quantiles, estimate.probabilities, where="post", color=INK, label="observed (Kaplan-Meier)")
    axis.fill_between(
        estimate.quantiles, band.low.probabilities, band.high.probabilities, step="post", color=DATA, alpha=0.3,
        label="90 %",
    )  # fmt: skip
    axis.plot(times, predicted, color=MODEL, label="predicted")
    axis.set(xlabel="y", ylabel="p(Y > y)", ylim=(0.0, 1.03))
    axis.legend(loc="upper right")
    return figure


def thresholds(plt: Any, probs: Probs, y: PerRow) -> Any:
    """Whether levels up to each threshold are as frequent as predicted, in ten bins of rows; the diagonal is."""
    figure, axis = plt.subplots(figsize=SIZE)
    axis.plot([0, 1], [0, 1], color=DATA, ls="--", lw=1)
    below = np.cumsum(probs, 1)[:, :-1]
    for c in range(below.shape[1]):
        parts = [part for part in np.array_split(np.argsort(below[:, c], kind="stable"), 10) if part.size]
        said, seen = [below[part, c].mean() for part in parts], [np.mean(y[part] <= c) for part in parts]
        axis.plot(said, seen, "o-", ms=4, color=MODEL, alpha=(c + 1.0) / below.shape[1], label=f"y <= {c}")
    axis.set(xlabel="predicted", ylabel="observed", xlim=(0, 1), ylim=(0, 1.03))
    axis.legend(loc="upper left")
    return figure


def calibration(plt: Any, probs: Probs, y: PerRow) -> Any:
    """Accuracy against confidence, and the share of rows."""
    mean, right, share = reliability(probs, y)
    figure, axis = plt.subplots(figsize=SIZE)
    axis.plot([0, 1], [0, 1], color=DATA, ls="--", lw=1)
    axis.bar((np.arange(10) + 0.5) / 10, share, width=0.09, color=DATA, alpha=0.45, label="share of rows")
    axis.plot(mean[share > 0], right[share > 0], "o-", color=MODEL, label="accuracy")
    axis.set(xlabel="confidence", ylabel="accuracy", xlim=(0, 1), ylim=(0, 1.03))
    axis.legend(title=f"ECE {expected_calibration_error(probs, y):.3f}", loc="upper left")
    return figure


def pit_histogram(plt: Any, u: np.ndarray, name: str = "LOO-PIT") -> Any:
    """Histogram of the PIT, with the middle 95 % of what a uniform sample of the size has."""
    from scipy import stats

    figure, axis = plt.subplots(figsize=SIZE)
    bins = int(np.clip(len(u) // 20, 5, 20))
    low, high = stats.binom(len(u), 1.0 / bins).ppf([0.025, 0.975])
    axis.axhspan(low, high, color=DATA, alpha=0.3, lw=0, label="uniform, 95 %")
    axis.hist(u, bins, range=(0.0, 1.0), color=MODEL, alpha=0.8)
    axis.set(xlabel=name, ylabel="rows", xlim=(0, 1))
    axis.legend()
    return figure


def rhats(plt: Any, values: np.ndarray) -> Any:
    """R-hat of what the chains say of y, over probes."""
    figure, axis = plt.subplots(figsize=SIZE)
    found = arviz.rhat(values).ravel()
    found = found[np.isfinite(found)]
    axis.hist(found, 20, color=MODEL, alpha=0.8)
    axis.axvline(1.01, color=PRIOR, lw=1, label="1.01")
    axis.set(xlabel="R-hat of the prediction at a probe", ylabel="probes")
    axis.legend()
    return figure


def neuron_mixture(plt: Any, fit: Predictive, draws: SiteDraws, x: Rows, j: int) -> Any:
    """Components of a neuron of the first layer over the histograms of their inputs, the four of largest weight.

    Each is weight N(x_k; loc, scale^2), for a few draws, in the units of the data.
    """
    weights, scale = draws["layers.0.weights"][0, :, j], draws["layers.0.scale"][0, :, j]
    loc = draws["layers.0.loc"][0, :, j] if "layers.0.loc" in draws else np.zeros_like(scale)
    order = np.argsort(-weights.mean(0))[:4]
    figure, axes = plt.subplots(2, 2, figsize=(SIZE[0], 3.6), layout="constrained")
    for axis, k in zip(axes.ravel(), order, strict=False):
        column = x[:, k].astype(np.float64)
        edges = np.histogram_bin_edges(column, bins=20)
        axis.hist(column, edges, color=DATA, alpha=0.4)
        axis.set_yticks([])
        axis.spines["left"].set_visible(False)
        other = axis.twinx()
        other.spines["left"].set_visible(False)
        grid = np.linspace(edges[0], edges[-1], 120)
        mean, unit = 0.0, 1.0
        if fit.x_units is not None:
            mean, unit = (float(np.broadcast_to(a, (x.shape[1],))[k]) for a in (fit.x_units.mean, fit.x_units.scale))
        for s in np.linspace(0, len(weights) - 1, min(25, len(weights))).round().astype(int):
            z = ((grid - mean) / unit - loc[s, k]) / scale[s, k]
            bump = weights[s, k] * np.exp(-0.5 * z * z) / (scale[s, k] * unit)
            other.plot(grid, bump, color=MODEL, lw=0.7, alpha=0.4)
        other.set_yticks([])
        other.set_ylim(bottom=0.0)
        axis.set_title(f"{short(fit.feature_names[k], 24)}, weight {weights[:, k].mean():.2f}", fontsize=8)
    for axis in axes.ravel()[len(order) :]:
        axis.set_axis_off()
    return figure


def influence(plt: Any, names: list[str], falls: np.ndarray) -> Any:
    """What the mean log density loses when a column is permuted, the largest fifteen."""
    order = np.argsort(falls)[-BARS:]
    figure, axis = plt.subplots(figsize=(SIZE[0], max(1.6, 0.24 * len(order) + 0.8)))
    axis.barh(np.arange(len(order)), falls[order], color=MODEL, alpha=0.8)
    axis.set_yticks(np.arange(len(order)), [short(names[k]) for k in order])
    axis.set_xlabel("loss of log density per row (nats)")
    return figure


def worst_rows(plt: Any, prediction: Any, y: PerRow, rows: np.ndarray, names: list[str] | None, discrete: bool) -> Any:
    """Predictive distribution of some rows, and what was observed."""
    figure, axes = plt.subplots(2, 3, figsize=(7.2, 3.6), layout="constrained")
    for axis, row in zip(axes.ravel(), range(len(rows)), strict=False):
        values, heights = prediction.profile(row, y[row])
        if names is None:
            axis.fill_between(values, heights, color=MODEL, alpha=0.4, step="mid" if discrete else None)
            axis.axvline(y[row], color=PRIOR, lw=1.5)
            axis.set_ylim(bottom=0.0)
            axis.set_yticks([])
        else:
            colours = [PRIOR if c == y[row] else MODEL for c in values]
            axis.barh(np.arange(len(values)), heights, color=colours, alpha=0.8)
            axis.set_yticks(np.arange(len(values)), [short(names[c], 12) for c in values], fontsize=7)
            axis.set_xlim(0, 1)
        axis.set_title(f"row {rows[row]}", fontsize=8)
    for axis in axes.ravel()[len(rows) :]:
        axis.set_axis_off()
    return figure


def loo_pit(drawn: np.ndarray, y: PerRow, pointwise: np.ndarray, log_ratio: np.ndarray) -> np.ndarray:
    """P(y_rep < y) + v P(y_rep = y) under the leave-one-out weights of each row `(B,)`, from draws `(C, S, B)`.

    v is uniform on [0, 1]: so it is uniform for counts too. Source: Czado, Gneiting and Held 2009, Biometrics 65(4).
    """
    flat = pointwise.reshape(-1, len(y)).T
    with silence():  # about large k-hats, which the table of the report has
        log_weights, _ = arviz.psis(log_ratio.ravel() - log_ratio.max() - flat)
    weights = np.exp(neuron.log_normalize(NUMPY, log_weights))
    replicates = drawn.reshape(-1, len(y)).T
    below, at = ((weights * where).sum(1) for where in (replicates < y[:, None], replicates == y[:, None]))
    return np.clip(below + np.random.default_rng(0).uniform(size=len(y)) * at, 0.0, 1.0)


def short(text: str, most: int = 30) -> str:
    """A name that fits into a picture."""
    return text if len(text) <= most else text[: most - 1] + "…"


def drawn(function: Callable[..., Any], name: str, *arguments: Any) -> str:
    """A picture as SVG."""
    with drawing() as plt:
        return svg(function(plt, *arguments), name)
