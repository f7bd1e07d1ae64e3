"""The training loop: order of the data, schedules, held-out scores, restarts, failures, callbacks, start values."""

import dataclasses
import functools

import numpy as np
import pytest
from conftest import INSTALLED, needs_both
from helpers import refused
from sklearn.datasets import load_iris
from tolerances import EXACT64, PARITY

import ugmm_ppl as up
from ugmm_ppl.backends.progress import Progress, blocks
from ugmm_ppl.backends.trainer import Steps
from ugmm_ppl.infer.loop import Plan, Run, train
from ugmm_ppl.infer.schedule import Batches, kl_weights, learning_rates

pytestmark = pytest.mark.usefixtures("quick_compiler")

X, Y = load_iris(return_X_y=True)
MODEL = up.Classifier(up.Network((4, 5)), 3)


def quick(backend, **settings):
    """A short fit to Iris."""
    return up.fit(MODEL, X, Y, backend=backend, **{"num_steps": 40, "progress": False} | settings)


# ------------------------------------------------------------------------------------------------ plans


def test_batches_use_every_row_equally_often_and_in_any_order_of_asking():
    order = Batches(10, 4, seed=0)
    rows = [order(step) for step in range(25)]
    np.testing.assert_array_equal(np.bincount(np.concatenate(rows), minlength=10), 10)
    assert {len(batch) for batch in rows} == {4}
    for start in range(0, 100, 10):  # every round has every row once
        np.testing.assert_array_equal(np.sort(np.concatenate(rows)[start : start + 10]), np.arange(10))
    later = Batches(10, 4, seed=0)
    np.testing.assert_array_equal(later(17), rows[17])
    np.testing.assert_array_equal(later(3), rows[3])
    assert not np.array_equal(Batches(10, 4, seed=1)(0), rows[0])


def test_a_batch_of_all_rows_is_in_their_order_unless_it_is_mixed():
    assert {tuple(Batches(5, 5, seed=0)(step)) for step in range(5)} == {(0, 1, 2, 3, 4)}
    mixed = Batches(5, 5, seed=0, mixed=True)
    orders = {tuple(mixed(step)) for step in range(5)}
    assert len(orders) > 1
    assert {tuple(sorted(order)) for order in orders} == {(0, 1, 2, 3, 4)}


def test_a_batch_may_reach_over_several_rounds():
    assert sorted(Batches(3, 8, seed=0)(0)) == [0, 0, 0, 1, 1, 1, 2, 2] or len(Batches(3, 8, seed=0)(0)) == 8
    np.testing.assert_array_equal(np.bincount(np.concatenate([Batches(3, 8, seed=0)(s) for s in range(3)])), [8, 8, 8])


def test_learning_rates():
    rates = learning_rates(1000, 0.1)
    assert len(rates) == 1000
    np.testing.assert_allclose(rates.max(), 0.1)
    np.testing.assert_allclose(rates[-1], 0.001)
    assert rates[0] < rates[25] < rates[49]
    assert len(learning_rates(1, 0.1)) == 1
    cosine = learning_rates(11, 2.0, "cosine")
    np.testing.assert_allclose(
        cosine, 2.0 * (0.01 + 0.495 * (1.0 + np.cos(np.pi * np.arange(11) / 10.0))), rtol=EXACT64
    )
    np.testing.assert_array_equal(learning_rates(3, 0.5, "constant"), 0.5)
    np.testing.assert_allclose(learning_rates(4, 0.5, lambda done: 1.0 - done), [0.5, 0.375, 0.25, 0.125], rtol=EXACT64)
    with refused(ValueError, "schedule must be one of", "got 'cosin'", "Did you mean 'cosine'?"):
        learning_rates(4, 0.5, "cosin")
    with refused(ValueError, "schedule must give finite factors >= 0", "got nan at step 2 of 4"):
        learning_rates(4, 0.5, lambda done: 1.0 if done < 0.5 else np.nan)


def test_weights_of_the_kl_term():
    np.testing.assert_array_equal(kl_weights(5, 0.3, 0.0), 0.3)
    np.testing.assert_allclose(kl_weights(5, 2.0, 0.8), [0.5, 1.0, 1.5, 2.0, 2.0], rtol=EXACT64)


