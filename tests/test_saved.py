"""Files that an earlier version saved: they load and answer as they did, and the same seeds train to the same numbers.

`python tests/test_saved.py` writes them anew; do so only where the answers are meant to change, and say why.
"""

import warnings
from pathlib import Path

import numpy as np
import pytest
from conftest import backend_params, compiling_quickly
from tolerances import AGAIN

import ugmm_ppl as up

SAVED = Path(__file__).parent / "saved"

RNG = np.random.default_rng(11)
X = RNG.normal(3.0, 2.0, (40, 3))
Y = 10.0 * np.sin(X[:, 0]) + RNG.normal(size=40)
HOLED = np.where(RNG.uniform(size=X.shape) < 0.1, np.nan, X)
SETTINGS = {"num_steps": 10, "dtype": "float64", "seed": 4, "progress": False, "learning_rate": 0.05}
TREES = up.random_trees(3, 2, seed=1)


def regressor(backend):
    model = up.Regressor(up.Network((3, 4, 3), dropout=0.1), 2, up.Prior(scale=up.dist.InverseGamma(3.0, 1.0)))
    return up.fit(model, X, Y, backend=backend, num_restarts=2, batch_size=20, validation=0.2, **SETTINGS)


def circuit(backend):
    model = up.Circuit(3, classes=2, neurons=2, structure=TREES)
    return up.fit(model, HOLED, (Y > 0).astype(int), backend=backend, method="svi", **SETTINGS)


def latent(backend):
    return up.fit(up.LatentNetwork((2, 3)), X, backend=backend, **SETTINGS)


FITS = {"regressor": regressor, "circuit": circuit, "latent": latent}


def answers(name, fit):
    """What the file of a fit is asked, every answer a draw or an integral that the seeds fix."""
    found = {f"posterior/{site}": a for site, a in fit.posterior(3, seed=5).items()}
    found |= {f"prior/{site}": a for site, a in fit.prior_draws(X[:4], 2, seed=6).items()}
    if name == "regressor":
        prediction = fit.predict(X[:5], num_draws=4, seed=7)
        found |= {"mean": prediction.mean, "quantile": prediction.quantile([0.1, 0.9])}
        found["log_likelihood"] = fit.log_likelihood(X[:5], Y[:5], 3)
    elif name == "circuit":
        found |= {"density": fit.log_density(HOLED[:6]), "class": fit.posterior_class(HOLED[:6])}
        found["sample"] = fit.sample(3, seed=8)
    else:
        found["evidence"] = fit.log_evidence(X[:3], num_samples=5, num_draws=2, seed=9).value
        found["sample"] = fit.sample(3, seed=8)
    return found


def assert_as_before(name, backend, fit):
    kept = np.load(SAVED / f"{name}_{backend}_answers.npz")
    found = answers(name, fit)
    assert found.keys() == set(kept)
    for key, value in found.items():
        np.testing.assert_allclose(value, kept[key], rtol=AGAIN, atol=AGAIN, err_msg=key)


@pytest.mark.parametrize("backend_name", backend_params())
@pytest.mark.parametrize("name", FITS)
def test_a_file_answers_as_before(name, backend_name):
    with compiling_quickly():
        assert_as_before(name, backend_name, up.load(SAVED / f"{name}_{backend_name}.npz"))


@pytest.mark.long
@pytest.mark.parametrize("backend_name", backend_params())
@pytest.mark.parametrize("name", FITS)
def test_the_same_seeds_train_to_the_same_numbers(name, backend_name):
    with compiling_quickly():
        assert_as_before(name, backend_name, FITS[name](backend_name))


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    SAVED.mkdir(exist_ok=True)
    for backend in ("pyro", "numpyro"):
        for name, train in FITS.items():
            fit = train(backend)
            fit.save(SAVED / f"{name}_{backend}.npz")
            np.savez_compressed(SAVED / f"{name}_{backend}_answers.npz", **answers(name, fit))
