"""uGMM neurons inside a NumPyro model of your own: what the whole models cannot say.

The model predicts disease progression from ten measurements (scikit-learn's diabetes data). It is the sum
of a linear part, whose coefficients can be read, and a correction by uGMM neurons; the noise is a mixture of
a narrow and a wide Gaussian around that sum.

You learn how to use `UGMMLayer` (its parameters are sample sites with a prior) and
`UnivariateGaussianMixture` (an ordinary NumPyro distribution) with NumPyro's own SVI, autoguide, NUTS and
Predictive. Run it with `python examples/own_numpyro_model.py`.
"""

import argparse
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import numpyro.distributions as dist
from numpyro.infer import MCMC, NUTS, SVI, Predictive, Trace_ELBO
from numpyro.infer.autoguide import AutoNormal
from numpyro.optim import Adam
from sklearn.datasets import load_diabetes
from sklearn.model_selection import train_test_split

import ugmm_ppl as up
from ugmm_ppl.numpyro import UGMMLayer, UnivariateGaussianMixture

NEURONS = 8
PRIOR = up.Prior(
    loc=up.dist.Normal(0.0, 1.0),
    log_scale=up.dist.Normal(-0.5, 0.5),
    logits=up.dist.Normal(0.0, 1.0),
)


def model(x: jax.Array, y: jax.Array | None = None) -> None:
    """Linear part + uGMM neurons + robust noise. x is `(B, K)` and y `(B,)`, both standardised."""
    # The layer samples its parameters at the sites layer.loc, layer.log_scale and layer.logits.
    layer = UGMMLayer(x.shape[-1], NEURONS, prior=PRIOR, name="layer")
    h = layer(x)  # (B, J), log densities
    h = (h - h.mean(-1, keepdims=True)) / jnp.sqrt(h.var(-1, keepdims=True) + 1e-5)  # on a common scale
    slope = numpyro.sample("slope", dist.Normal(0.0, 0.5).expand([x.shape[-1]]).to_event(1))
    readout = numpyro.sample("readout", dist.Normal(0.0, 0.2).expand([NEURONS]).to_event(1))
    intercept = numpyro.sample("intercept", dist.Normal(0.0, 1.0))
    centre = numpyro.deterministic("centre", x @ slope + h @ readout + intercept)  # (B,)
    scale = numpyro.sample("scale", dist.LogNormal(jnp.array([-1.0, 0.0]), 0.3).to_event(1))  # narrow, wide
    weights = numpyro.sample("weights", dist.Dirichlet(jnp.array([4.0, 2.0])))
    with numpyro.plate("data", x.shape[0]):
        numpyro.sample("y", UnivariateGaussianMixture(centre[:, None], scale, probs=weights), obs=y)


def report(name: str, predictive: Predictive, key: jax.Array, x: jax.Array, y: np.ndarray, spread: float) -> float:
    """Print the error of the predictive mean and the coverage of the 90 % interval; return the coverage."""
    draws = np.asarray(predictive(key, x)["y"])  # (S, B)
    low, high = np.quantile(draws, [0.05, 0.95], axis=0)
    error = spread * float(np.sqrt(np.mean((draws.mean(0) - y) ** 2)))
    coverage = float(np.mean((low <= y) & (y <= high)))
    print(f"{name}: test RMSE {error:.1f}, coverage of the 90 % interval {100 * coverage:.0f} %")
    return coverage


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit by SVI and by NUTS, and predict with both."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=5000, help="steps of SVI")
    parser.add_argument("--draws", type=int, default=500, help="draws of NUTS, after as many for adaptation")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--smoke", action="store_true", help="a few steps, to see that it runs")
    options = parser.parse_args(arguments)
    steps, draws, depth = (20, 5, 4) if options.smoke else (options.steps, options.draws, 8)

    x, y = load_diabetes(return_X_y=True)
    centre, spread = y.mean(), y.std()
    x_train, x_test, y_train, y_test = train_test_split(
        x / x.std(0), (y - centre) / spread, test_size=0.25, random_state=options.seed
    )
    x_train, y_train, x_test = jnp.asarray(x_train), jnp.asarray(y_train), jnp.asarray(x_test)
    key_svi, key_nuts, key_svi_y, key_nuts_y = jax.random.split(jax.random.key(options.seed), 4)

    guide = AutoNormal(model, init_scale=0.05)
    svi = SVI(model, guide, Adam(0.01), Trace_ELBO())
    result = svi.run(key_svi, steps, x_train, y_train, progress_bar=False)
    print(f"SVI: loss {result.losses[0]:.0f} -> {result.losses[-1]:.0f} nats after {steps} steps")
    by_svi = Predictive(model, guide=guide, params=result.params, num_samples=20 if options.smoke else 1000)
    report("SVI", by_svi, key_svi_y, x_test, y_test, spread)

    sampler = MCMC(NUTS(model, max_tree_depth=depth), num_warmup=draws, num_samples=draws, progress_bar=False)
    sampler.run(key_nuts, x_train, y_train)
    samples = sampler.get_samples()
    report("NUTS", Predictive(model, samples), key_nuts_y, x_test, y_test, spread)
    slope = samples["slope"].mean(0)
    names = load_diabetes().feature_names
    strongest = ", ".join(f"{names[k]} {slope[k]:+.2f}" for k in np.argsort(-np.abs(slope))[:3])
    print(f"largest linear effects (NUTS, in standard deviations): {strongest}")


if __name__ == "__main__":
    main()
