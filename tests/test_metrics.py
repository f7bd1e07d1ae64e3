"""Metrics against scikit-learn, or a value worked out by hand."""

import numpy as np
import pytest
from sklearn import metrics as sk
from tolerances import EXACT64

from ugmm_ppl import metrics
from ugmm_ppl.backend import load_backend
from ugmm_ppl.prediction import ClassPrediction, RegressionPrediction


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


def test_certain_and_right_is_in_the_last_bin():
    assert metrics.expected_calibration_error(np.array([[1.0, 0.0]]), np.array([0])) == 0.0


def test_regressor_metrics(backend_name, rng):
    """One standard normal per row: RMSE by scikit-learn, coverage by the normal quantile 1.645."""
    y = rng.normal(size=500)
    zeros = np.zeros((1, 1, 500, 1))
    prediction = RegressionPrediction(zeros, zeros + 1.0, zeros, load_backend(backend_name))
    found = metrics.evaluate(prediction, y)
    np.testing.assert_allclose(found["rmse"], sk.root_mean_squared_error(y, np.zeros(500)), rtol=EXACT64)
    np.testing.assert_allclose(found["coverage_90"], np.mean(np.abs(y) <= 1.6448536269514722), rtol=EXACT64)
    np.testing.assert_allclose(found["log_likelihood"], np.mean(-0.5 * y**2 - 0.5 * np.log(2 * np.pi)), rtol=EXACT64)


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, np.nan])
def test_quantiles_outside_the_unit_interval_are_refused(backend_name, q):
    zeros = np.zeros((1, 1, 2, 1))
    with pytest.raises(ValueError, match=r"q must lie in \(0, 1\); got"):
        RegressionPrediction(zeros, zeros + 1.0, zeros, load_backend(backend_name)).quantile(q)
