"""Families of outcomes: densities against mpmath, derivatives at the edges, predictions."""

import itertools

import mpmath as mp
import numpy as np
import pytest
import scoringrules
from helpers import gradients
from scipy import stats
from tolerances import GRADIENT64

import ugmm_ppl as up
from ugmm_ppl.data import Standardizer

of = up.likelihoods
mp.mp.dps = 400


def expit(x):
    return 1 / (1 + mp.exp(-x))


def count_log_p(name, outputs, y):
    """log p(y) of a count, by its definition."""
    if name == "Poisson":
        mean = mp.exp(outputs[0]) * outputs[-1]
        return y * mp.log(mean) - mean - mp.loggamma(y + 1)
    mean, c = mp.exp(outputs[0]) * outputs[-1], mp.exp(outputs[1])
    ways = mp.loggamma(y + c) - mp.loggamma(c) - mp.loggamma(y + 1)
    return ways + c * mp.log(c / (c + mean)) + y * mp.log(mean / (c + mean))


def cdf(base, o, y):
    """p(Y <= y) of a base with tails."""
    if type(base).__name__ == "Mixture":
        m = base.components
        total = mp.fsum(mp.exp(each) for each in o[:m])
        parts = zip(o[:m], o[m : 2 * m], o[2 * m : 3 * m], strict=True)
        return mp.fsum(mp.exp(w) / total * mp.ncdf((y - loc) / mp.exp(s)) for w, loc, s in parts)
    if type(base).__name__ == "LogNormal":
        return mp.ncdf((mp.log(y) - o[0]) / mp.exp(o[1])) if y > 0 else mp.mpf(0)
    return mp.ncdf((y - o[0]) / mp.exp(o[1]))


def limited(likelihood, o, y):
    """log p(y) of censored or truncated outcomes, whose last two outputs are the extra columns."""
    base, (code, end) = likelihood.base, o[-2:]
    if type(likelihood).__name__ == "Censored":
        if code == 0:
            return mp.log(mp.diff(lambda t: cdf(base, o, t), y))
        low, high = (y if code > 0 else -mp.inf), (y if code < 0 else end if code == 2 else mp.inf)
    else:
        low, high = code, end
    below = cdf(base, o, low) if low > -mp.inf else mp.mpf(0)
    mass = (cdf(base, o, high) if high < mp.inf else mp.mpf(1)) - below
    if type(likelihood).__name__ == "Censored":
        return mp.log(mass)
    return mp.log(mp.diff(lambda t: cdf(base, o, t), y)) - mp.log(mass)


def log_p(likelihood, outputs, y):
    """log p(y | complete outputs) to 400 digits."""
    o, y, name = [mp.mpf(float(v)) for v in outputs], mp.mpf(float(y)), type(likelihood).__name__
    if name in ("Normal", "LogNormal"):
        at, scale = (y if name == "Normal" else mp.log(y)), mp.exp(o[1])
        found = -((at - o[0]) ** 2) / (2 * scale**2) - mp.log(scale) - mp.log(2 * mp.pi) / 2
        return found - (mp.log(y) if name == "LogNormal" else 0)
    if name == "StudentT":
        scale, df = mp.exp(o[1]), mp.exp(o[2])
        z = (y - o[0]) / scale
        norm = mp.loggamma((df + 1) / 2) - mp.loggamma(df / 2) - mp.log(df * mp.pi) / 2 - mp.log(scale)
        return norm - (df + 1) / 2 * mp.log(1 + z**2 / df)
    if name == "Gamma":
        c = mp.exp(o[1])
        rate = c / mp.exp(o[0])
        return c * mp.log(rate) + (c - 1) * mp.log(y) - rate * y - mp.loggamma(c)
    if name == "Beta":
        c, p = mp.exp(o[1]), expit(o[0])
        a, b = c * p, c * (1 - p)
        norm = mp.loggamma(c) - mp.loggamma(a) - mp.loggamma(b)
        return norm + (a - 1) * mp.log(y) + (b - 1) * mp.log(1 - y)
    if name in ("Bernoulli", "Binomial"):
        n, p = (o[1] if name == "Binomial" else 1), expit(o[0])
        return mp.log(mp.binomial(n, y)) + y * mp.log(p) + (n - y) * mp.log(1 - p)
    if name in ("Poisson", "NegativeBinomial"):
        return count_log_p(name, o, y)
    if name in ("ZeroInflated", "Hurdle"):
        base, z = type(likelihood.base).__name__, expit(o[-2])
        here, zero = mp.exp(count_log_p(base, [*o[:-2], o[-1]], y)), mp.exp(count_log_p(base, [*o[:-2], o[-1]], 0))
        if name == "ZeroInflated":
            return mp.log((z if y == 0 else 0) + (1 - z) * here)
        return mp.log(z) if y == 0 else mp.log((1 - z) * here / (1 - zero))
    if name in ("Censored", "Truncated"):
        return limited(likelihood, o, y)
    cuts = list(itertools.accumulate([o[1], *map(mp.exp, o[2:])]))
    cdf = expit if likelihood.link == "logit" else lambda x: mp.erfc(-x / mp.sqrt(2)) / 2
    at = [mp.mpf(0), *(cdf(cut - o[0]) for cut in cuts), mp.mpf(1)]
    return mp.log(at[int(y) + 1] - at[int(y)])


