"""What `diagnose` says of fits that are healthy, and of fits that were broken on purpose."""

import arviz as az
import numpy as np
import pytest
from conftest import INSTALLED, backend_params, compiling_quickly
from helpers import refused
from scipy import stats
from sklearn.datasets import load_diabetes, load_iris

import ugmm_ppl as up
from ugmm_ppl import arviz
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.diagnostics import align, chains, data, diagnose, importance, structure
from ugmm_ppl.diagnostics.subject import Subject
from ugmm_ppl.models import evaluation

pytestmark = pytest.mark.usefixtures("quick_compiler")

D = up.dist
X, Y = load_iris(return_X_y=True)
SETTINGS = {"num_steps": 600, "learning_rate": 0.04, "progress": False}
BACKEND = "pyro" if INSTALLED["pyro"] else "numpyro"


def iris(x=X, y=Y, *, prior=None, **changes):
    """A fit of Iris; what training reached where it stopped."""
    model = up.Classifier(up.Network((x.shape[1], 4)), 3, prior=prior or up.Prior(readout=D.Normal(0.0, 1.0)))
    try:
        return up.fit(model, x, y, **{"backend": BACKEND} | SETTINGS | changes)
    except up.NonFiniteError as error:
        return error.fit


def shuffled(y, share=0.3):
    """The labels with some of them permuted among each other."""
    rng = np.random.default_rng(0)
    y, some = y.copy(), rng.permutation(len(y))[: int(share * len(y))]
    y[some] = y[rng.permutation(some)]
    return y


WIDE = up.Prior(
    loc=D.Normal(0.0, 100.0), log_scale=D.Normal(-0.5, 50.0), logits=D.Normal(0.0, 100.0), readout=D.Normal(0.0, 100.0)
)

BROKEN = {
    "learning rate": {"learning_rate": 3.0},
    "prior width": {"prior": WIDE},
    "ELBO convergence": {"num_steps": 50},
    "guide moved": {"learning_rate": 1e-7},
    "duplicated inputs": {"x": np.c_[X, 2.0 * X[:, 0] - 1.0]},
    "label noise": {"y": shuffled(Y)},
}


ALSO = {"prior width": {"prior predictions", "ELBO convergence", "learning rate"}}
"""Other checks that may find the same cause."""


@pytest.fixture(scope="module", params=backend_params())
def healthy(request):
    """Two restarts that learnt Iris."""
    with compiling_quickly():
        return iris(backend=request.param, num_restarts=2)


@pytest.mark.parametrize("cause", BROKEN)
def test_the_cause_is_named(cause):
    """One thing is wrong, and it is that; a prior far too wide is seen in its predictions too."""
    found = diagnose(iris(**BROKEN[cause]), num_draws=100)
    assert cause in found.problems
    assert set(found.problems) - {cause} <= ALSO.get(cause, set())
    assert not found.healthy
    assert found[cause].advice
    assert f"problem: {cause}." in str(found)


def test_a_healthy_fit_is_healthy(healthy):
    found = diagnose(healthy)
    assert found.healthy, str(found)
    assert str(found).startswith("healthy")
    assert {line.verdict for line in found} <= {"good", "note"}
    assert found["R-hat of parameters"].advice.startswith("Not meaningful")
    assert "further steps gain" in found["ELBO convergence"].shown
    with refused(ValueError, "name must be one of", "Did you mean 'learning rate'"):
        found["learning rates"]


def test_a_healthy_regressor_is_healthy(backend_name):
    """Diabetes: noisy targets, and a wide component, are no shuffled rows."""
    x, y = load_diabetes(return_X_y=True)
    prior = up.Prior(log_scale=D.Normal(1.0, 0.5), readout=D.Normal(0.0, 0.2))
    model = up.Regressor(up.Network((10, 4)), 2, prior=prior)
    fit = up.fit(model, x, y, backend=backend_name, **SETTINGS)
    found = fit.diagnose(num_draws=100)
    assert found.healthy, str(found)
    assert not fit.diagnose(num_draws=100, more_steps=False).problems


def test_without_data_and_for_a_point(healthy, tmp_path):
    """A loaded fit says which checks need data, and makes them when it gets them."""
    healthy.save(tmp_path / "fit.npz")
    loaded = up.load(tmp_path / "fit.npz")
    found = diagnose(loaded, num_draws=100)
    assert found.healthy
    assert found["ELBO convergence"].verdict == found["LOO"].verdict == "not computed"
    assert "give x and y" in found["LOO"].advice
    assert found["guide moved"].verdict == "good"
    again = diagnose(loaded, healthy.train_x, healthy.train_y, num_draws=100, more_steps=False)
    assert again["LOO"].value == diagnose(healthy, num_draws=100, more_steps=False)["LOO"].value
    assert "too few for a tail" in diagnose(healthy, num_draws=20, more_steps=False)["LOO"].advice
    point = diagnose(iris(method="map", num_steps=300, backend=healthy.backend))
    assert "held-out rows" in point["LOO"].advice


