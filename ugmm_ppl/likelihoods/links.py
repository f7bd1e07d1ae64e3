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


def log_between(
    ops: Ops,
    log_tails: Callable[[Array], tuple[Array, Array]],
    log_density: Callable[[Array], Array],
    low: Array,
    high: Array,
) -> Array:
    """log p(low < Y <= high), from whichever side is the smaller one; ends may be infinite.

    Where both ends have nearly the same probabilities, as under a scale that is far wider than their distance, it is by
    Simpson's rule.

    Args:
        ops: The array library.
        log_tails: log p(Y <= y) and log p(Y > y) of finite y.
        log_density: log p(y) of finite y.
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
    difference = rest - ops.where(whole == -math.inf, 0.0, whole)
    near = difference > -math.sqrt(ops.eps(difference))
    simple = near & ~none & ~all_ & (low < high)
    first, last = ops.where(simple, low, 1.0), ops.where(simple, high, 2.0)
    points = ((first, 1.0), (0.5 * (first + last), 4.0), (last, 1.0))
    terms = ops.concat([(log_density(at) + math.log(weight / 6.0))[..., None] for at, weight in points])
    by_rule = logsumexp(ops, terms) + ops.log(last - first)
    by_tails = whole + log1mexp(ops, ops.where(near, -1.0, difference))
    return ops.where(near, ops.where(simple, by_rule, -math.inf), by_tails)
