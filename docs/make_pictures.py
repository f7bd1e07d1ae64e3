"""Make the pictures of the documentation from real fits: `python docs/make_pictures.py [NAME ...]`.

Writes docs/images/overview.png (a neuron of a fitted classifier, and a fitted regressor on a bimodal toy
set), docs/images/neuron.png (one neuron, with its activation, before any fit), docs/images/distribution.png (density,
quantiles and tails of a mixture) and docs/images/gradients.png (variances of three gradient estimators).
"""

import sys
from pathlib import Path

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from scipy import stats
from sklearn.datasets import load_iris

import ugmm_ppl as up
from ugmm_ppl import neuron
from ugmm_ppl.distributions import mixture, pathwise
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.distributions.modes import modes
from ugmm_ppl.ops.numpy import NUMPY

IMAGES = Path(__file__).parent / "images"
COLOURS = ("#3b6fb6", "#d9822b", "#4c9a5f", "#a04b8a")
INK, GREY = "#222222", "#7a7a7a"
PAPER_TO_BLUE = LinearSegmentedColormap.from_list("paper_to_blue", ["#ffffff", "#bcd0ea", "#3b6fb6", "#16304f"])


def toy_set(rows: int = 800) -> tuple[np.ndarray, np.ndarray]:
    """One curve that splits into two: y given x has two modes on the right."""
    rng = np.random.default_rng(1)
    x = rng.uniform(-3.0, 3.0, rows)
    branch = rng.choice([-1.0, 1.0], rows)
    y = 0.7 * np.sin(x) + 1.2 * branch / (1.0 + np.exp(-3.0 * x)) + 0.15 * rng.normal(size=rows)
    return x[:, None], y


def component_colour(k: int) -> str:
    """Colour of a component."""
    return COLOURS[k % len(COLOURS)]


def draw_fitted_neuron(axis: plt.Axes) -> None:
    """Equation (1) of a neuron fitted to Iris, for one flower: its components and a posterior band."""
    iris = load_iris()
    model = up.Classifier(up.Network((4, 16)), classes=3)
    fit = up.fit(
        model,
        iris.data,
        iris.target,
        feature_names=iris.feature_names,
        num_steps=2000,
        learning_rate=0.02,
        progress=False,
    )
    draws = fit.posterior(400, derived=True)
    j = int(np.argmax(np.abs(draws["readout.weight"].mean((0, 1))).max(0)))  # the neuron the readout leans on most
    loc, scale, weights = (draws[f"layers.0.{role}"][0, :, j].mean(0) for role in ("loc", "scale", "weights"))  # (K,)
    flowers = fit.to_network(iris.data)
    responses = neuron.activation(NUMPY, flowers, loc[None], scale[None], np.log(weights)[None])[:, 0]
    x = flowers[np.argsort(responses)[110]]  # a flower to which it responds well, but not as well as it can
    means = x - draws["layers.0.loc"][0, :, j]  # (S, K)
    scale, weights = draws["layers.0.scale"][0, :, j], draws["layers.0.weights"][0, :, j]
    y = np.linspace(-4.0, 4.0, 500)
    parts = weights[:, :, None] * stats.norm.pdf(y, means[..., None], scale[..., None])  # (S, K, Y)
    low, high = np.quantile(parts.sum(1), [0.05, 0.95], axis=0)
    axis.fill_between(y, low, high, color=INK, alpha=0.12, lw=0, label="90 % posterior band")
    for k, name in enumerate(iris.feature_names):
        axis.fill_between(y, parts[:, k].mean(0), color=component_colour(k), alpha=0.35, lw=0)
        axis.plot(y, parts[:, k].mean(0), color=component_colour(k), lw=1.3, label=name.removesuffix(" (cm)"))
    density = parts.sum(1).mean(0)
    axis.plot(y, density, color=INK, lw=2, label="$p_j(y\\,|\\,x)$")
    at_zero = np.interp(0.0, y, density)
    axis.vlines(0.0, 0.0, at_zero, color=INK, ls=":", lw=1.2)
    axis.plot([0.0], [at_zero], "o", color=INK, ms=5)
    axis.annotate(
        "activation: log density at $y=0$", (0.0, at_zero), xytext=(0.02, 0.42), textcoords="axes fraction",
        color=INK, fontsize=8.5,
        arrowprops={"arrowstyle": "-", "color": GREY, "lw": 0.8}, va="center",
    )  # fmt: skip
    axis.set(xlabel="$y$", yticks=[], xlim=(-4, 4), ylim=(0, None))
    axis.set_title("A neuron is a mixture, one component per input", loc="left")
    axis.legend(frameon=False, fontsize=7.5, loc="upper left", handlelength=1.2)


