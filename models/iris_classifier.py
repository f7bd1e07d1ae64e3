"""Iris: three species from four measurements of a flower.

Fit it with `ugmm-ppl fit models/iris_classifier.py --backend numpyro`. To make a model of your own, copy this file and
change `data`, `model` and `settings`.
"""

from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """Stratified 70/30 split, the one with this number."""
    iris = load_iris()
    x, x_test, y, y_test = train_test_split(
        iris.data, iris.target, test_size=0.3, stratify=iris.target, random_state=split
    )
    return up.Data(x, y, x_test, y_test, feature_names=iris.feature_names, class_names=list(iris.target_names))


model = up.Classifier(
    up.Network(sizes=(4, 8)),
    classes=3,
    prior=up.Prior(
        loc=up.dist.Normal(0.0, 1.0),
        log_scale=up.dist.Normal(-0.5, 0.5),
        logits=up.dist.Normal(0.0, 1.0),
        readout=up.dist.Normal(0.0, 1.0),
    ),
)

settings = {"method": "svi", "guide": "normal", "num_steps": 2000, "learning_rate": 0.02, "seed": 0}
