"""Data on their way into a model: named train and test arrays, standardisation, CSV files."""

from ugmm_ppl.data.dataset import Data as Data
from ugmm_ppl.data.spreadsheet import read_csv as read_csv
from ugmm_ppl.data.standardizer import Standardizer as Standardizer

__all__ = ["Data", "Standardizer", "read_csv"]
