"""The arguments of `UnivariateGaussianMixture` and of its methods."""

import math
from typing import Any

import numpy as np

from ugmm_ppl.checks.basic import as_numpy, broadcast, first_bad
from ugmm_ppl.typing import Array

SUM_ERRORS = {"float64": 1e-6, "float32": 1e-4, "float16": 4e-3, "bfloat16": 3e-2}
"""How far from one probabilities may sum, by dtype; of half precision four times the rounding of each."""


def mixture_parameters(loc: Array, scale: Array, logits: Array | None, probs: Array | None, *, values: bool) -> None:
    """Check the arguments of `UnivariateGaussianMixture`.

    Args:
        loc: Component means.
        scale: Component scales.
        logits: Log weights, not normalised, or None.
        probs: Weights, or None.
        values: Look at the values too, not only at names and shapes.

    Raises:
        ValueError: Both or neither of logits and probs, no component axis, shapes that do not broadcast, or values
            outside their support.
    """
    if (logits is None) == (probs is None):
        raise ValueError(
            f"exactly one of logits and probs is needed; got {'neither' if logits is None else 'both'}. "
            "logits are any real numbers, probs are weights that sum to one."
        )
    weights: Any = logits if probs is None else probs
    name = "logits" if probs is None else "probs"
    shapes = {"loc": np.shape(loc), "scale": np.shape(scale), name: np.shape(weights)}
    said = ", ".join(f"{key} {tuple(shape)}" for key, shape in shapes.items())
    if all(len(shape) == 0 for shape in shapes.values()):
        raise ValueError(
            f"a last axis of K components is needed; got shapes {said}. Wrap scalars, e.g. loc[..., None]."
        )
    try:
        result = broadcast(*shapes.values())
    except ValueError:
        raise ValueError(
            f"shapes (..., K) that broadcast are needed; got {said}. Give each axis one size, or 1."
        ) from None
    if result[-1] == 0:
        raise ValueError(f"at least one component is needed; got shapes {said}. Check how they were sliced.")
    if values:
        most = SUM_ERRORS.get(str(getattr(weights, "dtype", "float64")).removeprefix("torch."), 1e-4)
        weights = as_numpy(weights)
        components = np.broadcast_to(weights, (*weights.shape[:-1], result[-1]))
        _mixture_values(as_numpy(loc), as_numpy(scale), name, components, most)


def probabilities(u: Array) -> None:
    """Check the argument of a quantile function."""
    values = as_numpy(u)
    first_bad(
        (values >= 0.0) & (values <= 1.0), values, "u", "a probability in [0, 1]", "Look for NaN, or divide by 100."
    )


def reading(value: Array, noise_scale: Array) -> None:
    """Check a noisy reading of a value."""
    value, noise_scale = as_numpy(value), as_numpy(noise_scale)
    first_bad(np.isfinite(value), value, "value", "finite", "Look for NaN upstream.")
    good = (noise_scale > 0.0) & np.isfinite(noise_scale)
    first_bad(good, noise_scale, "noise_scale", "positive and finite", "Give the standard deviation of the noise.")


def moments(mean: Array, stddev: Array, skewness: Array) -> None:
    """Check the moments that a mixture is made from."""
    mean, stddev, skewness = as_numpy(mean), as_numpy(stddev), as_numpy(skewness)
    first_bad(np.isfinite(mean), mean, "mean", "finite", "Look for NaN upstream.")
    good = (stddev > 0.0) & np.isfinite(stddev)
    first_bad(good, stddev, "stddev", "positive and finite", "Use the square root of a variance.")
    first_bad(np.isfinite(skewness), skewness, "skewness", "finite", "Look for NaN upstream.")


def component(k: Any, components: int) -> int:
    """Return the number of a component as an int."""
    if isinstance(k, bool | np.bool_) or not isinstance(k, int | np.integer):
        raise TypeError(f"k must be a whole number; got {k!r} of type {type(k).__name__}.")
    if not -components <= k < components:
        raise ValueError(
            f"k must be one of the components 0..{components - 1}; got {k}. Negative k count from the end."
        )
    return int(k)


def expansion(batch_shape: Any, wanted: Any) -> None:
    """Refuse to expand a distribution to a shape to which its own does not broadcast, in the words of both PPLs."""
    own, wanted = tuple(batch_shape), tuple(wanted)
    if len(wanted) < len(own) or any(a not in (1, b) for a, b in zip(own[::-1], wanted[::-1], strict=False)):
        raise ValueError(
            f"Cannot broadcast distribution of shape {own} to shape {wanted}. Sizes can be added in front, and axes of "
            "size 1 made longer."
        )


def not_converged(what: str, tolerance: float) -> FloatingPointError:
    """The error for a numerical method that does not reach its tolerance."""
    return FloatingPointError(
        f"{what} needed two successive answers closer than tolerance={tolerance:g}; got none. Give a larger tolerance."
    )


def _mixture_values(loc: np.ndarray, scale: np.ndarray, name: str, weights: np.ndarray, most: float) -> None:
    first_bad(np.isfinite(loc), loc, "loc", "finite", "Look for NaN upstream.")
    first_bad((scale > 0) & np.isfinite(scale), scale, "scale", "positive and finite", "Use exp of a log scale.")
    if name == "logits":
        first_bad(weights < math.inf, weights, name, "real, or -inf for weight zero", "Look for NaN upstream.")
        alive = np.isfinite(weights).any(-1)
        first_bad(
            alive,
            weights.max(-1),
            name,
            "finite for at least one component",
            "Keep one component of each row.",
        )
        return
    first_bad(weights >= 0, weights, name, "non-negative", "Use logits for unconstrained values.")
    total = weights.sum(-1, dtype=np.float32 if weights.dtype == np.float16 else None)
    good = np.abs(total - 1.0) < most
    first_bad(good, total, f"the sum of {name} over the last axis", "one", "Divide by the sum, or use logits.")
