"""Derivatives for Laplace approximations and EM on torch; mirrors `ugmm_ppl.numpyro.derivatives`; float64 NumPy out."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor

from ugmm_ppl.pyro.turns import exclusive, unchecked


def row_jacobians(function: Callable[[Tensor, Tensor], Tensor]) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
    """Values and Jacobians of a function for every row; described in `ugmm_ppl.backends.base.Derivatives`."""

    def twice(point: Tensor, row: Tensor) -> tuple[Tensor, Tensor]:
        value = function(point, row)
        return value, value

    run = torch.func.vmap(torch.func.jacrev(twice, has_aux=True), in_dims=(None, 0))

    def evaluate(point: Tensor, rows: Tensor) -> tuple[np.ndarray, np.ndarray]:
        with exclusive(), unchecked():  # validation looks at values, and a transform has none
            jacobians, values = run(point, rows)
        return _numpy(values), _numpy(jacobians)

    return evaluate


def value_and_gradients(
    function: Callable[..., Tensor],
) -> Callable[..., tuple[float, dict[str, np.ndarray]]]:
    """Value and gradients of a scalar function; described in `ugmm_ppl.backends.base.Derivatives`."""

    def evaluate(params: dict[str, Tensor], *data: Tensor) -> tuple[float, dict[str, np.ndarray]]:
        own = {name: value.detach().requires_grad_() for name, value in params.items()}
        value = function(own, *data)
        gradients = torch.autograd.grad(value, list(own.values()), materialize_grads=True)
        return float(value.detach()), {n: _numpy(g) for n, g in zip(own, gradients, strict=True)}

    return evaluate


def hessian_products(function: Callable[[Tensor], Tensor]) -> Callable[..., np.ndarray]:
    """Products of the Hessian of a function with vectors; described in `ugmm_ppl.backends.base.Derivatives`."""

    def evaluate(point: Tensor, vectors: Tensor) -> np.ndarray:
        with exclusive(), unchecked():
            backwards = torch.func.vjp(torch.func.grad(function), point)[1]
            return _numpy(torch.func.vmap(lambda vector: backwards(vector)[0])(vectors))

    return evaluate


def _numpy(a: Tensor) -> np.ndarray:
    return a.detach().cpu().numpy().astype(np.float64)
