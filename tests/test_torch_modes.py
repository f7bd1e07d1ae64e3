"""Fits with Pyro inside whatever mode of torch their caller is in: the same bits, and the mode is as it was."""

import contextlib

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.calibration import sbc

torch = pytest.importorskip("torch", reason="torch is not installed here")
pytest.importorskip("pyro", reason="pyro is not installed here")

X = np.random.default_rng(0).normal(size=(30, 3))
Y = (X[:, 0] > 0.0).astype(int)
GAPS = np.where(np.eye(3) > 0.0, np.nan, X[:3])
CLASSIFIER, REGRESSOR = up.Classifier(up.Network((3, 4)), 2), up.Regressor(up.Network((3, 4)), 2)
SHORT = {"backend": "pyro", "num_steps": 4, "progress": False}
NUTS = {"method": "nuts", "num_warmup": 2, "num_draws": 2, "num_chains": 1, "max_tree_depth": 2}
SBC = {"backend": "pyro", "num_simulations": 2, "num_draws": 3, "num_warmup": 2, "thin": 1, "max_tree_depth": 2}


def of_network(model, y, **settings):
    """Fit and predict."""
    fit = up.fit(model, X, y, **SHORT, **settings)
    return [*fit.posterior(2).values(), fit.predict(X[:4], num_draws=2).draws, fit.log_likelihood(X, y, 2)]


def of_circuit(**settings):
    """Fit and ask."""
    fit = up.fit(up.Circuit(3, classes=2, neurons=4), X, Y, **SHORT, **settings)
    return [
        *fit.posterior(2).values(),
        fit.most_probable(GAPS)[0],
        fit.posterior_class(GAPS),
        fit.impute(GAPS, 2).values,
    ]


def of_latent_network():
    """Fit and ask, also what needs a guide for new rows."""
    fit = up.fit(up.LatentNetwork((2, 4, 3)), X, **SHORT)
    return [*fit.posterior(2).values(), fit.log_evidence(X[:2]).value, fit.reconstruct(X[:2])]


WORK = {
    "svi": lambda: of_network(CLASSIFIER, Y, validation=0.2),
    "svi of tensors": lambda: of_network(CLASSIFIER, torch.tensor(Y, device="cpu"), guide="lowrank"),
    "map": lambda: of_network(REGRESSOR, X[:, 0], method="map", optimizer=lambda p: torch.optim.AdamW(p, lr=1.0)),
    "laplace": lambda: of_network(CLASSIFIER, Y, method="laplace", guide="full"),
    "nuts": lambda: of_network(REGRESSOR, X[:, 0], start="map", **NUTS),
    "circuit by em": lambda: of_circuit(method="em"),
    "circuit by svi": of_circuit,
    "latent network": of_latent_network,
    "latent network by nuts": lambda: list(
        up.fit(up.LatentNetwork((2, 4, 3)), X, backend="pyro", progress=False, **NUTS).posterior().values()
    ),
    "sbc of nuts": lambda: list(sbc(CLASSIFIER, X[:4], method="nuts", progress=False, **SBC).ranks.values()),
    "sbc of svi": lambda: list(sbc(CLASSIFIER, X[:4], method="svi", num_steps=4, progress=False, **SBC).ranks.values()),
    "prior predictive": lambda: list(up.Prior().predictive(CLASSIFIER, X, num_draws=2, backend="pyro").values()),
}


@contextlib.contextmanager
def switched(switch, on, off):
    """A switch of the whole program."""
    switch(on)
    try:
        yield
    finally:
        switch(off)


MODES = {
    "no_grad": torch.no_grad,
    "set_grad_enabled": lambda: switched(torch.set_grad_enabled, False, True),
    "inference_mode": torch.inference_mode,
    "float64": lambda: switched(torch.set_default_dtype, torch.float64, torch.float32),
    "float16": lambda: switched(torch.set_default_dtype, torch.float16, torch.float32),
    "another device": lambda: torch.device("meta"),  # whose tensors hold nothing
    "another default device": lambda: switched(torch.set_default_device, "meta", None),
    "deterministic algorithms": lambda: switched(torch.use_deterministic_algorithms, True, False),
    "anomaly": torch.autograd.detect_anomaly,
}


def mode():
    """What the caller finds again."""
    return (
        torch.is_grad_enabled(), torch.is_inference_mode_enabled(), torch.get_default_dtype(),
        torch.get_default_device(), torch.are_deterministic_algorithms_enabled(), torch.is_anomaly_enabled(),
    )  # fmt: skip


@pytest.mark.filterwarnings("ignore:Anomaly Detection has been enabled")
@pytest.mark.parametrize("work", WORK)
def test_work_does_not_depend_on_the_mode_of_the_caller(work):
    want = WORK[work]()
    for name, entered in MODES.items():
        with entered():
            before = mode()
            found = WORK[work]()
            assert mode() == before, name
        for one, other in zip(found, want, strict=True):
            np.testing.assert_array_equal(one, other, err_msg=name)


def test_data_made_in_inference_mode():
    """Tensors that torch keeps out of any graph are data like others."""
    with torch.inference_mode():
        x, y = torch.tensor(X), torch.tensor(Y)
    fits = [up.fit(CLASSIFIER, *data, **SHORT) for data in ((x, y), (X, Y))]
    np.testing.assert_array_equal(fits[0].predict(x).probs, fits[1].predict(X).probs)


ASKED = {
    "log_prob": lambda d: d.log_prob(torch.tensor(0.3)),
    "cdf": lambda d: d.cdf(torch.tensor(0.3)),
    "icdf": lambda d: d.icdf(torch.tensor(0.3)),
    "sample": lambda d: d.sample((3,)).sum(),
    "probs": lambda d: d.probs.sum(),
    "log_weights": lambda d: d.log_weights.sum(),
}


def mixture(given):
    """A mixture, and the parameters whose gradient is asked for."""
    from ugmm_ppl.pyro import UnivariateGaussianMixture

    loc, weights = torch.tensor([-1.0, 2.0], requires_grad=True), torch.tensor([0.4, 0.6], requires_grad=True)
    return UnivariateGaussianMixture(loc, torch.ones(2), **{given: weights}), (loc, weights)


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("first", ASKED)
def test_a_mixture_that_was_used_in_inference_mode_keeps_its_gradients(first, given):
    fresh, parameters = mixture(given)
    want = torch.autograd.grad(fresh.log_prob(torch.tensor(0.3)), parameters)
    used, parameters = mixture(given)
    with torch.inference_mode():
        ASKED[first](used)
    got = torch.autograd.grad(used.log_prob(torch.tensor(0.3)), parameters)
    for one, other in zip(got, want, strict=True):
        np.testing.assert_array_equal(one, other)


def test_arguments_of_priors_are_made_once_and_outside_of_modes():
    """They outlive the mode in which a prior is first built."""
    from torch._subclasses.fake_tensor import FakeTensorMode

    backend, prior = load_backend("pyro"), up.dist.Normal(0.125, 3.5)
    with FakeTensorMode():
        backend.build(prior, (2,))
    torch.func.vmap(lambda a: a * backend.build(prior, (2,)).base_dist.loc)(torch.ones(3, 2))
    with torch.inference_mode():
        backend.build(prior, (2,))
    loc, again = (backend.build(prior, (2,)).base_dist.loc for _ in range(2))
    assert type(loc) is torch.Tensor
    assert not loc.is_inference()
    assert loc.data_ptr() == again.data_ptr()
