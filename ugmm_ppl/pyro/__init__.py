"""The parts for Pyro models: a distribution, layers, and a turn among threads."""

from ugmm_ppl.checks.machine import require as _require

for _package in ("torch", "pyro"):
    _require(_package, "pyro")

from ugmm_ppl.pyro.distribution import UnivariateGaussianMixture as UnivariateGaussianMixture  # noqa: E402
from ugmm_ppl.pyro.layer import LayerModule as LayerModule  # noqa: E402
from ugmm_ppl.pyro.layer import UGMMLayer as UGMMLayer  # noqa: E402
from ugmm_ppl.pyro.turns import exclusive as exclusive  # noqa: E402

__all__ = ["LayerModule", "UGMMLayer", "UnivariateGaussianMixture", "exclusive"]
