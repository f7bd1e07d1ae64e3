"""What a fit holds, draws, and says of data."""

from ugmm_ppl.posterior.functions import Functions as Functions

__all__ = ["Functions"]
