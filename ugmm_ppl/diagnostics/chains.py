"""Checks over chains and restarts: R-hat and ESS of functions, aligned neurons, and the sampler's own warnings."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np

from ugmm_ppl import arviz
from ugmm_ppl.checks.machine import require
from ugmm_ppl.diagnostics.lines import Line, judged, skipped
from ugmm_ppl.diagnostics.subject import Subject
from ugmm_ppl.nn.dense import Dense
from ugmm_ppl.typing import SiteDraws

if TYPE_CHECKING:
    from ugmm_ppl.models.network import BaseNetworkModel

RHAT = (1.01, 1.1)
"""R-hat of a good fit, and one from which on chains disagree. Source: Vehtari et al. 2021, arXiv:1903.08008."""

ESS = 100
"""Effective draws per chain. Source: as `RHAT`."""

BFMI = 0.3
"""Fraction of missing information below which the sampler explores energies badly. Source: arXiv:1604.00695."""

ENTRIES = 200
"""Parameters whose R-hat is taken, evenly spaced."""


def align(model: BaseNetworkModel, draws: SiteDraws) -> SiteDraws:
    """Permute the hidden neurons of every chain to match those of the first; no function changes by it.

    Layer by layer, neurons are matched to those of the first chain by the smallest sum of squared distances between the
    chain means of their parameters, each divided by its spread: an optimal assignment (Crouse 2016, by SciPy). The
    inputs of the next layer, or the columns of the readout, follow.

    Args:
        model: The model.
        draws: Draws `(C, S, ...)` of all sites, as `Fit.posterior` gives them; derived ones may be among them.

    Returns:
        New arrays of the same shapes.
    """
    assign = require("scipy.optimize", "diagnostics", ("scipy",)).linear_sum_assignment
    aligned = {name: value.copy() for name, value in draws.items()}
    placed = [place for place in model.body.placed if place.stem]
    for place, following in itertools.pairwise(placed):
        units = place.layer.output_shape(place.inputs)
        if not (isinstance(place.layer, Dense) and following.inputs == units):
            continue  # not neurons that are columns of what follows
        own = [n for n in aligned if n.startswith(f"{place.stem}.") and aligned[n].shape[2:3] == units]
        later = [n for n in aligned if n.startswith(f"{following.stem}.") and aligned[n].shape[3:][-1:] == units]
        means = [aligned[n].mean(1) for n in own]  # (C, J, ...)
        means += [np.swapaxes(aligned[n].mean(1), 1, 2) for n in later]  # (C, J, next)
        flat = np.concatenate([m.reshape(*m.shape[:2], -1) / max(float(m.std()), 1e-12) for m in means], 2)
        for chain in range(1, len(flat)):
            cost = ((flat[0][:, None, :] - flat[chain][None, :, :]) ** 2).sum(-1)
            order = assign(cost)[1]
            for name in own:
                aligned[name][chain] = aligned[name][chain][:, order]
            for name in later:
                aligned[name][chain] = aligned[name][chain][..., order]
    return aligned


def check_chains(subject: Subject) -> list[Line]:
    """Lines of chains."""
    fit = subject.fit
    lines = _sampler(subject) if fit.inference.markov else []
    names = ("R-hat of functions", "ESS of functions")
    if subject.x is None:
        return [*lines, *(skipped(name, "The fit holds no data: give x and y.") for name in names)]
    if fit.num_chains < 2 or subject.num_draws < 4:
        more = fit.inference.settings.runs
        return [*lines, *(skipped(name, f"One chain, or a point: give {more}.") for name in names)]
    sampled = fit.inference.markov
    rhat = arviz.rhat(subject.values)
    worst = float(np.nanmax(rhat)) if np.isfinite(rhat).any() else np.nan
    advice = (
        "Chains disagree about y. Give more num_warmup and num_draws, or a simpler model."
        if sampled else
        "Restarts found different functions, as networks do: predictions average over them, and weigh('stacking', ...) "
        "weighs them."
    )  # fmt: skip
    lines.append(
        judged(
            names[0], worst, f"< {RHAT[0]}", shown=f"{worst:.3f}, median {np.nanmedian(rhat):.3f}",
            problem=sampled and worst > RHAT[1], note=worst > RHAT[0], advice=advice,
        )
    )  # fmt: skip
    ess = arviz.ess(subject.values)
    least = float(np.nanmin(ess)) if np.isfinite(ess).any() else np.nan
    lines.append(
        judged(
            names[1], least, f"> {ESS} per chain", shown=f"{least:.0f} of {fit.num_chains * subject.num_draws} draws",
            note=least < ESS * fit.num_chains, advice=advice,
        )
    )  # fmt: skip
    return [*lines, _parameters(subject)]


def _parameters(subject: Subject) -> Line:
    """R-hat of parameters, which permuted neurons make meaningless, and after aligning them."""
    aligned = align(subject.model, subject.draws)
    before, after = (_entries(draws) for draws in (subject.draws, aligned))
    found = [float(np.nanmedian(arviz.rhat(values))) for values in (before, after)]
    return Line(
        "R-hat of parameters", found[1], f"{found[0]:.2f} as they are, {found[1]:.2f} with neurons aligned (medians)",
        "", "note",
        "Not meaningful: permuted neurons are the same function. Aligning takes out permutations, not other modes.",
    )  # fmt: skip


def _entries(draws: SiteDraws) -> np.ndarray:
    """Some of the parameters, `(C, S, n)`."""
    flat = np.concatenate([value.reshape(*value.shape[:2], -1) for value in draws.values()], 2)
    return flat[..., np.unique(np.linspace(0, flat.shape[2] - 1, ENTRIES).round().astype(int))]


def _sampler(subject: Subject) -> list[Line]:
    stats = subject.fit.stats
    if "diverging" not in stats:
        return []
    share = float(stats["diverging"].mean())
    lines = [
        judged(
            "divergences", share, "0", shown=f"{int(stats['diverging'].sum())} of {stats['diverging'].size} draws",
            problem=share > 0.01, note=share > 0.0,
            advice="Trajectories that left the posterior: parts of it may be missing. Narrow the priors of scales, or "
            "give more num_warmup.",
        )
    ]  # fmt: skip
    if "energy" in stats:
        least = float(np.min(arviz.bfmi(stats["energy"])))
        lines.append(
            judged(
                "E-BFMI", least, f"> {BFMI}", note=least < BFMI,
                advice="Energies are explored slowly: heavy tails, or a funnel. Narrow the priors, or draw longer.",
            )
        )  # fmt: skip
    return lines
