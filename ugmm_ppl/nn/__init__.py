"""Networks and their layers, as pure functions of the parameters."""

from ugmm_ppl.nn.network import Network as Network

__all__ = ["Network"]
