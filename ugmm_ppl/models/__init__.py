"""Whole models: prior, network and likelihood in one description, for either backend."""

from ugmm_ppl.models.base import BaseModel as BaseModel
from ugmm_ppl.models.classifier import Classifier as Classifier
from ugmm_ppl.models.density import DensityModel as DensityModel
from ugmm_ppl.models.network import BaseNetworkModel as BaseNetworkModel
from ugmm_ppl.models.network import Model as Model
from ugmm_ppl.models.regressor import Regressor as Regressor
from ugmm_ppl.models.score import JointScore as JointScore

__all__ = ["BaseModel", "BaseNetworkModel", "Classifier", "DensityModel", "JointScore", "Model", "Regressor"]
