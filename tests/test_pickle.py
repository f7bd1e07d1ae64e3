"""Everything that a user may hold goes through pickle, to another process or a file of his own."""

import pickle
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import mixture

import ugmm_ppl as up
from ugmm_ppl.calibration import Calibration
from ugmm_ppl.diagnostics import diagnose

PRIOR = up.Prior(scale=up.dist.InverseGamma(3.0, 1.0), layers={0: {"loc": up.dist.Normal(0.0, 3.0)}})
X = np.random.default_rng(0).normal(size=(20, 3))
Y = (X[:, 0] > 0.0).astype(int)
MODELS = {
    "classifier": (up.Classifier(up.Network((3, 4)), 2, prior=PRIOR), Y),
    "regressor": (up.Regressor(up.Network((3, 4)), 2), X[:, 0]),
    "score": (up.JointScore(up.Network((4, 4), readout="ugmm", normalization=None), 2), Y),
    "circuit": (up.Circuit(3), None),
    "circuit with classes": (up.Circuit(3, classes=2, leaves={1: up.Categorical(2), 2: up.Bernoulli()}), Y),
    "latent network": (up.LatentNetwork((2, 4, 3)), None),
}


def again(thing):
    """The same, by pickle."""
    found = pickle.loads(pickle.dumps(thing))
    assert type(found) is type(thing)
    return found


def test_distributions(backend):
    value = backend.array(np.array([0.3]))
    for weights in ({"probs": [0.3, 0.7]}, {"logits": [0.0, 1.0]}):
        d = mixture(backend, [0.0, 1.0], [1.0, 2.0], **weights)
        for one in (d, d.expand((1,)), d.expand((1,)).to_event(1), d.component(0)):
            one.log_prob(value)  # what it keeps goes along
            np.testing.assert_array_equal(np.asarray(again(one).log_prob(value)), np.asarray(one.log_prob(value)))


def test_descriptions():
    for one in (PRIOR, up.Prior(), up.dist.Normal(0.0, 1.0), up.Network((3, 4), dropout=0.1)):
        assert repr(again(one)) == repr(one)
    assert again(up.dist.Normal) is up.dist.Normal
    assert repr(again(up.dist).Gamma(1.0, 2.0)) == "dist.Gamma(1.0, 2.0)"
    ranks = again(Calibration({"a": np.arange(3)}, 9)).ranks
    np.testing.assert_array_equal(ranks["a"], np.arange(3))


@pytest.mark.parametrize(
    "prior", [None, up.Prior(scale=up.dist.Gamma(3.0, 1.0)), up.Prior(weights=up.dist.Dirichlet(0.5))]
)
def test_layers_of_numpyro(prior):
    pytest.importorskip("numpyro")
    from ugmm_ppl.numpyro import UGMMLayer

    layer = UGMMLayer(3, 4, prior=prior, tied=True)
    assert repr(again(layer)) == repr(layer)


@pytest.mark.parametrize(
    "prior", [None, up.Prior(scale=up.dist.Gamma(3.0, 1.0)), up.Prior(weights=up.dist.Dirichlet(0.5))]
)
def test_layers_of_pyro(prior, tmp_path):
    """By pickle and by torch.save, alone, in a PyroModule, and with a guide that has been trained."""
    pyro, torch = pytest.importorskip("pyro"), pytest.importorskip("torch")
    from pyro.infer.autoguide import AutoNormal

    from ugmm_ppl.backends.load import load_backend
    from ugmm_ppl.pyro import UGMMLayer

    x = torch.ones(2, 3)
    with pyro.get_param_store().scope(), load_backend("pyro").inference.seeded(0):
        layer = UGMMLayer(3, 4, prior=prior)
        pair = pyro.nn.PyroModule[torch.nn.Sequential](torch.nn.Linear(3, 3), UGMMLayer(3, 4, prior=prior))
        made = [layer, pair]
        if prior is not None:
            guide = AutoNormal(layer)
            guide(x)
            made.append(guide)
        torch.save(made, tmp_path / "made.pt")
        for found in (again(made), torch.load(tmp_path / "made.pt", weights_only=False)):
            for one, other in zip(found, made, strict=True):
                results = []
                for each in (one, other):
                    pyro.set_rng_seed(0)
                    results.append(each(x))
                results = results if isinstance(results[0], dict) else [{"": result} for result in results]
                for name, value in results[0].items():
                    np.testing.assert_array_equal(value.detach(), results[1][name].detach())


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("kind", MODELS)
def test_models_fits_and_what_they_give(backend_name, kind):
    model, y = MODELS[kind]
    assert repr(again(model)) == repr(model)
    bound = again(model.bind(backend_name))
    assert repr(bound) == repr(model.bind(backend_name))
    x = X if kind != "circuit with classes" else np.column_stack([X[:, 0], Y, 1 - Y])
    fit = up.fit(model, x, y, backend=backend_name, method="map", num_steps=3, progress=False)
    found = again(fit)
    for name, value in fit.posterior(2).items():
        np.testing.assert_array_equal(found.posterior(2)[name], value)
    if kind in ("classifier", "regressor", "score"):
        np.testing.assert_array_equal(again(fit.predict(x)).draws, fit.predict(x).draws)
        functions = fit.sample_functions(2)
        np.testing.assert_array_equal(again(functions)(x), functions(x))
        if kind != "score":
            table = diagnose(fit, x, y, more_steps=False)
            assert repr(again(table)) == repr(table)
    elif kind.startswith("circuit"):
        density = fit.density()
        np.testing.assert_array_equal(again(density).log_density(x), density.log_density(x))
        best = fit.most_probable(np.full((1, 3), np.nan))
        assert repr(again(best)) == repr(best)
    else:
        evidence = fit.log_evidence(x[:2])
        assert repr(again(evidence)) == repr(evidence)


@pytest.mark.long
@pytest.mark.once
def test_chains_in_processes_of_their_own():
    """Pyro's MCMC with two chains by spawn, of a module with a layer and of a bound model."""
    pytest.importorskip("pyro")
    program = Path(__file__).with_name("spawned_chains.py")
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    assert done.stdout.split() == ["layer", "classifier"]
