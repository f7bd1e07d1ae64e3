"""The register of the backends."""

from __future__ import annotations

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require

BACKENDS = {"pyro": ("pyro", "torch"), "numpyro": ("numpyro", "jax", "optax")}
"""The backends, each with the packages that it needs; the extra that installs them has its name."""


def load_backend(name: str) -> Backend:
    """Return the backend "pyro" or "numpyro".

    Raises:
        ValueError: Another name.
        MissingExtraError: The PPL is not installed; says which extra to install.
    """
    checks.choice("backend", name, BACKENDS)
    return require(f"ugmm_ppl.{name}.backend", name, BACKENDS[name]).BACKEND
