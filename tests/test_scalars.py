"""Numbers and flags of NumPy are plain Python values from where they are checked: in every setting, model and file."""

import ast
import inspect
import json
import re
from pathlib import Path

import numpy as np
import pytest
from conftest import backend_params

import ugmm_ppl as up
from ugmm_ppl import arviz
from ugmm_ppl.backends import devices
from ugmm_ppl.checks import count, flag, number, plain
from ugmm_ppl.fitting import storage
from ugmm_ppl.infer import METHODS

pytestmark = pytest.mark.usefixtures("quick_compiler")

KINDS = {
    "plain": (int, float, bool),
    "64 bits": (np.int64, np.float64, np.bool_),
    "32 bits": (np.int32, np.float32, np.bool_),
    "few bits": (np.uint8, np.float16, np.bool_),
    "no axes": (np.array, np.array, np.array),
    "long": (np.longlong, np.longdouble, np.bool_),
}
"""Whole numbers, numbers and flags of a kind. All numbers here are exact in every one of them."""

SETTINGS = {
    "num_steps": 6, "batch_size": 8, "learning_rate": 0.125, "num_restarts": 3, "clip_norm": 64.0, "num_particles": 2,
    "split_batch": True, "temperature": 0.5, "kl_warmup": 0.25, "validation": 0.25, "patience": 2, "every": 2,
    "init_scale": 0.0625, "rank": 2, "num_chains": 2, "num_warmup": 3, "num_draws": 4, "max_tree_depth": 2,
    "thin": 2, "friction": 0.25,
    "seed": 200, "standardize": True, "progress": False,
}  # fmt: skip
"""Every argument of `fit` that is a number or a flag."""

ELSEWHERE = {
    "schedule",  # a function of a number; `test_a_schedule_may_return_numpy_numbers`
    "device",  # the number of a GPU; `test_the_number_of_a_gpu`
}


def of_kind(kind, value):
    """A value as that kind has it."""
    whole, real, either = KINDS[kind]
    return (either if isinstance(value, bool) else whole if isinstance(value, int) else real)(value)


def settings(kind, method="svi"):
    """All settings that a method takes, of a kind."""
    of_others = {name for each in METHODS.values() for name in each.settings.names()} - {
        *METHODS[method].settings.names()
    }
    return {name: of_kind(kind, value) for name, value in SETTINGS.items() if name not in of_others}


def test_every_number_and_flag_of_fit_is_here():
    parameters = inspect.signature(up.fit).parameters.values()
    numbers = {p.name for p in parameters if re.search(r"\b(int|float|bool)\b", p.annotation)}
    assert numbers == set(SETTINGS) | ELSEWHERE


@pytest.fixture(scope="module")
def table():
    """Rows and classes."""
    x = np.random.default_rng(0).normal(size=(40, 3))
    return x, (x[:, 0] > 0).astype(int)


def interrupt(moment):
    """Ctrl-C in the middle."""
    if moment.step == 3:
        raise KeyboardInterrupt


@pytest.fixture(scope="module", params=backend_params())
def plain_fit(request, table):
    """What all settings make if they are plain."""
    return up.fit(
        up.Classifier(up.Network((3, 4)), 2), *table, backend=request.param, guide="lowrank", **settings("plain")
    )


@pytest.mark.parametrize("kind", ["32 bits", "few bits", "no axes"])
def test_a_fit_is_that_of_plain_settings_and_is_stored(plain_fit, kind, table, tmp_path):
    """Trained to a checkpoint in the middle, and on from there with plain settings, to the bits of a plain fit."""
    x, y = table
    path = tmp_path / "run.npz"
    model = up.Classifier(up.Network((3, 4)), of_kind(kind, 2))
    chosen = {"backend": plain_fit.backend, "guide": "lowrank"}
    begun = up.fit(model, x, y, checkpoint=path, callbacks=[interrupt], **chosen, **settings(kind))
    assert begun.interrupted
    begun.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    draws = of_kind(kind, 2)
    np.testing.assert_array_equal(begun.predict(x, num_draws=draws).draws, again.predict(x, num_draws=2).draws)
    ended = up.fit(up.Classifier(up.Network((3, 4)), 2), x, y, checkpoint=path, **chosen, **settings("plain"))
    for got, want in zip(ended.state, plain_fit.state, strict=True):
        assert all(np.array_equal(got[name], want[name]) for name in want)
    for name in (*storage.SETTINGS, "training"):
        assert json.dumps(getattr(begun, name)) == json.dumps(getattr(plain_fit, name))


