"""The Iris experiment of the uGMM paper (arXiv:2509.07569): one network 5-10-5-1 over four measurements and the class.

Its output is a score of (measurements, class), no density; the class is the one with the largest score. The split is
honest, 80/20, where the paper's notebook tests on its training rows. Fit it with
`ugmm-ppl fit models/iris_paper_score.py --backend numpyro`; 5-20-8-1 is the paper's other size.
"""

from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split

import ugmm_ppl as up


def data(split: int = 0) -> up.Data:
    """Stratified 80/20 split, the one with this number; that of iris_joint.py."""
    iris = load_iris()
    x, x_test, y, y_test = train_test_split(
        iris.data, iris.target, test_size=0.2, stratify=iris.target, random_state=split
    )
    return up.Data(x, y, x_test, y_test, feature_names=iris.feature_names, class_names=list(iris.target_names))


model = up.JointScore(up.Network(sizes=(5, 10, 5), normalization=None, readout="ugmm", initial="paper"), classes=3)

settings = {"method": "map", "num_steps": 3000, "learning_rate": 0.01, "seed": 0}