def test_blocks_make_up_all_steps():
    for total in (1, 7, 60, 1000, 2003, 100_000):
        sizes = list(blocks(total))
        assert sum(sizes) == total
        assert len(set(sizes[:-1])) <= 1


# ------------------------------------------------------------------------------------------------ the loop by itself


class Descent:
    """A trainer without randomness: gradient descent on (p - row)^2 / 2, in NumPy; `bad` says which steps fail."""

    def __init__(self, bad=lambda restart, step, rate: False):
        self.bad = bad

    def start(self, initial):
        return [params["p"].copy() for params in initial]

    def advance(self, state, first, rows, rates, kl_weights):
        state, shape = [p.copy() for p in state], (len(state), len(rows))
        losses, good = np.full(shape, np.nan), np.zeros(shape, bool)
        for r in range(len(state)):
            for n in range(len(rows)):
                if self.bad(r, first + n, rates[n, r]):
                    break
                losses[r, n] = 0.5 * (state[r] - rows[n, r, 0]) ** 2
                state[r] = state[r] - rates[n, r] * (state[r] - rows[n, r, 0])
                good[r, n] = True
        return state, Steps(losses, -losses, 0.0 * losses, good)

    def params(self, state):
        return [{"p": p.copy()} for p in state]

    def gradient(self, state, restart, step, rows, kl_weight):
        return {"p": np.array(np.nan)}

    def arrays(self, state):
        return {str(r): p for r, p in enumerate(state)}

    def restore(self, arrays, initial):
        return [arrays[str(r)] for r in range(len(initial))]


def descend(trainer=None, restarts=2, steps=200, rate=0.1, patience=None, **settings):
    plan = Plan(np.full(steps, rate), np.ones(steps), lambda restart, step: np.array([3 + restart]), patience)
    initial = [{"p": np.array(0.0)} for _ in range(restarts)]
    with Progress(steps, "test", show=False) as bar:
        return train(trainer or Descent(), initial, plan, progress=bar, **settings)


def test_the_loop_takes_every_step_once():
    run = descend()
    assert run.step == 200
    assert np.isfinite(run.losses).all()
    want = [3 * (1.0 - 0.9**200), 4 * (1.0 - 0.9**200)]
    np.testing.assert_allclose([params["p"] for params in run.params], want, rtol=EXACT64)
    np.testing.assert_allclose(run.losses[0], 4.5 * 0.81 ** np.arange(200), rtol=EXACT64, atol=EXACT64)


def test_the_best_parameters_are_kept_and_patience_ends_the_training():
    """The score is best where p passes 1, which the restarts do at different times."""
    run = descend(held_out=lambda params: np.array([-abs(float(each["p"]) - 1.0) for each in params]))
    assert run.scores.shape == (2, 50)
    assert run.score_steps[-1] == 200
    for scores, params in zip(run.scores, run.params, strict=True):
        assert -abs(float(params["p"]) - 1.0) == scores.max() > scores[-1]
    short = descend(held_out=lambda params: np.array([-abs(float(each["p"]) - 1.0) for each in params]), patience=4)
    best = max(int(np.argmax(row)) for row in short.scores)
    assert len(short.score_steps) == best + 1 + 4
    assert short.step == short.score_steps[-1]
    np.testing.assert_array_equal([p["p"] for p in short.params], [p["p"] for p in run.params])
    assert np.isnan(short.losses[:, short.step :]).all()


def test_a_step_that_is_not_finite_is_taken_again_more_slowly():
    """Once: the block is repeated with a tenth of the rate for that restart alone, which it keeps."""
    run = descend(Descent(lambda restart, step, rate: restart == 1 and step == 50 and rate > 0.05))
    assert run.failed is None
    np.testing.assert_array_equal(run.lowered, [False, True])
    np.testing.assert_allclose(run.params[0]["p"], 3 * (1.0 - 0.9**200), rtol=EXACT64)
    np.testing.assert_allclose(run.params[1]["p"], 4 * (1.0 - 0.9**50 * 0.99**150), rtol=1e-9)


