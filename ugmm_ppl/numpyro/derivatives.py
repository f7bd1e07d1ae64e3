"""Derivatives for Laplace approximations and EM on JAX; mirrors `ugmm_ppl.pyro.derivatives`; float64 NumPy out."""

from __future__ import annotations

from collections.abc import Callable

import jax
import numpy as np
from jax import Array

from ugmm_ppl.numpyro.programs import compiled


def row_jacobians(function: Callable[[Array, Array], Array]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Values and Jacobians of a function for every row; described in `ugmm_ppl.backends.base.Derivatives`."""

    def twice(point: Array, row: Array) -> tuple[Array, Array]:
        value = function(point, row)
        return value, value

    run = compiled(jax.vmap(jax.jacrev(twice, has_aux=True), in_axes=(None, 0)))

    def evaluate(point: Array, rows: Array) -> tuple[np.ndarray, np.ndarray]:
        jacobians, values = run(point, rows)
        return _numpy(values), _numpy(jacobians)

    return evaluate


def value_and_gradients(
    function: Callable[..., Array],
) -> Callable[..., tuple[float, dict[str, np.ndarray]]]:
    """Value and gradients of a scalar function; described in `ugmm_ppl.backends.base.Derivatives`."""
    run = compiled(jax.value_and_grad(function))

    def evaluate(params: dict[str, Array], *data: Array) -> tuple[float, dict[str, np.ndarray]]:
        value, gradients = run(params, *data)
        return float(value), {name: _numpy(gradient) for name, gradient in gradients.items()}

    return evaluate


def hessian_products(function: Callable[[Array], Array]) -> Callable[..., np.ndarray]:
    """Products of the Hessian of a function with vectors; described in `ugmm_ppl.backends.base.Derivatives`."""

    def product(point: Array, vector: Array) -> Array:
        return jax.jvp(jax.grad(function), (point,), (vector,))[1]

    run = compiled(jax.vmap(product, in_axes=(None, 0)))
    return lambda point, vectors: _numpy(run(point, vectors))


def _numpy(a: Array) -> np.ndarray:
    return np.array(a, dtype=np.float64)  # a copy, which may be written to
