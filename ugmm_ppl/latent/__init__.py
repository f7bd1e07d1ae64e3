"""Latent networks: layers of neurons sampled from their conditional mixtures, with guides over every row's layers."""

from ugmm_ppl.latent.evidence import Evidence as Evidence
from ugmm_ppl.latent.fit import LatentFit as LatentFit
from ugmm_ppl.latent.model import LatentNetwork as LatentNetwork

__all__ = ["Evidence", "LatentFit", "LatentNetwork"]
