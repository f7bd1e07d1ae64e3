"""The register of the backends."""

from __future__ import annotations

from ugmm_ppl import checks
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.checks.machine import require

BACKENDS = ("pyro", "numpyro")


def load_backend(name: str) -> Backend:
    """Return the backend "pyro" or "numpyro".

    Raises:
        ValueError: Another name.
        MissingExtraError: The PPL is not installed; says which extra to install.
    """
    checks.choice("backend", name, BACKENDS)
    module = require(
        f"ugmm_ppl.{name}.backend",
        name,
        {"pyro": ("pyro", "torch"), "numpyro": ("numpyro", "jax", "optax")}[name],
    )
    return module.BACKEND
