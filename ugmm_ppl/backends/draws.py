"""What the samplers of both backends give back."""

from __future__ import annotations

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class NutsDraws:
    """Draws of a sampler.

    Attributes:
        values: Values `(C, S, ...)` by site.
        stats: Statistics `(C, S)` by name.
        interrupted: The user stopped it; S is what every chain had reached.
    """

    values: dict[str, np.ndarray]
    stats: dict[str, np.ndarray]
    interrupted: bool = False


def nuts_stats(diverging: np.ndarray, energy: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics by their names in ArviZ, `(C, S)` each; a tree of depth d has up to 2^d - 1 leapfrog steps."""
    steps = np.maximum(steps, 1).astype(int)
    depth = np.floor(np.log2(steps)).astype(int) + 1
    return {"diverging": diverging, "energy": energy.astype(np.float64), "n_steps": steps, "tree_depth": depth}
