"""Likelihoods: what the outputs of a model say of y, and predictions of it. A new one is a file, and a line here."""

from ugmm_ppl.likelihoods.base import LIKELIHOODS as LIKELIHOODS
from ugmm_ppl.likelihoods.base import Likelihood as Likelihood
from ugmm_ppl.likelihoods.base import Prediction as Prediction
from ugmm_ppl.likelihoods.base import likelihood as likelihood
from ugmm_ppl.likelihoods.categorical import Categorical as Categorical
from ugmm_ppl.likelihoods.categorical import ClassPrediction as ClassPrediction
from ugmm_ppl.likelihoods.mixture import Mixture as Mixture
from ugmm_ppl.likelihoods.mixture import RegressionPrediction as RegressionPrediction
from ugmm_ppl.likelihoods.poisson import Poisson as Poisson

__all__ = [
    "LIKELIHOODS",
    "Categorical",
    "ClassPrediction",
    "Likelihood",
    "Mixture",
    "Poisson",
    "Prediction",
    "RegressionPrediction",
    "likelihood",
]
