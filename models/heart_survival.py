"""Survival: days from a heart transplant to death, of a third of the patients only known to be more; censored times.

Fit it with `ugmm-ppl fit models/heart_survival.py --backend numpyro`. The data come with statsmodels.
"""

import numpy as np
from sklearn.model_selection import train_test_split
from statsmodels.datasets import heart

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """80/20 split, the one with this number."""
    train, test = train_test_split(heart.load_pandas().data, test_size=0.2, random_state=split)
    (x, y, extras), (x_test, y_test, extras_test) = (
        (
            part[["age"]].to_numpy(float),
            part["survival"].to_numpy(float),
            {"censored": np.where(part["censors"] == 1.0, "none", "right")},  # 1 is a death that was seen
        )
        for part in (train, test)
    )
    return up.Data(x, y, x_test, y_test, feature_names=["age"], extras=extras, extras_test=extras_test)


# 69 patients: two neurons, a readout that is narrow, and one spread for all.
model = up.Model(
    up.Network((1, 2), normalization=None),
    up.likelihoods.Censored(up.likelihoods.LogNormal(shared=("scale",))),
    prior=up.Prior(readout=up.dist.Normal(0.0, 0.3)),
)

settings = {"num_steps": 1000, "learning_rate": 0.02, "schedule": "cosine", "seed": 0}
