"""Fits and their queries from several threads: the same bits as from one, and a process left as it was."""

import functools
import sys
import threading
import warnings
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend

pytestmark = pytest.mark.usefixtures("quick_compiler")

RNG = np.random.default_rng(5)
X = RNG.normal(size=(40, 3))
Y = (X[:, 0] + 0.3 * RNG.normal(size=40) > 0.0).astype(int)
HOLED = np.where(RNG.uniform(size=X.shape) < 0.1, np.nan, X)
LONG = 60.0
"""Seconds after which a thread that never comes is given up."""


def hyper(backend, name, shape):
    """A prior with a hyper-parameter, which takes the default dtype."""
    s = backend.sample(f"{name}.s", backend.dist.HalfNormal(1.0))
    return backend.sample(name, backend.dist.Normal(0.0, s).expand(shape).to_event(len(shape)))


def classifier(width=3, **prior):
    return up.Classifier(up.Network((3, width)), 2, prior=up.Prior(**prior))


def fitted(backend, model, *data, **settings):
    return up.fit(
        model,
        *data,
        backend=backend,
        progress=False,
        **({} if settings.get("method") == "nuts" else {"num_steps": 15}) | settings,
    )


def svi(backend):
    fit = fitted(backend, classifier(), X, Y, num_restarts=2, batch_size=20, validation=0.2)
    return [*fit.state, fit.scores, fit.predict(X, num_draws=4).probs, fit.log_p(fit.train_x, fit.train_y, 3)]


def point(backend):
    fit = fitted(backend, up.Regressor(up.Network((3, 4)), 2), X, X[:, 1], method="map")
    prediction = fit.predict(X)
    return [*fit.state, prediction.quantile(0.3), prediction.cdf(X[:, 1]), fit.prior_draws(X, 3)]


def callables(backend):
    fit = fitted(backend, classifier(2, loc=hyper), X, Y, dtype="float64")
    return [*fit.state, fit.predict(X, num_draws=3).probs, fit.prior_draws(X, 3)]


def nuts(backend):
    settings = {"method": "nuts", "num_chains": 2, "num_warmup": 6, "num_draws": 4, "max_tree_depth": 3}
    fit = fitted(backend, classifier(2, scale=up.dist.InverseGamma(3.0, 1.0)), X, Y, **settings)
    return [*fit.state, fit.stats, fit.predict(X).probs]


def laplace(backend):
    fit = fitted(backend, classifier(), X, Y, method="laplace", bayesian="readout")
    return [*fit.state, fit.predict(X, num_draws=3).probs]


def circuit(backend):
    fit = fitted(backend, up.Circuit(3, classes=2), HOLED, Y, method="em", num_steps=4)
    return [*fit.state, fit.log_density(HOLED), fit.posterior_class(HOLED), fit.outputs(HOLED)]


def latent(backend):
    fit = fitted(backend, up.LatentNetwork((2, 3)), X, num_steps=8)
    return [*fit.state, fit.log_evidence(X[:6], num_samples=10, num_draws=2).value]


WORK = {
    "pyro": (svi, point, callables, nuts, laplace, circuit, latent),
    "numpyro": (svi, nuts, circuit, latent),  # which compiles most of them, and shares less
}


def leaves(found):
    """All arrays of lists and dicts, with their names."""
    if isinstance(found, dict | list):
        items = found.items() if isinstance(found, dict) else enumerate(found)
        return {f"{key}/{name}": a for key, value in items for name, a in leaves(value).items()}
    return {"": np.asarray(found)}


def assert_same(got, want):
    got, want = leaves(got), leaves(want)
    assert got.keys() == want.keys()
    for name, value in want.items():
        assert got[name].dtype == value.dtype
        assert got[name].tobytes() == value.tobytes(), name


def process_state(backend):
    """What the libraries have one of for all threads."""
    if backend == "numpyro":
        import jax
        from numpyro import primitives
        from numpyro.distributions import distribution

        return list(primitives._PYRO_STACK), distribution._VALIDATION_ENABLED, jax.config.jax_enable_x64
    import pyro
    import torch
    from pyro.poutine import runtime

    defaults = torch.get_default_dtype(), torch.get_default_device(), torch.is_grad_enabled()
    validation = [module.is_validation_enabled() for module in (pyro.infer, pyro.distributions, pyro.poutine)]
    stacks = list(runtime._PYRO_STACK), list(runtime._DIM_ALLOCATOR._stack)
    return stacks, validation, defaults, torch.get_rng_state().tolist()


def side_by_side(*functions):
    """Results or errors of functions that begin together, each in a thread of its own."""
    start = threading.Barrier(len(functions))

    def run(function):
        start.wait(LONG)
        try:
            return function()
        except Exception as error:
            return error

    with ThreadPoolExecutor(len(functions)) as pool:
        return list(pool.map(run, functions))


