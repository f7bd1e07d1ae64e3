"""Pyro's MCMC with two chains in processes of their own, by spawn: `python tests/spawned_chains.py`.

A process that is spawned imports this file and loads the model by pickle, so it is a file of its own; `test_pickle.py`
runs it.
"""

import numpy as np
import pyro
import pyro.infer.mcmc.api
import torch
from pyro.infer import MCMC, NUTS
from pyro.nn import PyroModule

import ugmm_ppl as up
from ugmm_ppl.pyro import UGMMLayer


class Model(PyroModule):
    def __init__(self):
        super().__init__()
        self.layer = UGMMLayer(2, 3, prior=up.Prior())

    def forward(self, x, y):
        h = self.layer(x).mean(-1)
        with pyro.plate("data", len(x)):
            return pyro.sample("y", pyro.distributions.Normal(h, 1.0), obs=y)


def main():
    pyro.infer.mcmc.api.mp.cpu_count = lambda: 8  # with two cores Pyro would draw the chains in turn
    x = np.random.default_rng(0).normal(size=(20, 2)).astype(np.float32)
    models = {
        "layer": (Model(), torch.as_tensor(x), torch.as_tensor(x[:, 0]), "layer.loc"),
        "classifier": (
            up.Classifier(up.Network((2, 3)), 2).bind("pyro"),
            x,
            (x[:, 0] > 0.0).astype(int),
            "layers.0.loc",
        ),
    }
    for name, (model, x, y, site) in models.items():
        mcmc = MCMC(
            NUTS(model, max_tree_depth=2), num_samples=2, warmup_steps=2, num_chains=2, mp_context="spawn",
            disable_progbar=True,
        )  # fmt: skip
        mcmc.run(x, y)
        draws = mcmc.get_samples(group_by_chain=True)[site]
        assert draws.shape == (2, 2, 3, 2)
        assert (draws[0] != draws[1]).any()
        print(name)


if __name__ == "__main__":
    main()
