"""Food expenditure of Belgian households of 1857 by their income: positive, and more spread where there is more.

Fit it with `ugmm-ppl fit models/engel_gamma.py --backend numpyro`. The data come with statsmodels.
"""

import numpy as np
from sklearn.model_selection import train_test_split
from statsmodels.datasets import engel

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """80/20 split, the one with this number."""
    table = engel.load_pandas().data
    x, x_test, y, y_test = train_test_split(
        np.log(table[["income"]].to_numpy(float)), table["foodexp"].to_numpy(float), test_size=0.2, random_state=split
    )
    return up.Data(x, y, x_test, y_test, feature_names=["log_income"])


model = up.Model(up.Network((1, 8)), up.likelihoods.Gamma())

settings = {"num_steps": 1500, "learning_rate": 0.02, "schedule": "cosine", "seed": 0}
