"""Weights of rows: a row of weight 2 is the same as two rows, one of weight 0 is not there, in every method."""

import json

import numpy as np
import pytest
import scipy.stats
from helpers import refused

import ugmm_ppl as up
from ugmm_ppl import metrics
from ugmm_ppl.data.standardizer import Standardizer, repeated
from ugmm_ppl.ops.numpy import NUMPY

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(8)
X = RNG.normal(3.0, [1.0, 20.0], (30, 2))
Y = np.sin(X[:, 0]) + 0.05 * X[:, 1] + 0.1 * RNG.normal(size=30)
CODES = (np.median(Y) < Y).astype(int)
WEIGHTS = np.resize([1, 2, 0, 3, 1], 30)
WILD = np.where(WEIGHTS[:, None] == 0, 1e4, X)  # rows that would show

CASES = {
    "regressor": (up.Regressor(up.Network((2, 4)), components=2), Y),
    "classifier": (up.Classifier(up.Network((2, 4)), classes=2), CODES),
    "score": (up.JointScore(up.Network.paper((3, 4)), classes=2, objective="score"), CODES),
    "circuit": (up.Circuit(2, classes=2, neurons=3), CODES),
}
METHODS = {
    "regressor": ("svi", "map", "laplace", "nuts"),
    "classifier": ("svi", "map", "laplace", "nuts"),
    "score": ("map",),
    "circuit": ("svi", "em", "nuts"),
}
SETTINGS = {
    "svi": {"num_steps": 30},
    "map": {"num_steps": 30},
    "em": {"num_steps": 5, "learning_rate": 1.0, "schedule": "constant"},
    "laplace": {"num_steps": 30, "guide": "full"},
    "nuts": {"num_warmup": 5, "num_draws": 3, "num_chains": 1, "max_tree_depth": 3},
}


def fitted(backend, case, method, x, y, weights=None, start="data", **changes):
    settings = SETTINGS[method] | {"dtype": "float64", "progress": False, "backend": backend} | changes
    return up.fit(CASES[case][0], x, y, weights=weights, method=method, start=start, **settings)


