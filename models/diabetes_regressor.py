"""Diabetes: disease progression after one year from ten measurements of a patient.

Fit it with `ugmm-ppl fit models/diabetes_regressor.py --backend numpyro`.
"""

from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def data() -> up.Data:
    """80/20 split."""
    diabetes = load_diabetes()
    x, x_test, y, y_test = train_test_split(diabetes.data, diabetes.target, test_size=0.2, random_state=0)
    return up.Data(x, y, x_test, y_test, feature_names=diabetes.feature_names)


model = up.Regressor(up.Network(sizes=(10, 20)), components=3)

settings = {"method": "svi", "guide": "normal", "num_steps": 3000, "learning_rate": 0.02, "seed": 0}
