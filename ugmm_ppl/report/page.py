"""The report of a fit: one HTML file that needs nothing else."""

from __future__ import annotations

import html
from collections.abc import Mapping
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import arviz
from ugmm_ppl.arviz.plots import forest_figure
from ugmm_ppl.backends.threads import silence
from ugmm_ppl.checks.machine import require
from ugmm_ppl.data.files import Target, writing
from ugmm_ppl.diagnostics import Diagnosis, diagnose
from ugmm_ppl.diagnostics.subject import Subject
from ugmm_ppl.likelihoods.categorical import ClassPrediction
from ugmm_ppl.likelihoods.outcome import Outcome
from ugmm_ppl.metrics import evaluate
from ugmm_ppl.report import pictures
from ugmm_ppl.report.plots import of_features
from ugmm_ppl.report.template import PAGE, STYLE
from ugmm_ppl.typing import PerRow, RowDraws, Rows

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive

DRAWS = 200
"""Draws per chain that the pictures are made from."""

WORST = 6
INFLUENCES = 64
"""Columns whose influence is looked at: those of the largest weights."""

MARKS = {"good": "✓", "note": "i", "problem": "!", "not computed": "-"}


def write_report(
    fit: Predictive, path: Target, x: Any = None, y: Any = None, *, title: str | None = None,
    test: tuple[Any, ...] | None = None, more_steps: bool = True,
) -> Diagnosis:  # fmt: skip
    """Write the report of a fit: verdicts, pictures of training, prior, posterior, calibration, neurons and worst rows.

    One HTML file with the pictures inside, which opens without a network, in light and dark, on a phone and on a desk.

    Args:
        fit: The fit.
        path: The file, or an open binary one.
        x: The training inputs, if the fit does not hold them (after `load`).
        y: The training targets, likewise.
        title: Heading; None is the kind of model.
        test: Held-out inputs, targets and perhaps weights of rows for the metrics, or None. The last one may be a dict
            of extra columns.
        more_steps: As in `diagnose`.

    Returns:
        The table on top of it.
    """
    for module, extra in (("matplotlib", "diagnostics"), ("scoringrules", "diagnostics")):
        require(module, extra)
    x, y = fit.checked_data(x, y)
    with writing(path) as file:  # a file that cannot be written is refused before the work
        diagnosis = diagnose(fit, x, y, more_steps=more_steps)
        file.write(_page(fit, x, y, diagnosis, title, test).encode())
    return diagnosis


def _page(
    fit: Predictive, x: Rows, y: PerRow, diagnosis: Diagnosis, title: str | None, test: tuple[Any, Any] | None
) -> str:
    """The report."""
    subject = Subject(fit, x, y, min(DRAWS, fit.count_draws(None)), None)
    parts = [(name, picture, said) for name, picture, said in _pictures(subject) if picture]
    name = title or f"{type(fit.model).__name__}, {' - '.join(str(size) for size in subject.model.network.sizes)}"
    body = [_head(fit, diagnosis, name, len(x)), _metrics(subject, test), _table(diagnosis)]
    body.append('<section class="pictures">' + "".join(_figure(*part) for part in parts) + "</section>")
    body.append(_worst_table(subject))
    return PAGE.replace("{title}", html.escape(name)).replace("{style}", STYLE).replace("{body}", "\n".join(body))


def _pictures(subject: Subject) -> list[tuple[str, str, str]]:
    """Heading, SVG and caption of every picture."""
    fit, rows = subject.fit, subject.rows
    x, y = np.asanyarray(subject.x[rows], dtype=np.float64), subject.y[rows]
    found = []
    if fit.losses.size:
        found.append(("Training", _draw("loss", pictures.losses, fit), "Loss of every restart, medians of many steps."))
    drawn = fit.sample_predictive(x, num_draws=subject.num_draws, seed=subject.seed)
    prior = fit.prior_draws(x, min(DRAWS, 100), seed=subject.seed)["y"]
    names = None if fit.model.likelihood.num_classes is None else fit.model.likelihood.names(fit.class_names)
    prediction = fit.predict(x, num_draws=subject.num_draws, seed=subject.seed)
    found.append(_check(subject, y, prior, drawn, prediction))
    if isinstance(prediction, ClassPrediction):
        picture = _draw("reliability", pictures.calibration, prediction.probs, y)
        found.append(
            ("Reliability", picture, "On the training rows: accuracy by confidence; the diagonal is calibrated.")
        )
    elif isinstance(prediction, Outcome):
        if fit.model.likelihood.picture != "survival":
            said = "Of the training rows, of whole numbers randomised; flat is calibrated."
            found.append(("PIT", _draw("pit", pictures.pit_histogram, prediction.pit(y, subject.seed), "PIT"), said))
    elif subject.num_draws > 4:
        u = pictures.loo_pit(drawn, y, subject.pointwise[..., rows], subject.log_ratio)
        found.append(
            (
                "LOO-PIT",
                _draw("pit", pictures.pit_histogram, u),
                "Each row under the fit without it; flat is calibrated.",
            )
        )
    if fit.num_chains > 1 and subject.num_draws > 3:
        said = "Whether chains say the same of y at 50 rows; near 1 they do."
        found.append(("R-hat of functions", _draw("rhat", pictures.rhats, subject.values), said))
    found += _parameters(subject)
    draws = {name: value[:1] for name, value in (subject.draws | fit.derived(subject.draws)).items()}
    if len(of_features(fit.model, ("layers.0.weights", "layers.0.scale"), draws)) == 2:
        for j in leading_neurons(subject):
            said = "Components of its four heaviest inputs, some draws of one chain, over the data."
            found.append(
                (f"Neuron {j}", _draw(f"neuron{j}", pictures.neuron_mixture, fit, draws, fit.features(x), j), said)
            )
    falls = _influence(subject, x, y)
    said = "What the log density of the training rows loses when the column is shuffled."
    found.append(("Influence of inputs", _draw("influence", pictures.influence, fit.feature_names, falls), said))
    worst = _worst(subject)
    at_worst = fit.predict(subject.x[worst], num_draws=subject.num_draws, seed=subject.seed)
    picture = _draw(
        "worst", pictures.worst_rows, at_worst, subject.y[worst], worst, names, fit.model.likelihood.discrete
    )
    found.append(("Worst predicted rows", picture, "Predictive density (blue) and what was observed (orange)."))
    return found


