"""Checks of the data, which no fit can mend: columns that say the same, and labels that contradict their neighbours."""

from __future__ import annotations

import numpy as np

from ugmm_ppl.checks.machine import require
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.diagnostics.lines import Line, judged, skipped
from ugmm_ppl.diagnostics.subject import Subject
from ugmm_ppl.typing import PerRow, Rows

SAME = 0.9999
"""Correlation above which two columns count as one."""

NEIGHBOURS = 10

NOISE = 0.05
"""Share of wrong labels that the clearest rows should surely be below."""

SILENT = 0.55
"""Error of the neighbours' vote, as a share of that of the largest class, above which they say little."""

MOST_COLUMNS = 2000


def check_data(subject: Subject) -> list[Line]:
    """Lines of the data."""
    if subject.x is None:
        return [skipped("data", "The fit holds no data: give x and y.")]
    x = np.asarray(subject.fit.features(subject.x[subject.rows]), dtype=np.float64)
    y = subject.y[subject.rows]
    lines = [duplicated(x, subject.fit.feature_names)]
    if subject.fit.model.likelihood.num_classes is None:
        return lines
    if len(x) < 5 * NEIGHBOURS:
        return [*lines, skipped("label noise", f"Fewer than {5 * NEIGHBOURS} rows.")]
    return [*lines, shuffled_labels(x, y)]


def duplicated(x: Rows, names: list[str]) -> Line:
    """Pairs of columns whose correlation is one: nothing tells their weights apart, and the prior counts them twice."""
    name = "duplicated inputs"
    if x.shape[1] > MOST_COLUMNS:
        return skipped(name, f"More than {MOST_COLUMNS} columns.")
    varied = np.flatnonzero(np.ptp(x, axis=0) > 0.0)
    correlation = np.abs(np.atleast_2d(np.corrcoef(_standardized(x[:, varied]), rowvar=False)))
    pairs = np.argwhere(np.triu(correlation > SAME, 1))
    said = ", ".join(f"{names[varied[i]]} = {names[varied[j]]}" for i, j in pairs[:3])
    return judged(
        name, len(pairs), f"no pair with |correlation| > {SAME}",
        shown=f"{len(pairs)} pairs" + (f": {said}" if said else "") + (", ..." if len(pairs) > 3 else ""),
        problem=len(pairs) > 0, advice="Columns that say the same. Drop one of each pair.",
    )  # fmt: skip


def shuffled_labels(x: Rows, y: PerRow) -> Line:
    """Wrong labels among the quarter of the rows whose nearest neighbours agree most, without the row itself.

    Where classes overlap, neighbours disagree, and far from there they agree with the row; labels that were mixed up
    contradict neighbours everywhere. A tenth of the rows are neighbours, ten to thirty. The value is the lower end of
    the 95 % Clopper-Pearson interval of the share.
    """
    count = int(np.clip(len(x) // 10, NEIGHBOURS, 3 * NEIGHBOURS))
    special, votes = require("scipy.special", "diagnostics", ("scipy",)), _neighbours(x, count)
    classes = int(y.max()) + 1
    share = np.stack([(y[votes] == c).mean(1) for c in range(classes)], 1)  # (B, classes)
    sure = np.argsort(-share.max(1), kind="stable")[: len(y) // 4]
    guessed = share.argmax(1) != y
    wrong = int(guessed[sure].sum())
    low = float(special.betaincinv(wrong, len(sure) - wrong + 1, 0.025)) if wrong else 0.0
    silent = guessed.mean() > SILENT * (1.0 - np.bincount(y).max() / len(y))
    return judged(
        "label noise", low, f"< {NOISE}", shown=f"{wrong} of {len(sure)} clear rows, at least {low:.2f}",
        problem=low > NOISE and not silent, note=low > NOISE,
        advice="Neighbours say little about the class: inputs that do not explain it, or labels that are mixed up."
        if silent else
        "Labels contradict neighbours that agree with each other: look for shuffled or wrong labels.",
    )  # fmt: skip


def _neighbours(x: Rows, count: int) -> np.ndarray:
    """Numbers of the nearest rows of each row in standardised columns, `(B, count)`, itself left out."""
    search = require("sklearn.neighbors", "diagnostics", ("sklearn",)).NearestNeighbors(n_neighbors=count)
    return search.fit(_standardized(x)).kneighbors(return_distance=False)


def _standardized(x: Rows) -> np.ndarray:
    return Standardizer.of(x).standardize(x)
