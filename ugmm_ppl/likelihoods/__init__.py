"""Likelihoods: what the outputs of a model say of y, and predictions of it. A new one is a file, and a line here."""

from ugmm_ppl.likelihoods.base import EXTRAS as EXTRAS
from ugmm_ppl.likelihoods.base import LIKELIHOODS as LIKELIHOODS
from ugmm_ppl.likelihoods.base import Extra as Extra
from ugmm_ppl.likelihoods.base import Likelihood as Likelihood
from ugmm_ppl.likelihoods.base import Prediction as Prediction
from ugmm_ppl.likelihoods.base import extra as extra
from ugmm_ppl.likelihoods.base import likelihood as likelihood
from ugmm_ppl.likelihoods.bernoulli import Bernoulli as Bernoulli
from ugmm_ppl.likelihoods.beta import Beta as Beta
from ugmm_ppl.likelihoods.binomial import Binomial as Binomial
from ugmm_ppl.likelihoods.categorical import Categorical as Categorical
from ugmm_ppl.likelihoods.categorical import ClassPrediction as ClassPrediction
from ugmm_ppl.likelihoods.censored import Censored as Censored
from ugmm_ppl.likelihoods.composite import Composite as Composite
from ugmm_ppl.likelihoods.family import Family as Family
from ugmm_ppl.likelihoods.family import Parameter as Parameter
from ugmm_ppl.likelihoods.gamma import Gamma as Gamma
from ugmm_ppl.likelihoods.hurdle import Hurdle as Hurdle
from ugmm_ppl.likelihoods.law import Law as Law
from ugmm_ppl.likelihoods.law import OfScipy as OfScipy
from ugmm_ppl.likelihoods.lognormal import LogNormal as LogNormal
from ugmm_ppl.likelihoods.mixture import Mixture as Mixture
from ugmm_ppl.likelihoods.mixture import RegressionPrediction as RegressionPrediction
from ugmm_ppl.likelihoods.negative_binomial import NegativeBinomial as NegativeBinomial
from ugmm_ppl.likelihoods.normal import Normal as Normal
from ugmm_ppl.likelihoods.ordinal import Ordinal as Ordinal
from ugmm_ppl.likelihoods.outcome import Outcome as Outcome
from ugmm_ppl.likelihoods.outcome import Survival as Survival
from ugmm_ppl.likelihoods.poisson import Poisson as Poisson
from ugmm_ppl.likelihoods.student_t import StudentT as StudentT
from ugmm_ppl.likelihoods.truncated import Truncated as Truncated
from ugmm_ppl.likelihoods.zero_inflated import ZeroInflated as ZeroInflated

__all__ = [
    "EXTRAS",
    "LIKELIHOODS",
    "Bernoulli",
    "Beta",
    "Binomial",
    "Categorical",
    "Censored",
    "ClassPrediction",
    "Composite",
    "Extra",
    "Family",
    "Gamma",
    "Hurdle",
    "Law",
    "Likelihood",
    "LogNormal",
    "Mixture",
    "NegativeBinomial",
    "Normal",
    "OfScipy",
    "Ordinal",
    "Outcome",
    "Parameter",
    "Poisson",
    "Prediction",
    "RegressionPrediction",
    "StudentT",
    "Survival",
    "Truncated",
    "ZeroInflated",
    "extra",
    "likelihood",
]
