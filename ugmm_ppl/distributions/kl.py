"""The Kullback-Leibler divergence between univariate Gaussian mixtures, written once for NumPy, torch and JAX."""

import numpy as np

from ugmm_ppl.distributions import mixture as density
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.typing import Array, Ops

REACH = 12.0
"""Scales around a component beyond which it is left out of an integral: 1e-33 of its mass."""


NODES = 10
"""Nodes of the Gauss-Legendre rule on each panel."""


def kl(ops: Ops, p: Mixture, q: Mixture, refinement: int) -> Array:
    """KL(p || q) = integral p log(p / q) in nats, `(...)`, by a composite Gauss-Legendre rule.

    The panels end at every second scale of every component of both mixtures, and are cut into `refinement` equal parts.
    Differentiable in all parameters of both.
    """
    steps = np.linspace(-REACH, REACH, int(REACH) + 1)
    ends, others = (ops.concat([ops.stop(m.loc) + float(t) * ops.stop(m.scale) for t in steps]) for m in (p, q))
    low, high = -ops.max(-ends, -1), ops.max(ends, -1)
    others = ops.where(others < low, low, ops.where(others > high, high, others))
    panels = ops.sort(ops.concat([ends, others]))
    width = (panels[..., 1:] - panels[..., :-1]) / refinement
    p, q = p.over_a_new_axis(), q.over_a_new_axis()
    nodes, shares = np.polynomial.legendre.leggauss(NODES)
    places = [float(part + 0.5 + 0.5 * node) for part in range(refinement) for node in nodes]
    y = ops.concat([panels[..., :-1] + place * width for place in places])  # (..., places times panels)
    mass = ops.concat([0.5 * float(share) * width for _ in range(refinement) for share in shares])
    log_p, log_q = density.log_prob(ops, y, p), density.log_prob(ops, y, q)
    ratio = ops.where(ops.isfinite(log_p), log_p - log_q, 0.0)
    return ops.sum(ops.exp(log_p) * ratio * mass, -1)
