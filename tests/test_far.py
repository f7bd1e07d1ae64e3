"""Inputs, targets and evidence far from everything: answers are finite or say so by name, probabilities sum to one."""

import warnings

import numpy as np
import pytest
from helpers import bound, gradients, refused
from tolerances import EXACT64, NETWORK32, ORACLE32

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.circuit import CircuitDensity
from ugmm_ppl.latent import checks as latent_checks
from ugmm_ppl.latent.evidence import combine
from ugmm_ppl.nn.norm import layer_norm
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.posterior.weighing import elbo_weights, stacking_weights

X = np.random.default_rng(5).normal(size=(80, 3))
Y = (X[:, 0] > 0.0).astype(int)
FILL = [1e15, -1e20, 9.96921e36, 1e39, -1e300]
"""The third is netCDF's; the last two are no float32 numbers."""

Y_GIVEN_X = {
    "linear": up.Classifier(up.Network((3, 5)), classes=2),
    "deep": up.Classifier(up.Network((3, 5, 4)), classes=2),
    "paper": up.Classifier(up.Network.paper((3, 5)), classes=2),
    "score": up.JointScore(up.Network.paper((4, 5)), classes=2),
    "real": up.Regressor(up.Network((3, 5)), components=2),
}
DENSITIES = {
    "circuit": up.Circuit(3, classes=2, neurons=4),
    "latent": up.LatentNetwork((2, 3), classes=2, encoder_widths=(4,)),
}
FAR = pytest.mark.filterwarnings("ignore:x should be at most")


def fitted(model, backend, **settings):
    """A short fit."""
    target = X[:, 1] if isinstance(model, up.Regressor) else Y
    common = {"backend": backend, "num_steps": 3, "progress": False, "seed": 1}
    return up.fit(model, settings.pop("x", X), target, **(common | settings))


def far_rows(columns=slice(None)):
    """One row for every fill value, in some columns."""
    rows = X[: len(FILL)].copy()
    rows[:, columns] = np.array(FILL)[:, None]
    return rows


@pytest.mark.long
@FAR
@pytest.mark.parametrize("columns", [slice(None), slice(1, 2)], ids=["all", "one"])
@pytest.mark.parametrize("name", Y_GIVEN_X)
def test_predictions_are_finite(backend_name, quick_compiler, name, columns):
    fit = fitted(Y_GIVEN_X[name], backend_name)
    rows = far_rows(columns)
    prediction = fit.predict(rows, num_draws=3)
    if name == "real":
        answers = (prediction.mean, prediction.std, prediction.quantile(0.9), prediction.log_density(rows[:, 0] * 0.0))
        assert all(np.isfinite(a).all() for a in answers)
        target = X[: len(rows), 1]
    else:
        np.testing.assert_allclose(prediction.probs.sum(1), 1.0, rtol=EXACT64)
        target = Y[: len(rows)]
        sampled = fit.sample_predictive(rows, num_draws=3)
        assert set(np.unique(sampled)) <= {0, 1}
    log_likelihood = fit.log_likelihood(rows, target, num_draws=3)
    assert not np.isnan(log_likelihood).any()
    if name != "real":
        picked = np.take_along_axis(prediction.draws, target[:, None] + np.zeros((1, 3, 1, 1), int), -1)[..., 0]
        np.testing.assert_allclose(np.exp(log_likelihood), picked, rtol=EXACT64)


@FAR
@pytest.mark.parametrize("name", Y_GIVEN_X)
def test_training_with_such_rows_stays_finite(backend_name, quick_compiler, name):
    x = X.copy()
    x[3], x[7, 1] = 9.96921e36, -1e300
    fit = fitted(Y_GIVEN_X[name], backend_name, x=x, standardize=False)
    assert np.isfinite(fit.losses).all()
    assert all(np.isfinite(value).all() for value in fit.posterior(2).values())


@FAR
def test_classes_count_alike_where_none_is_possible(backend_name, quick_compiler):
    fit = fitted(Y_GIVEN_X["paper"], backend_name)
    np.testing.assert_array_equal(fit.predict(np.full((1, 3), 1e20), num_draws=2).probs, [[0.5, 0.5]])


