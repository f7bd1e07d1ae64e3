"""Variational families over the parameters of a model. A new one is a file, and a line here."""

from ugmm_ppl.guides.base import FAMILIES as FAMILIES
from ugmm_ppl.guides.base import Block as Block
from ugmm_ppl.guides.base import family as family

# isort: off
# The families are in the order in which messages name them.
from ugmm_ppl.guides.normal import NormalBlock as NormalBlock
from ugmm_ppl.guides.lowrank import LowRankBlock as LowRankBlock
from ugmm_ppl.guides.full import FullBlock as FullBlock
from ugmm_ppl.guides.delta import DeltaBlock as DeltaBlock
# isort: on

from ugmm_ppl.guides.guide import Guide as Guide
from ugmm_ppl.guides.guide import make_guide as make_guide

__all__ = ["FAMILIES", "Block", "Guide", "family", "make_guide"]
