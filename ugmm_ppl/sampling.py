"""What the samplers of both backends give back, and draws of indices in NumPy."""

from __future__ import annotations

import dataclasses

import numpy as np

from ugmm_ppl.neuron import near_zero
from ugmm_ppl.ops import NUMPY


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


def gumbel_max(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of the last axis, drawn with probability proportional to exp(logits), however far these are from zero."""
    logits = near_zero(NUMPY, logits.astype(np.float64))
    return np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)


def nuts_stats(diverging: np.ndarray, energy: np.ndarray, steps: np.ndarray) -> dict[str, np.ndarray]:
    """Statistics by their names in ArviZ, `(C, S)` each; a tree of depth d has up to 2^d - 1 leapfrog steps."""
    steps = np.maximum(steps, 1).astype(int)
    depth = np.floor(np.log2(steps)).astype(int) + 1
    return {"diverging": diverging, "energy": energy.astype(np.float64), "n_steps": steps, "tree_depth": depth}
