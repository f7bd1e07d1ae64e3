"""Univariate-Gaussian-mixture neurons as Bayesian generative models, in Pyro and NumPyro.

Importing this package imports neither torch nor JAX. The parts for a PPL's own models are in `ugmm_ppl.pyro` and
`ugmm_ppl.numpyro`.
"""

from importlib.metadata import version as _version

from ugmm_ppl import likelihoods as likelihoods
from ugmm_ppl.checks import CheckpointError as CheckpointError
from ugmm_ppl.checks import MissingExtraError as MissingExtraError
from ugmm_ppl.checks import NonFiniteError as NonFiniteError
from ugmm_ppl.circuit import Bernoulli as Bernoulli
from ugmm_ppl.circuit import Binned as Binned
from ugmm_ppl.circuit import Categorical as Categorical
from ugmm_ppl.circuit import Circuit as Circuit
from ugmm_ppl.circuit import CircuitPrior as CircuitPrior
from ugmm_ppl.circuit import Structure as Structure
from ugmm_ppl.circuit import chow_liu_tree as chow_liu_tree
from ugmm_ppl.circuit import quad_tree as quad_tree
from ugmm_ppl.circuit import random_trees as random_trees
from ugmm_ppl.data import Data as Data
from ugmm_ppl.distributions import dist as dist
from ugmm_ppl.fitting import Fit as Fit
from ugmm_ppl.fitting import fit as fit
from ugmm_ppl.fitting import load as load
from ugmm_ppl.latent import LatentNetwork as LatentNetwork
from ugmm_ppl.models import Classifier as Classifier
from ugmm_ppl.models import JointScore as JointScore
from ugmm_ppl.models import Model as Model
from ugmm_ppl.models import Regressor as Regressor
from ugmm_ppl.nn import Network as Network
from ugmm_ppl.priors import Prior as Prior

__version__ = _version("ugmm-ppl")
__all__ = [
    "Bernoulli",
    "Binned",
    "Categorical",
    "CheckpointError",
    "Circuit",
    "CircuitPrior",
    "Classifier",
    "Data",
    "Fit",
    "JointScore",
    "LatentNetwork",
    "MissingExtraError",
    "Model",
    "Network",
    "NonFiniteError",
    "Prior",
    "Regressor",
    "Structure",
    "chow_liu_tree",
    "dist",
    "fit",
    "likelihoods",
    "load",
    "quad_tree",
    "random_trees",
]
