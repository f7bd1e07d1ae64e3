"""School districts of California: how many pupils were above the national median in mathematics, of how many.

Fit it with `ugmm-ppl fit models/star98_binomial.py --backend numpyro`. The data come with statsmodels. Districts differ
by more than a binomial allows: the coverage of its 90 % intervals says so.
"""

from sklearn.model_selection import train_test_split
from statsmodels.datasets import star98

import ugmm_ppl as up

NAMES = ["LOWINC", "PERASIAN", "PERBLACK", "PERHISP", "PERMINTE", "AVYRSEXP", "AVSALK", "PERSPENK", "PTRATIO", "PCTAF"]


def data(split: int = 0) -> up.Data:
    """80/20 split, the one with this number."""
    table = star98.load_pandas().data
    above, below = table["NABOVE"].to_numpy(float), table["NBELOW"].to_numpy(float)
    x, x_test, y, y_test, trials, trials_test = train_test_split(
        table[NAMES].to_numpy(float), above, above + below, test_size=0.2, random_state=split
    )
    return up.Data(
        x, y, x_test, y_test, feature_names=NAMES, extras={"trials": trials}, extras_test={"trials": trials_test}
    )


model = up.Model(up.Network((10, 8)), up.likelihoods.Binomial())

settings = {"num_steps": 1500, "learning_rate": 0.02, "schedule": "cosine", "seed": 0}
