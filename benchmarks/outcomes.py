"""Likelihoods on real data: linear networks beside the GLMs of statsmodels, and networks with neurons.

    python benchmarks/outcomes.py [--splits 5] [--backend numpyro] [--sbc 128]

Each family against the GLM of the same family: a network that is one linear layer must predict held-out rows as well.
Then visits to doctors (randhie) by a network of 16 neurons under one likelihood after the other, and times to an arrest
(rossi) by the concordance of predictions, beside the proportional hazards of Cox. The same settings everywhere; nothing
is chosen by held-out rows. Needs statsmodels and lifelines, with which the data come. With `--sbc` calibration of NUTS
for every family in their place. Writes benchmarks/results/outcomes.json, or outcomes_sbc_BACKEND.json.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import measure
import numpy as np
import statsmodels.api as sm
from scipy import stats
from statsmodels.miscmodels.ordinal_model import OrderedModel

import ugmm_ppl as up
from ugmm_ppl.calibration import sbc
from ugmm_ppl.nn import Linear

of = up.likelihoods

STAR = ["LOWINC", "PERASIAN", "PERBLACK", "PERHISP", "PERMINTE", "AVYRSEXP", "AVSALK", "PERSPENK", "PTRATIO", "PCTAF"]
SETTINGS = {"num_steps": 2000, "batch_size": 500, "learning_rate": 0.02, "schedule": "cosine", "progress": False}
DRAWS = 100

Rows = tuple[np.ndarray, np.ndarray, dict[str, np.ndarray]]


def table(name: str, target: str, columns: list[str] | None = None) -> tuple[np.ndarray, np.ndarray]:
    """x and y of a data set of statsmodels."""
    frame = getattr(sm.datasets, name).load_pandas().data
    names = [c for c in frame.columns if c != target] if columns is None else columns
    return frame[names].to_numpy(float), frame[target].to_numpy(float)


def splits(rows: int, count: int) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Numbers of training and held-out rows, four fifths and one fifth."""
    for seed in range(count):
        order = np.random.default_rng(seed).permutation(rows)
        yield order[rows // 5 :], order[: rows // 5]


def poisson_glm(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Log probability by a Poisson regression."""
    mean = sm.Poisson(y, sm.add_constant(x)).fit(disp=0).predict(sm.add_constant(x_test))
    return stats.poisson(mean).logpmf


def negative_binomial_glm(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Log probability by a negative binomial regression, NB2."""
    found = sm.NegativeBinomial(y, sm.add_constant(x)).fit(disp=0, maxiter=500)
    mean, alpha = found.predict(sm.add_constant(x_test)), found.params[-1]
    return stats.nbinom(1.0 / alpha, 1.0 / (1.0 + alpha * mean)).logpmf


def gamma_glm(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Log density by a Gamma regression with a log link, its shape by maximum likelihood."""
    found = sm.GLM(y, sm.add_constant(x), family=sm.families.Gamma(sm.families.links.Log())).fit()
    shape = stats.gamma.fit(y / found.fittedvalues, floc=0.0)[0]
    return stats.gamma(shape, scale=found.predict(sm.add_constant(x_test)) / shape).logpdf


def ordered_logit(x: np.ndarray, y: np.ndarray, x_test: np.ndarray) -> Callable[[np.ndarray], np.ndarray]:
    """Log probability by an ordered logit."""
    probs = OrderedModel(y.astype(int), x, distr="logit").fit(method="bfgs", disp=0, maxiter=500).predict(x_test)
    return lambda y: np.log(np.asarray(probs)[np.arange(len(y)), y.astype(int)])


def binomial_glm(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, n: np.ndarray, n_test: np.ndarray) -> Any:
    """Log probability by a binomial regression."""
    found = sm.GLM(np.column_stack([y, n - y]), sm.add_constant(x), family=sm.families.Binomial()).fit()
    return stats.binom(n_test.astype(int), found.predict(sm.add_constant(x_test))).logpmf


def ours(network: up.Network, likelihood: Any, train: Rows, test: Rows, backend: str, **prior: Any) -> Any:
    """The prediction of held-out rows."""
    model = up.Model(network, likelihood, prior=up.Prior(**prior))
    settings = SETTINGS | {"batch_size": min(500, len(train[0]))}
    fit = up.fit(model, train[0], train[1], **train[2], backend=backend, **settings)
    return fit.predict(test[0], num_draws=DRAWS, **test[2])


def against_glms(count: int, backend: str) -> list[dict[str, Any]]:
    """Held-out log likelihood per row of GLMs and of linear networks, means over splits."""
    star = table("star98", "NABOVE", STAR)
    trials = star[1] + table("star98", "NBELOW")[1]
    marriages = table("fair", "rate_marriage")
    income, food = table("engel", "foodexp")
    cases = {
        "randhie, Poisson": (table("randhie", "mdvis"), of.Poisson(), poisson_glm),
        "randhie, negative binomial": (
            table("randhie", "mdvis"), of.NegativeBinomial(shared=("concentration",)), negative_binomial_glm
        ),
        "star98, binomial": (star, of.Binomial(), binomial_glm),
        "fair, ordered logit": ((marriages[0], marriages[1] - 1.0), of.Ordinal(5), ordered_logit),
        "engel, Gamma": ((np.log(income), food), of.Gamma(shared=("concentration",)), gamma_glm),
    }  # fmt: skip
    found = []
    for name, ((x, y), likelihood, glm) in cases.items():
        network = up.Network([Linear()], inputs=x.shape[1])
        scores = []
        for train, test in splits(len(y), count):
            seen = (x - x[train].mean(0)) / x[train].std(0)  # for the optimisers of the GLMs
            counted = [trials[rows] for rows in (train, test)] if likelihood == of.Binomial() else []
            extras = [{"trials": each} for each in counted] or [{}, {}]
            theirs = np.mean(glm(seen[train], y[train], seen[test], *counted)(y[test]))
            rows = [(x[some], y[some], beside) for some, beside in zip((train, test), extras, strict=True)]
            prediction = ours(network, likelihood, *rows, backend)
            scores.append((theirs, prediction.log_density(y[test]).mean()))
        glms, networks = np.array(scores).T
        row = {"data": name, "glm": glms.mean(), "network": networks.mean(), "least_gain": (networks - glms).min()}
        print(f"{name:28} GLM {row['glm']:8.4f}   linear network {row['network']:8.4f}", flush=True)
        found.append({key: value if isinstance(value, str) else round(float(value), 4) for key, value in row.items()})
    return found


def visits(count: int, backend: str) -> list[dict[str, Any]]:
    """Held-out log likelihood per row of visits to doctors, by 16 neurons."""
    likelihoods = {
        "Poisson()": of.Poisson(), "NegativeBinomial()": of.NegativeBinomial(),
        "ZeroInflated(Poisson())": of.ZeroInflated(of.Poisson()),
        "ZeroInflated(NegativeBinomial())": of.ZeroInflated(of.NegativeBinomial()),
        "Hurdle(Poisson())": of.Hurdle(of.Poisson()), "Hurdle(NegativeBinomial())": of.Hurdle(of.NegativeBinomial()),
    }  # fmt: skip
    (x, y), found = table("randhie", "mdvis"), []
    for name, likelihood in likelihoods.items():
        start, scores, zeros = time.perf_counter(), [], []
        for train, test in splits(len(y), count):
            rows = [(x[some], y[some], {}) for some in (train, test)]
            prediction = ours(up.Network((9, 16)), likelihood, *rows, backend)
            scores.append(prediction.log_density(y[test]).mean())
            zeros.append(prediction.cdf(np.zeros(len(test))).mean() - np.mean(y[test] == 0.0))
        seconds = (time.perf_counter() - start) / count
        found.append({"likelihood": name, "log_likelihood": round(float(np.mean(scores)), 4),
                      "zeros_too_many": round(float(np.mean(zeros)), 4), "seconds": round(seconds, 1)})  # fmt: skip
        print(f"{name:34} {found[-1]['log_likelihood']:8.4f}   p(0) off {found[-1]['zeros_too_many']:+.3f}", flush=True)
    return found


def arrests(backend: str) -> list[dict[str, Any]]:
    """Concordance of predicted times to an arrest, mean over five folds."""
    from lifelines import CoxPHFitter
    from lifelines.datasets import load_rossi
    from lifelines.utils import concordance_index

    frame = load_rossi()
    y, seen = frame["week"].to_numpy(float), frame["arrest"].to_numpy() == 1
    x = frame.drop(columns=["week", "arrest"]).to_numpy(float)
    code = np.where(seen, "none", "right")
    likelihoods = {
        "Censored(LogNormal())": of.Censored(of.LogNormal()), "Censored(Mixture(2))": of.Censored(of.Mixture(2))
    }  # fmt: skip
    scores: dict[str, list[float]] = {"Cox": []} | {name: [] for name in likelihoods}
    fold = np.random.default_rng(0).permutation(len(y)) % 5
    for k in range(5):
        train, test = fold != k, fold == k
        hazard = CoxPHFitter().fit(frame[train], "week", "arrest").predict_partial_hazard(frame[test])
        scores["Cox"].append(concordance_index(y[test], -hazard, seen[test]))
        for name, likelihood in likelihoods.items():
            rows = [(x[part], y[part], {"censored": code[part]}) for part in (train, test)]
            prediction = ours(up.Network((7, 8)), likelihood, *rows, backend, readout=up.dist.Normal(0.0, 0.3))
            scores[name].append(prediction.metrics(y[test])["concordance"])
    for name, values in scores.items():
        print(f"{name:28} concordance {np.mean(values):.4f}", flush=True)
    return [{"model": name, "concordance": round(float(np.mean(v)), 4)} for name, v in scores.items()]


def calibrated(backend: str, simulations: int) -> list[dict[str, Any]]:
    """Simulation-based calibration of NUTS for every family, one neuron of two inputs: the p-value of its ranks."""
    likelihoods = {
        "Bernoulli": of.Bernoulli(), "Beta": of.Beta(), "Binomial": of.Binomial(),
        "Censored": of.Censored(of.Normal(shared=("scale",))), "Gamma": of.Gamma(shared=("concentration",)),
        "Hurdle": of.Hurdle(of.Poisson()), "LogNormal": of.LogNormal(shared=("scale",)),
        "NegativeBinomial": of.NegativeBinomial(shared=("concentration",)), "Normal": of.Normal(shared=("scale",)),
        "Ordinal": of.Ordinal(3), "Poisson": of.Poisson(), "StudentT": of.StudentT(),
        "Truncated": of.Truncated(of.Normal(shared=("scale",)), low=-1.0, high=3.0),
        "ZeroInflated": of.ZeroInflated(of.Poisson(), shared=("zero_log_odds",)),
    }  # fmt: skip
    rng, found = np.random.default_rng(0), []
    x = rng.normal(size=(12, 2))
    prior = up.Prior(
        loc=up.dist.Normal(0.0, 1.0), log_scale=up.dist.Normal(0.0, 0.3), logits=up.dist.Normal(0.0, 0.5),
        readout=up.dist.Normal(0.0, 0.5), readout_bias=up.dist.Normal(0.0, 0.5),
    )  # fmt: skip
    for name, likelihood in likelihoods.items():
        start = time.perf_counter()
        extras = {"trials": np.full(12, 10.0)} if name == "Binomial" else {}
        model = up.Model(up.Network((2, 1), normalization=None), likelihood, prior=prior)
        result = sbc(
            model, x, backend=backend, num_simulations=simulations, num_warmup=150, num_draws=15, thin=3,
            progress=False, **extras,
        )  # fmt: skip
        seconds = round(time.perf_counter() - start, 1)
        found.append({"likelihood": name, "p_value": round(float(result.p_value), 4), "seconds": seconds})
        print(f"{name:20} p {found[-1]['p_value']:.3f}  {found[-1]['seconds']} s", flush=True)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--splits", type=int, default=5)
    parser.add_argument("--backend", default="numpyro", choices=("pyro", "numpyro"))
    parser.add_argument("--sbc", type=int, default=0, metavar="SIMULATIONS", help="calibration alone, of so many")
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.sbc:
        rows = calibrated(options.backend, options.sbc)
        content = {"machine": measure.machine(), "backend": options.backend, "calibration": rows}
        print(measure.write(f"outcomes_sbc_{options.backend}", content))
        return
    content = {
        "machine": measure.machine(), "splits": options.splits, "backend": options.backend, "settings": SETTINGS,
        "against_glms": against_glms(options.splits, options.backend),
        "visits": visits(options.splits, options.backend), "arrests": arrests(options.backend),
    }  # fmt: skip
    print(measure.write("outcomes", content))


if __name__ == "__main__":
    main()
