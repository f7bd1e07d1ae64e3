"""Methods of inference. A new one is a file, and a line here."""

from ugmm_ppl.infer.laplace import Laplace as Laplace
from ugmm_ppl.infer.loop import Moment as Moment
from ugmm_ppl.infer.method import METHODS as METHODS
from ugmm_ppl.infer.method import Method as Method
from ugmm_ppl.infer.method import Reached as Reached
from ugmm_ppl.infer.method import Task as Task
from ugmm_ppl.infer.method import method as method
from ugmm_ppl.infer.nuts import NUTS as NUTS
from ugmm_ppl.infer.sghmc import SGHMC as SGHMC
from ugmm_ppl.infer.svi import MAP as MAP
from ugmm_ppl.infer.svi import SVI as SVI

__all__ = ["MAP", "METHODS", "NUTS", "SGHMC", "SVI", "Laplace", "Method", "Moment", "Reached", "Task", "method"]
