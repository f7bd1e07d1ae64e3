"""Where things are computed: names of devices, fits that travel; `test_gpu.py` has what needs a GPU."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from helpers import refused

import ugmm_ppl as up
from ugmm_ppl.backends import devices
from ugmm_ppl.backends.load import load_backend


@pytest.fixture(autouse=True)
def no_gpu(monkeypatch):
    """As on a machine without one, whatever this machine has."""
    choose = devices.choose
    monkeypatch.setattr(devices, "choose", lambda device, count: choose(device, 0))


NAMES = {"cpu": "cpu", "cpu:0": "cpu", "gpu": "cuda:0", "cuda": "cuda:0", "cuda:1": "cuda:1", "gpu:1": "cuda:1"}


@pytest.mark.parametrize(("given", "name"), [*NAMES.items(), (1, "cuda:1"), ("1", "cuda:1"), ("tpu", "tpu")])
def test_names(given, name):
    assert devices.name_of(given) == name


@pytest.mark.parametrize("device", ["cuda", "gpu", 0, "cuda:1", "tpu", ""])
def test_asking_for_what_is_not_there(small_fits, tmp_path, device):
    """An error that lists what is, before any work."""
    fit = small_fits.classifier
    words = ("device must be one of those present, 'cpu'", f"got {device!r}", "For a GPU, install the build")
    with refused(ValueError, *words):
        up.fit(up.Classifier(up.Network((3, 4)), 2), [[0.0]], [0], backend=fit.backend, device=device)
    fit.save(tmp_path / "fit.npz")
    for ask in (lambda: up.load(tmp_path / "fit.npz", device=device), lambda: fit.to(device)):
        with refused(ValueError, *words):
            ask()


def test_a_fit_of_a_gpu_predicts_without_one(small_fits, tmp_path):
    fit, path = small_fits.regressor, tmp_path / "fit.npz"
    fit.save(path)
    with np.load(path) as file:
        arrays = dict(file)
    description = json.loads(str(arrays["description"]))
    assert description["settings"]["device"] == "cpu"
    description["settings"]["device"] = "cuda:0"
    np.savez(path, **(arrays | {"description": np.array(json.dumps(description))}))
    with pytest.warns(UserWarning, match="made on 'cuda:0', which is not here: it predicts on the CPU"):
        loaded = up.load(path)
    assert loaded.device == "cpu"
    quiet = up.load(path, device="cpu")  # a warning would be an error
    for other in (loaded, quiet.to("cpu")):
        np.testing.assert_array_equal(other.predict(small_fits.x).mean, fit.predict(small_fits.x).mean)


@pytest.mark.long
def test_fits_on_another_device(backend_name):
    """Nothing is mixed with what lies on the CPU, and what was computed there can be computed here."""
    result = subprocess.run(
        [sys.executable, Path(__file__).with_name("another_device.py"), backend_name],
        capture_output=True, text=True, check=False, env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"},
    )  # fmt: skip
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.split("\n")[:-1] == ["svi", "regression", "laplace", "nuts", "circuit", "latent network"]


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("method", ["svi", "laplace", "nuts"])
def test_tensors_are_copied_from_their_device_on_purpose(monkeypatch, rng, method):
    """NumPy cannot read a tensor on a GPU; here it cannot read any."""
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    pytest.importorskip("pyro", reason="pyro is not installed here")

    def unreadable(*_):
        raise TypeError("can't convert cuda:0 device type tensor to numpy")

    monkeypatch.setattr(torch.Tensor, "__array__", unreadable)
    with pytest.raises(TypeError, match="can't convert"):
        np.asarray(torch.zeros(2))
    prior = up.Prior(
        loc=up.dist.Laplace(0.0, 1.0), scale=up.dist.InverseGamma(3.0, 1.0), weights=up.dist.Dirichlet(0.5)
    )
    x, y = rng.normal(size=(12, 3)), rng.integers(0, 2, 12)
    short = {"num_warmup": 2, "num_draws": 2, "num_chains": 1, "max_tree_depth": 2}
    settings = short if method == "nuts" else {"num_steps": 3}
    settings |= {"seed": 1, "progress": False, "method": method, "bayesian": "all"}
    fit = up.fit(up.Classifier(up.Network((3, 2)), 2, prior), x, y, backend="pyro", **settings)
    assert np.isfinite(fit.predict(x, num_draws=2).probs).all()
    if method == "svi":
        assert np.isfinite(fit.points()[0]["layers.0.loc"]).all()
        second = up.fit(fit.model, x, y, backend="pyro", start=fit, num_steps=2, progress=False)
        assert np.isfinite(second.losses).all()


def test_a_device_for_everything_inside(backend_name):
    backend = load_backend(backend_name)
    with backend.settings(dtype="float32", device="cpu"):
        assert backend.numpy(backend.array(np.ones(3))).dtype == np.float32