REAL, POSITIVE, COUNTS = (-3.0, 0.1, 5.0), (1e-6, 0.7, 40.0), (0.0, 1.0, 7.0)
ROWS = {
    "Normal": (of.Normal(), [(0.3, -1.0), (2.0, 1.5)], REAL),
    "StudentT": (of.StudentT(), [(0.3, -1.0, 0.5), (2.0, 1.5, 4.0)], REAL),
    "LogNormal": (of.LogNormal(), [(0.3, -0.5), (-1.0, 1.0)], POSITIVE),
    "Gamma": (of.Gamma(), [(0.3, -1.0), (-1.0, 3.0)], POSITIVE),
    "Beta": (of.Beta(), [(0.3, -1.0), (-3.0, 4.0)], (1e-9, 0.5, 1.0 - 1e-9)),
    "Bernoulli": (of.Bernoulli(), [(0.3,), (-35.0,), (35.0,)], (0.0, 1.0)),
    "Binomial": (of.Binomial(), [(0.3, 7.0), (-35.0, 9.0), (20.0, 7.0)], COUNTS),
    "Poisson": (of.Poisson(), [(0.3, 1.0), (-20.0, 0.5), (3.0, 7.0)], COUNTS),
    "NegativeBinomial": (of.NegativeBinomial(), [(0.3, -2.0, 1.0), (-15.0, 1.0, 0.5), (3.0, 6.0, 7.0)], COUNTS),
    "ZeroInflated": (of.ZeroInflated(of.Poisson()), [(0.3, 0.2, 1.0), (1.0, -30.0, 0.5), (1.0, 30.0, 2.0)], COUNTS),
    "ZeroInflated NB": (of.ZeroInflated(of.NegativeBinomial()), [(0.3, 1.0, 0.2, 1.0), (2.0, -2.0, -9.0, 2.0)], COUNTS),
    "Hurdle": (of.Hurdle(of.Poisson()), [(0.3, 0.2, 1.0), (-20.0, -30.0, 0.5), (2.0, 30.0, 2.0)], COUNTS),
    "Hurdle NB": (of.Hurdle(of.NegativeBinomial()), [(0.3, 1.0, 0.2, 1.0), (-12.0, -2.0, -9.0, 2.0)], COUNTS),
    "Censored": (
        of.Censored(of.Normal()),
        [(0.3, -1.0, c, 9.0) for c in (0.0, 1.0, -1.0, 2.0)] + [(0.0, -2.0, c, 5.5) for c in (1.0, -1.0, 2.0)],
        REAL,
    ),
    "Censored, wide": (of.Censored(of.Normal()), [(0.3, 20.0, 2.0, 5.5)], REAL),
    "Censored mixture": (
        of.Censored(of.Mixture(2)),
        [(0.3, -1.0, 0.0, 4.0, -1.0, -3.0, c, 5.5) for c in (0.0, 1.0, -1.0, 2.0)],
        REAL,
    ),
    "Censored times": (of.Censored(of.LogNormal()), [(0.3, 0.0, c, 50.0) for c in (0.0, 1.0, -1.0, 2.0)], POSITIVE),
    "Truncated": (
        of.Truncated(of.Normal(), low=-3.0, high=5.0),
        [(0.3, -1.0, -3.0, 5.0), (9.0, -1.0, -3.0, 5.0), (-30.0, 0.0, -3.0, np.inf), (30.0, 0.0, -np.inf, 5.0)],
        REAL,
    ),
    "Truncated, wide": (
        of.Truncated(of.Normal(), low=-3.0, high=5.0),
        [(0.3, s, -3.0, 5.0) for s in (20.0, 40.0)],
        REAL,
    ),
    "Truncated mixture": (
        of.Truncated(of.Mixture(2), low=-3.0),
        [(0.3, -1.0, 0.0, 4.0, -1.0, -3.0, -3.0, np.inf)],
        REAL,
    ),
    "Truncated times": (of.Truncated(of.LogNormal(), low=1e-6), [(0.3, 0.0, 1e-6, 41.0)], POSITIVE),
    "Ordinal": (of.Ordinal(4), [(0.3, -1.0, 0.0, -8.0), (9.0, -1.0, 0.5, 1.0), (-9.0, 0.0, 2.0, 0.0)], range(4)),
    "Ordinal, probit": (of.Ordinal(3, "probit"), [(0.3, -1.0, 0.0), (9.0, -1.0, -1.0), (-9.0, 0.0, 2.0)], range(3)),
    "Ordinal of two": (of.Ordinal(2), [(0.3, -1.0), (30.0, 0.0)], range(2)),
}
"""Likelihood, complete outputs and outcomes; edges, and far from them."""

