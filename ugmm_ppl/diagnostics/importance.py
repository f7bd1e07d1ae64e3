"""Checks by importance sampling: Pareto k-hat of the guide, of its parts and of predictions, and corrected LOO."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from ugmm_ppl import arviz
from ugmm_ppl.backends.threads import silence
from ugmm_ppl.diagnostics.lines import Line, judged, skipped
from ugmm_ppl.diagnostics.subject import FEWEST_DRAWS, Subject
from ugmm_ppl.models import evaluation
from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.ops.numpy import NUMPY

GOOD_K = 0.7
"""Pareto k-hat up to which importance weights can be relied on. Source: Vehtari et al. 2024, JMLR 25(72)."""


@dataclasses.dataclass(frozen=True)
class Loo:
    """Leave-one-out cross-validation by Pareto smoothed importance sampling.

    Attributes:
        elpd: Sum over rows of log p(y_b | x_b, the other rows), in nats.
        se: Its standard error over rows.
        p_loo: Effective number of parameters.
        pointwise: The terms `(B,)`.
        pareto_k: k-hat of every row `(B,)`.
    """

    elpd: float
    se: float
    p_loo: float
    pointwise: np.ndarray
    pareto_k: np.ndarray


def loo(pointwise: np.ndarray, log_ratio: np.ndarray | None = None) -> Loo:
    """LOO from the log likelihood of every draw and row, with the correction for draws from a guide.

        log w_bs = -log p(y_b | x_b, theta_s) + log p(theta_s, y) - log q(theta_s)

    smoothed and normalised; elpd_b = logsumexp_s (log w_bs + log p(y_b | x_b, theta_s)). Source: Magnusson et al. 2019,
    arXiv:1904.10679. It is ArviZ's `loo_approximate_posterior` where that is there.

    Args:
        pointwise: Log likelihood `(C, S, B)`.
        log_ratio: log p(theta, y) - log q(theta), `(C, S)`; None for draws from the posterior.
    """
    flat = np.asarray(pointwise, dtype=np.float64).reshape(-1, pointwise.shape[-1]).T  # (B, C S)
    ratio = np.zeros(flat.shape[1]) if log_ratio is None else np.asarray(log_ratio, dtype=np.float64).ravel()
    found = None if log_ratio is None else arviz.loo_approximate_posterior(pointwise, log_ratio)
    if found is None:
        with silence():  # about large k-hats, which are returned
            log_weights, k = arviz.psis(ratio - ratio.max() - flat)
        found = logsumexp(NUMPY, log_weights + flat), k
    elpd, k = found
    lpd = logsumexp(NUMPY, flat) - math.log(flat.shape[1])
    return Loo(
        float(elpd.sum()), float(np.sqrt(len(elpd) * elpd.var())), float((lpd - elpd).sum()), elpd, np.asarray(k)
    )


def k_hat(log_ratio: np.ndarray) -> float:
    """Pareto k-hat of log importance ratios `(S,)`."""
    if np.ptp(log_ratio) < 1e-12:  # all weights are equal
        return -math.inf
    with silence():
        return float(arviz.psis(log_ratio - log_ratio.max())[1])


def check_importance(subject: Subject) -> list[Line]:
    """Lines of k-hats and LOO."""
    names = ["k-hat, whole guide", "k-hat, predictions", "LOO", "LOO, k-hat of rows"]
    fit = subject.fit
    if fit.inference.point:
        return [skipped("LOO", "A point has no posterior: use method='svi', or held-out rows.")]
    if subject.x is None:
        return [skipped(name, "The fit holds no data: give x and y.") for name in names]
    if subject.num_draws < FEWEST_DRAWS:
        return [skipped(n, f"{subject.num_draws} draws are too few for a tail; give num_draws >= 100.") for n in names]
    lines = [*_guide(subject), *_sites(subject), _predictions(subject)] if fit.inference.density else []
    if fit.temperature != 1.0:
        return [*lines, skipped("LOO", "The temperature is not 1: LOO would be that of another model.")]
    result = loo(subject.pointwise[..., subject.rows], subject.log_ratio if fit.inference.density else None)
    bad = float(np.mean(result.pareto_k > GOOD_K))
    weights = None if fit.row_weights is None else fit.row_weights[subject.rows]
    per_row = np.average(result.pointwise - fit.log_unit(subject.x[subject.rows]), weights=weights)
    trusted = bad <= 0.05
    lines.append(
        Line(
            "LOO", float(per_row), f"{per_row:.3f} ± {result.se / len(result.pointwise):.3f} nats per row", "",
            "good" if trusted else "note",
            "Importance weights are reliable for nearly all rows." if trusted
            else "Not to be relied on (next line): judge by held-out rows.",
        )
    )  # fmt: skip
    lines.append(
        judged(
            "LOO, k-hat of rows", bad, f"< 5 % of rows above {GOOD_K}",
            shown=f"{bad:.0%} of rows above {GOOD_K}, largest {result.pareto_k.max():.2f}", note=not trusted,
            advice="Rows that importance sampling cannot leave out. Usual for a network; judge by held-out rows.",
        )
    )  # fmt: skip
    return lines


def _guide(subject: Subject) -> list[Line]:
    found = max(k_hat(ratio) for ratio in subject.log_ratio)
    return [
        judged(
            "k-hat, whole guide", found, f"< {GOOD_K}", note=found > GOOD_K,
            advice="The guide is not the posterior, so its draws cannot be reweighted to it. Usual for a network; "
            "predictions may be good all the same. For parameters compare with method='nuts' on a small case.",
        )
    ]  # fmt: skip


def _sites(subject: Subject) -> list[Line]:
    """k-hat of each layer given the others at their means, where q factorises over sites on the real line."""
    fit, guide = subject.fit, subject.fit.family
    parts: dict[str, list[str]] = {}
    for name in guide.inferred:
        parts.setdefault(name.rsplit(".", 1)[0], []).append(name)
    plain = {name for name, site in guide.sites.items() if site.bijector is None and name in guide.factorised}
    if len(parts) == 1 or len(subject.rows) < len(subject.x) or not guide.inferred <= plain:
        return []
    target, lines = fit.to_network_target(subject.y), []
    network_x = fit.to_network(subject.x)
    for part, names in sorted(parts.items()):
        found = -math.inf
        for chain, params in enumerate(fit.state):
            with fit.settings():
                backend = fit.primitives
                moments = guide.moments({name: backend.array(value) for name, value in params.items()})
                means = {
                    n: np.broadcast_to(backend.numpy(moments[n][0]), v.shape[1:]) for n, v in subject.draws.items()
                }
                draws = means | {name: subject.draws[name][chain] for name in names}
                outputs = evaluation.outputs(backend, fit.model, draws, network_x, fit.model.rows_at_once)
                log_prior = evaluation.log_prior(backend, fit.model, draws)
            log_q = np.zeros(subject.num_draws)
            for name in names:
                mean, variance = (backend.numpy(a).astype(np.float64) for a in moments[name])
                z2 = (draws[name] - mean) ** 2 / variance
                log_q -= 0.5 * z2.reshape(subject.num_draws, -1).sum(1)
            log_likelihood = fit.over_rows(fit.model.log_likelihood(outputs.astype(np.float64), target))
            found = max(found, k_hat(log_prior + log_likelihood / fit.temperature - log_q))
        lines.append(
            judged(
                f"k-hat, {part}", found, f"< {GOOD_K}", note=found > GOOD_K,
                advice="The guide of these sites is too narrow or too wide, the others held at their means.",
            )
        )  # fmt: skip
    return lines


def _predictions(subject: Subject) -> Line:
    """k-hat of the reweighted mean: of ratio x |prediction - mean|, the median over probes, the worst chain.

    Source: Vehtari et al. 2024, section 3.2.4.
    """
    values = subject.values.reshape(*subject.values.shape[:2], -1)[..., :50]
    found = -math.inf
    for ratio, value in zip(subject.log_ratio, values, strict=True):
        with np.errstate(divide="ignore"):
            distance = np.log(np.abs(value - value.mean(0)))
        usable = np.isfinite(distance).all(0)
        if usable.any():
            found = max(found, float(np.median([k_hat(ratio + d) for d in distance[:, usable].T])))
    return judged(
        "k-hat, predictions", found, f"< {GOOD_K}", note=found > GOOD_K,
        advice="Predictions cannot be reweighted from the guide to the posterior either. Judge them by held-out rows.",
    )  # fmt: skip
