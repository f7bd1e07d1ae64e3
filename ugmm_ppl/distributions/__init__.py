"""The univariate Gaussian mixture, written once for all array libraries; and distributions described as plain data."""

from ugmm_ppl.distributions.described import Distribution as Distribution
from ugmm_ppl.distributions.described import dist as dist
from ugmm_ppl.distributions.methods import MixtureQueries as MixtureQueries
from ugmm_ppl.distributions.mixture import Mixture as Mixture

__all__ = ["Distribution", "Mixture", "MixtureQueries", "dist"]
