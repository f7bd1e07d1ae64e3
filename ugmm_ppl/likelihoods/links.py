"""Logarithms of probabilities, without overflow or cancellation, for all array libraries."""

from __future__ import annotations

from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.typing import Array, Ops


def log_sigmoid(ops: Ops, log_odds: Array) -> Array:
    """log 1 / (1 + exp(-log_odds))."""
    return -logsumexp(ops, ops.concat([0.0 * log_odds[..., None], -log_odds[..., None]]))


def log1mexp(ops: Ops, a: Array) -> Array:
    """log(1 - exp(a)) for a < 0. Source: Maechler 2012, equation (7)."""
    small = a > -0.6931471805599453
    near, far = ops.where(small, a, -1.0), ops.where(small, -1.0, a)
    return ops.where(small, ops.log(-ops.expm1(near)), ops.log1p(-ops.exp(far)))
