"""Checks of prior and posterior of the network: width of the prior, contraction, activations, dead parts, scales."""

from __future__ import annotations

import functools
import math

import numpy as np

from ugmm_ppl import budgets
from ugmm_ppl.diagnostics.lines import Line, judged, skipped
from ugmm_ppl.diagnostics.subject import Subject
from ugmm_ppl.likelihoods.categorical import Categorical
from ugmm_ppl.models import evaluation
from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.nn.base import values_of
from ugmm_ppl.nn.dense import Dense, neuron_parameters
from ugmm_ppl.nn.network import READOUT
from ugmm_ppl.ops.numpy import NUMPY

WIDEST = {"loc": 10.0, "log_scale": 4.0, "scale": 100.0, "logits": 10.0, "weight": 10.0, "bias": 10.0}
"""Largest standard deviation of a prior that makes sense, in the units of standardised inputs; weight: of the sum over
the neurons."""

WIDE_PREDICTIONS = (10.0, 100.0)
"""Ratio of the 80 % intervals of prior predictive and observed y that is worth a note, and that is a problem."""

SATURATED = 0.8
"""Share of class probabilities above 0.999 under the prior."""

CONTRACTION = 0.05
DEAD = 0.01
"""Largest share of a component in its neuron, over rows, below which it is dead."""

COLLAPSED = 1e-3
"""Scale of a component, in units of its input's spread, below which it answers to one value."""

MOST_COLLAPSED = 0.01
LARGEST_ACTIVATION = 1e6
FEW_DRAWS = 5


def check_prior(subject: Subject) -> list[Line]:
    """Lines of the prior."""
    return [prior_width(subject), *([] if subject.x is None else [prior_predictions(subject)])]


def check_network(subject: Subject) -> list[Line]:
    """Lines of the posterior of the network."""
    if subject.x is None:
        return [*contraction(subject), skipped("activations", "The fit holds no data: give x and y.")]
    return [*contraction(subject), *activations(subject)]


def prior_width(subject: Subject) -> Line:
    """The widest prior among the sites, as a share of what makes sense for its role."""
    worst, where = 0.0, ""
    for name, values in subject.prior.items():
        role = name.rsplit(".", 1)[-1]
        if role not in WIDEST:
            continue
        spread = float(np.quantile(values, 0.975) - np.quantile(values, 0.025)) / 3.92  # that of a Normal
        if name == "readout.weight":
            spread *= math.sqrt(values.shape[-1])
        if name == "layers.0.loc":
            spread /= max(float(np.std(subject.network_features)), 1e-12) if subject.x is not None else 1.0
        if spread / WIDEST[role] > worst:
            worst, where = spread / WIDEST[role], name
    return judged(
        "prior width", worst, "< 1 of what makes sense", shown=f"{worst:.2g} of what makes sense, {where}",
        problem=worst > 1.0,
        advice=f"The prior of {where} is far wider than its role allows. Inputs are standardised: give it the scale "
        "that the neurons need, such as the defaults of up.Prior.",
    )  # fmt: skip


def prior_predictions(subject: Subject) -> Line:
    """What the prior says of y: its spread against that of the data, or the share of certain class probabilities."""
    fit = subject.fit
    with fit.settings():
        x = subject.network_x[:50]
        outputs = evaluation.outputs(fit.primitives, fit.model, subject.prior, x, len(x)).astype(np.float64)
    advice = "The prior is too wide: before any data it is sure of nonsense. Narrow the priors, readout first."
    likelihood = fit.model.likelihood
    if not isinstance(likelihood, Categorical):
        drawn = likelihood.sample(outputs, np.random.default_rng(subject.seed))
        low, high = np.quantile(drawn, [0.1, 0.9])
        observed = np.quantile(fit.to_network_target(subject.y), [0.1, 0.9])
        ratio = float((high - low) / max(observed[1] - observed[0], 1e-12))
        return judged(
            "prior predictions", ratio, f"spread < {WIDE_PREDICTIONS[0]:g} times that of y",
            shown=f"spread {ratio:.2g} times that of y", problem=ratio > WIDE_PREDICTIONS[1],
            note=ratio > WIDE_PREDICTIONS[0], advice=advice,
        )  # fmt: skip
    sure = float(np.mean(likelihood.log_probs(outputs).max(-1) > math.log(0.999)))
    return judged(
        "prior predictions", sure, f"< {SATURATED:.0%} certain", shown=f"{sure:.0%} of class probabilities above 0.999",
        problem=sure > SATURATED, advice=advice,
    )  # fmt: skip