def test_the_table_escapes_what_comes_from_the_data():
    names = ["<script>alert(1)</script>", "b", "c", "d", "e"]
    fit = iris(np.c_[X, X[:, 0]], feature_names=names, num_steps=50)
    html = diagnose(fit, num_draws=2, more_steps=False)._repr_html_()
    assert "<script>" not in html
    assert "&lt;script&gt;" in html


# Importance sampling


def test_k_hat_of_a_known_tail():
    """Ratios of a Pareto tail of shape k; ArviZ's k is within three errors, (1 + k) / sqrt(3 sqrt(S))."""
    rng = np.random.default_rng(1)
    for k in (0.3, 0.9):
        ratios = np.log(stats.genpareto.ppf(rng.uniform(size=20_000), k) + 1.0)
        found = importance.k_hat(ratios)
        assert abs(found - k) < 3 * (1 + k) / np.sqrt(3 * np.sqrt(20_000)), k
    assert importance.k_hat(np.zeros(100)) == -np.inf


def test_corrected_loo_of_a_wrong_guide_is_the_exact_one():
    """Normal mean with known variance: draws from a guide that is off, and the closed form of each row left out."""
    rng = np.random.default_rng(2)
    y = rng.normal(0.7, 1.0, 30)
    posterior = stats.norm(y.sum() / 31, 1 / np.sqrt(31))  # prior N(0, 1)
    guide = stats.norm(posterior.mean() + 0.1, 1.3 * posterior.std())
    theta = guide.rvs((2, 4000), random_state=rng)
    pointwise = stats.norm.logpdf(y, theta[..., None], 1.0)
    log_ratio = stats.norm.logpdf(theta) + pointwise.sum(-1) - guide.logpdf(theta)
    others = y.sum() - y
    want = stats.norm.logpdf(y, others / 30, np.sqrt(1 + 1 / 30))
    found = importance.loo(pointwise, log_ratio)
    np.testing.assert_allclose(found.pointwise, want, atol=0.02)  # 8,000 draws, weights of variance below 1
    assert abs(found.elpd - want.sum()) < 0.05
    assert found.pareto_k.max() < 0.7
    naive = importance.loo(pointwise)
    assert abs(naive.elpd - want.sum()) > 4 * abs(found.elpd - want.sum())


def test_the_formula_is_arvizs(monkeypatch):
    """Where ArviZ has `loo_approximate_posterior`, the formula that stands for it elsewhere gives the same."""
    if not hasattr(az, "loo_approximate_posterior"):
        pytest.skip(f"ArviZ {az.__version__} has no loo_approximate_posterior")
    rng = np.random.default_rng(3)
    pointwise, log_ratio = rng.normal(size=(2, 500, 7)), rng.normal(size=(2, 500))
    theirs = importance.loo(pointwise, log_ratio)
    monkeypatch.setattr(arviz, "loo_approximate_posterior", lambda *_: None)
    ours = importance.loo(pointwise, log_ratio)
    np.testing.assert_allclose(ours.pointwise, theirs.pointwise, rtol=1e-10)
    np.testing.assert_allclose(ours.pareto_k, theirs.pareto_k, rtol=1e-10)


@pytest.mark.long
@pytest.mark.skipif(not INSTALLED["numpyro"], reason="numpyro is not installed here")
def test_svi_and_nuts_agree_on_a_small_model():
    """A full guide of one neuron's readout: k-hat is good, and corrected LOO agrees with NUTS within three errors."""
    rng = np.random.default_rng(4)
    x = rng.normal(size=(40, 1))
    y = 2.0 * x[:, 0] + rng.normal(size=40)
    model = up.Regressor(up.Network((1, 2)), 1)
    common = {"backend": "numpyro", "bayesian": "readout", "progress": False, "seed": 3}
    svi = up.fit(model, x, y, guide="full", num_steps=1500, learning_rate=0.02, num_particles=4, **common)
    found = Subject(svi, None, None, 1000, None)
    nuts = up.fit(
        model, x, y, method="nuts", start=svi, num_chains=2, num_warmup=100, num_draws=250, max_tree_depth=6, **common
    )
    assert max(importance.k_hat(ratio) for ratio in found.log_ratio) < importance.GOOD_K
    corrected = importance.loo(found.pointwise, found.log_ratio)
    sampled = importance.loo(Subject(nuts, None, None, None, None).pointwise)
    error = np.sqrt(((corrected.pointwise - sampled.pointwise) ** 2).sum())
    assert abs(corrected.elpd - sampled.elpd) < 3 * max(error, 0.05)
    assert abs(corrected.elpd - sampled.elpd) < 0.5  # p_loo of 4 by 500 draws: sqrt(2 x 4 / 500) = 0.13
    found = diagnose(nuts)
    assert "divergences" in [line.name for line in found]
    assert found["E-BFMI"].value > 0.3
    assert found["R-hat of functions"].value < 1.1


