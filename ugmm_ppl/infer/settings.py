"""The checked settings of a method."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ugmm_ppl.infer.checkpoint import digest
from ugmm_ppl.infer.loop import Moment


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """The checked settings; described at `ugmm_ppl.fit`.

    Attributes:
        num_chains: Restarts, or chains of a sampler.
        held_out: Inputs, targets and perhaps weights of rows that are watched, or None.
        start: "data", "map", or a fit to begin from.
    """

    num_chains: int
    num_steps: int
    batch_size: int
    learning_rate: float
    schedule: str | Callable[[float], float]
    optimizer: Any
    clip_norm: float | None
    num_particles: int
    split_batch: bool
    kl_warmup: float
    held_out: tuple[np.ndarray, ...] | None
    patience: int | None
    start: Any
    checkpoint: Path | None
    every: int
    callbacks: Sequence[Callable[[Moment], Any]]
    num_warmup: int
    num_draws: int
    max_tree_depth: int
    progress: bool

    def described(self) -> dict[str, Any]:
        """What makes the steps of a training what they are, as JSON values: objects by name, data by a digest."""
        plain = ("num_steps", "batch_size", "learning_rate", "clip_norm", "num_particles", "kl_warmup")
        described: dict[str, Any] = {"num_restarts": self.num_chains}
        described |= {name: getattr(self, name) for name in plain}
        for name in ("schedule", "optimizer"):
            given = getattr(self, name)
            described[name] = given if isinstance(given, str) else getattr(given, "__name__", type(given).__name__)
        described["held_out"] = None if self.held_out is None else digest(*self.held_out)
        described |= {"patience": self.patience, "split_batch": self.split_batch}
        described["start"] = self.start if isinstance(self.start, str) else digest(*self.start.state[0].values())
        return described
