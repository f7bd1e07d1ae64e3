"""Weights of restarts: from their evidence bounds, or from how they predict held-out rows together."""

from __future__ import annotations

import numpy as np

from ugmm_ppl.neuron import if_any_possible
from ugmm_ppl.ops.numpy import NUMPY

WEIGHINGS = ("equal", "elbo", "stacking")

LAST_SHARE = 0.1
"""Share of the steps, the last ones, whose mean negative ELBO stands for that of a restart."""

GAPS = tuple(float(gap) for gap in np.logspace(0, -10, 11))
"""What stacking may be away from its maximum, in nats per row and restart, from the start to the end of its search."""


def elbo_weights(losses: np.ndarray) -> np.ndarray:
    """weights_c proportional to exp(ELBO_c): the evidence of each restart, if every bound were equally tight.

    Args:
        losses: Negative ELBO in nats by restart and step, `(C, steps)`; NaN after a run that ended early.

    Returns:
        Weights `(C,)` that sum to one; 0 for a restart without a step, equal ones if none has any.
    """
    elbo = np.full(len(losses), -np.inf)
    for c, row in enumerate(losses):
        taken = row[np.isfinite(row)]
        if taken.size:
            elbo[c] = -taken[-max(1, round(LAST_SHARE * taken.size)) :].mean()
    elbo = if_any_possible(NUMPY, elbo)
    weights = np.exp(elbo - elbo.max())
    return weights / weights.sum()


def stacking_weights(log_densities: np.ndarray) -> np.ndarray:
    """Weights of the mixture of restarts that predicts held-out rows best.

        argmax over weights >= 0, sum_c weights_c = 1, of mean_b log sum_c weights_c p_c(y_b | x_b)

    Source: Yao, Vehtari, Simpson and Gelman 2018, arXiv:1704.02030, with the log score. The problem is concave. Without
    the constraint, mean_b log(...) - sum_c weights_c has the same maximum (Kim, Carbonetto, Stephens and Anitescu 2020,
    arXiv:1806.01412); with gap sum_c log weights_c added, it is found by Newton's method and is C gap away at most.
    Steps are shortened by 1 / (1 + decrement), which keeps the weights positive (Nesterov 2004, Introductory lectures
    on convex optimization, section 4.1).

    Args:
        log_densities: log p_c(y_b | x_b) in nats of every restart and row, `(C, B)`.

    Returns:
        Weights `(C,)` that sum to one; those of restarts that do not help are tiny, not zero.
    """
    chains, rows = log_densities.shape
    log_densities = if_any_possible(NUMPY, log_densities.T).T  # a row that no restart reaches prefers none of them
    density = np.exp(log_densities - log_densities.max(0))  # (C, B); the scale of a row does not matter
    weights = np.full(chains, 1.0 / chains)
    for gap in GAPS:
        decrement = np.inf
        while decrement > 1e-3:
            share = weights[:, None] * density / (weights @ density)  # (C, B), responsibilities of the restarts
            slope = share.sum(1) / rows - weights + gap  # by log weights
            curvature = share @ share.T / rows + gap * np.eye(chains)
            step = np.linalg.solve(curvature, slope)
            decrement = np.sqrt(max(0.0, slope @ step) * max(rows, 1.0 / gap))
            weights = weights * (1.0 + step / (1.0 + decrement))
    return weights / weights.sum()
