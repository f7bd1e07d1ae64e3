"""Quality of predictions, from plain arrays.

Letters: B rows, K components of a mixture. Class probabilities are `(B, classes)`, class codes y `(B,)`; real targets
y `(B,)` and everything that has their unit are in the units of the data. Log values are in nats. `row_weights` `(B,)`
say how often each row counts, at least 0; None is once: then means over rows are weighted means.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ugmm_ppl import budgets, checks
from ugmm_ppl.checks.machine import require
from ugmm_ppl.typing import PerBin, PerChain, PerRow, Probs, RowDraws

BINNINGS = ("width", "mass")


def accuracy(probs: Probs, y: PerRow, *, row_weights: PerRow | None = None) -> float:
    """Share of rows whose most probable class is y."""
    return mean_over_rows(probs.argmax(-1) == y, row_weights)


def brier(probs: Probs, y: PerRow, *, row_weights: PerRow | None = None) -> float:
    """Brier score, mean_b sum_c (p_bc - [y_b = c])^2, between 0 and 2. Source: Brier 1950, equation (2)."""
    return mean_over_rows(np.sum((probs - np.eye(probs.shape[1])[y]) ** 2, -1), row_weights)


def reliability(
    probs: Probs,
    y: PerRow,
    bins: int = 10,
    binning: str = "width",
    *,
    row_weights: PerRow | None = None,
) -> tuple[PerBin, PerBin, PerBin]:
    """Mean confidence, accuracy and share of rows by bin of the top probability.

    Args:
        probs: Class probabilities.
        y: Class codes.
        bins: Number of bins.
        binning: "width", bins of equal width; or "mass", of equally many rows each.
        row_weights: How often each row counts.

    Returns:
        `(bins,)` each; mean and accuracy are NaN in an empty bin.
    """
    return _by_bin(probs.max(-1), probs.argmax(-1) == y, bins, binning, row_weights)


def expected_calibration_error(
    probs: Probs,
    y: PerRow,
    bins: int = 10,
    binning: str = "width",
    *,
    row_weights: PerRow | None = None,
) -> float:
    """ECE: sum over bins of share |accuracy - confidence|; arguments as in `reliability`.

    Sources: Guo et al. 2017, arXiv:1706.04599, equation (3); equal mass: Nixon et al. 2019, arXiv:1904.01685.
    """
    return _gap(*reliability(probs, y, bins, binning, row_weights=row_weights))


def classwise_calibration_error(
    probs: Probs,
    y: PerRow,
    bins: int = 10,
    binning: str = "width",
    *,
    row_weights: PerRow | None = None,
) -> float:
    """Mean over classes of the ECE of p(class) against [y = class]; arguments as in `reliability`.

    Source: Kull et al. 2019, arXiv:1910.12656, equation (2).
    """
    return float(np.mean([_gap(*_by_bin(p, y == c, bins, binning, row_weights)) for c, p in enumerate(probs.T)]))


def predictive_entropy(probs: Probs) -> PerRow:
    """-sum_c p_c log p_c in nats, over the last axis: total uncertainty."""
    with np.errstate(divide="ignore", invalid="ignore"):
        terms = np.where(probs > 0.0, probs * np.log(probs), 0.0)
    return -terms.sum(-1)


def mutual_information(draws: Probs, weights: PerChain | None = None) -> PerRow:
    """H(mean of p) - mean of H(p) over posterior draws, in nats: what y and the parameters say about each other.

    Source: Houlsby et al. 2011, arXiv:1112.5745, equation (2).

    Args:
        draws: Class probabilities of every draw, `(C, S, B, classes)`.
        weights: Weights of the chains `(C,)`; None counts all alike.

    Returns:
        `(B,)`.
    """
    entropy = predictive_entropy(draws).mean(1)
    return predictive_entropy(np.average(draws.mean(1), 0, weights)) - np.average(entropy, 0, weights)


def out_of_distribution(inside: PerRow, outside: PerRow) -> dict[str, float]:
    """How well a score, larger for stranger rows, tells rows of another kind from rows of the usual kind.

    Args:
        inside: Scores of usual rows `(B,)`, such as `predictive_entropy` or `mutual_information`.
        outside: Scores of rows of another kind `(B',)`.

    Returns:
        `auroc`; `aupr_in` and `aupr_out`, the average precision with the usual or the other rows as positive; and
        `fpr95`, the share of the other rows that pass where 95 % of the usual ones do (Liang et al. 2018,
        arXiv:1706.02690).
    """
    metrics = require("sklearn.metrics", "diagnostics", ("sklearn",))
    for name, scores in (("inside", inside), ("outside", outside)):
        checks.row_scores(name, scores)
    other = np.repeat([0, 1], [len(inside), len(outside)])
    scores = np.concatenate([inside, outside])
    passed, caught, _ = metrics.roc_curve(1 - other, -scores, drop_intermediate=False)  # usual rows are positive
    return {
        "auroc": float(metrics.roc_auc_score(other, scores)),
        "aupr_in": float(metrics.average_precision_score(1 - other, -scores)),
        "aupr_out": float(metrics.average_precision_score(other, scores)),
        "fpr95": float(passed[np.argmax(caught >= 0.95)]),
    }


def risk_coverage(confidence: PerRow, losses: PerRow, *, row_weights: PerRow | None = None) -> tuple[PerRow, PerRow]:
    """Mean loss of the most confident rows, against their share; rows of equal confidence share their mean loss.

    Source: El-Yaniv and Wiener 2010, JMLR 11. The mean of the risks is the area under the curve, AURC (Geifman et al.
    2019, arXiv:1805.08206).

    Args:
        confidence: `(B,)`, larger is more confident.
        losses: Loss of every row `(B,)`, such as `probs.argmax(-1) != y`, or a squared error.
        row_weights: How often each row counts.

    Returns:
        Coverage `(B,)`, ascending to 1, and risk `(B,)`.
    """
    _, tie = np.unique(-confidence, return_inverse=True)
    weights = np.ones(len(tie)) if row_weights is None else row_weights
    mass = np.bincount(tie, weights)
    mean = np.divide(np.bincount(tie, weights * losses), mass, out=np.zeros(len(mass)), where=mass > 0.0)
    order = np.argsort(tie, kind="stable")
    count = np.cumsum(weights[order])
    risk = np.cumsum(weights[order] * mean[tie[order]])
    with np.errstate(invalid="ignore"):  # the first rows may count nothing
        return count / count[-1], risk / count


def rmse(mean: PerRow, y: PerRow, *, row_weights: PerRow | None = None) -> float:
    """Root mean squared error in the units of y."""
    return float(np.sqrt(mean_over_rows(np.subtract(mean, y, dtype=np.float64) ** 2, row_weights)))


def mae(median: PerRow, y: PerRow, *, row_weights: PerRow | None = None) -> float:
    """Mean absolute error in the units of y; the predictive median minimises its expectation."""
    return mean_over_rows(np.abs(median - y), row_weights)


def crps(loc: RowDraws, scale: RowDraws, weights: RowDraws, y: PerRow) -> PerRow:
    """Continuous ranked probability score of a Gaussian mixture, in closed form, in the units of y.

        CRPS_b = integral (F_b(t) - [t >= y_b])^2 dt = sum_k w_k A(y - loc_k, scale_k^2)
                 - 1/2 sum_kl w_k w_l A(loc_k - loc_l, scale_k^2 + scale_l^2),
        A(m, v) = m (2 Phi(m / sqrt(v)) - 1) + 2 sqrt(v) phi(m / sqrt(v))

    Source: Grimit, Gneiting, Berrocal and Johnson 2006, equation (3), by `scoringrules`. It takes K^2 terms for each
    row, of which those of a few rows are held.

    Args:
        loc: `(B, K)`.
        scale: `(B, K)`, positive.
        weights: `(B, K)`, summing to one.
        y: `(B,)`.

    Returns:
        `(B,)`, not negative; smaller is better.
    """
    scoring = require("scoringrules", "diagnostics")
    rows = max(1, budgets.TEMPORARY // loc.shape[1] ** 2)
    parts = [slice(start, start + rows) for start in range(0, len(y), rows)]
    return np.concatenate([scoring.crps_mixnorm(y[b], loc[b], scale[b], weights[b], backend="numpy") for b in parts])


def pit(loc: RowDraws, scale: RowDraws, weights: RowDraws, y: PerRow) -> PerRow:
    """Probability integral transform sum_k w_k Phi((y - loc_k) / scale_k), uniform if the prediction is calibrated.

    Arguments as in `crps`. Source: Dawid 1984. Of a `RegressionPrediction` it is `cdf(y)`.
    """
    special = require("scipy.special", "diagnostics", ("scipy",))
    return np.sum(weights * special.ndtr((y[:, None] - loc) / scale), -1)


def coverage(u: PerRow, level: float = 0.9, *, row_weights: PerRow | None = None) -> float:
    """Share of rows whose y lies in the central interval of the given probability, from their PIT u `(B,)`."""
    level = checks.number("level", level, 0.0, 1.0)
    return mean_over_rows((u >= 0.5 - level / 2) & (u <= 0.5 + level / 2), row_weights)


def sharpness(low: PerRow, high: PerRow, *, row_weights: PerRow | None = None) -> float:
    """Mean width of the predictive intervals from low to high, in the units of y; narrower is better at equal coverage.

    Source: Gneiting, Balabdaoui and Raftery 2007.
    """
    return mean_over_rows(high - low, row_weights)


def concordance(
    predicted: PerRow, y: PerRow, censored: PerRow | None = None, *, row_weights: PerRow | None = None
) -> float:
    """Share of pairs of rows in the right order among those whose order is known; ties of predictions count a half.

    Of y that is censored to the right (code 1) it is known only that it lies above an observed one below it, of y that
    is censored to the left (-1) only that it lies below; intervals (2) count by their lower ends. Source: Harrell et
    al. 1982.

    Args:
        predicted: Predicted times, such as medians `(B,)`.
        y: Observed or censored times `(B,)`.
        censored: Codes `(B,)`; None if all are observed.
        row_weights: How often each row counts; a pair counts the product.

    Returns:
        Between 0 and 1, NaN if no order is known; a random order has one half.
    """
    code = np.zeros(len(y)) if censored is None else censored
    weights = np.ones(len(y)) if row_weights is None else row_weights
    right, known = 0.0, 0.0
    for i in np.flatnonzero((code != 1.0) & (weights > 0.0)):  # the earlier one of a pair has an upper bound
        later = ((y > y[i]) | ((y == y[i]) & (code == 1.0) & (code[i] != 1.0))) & (code != -1.0)
        in_order = (predicted[later] > predicted[i]) + 0.5 * (predicted[later] == predicted[i])
        known += float(weights[i] * weights[later].sum())
        right += float(weights[i] * (weights[later] @ in_order))
    return right / known if known else float("nan")


def evaluate(prediction: Any, y: PerRow, *, row_weights: Any = None) -> dict[str, float]:
    """The metrics of a run: mean log likelihood in nats per row, and others by the kind of prediction.

    Classes: accuracy, Brier score, ECE. Real targets: RMSE, MAE of the median, CRPS (of fewer draws, evenly spaced,
    where all would take more than `budgets.CRPS_WORK` pairs), coverage and sharpness of the central 90 % intervals; the
    same of an `Outcome`, by as many draws as `budgets.OUTCOME_DRAWS` allows. Censored outcomes: concordance.

    Args:
        prediction: What `Fit.predict` made of B rows.
        y: What was observed there.
        row_weights: How often each row counts; None for once.

    Raises:
        ValueError: Weights that are negative, not finite, or not one per row.
    """
    weights = checks.row_weights(row_weights, len(y), "row_weights")
    return {"log_likelihood": mean_over_rows(prediction.log_density(y), weights), **prediction.metrics(y, weights)}


def mean_over_rows(values: PerRow, row_weights: PerRow | None = None) -> float:
    """Mean over rows, each as often as it counts; what a row of weight 0 has does not matter, infinities included."""
    if row_weights is None:
        return float(np.mean(values))
    return float(np.average(values[row_weights > 0.0], weights=row_weights[row_weights > 0.0]))


def _by_bin(
    confidence: np.ndarray, correct: np.ndarray, bins: int, binning: str, row_weights: PerRow | None
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Mean confidence, share that is correct, and share of rows, by bin."""
    bins = checks.count("bins", bins)
    weights = np.ones(len(confidence)) if row_weights is None else row_weights
    if checks.choice("binning", binning, BINNINGS) == "width":
        which = np.minimum((confidence * bins).astype(int), bins - 1)
    else:
        which, order = np.empty(len(confidence), dtype=int), np.argsort(confidence, kind="stable")
        before = np.cumsum(weights[order]) - weights[order]
        which[order] = np.minimum(before * bins // weights.sum(), bins - 1)
    count = np.bincount(which, weights, bins)
    with np.errstate(invalid="ignore"):
        mean = np.bincount(which, weights * confidence, bins) / count
        right = np.bincount(which, weights * correct, bins) / count
    return mean, right, count / weights.sum()


def _gap(mean: np.ndarray, right: np.ndarray, share: np.ndarray) -> float:
    return float(np.nansum(share * np.abs(right - mean)))