# Chains


def test_aligned_neurons_are_the_same_functions(backend_name):
    """Chain 1 is chain 0 with neurons of both layers permuted: aligning finds the permutation, R-hat sees it."""
    rng = np.random.default_rng(5)
    network = up.Network((2, 4, 3))
    model = up.Classifier(network, 2)
    shapes = {name: value.shape for name, value in model.template().items()}
    centre = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    draws = {name: value + 0.01 * rng.normal(size=(2, 50, *value.shape)) for name, value in centre.items()}
    mixed = {name: value.copy() for name, value in draws.items()}
    first, second = np.array([2, 0, 3, 1]), np.array([1, 2, 0])
    for role in ("loc", "log_scale", "logits"):
        mixed[f"layers.0.{role}"][1] = draws[f"layers.0.{role}"][1][:, first]
        mixed[f"layers.1.{role}"][1] = draws[f"layers.1.{role}"][1][:, second][:, :, first]
    mixed["readout.weight"][1] = draws["readout.weight"][1][:, :, second]
    aligned = align(model, mixed)
    for name, value in draws.items():
        np.testing.assert_array_equal(aligned[name], value)
    assert np.median(arviz.rhat(chains._entries(mixed))) > 1.5
    assert np.median(arviz.rhat(chains._entries(aligned))) < 1.05
    backend = load_backend(backend_name)
    x = rng.normal(size=(6, 2))
    outputs = [evaluation.outputs(backend, model, {n: v[1] for n, v in d.items()}, x, 6) for d in (mixed, aligned)]
    np.testing.assert_allclose(*outputs, rtol=1e-3, atol=1e-4)  # float32, neurons summed in another order


def test_arviz_statistics_by_entry():
    """Our calls of R-hat, ESS and BFMI are ArviZ's, entry by entry; independent chains have R-hat 1 and all draws."""
    rng = np.random.default_rng(6)
    values = rng.normal(size=(4, 500, 3, 2))
    values[0, :, 2, 1] += 3.0
    rhat, ess = arviz.rhat(values), arviz.ess(values)
    assert rhat.shape == ess.shape == (3, 2)
    assert rhat[0].max() < 1.01 < 1.3 < rhat[2, 1]
    assert abs(ess[0, 0] / 2000 - 1.0) < 0.2
    energy = rng.normal(size=(4, 2000))  # independent energies: sum of squared differences is twice the variance
    np.testing.assert_allclose(arviz.bfmi(energy), 2.0, atol=0.15)


# Data and structure


def test_label_noise_is_told_from_overlap():
    """Overlapping classes and small noise pass; a third of the labels shuffled does not."""
    rng = np.random.default_rng(7)
    y = rng.integers(0, 2, 400)
    overlapping = y[:, None] * [1.0, 0.5] + rng.normal(size=(400, 2))
    assert data.shuffled_labels(overlapping, y).verdict == "note"  # three in ten cannot be told
    overlapping = y[:, None] * [2.0, 0.0] + rng.normal(size=(400, 2))
    assert data.shuffled_labels(overlapping, y).verdict == "good"
    apart = y[:, None] * [5.0, 0.0] + rng.normal(size=(400, 2))
    assert data.shuffled_labels(apart, y).verdict == "good"
    assert data.shuffled_labels(apart, shuffled(y)).verdict == "problem"


def test_collapsed_scales_and_dead_components_by_hand():
    """One neuron of two inputs whose first component is a spike at a row, and whose second has weight 1e-6."""
    h = np.array([[0.0, 0.0], [1.0, 2.0]])
    values = {"loc": np.zeros((1, 2)), "log_scale": np.log([[1e-4, 1.0]]), "logits": np.array([[0.0, -14.0]])}
    activation, share, scale = structure._layer(values, h)
    np.testing.assert_allclose(activation[0, 0], stats.norm.logpdf(0.0, 0.0, 1e-4), atol=1e-5)
    np.testing.assert_allclose(share, [[1.0, 1.0]], atol=1e-6)  # the spike is far below at the second row
    np.testing.assert_allclose(scale, [[2e-4, 1.0]])
    lines = structure._layer_lines(0, activation[None], share[None], scale[None])
    assert [line.verdict for line in lines] == ["good", "good", "problem"]
