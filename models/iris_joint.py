"""Iris as a joint density of four measurements and the species: a circuit with a root per class.

Fit it with `ugmm-ppl fit models/iris_joint.py --backend numpyro`. Measurements may be missing, in fitting and in
prediction.
"""

from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """Stratified 80/20 split, the one with this number."""
    iris = load_iris()
    x, x_test, y, y_test = train_test_split(
        iris.data, iris.target, test_size=0.2, stratify=iris.target, random_state=split
    )
    return up.Data(x, y, x_test, y_test, feature_names=iris.feature_names, class_names=list(iris.target_names))


model = up.Circuit(
    4,
    classes=3,
    structure=up.random_trees(4, 3),
    neurons=6,
    components=1,
    prior=up.CircuitPrior(
        loc=up.dist.Normal(0.0, 1.0), log_scale=up.dist.Normal(-1.0, 0.5), sums=up.dist.Normal(0.0, 1.0)
    ),
)

settings = {"method": "svi", "guide": "normal", "num_steps": 2000, "learning_rate": 0.02, "seed": 0}