def _parameters(subject: Subject) -> list[tuple[str, str, str]]:
    """ArviZ's forest and ridge plots of scale and weights of the neuron that counts most."""
    fit = subject.fit
    tree = arviz.to_arviz(
        fit,
        num_draws=subject.num_draws if not fit.inference.point else None,
        groups=["posterior"],
        derived=True,
        seed=subject.seed,
    )
    posterior = arviz.group(tree, "posterior")
    names = of_features(fit.model, ("layers.0.loc", "layers.0.scale", "layers.0.weights"), posterior)
    names = [name for name in names if float(posterior[name].std()) > 0.0]  # the one weight of a single input is 1
    if not names or subject.num_draws < 4:
        return []
    where = {"neuron_0": leading_neurons(subject)[:1]}
    if len(fit.feature_names) > 8:
        heavy = np.argsort(-posterior[names[-1]].mean(("chain", "draw")).sel(**where).values[0])[:8]
        where["input_0"] = [fit.feature_names[k] for k in np.sort(heavy)]
    said = "Mixture parameters of the neuron that the readout weighs most: means and central intervals of all chains."
    found = []
    for kind, caption in (("forest", said), ("ridge", "The same as densities.")):
        with pictures.drawing(), silence():  # ArviZ 0.23 under newer libraries
            figure = forest_figure(tree, names, where, kind)
            found.append((f"{kind.capitalize()} of neuron {where['neuron_0'][0]}", pictures.svg(figure, kind), caption))
    return found


def leading_neurons(subject: Subject, count: int = 2) -> list[int]:
    """Numbers of the first layer's neurons that the readout weighs most; the first ones where it sees other layers."""
    sites = subject.model.sites
    width = next(iter(sites.values())).shape[0]
    weight = subject.draws.get("readout.weight")
    if weight is None or sites["readout.weight"].axes[1] != "neuron_0":
        return list(range(min(count, width)))
    strength = np.abs(weight[0]).mean((0, 1))
    return sorted(int(j) for j in np.argsort(-strength)[:count])


def _check(subject: Subject, y: PerRow, prior: RowDraws, drawn: RowDraws, prediction: Any) -> tuple[str, str, str]:
    """The picture by which the likelihood is checked: heading, SVG and caption."""
    fit, name = subject.fit, "Predictive checks"
    likelihood = fit.model.likelihood
    if likelihood.picture == "classes":
        picture = _draw("check", pictures.check_classes, y, prior, drawn, likelihood.names(fit.class_names))
        return name, picture, "Data sets drawn before and after seeing the data, beside the data."
    if likelihood.picture == "rootogram":
        said = "Observed counts hang from those drawn after seeing the data; bars that end at zero are as observed."
        return name, _draw("check", pictures.rootogram, y, drawn), said
    if likelihood.picture == "thresholds":
        said = "Whether levels up to each threshold are as frequent as predicted."
        return name, _draw("check", pictures.thresholds, prediction.probs, y), said
    if likelihood.picture == "survival":
        code = fit.extras_of(subject.x[subject.rows]).get("censored", np.zeros(len(y)))
        said = "Kaplan-Meier estimate of the rows, and what is predicted for them."
        return name, _draw("check", pictures.survival, y, code, prediction), said
    picture = _draw("check", pictures.check_real, y, prior, drawn)
    return name, picture, "Data sets drawn before and after seeing the data, beside the data."