def draw_regressor(heat: plt.Axes, slices: plt.Axes) -> None:
    """The posterior predictive density of a regressor, and cuts through it with a posterior band."""
    x, y = toy_set()
    model = up.Regressor(up.Network((1, 24)), components=2)
    fit = up.fit(model, x, y, num_steps=4000, learning_rate=0.02, num_restarts=3, progress=False)
    grid_x, grid_y = np.linspace(-3.0, 3.0, 241), np.linspace(-2.6, 2.6, 261)
    prediction = fit.predict(grid_x[:, None], num_draws=100)
    density = np.exp([prediction.log_density(np.full(len(grid_x), value)) for value in grid_y])  # (Y, X)
    heat.pcolormesh(grid_x, grid_y, density, cmap=PAPER_TO_BLUE, vmax=np.quantile(density, 0.99), rasterized=True)
    heat.plot(x[:, 0], y, "o", ms=1.9, color="#d9822b", mec="none", alpha=0.7)
    heat.set(xlabel="$x$", ylabel="$y$", xlim=(-3, 3), ylim=(-2.6, 2.6))
    heat.set_title("Predictive density of a Regressor", loc="left")
    cuts = np.array([-1.5, 1.5])
    at_cuts = fit.predict(cuts[:, None], num_draws=200)
    for i, cut in enumerate(cuts):
        colour = (COLOURS[2], COLOURS[3])[i]
        heat.axvline(cut, color=colour, lw=1.2, ls="--")
        each = np.exp(
            neuron.log_prob(
                NUMPY,
                grid_y,
                at_cuts.loc[:, :, i, None, :],
                at_cuts.scale[:, :, i, None, :],
                at_cuts.log_weights[:, :, i, None, :],
            )
        ).reshape(-1, len(grid_y))  # (C S, Y)
        low, high = np.quantile(each, [0.05, 0.95], axis=0)
        slices.fill_between(grid_y, low, high, color=colour, alpha=0.25, lw=0)
        slices.plot(grid_y, each.mean(0), color=colour, lw=1.8, label=f"$x={cut:g}$")
    slices.set(xlabel="$y$", yticks=[], xlim=(-2.6, 2.6), ylim=(0, None))
    slices.set_title("Two cuts, with 90 % posterior bands", loc="left")
    slices.legend(frameon=False, fontsize=8.5)


def overview() -> Figure:
    """The picture of the README."""
    figure, axes = plt.subplots(1, 3, figsize=(13.5, 3.9), layout="constrained", width_ratios=[1.15, 1, 0.9])
    draw_fitted_neuron(axes[0])
    draw_regressor(axes[1], axes[2])
    return figure


def one_neuron() -> Figure:
    """Equation (1) for three inputs, and equation (2) as the input moves."""
    loc, scale = np.array([[0.4, -0.9, -1.6]]), np.array([[0.35, 0.6, 0.45]])
    log_weights = np.log(np.array([[0.3, 0.45, 0.25]]))
    x = np.array([-0.8, -0.1, 0.6])
    figure, (left, right) = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
    y = np.linspace(-3.0, 4.0, 600)
    means = x - loc[0]
    parts = np.exp(log_weights[0])[:, None] * stats.norm.pdf(y, means[:, None], scale[0][:, None])
    for k, part in enumerate(parts):
        left.fill_between(y, part, color=component_colour(k), alpha=0.35, lw=0)
        left.plot(y, part, color=component_colour(k), lw=1.2)
        left.plot([means[k]], [0.0], "|", color=component_colour(k), ms=16, mew=2, clip_on=False)
        left.text(
            means[k],
            np.interp(means[k], y, parts.sum(0)) + 0.02,
            f"$x_{k + 1}-\\mu_{k + 1}$",
            color=component_colour(k),
            ha="center",
            fontsize=9,
        )
    left.plot(y, parts.sum(0), color=INK, lw=2)
    left.vlines(0.0, 0.0, parts.sum(0)[np.argmin(np.abs(y))], color=INK, ls=":", lw=1.3)
    left.plot([0.0], [parts.sum(0)[np.argmin(np.abs(y))]], "o", color=INK, ms=5)
    left.set(xlabel="$y$", yticks=[], xlim=(-3, 4), ylim=(0, 0.5))
    left.set_title("Equation (1): a density of $y$", loc="left")
    moved = np.linspace(-5.0, 5.0, 600)
    for k in range(3):
        inputs = np.repeat(x[None], len(moved), 0)
        inputs[:, k] = moved
        activation = neuron.activation(NUMPY, inputs, loc, scale, log_weights)[:, 0]
        right.plot(moved, activation, color=component_colour(k), lw=1.8, label=f"$x_{k + 1}$ moves")
    right.set(xlabel="value of the input that moves", ylabel="activation (nats)", xlim=(-5, 5))
    right.set_title("Equation (2): one bump per input, flat far away", loc="left")
    right.legend(frameon=False, fontsize=8.5)
    return figure


EXAMPLE = np.array([-2.0, 0.5, 2.0]), np.array([0.5, 1.0, 0.3]), np.array([0.3, 0.5, 0.2])


