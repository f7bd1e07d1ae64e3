"""Visits to doctors: counts with many zeros, of the RAND health insurance experiment; a hurdle of a negative binomial.

Fit it with `ugmm-ppl fit models/randhie_hurdle.py --backend numpyro`. The data come with statsmodels.
"""

from sklearn.model_selection import train_test_split
from statsmodels.datasets import randhie

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """80/20 split, the one with this number."""
    table = randhie.load_pandas().data
    names = [name for name in table.columns if name != "mdvis"]
    x, x_test, y, y_test = train_test_split(
        table[names].to_numpy(float), table["mdvis"].to_numpy(float), test_size=0.2, random_state=split
    )
    return up.Data(x, y, x_test, y_test, feature_names=names)


# Whether somebody goes at all, and how often, are two questions.
model = up.Model(up.Network((9, 16)), up.likelihoods.Hurdle(up.likelihoods.NegativeBinomial()))

settings = {"num_steps": 1500, "batch_size": 500, "learning_rate": 0.02, "schedule": "cosine", "seed": 0}
