"""Checks of the training of "svi", "map" and "laplace": learning rate, convergence, and whether the guide moved."""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

import numpy as np

from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.diagnostics.lines import Line, judged, skipped
from ugmm_ppl.diagnostics.subject import Subject
from ugmm_ppl.infer.elbo import negative_elbo
from ugmm_ppl.infer.loop import Plan, train
from ugmm_ppl.infer.schedule import Batches, kl_weights, learning_rates

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive

WINDOWS = 50
"""Parts of the loss trace whose medians are looked at."""

RISE = 0.5
"""Rise of the loss above its start, as a share of its fall below, that is too much."""

GAIN = 0.05
"""Nats per row that further training should not gain."""

MORE_STEPS = (100, 400)
"""Fewest and most steps of further training; between them a tenth of those that were taken."""

STILL = 0.05
"""Relative change of a guide's scale that counts as none."""


def check_training(subject: Subject, *, more_steps: bool = True) -> list[Line]:
    """Lines of the training."""
    fit = subject.fit
    if fit.inference.markov:
        return []
    lines = [learning_rate(fit)]
    lines.append(convergence(subject) if more_steps else skipped("ELBO convergence", "Switched off: more_steps=False."))
    if fit.inference.bound:
        lines.append(moved(fit))
    return lines


def learning_rate(fit: Predictive) -> Line:
    """How far the loss rises above its start: training that is thrown off by its own steps.

    The largest median of a fiftieth of the steps, less the first of them, as a share of the fall from there to the
    smallest; the worst restart counts. The fall counts as a tenth of the first loss at least, so that noise is no rise.
    """
    rate = fit.training.get("learning_rate", float("nan"))
    advice = f"Steps are too long. Fit again with a tenth of learning_rate={rate:g}."
    worst = 0.0
    for losses in fit.losses:
        taken = losses[np.isfinite(losses)]
        if len(taken) < len(losses) and not (fit.interrupted or fit.scores.size):
            return judged(
                "learning rate", len(taken), "no step with a loss that is not finite",
                shown=f"stopped at step {len(taken)}", problem=True, advice=advice,
            )  # fmt: skip
        if len(taken) < 10:
            return skipped("learning rate", "Fewer than ten steps.")
        medians = np.array([np.median(part) for part in np.array_split(taken, min(WINDOWS, len(taken) // 5))])
        start = float(np.median(taken[:3]))
        fall = max(start - float(medians.min()), 0.1 * abs(start), 1e-300)
        worst = max(worst, (float(medians[1:].max(initial=start)) - start) / fall)
    return judged("learning rate", worst, f"loss rises < {RISE} of its fall", problem=worst > RISE, advice=advice)


def convergence(subject: Subject) -> Line:
    """What further training gains in nats per row, with its error: means over the last tenth of the steps.

    The guide is trained on from where it is, with its own settings and one more cycle of the learning rate, for a tenth
    of its steps (100 to 400). A schedule that ends at zero makes every loss look flat; this does not.
    """
    fit, name = subject.fit, "ELBO convergence"
    if subject.x is None or not fit.losses.size or not fit.training:
        return skipped(name, "The fit holds no data or settings of its training: give x and y.")
    if not fit.inference.continues:
        return skipped(name, "A Laplace approximation is not trained on; look at the loss.")
    before, error_before = _last(fit.losses)
    after, error_after = _last(_trained_on(subject))
    gains = (before - after) / len(subject.x)
    errors = np.hypot(error_before, error_after) / len(subject.x)
    if not np.isfinite(gains).any():
        return skipped(name, "Further training is not finite.")
    worst = int(np.nanargmax(gains))
    gain, error = float(gains[worst]), float(errors[worst])
    steps = fit.training["num_steps"]
    what = fit.inference.loss
    return judged(
        name, gain, f"gain less two errors < {GAIN} nats per row",
        shown=f"{what} {before[worst]:.1f} ± {error_before[worst]:.1f}; further steps gain {gain:.3f} ± {error:.3f}",
        problem=gain - 2.0 * error > GAIN,
        advice=f"Training ended too early. Give more than num_steps={steps}, or start=fit to go on.",
    )  # fmt: skip


def moved(fit: Predictive) -> Line:
    """Share of the guide's scales that are where they began: such a guide has learnt nothing about uncertainty."""
    with fit.settings():
        backend, found = fit.primitives, []
        for params in fit.state:
            moments = fit.family.moments({name: backend.array(value) for name, value in params.items()})
            variances = [backend.numpy(moments[name][1]).ravel() for name in fit.family.inferred]
            found.append(np.concatenate(variances))
    shares = [float(np.mean(np.abs(np.log(np.sqrt(v) / fit.init_scale)) < STILL)) for v in found]
    worst = max(shares)
    return judged(
        "guide moved", worst, "< 0.5 of the scales at their start", shown=f"{worst:.0%} of the scales at their start",
        problem=worst > 0.5,
        advice=f"The guide is still what it began as. Raise learning_rate={fit.training.get('learning_rate')} or "
        "num_steps, and look at init_scale.",
    )  # fmt: skip


def _last(losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Mean of the last tenth of the steps of every restart, and its standard error."""
    tails = [row[np.isfinite(row)] for row in losses]
    tails = [row[-max(5, len(row) // 10) :] for row in tails]
    mean = np.array([row.mean() if row.size else np.nan for row in tails])
    error = np.array([row.std(ddof=1) / np.sqrt(row.size) if row.size > 1 else np.inf for row in tails])
    return mean, error


def _trained_on(subject: Subject) -> np.ndarray:
    """Losses `(C, steps)` of further training from the guides as they are."""
    fit, settings = subject.fit, subject.fit.training
    backend, data = load_backend(fit.backend), fit.network_data(subject.x, subject.y)
    rows = len(data[0])
    steps = int(np.clip(settings["num_steps"] // 10, *MORE_STEPS))
    particles = settings["num_particles"]
    with fit.settings():
        guide = fit.family
        objective = functools.partial(
            negative_elbo, backend, functools.partial(fit.model, backend), guide, data_size=rows
        )
        seeds = [fit.seed + 7919 + restart for restart in range(fit.num_chains)]
        trainer = backend.trainer(
            objective, guide.noise_shapes(), data, seeds, optimizer="adam", clip_norm=settings["clip_norm"],
            num_particles=particles, split_batch=settings["split_batch"],
        )  # fmt: skip
        mixed = fit.model.has_local_variables or (settings["split_batch"] and particles > 1)
        orders = [Batches(rows, min(settings["batch_size"], rows), seed, mixed=mixed) for seed in seeds]
        plan = Plan(
            learning_rates(steps, settings["learning_rate"], "one-cycle"),
            kl_weights(steps, fit.temperature, 0.0),
            lambda restart, step: orders[restart](step),
            None,
        )
        with Progress(steps, "", show=False) as bar:
            run = train(trainer, fit.state, plan, callbacks=(), held_out=None, checkpoint=None, progress=bar)
    return run.losses
