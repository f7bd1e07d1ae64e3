"""Logarithms of probabilities, without overflow or cancellation, for all array libraries."""

from __future__ import annotations

import math
from collections.abc import Callable

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


def log_between(ops: Ops, log_tails: Callable[[Array], tuple[Array, Array]], low: Array, high: Array) -> Array:
    """log p(low < Y <= high), from whichever side is the smaller one; ends may be infinite.

    Args:
        ops: The array library.
        log_tails: log p(Y <= y) and log p(Y > y) of finite y.
        low: The lower ends, -inf for none.
        high: The upper ends, inf for none; above the lower ones.
    """
    none, all_ = low == -math.inf, high == math.inf
    below, above = log_tails(ops.where(none, 1.0, low))
    below, above = ops.where(none, -math.inf, below), ops.where(none, 0.0, above)
    under, over = log_tails(ops.where(all_, 1.0, high))
    under, over = ops.where(all_, 0.0, under), ops.where(all_, -math.inf, over)
    lower = below < above  # the lower end lies in the lower half, so that its own tail is exact
    whole = ops.where(lower, under, above)
    rest = ops.where(lower, below, over)
    empty = rest >= whole
    gone = ops.where(empty, -1.0, rest - ops.where(whole == -math.inf, 0.0, whole))
    return ops.where(empty, -math.inf, whole + log1mexp(ops, gone))
