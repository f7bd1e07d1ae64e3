"""Metrics against scikit-learn, SciPy's quadrature, or a value worked out by hand."""

import numpy as np
import pytest
from helpers import cumulative, draw_mixture
from scipy import integrate, special, stats
from sklearn import metrics as sk
from tolerances import EXACT64, QUADRATURE

from ugmm_ppl import budgets, metrics
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.likelihoods import ClassPrediction, RegressionPrediction


@pytest.fixture
def classes(rng):
    """Probabilities of 200 rows and 4 classes, and labels drawn from them."""
    probs = rng.dirichlet(np.ones(4), 200)
    return probs, np.array([rng.choice(4, p=p) for p in probs])


def test_classifier_metrics_are_those_of_scikit_learn(classes):
    probs, y = classes
    found = metrics.evaluate(ClassPrediction(probs[None, None]), y)
    np.testing.assert_allclose(found["accuracy"], sk.accuracy_score(y, probs.argmax(-1)), rtol=EXACT64)
    np.testing.assert_allclose(found["log_likelihood"], -sk.log_loss(y, probs), rtol=EXACT64)
    by_class = sum(sk.brier_score_loss(y == c, probs[:, c]) for c in range(4))
    np.testing.assert_allclose(found["brier"], by_class, rtol=EXACT64)


