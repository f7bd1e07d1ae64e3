"""What a model, a guide and a method ask of a PPL, and what both PPLs share."""

from ugmm_ppl.backends.base import Backend as Backend
from ugmm_ppl.backends.load import BACKENDS as BACKENDS
from ugmm_ppl.backends.load import load_backend as load_backend

__all__ = ["BACKENDS", "Backend", "load_backend"]