def test_a_warning_names_row_column_and_value(backend_name, quick_compiler):
    fit = fitted(Y_GIVEN_X["linear"], backend_name)
    x = X[:9].copy()
    x[7, 2] = -9.96921e36
    with pytest.warns(UserWarning, match=r"x should .* got -9.96921e\+36 in row 7, column 2, .* \(1 such values\)"):
        whole = fit.predict(x, num_draws=2).probs
    with pytest.warns(UserWarning, match="in row 7, column 2"):
        streamed = [p.probs for p in fit.predict_iter(x, num_draws=2, chunk_size=4)]
    np.testing.assert_allclose(np.concatenate(streamed), whole, rtol=NETWORK32)
    with pytest.warns(UserWarning, match="in row 7, column 2"):
        fit.log_likelihood(x, Y[:9], num_draws=2)
    with pytest.warns(UserWarning, match="in row 7, column 2"):
        fitted(Y_GIVEN_X["linear"], backend_name, x=np.vstack([x, X[9:]]), standardize=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fit.predict(np.full((1, 3), 1e15), num_draws=2)


@pytest.mark.long
@pytest.mark.parametrize("name", DENSITIES)
def test_a_density_refuses_them_by_name(backend_name, quick_compiler, name):
    """Where there is no density there is nothing to fit and nothing to condition on."""
    model = DENSITIES[name]
    x = X.copy()
    x[6, 1] = 1e39
    with refused(ValueError, "x", "1e+39", "row 6, column 1"):
        fitted(model, backend_name, x=x, standardize=False)
    fit = fitted(model, backend_name)
    with refused(ValueError, "x", "1e+39", "row 6, column 1"):
        fit.predict(x, num_draws=2)


def test_far_targets(backend_name, quick_compiler):
    """One has density zero; a fit to it is refused."""
    fit = fitted(Y_GIVEN_X["real"], backend_name)
    y = np.array([1e39, -1e300, 1e155, 1e20])
    prediction = fit.predict(X[:4], num_draws=2)
    for found in (prediction.log_density(y), fit.log_likelihood(X[:4], y, num_draws=2)):
        assert np.isneginf(found[..., 1:3]).all()
        assert (found[..., [0, 3]] < -1e30).all()
    np.testing.assert_allclose(prediction.cdf(y), [1.0, 0.0, 1.0, 1.0], rtol=EXACT64)
    x, target = X[:8], X[:8, 1].copy()
    target[5] = 1e39
    with refused(ValueError, "y", "1e+39", "row 5"):
        up.fit(Y_GIVEN_X["real"], x, target, backend=backend_name, num_steps=2, standardize=False, progress=False)


@pytest.mark.parametrize("value", [1e6, 1e8, 1e9, 1e15, 1e100])
def test_far_evidence_of_a_circuit(value):
    """Posteriors of classes and of states, and what is made of them, are normalised at any distance."""
    model = up.Circuit(3, classes=2, neurons=4)
    rng = np.random.default_rng(1)
    density = CircuitDensity(model, {name: rng.normal(size=(3, *shape)) for name, shape in model.shapes().items()})
    rows = np.array([[value, np.nan, np.nan], [0.3, -value, np.nan]])
    np.testing.assert_allclose(density.posterior_class(rows).sum(1), 1.0, rtol=EXACT64)
    states = np.exp(density.log_leaf_states(rows, np.full(2, -1)))  # (S, L, B, J)
    features = model.all_leaves.features
    for feature in range(3):
        np.testing.assert_allclose(states[:, features == feature].sum((0, 1, 3)), 1.0, rtol=1e-10)
    conditional = density.conditional(rows)
    loc = density.natural["loc"]
    assert (conditional.mean[:, 2] >= loc.min()).all() and (conditional.mean[:, 2] <= loc.max()).all()
    np.testing.assert_allclose(conditional.mixture(2).weights.sum(1), 1.0, rtol=EXACT64)
    drawn = density.conditional_sample(rows, 200, seed=0)[:, :, 2]
    assert np.isfinite(drawn).all()
    spread = conditional.std[:, 2] / np.sqrt(200)
    assert (np.abs(drawn.mean(0) - conditional.mean[:, 2]) < 5.0 * spread).all()


@pytest.mark.parametrize("value", [1e6, 1e9, 1e15])
def test_far_evidence_of_a_latent_network(backend_name, value):
    fit = fitted(DENSITIES["latent"], backend_name, standardize=False)
    rows = np.array([[value, 0.1, 0.2], [0.1, 0.2, 0.3]])
    sampling = {"num_samples": 20, "num_draws": 2}
    np.testing.assert_allclose(fit.posterior_class(rows, **sampling).sum(1), 1.0, rtol=EXACT64)
    assert all(np.isfinite(a).all() for a in (*fit.encode(rows, **sampling), fit.reconstruct(rows, **sampling)))
    evidence = fit.log_evidence(rows, **sampling)
    assert np.isfinite(evidence.value).all()
    assert not np.isnan(evidence.error).any()


def test_evidence_without_a_possible_sample():
    """Its value is -inf, and its error unknown; averages over such samples are refused by row."""
    log_w = np.array([[[-1.0, -np.inf], [-2.0, -np.inf]]])  # one draw, two samples, two rows
    found = combine(log_w, np.zeros(1))
    np.testing.assert_allclose(found.value, [np.logaddexp(-1.0, -2.0) - np.log(2.0), -np.inf], rtol=EXACT64)
    assert found.error[1] == np.inf
    assert found.ess[1] == 0.0
    with refused(ValueError, "at least one sample", "row 1 has none"):
        latent_checks.possible(log_w[0].max(0))


def test_weights_where_nothing_is_possible():
    """Restarts without a step, and rows that no restart reaches, prefer none of them."""
    np.testing.assert_array_equal(elbo_weights(np.full((2, 3), np.nan)), [0.5, 0.5])
    log_densities = np.log([[0.6, 0.5], [0.2, 0.5]])
    impossible = np.column_stack([log_densities, [-np.inf, -np.inf]])
    assert stacking_weights(impossible).argmax() == stacking_weights(log_densities).argmax()
    np.testing.assert_allclose(stacking_weights(impossible).sum(), 1.0, rtol=EXACT64)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_norm_of_anything(backend_name, dtype):
    """Against NumPy's long double, whose squares do not overflow; and -inf as a number that low."""
    backend = load_backend(backend_name)
    largest = 1e37 if dtype == "float32" else 1e307
    rows = np.array([[-1.0, 2.0, 0.5], [-1e18, -3e18, -2e18], [-largest, -0.5 * largest, -0.1 * largest]], dtype)
    rows = np.vstack([rows, [[-np.inf] * 3, [-np.inf, 1.0, 2.0], [-largest] * 3]]).astype(dtype)
    with backend.settings(dtype=dtype, device="cpu"):
        got = bound(backend, layer_norm)(rows)
        _, grads = gradients(backend, lambda h: layer_norm(backend.ops, h)[..., 0].sum(), [rows])
    assert got.dtype == dtype
    precise = rows[:3].astype(np.longdouble)
    centred = precise - precise.mean(-1, keepdims=True)
    unit = np.abs(centred).max(-1, keepdims=True)
    want = (centred / unit) / np.sqrt(((centred / unit) ** 2).mean(-1, keepdims=True) + 1e-5 / unit / unit)
    np.testing.assert_allclose(got[:3], want.astype(np.float64), atol=ORACLE32 if dtype == "float32" else EXACT64)
    pattern = [-np.sqrt(2.0), np.sqrt(0.5), np.sqrt(0.5)]
    np.testing.assert_allclose(got[3:], [[0.0] * 3, pattern, [0.0] * 3], atol=ORACLE32)
    assert np.isfinite(grads[0]).all()


def test_layer_norm_passes_nan_on():
    assert np.isnan(layer_norm(NUMPY, np.array([1.0, np.nan]))).all()


@pytest.mark.filterwarnings("ignore:x should be at most")
def test_outputs_that_overflow_are_refused_by_row(backend_name, quick_compiler):
    """Without normalisation the second layer is -inf, and the linear readout of that is no number."""
    fit = fitted(up.Classifier(up.Network((3, 5, 4), normalization=None), classes=2), backend_name)
    x = X[:4].copy()
    x[2] = 1e30
    with refused(ValueError, "outputs", "row 2", "normalization='layer'"):
        fit.predict(x, num_draws=2)
    with refused(ValueError, "row 2"):
        list(fit.predict_iter(x, num_draws=2, chunk_size=1))
