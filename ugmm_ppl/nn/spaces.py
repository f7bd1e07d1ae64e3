"""The spaces in which parameters are sampled: a scale or its logarithm, weights or their logits."""

from __future__ import annotations

SCALE_FLOOR = 1e-6
"""Smallest scale of a component, in the unit of the layer's input."""