@pytest.mark.parametrize(("case", "method"), [(c, m) for c, methods in METHODS.items() for m in methods])
def test_weight_two_is_two_rows_and_weight_zero_is_none(backend_name, case, method):
    y = CASES[case][1]
    start = "data"
    if case == "score":  # whose start values draw a class for every row
        start = fitted(backend_name, case, "map", X, y, num_steps=1)
    one = fitted(backend_name, case, method, WILD, y, WEIGHTS, start)
    two = fitted(backend_name, case, method, X.repeat(WEIGHTS, axis=0), y.repeat(WEIGHTS), None, start)
    assert np.allclose(one.x_units.mean, two.x_units.mean, rtol=1e-12)
    assert np.allclose(one.x_units.scale, two.x_units.scale, rtol=1e-12)
    assert np.allclose(one.losses, two.losses, rtol=1e-8)
    draws = None if method == "nuts" else 5
    for name, value in one.posterior(draws).items():
        assert np.allclose(value, two.posterior(draws)[name], rtol=1e-6, atol=1e-8)
    everywhere = two.predict(X, num_draws=draws)
    assert np.allclose(one.predict(X, num_draws=draws).log_density(y), everywhere.log_density(y), rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("encoder", ["mlp", "per-example"])
def test_the_bound_of_a_latent_network_counts_rows_by_weight(backend_name, encoder):
    model = up.LatentNetwork((2, 3, 2), encoder=encoder)
    settings = {"backend": backend_name, "num_steps": 1, "dtype": "float64", "progress": False, "standardize": False}
    alone = [
        up.fit(model, X, weights=np.eye(30)[row] + 1e-9, method="map", seed=0, **settings).log_likelihoods[0, 0]
        for row in range(3)
    ]
    weights = np.full(30, 1e-9)
    weights[:3] = [2.0, 0.5, 3.0]
    together = up.fit(model, X, weights=weights, method="map", seed=0, **settings).log_likelihoods[0, 0]
    assert np.isclose(together, np.dot([2.0, 0.5, 3.0], alone), rtol=1e-6)
    with refused(ValueError, "method='nuts' samples the layers of every row", "numpy.repeat"):
        up.fit(model, X, weights=weights, method="nuts", backend=backend_name, progress=False)


def test_a_bound_model_takes_weights(backend_name):
    model = up.Regressor(up.Network((2, 3)), components=2)
    program = model.bind(backend_name)
    values = model.initial_values(X, 0)
    outputs = model.network.forward(NUMPY, values, X)
    want = WEIGHTS + 0.5, model.log_likelihood(outputs, Y)
    assert np.isclose(_log_likelihood(backend_name, program, values, want[0]), want[0] @ want[1], rtol=1e-5)
    assert np.isclose(_log_likelihood(backend_name, program, values, None), want[1].sum(), rtol=1e-5)


def _log_likelihood(backend_name, program, values, weights):
    """Log likelihood of the bound model at some values, by the PPL's own handlers."""
    if backend_name == "pyro":
        import torch
        from pyro import poutine

        held = {name: torch.as_tensor(value, dtype=torch.float32) for name, value in values.items()}
        trace = poutine.trace(poutine.condition(program, data=held)).get_trace(X, Y, weights)
        trace.compute_log_prob()
        return float(trace.nodes["y"]["log_prob_sum"])
    from numpyro import handlers
    from numpyro.infer.util import log_density

    substituted = handlers.substitute(program, data=values)
    total, trace = log_density(substituted, (X, Y, weights), {}, {})
    sites = [site for site in trace.values() if site["type"] == "sample" and not site["is_observed"]]
    return float(total - sum(site["fn"].log_prob(site["value"]).sum() for site in sites))


def test_mini_batches_and_particles_keep_the_weights(backend_name):
    fit = fitted(backend_name, "regressor", "svi", X, Y, WEIGHTS + 1.0, num_steps=2, batch_size=6, num_particles=3,
                 split_batch=True, num_restarts=2, learning_rate=1e-12, init_scale=1e-9)  # fmt: skip
    whole = fitted(backend_name, "regressor", "svi", X, Y, WEIGHTS + 1.0, num_steps=1, num_restarts=2,
                   learning_rate=1e-12, init_scale=1e-9)  # fmt: skip
    batches = fitted(backend_name, "regressor", "svi", X, Y, WEIGHTS + 1.0, num_steps=5, batch_size=6, num_restarts=2,
                     learning_rate=1e-12, init_scale=1e-9)  # fmt: skip
    assert np.isfinite(fit.losses).all()
    # The five batches of an epoch are all rows: their mean, each multiplied by N / B, is the whole.
    assert np.allclose(batches.log_likelihoods.mean(1), whole.log_likelihoods[:, 0], rtol=1e-6)


def test_what_is_kept(backend_name, tmp_path):
    fit = fitted(backend_name, "regressor", "svi", WILD, Y, WEIGHTS, validation=(X, Y, WEIGHTS))
    pairs = zip(fit.log_likelihood(X, Y, 4), fit.row_weights[None], strict=False)
    total = np.stack([pointwise[:, w > 0] @ w[w > 0] for pointwise, w in pairs]) + fit.log_unit(X) * WEIGHTS.sum()
    assert np.allclose(fit.log_p(X, Y, 4), fit.log_prior(fit.posterior(4)) + total)
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    assert np.array_equal(again.row_weights, WEIGHTS)
    assert np.array_equal(again.log_p(X, Y, 4), fit.log_p(X, Y, 4))
    with refused(ValueError, "the 30 rows of the training, whose weights the fit keeps; got 7 rows"):
        again.log_p(X[:7], Y[:7], 4)
    tree = fit.to_arviz(num_draws=4, num_prior_draws=2)
    assert np.array_equal(tree["constant_data"]["weight"].values, WEIGHTS)
    assert tree["constant_data"]["weight"].dims == ("row",)
    assert np.allclose(tree["sample_stats"]["log_p"].values, fit.log_p(num_draws=4), rtol=1e-6)
    unweighted = fitted(backend_name, "regressor", "svi", X, Y)
    assert unweighted.row_weights is None
    assert "weight" not in unweighted.to_arviz(num_draws=4, num_prior_draws=0)["constant_data"]


def test_held_out_scores_count_rows_by_weight(backend_name):
    common = {"num_steps": 1, "init_scale": 1e-9}
    twice = fitted(
        backend_name, "regressor", "svi", X, Y, validation=(X.repeat(WEIGHTS, 0), Y.repeat(WEIGHTS)), **common
    )
    weighted = fitted(backend_name, "regressor", "svi", X, Y, validation=(X, Y, WEIGHTS), **common)
    assert np.allclose(weighted.scores, twice.scores, rtol=1e-9)
    share = fitted(backend_name, "regressor", "svi", X, Y, WEIGHTS, validation=0.3, **common)
    assert len(share.row_weights) == len(share.train_x) == 21
    with refused(ValueError, "validation must leave a row that counts on either side"):
        fitted(backend_name, "regressor", "svi", X, Y, np.eye(30)[0], validation=0.3, standardize=False)


def test_checkpoints_belong_to_the_weights(backend_name, tmp_path):
    path = tmp_path / "c.npz"
    fitted(backend_name, "regressor", "map", X, Y, WEIGHTS, checkpoint=path, every=10)
    fitted(backend_name, "regressor", "map", X, Y, WEIGHTS, checkpoint=path, every=10)
    with refused(ValueError, "checkpoint must belong to this fit"):
        fitted(backend_name, "regressor", "map", X, Y, 2 * WEIGHTS, checkpoint=path, every=10)


@pytest.mark.parametrize(
    ("weights", "error", "parts"),
    [
        (WEIGHTS[:7], ValueError, ("weights must hold one number per row of x, shape (30,); got shape (7,)",)),
        (np.full(30, -1.0), ValueError, ("weights must be at least 0; got -1.0 at index (0,)",)),
        (np.zeros(30), ValueError, ("weights must have a row that counts; got 30 weights that are all 0",)),
        (np.full(30, np.nan), ValueError, ("weights must be finite; got nan in row 0",)),
        (["a"] * 30, TypeError, ("weights must hold real numbers",)),
    ],
)
def test_wrong_weights_are_refused(backend_name, weights, error, parts):
    with refused(error, *parts):
        fitted(backend_name, "regressor", "map", X, Y, weights)


def test_moments_by_weight():
    x = np.where(RNG.uniform(size=(30, 2)) < 0.2, np.nan, X)
    for jointly in (False, True):
        one, two = (
            Standardizer.of(x, jointly=jointly, weights=WEIGHTS),
            Standardizer.of(x.repeat(WEIGHTS, 0), jointly=jointly),
        )
        assert np.allclose(one.mean, two.mean, rtol=1e-13)
        assert np.allclose(one.scale, two.scale, rtol=1e-13)


def test_rows_are_repeated_as_often_as_they_count():
    assert np.array_equal(repeated(X, WEIGHTS), X.repeat(WEIGHTS, axis=0))
    assert repeated(X) is X
    share = repeated(np.arange(1000)[:, None], np.where(np.arange(1000) < 500, 1.5, 0.5))
    assert len(share) == 1000
    assert (share < 500).mean() == 0.75


def test_metrics_count_rows_by_weight():
    probs = RNG.dirichlet([1.0, 1.0, 1.0], 30)
    codes = RNG.integers(3, size=30)
    given, weighted = (probs.repeat(WEIGHTS, 0), codes.repeat(WEIGHTS)), {"row_weights": WEIGHTS}
    for metric in (metrics.accuracy, metrics.brier):
        assert np.isclose(metric(probs, codes, **weighted), metric(*given))
    for metric in (metrics.expected_calibration_error, metrics.classwise_calibration_error):
        assert np.isclose(metric(probs, codes, 7, **weighted), metric(*given, 7))
    loss, confidence = (probs.argmax(1) != codes), np.round(probs.max(1), 1)
    share, risk = metrics.risk_coverage(confidence, loss, **weighted)
    wanted = metrics.risk_coverage(confidence.repeat(WEIGHTS), loss.repeat(WEIGHTS))
    assert np.allclose(risk[share > 0], np.interp(share[share > 0], *wanted))
    low, high, median = Y - 1.0 - X[:, 0] ** 2, Y + X[:, 1] ** 2, Y + 0.1 * X[:, 0]
    again = [a.repeat(WEIGHTS) for a in (Y, low, high, median)]
    assert np.isclose(metrics.rmse(median, Y, **weighted), metrics.rmse(again[3], again[0]))
    assert np.isclose(metrics.mae(median, Y, **weighted), metrics.mae(again[3], again[0]))
    assert np.isclose(metrics.sharpness(low, high, **weighted), metrics.sharpness(again[1], again[2]))
    u = scipy.stats.norm.cdf(Y)
    assert np.isclose(metrics.coverage(u, 0.5, **weighted), metrics.coverage(u.repeat(WEIGHTS), 0.5))


@pytest.mark.parametrize("case", ["regressor", "classifier"])
def test_evaluate_counts_rows_by_weight(backend_name, case):
    y = CASES[case][1]
    fit = fitted(backend_name, case, "svi", X, y, num_steps=3)
    one = metrics.evaluate(fit.predict(X, num_draws=5), y, row_weights=WEIGHTS)
    two = metrics.evaluate(fit.predict(X.repeat(WEIGHTS, 0), num_draws=5), y.repeat(WEIGHTS))
    assert one == pytest.approx(two)
    with refused(ValueError, "row_weights must hold one number per row of x, shape (30,)"):
        metrics.evaluate(fit.predict(X, num_draws=5), y, row_weights=[1.0])


def test_the_command_line_takes_the_weights_of_the_data(backend_name, tmp_path):
    from ugmm_ppl.cli.run import run_fit

    (tmp_path / "m.py").write_text(
        "import numpy as np\nimport ugmm_ppl as up\n\n\ndef data():\n    x = np.arange(24.0).reshape(12, 2) % 5\n"
        "    y, w = x[:, 0] + 1.0, np.resize([0.0, 2.0], 12)\n"
        "    return up.Data(x, np.where(w > 0, y, 1e6), x, np.where(w > 0, y, 1e6), weights=w, weights_test=w)\n\n\n"
        "model = up.Regressor(up.Network((2, 3)))\n"
    )
    overrides = {"backend": backend_name}
    found = run_fit(tmp_path / "m.py", overrides, 20, tmp_path / "run", progress=False, say=print)
    assert found["test"]["rmse"] < 10.0
    assert json.loads((tmp_path / "run" / "metrics.json").read_text())["test"] == found["test"]
    assert up.load(tmp_path / "run" / "fit.npz").row_weights.sum() == 12.0