def test_a_second_time_ends_the_training_with_the_last_good_state():
    run = descend(Descent(lambda restart, step, rate: restart == 1 and step == 53))
    assert run.failed[:2] == (1, 53)
    assert np.isfinite(run.losses[1]).sum() == 53
    before = 4 - (4 - 4 * (1.0 - 0.9**52)) * 0.99  # steps of the block that were good
    np.testing.assert_allclose(run.params[1]["p"], before, rtol=1e-9)


def test_callbacks_see_every_block_and_one_can_end_it():
    seen = []
    run = descend(callbacks=[seen.append, lambda moment: moment.step >= 20])
    assert [moment.step for moment in seen] == list(range(2, 21, 2))
    assert run.step == 20
    np.testing.assert_allclose(seen[-1].losses, run.losses[:, 18:20].mean(1), rtol=EXACT64)
    np.testing.assert_array_equal(seen[-1].params()[1]["p"], run.params[1]["p"])
    assert seen[-1].num_steps == 200


def test_run_starts_empty():
    run = Run.of(3, 7, [{}] * 3)
    assert run.losses.shape == (3, 7)
    assert np.isnan(run.losses).all()


# ------------------------------------------------------------------------------------------------ both backends


def test_a_restart_is_the_fit_of_its_seed(backend_name):
    """Side by side or alone: the same steps, but for the rounding of other loops."""
    settings = {"batch_size": 32, "dtype": "float64"}
    both = quick(backend_name, num_restarts=2, seed=4, **settings)
    for restart in range(2):
        alone = quick(backend_name, seed=4 + restart, **settings)
        np.testing.assert_allclose(both.losses[restart], alone.losses[0], rtol=1e-8)


@pytest.mark.skipif(not INSTALLED["numpyro"], reason="numpyro is not installed here")
def test_a_fit_like_the_last_one_compiles_no_program(monkeypatch):
    """Of other data and another seed; a program of the same form with another constant in it is another program."""
    from jax.stages import Lowered

    compiled, compile_ = [], Lowered.compile
    monkeypatch.setattr(Lowered, "compile", lambda self: compiled.append(self) or compile_(self))

    def fit(x, seed, scale=1.0):
        model = up.Classifier(up.Network((4, 5)), 3, prior=up.Prior(loc=up.dist.Normal(0.0, scale)))
        fitted = up.fit(model, x, Y, backend="numpyro", num_steps=11, seed=seed, progress=False)
        fitted.predict(x[:7], num_draws=2)
        found = len(compiled), fitted.posterior(2)["layers.0.loc"]
        compiled.clear()
        return found

    first, here = fit(X, 0)
    assert first > 0
    again, there = fit(X[::-1].copy(), 1)
    assert again == 0
    assert not np.array_equal(here, there)
    np.testing.assert_array_equal(fit(X, 0)[1], here)
    assert fit(X, 0, scale=2.0)[0] > 0


def test_likelihood_and_kl_are_logged_apart(backend_name):
    fit = quick(backend_name, temperature=0.5, kl_warmup=0.5, dtype="float64")
    weights = kl_weights(40, 0.5, 0.5)
    np.testing.assert_allclose(fit.losses[0], weights * fit.kls[0] - fit.log_likelihoods[0], rtol=PARITY)
    assert (fit.kls > 0.0).all()
    assert fit.training["kl_warmup"] == 0.5
    assert fit.temperature == 0.5


def test_particles_average(backend_name):
    """With the parameters all but at rest, the log likelihood of a step is an estimate: that of 16 is less spread."""
    start = quick(backend_name, num_steps=1, method="map")
    losses = {
        particles: quick(
            backend_name, num_steps=60, num_particles=particles, init_scale=0.5, start=start, learning_rate=1e-12
        ).log_likelihoods[0]
        for particles in (1, 16)
    }
    assert losses[16].std() < 0.5 * losses[1].std()  # a quarter of it
    assert abs(losses[16].mean() - losses[1].mean()) < 4.0 * losses[1].std() / np.sqrt(60)