@pytest.mark.parametrize("kind", ["few bits", "no axes"])
def test_nuts_with_numpy_settings(backend_name, kind, table, tmp_path):
    x, y = table
    chosen = settings(kind, "nuts")
    fit = up.fit(up.Classifier(up.Network((3, 2)), 2), x, y, backend=backend_name, method="nuts", **chosen)
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(fit.predict(x).draws, again.predict(x).draws)
    assert fit.posterior(of_kind(kind, 3))["readout.bias"].shape == (2, 3, 2)


def described(model):
    """What is stored of a model, as text: 1 and 1.0 and true are different."""
    return json.dumps(storage.describe_model(model))


def network(whole, real, either):
    """One with everything."""
    layers = {
        int(whole(0)): {"loc": up.dist.Normal(real(0.5), whole(2))},
        np.int64(1): {"scale": up.dist.Gamma(3.0, 1.0)},
    }
    return up.Network(
        tuple(map(whole, (3, 4, 4))), tied=either(False), dropout=real(0.25), dropout_per_example=either(True)
    ), up.Prior(logits=up.dist.Normal(scale=real(2.0), loc=0.0), layers=layers)


def circuit(whole, real, either):
    """One with codes, bins and a structure of its own."""
    del either
    return up.Circuit(
        whole(3), whole(2), structure=up.Structure((*map(whole, (3, 3, 3)), -1), (*map(whole, (0, 1, 2)), -1)),
        neurons=whole(2), components=whole(2), prior=up.CircuitPrior(sums=up.dist.Dirichlet(real(0.5))),
        leaves={np.int32(0): up.Categorical(whole(3)), 1: up.Binned(tuple(map(real, (-4.0, 0.0, 4.0))))},
    )  # fmt: skip


MODELS = {
    "Classifier": lambda w, r, b: up.Classifier(network(w, r, b)[0], w(2), network(w, r, b)[1]),
    "Regressor": lambda w, r, b: up.Regressor(up.Network(np.array([3, 4])), w(2)),
    "dropout by layer": lambda w, r, b: up.Regressor(up.Network((3, 4, 4), dropout=[r(0.25), r(0.5)]), w(2)),
    "an array of dropouts": lambda w, r, b: up.Regressor(up.Network((3, 4, 4), dropout=np.array([0.25, 0.5])), w(2)),
    "tied": lambda w, r, b: up.Classifier(up.Network((3, 4), tied=b(True)), w(2)),
    "JointScore": lambda w, r, b: up.JointScore(up.Network((w(4), w(5)), readout="ugmm"), w(2)),
    "Circuit": circuit,
    "random trees": lambda w, r, b: up.Circuit(3, structure=up.random_trees(w(3), w(2), seed=w(1)), neurons=w(2)),
    "quad tree": lambda w, r, b: up.Circuit(4, structure=up.quad_tree(w(2), w(2), binary=b(True)), neurons=w(2)),
    "LatentNetwork": lambda w, r, b: up.LatentNetwork(
        (w(2), w(3)), gain=b(False), components=w(2), classes=w(2), encoder_widths=(w(8), w(8))
    ),
}


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "plain"])
@pytest.mark.parametrize("name", MODELS)
def test_a_model_is_described_as_if_its_numbers_were_plain(name, kind):
    got, want = (MODELS[name](*KINDS[each]) for each in (kind, "plain"))
    assert described(got) == described(want)


@pytest.mark.parametrize("name", MODELS)
def test_a_model_of_numpy_numbers_is_fitted_stored_and_predicts_the_same(backend_name, name, tmp_path):
    model = MODELS[name](*KINDS["32 bits"])
    rng = np.random.default_rng(1)
    x = rng.normal(size=(20, model.num_inputs))
    if name == "Circuit":
        x[:, 0] = np.arange(20) % 3
    y = x[:, 0] if model.likelihood.standardizes else np.arange(20) % 2 if model.classes else None
    fit = up.fit(model, x, y, backend=backend_name, method="map", num_steps=2, progress=False)
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    assert described(again.model) == described(MODELS[name](*KINDS["plain"]))
    np.testing.assert_array_equal(fit.outputs(x), again.outputs(x))


