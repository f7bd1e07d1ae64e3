r"""The density of a latent network: layers of neurons from z down to the data, written once for every array library.

With h^0 = z and h^L = x, neuron j of layer l is the mixture of equation (1), with a gain for every input,

    p_j(h^l_j | h^{l-1}) = sum_k weights_jk N(h^l_j; gain_jk h^{l-1}_k - loc_jk, scale_jk^2),

and the joint density is a Markov chain from the class down to the data,

    p(x, h, z, c) = p(c) prod_k p(z_k | c) prod_l prod_j p_j(h^l_j | h^{l-1}).

z is standard normal, or every z_k is a univariate Gaussian mixture of its own, one for each class. All parameters of a
layer are `(J, K)`; values of layers are `(..., J)`. Log values are in nats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from ugmm_ppl import neuron
from ugmm_ppl.distributions.sampling import gumbel_max
from ugmm_ppl.nn.base import values_of
from ugmm_ppl.nn.spaces import SCALE_FLOOR, log_weights
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops, Values

LATENT = "latent"
"""Prefix of the sites of the prior of z."""


def conditional(ops: Ops, values: Values, layer: int, above: Array) -> tuple[Array, Array, Array]:
    """(loc, scale, log_weights) of the mixtures of a layer given the layer above: `(..., K)` to `(..., J, K)`."""
    own = values_of(values, f"layers.{layer}")
    above = above[..., None, :]
    return (own["gain"] * above if "gain" in own else above) - own["loc"], *_spread(ops, values, f"layers.{layer}")


def top(ops: Ops, values: Values) -> tuple[Array, Array, Array] | None:
    """(loc, scale, log_weights) of the mixtures of z, `(O, d, M)` with O classes or one; None if z is normal."""
    if f"{LATENT}.loc" not in values:
        return None
    return values[f"{LATENT}.loc"], *_spread(ops, values, LATENT)


def _spread(ops: Ops, values: Values, stem: str) -> tuple[Array, Array]:
    """(scale, log_weights), in whichever space they were sampled; a weight that can only be one has no site."""
    scale = values[f"{stem}.scale"] if f"{stem}.scale" in values else ops.exp(values[f"{stem}.log_scale"])
    mixed = log_weights(ops, values, stem)
    return ops.at_least(scale, SCALE_FLOOR), 0.0 * scale if mixed is None else mixed


def log_top(ops: Ops, values: Values, z: Array) -> Array:
    """log p(z, c) `(..., O)` for z `(..., d)`."""
    parameters = top(ops, values)
    if parameters is None:
        return ops.sum(-0.5 * z * z - neuron.HALF_LOG_2PI, -1)[..., None]
    found = ops.sum(neuron.log_prob(ops, z[..., None, :], *parameters), -1)
    classes = log_weights(ops, values, "classes")
    return found if classes is None else found + classes


def log_layer(ops: Ops, values: Values, layer: int, above: Array, below: Array) -> Array:
    """log p(h^{layer+1} | h^layer) `(...)`, for `above` `(..., K)` and `below` `(..., J)`."""
    return ops.sum(neuron.log_prob(ops, below, *conditional(ops, values, layer, above)), -1)


def log_joint(ops: Ops, values: Values, hidden: Sequence[Array], x: Array) -> Array:
    """log p(x, h, z, c) `(..., O)` for `hidden` = [z, h^1, ..., h^{L-1}] and the data x `(..., K)`."""
    chain = [*hidden, x]
    below = sum(log_layer(ops, values, layer, chain[layer], chain[layer + 1]) for layer in range(len(hidden)))
    return log_top(ops, values, hidden[0]) + below[..., None]


def expectation(values: Mapping[str, np.ndarray], layer: int, last: int, h: np.ndarray) -> np.ndarray:
    """E[h^last | h^layer] in NumPy, an affine map of h `(..., d)`: the mean of a mixture is linear in its inputs."""
    for number in range(layer, last):
        loc, _, log_w = conditional(NUMPY, values, number, h)
        h = neuron.mean(NUMPY, loc, np.exp(log_w))
    return h


def ancestral(
    values: Mapping[str, np.ndarray], z: np.ndarray, layers: int, rng: np.random.Generator
) -> list[np.ndarray]:
    """Draw all layers below z `(n, d)` in NumPy, down to the data: [h^1, ..., x]."""
    found = [z]
    for layer in range(layers):
        found.append(_draw(*conditional(NUMPY, values, layer, found[-1]), rng))
    return found[1:]


def draw_top(
    values: Mapping[str, np.ndarray], size: int, n: int, rng: np.random.Generator, y: int | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Draw class codes `(n,)` and z `(n, d)` in NumPy; of class y, if it is given."""
    parameters, classes = top(NUMPY, values), log_weights(NUMPY, values, "classes")
    if y is not None or classes is None:
        codes = np.full(n, y or 0)
    else:
        codes = rng.choice(len(classes), n, p=np.exp(classes) / np.exp(classes).sum())
    if parameters is None:
        return codes, rng.normal(size=(n, size))
    loc, scale, log_w = (a[codes] for a in parameters)
    return codes, _draw(loc, scale, log_w, rng)


def _draw(loc: np.ndarray, scale: np.ndarray, log_w: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """One value of every mixture `(..., K)`, by the Gumbel-max trick."""
    k = gumbel_max(np.broadcast_to(log_w, loc.shape), rng)[..., None]
    at = np.take_along_axis(np.broadcast_to(loc, loc.shape), k, -1)[..., 0]
    spread = np.take_along_axis(np.broadcast_to(scale, loc.shape), k, -1)[..., 0]
    return at + spread * rng.normal(size=at.shape)
