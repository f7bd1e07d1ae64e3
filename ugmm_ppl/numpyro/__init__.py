"""The parts for NumPyro models: a distribution, layers, and a turn among threads."""

from ugmm_ppl.checks.machine import require as _require

for _package in ("jax", "numpyro", "optax"):
    _require(_package, "numpyro")

from ugmm_ppl.numpyro.distribution import UnivariateGaussianMixture as UnivariateGaussianMixture  # noqa: E402
from ugmm_ppl.numpyro.layer import LayerModule as LayerModule  # noqa: E402
from ugmm_ppl.numpyro.layer import UGMMLayer as UGMMLayer  # noqa: E402
from ugmm_ppl.numpyro.turns import exclusive as exclusive  # noqa: E402

__all__ = ["LayerModule", "UGMMLayer", "UnivariateGaussianMixture", "exclusive"]
