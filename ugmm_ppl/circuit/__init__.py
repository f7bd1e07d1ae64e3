"""Circuits: normalised densities over trees of uGMM neurons, with exact marginals, conditionals and samples."""

from ugmm_ppl.circuit.conditional import Conditional as Conditional
from ugmm_ppl.circuit.density import CircuitDensity as CircuitDensity
from ugmm_ppl.circuit.density import MostProbable as MostProbable
from ugmm_ppl.circuit.em import EM as EM
from ugmm_ppl.circuit.fit import CircuitFit as CircuitFit
from ugmm_ppl.circuit.imputation import Imputation as Imputation
from ugmm_ppl.circuit.leaves import Bernoulli as Bernoulli
from ugmm_ppl.circuit.leaves import Binned as Binned
from ugmm_ppl.circuit.leaves import Categorical as Categorical
from ugmm_ppl.circuit.model import Circuit as Circuit
from ugmm_ppl.circuit.prior import CircuitPrior as CircuitPrior
from ugmm_ppl.circuit.structure import Structure as Structure
from ugmm_ppl.circuit.structure import chow_liu_tree as chow_liu_tree
from ugmm_ppl.circuit.structure import quad_tree as quad_tree
from ugmm_ppl.circuit.structure import random_trees as random_trees

__all__ = [
    "EM",
    "Bernoulli",
    "Binned",
    "Categorical",
    "Circuit",
    "CircuitDensity",
    "CircuitFit",
    "CircuitPrior",
    "Conditional",
    "Imputation",
    "MostProbable",
    "Structure",
    "chow_liu_tree",
    "quad_tree",
    "random_trees",
]
