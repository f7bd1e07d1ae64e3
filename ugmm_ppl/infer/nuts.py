"""NUTS: the no-U-turn sampler of the backend. Source: Hoffman and Gelman 2014, JMLR 15(47)."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import Any

from ugmm_ppl import checks
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.guides.sites import constrain
from ugmm_ppl.infer.method import Method, Reached, Task, method
from ugmm_ppl.infer.settings import Sampled, setting
from ugmm_ppl.models.base import BaseModel


@dataclasses.dataclass(frozen=True, kw_only=True)
class NUTSSettings(Sampled):
    """Those of "nuts".

    Args:
        max_tree_depth: At most 2^max_tree_depth - 1 leapfrog steps per draw.
    """

    max_tree_depth: int = setting(10, checks.count)


@method
class NUTS(Method):
    """Draws from the posterior, one chain per start; sites that are not inferred are held at the start of the first."""

    name = "nuts"
    settings = NUTSSettings
    markov = True
    loss = ""
    continues = False
    family = "normal"
    dtype = "float64"

    def refuse(self, model: BaseModel, families: Mapping[str, str], bayesian: Any, *, weighted: bool) -> None:
        """Refuse densities that change from call to call, and weights of rows whose own variables are sampled."""
        checks.sampler(self.name, model.dropout)
        if weighted and model.has_local_variables:
            raise checks.no_weights()

    def run(self, task: Task) -> Reached:
        """Adapt, then draw."""
        backend, settings, guide = task.backend, task.settings, task.guide
        x, y, *_ = task.data
        inferred, first = guide.inferred, task.starts[0]
        held, _ = constrain(guide.sites, {n: backend.array(u) for n, u in first.items() if n not in inferred})
        model = backend.condition(functools.partial(task.model, backend), held)
        local = [task.model.local_starts(x, y, task.seed + chain) for chain in range(len(task.starts))]
        starts = [
            {name: u for name, u in start.items() if name in inferred} | own
            for start, own in zip(task.starts, local, strict=True)
        ]
        label = f"nuts, {len(starts)} chains"
        with Progress(settings.num_warmup + settings.num_draws, label, show=task.progress) as bar:
            drawn = backend.inference.nuts(
                model, task.data, starts, data_size=len(x) / settings.temperature, num_warmup=settings.num_warmup,
                num_draws=settings.num_draws, max_tree_depth=settings.max_tree_depth, seed=task.seed, progress=bar,
            )  # fmt: skip
        own = {name: backend.numpy(value) for name, value in held.items()}
        return Reached(state=[drawn.values], held=own, stats=drawn.stats, interrupted=drawn.interrupted)
