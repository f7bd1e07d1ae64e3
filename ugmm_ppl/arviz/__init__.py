"""From a fit to one ArviZ tree, the same for both backends and both of ArviZ's versions."""

from ugmm_ppl.arviz.statistics import bfmi as bfmi
from ugmm_ppl.arviz.statistics import ess as ess
from ugmm_ppl.arviz.statistics import loo_approximate_posterior as loo_approximate_posterior
from ugmm_ppl.arviz.statistics import psis as psis
from ugmm_ppl.arviz.statistics import rhat as rhat
from ugmm_ppl.arviz.stream import export as export
from ugmm_ppl.arviz.tree import group as group
from ugmm_ppl.arviz.tree import read as read
from ugmm_ppl.arviz.tree import to_arviz as to_arviz

__all__ = ["bfmi", "ess", "export", "group", "loo_approximate_posterior", "psis", "read", "rhat", "to_arviz"]
