"""uGMM neurons inside a Pyro model of your own: what the whole models cannot say.

The model predicts disease progression from ten measurements (scikit-learn's diabetes data). It is the sum
of a linear part, whose coefficients can be read, and a correction by uGMM neurons; the noise is a mixture of
a narrow and a wide Gaussian around that sum.

You learn how to use `UGMMLayer` (a `PyroModule` whose parameters are sample sites with a prior) and
`UnivariateGaussianMixture` (an ordinary Pyro distribution) with Pyro's own SVI, autoguide, NUTS and
Predictive, and without the global parameter store: parameters live in the modules, and one optimiser runs
over them. NUTS takes some minutes. Run it with `python examples/own_pyro_model.py`.
"""

import argparse
from collections.abc import Sequence

import numpy as np
import pyro
import pyro.distributions as dist
import torch
from pyro.infer import MCMC, NUTS, Predictive, Trace_ELBO
from pyro.infer.autoguide import AutoNormal
from pyro.nn import PyroModule, PyroSample
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split
from torch import Tensor

import ugmm_ppl as up
from ugmm_ppl.pyro import UGMMLayer, UnivariateGaussianMixture

NEURONS = 8
PRIOR = up.Prior(
    loc=up.dist.Normal(0.0, 1.0),
    log_scale=up.dist.Normal(-0.5, 0.5),
    logits=up.dist.Normal(0.0, 1.0),
)


class RobustRegression(PyroModule):
    """Linear part + uGMM neurons + robust noise, for K standardised inputs and a standardised target."""

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.layer = UGMMLayer(inputs, NEURONS, prior=PRIOR)  # sites layer.loc, layer.log_scale, layer.logits
        self.slope = PyroSample(dist.Normal(0.0, 0.5).expand([inputs]).to_event(1))
        self.readout = PyroSample(dist.Normal(0.0, 0.2).expand([NEURONS]).to_event(1))
        self.intercept = PyroSample(dist.Normal(0.0, 1.0))
        self.scale = PyroSample(dist.LogNormal(torch.tensor([-1.0, 0.0]), 0.3).to_event(1))  # narrow, wide
        self.weights = PyroSample(dist.Dirichlet(torch.tensor([4.0, 2.0])))

    def forward(self, x: Tensor, y: Tensor | None = None) -> None:
        """x is `(B, K)`, y is `(B,)`."""
        h = self.layer(x)  # (B, J), log densities
        h = torch.nn.functional.layer_norm(h, (NEURONS,))  # bring them to a common scale
        centre = x @ self.slope + h @ self.readout + self.intercept  # (B,)
        noise = UnivariateGaussianMixture(centre[:, None], self.scale, probs=self.weights)
        with pyro.plate("data", len(x), dim=-1):
            pyro.sample("y", noise, obs=y)


def report(name: str, predictive: Predictive, x: Tensor, y: np.ndarray, spread: float) -> float:
    """Print the error of the predictive mean and the coverage of the 90 % interval; return the coverage."""
    draws = predictive(x)["y"].numpy()  # (S, B)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    error = spread * float(np.sqrt(np.mean((draws.mean(0) - y) ** 2)))
    coverage = float(np.mean((low <= y) & (y <= high)))
    print(f"{name}: test RMSE {error:.1f}, coverage of the 90 % interval {100 * coverage:.0f} %")
    return coverage


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit by SVI and by NUTS, and predict with both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=3000, help="steps of SVI")
    parser.add_argument("--draws", type=int, default=100, help="draws of NUTS, after as many for adaptation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args(arguments)
    steps, draws, depth = (20, 4, 3) if options.smoke else (options.steps, options.draws, 5)

    x, y = load_diabetes(return_X_y=True)
    centre, spread = y.mean(), y.std()
    x_train, x_test, y_train, y_test = train_test_split(
        x / x.std(0), (y - centre) / spread, test_size=0.25, random_state=options.seed
    )
    x_train, y_train, x_test = (torch.tensor(a, dtype=torch.float32) for a in (x_train, y_train, x_test))
    torch.manual_seed(options.seed)

    with pyro.settings.context(module_local_params=True):  # parameters stay in the modules
        model = RobustRegression(x.shape[1])
        guide = AutoNormal(model, init_scale=0.05)
        elbo = Trace_ELBO()(model, guide)
        first = elbo(x_train, y_train).item()  # the first call makes the guide's parameters
        optimiser = torch.optim.Adam(elbo.parameters(), lr=0.01)
        for _ in range(steps):
            optimiser.zero_grad()
            loss = elbo(x_train, y_train)
            loss.backward()
            optimiser.step()
        print(f"SVI: loss {first:.0f} -> {loss.item():.0f} nats after {steps} steps")
        by_svi = Predictive(model, guide=guide, num_samples=20 if options.smoke else 1000)
        report("SVI", by_svi, x_test, y_test, spread)

    sampler = MCMC(NUTS(model, max_tree_depth=depth), num_samples=draws, warmup_steps=draws, disable_progbar=True)
    sampler.run(x_train, y_train)
    samples = sampler.get_samples()
    report("NUTS", Predictive(model, samples), x_test, y_test, spread)
    slope = samples["slope"].mean(0)
    names = load_diabetes().feature_names
    strongest = ", ".join(f"{names[k]} {slope[k]:+.2f}" for k in torch.argsort(-slope.abs())[:3].tolist())
    print(f"largest linear effects (NUTS, in standard deviations): {strongest}")


if __name__ == "__main__":
    main()