def failing(backend):
    """A fit whose prior breaks with handlers at work: in the middle of a training, where that runs it at every step."""
    steps = []

    def breaks(backend, name, shape):
        steps.append(name)
        if len(steps) > 20:
            raise RuntimeError("broken prior")
        return hyper(backend, name, shape)

    return fitted(backend, classifier(2, loc=breaks if backend == "pyro" else lambda *_: 1 / 0), X, Y, num_steps=200)


@pytest.mark.long
def test_everything_at_once_has_the_bits_of_one_after_the_other(backend_name, often):
    works = WORK[backend_name]
    want = [work(backend_name) for work in works]
    before = process_state(backend_name)
    *got, broken = side_by_side(*(functools.partial(work, backend_name) for work in (*works, failing)))
    assert isinstance(broken, RuntimeError if backend_name == "pyro" else ZeroDivisionError)
    for found, right in zip(got, want, strict=True):
        assert not isinstance(found, Exception), found
        assert_same(found, right)
    assert process_state(backend_name) == before
    assert_same(svi(backend_name), want[0])


@pytest.mark.long
def test_one_fit_answers_many_threads(small_fits, often):
    x, (held_x, held_y) = small_fits.x, small_fits.held_out
    classifier, regressor = small_fits.classifier, small_fits.regressor

    def answers():
        prediction = regressor.predict(x, num_draws=5)
        return [
            classifier.predict(x, num_draws=5).probs, prediction.quantile([0.1, 0.9]), regressor.posterior(3),
            regressor.log_likelihood(held_x, held_y, 3), classifier.log_p(num_draws=3),
        ]  # fmt: skip

    want = answers()
    for fit in (classifier, regressor):
        vars(fit).pop("family", None)  # so that all threads come upon it
    for got in side_by_side(*[answers] * 4):
        assert not isinstance(got, Exception), got
        assert_same(got, want)


def test_exports_and_diagnoses_side_by_side(small_fits, tmp_path):
    pytest.importorskip("arviz")
    fit, filters = small_fits.regressor, list(warnings.filters)

    def tree():
        found = fit.to_arviz(num_draws=5, num_prior_draws=5)
        return {name: np.asarray(found[name]["y"]) for name in ("log_likelihood", "posterior_predictive")}

    def saved():
        fit.save(tmp_path / "fit.npz")  # one file for all
        return up.load(tmp_path / "fit.npz").predict(small_fits.x, num_draws=3).mean

    def diagnosed():
        return [line.value for line in fit.diagnose(num_draws=20).lines]

    work = (tree, saved, *([diagnosed] if fit.backend == "pyro" else []), saved, tree)
    want = [function() for function in work]
    for got, right in zip(side_by_side(*work), want, strict=True):
        assert not isinstance(got, Exception), got
        assert_same(got, right)
    assert [path.name for path in tmp_path.iterdir()] == ["fit.npz"]
    assert warnings.filters == filters


@pytest.mark.long
@pytest.mark.parametrize("work", [svi, callables, nuts], ids=lambda work: work.__name__)
def test_others_come_in_while_a_fit_is_on_its_way(backend_name, work):
    """The callback of a fit waits until another thread has done all of its own work: if it is not let in, never."""
    came = []

    def wait_for_another(moment):
        if not came:
            other = threading.Thread(target=lambda: came.append(work(backend_name)), daemon=True)
            other.start()
            other.join(LONG)

    fit = fitted(backend_name, classifier(5), X, Y, callbacks=[wait_for_another])
    assert_same(came, [work(backend_name)])
    assert_same(fit.state, fitted(backend_name, classifier(5), X, Y).state)


def up_exclusive(backend):
    """The public context of a backend."""
    return sys.modules[f"ugmm_ppl.{backend}"].exclusive()


def test_models_of_the_users_own_take_turns(backend_name):
    """Inside `exclusive` no handler of a fit in another thread sees the user's sites, nor the other way round."""
    backend, sites = load_backend(backend_name), []

    def model():
        return backend.sample("layers.0.loc", backend.dist.Normal(0.0, 1.0))  # a site of the fit's too

    def own():
        while not stop.is_set():
            with up_exclusive(backend_name), backend.inference.seeded(0):
                sites.append({name: float(site.value) for name, site in backend.trace(model, {}).items()})

    stop = threading.Event()
    thread = threading.Thread(target=own)
    thread.start()
    try:
        found = callables(backend_name)
    finally:
        stop.set()
        thread.join(LONG)
    assert_same(found, callables(backend_name))
    assert all(each == sites[0] for each in sites)
    assert list(sites[0]) == ["layers.0.loc"]


@pytest.mark.parametrize("work", WORK["pyro"], ids=lambda work: work.__name__)
def test_torch_default_dtype_is_neither_used_nor_changed(work, monkeypatch):
    """Another thread of the user's may have any default, and must not see ours; callables alone are given it."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("pyro")
    want, changes, change = work("pyro"), [], torch.set_default_dtype
    monkeypatch.setattr(torch, "set_default_dtype", lambda dtype: (changes.append(dtype), change(dtype)))
    change(torch.float64)
    try:
        assert_same(work("pyro"), want)
    finally:
        change(torch.float32)
    assert changes == [] or work is callables
