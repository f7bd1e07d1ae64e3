"""Whole models: prior, network and likelihood in one description, for either backend."""

from ugmm_ppl.models.base import Model as Model
from ugmm_ppl.models.classifier import Classifier as Classifier
from ugmm_ppl.models.network import NetworkModel as NetworkModel
from ugmm_ppl.models.regressor import Regressor as Regressor
from ugmm_ppl.models.score import JointScore as JointScore

__all__ = ["Classifier", "JointScore", "Model", "NetworkModel", "Regressor"]
