"""One body of tests for both backends; the session is stricter than use (warnings are errors, float64, fixed seeds)."""

import contextlib
import importlib.util
import os
import shutil
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# What JAX has compiled once, this process and those that it starts load again; every worker has a folder of its own.
os.environ.setdefault(
    "JAX_COMPILATION_CACHE_DIR",
    str(Path(tempfile.gettempdir(), f"ugmm_ppl_tests_{os.getuid()}", os.environ.get("PYTEST_XDIST_WORKER", "main"))),
)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("MPLBACKEND", "Agg")
if shutil.which("nvidia-smi") is None:  # Triton reads it once, when whoever comes first imports it
    os.environ.setdefault("TRITON_INTERPRET", "1")

import numpy as np
import pytest

import ugmm_ppl as up
from ugmm_ppl.backends.load import BACKENDS, load_backend

INSTALLED = {
    "pyro": importlib.util.find_spec("pyro") is not None,
    "numpyro": importlib.util.find_spec("numpyro") is not None,
}


def backend_params():
    """The backends, those that are not installed marked as skipped with the reason."""
    return [
        pytest.param(name, marks=pytest.mark.skipif(not INSTALLED[name], reason=f"{name} is not installed here"))
        for name in BACKENDS
    ]


ONCE = {
    "test_calibration", "test_circuit", "test_conjugate", "test_kernel_native", "test_kernel_pallas",
    "test_kernel_transforms", "test_latent", "test_latent_checks", "test_memory", "test_mixture",
    "test_mixture_moments", "test_neuron", "test_numerics", "test_pathwise", "test_pathwise_transforms",
    "test_training",
}  # fmt: skip
"""Files that get the marker `once`: mathematics and long runs, which no other ArviZ or lack of torch would change."""

ABOVE = {
    "test_arviz", "test_checkpoint", "test_circuit_fit", "test_cli", "test_devices", "test_diagnostics",
    "test_examples", "test_extras", "test_files", "test_fit", "test_guide", "test_guides", "test_intake",
    "test_interruption", "test_laplace", "test_latent_fit", "test_methods", "test_model", "test_prediction",
    "test_row_weights", "test_scalars", "test_score", "test_standardizer", "test_tables", "test_weighing",
}  # fmt: skip
"""Files that test what lies above the backends: on Pyro, which has nothing to compile, and without Pyro on NumPyro."""


def pytest_addoption(parser):
    """Where both backends are installed."""
    parser.addoption("--both", action="store_true", help="the tests of what lies above the backends on both of them")


def pytest_collection_modifyitems(config, items):
    """Mark and skip by file (`ONCE`, `ABOVE`), and skip tests of the GPU where there plainly is none."""
    one_is_enough = all(INSTALLED.values()) and not config.getoption("--both")
    above = pytest.mark.skip(reason="lies above the backends: on Pyro here, on NumPyro without Pyro or with --both")
    for item in items:
        given = item.callspec.params.values() if hasattr(item, "callspec") else ()
        backends = {value for value in given if isinstance(value, str) and value in BACKENDS}
        if one_is_enough and item.module.__name__ in ABOVE and backends == {"numpyro"}:
            item.add_marker(above)
        if item.module.__name__ in ONCE:
            item.add_marker("once")
        if item.get_closest_marker("gpu") and not shutil.which("nvidia-smi"):
            item.add_marker(pytest.mark.skip(reason="no CUDA device here: there is no nvidia-smi"))


needs_both = pytest.mark.skipif(
    not all(INSTALLED.values()), reason="needs both Pyro and NumPyro, and one is not installed here"
)


@pytest.fixture(autouse=True)
def empty_parameter_store():
    """Pyro's global parameter store is empty when a test begins, whatever others left in it."""
    if "pyro" in sys.modules:
        sys.modules["pyro"].clear_param_store()


@pytest.fixture(params=backend_params())
def backend_name(request):
    """ "pyro", then "numpyro"."""
    return request.param


@pytest.fixture
def backend(backend_name):
    """The backend's primitives, in its default dtype float32."""
    return load_backend(backend_name)


@pytest.fixture
def backend64(backend_name):
    """The backend's primitives, with float64 as default inside the test."""
    primitives = load_backend(backend_name)
    with primitives.settings(dtype="float64", device="cpu"), primitives.as_default():
        yield primitives


@pytest.fixture
def rng():
    """Random numbers, the same in every run."""
    return np.random.default_rng(20250907)


@pytest.fixture
def often():
    """Threads change places two hundred times as often as usual."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(2.5e-5)
    yield
    sys.setswitchinterval(before)


@contextlib.contextmanager
def compiling_quickly():
    """Less optimised code for JAX: these programs run for a moment, and compiling is what takes the time."""
    if not INSTALLED["numpyro"]:
        yield
        return
    import jax

    before = jax.config.read("jax_disable_most_optimizations")
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", before)


@pytest.fixture(scope="module")
def quick_compiler():
    """`compiling_quickly` for the tests of a module and its fixtures."""
    with compiling_quickly():
        yield


@pytest.fixture(scope="session", params=backend_params())
def small_fits(request):
    """A classifier and a regressor of three short restarts each, 25 rows they were fitted to, and 45 others."""
    rng = np.random.default_rng(3)
    x = rng.normal(5.0, 2.0, (70, 3))
    y = 300.0 * np.sin(x[:, 0]) + 10.0 * rng.normal(size=70)
    settings = {"backend": request.param, "num_steps": 20, "num_restarts": 3, "learning_rate": 0.05, "progress": False}
    with compiling_quickly():
        classifier = up.fit(up.Classifier(up.Network((3, 4)), 2), x[:25], (y > 0)[:25].astype(int), **settings)
        regressor = up.fit(up.Regressor(up.Network((3, 4)), 2), x[:25], y[:25], **settings)
    return SimpleNamespace(classifier=classifier, regressor=regressor, x=x, held_out=(x[25:], y[25:]))