def contraction(subject: Subject) -> list[Line]:
    """1 - posterior variance / prior variance of each inferred site, the median over entries."""
    if subject.num_draws < 2:
        return []
    lines = []
    for name, values in subject.draws.items():
        if name not in subject.fit.family.inferred or name not in subject.prior:
            continue
        before = subject.prior[name].var(0).mean()
        share = float(np.median(1.0 - values.var(1).mean(0) / max(float(before), 1e-300)))
        lines.append(
            judged(
                f"contraction, {name}", share, f"> {CONTRACTION}", note=share < CONTRACTION,
                advice="The data say next to nothing about most of these; fewer neurons would do.",
            )
        )  # fmt: skip
    return lines


def activations(subject: Subject) -> list[Line]:
    """Ranges of activations, dead components and neurons, and collapsed scales of every layer, over rows and draws."""
    model, lines = subject.model, []
    every = max(1, subject.num_draws // FEW_DRAWS)
    some = {n: v[:, ::every][:, :FEW_DRAWS].reshape(-1, *v.shape[2:]) for n, v in subject.draws.items()}
    count = len(next(iter(some.values())))
    inputs = [subject.network_features.reshape(-1, *model.network.inputs)] * count
    for stem, layer, shape in (place for place in model.body.placed if place.stem != READOUT):
        drawn = [
            values_of({name: value[s] for name, value in some.items()}, stem) if stem else {} for s in range(count)
        ]
        if isinstance(layer, Dense):
            found = [_layer(values, h) for values, h in zip(drawn, inputs, strict=True)]
            lines += _layer_lines(
                int(stem.removeprefix("layers.")), *(np.array(part) for part in zip(*found, strict=True))
            )
            inputs = [activation for activation, _, _ in found]
        else:
            inputs = [layer.apply(NUMPY, values, h, shape) for values, h in zip(drawn, inputs, strict=True)]
    return lines


def _layer(values: dict[str, np.ndarray], h: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Activations `(B, J)`, largest share of each component `(J, K)`, scales by spread of the input `(J, K)`."""
    loc, scale, log_weights = (np.asarray(a, dtype=np.float64) for a in neuron_parameters(NUMPY, values))
    spread = np.maximum(h.std(0), 1e-12)
    rows = max(1, budgets.TEMPORARY // scale.size)
    share, parts = np.zeros(scale.shape), []
    activation = functools.partial(_terms, loc=loc, scale=scale, log_weights=log_weights)
    for start in range(0, len(h), rows):
        terms = activation(h[start : start + rows])
        parts.append(logsumexp(NUMPY, terms))
        with np.errstate(invalid="ignore"):
            share = np.fmax(share, np.exp(terms - parts[-1][..., None]).max(0))
    return np.concatenate(parts), share, scale / np.where(h.std(0) > 1e-9, spread, 1.0)


def _terms(h: np.ndarray, *, loc: np.ndarray, scale: np.ndarray, log_weights: np.ndarray) -> np.ndarray:
    """log weights_jk + log N(h_k; loc_jk, scale_jk^2), `(B, J, K)`."""
    z = (h[:, None, :] - loc) / scale
    return log_weights - 0.5 * z * z - np.log(scale) - 0.5 * math.log(2.0 * math.pi)


def _layer_lines(i: int, activation: np.ndarray, share: np.ndarray, scale: np.ndarray) -> list[Line]:
    finite = bool(np.isfinite(activation).all())
    low, high = (float(np.quantile(activation[np.isfinite(activation)], q)) for q in (0.0, 1.0))
    flat = float(np.mean(activation.std(1) < 1e-6))
    dead = float(np.mean(share.max(0) < DEAD))
    alive = share > DEAD
    collapsed = float(np.mean((scale < COLLAPSED)[alive])) if alive.any() else 0.0
    return [
        judged(
            f"activations, layer {i}", max(-low, high), f"finite, within ±{LARGEST_ACTIVATION:g}",
            shown=f"{low:.3g} to {high:.3g}", problem=not finite or max(-low, high) > LARGEST_ACTIVATION,
            note=flat > 0.5, advice="Activations that overflow, or neurons that say the same for every row. "
            "Narrow the priors of scale and loc, or lower learning_rate.",
        ),
        judged(
            f"dead components, layer {i}", dead, "< 90 %", shown=f"{dead:.0%} of the components", note=dead > 0.9,
            advice="Components with a share below 1 % in their neuron in every row. Fewer inputs or neurons would do.",
        ),
        judged(
            f"collapsed scales, layer {i}", collapsed, f"< {MOST_COLLAPSED:.0%} below {COLLAPSED:g}",
            shown=f"{collapsed:.1%} of the live components", problem=collapsed > MOST_COLLAPSED, note=collapsed > 0.0,
            advice="Components that answer to one value. Use a prior that keeps scales from zero, such as "
            "scale=up.dist.InverseGamma(3.0, 1.0).",
        ),
    ]  # fmt: skip
