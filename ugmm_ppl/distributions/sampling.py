"""Draws of indices in NumPy."""

from __future__ import annotations

import numpy as np

from ugmm_ppl.neuron import near_zero
from ugmm_ppl.ops.numpy import NUMPY


def gumbel_max(logits: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Indices of the last axis, drawn with probability proportional to exp(logits), however far these are from zero."""
    logits = near_zero(NUMPY, logits.astype(np.float64))
    return np.argmax(logits + rng.gumbel(size=logits.shape), axis=-1)