each = pytest.mark.parametrize("name", ROWS)


def grid(name):
    """Every outputs with every outcome: (likelihood, outputs, y)."""
    likelihood, outputs, outcomes = ROWS[name]
    pairs = list(itertools.product(outputs, outcomes))
    return likelihood, np.array([o for o, _ in pairs]), np.array([float(y) for _, y in pairs])


@each
def test_densities_are_exact(backend64, name):
    likelihood, outputs, y = grid(name)
    want = np.array([float(log_p(likelihood, *row)) for row in zip(outputs, y, strict=True)])
    np.testing.assert_allclose(likelihood.log_prob(outputs, y), want, rtol=1e-10, atol=1e-10)
    of_ppl = likelihood.distribution(backend64, backend64.array(outputs)).log_prob(backend64.array(y))
    np.testing.assert_allclose(backend64.numpy(of_ppl), want, rtol=1e-10, atol=1e-10)


@each
def test_derivatives_are_those_of_finite_differences(backend64, name):
    """With respect to all complete outputs but extra columns, at the edges too."""
    likelihood, outputs, y = grid(name)
    own = outputs.shape[1] - len(likelihood.extras)
    rest, observed = backend64.array(outputs[:, own:]), backend64.array(y)

    def total(moved):
        whole = backend64.ops.concat([moved, rest])
        return likelihood.distribution(backend64, whole).log_prob(observed).sum()

    _, (found,) = gradients(backend64, total, [outputs[:, :own]])
    for i in range(own):
        step = 1e-5 * np.eye(outputs.shape[1])[i]
        ends = [likelihood.log_prob(outputs + sign * step, y) for sign in (1.0, -1.0)]
        want = (ends[0] - ends[1]) / 2e-5
        np.testing.assert_allclose(found[:, i], want, rtol=GRADIENT64, atol=GRADIENT64)