def test_a_split_batch_is_the_whole_batch(backend_name):
    """Of a point, whose draws are all alike, the parts make the loss of the whole; of a guide they spread it less."""
    settings = {"dtype": "float64", "num_steps": 5}
    whole = quick(backend_name, method="map", **settings)
    parts = quick(backend_name, method="map", num_particles=5, split_batch=True, **settings)
    np.testing.assert_allclose(parts.losses, whole.losses, rtol=1e-9)
    settings = {"num_steps": 100, "init_scale": 0.5, "start": whole, "learning_rate": 1e-12}
    one, many = (
        quick(backend_name, num_particles=n, split_batch=n > 1, **settings).log_likelihoods[0] for n in (1, 15)
    )
    assert many.std() < 0.5 * one.std()
    assert abs(many.mean() - one.mean()) < 4.0 * one.std() / np.sqrt(100)


def test_a_small_norm_of_the_gradient_bounds_the_step(backend_name):
    start = quick(backend_name, num_steps=1, method="map", learning_rate=1e-12)
    settings = {"method": "map", "optimizer": "sgd", "schedule": "constant", "learning_rate": 1.0, "num_steps": 1}
    moved = quick(backend_name, start=start, clip_norm=1e-3, dtype="float64", **settings)
    distance = np.sqrt(sum(((moved.points()[0][n] - v) ** 2).sum() for n, v in start.points()[0].items()))
    np.testing.assert_allclose(distance, 1e-3, rtol=1e-6)


def test_held_out_rows_are_not_trained_on(backend_name):
    fit = quick(backend_name, validation=0.2, num_restarts=2)
    assert len(fit.train_x) == 120
    assert fit.scores.shape == (2, 40)
    rows = {tuple(row) for row in np.column_stack([fit.train_x, fit.train_y])}
    held = np.array([(*row, c) not in rows for row, c in zip(X, Y, strict=True)])
    score = fit.predict(X[held], num_draws=200).log_density(Y[held]).mean()
    assert abs(score - fit.scores.max(1).mean()) < 0.3  # draws of both restarts mixed, duplicates of rows left out
    given = quick(backend_name, validation=(X[:30], Y[:30]))
    assert len(given.train_x) == 150


def test_start_values(backend_name):
    """A MAP as the start of "svi": at once near its likelihood; and a fit of the user's."""
    settings = {"num_steps": 200, "learning_rate": 0.03}
    point = quick(backend_name, method="map", **settings)
    warm, both = (quick(backend_name, start=start, **settings) for start in (point, "map"))
    assert warm.log_likelihoods[0, 0] > point.log_likelihoods[0, 0] + 50.0
    np.testing.assert_allclose(both.losses[0], warm.losses[0], rtol=1e-4)
    wider = up.Classifier(up.Network((4, 6)), 3)
    with refused(ValueError, "start must be a fit of the same model"):
        up.fit(wider, X, Y, backend=backend_name, start=point, num_steps=2, progress=False)
    with refused(ValueError, "start must be a fit by 'svi' or 'map'", "got one by a sampler"):
        quick(backend_name, start=dataclasses.replace(point, method="nuts"))


def test_optimisers_of_the_libraries(backend_name):
    if backend_name == "pyro":
        import torch

        same, other, wrong = functools.partial(torch.optim.Adam, lr=7.0), torch.optim.NAdam, lambda params: 3
    else:
        import optax

        same, other, wrong = optax.adam(1.0), optax.nadam(1.0), 3
    settings = {"method": "map", "dtype": "float64"}
    losses = [quick(backend_name, optimizer=o, **settings).losses[0] for o in ("adam", same, other)]
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-9)
    assert not np.allclose(losses[0], losses[2])
    with refused(TypeError, "optimizer must", "got 3" if backend_name == "numpyro" else "it made 3"):
        quick(backend_name, optimizer=wrong)


@needs_both
@pytest.mark.parametrize("optimizer", ["adam", "sgd"])
def test_backends_take_the_same_steps(optimizer):
    settings = {
        "method": "map", "dtype": "float64", "batch_size": 32, "clip_norm": 30.0, "schedule": "cosine",
        "optimizer": optimizer, "learning_rate": 0.01 if optimizer == "adam" else 1e-4, "num_restarts": 2,
    }  # fmt: skip
    one, two = (quick(name, **settings) for name in ("pyro", "numpyro"))
    np.testing.assert_allclose(one.losses, two.losses, rtol=1e-6)
    np.testing.assert_allclose(one.kls, two.kls, rtol=1e-6)