@pytest.mark.parametrize("kind", KINDS)
def test_options_of_a_fit(small_fits, kind):
    """Counts of eight bits would overflow where they are multiplied by the chains."""
    fit, (held_x, held_y) = small_fits.regressor, small_fits.held_out
    size = 100 if kind == "few bits" else 4
    draws, seed = of_kind(kind, size), of_kind(kind, 200)
    want = fit.predict(held_x, num_draws=size, chunk_size=8, seed=200)
    got = fit.predict(held_x, num_draws=draws, chunk_size=of_kind(kind, 8), seed=seed)
    np.testing.assert_array_equal(got.mean, want.mean)
    np.testing.assert_array_equal(got.quantile(of_kind(kind, 0.5)), want.quantile(0.5))
    assert got.samples(of_kind(kind, 200), seed=seed).shape == (200, len(held_x))
    assert fit.log_q(draws, seed=seed).shape == (3, size)
    assert fit.weigh("stacking", held_x, held_y, num_draws=draws).weights.shape == (3,)
    counts = {"num_draws": draws, "num_prior_draws": of_kind(kind, 2), "thin": of_kind(kind, 2), "seed": seed}
    tree = fit.to_arviz(derived=of_kind(kind, True), **counts)
    assert tree["posterior"]["layers.0.scale"].shape[:2] == (3, size // 2)
    assert tree["prior"]["layers.0.scale"].shape[:2] == (1, 2)


def test_names_of_arrays_are_plain_text(backend_name, table, tmp_path):
    x, y = table
    names = {"feature_names": np.array(["a", "b", "c"]), "class_names": np.array([3, 7])}
    fit = up.fit(up.Classifier(up.Network((3, 4)), 2), x, y, backend=backend_name, num_steps=2, progress=False, **names)
    assert {type(name) for name in fit.feature_names + fit.class_names} == {str}
    fit.save(tmp_path / "fit.npz")
    assert up.load(tmp_path / "fit.npz").class_names == ["3", "7"]


def test_settings_that_are_text_of_numpy(backend_name, table, tmp_path):
    """As `rng.choice` gives them."""
    x, y = table
    words = {"backend": backend_name, "method": "svi", "guide": "normal", "bayesian": "readout", "start": "data",
             "optimizer": "adam", "schedule": "cosine", "device": "cpu", "dtype": "float64"}  # fmt: skip
    chosen = {name: np.str_(word) for name, word in words.items()} | {"num_steps": 2, "progress": False}
    parts = up.Network((3, 4), normalization=np.str_("layer"), readout=np.str_("linear"), initial=np.str_("spread"))
    fit = up.fit(up.Classifier(parts, 2), x, y, checkpoint=tmp_path / "run.npz", **chosen)
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    np.testing.assert_array_equal(fit.outputs(x, num_draws=3), again.outputs(x, num_draws=3))
    fit.export(tmp_path / "fit.nc", num_draws=3)
    assert arviz.read(tmp_path / "fit.nc").attrs["backend"] == backend_name


def test_a_schedule_may_return_numpy_numbers(backend_name, table, tmp_path):
    x, y = table
    fit = up.fit(
        up.Classifier(up.Network((3, 4)), 2), x, y, backend=backend_name, num_steps=2, progress=False,
        schedule=lambda done: np.float32(1.0 - done), checkpoint=tmp_path / "run.npz",
    )  # fmt: skip
    assert np.isfinite(fit.losses).all()


def test_the_number_of_a_gpu():
    assert {devices.choose(of_kind(kind, 1), 2) for kind in KINDS} == {"cuda:1"}


@pytest.mark.parametrize("value", [np.int64(3), np.array(3), np.float32(0.5), np.array(True), np.str_("a")])
def test_plain_values(value):
    assert type(plain(value)) in (int, float, bool, str)
    assert plain(value) == value


def test_arrays_of_the_backend_without_axes_are_numbers(backend):
    assert type(count("n", backend.array(np.array(3)))) is int
    assert type(number("n", backend.array(np.array(0.5)), 0.0)) is float
    assert flag("n", backend.array(np.array(1.0)) > 0.0) is True


def test_what_is_no_number_stays_refused():
    for bad in (np.array([3]), np.bool_(True), np.float64(3.0), np.str_("3"), np.array(None)):
        with pytest.raises(TypeError, match="n must be a whole number"):
            count("n", bad)
    for bad in (np.array([0.5]), np.bool_(True), np.complex128(1.0), np.str_("3")):
        with pytest.raises(TypeError, match="n must be a number"):
            number("n", bad, 0.0)
    for bad in (np.int64(1), np.array([True]), np.str_("True")):
        with pytest.raises(TypeError, match="n must be True or False"):
            flag("n", bad)


def test_no_caller_of_a_check_drops_what_it_returns():
    """A check that is a statement of its own leaves the value as it was given."""
    for path in Path(up.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                name = ast.unparse(node.value.func).rpartition(".")[2]
                assert name not in ("count", "number", "flag", "plain"), f"{path}:{node.lineno}"