@each
def test_distribution_functions_are_sums_of_densities(name):
    likelihood, outputs, y = grid(name)
    law = likelihood.given(outputs)
    total = law.cdf(y) + law.survival(y)
    np.testing.assert_allclose(total, 1.0, rtol=1e-8 if "wide" in name else 1e-12)
    if likelihood.discrete:
        below = [np.exp(likelihood.log_prob(outputs, np.full(len(y), k))) for k in np.arange(y.max() + 1.0)]
        want = np.sum([np.where(k <= y, p, 0.0) for k, p in enumerate(below)], 0)
        np.testing.assert_allclose(law.cdf(y), want, rtol=1e-10, atol=1e-12)
        assert (law.cdf(np.full(len(y), -1.0)) == 0.0).all()
    level = 0.5 * (law.cdf(y) + law.cdf(y - 1.0)) if likelihood.discrete else law.cdf(y)
    inside = (level > 1e-8) & (level < 1.0 - 1e-8)
    found = law.quantile(np.where(inside, level, 0.5))
    np.testing.assert_allclose(found[inside], y[inside], rtol=1e-6)


@each
def test_samples_follow_the_distribution_function(backend64, name):
    """Of the law, and of the PPL's distribution: randomised PIT is uniform."""
    likelihood, outputs, _ = grid(name)
    moderate = np.abs(outputs[:, : outputs.shape[1] - len(likelihood.extras)]).max(1) < 8.5
    many = np.repeat(outputs[moderate][:1] if moderate.any() else outputs[:1], 4000, 0)
    rng = np.random.default_rng(3)
    with backend64.inference.seeded(4):
        distribution = likelihood.distribution(backend64, backend64.array(many))
        drawn = backend64.numpy(backend64.sample("y", distribution)).astype(np.float64)
    law = likelihood.given(many)
    for y in (law.sample(rng), drawn):
        below = law.cdf(y - 1.0) if likelihood.discrete else law.cdf(y)
        u = below + rng.uniform(size=len(y)) * (law.cdf(y) - below)
        assert stats.kstest(u, "uniform").pvalue > 1e-3


@pytest.mark.parametrize("name", [name for name in ROWS if "mixture" not in name])  # whose quantiles jump
def test_moments_are_those_of_quantiles(name):
    """E[Y] and E[Y^2] as integrals over levels, where they are moderate."""
    likelihood, outputs, _ = grid(name)
    own = outputs[:, : outputs.shape[1] - len(likelihood.extras)]
    moderate = np.abs(own).max(1) < 8.5
    law = likelihood.given(outputs[moderate][:1] if moderate.any() else outputs[:1])
    nodes, masses = np.polynomial.legendre.leggauss(20)
    points = np.array([0.0, 1e-9, 1e-6, 1e-4, 1e-2, 0.1, 0.5, 0.9, 0.99, 1 - 1e-4, 1 - 1e-6, 1 - 1e-9, 1.0])
    half = 0.5 * np.diff(points)[:, None]
    levels, weights = (points[:-1, None] + half * (1.0 + nodes)).ravel(), (half * masses).ravel()
    y = np.array([float(law.quantile(np.array([level]))[0]) for level in levels])
    if np.isfinite(law.variance).all():
        close = 0.05 if likelihood.discrete else 1e-3  # steps of a quantile are not smooth
        np.testing.assert_allclose(law.mean, weights @ y, rtol=close, atol=close)
        np.testing.assert_allclose(law.variance, weights @ (y - law.mean) ** 2, rtol=close, atol=close)


SCORED = {
    "Normal": lambda y, o: scoringrules.crps_normal(y, o[0], np.exp(o[1])),
    "LogNormal": lambda y, o: scoringrules.crps_lognormal(y, o[0], np.exp(o[1])),
    "Gamma": lambda y, o: scoringrules.crps_gamma(y, np.exp(o[1]), rate=np.exp(o[1] - o[0])),
    "Binomial": lambda y, o: scoringrules.crps_binomial(y, o[1], 1.0 / (1.0 + np.exp(-o[0]))),
    "Poisson": lambda y, o: scoringrules.crps_poisson(y, np.exp(o[0]) * o[1]),
    "StudentT": lambda y, o: scoringrules.crps_t(y, np.exp(o[2]), o[0], np.exp(o[1])),
}


