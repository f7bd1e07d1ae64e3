"""From a model that fails its check to one that passes: visits to doctors under a Poisson and under a hurdle.

You learn to judge a likelihood by data drawn from it. Visits of a year (the RAND health insurance experiment) have many
zeros and a long tail. A Poisson network knows neither; a hurdle of a negative binomial does. Run it on either backend,
with `python examples/visits.py --backend pyro`. The data come with statsmodels.
"""

import argparse
from collections.abc import Callable, Sequence

import numpy as np
from sklearn.model_selection import train_test_split
from statsmodels.datasets import randhie

import ugmm_ppl as up

STATISTICS: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "share of zeros": lambda y: np.mean(y == 0.0, -1),
    "variance / mean": lambda y: np.var(y, -1) / np.mean(y, -1),
    "99 % quantile": lambda y: np.quantile(y, 0.99, -1),
}
"""What is asked of a data set, and of data sets drawn from the posterior predictive distribution."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Fit both, check both, compare both on held-out rows."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--backend", choices=("numpyro", "pyro"), default="numpyro")
    parser.add_argument("--smoke", action="store_true", help="a few steps and rows, to see that it runs")
    options = parser.parse_args(arguments)
    rows, steps, draws = (400, 30, 20) if options.smoke else (6000, 1500, 200)

    table = randhie.load_pandas().data
    names = [name for name in table.columns if name != "mdvis"]
    x, x_test, y, y_test = train_test_split(
        table[names].to_numpy(float), table["mdvis"].to_numpy(float), train_size=rows, test_size=1000, random_state=0
    )

    poisson = up.likelihoods.Poisson()
    hurdle = up.likelihoods.Hurdle(up.likelihoods.NegativeBinomial())
    for name, likelihood in {"Poisson": poisson, "Hurdle(NegativeBinomial)": hurdle}.items():
        fit = up.fit(
            up.Model(up.Network((9, 16)), likelihood), x, y, backend=options.backend, num_steps=steps,
            batch_size=200, learning_rate=0.02, schedule="cosine", feature_names=names, progress=False,
        )  # fmt: skip
        drawn = fit.sample_predictive(x, num_draws=draws)[0]  # (draws, rows)
        print(name)
        for statistic, function in STATISTICS.items():
            observed, replicated = function(y), function(drawn)
            low, high = np.quantile(replicated, [0.025, 0.975])
            verdict = "as observed" if low <= observed <= high else "FAILS"
            print(f"  {statistic:16} observed {observed:6.2f}, drawn {low:6.2f} to {high:6.2f}: {verdict}")
        held_out = fit.predict(x_test, num_draws=draws).log_density(y_test).mean()
        print(f"  held-out log likelihood {held_out:.3f} nats per row")


if __name__ == "__main__":
    main()
