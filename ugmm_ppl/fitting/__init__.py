"""From a model and data to a fit, and from a file to one."""

from ugmm_ppl.fitting.entry import fit as fit
from ugmm_ppl.fitting.loading import load as load
from ugmm_ppl.fitting.result import Fit as Fit

__all__ = ["Fit", "fit", "load"]
