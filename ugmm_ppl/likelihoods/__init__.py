"""What a likelihood says of y: predictions."""

from ugmm_ppl.likelihoods.prediction import ClassPrediction as ClassPrediction
from ugmm_ppl.likelihoods.prediction import RegressionPrediction as RegressionPrediction

__all__ = ["ClassPrediction", "RegressionPrediction"]
