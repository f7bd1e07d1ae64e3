"""The report of a fit, and the pictures of a run folder."""

from ugmm_ppl.report.page import write_report as write_report

__all__ = ["write_report"]
