"""Networks and their layers, as pure functions of the parameters. A new layer is a file, and a line here."""

from ugmm_ppl.nn.base import LAYERS as LAYERS
from ugmm_ppl.nn.base import Layer as Layer
from ugmm_ppl.nn.base import Role as Role
from ugmm_ppl.nn.base import layer as layer
from ugmm_ppl.nn.conv import Conv as Conv
from ugmm_ppl.nn.dense import Dense as Dense
from ugmm_ppl.nn.flatten import Flatten as Flatten
from ugmm_ppl.nn.linear import Linear as Linear
from ugmm_ppl.nn.network import Network as Network
from ugmm_ppl.nn.norm import LayerNorm as LayerNorm

__all__ = ["LAYERS", "Conv", "Dense", "Flatten", "Layer", "LayerNorm", "Linear", "Network", "Role", "layer"]
