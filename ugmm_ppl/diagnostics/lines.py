"""A line of the table, and its verdict."""

from __future__ import annotations

import dataclasses

VERDICTS = ("good", "note", "problem", "not computed")


@dataclasses.dataclass(frozen=True)
class Line:
    """One check.

    Attributes:
        name: What was looked at.
        value: What was found, or None where nothing was computed.
        shown: The same as text, with its error or place where it has one.
        threshold: What it should be, as text.
        verdict: "good"; "note", worth knowing but no defect of the fit; "problem"; "not computed".
        advice: What to do, or what it means.
    """

    name: str
    value: float | None
    shown: str
    threshold: str
    verdict: str
    advice: str = ""


def judged(  # one sentence for each verdict
    name: str, value: float, threshold: str, *, shown: str | None = None, problem: bool = False, note: bool = False,
    advice: str = "", otherwise: str = "",
) -> Line:  # fmt: skip
    """A line with the verdict that follows from two conditions; `otherwise` is said if the verdict is good."""
    verdict = "problem" if problem else "note" if note else "good"
    text = f"{value:.3g}" if shown is None else shown
    return Line(name, float(value), text, threshold, verdict, otherwise if verdict == "good" else advice)


def skipped(name: str, why: str) -> Line:
    """A line for what was not computed."""
    return Line(name, None, "", "", "not computed", why)
