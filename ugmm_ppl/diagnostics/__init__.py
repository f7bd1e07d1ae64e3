"""Whether a fit can be trusted: one table of checks, each with value, threshold, verdict and what to do."""

from ugmm_ppl.diagnostics.chains import align as align
from ugmm_ppl.diagnostics.lines import Line as Line
from ugmm_ppl.diagnostics.table import Diagnosis as Diagnosis
from ugmm_ppl.diagnostics.table import diagnose as diagnose

__all__ = ["Diagnosis", "Line", "align", "diagnose"]
