"""Diabetes: disease progression after one year from ten measurements of a patient.

Fit it with `ugmm-ppl fit models/diabetes_regressor.py --backend numpyro`.
"""

from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """80/20 split, the one with this number."""
    diabetes = load_diabetes()
    x, x_test, y, y_test = train_test_split(diabetes.data, diabetes.target, test_size=0.2, random_state=split)
    return up.Data(x, y, x_test, y_test, feature_names=diabetes.feature_names)


# 442 noisy rows: few neurons, with components wide enough to be smooth over the data.
model = up.Regressor(
    up.Network(sizes=(10, 8)),
    components=3,
    prior=up.Prior(log_scale=up.dist.Normal(1.0, 0.5), readout=up.dist.Normal(0.0, 0.2)),
)

settings = {"method": "svi", "guide": "normal", "num_steps": 2000, "learning_rate": 0.02, "seed": 0}
