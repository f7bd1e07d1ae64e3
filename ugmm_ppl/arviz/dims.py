"""Names, shapes and coordinates of the axes of a tree."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ugmm_ppl.posterior.predictive import Predictive


def axes(group: str, variable: str, dims: Mapping[str, list[str]], rank: int) -> list[str]:
    """Names of all axes of a variable of a group."""
    if group == "training":
        return ["chain", "evaluated_at" if variable == "score" else "step"]
    lead = [] if group.endswith("_data") else ["chain", "draw"]
    if group == "posterior_summary":
        lead = ["chain", "statistic"]
    own = dims.get(variable, [f"{variable}_dim_{i}" for i in range(rank - len(lead))])
    return [*lead, *own[: rank - len(lead)]]


def site_shapes(fit: Predictive, *, derived: bool) -> dict[str, tuple[int, ...]]:
    """Shape of every site, and of the derived scale and weights."""
    shapes = {name: site.shape for name, site in fit.family.sites.items()}
    if derived:
        twins = {".log_scale": ".scale", ".logits": ".weights"}
        plain = fit.model.plain_sites
        for name, shape in list(shapes.items()):
            for end, twin in twins.items():
                if name.endswith(end) and name in plain:
                    shapes[name.removesuffix(end) + twin] = shape
    return shapes


def site_dims(fit: Predictive, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Names of the axes of every site of the model; sites of callables get ArviZ's default names."""
    named = fit.model.axes()
    return {n: names for n, (names, sizes) in named.items() if n in shapes and shapes[n] == sizes}


def coordinates(fit: Predictive) -> dict[str, Any]:
    """Coordinates of the dims of the sites."""
    likelihood = fit.model.likelihood
    return fit.model.coordinates(fit.feature_names) | {likelihood.axis: likelihood.names(fit.class_names)}
