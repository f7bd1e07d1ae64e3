"""`fit` and `Fit`: settings, seeds, predictions, interruption, failure, saving."""

import itertools

import numpy as np
import pytest
from conftest import backend_params, needs_both
from scipy import integrate, stats
from sklearn.datasets import load_iris
from sklearn.model_selection import train_test_split
from tolerances import EXACT64, PARITY, QUADRATURE

import ugmm_ppl as up

pytestmark = pytest.mark.usefixtures("quick_compiler")

QUICK = {"num_steps": 60, "progress": False}


def iris():
    """Stratified 70/30 split."""
    x, y = load_iris(return_X_y=True)
    return train_test_split(x, y, test_size=0.3, stratify=y, random_state=0)


@pytest.fixture(scope="module", params=backend_params())
def classifier(request):
    """A quick fit to Iris, and its test rows."""
    x, x_test, y, y_test = iris()
    fit = up.fit(up.Classifier(up.Network((4, 8)), 3), x, y, backend=request.param, **QUICK)
    return fit, x_test, y_test


@pytest.fixture(scope="module", params=backend_params())
def regressor(request):
    """A quick fit to a line in awkward units, and rows to predict."""
    rng = np.random.default_rng(0)
    x = rng.uniform(10.0, 20.0, (80, 2))
    y = 1000.0 * x[:, 0] - 300.0 * x[:, 1] + rng.normal(0.0, 500.0, 80)
    model = up.Regressor(up.Network((2, 6)), components=2)
    fit = up.fit(model, x, y, backend=request.param, num_steps=300, learning_rate=0.03, progress=False)
    return fit, x[:9], y[:9]


def test_iris_reaches_95_percent(backend_name):
    x, x_test, y, y_test = iris()
    model = up.Classifier(up.Network((4, 16)), 3)
    fit = up.fit(model, x, y, backend=backend_name, num_steps=1500, learning_rate=0.02, progress=False)
    assert (fit.predict(x_test).label == y_test).mean() >= 0.95


def test_the_same_seed_gives_the_same_fit_twice(backend_name):
    x, x_test, y, _ = iris()
    model = up.Classifier(up.Network((4, 8), dropout=0.2), 3)
    settings = {"backend": backend_name, "batch_size": 32, **QUICK}
    one, two, other = (up.fit(model, x, y, seed=seed, **settings) for seed in (1, 1, 2))
    np.testing.assert_array_equal(one.losses, two.losses)
    np.testing.assert_array_equal(one.predict(x_test).probs, two.predict(x_test).probs)
    assert not np.array_equal(one.losses, other.losses)


def test_fit_leaves_the_random_state_of_the_user_alone(backend_name):
    x, _, y, _ = iris()
    state = np.random.get_state()[1].copy()
    if backend_name == "pyro":
        import torch

        torch_state = torch.get_rng_state()
    up.fit(up.Classifier(up.Network((4, 8)), 3), x, y, backend=backend_name, **QUICK)
    np.testing.assert_array_equal(np.random.get_state()[1], state)
    if backend_name == "pyro":
        import pyro

        assert torch.equal(torch.get_rng_state(), torch_state)
        assert len(pyro.get_param_store()) == 0
        assert torch.get_default_dtype() == torch.float32


@needs_both
@pytest.mark.parametrize("kind", ["classifier", "regressor"])
def test_draws_of_one_backend_predict_the_same_in_the_other(kind):
    """The same parameters, two backends: equal outputs, log likelihood and predictions in float64."""
    x, x_test, y, y_test = iris()
    model = up.Classifier(up.Network((4, 6, 5)), 3) if kind == "classifier" else up.Regressor(up.Network((4, 6, 5)), 2)
    y, y_test = (y, y_test) if kind == "classifier" else (x[:, 0] * 2.0, x_test[:, 0] * 2.0)
    one, two = (up.fit(model, x, y, backend=b, method="map", dtype="float64", **QUICK) for b in ("pyro", "numpyro"))
    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-6)  # same start, same steps: only rounding grows
    two.state = one.state
    np.testing.assert_allclose(one.outputs(x_test), two.outputs(x_test), rtol=PARITY, atol=PARITY)
    np.testing.assert_allclose(one.log_likelihood(x_test, y_test), two.log_likelihood(x_test, y_test), rtol=PARITY)
    np.testing.assert_allclose(one.log_p(), two.log_p(), rtol=PARITY)
    a, b = one.predict(x_test), two.predict(x_test)
    np.testing.assert_allclose(a.log_density(y_test), b.log_density(y_test), rtol=PARITY)
    if kind == "regressor":
        np.testing.assert_allclose(a.quantile(0.3), b.quantile(0.3), rtol=PARITY)


