"""`diagnose`: all checks of a fit in one table."""

from __future__ import annotations

import dataclasses
import html
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ugmm_ppl import checks
from ugmm_ppl.diagnostics.chains import check_chains
from ugmm_ppl.diagnostics.data import check_data
from ugmm_ppl.diagnostics.importance import check_importance
from ugmm_ppl.diagnostics.lines import VERDICTS, Line
from ugmm_ppl.diagnostics.optimisation import check_training
from ugmm_ppl.diagnostics.structure import check_network, check_prior
from ugmm_ppl.diagnostics.subject import Subject

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive


@dataclasses.dataclass(frozen=True)
class Diagnosis:
    """The table that `diagnose` makes; printed, it is text.

    Attributes:
        lines: The checks: data, prior, training, guide, LOO, chains, network.
    """

    lines: tuple[Line, ...]

    @property
    def healthy(self) -> bool:
        """Whether no check found a problem."""
        return not self.problems

    @property
    def problems(self) -> list[str]:
        """Names of the checks that found one."""
        return [line.name for line in self.lines if line.verdict == "problem"]

    def __getitem__(self, name: str) -> Line:
        """The line of that name."""
        checks.choice("name", name, [line.name for line in self.lines])
        return next(line for line in self.lines if line.name == name)

    def __iter__(self) -> Iterator[Line]:
        """The lines."""
        return iter(self.lines)

    def __str__(self) -> str:
        """The table as text: problems first."""
        rank = {verdict: i for i, verdict in enumerate(("problem", "note", "good", "not computed"))}
        order = sorted(self.lines, key=lambda line: rank[line.verdict])
        rows = [("check", "found", "should be", "verdict"), *((o.name, o.shown, o.threshold, o.verdict) for o in order)]
        widths = [max(len(row[i]) for row in rows) for i in range(4)]
        text = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        advice = [f"{line.verdict}: {line.name}. {line.advice}" for line in order if line.verdict in VERDICTS[1:3]]
        said = "healthy: no check found a problem" if self.healthy else f"problems: {', '.join(self.problems)}"
        return "\n".join([said, "", *text, "", *advice])

    def _repr_html_(self) -> str:
        """The table in a notebook."""
        head = "".join(f"<th>{name}</th>" for name in ("check", "found", "should be", "verdict", "what to do"))
        body = "".join(
            f'<tr class="{line.verdict.replace(" ", "-")}">'
            + "".join(
                f"<td>{html.escape(cell)}</td>"
                for cell in (line.name, line.shown, line.threshold, line.verdict, line.advice)
            )
            + "</tr>"
            for line in self.lines
        )
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def diagnose(
    fit: Predictive, x: Any = None, y: Any = None, *, num_draws: int | None = None, seed: int | None = None,
    more_steps: bool = True,
) -> Diagnosis:  # fmt: skip
    """Look for what is wrong with a fit, and say what to do.

    A problem is a defect of data, prior, training or sampler that must be mended; a note is worth knowing, such as a
    Pareto k-hat above 0.7, which nearly every mean-field guide of a network has. Checks: duplicated inputs and noisy
    labels, width of the prior, learning rate and convergence of the training (it trains on for a tenth of the steps, on
    a copy), whether the guide moved, k-hat of the guide, of each layer and of predictions, LOO with the correction for
    draws from a guide, R-hat and ESS of functions over chains, divergences and E-BFMI of "nuts", contraction of every
    site, and activations, dead components and collapsed scales of every layer.

    Args:
        fit: The fit.
        x: The training inputs, if the fit does not hold them (after `load`); without data only some checks are made.
        y: The training targets, likewise.
        num_draws: Draws per chain; None is 500, or what takes about half a minute.
        seed: Seed of the draws; None is that of the fit.
        more_steps: Train on, to see whether the training had converged.
    """
    subject = Subject(fit, x, y, num_draws, seed)
    before = (*check_data(subject), *check_prior(subject), *check_training(subject, more_steps=more_steps))
    return Diagnosis((*before, *check_importance(subject), *check_chains(subject), *check_network(subject)))
