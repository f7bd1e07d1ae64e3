"""Marriages: how content wives said they were, from 1 to 5, in a survey of 1974; levels in an order.

Fit it with `ugmm-ppl fit models/fair_ordinal.py --backend numpyro`. The data come with statsmodels.
"""

from sklearn.model_selection import train_test_split
from statsmodels.datasets import fair

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """80/20 split, the one with this number."""
    table = fair.load_pandas().data
    names = [name for name in table.columns if name != "rate_marriage"]
    x, x_test, y, y_test = train_test_split(
        table[names].to_numpy(float), table["rate_marriage"].to_numpy(int) - 1, test_size=0.2, random_state=split
    )
    return up.Data(x, y, x_test, y_test, feature_names=names)


model = up.Model(up.Network((8, 8)), up.likelihoods.Ordinal(5))

settings = {"num_steps": 1500, "batch_size": 500, "learning_rate": 0.02, "schedule": "cosine", "seed": 0}