def test_prediction_shapes_and_probabilities(classifier):
    fit, x, y = classifier
    prediction = fit.predict(x, num_draws=7)
    assert prediction.draws.shape == (1, 7, len(x), 3)
    np.testing.assert_allclose(prediction.probs.sum(-1), 1.0, rtol=1e-6)
    mean = np.exp(fit.log_likelihood(x, y, 7)).mean((0, 1))
    np.testing.assert_allclose(prediction.log_density(y), np.log(mean), rtol=1e-5)  # float32 probabilities


def test_prediction_does_not_depend_on_the_chunk(classifier):
    fit, x, _ = classifier
    whole = fit.outputs(x, num_draws=3)
    np.testing.assert_allclose(fit.outputs(x, num_draws=3, chunk_size=7), whole, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(fit.posterior(5)["layers.0.loc"][:, :3], fit.posterior(3)["layers.0.loc"])


def test_posterior_has_every_site_and_derived_ones_on_request(classifier):
    fit, _, _ = classifier
    draws = fit.posterior(4, derived=True)
    shapes = {name: value.shape for name, value in draws.items()}
    assert shapes == {
        **{f"layers.0.{role}": (1, 4, 8, 4) for role in ("loc", "log_scale", "logits", "scale", "weights")},
        "readout.weight": (1, 4, 3, 8),
        "readout.bias": (1, 4, 3),
    }
    np.testing.assert_allclose(draws["layers.0.weights"].sum(-1), 1.0, rtol=1e-5)
    np.testing.assert_allclose(draws["layers.0.scale"], np.exp(draws["layers.0.log_scale"]), rtol=1e-6)


def test_log_q_is_the_density_of_the_guide(classifier):
    fit, _, _ = classifier
    draws, state = fit.posterior(5), fit.state[0]
    expected = sum(
        stats.norm.logpdf(value, state[f"{name}:loc"], np.exp(state[f"{name}:log_scale"])).reshape(1, 5, -1).sum(-1)
        for name, value in draws.items()
    )
    np.testing.assert_allclose(fit.log_q(5), expected, rtol=1e-4)  # a float32 sum over 91 entries


def test_restarts_become_chains(backend_name):
    x, x_test, y, _ = iris()
    fit = up.fit(up.Classifier(up.Network((4, 8)), 3), x, y, backend=backend_name, num_restarts=2, **QUICK)
    assert fit.losses.shape == (2, 60)
    draws = fit.posterior(3)["layers.0.loc"]
    assert draws.shape[:2] == (2, 3)
    assert not np.allclose(fit.state[0]["layers.0.loc:loc"], fit.state[1]["layers.0.loc:loc"])
    assert fit.predict(x_test, num_draws=3).draws.shape == (2, 3, len(x_test), 3)


def test_regression_density_is_normalised_and_in_the_units_of_the_data(regressor):
    fit, x, y = regressor
    one = fit.predict(x[:1], num_draws=4)
    at = one.mean[0] + one.std[0] * np.linspace(-12.0, 12.0, 40)
    total = sum(
        integrate.quad(lambda v: np.exp(one.log_density(np.array([v]))[0]), low, high, epsabs=1e-10)[0]
        for low, high in itertools.pairwise(at)
    )
    assert abs(total - 1.0) < 100 * QUADRATURE  # twelve standard deviations leave out tails of heavier mixtures
    prediction = fit.predict(x, num_draws=4)
    np.testing.assert_allclose(
        prediction.log_density(y), np.log(np.exp(fit.log_likelihood(x, y, 4)).mean((0, 1))), rtol=1e-5
    )
    assert np.abs(prediction.mean - y).mean() < 2000.0  # in units of y, whose spread is 3000


def test_regression_quantiles_moments_and_samples_agree(regressor):
    fit, x, _ = regressor
    prediction = fit.predict(x, num_draws=10)
    levels = np.array([0.05, 0.5, 0.95])
    for level, value in zip(levels, prediction.quantile(levels), strict=True):
        np.testing.assert_allclose(prediction.cdf(value), level, rtol=EXACT64 * 1e3)
    np.testing.assert_array_equal(prediction.quantile(0.5), prediction.quantile(levels)[1])
    samples = prediction.samples(20000, seed=1)
    standard_error = prediction.std / np.sqrt(20000)
    assert np.abs((samples.mean(0) - prediction.mean) / standard_error).max() < 5.0
    np.testing.assert_allclose(samples.std(0), prediction.std, rtol=0.05)
    assert prediction.draws.shape == (1, 10, len(x))


def test_a_shift_and_scale_of_the_data_changes_nothing_but_units(backend_name):
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(50, 2)), rng.normal(size=50)
    model = up.Regressor(up.Network((2, 5)), 2)
    settings = {"backend": backend_name, "dtype": "float64", **QUICK}
    plain = up.fit(model, x, y, **settings).predict(x, num_draws=5)
    moved = up.fit(model, 5.0 + 100.0 * x, 7.0 + 1000.0 * y, **settings).predict(5.0 + 100.0 * x, num_draws=5)
    np.testing.assert_allclose(moved.mean, 7.0 + 1000.0 * plain.mean, rtol=1e-6)
    np.testing.assert_allclose(moved.log_density(7.0 + 1000.0 * y), plain.log_density(y) - np.log(1000.0), rtol=1e-6)


