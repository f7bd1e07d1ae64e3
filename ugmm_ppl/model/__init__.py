"""Whole models: prior, network and likelihood in one description, for either backend."""

from ugmm_ppl.model.base import Model as Model
from ugmm_ppl.model.base import NetworkModel as NetworkModel
from ugmm_ppl.model.classifier import Classifier as Classifier
from ugmm_ppl.model.regressor import Regressor as Regressor
from ugmm_ppl.model.score import JointScore as JointScore
