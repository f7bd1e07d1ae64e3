"""A layer of neurons: every neuron has one mixture component for every input."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from ugmm_ppl import neuron
from ugmm_ppl.nn.spaces import SCALE_FLOOR
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, Ops


class LayerShape(NamedTuple):
    """One layer of neurons: the prefix of its sites, K inputs and J neurons."""

    name: str
    in_features: int
    out_features: int


def layer_values(values: Mapping[str, Array], prefix: str) -> dict[str, Array]:
    """The values of one layer without their prefix: role -> value."""
    return {name[len(prefix) + 1 :]: value for name, value in values.items() if name.startswith(prefix + ".")}


def neuron_parameters(ops: Ops, values: Mapping[str, Array], keep: Array | None = None) -> tuple[Array, Array, Array]:
    """(loc, scale, log_weights) of equation (2) from the values of one layer, in whichever space they were sampled.

    Args:
        ops: The array library.
        values: loc (absent if tied), log_scale or scale, logits or weights, each `(..., J, K)`.
        keep: Mask of surviving components, `(..., J, K)` or `(B, 1, K)`; weights are renormalised over the survivors.
    """
    spread, share = (values[a if a in values else b] for a, b in (("scale", "log_scale"), ("weights", "logits")))
    scale, logits = ops.widened(spread), ops.widened(share)
    scale = scale if "scale" in values else ops.exp(scale)
    logits = neuron.safe_log(ops, logits) if "weights" in values else logits
    if keep is not None:
        logits = ops.where(keep, logits, -math.inf)
    scale, log_weights = ops.at_least(scale, SCALE_FLOOR), neuron.log_normalize(ops, logits)
    return values.get("loc", 0.0), ops.narrowed(scale, spread), ops.narrowed(log_weights, share)


def layer_activation(ops: Ops, values: Mapping[str, Array], x: Array, keep: Array | None = None) -> Array:
    """Activations of one layer, equation (2): `(..., K)` to `(..., J)`."""
    return ops.activation(x, *neuron_parameters(ops, values, keep))


def initial_spread(
    rng: np.random.Generator, layer: LayerShape, h: np.ndarray, *, tied: bool = False
) -> dict[str, np.ndarray]:
    """Start values from mean and spread of the layer inputs `h` `(B, K)`; with tied means scales cover the inputs."""
    shape = (layer.out_features, layer.in_features)
    centre, spread = h.mean(0), h.std(0)
    spread = np.where(spread > 1e-3, spread, 1.0)
    reach = np.sqrt(spread**2 + centre**2) if tied else spread
    return {
        "loc": np.zeros(shape) if tied else centre + spread * rng.normal(size=shape),
        "log_scale": np.log(reach) + rng.uniform(math.log(0.3), 0.0, shape),
        "logits": 0.1 * rng.normal(size=shape),
    }


def initial_paper(rng: np.random.Generator, layer: LayerShape) -> dict[str, np.ndarray]:
    """Start values of the paper's code: loc ~ N(0, 1), scale ~ U(0, 1], logits ~ U(0, 1)."""
    shape = (layer.out_features, layer.in_features)
    return {
        "loc": rng.normal(size=shape),
        "log_scale": np.log(1.0 - rng.uniform(size=shape)),
        "logits": rng.uniform(size=shape),
    }


def _activation_in_rows(values: dict[str, np.ndarray], h: np.ndarray) -> np.ndarray:
    """`layer_activation` in NumPy, a few rows at a time, so that the temporaries stay small."""
    rows = max(1, 2**22 // values["logits"].size)
    return np.concatenate([layer_activation(NUMPY, values, h[i : i + rows]) for i in range(0, len(h), rows)])