@pytest.mark.parametrize("method", ["svi", "map", "nuts"])
def test_save_and_load_predict_the_same_without_data(backend_name, method, tmp_path):
    x, x_test, y, _ = iris()
    prior = up.Prior(scale=up.dist.LogNormal(-0.5, 0.5), layers={0: {"loc": up.dist.Normal(np.zeros((3, 4)), 2.0)}})
    model = up.Classifier(up.Network((4, 3), dropout=0.1 if method == "svi" else 0.0), 3, prior)
    settings = (
        {"num_chains": 2, "num_warmup": 5, "num_draws": 6, "max_tree_depth": 3}
        if method == "nuts"
        else {"num_steps": 20}
    )
    fit = up.fit(model, x, y, backend=backend_name, method=method, progress=False, **settings)
    fit.save(tmp_path / "fit.npz")
    with np.load(tmp_path / "fit.npz", allow_pickle=False) as file:  # object arrays would need pickle
        assert all(file[name].dtype != object for name in file.files)
    loaded = up.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(loaded.predict(x_test).probs, fit.predict(x_test).probs)
    np.testing.assert_array_equal(loaded.losses, fit.losses)
    assert loaded.model.network == model.network
    with pytest.raises(ValueError, match="loaded from a file"):
        loaded.log_likelihood()
    assert loaded.log_likelihood(x, y).shape[2] == len(x)


def test_a_callable_prior_is_not_stored_and_load_says_so(backend_name, tmp_path):
    def spike(backend, name, shape):
        sd = backend.sample(f"{name}.sd", backend.build(up.dist.HalfNormal(1.0), ()))
        return backend.sample(name, backend.dist.Normal(0.0 * sd, sd).expand(shape).to_event(len(shape)))

    x, x_test, y, _ = iris()
    model = up.Classifier(up.Network((4, 3)), 3, up.Prior(loc=spike))
    fit = up.fit(model, x, y, backend=backend_name, **QUICK)
    assert fit.posterior(3)["layers.0.loc.sd"].shape == (1, 3)
    fit.save(tmp_path / "fit.npz")
    with pytest.raises(ValueError, match=r"callable 'spike', which is not stored.*model="):
        up.load(tmp_path / "fit.npz")
    loaded = up.load(tmp_path / "fit.npz", model=model)
    np.testing.assert_array_equal(loaded.predict(x_test).probs, fit.predict(x_test).probs)