def one_distribution() -> Figure:
    """Density with modes, distribution function with quantiles, and both log tails."""
    loc, scale, weights = EXAMPLE
    example = Mixture(loc, scale, weights, np.log(weights))
    figure, (left, middle, right) = plt.subplots(1, 3, figsize=(13.0, 3.6), layout="constrained")
    y = np.linspace(-4.5, 4.0, 800)
    density = np.exp(mixture.log_prob(NUMPY, y, example))
    for k in range(3):
        part = weights[k] * stats.norm.pdf(y, loc[k], scale[k])
        left.fill_between(y, part, color=component_colour(k), alpha=0.35, lw=0)
    left.plot(y, density, color=INK, lw=2)
    maxima = modes(NUMPY, example)
    maxima = maxima[~np.isnan(maxima)]
    left.plot(maxima, np.exp(mixture.log_prob(NUMPY, maxima, example)), "v", color=COLOURS[3], ms=7, label="modes()")
    left.set(xlabel="$y$", yticks=[], ylim=(0, None))
    left.set_title("Density and its modes", loc="left")
    left.legend(frameon=False)
    middle.plot(y, neuron.cdf(NUMPY, y, loc, scale, weights), color=INK, lw=2)
    for level, name in ((0.05, "5 %"), (0.5, "median"), (0.95, "95 %")):
        at = float(pathwise.quantile(NUMPY, np.array(level), example))
        middle.plot([y[0], at, at], [level, level, 0.0], color=COLOURS[0], lw=1.1, ls="--")
        middle.plot([at], [level], "o", color=COLOURS[0], ms=4)
        beside = (-26, 4) if level < 0.1 else (6, -11)
        middle.annotate(name, (at, level), xytext=beside, textcoords="offset points", color=COLOURS[0])
    middle.set(xlabel="$y$", ylim=(0, 1.02), xlim=(y[0], y[-1]))
    middle.set_title("Distribution function and quantiles", loc="left")
    far = np.linspace(-17.0, 17.0, 800)
    right.plot(far, mixture.log_cdf(NUMPY, far, example), color=COLOURS[0], lw=2, label="log_cdf")
    right.plot(far, mixture.log_survival(NUMPY, far, example), color=COLOURS[1], lw=2, label="log_survival")
    right.axhline(np.log(np.finfo(np.float32).tiny), color=GREY, lw=1, ls=":")
    right.text(-3.0, -96, "cdf underflows in float32", color=GREY, ha="center", va="top", fontsize=8.5)
    right.set(xlabel="$y$", ylabel="nats", ylim=(-200, 8))
    right.set_title("Both tails", loc="left")
    right.legend(frameon=False, loc="lower center")
    return figure


def gradient_variances() -> Figure:
    """Variance of one sample's gradient of E[(y - 1)^2], by three estimators, as two modes of scale one move apart."""
    rng = np.random.default_rng(0)
    gaps, scale, weights = np.linspace(0.5, 8.0, 31), np.ones(2), np.array([0.5, 0.5])
    found = {"loc": [], "logits": []}
    for gap in gaps:
        loc = np.array([-0.5 * gap, 0.5 * gap])
        noise = rng.normal(size=(200_000, 2))
        k = rng.integers(0, 2, len(noise))
        y = loc[k] + noise[:, 0]
        _, r, _, by_weight = pathwise.derivatives(NUMPY, y, loc, scale, weights)
        each = loc + noise  # one draw of every component
        score = {"loc": r * (y[:, None] - loc), "logits": r - weights}
        path = {"loc": r, "logits": weights * by_weight}
        f = (each - 1.0) ** 2
        strata = {"loc": weights * 2.0 * (each - 1.0), "logits": weights * (f - (weights * f).sum(-1, keepdims=True))}
        for role, rows in found.items():
            estimates = 2.0 * (y - 1.0)[:, None] * path[role], ((y - 1.0) ** 2)[:, None] * score[role], strata[role]
            rows.append([np.var(a[:, 0]) for a in estimates])
    figure, axes = plt.subplots(1, 2, figsize=(10.5, 3.6), layout="constrained")
    for axis, (role, rows) in zip(axes, found.items(), strict=True):
        for i, name in enumerate(("pathwise (rsample)", "score function", "stratified_sample")):
            axis.semilogy(gaps, np.array(rows)[:, i], color=COLOURS[i], lw=1.8, label=name)
        axis.set(xlabel="distance of the two modes, in scales")
        axis.set_title(f"Gradient of $E[(y-1)^2]$, {role}", loc="left")
    axes[0].set(ylabel="variance of one draw's gradient")
    axes[0].legend(frameon=False)
    return figure


def main() -> None:
    """Write all pictures, or those that are named on the command line."""
    plt.rcParams |= {
        "font.size": 9.5, "axes.titlesize": 10.5, "axes.titleweight": "bold",
        "axes.spines.top": False, "axes.spines.right": False,
        "axes.edgecolor": GREY, "axes.labelcolor": INK, "xtick.color": GREY, "ytick.color": GREY,
    }  # fmt: skip
    IMAGES.mkdir(exist_ok=True)
    every = {
        "neuron": one_neuron,
        "overview": overview,
        "distribution": one_distribution,
        "gradients": gradient_variances,
    }
    for name in sys.argv[1:] or every:
        figure = every[name]()
        figure.savefig(IMAGES / f"{name}.png", dpi=130, facecolor="white")
        plt.close(figure)
        print(f"wrote {IMAGES / name}.png")


if __name__ == "__main__":
    main()
