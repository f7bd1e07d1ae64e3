"""The negative ELBO, written once for both backends.

With q(u) a Gaussian over the unconstrained values u of all latent sites, data D of N rows with weights w (1 if none are
given), a mini-batch B of them, and temperature T, the loss of one step is

    loss = -(N / |B|) sum_{i in B} w_i log p(y_i | x_i, theta) + T KL(q || p),                           (ELBO at T = 1)

    KL(q || p) = -H[q(u)] - sum_sites E_q[ log p(theta) + log |d theta / d u| ].

The entropy H is closed, and so is the expectation where a site's prior is a Normal (a fixed one, if q correlates the
site), E_q[log N(u; m, s)] = log N(E u; m, s) - Var(u) / (2 s^2); elsewhere it is estimated at the draw. A site that q
holds at a point theta has no density over u: it adds -log p(theta) alone. Source: Kucukelbir et al. 2017 (ADVI), JMLR
18(14).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl.guides.base import normal_log_prob
from ugmm_ppl.guides.sites import constrain
from ugmm_ppl.typing import Array

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend, Site


def negative_elbo(
    backend: Backend,
    model: Callable[..., Any],
    guide: Any,
    params: Mapping[str, Array],
    noise: Mapping[str, Array],
    batch: tuple[Array, ...],
    kl_weight: Array | float,
    *,
    data_size: int,
) -> tuple[Array, tuple[Array, Array]]:
    """The loss of one step, the equation at the head of this file.

    Args:
        backend: The backend.
        model: Bound model, `model(x, y, weights, data_size=, train=)`.
        guide: A guide of `ugmm_ppl.guides.guide`.
        params: Its parameters.
        noise: Standard normal numbers of `guide.noise_shapes()`.
        batch: Inputs `(B, K)`, targets `(B,)` and, if rows have them, weights `(B,)`.
        kl_weight: Factor T of the KL term; 1 is the ELBO.
        data_size: Rows N of the whole data set.

    Returns:
        The loss, and its parts: log likelihood and KL, scalars in nats of the whole data set.
    """
    values, log_dets = constrain(guide.sites, guide.draw(params, noise))
    moments = guide.moments(params)
    model = guide.complete(model, params)
    trace = backend.trace(model, values, *batch, data_size=data_size, train=True)
    log_likelihood, kl = 0.0, -guide.entropy(params)
    for name, site in trace.items():
        if site.observed:
            log_likelihood = log_likelihood + scaled_sum(site)
            continue
        normal = backend.normal_parameters(site.distribution)
        latent = guide.sites[name]
        # Given a draw of other sites, on which its prior may depend, the moments of a correlated site are not marginal.
        if normal is not None and latent.bijector is None and (latent.plain or name in guide.factorised):
            mean, variance = moments[name]
            expected = normal_log_prob(backend.ops, mean, *normal) - 0.5 * variance / normal[1] ** 2
            kl = kl - expected.sum()
        else:
            kl = kl - site.distribution.log_prob(site.value).sum() - (log_dets[name] if name in guide.inferred else 0.0)
    return kl_weight * kl - log_likelihood, (log_likelihood, kl)


def scaled_sum(site: Site) -> Array:
    """Log density of a site, summed over its entries; its scale is a number, or one for every row."""
    log_prob = site.distribution.log_prob(site.value)
    return (site.scale * log_prob).sum() if np.ndim(site.scale) else site.scale * log_prob.sum()