def test_load_refuses_other_files(tmp_path):
    (tmp_path / "no.npz").write_bytes(b"not a fit")
    with pytest.raises(ValueError, match=r"must be a file written by Fit\.save"):
        up.load(tmp_path / "no.npz")
    with pytest.raises(FileNotFoundError):
        up.load(tmp_path / "absent.npz")


def test_prediction_checks_its_input_too(classifier):
    fit, x, _ = classifier
    with pytest.raises(ValueError, match=r"x must have 4 columns"):
        fit.predict(x[:, :2])
    with pytest.raises(ValueError, match=r"num_draws must be at least 1"):
        fit.predict(x, num_draws=0)
    with pytest.raises(ValueError, match=r"log_q needs method='svi' or 'laplace'; this fit is by 'map'"):
        up.fit(fit.model, x, np.zeros(len(x), int), backend=fit.backend, method="map", **QUICK).log_q()


def test_a_constant_column_is_kept_with_a_warning(backend_name):
    x = np.random.default_rng(0).normal(size=(20, 3))
    x[:, 1] = 0.1
    with pytest.warns(UserWarning, match=r"1 of 3 columns of x have zero variance \(b\); they are kept, with scale 1"):
        fit = up.fit(
            up.Regressor(up.Network((3, 4)), 1),
            x,
            x[:, 0],
            backend=backend_name,
            feature_names=["a", "b", "c"],
            **QUICK,
        )
    assert fit.x_units.scale[1] == 1.0
    assert np.isfinite(fit.predict(x).mean).all()


def test_dropout_and_nuts_do_not_go_together(backend_name):
    model = up.Classifier(up.Network((4, 3), dropout=0.1), 3)
    with pytest.raises(ValueError, match=r"needs a network without dropout; got dropout=\(0\.1,\)"):
        up.fit(model, np.eye(4), [0, 1, 2, 0], backend=backend_name, method="nuts", progress=False)


def test_derived_values_leave_out_what_a_callable_means(backend_name):
    """The site of a non-centred prior holds a standardised value, whose exponential is no scale."""

    def non_centred(backend, name, shape):
        return 0.1 * backend.sample(name, backend.build(up.dist.Normal(0.0, 1.0), shape)) - 3.0

    x, _, y, _ = iris()
    model = up.Classifier(up.Network((4, 3)), 3, up.Prior(log_scale=non_centred))
    draws = up.fit(model, x, y, backend=backend_name, **QUICK).posterior(2, derived=True)
    assert "layers.0.weights" in draws
    assert "layers.0.scale" not in draws


def test_a_density_is_asked_for_the_right_targets(classifier, regressor):
    prediction = classifier[0].predict(classifier[1], num_draws=2)
    with pytest.raises(ValueError, match=r"y must have one value per row of x, 45; got 1"):
        prediction.log_density([0])
    with pytest.raises(ValueError, match=r"y must lie in 0\.\.2 \(classes=3\); got -1"):
        prediction.log_density(np.full(45, -1))
    prediction = regressor[0].predict(regressor[1], num_draws=2)
    assert prediction.log_density(regressor[2][:, None]).shape == (9,)
    with pytest.raises(ValueError, match=r"y must have one value per row of x, 9; got 2"):
        prediction.cdf([0.0, 1.0])


def test_a_certain_and_wrong_class_has_a_finite_log_density():
    outputs = np.array([[[[0.0, 200.0]]]], dtype=np.float32)
    prediction = up.Classifier(up.Network((2, 2)), 2).likelihood.prediction(outputs, None, None)
    np.testing.assert_allclose(prediction.log_density([0]), -200.0, rtol=1e-6)


def test_nuts_of_a_few_draws(backend_name):
    x, _, y, _ = iris()
    settings = {
        "method": "nuts",
        "num_chains": 1,
        "num_warmup": 2,
        "num_draws": 2,
        "max_tree_depth": 1,
        "progress": False,
    }
    fit = up.fit(up.Classifier(up.Network((4, 2)), 3), x, y, backend=backend_name, **settings)
    assert fit.stats["diverging"].shape == (1, 2)
