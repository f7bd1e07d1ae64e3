"""Dropout of components."""

from __future__ import annotations

from ugmm_ppl.typing import Array, Ops


def survivors(ops: Ops, uniform: Array, rate: float) -> Array:
    """Dropout mask over the last axis from uniform numbers: keep where u >= rate, and the largest u of every row."""
    return (uniform >= rate) | (uniform == ops.max(uniform, -1))