@pytest.mark.parametrize("name", SCORED)
def test_crps_is_that_of_scoringrules(name):
    likelihood, outputs, y = grid(name)
    prediction = likelihood.prediction(outputs[None, None], None, None)
    want = [SCORED[name](at, row) for at, row in zip(y, outputs, strict=True)]
    np.testing.assert_allclose(prediction.crps(y), want, rtol=2e-3, atol=2e-4)


def test_large_concentrations_in_float32(backend):
    """Near a Poisson the gamma functions would cancel."""
    y, log_c = np.array([0.0, 3.0, 40.0, 3.0]), np.array([12.0, 15.0, 15.0, 20.0])
    outputs = np.stack([np.full(4, 1.0), log_c, np.ones(4)], -1)
    found = of.NegativeBinomial().distribution(backend, backend.array(outputs)).log_prob(backend.array(y))
    want = [
        float(count_log_p("NegativeBinomial", list(map(mp.mpf, row)), mp.mpf(at)))
        for row, at in zip(outputs, y, strict=True)
    ]
    np.testing.assert_allclose(backend.numpy(found), want, rtol=2e-5, atol=2e-5)


def test_an_outcome_answers_for_the_mixture_of_draws(rng):
    """In the units of the data, with weights of chains; against sums over draws by hand."""
    outputs, weights = rng.normal(size=(2, 3, 5, 2)), np.array([0.3, 0.7])
    units = Standardizer(np.array(10.0), np.array(4.0))
    prediction = of.Normal().prediction(outputs, units, None, weights)
    loc, scale = 10.0 + 4.0 * outputs[..., 0], 4.0 * np.exp(outputs[..., 1])
    share = np.repeat(weights / 3.0, 3).reshape(2, 3, 1)
    y = np.linspace(5.0, 15.0, 5)
    np.testing.assert_allclose(prediction.mean, (share * loc).sum((0, 1)))
    second = (share * (scale**2 + loc**2)).sum((0, 1))
    np.testing.assert_allclose(prediction.std, np.sqrt(second - prediction.mean**2))
    np.testing.assert_allclose(prediction.log_density(y), np.log((share * stats.norm.pdf(y, loc, scale)).sum((0, 1))))
    np.testing.assert_allclose(prediction.cdf(y), (share * stats.norm.cdf(y, loc, scale)).sum((0, 1)))
    np.testing.assert_allclose(prediction.survival(y), (share * stats.norm.sf(y, loc, scale)).sum((0, 1)))
    np.testing.assert_allclose(prediction.draws, loc)
    low, high = prediction.interval(0.8)
    np.testing.assert_allclose(prediction.cdf(low), 0.1, rtol=1e-8)
    np.testing.assert_allclose(prediction.survival(high), 0.1, rtol=1e-8)
    assert np.abs(prediction.samples(20_000).mean(0) - prediction.mean).max() < 0.3
    np.testing.assert_array_equal(prediction.pit(y), prediction.cdf(y))
    assert list(prediction.columns(None)) == ["mean", "std", "q05", "q50", "q95"]
    with pytest.raises(AttributeError, match="Normal has infinitely many outcomes, so no probs"):
        _ = prediction.probs


def test_probabilities_of_finitely_many_outcomes(rng):
    prediction = of.Ordinal(4).prediction(rng.normal(size=(1, 3, 6, 4)), None, None)
    assert prediction.probs.shape == (6, 4)
    np.testing.assert_allclose(prediction.probs.sum(1), 1.0)
    np.testing.assert_allclose(prediction.probs @ np.arange(4), prediction.mean)
    yes = of.Bernoulli().prediction(rng.normal(size=(1, 3, 6, 1)), None, None)
    np.testing.assert_allclose(yes.probs[:, 1], yes.mean)


def test_randomised_pit_of_counts_is_uniform(rng):
    outputs = np.concatenate([rng.normal(size=(1, 4, 2000, 2)), np.ones((1, 4, 2000, 1))], -1)
    prediction = of.NegativeBinomial().prediction(outputs, None, None)
    assert stats.kstest(prediction.pit(prediction.samples(1)[0]), "uniform").pvalue > 1e-3