def test_calibration_error_by_hand():
    """Two bins: confidence 0.95 and half right, confidence 0.65 and all right."""
    probs = np.array([[0.95, 0.05]] * 2 + [[0.35, 0.65]] * 2)
    found = metrics.expected_calibration_error(probs, np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(found, 0.5 * 0.45 + 0.5 * 0.35, rtol=EXACT64)
    confidence, right, share = metrics.reliability(probs, np.array([0, 1, 1, 1]))
    np.testing.assert_allclose(confidence[[6, 9]], [0.65, 0.95])
    np.testing.assert_allclose(right[[6, 9]], [1.0, 0.5])
    assert share.sum() == 1.0
    assert np.isnan(right[0])


def test_bins_of_equal_mass_by_hand():
    """Six rows in three bins, two each: confidences 0.6 0.7 | 0.7 0.8 | 0.9 1.0, right: 1 0 | 1 1 | 1 0."""
    top = np.array([0.9, 0.6, 0.8, 0.7, 1.0, 0.7])
    y = np.array([0, 0, 0, 1, 1, 0])
    probs = np.stack([top, 1.0 - top], -1)
    confidence, right, share = metrics.reliability(probs, y, 3, "mass")
    np.testing.assert_allclose(confidence, [0.65, 0.75, 0.95])
    np.testing.assert_allclose(right, [0.5, 1.0, 0.5])
    np.testing.assert_allclose(share, np.full(3, 1 / 3))
    found = metrics.expected_calibration_error(probs, y, 3, "mass")
    np.testing.assert_allclose(found, (0.15 + 0.25 + 0.45) / 3, rtol=EXACT64)
    with pytest.raises(ValueError, match="binning must be one of 'width', 'mass'; got 'masss'"):
        metrics.reliability(probs, y, 3, "masss")


def test_classwise_calibration_error_by_hand():
    """Both classes by ten bins: p = 0.2 (true 1 of 2) and p = 0.8 (true 1 of 2), so 0.3 everywhere."""
    probs = np.array([[0.2, 0.8]] * 2)
    found = metrics.classwise_calibration_error(probs, np.array([0, 1]))
    np.testing.assert_allclose(found, 0.3, rtol=EXACT64)


def test_calibrated_probabilities_have_small_errors(rng):
    """Labels drawn from the probabilities: the error of a bin of n rows is about sqrt(p (1 - p) / n)."""
    probs = rng.dirichlet(np.ones(3), 20_000)
    y = (rng.uniform(size=(20_000, 1)) > probs.cumsum(-1)).sum(-1)
    for binning in metrics.BINNINGS:
        assert metrics.expected_calibration_error(probs, y, binning=binning) < 0.02
        assert metrics.classwise_calibration_error(probs, y, binning=binning) < 0.02
    worse = np.roll(probs, 1, axis=1)
    assert metrics.classwise_calibration_error(worse, y) > 0.2


def test_certain_and_right_is_in_the_last_bin():
    assert metrics.expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_entropy_and_mutual_information(rng):
    """Entropy by SciPy; mutual information as the mean Kullback-Leibler divergence from the mean, by SciPy."""
    draws = rng.dirichlet(np.ones(3), (2, 50, 7))
    draws[0, 0, 0] = [1.0, 0.0, 0.0]
    np.testing.assert_allclose(metrics.predictive_entropy(draws), stats.entropy(draws, axis=-1), rtol=EXACT64)
    weights = np.array([0.2, 0.8])
    mean = np.einsum("c,csbk->bk", weights, draws) / 50
    divergence = special.rel_entr(draws, mean).sum(-1).mean(1)
    found = metrics.mutual_information(draws, weights)
    np.testing.assert_allclose(found, weights @ divergence, rtol=EXACT64)
    np.testing.assert_allclose(metrics.mutual_information(draws[:, :1] * 0 + draws[:1, :1]), 0.0, atol=EXACT64)


def test_out_of_distribution_scores(rng):
    """Two normals two apart: AUROC is Phi(2 / sqrt(2)); 95 % of usual rows lie below 1.645, Phi(-0.355) of others."""
    inside, outside = rng.normal(size=40_000), rng.normal(2.0, 1.0, 40_000)
    found = metrics.out_of_distribution(inside, outside)
    assert abs(found["auroc"] - stats.norm.cdf(np.sqrt(2.0))) < 0.005  # 3 standard errors, sqrt(0.07 / 40,000) each
    assert abs(found["fpr95"] - stats.norm.cdf(1.6449 - 2.0)) < 0.015
    labels, scores = np.repeat([0, 1], 40_000), np.concatenate([inside, outside])
    for name, (positive, score) in {"aupr_out": (labels, scores), "aupr_in": (1 - labels, -scores)}.items():
        precision, recall, _ = sk.precision_recall_curve(positive, score)
        assert abs(found[name] - sk.auc(recall, precision)) < 1e-4  # trapezia in place of steps
    by_hand = metrics.out_of_distribution(np.array([0.0, 1.0]), np.array([0.5, 2.0, 3.0, 4.0]))
    assert by_hand["auroc"] == 7 / 8  # pairs in the right order
    assert by_hand["fpr95"] == 1 / 4  # only 0.5 is not above the largest usual score
    with pytest.raises(ValueError, match=r"outside must be finite scores of shape \(B,\).*1 that are not finite"):
        metrics.out_of_distribution(inside, np.array([np.nan, 0.0]))


def test_risk_coverage_by_hand():
    """Confidences 3 > 2 = 2 > 1: the losses of the two in the middle, 1 and 0, are shared."""
    coverage, risk = metrics.risk_coverage(np.array([2.0, 3.0, 1.0, 2.0]), np.array([1.0, 0.0, 1.0, 0.0]))
    np.testing.assert_allclose(coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(risk, [0.0, 0.25, 1 / 3, 0.5])


def test_crps_of_a_mixture_is_the_integral(rng):
    """The integral of (F(t) - [t >= y])^2 by SciPy's quadrature, with F by SciPy."""
    loc, scale, weights = draw_mixture(rng, 4, (6,))
    y = 3.0 * rng.normal(size=6)
    found = metrics.crps(loc, scale, weights, y)
    for b in range(6):

        def square(t, b=b, step=0.0):
            return (cumulative(t, loc[b], scale[b], weights[b]) - step) ** 2

        reach = np.abs(np.r_[loc[b], y[b]]).max() + 40.0 * scale[b].max()
        inner = np.sort(np.r_[loc[b], loc[b] - 3 * scale[b], loc[b] + 3 * scale[b]])
        below, above = inner[inner < y[b]], inner[inner > y[b]]
        options = {"epsabs": 1e-11, "epsrel": 1e-11, "limit": 200}
        want = integrate.quad(square, -reach, y[b], points=below if len(below) else None, **options)[0]
        want += integrate.quad(square, y[b], reach, args=(b, 1.0), points=above if len(above) else None, **options)[0]
        np.testing.assert_allclose(found[b], want, rtol=0.0, atol=QUADRATURE)


def test_crps_of_a_few_rows_at_a_time_is_the_same(rng, monkeypatch):
    loc, scale, weights = draw_mixture(rng, 5, (7,))
    y = rng.normal(size=7)
    whole = metrics.crps(loc, scale, weights, y)
    monkeypatch.setattr(budgets, "TEMPORARY", 50)
    np.testing.assert_array_equal(metrics.crps(loc, scale, weights, y), whole)


def test_pit_is_the_distribution_function_and_uniform(rng):
    loc, scale, weights = draw_mixture(rng, 3, (2000,))
    k = (rng.uniform(size=(2000, 1)) > weights.cumsum(-1)).sum(-1)
    y = rng.normal(loc[np.arange(2000), k], scale[np.arange(2000), k])
    u = metrics.pit(loc, scale, weights, y)
    want = [cumulative(y[b], loc[b], scale[b], weights[b]) for b in range(2000)]
    np.testing.assert_allclose(u, want, rtol=1e-11)
    assert stats.kstest(u, "uniform").pvalue > 0.01
    assert abs(metrics.coverage(u, 0.8) - 0.8) < 3 * np.sqrt(0.8 * 0.2 / 2000)


def test_regressor_metrics(backend_name, rng):
    """One standard normal per row: errors by scikit-learn, coverage by the quantile 1.645, CRPS by its formula."""
    y = rng.normal(size=500)
    zeros = np.zeros((1, 1, 500, 1))
    prediction = RegressionPrediction(zeros, zeros + 1.0, zeros, load_backend(backend_name))
    found = metrics.evaluate(prediction, y)
    q = 1.6448536269514722
    np.testing.assert_allclose(found["rmse"], sk.root_mean_squared_error(y, np.zeros(500)), rtol=EXACT64)
    np.testing.assert_allclose(found["mae"], sk.mean_absolute_error(y, np.zeros(500)), rtol=EXACT64)
    np.testing.assert_allclose(found["coverage_90"], np.mean(np.abs(y) <= q), rtol=EXACT64)
    np.testing.assert_allclose(found["sharpness_90"], 2 * q, rtol=1e-10)
    np.testing.assert_allclose(found["log_likelihood"], np.mean(-0.5 * y**2 - 0.5 * np.log(2 * np.pi)), rtol=EXACT64)
    crps = y * (2 * stats.norm.cdf(y) - 1) + 2 * stats.norm.pdf(y) - 1 / np.sqrt(np.pi)
    np.testing.assert_allclose(found["crps"], crps.mean(), rtol=EXACT64)


def test_evaluate_takes_fewer_draws_of_a_large_prediction(rng, monkeypatch):
    """With work for 4 draws of 9 the CRPS is that of the draws 0, 3, 5 and 8."""
    loc = rng.normal(size=(2, 9, 5, 1))
    prediction = RegressionPrediction(loc, np.ones_like(loc), np.zeros_like(loc), None)
    monkeypatch.setattr(budgets, "CRPS_WORK", 5 * 8**2)
    few = prediction._few_draws()
    np.testing.assert_array_equal(few.loc, loc[:, [0, 3, 5, 8]])
    monkeypatch.setattr(budgets, "CRPS_WORK", 1e9)
    assert prediction._few_draws() is prediction


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, np.nan])
def test_quantiles_outside_the_unit_interval_are_refused(backend_name, q):
    zeros = np.zeros((1, 1, 2, 1))
    with pytest.raises(ValueError, match=r"q must lie in \(0, 1\); got"):
        RegressionPrediction(zeros, zeros + 1.0, zeros, load_backend(backend_name)).quantile(q)
