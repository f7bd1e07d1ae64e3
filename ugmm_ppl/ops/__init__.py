"""The elementary array operations of NumPy, torch and JAX (`ugmm_ppl.typing.Ops`); importing it needs NumPy alone."""

from ugmm_ppl.ops.numpy import NUMPY as NUMPY

__all__ = ["NUMPY"]