def _influence(subject: Subject, x: Rows, y: PerRow) -> np.ndarray:
    """Fall of the mean log predictive density when a column is permuted `(K,)`; zero for those not looked at."""
    functions = subject.fit.sample_functions(min(50, subject.num_draws), seed=subject.seed)
    rng = np.random.default_rng(subject.seed)
    some = rng.permutation(len(x))[:500]
    x, y = x[some], y[some]
    features = len(subject.fit.feature_names)
    whole, falls = functions.predict(x).log_density(y).mean(), np.zeros(features)
    heavy = np.arange(features)
    if len(heavy) > INFLUENCES:
        heavy = np.argsort(-np.asarray(x).std(0)[:features])[:INFLUENCES]
    for k in heavy:
        mixed = x.copy()
        mixed[:, k] = rng.permutation(mixed[:, k])
        falls[k] = whole - functions.predict(mixed).log_density(y).mean()
    return falls


def _worst(subject: Subject) -> np.ndarray:
    """Numbers of the rows of the smallest log predictive density."""
    density = np.logaddexp.reduce(subject.pointwise.reshape(-1, len(subject.x)), axis=0)
    return np.argsort(density, kind="stable")[:WORST]


def _draw(name: str, function: Any, *arguments: Any) -> str:
    return pictures.drawn(function, name, *arguments)


def _figure(name: str, picture: str, said: str) -> str:
    wide = ' class="wide"' if name.startswith("Worst") else ""
    name, said = html.escape(name), html.escape(said)
    picture = f'<div role="img" aria-label="{name}">{picture}</div>'
    return f"<figure{wide}><h2>{name}</h2>{picture}<figcaption>{said}</figcaption></figure>"


def _head(fit: Predictive, diagnosis: Diagnosis, name: str, rows: int) -> str:
    state = "healthy" if diagnosis.healthy else "problems"
    said = "No check found a problem." if diagnosis.healthy else "Problems: " + ", ".join(diagnosis.problems) + "."
    facts = [
        f"{rows} rows", f"{len(fit.feature_names)} inputs", f"{fit.num_parameters} parameters", f"{fit.method}",
        f"{fit.num_chains} chain{'s' * (fit.num_chains > 1)}", fit.backend, f"ugmm_ppl {version('ugmm-ppl')}",
    ]  # fmt: skip
    return (
        f'<header><h1>{html.escape(name)}</h1><p class="facts">{html.escape(" · ".join(facts))}</p>'
        f'<p class="banner {state}">{html.escape(said)}</p></header>'
    )


def _metrics(subject: Subject, test: tuple[Any, ...] | None) -> str:
    fit, cells = subject.fit, []
    weights = [] if fit.row_weights is None else [fit.row_weights[subject.rows]]
    data: dict[str, Any] = {"training rows": (subject.x[subject.rows], subject.y[subject.rows], *weights)}
    data |= {} if test is None else {"held-out rows": test}
    for where, (x, y, *own) in data.items():
        extras = own.pop() if own and isinstance(own[-1], Mapping) else {}
        rows = fit.check_inputs(x, extras=extras)
        prediction = fit.predict(rows, num_draws=subject.num_draws, seed=subject.seed)
        found = evaluate(prediction, fit.model.check_target(y, len(rows)), row_weights=own[0] if own else None)
        cells += [(f"{name.replace('_', ' ')}, {where}", value) for name, value in found.items()]
    items = "".join(f"<div><dt>{html.escape(name)}</dt><dd>{value:.3f}</dd></div>" for name, value in cells)
    return f'<dl class="metrics">{items}</dl>'


def _table(diagnosis: Diagnosis) -> str:
    rank = {verdict: i for i, verdict in enumerate(("problem", "note", "good", "not computed"))}
    rows = []
    for line in sorted(diagnosis, key=lambda line: rank[line.verdict]):
        cells = (
            ("check", line.name),
            ("found", line.shown),
            ("should be", line.threshold),
            ("what to do", line.advice),
        )
        verdict = f'<td><span class="mark">{MARKS[line.verdict]}</span> {line.verdict}</td>'
        others = "".join(f'<td data-label="{label}">{html.escape(cell)}</td>' for label, cell in cells)
        rows.append(f'<tr class="{line.verdict.replace(" ", "-")}">{verdict}{others}</tr>')
    head = "".join(f"<th>{name}</th>" for name in ("verdict", "check", "found", "should be", "what to do"))
    table = f'<table class="verdicts"><thead><tr>{head}</tr></thead><tbody>{"".join(rows)}</tbody></table>'
    return f"<section><h2>Verdicts</h2>{table}</section>"


def _worst_table(subject: Subject) -> str:
    """Inputs and target of the worst rows, the first twelve columns."""
    fit, worst = subject.fit, _worst(subject)
    names = fit.feature_names[:12]
    classes = None if fit.model.likelihood.num_classes is None else fit.model.likelihood.names(fit.class_names)
    head = "".join(f"<th>{html.escape(name)}</th>" for name in ("row", "y", *names))
    body = ""
    for row in worst:
        target = f"{subject.y[row]:.4g}" if classes is None else classes[int(subject.y[row])]
        cells = [str(row), target, *(f"{value:.4g}" for value in np.asarray(fit.features(subject.x))[row][:12])]
        body += "<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in cells) + "</tr>"
    return (
        '<section><h2>Worst predicted rows</h2><div class="scroll"><table class="data"><thead><tr>'
        f"{head}</tr></thead><tbody>{body}</tbody></table></div></section>"
    )
