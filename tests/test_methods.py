"""Every method of the register serves a model, or refuses it before the first step; what its facts say is so."""

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl.infer import METHODS

pytestmark = pytest.mark.usefixtures("quick_compiler")

UGMM = up.Network((4, 5), normalization=None, readout="ugmm")
MODELS = {
    "Classifier": up.Classifier(up.Network((3, 4)), 2),
    "Classifier, dropout": up.Classifier(up.Network((3, 4), dropout=0.2), 2),
    "Classifier, ugmm": up.Classifier(up.Network((3, 4), normalization=None, readout="ugmm"), 2),
    "Regressor": up.Regressor(up.Network((3, 4)), 2),
    "Model": up.Model(up.Network((3, 4)), up.likelihoods.Poisson()),
    "JointScore": up.JointScore(UGMM, 2),
    "JointScore, conditional": up.JointScore(UGMM, 2, objective="conditional"),
    "Circuit": up.Circuit(3, classes=2, neurons=2),
    "LatentNetwork": up.LatentNetwork((1, 3)),
}
REFUSED = {
    ("em", "Classifier"), ("em", "Classifier, dropout"), ("em", "Classifier, ugmm"), ("em", "Regressor"),
    ("em", "Model"), ("em", "JointScore"), ("em", "JointScore, conditional"), ("em", "LatentNetwork"),
    ("laplace", "Circuit"), ("laplace", "LatentNetwork"), ("laplace", "JointScore"),
    ("laplace", "JointScore, conditional"), ("nuts", "Classifier, dropout"),
    ("sghmc", "Classifier, dropout"), ("sghmc", "LatentNetwork"),
}  # fmt: skip
QUICK = {"num_steps": 4, "num_warmup": 3, "num_draws": 4, "num_chains": 2, "max_tree_depth": 2, "thin": 2}


def data(model):
    """Twenty rows that the model takes."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    counts = np.arange(20.0) % 2
    return x, None if isinstance(model, up.LatentNetwork) else x[:, 0] if model.likelihood.standardizes else counts


@pytest.mark.parametrize("kind", MODELS)
@pytest.mark.parametrize("name", METHODS)
def test_a_pair_is_served_or_refused_before_the_first_step(backend_name, name, kind):
    model, blocks = MODELS[kind], []
    x, y = data(model)
    has = METHODS[name].settings.names()
    given = {key: value for key, value in (QUICK | {"callbacks": [blocks.append]}).items() if key in has}
    given |= {"backend": backend_name, "method": name, "progress": False}
    if (name, kind) in REFUSED:
        with pytest.raises(ValueError, match=f"method='{name}' needs"):
            up.fit(model, x, y, **given)
        assert not blocks
        return
    fit = up.fit(model, x, y, **given)
    facts = METHODS[name]
    assert fit.method == name
    assert fit.losses.size == 0 if facts.markov else len(blocks) > 0
    draws = fit.posterior(None if facts.markov else 3)
    assert all(np.isfinite(value).all() for value in draws.values())
    shape = next(iter(draws.values())).shape[:2]
    assert shape == ((2, 4) if facts.markov else (1, 1) if facts.point else (1, 3))
    if facts.density:
        assert fit.log_q(3).shape == (1, 3)
    else:
        with pytest.raises(ValueError, match="log_q needs method="):
            fit.log_q()


def test_a_method_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"method must be one of 'laplace'.*got 'svj'\. Did you mean 'svi'"):
        up.fit(MODELS["Classifier"], *data(MODELS["Classifier"]), method="svj")
