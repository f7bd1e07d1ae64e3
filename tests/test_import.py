"""Each part works without the libraries of the others, and says what it needs."""

import importlib.util
import subprocess
import sys
import types

import pytest
from conftest import INSTALLED

import ugmm_ppl as up


def python(code, *without):
    """Run code in a fresh interpreter in which some packages cannot be imported."""
    block = "".join(f"sys.modules[{name!r}] = None\n" for name in without)
    return subprocess.run(
        [sys.executable, "-c", f"import sys\n{block}{code}"], capture_output=True, text=True, check=False
    )


def test_the_package_imports_neither_torch_nor_jax():
    result = python("import ugmm_ppl\nprint({'torch', 'jax', 'pyro', 'numpyro', 'arviz', 'typer'} & set(sys.modules))")
    assert result.stdout.strip() == "set()", result.stderr


@pytest.mark.long
@pytest.mark.parametrize(
    ("backend", "others"),
    [("numpyro", ("torch", "pyro", "arviz", "typer")), ("pyro", ("jax", "numpyro", "arviz", "typer"))],
)
def test_a_backend_fits_without_the_other(backend, others):
    if not INSTALLED[backend]:
        pytest.skip(f"{backend} is not installed here")
    code = f"""
import numpy as np, ugmm_ppl as up
import ugmm_ppl.{backend}
x = np.random.default_rng(0).normal(size=(20, 2))
fit = up.fit(up.Regressor(up.Network((2, 3)), 1), x, x[:, 0], backend={backend!r}, num_steps=3, progress=False)
print(fit.predict(x, num_draws=2).quantile(0.5).shape)
"""
    result = python(code, *others)
    assert result.stdout.strip() == "(20,)", result.stderr


@pytest.mark.parametrize(
    ("code", "without", "message"),
    [
        (
            "import ugmm_ppl.pyro",
            "torch",
            'pyro needs the package torch, which is not installed. Install it with: pip install "ugmm-ppl[pyro]"',
        ),
        ("import ugmm_ppl.pyro", "pyro", 'pip install "ugmm-ppl[pyro]"'),
        ("import ugmm_ppl.numpyro", "jax", 'pip install "ugmm-ppl[numpyro]"'),
        (
            "from ugmm_ppl.backends import load_backend\nload_backend('numpyro')",
            "numpyro",
            'pip install "ugmm-ppl[numpyro]"',
        ),
        ("from ugmm_ppl.__main__ import main\nmain()", "typer", 'pip install "ugmm-ppl[cli]"'),
        ("from ugmm_ppl.arviz import to_arviz\nto_arviz(None)", "arviz", 'pip install "ugmm-ppl[arviz]"'),
    ],
)
def test_a_missing_extra_says_how_to_install_it(code, without, message):
    result = python(code, without)
    assert result.returncode != 0
    assert message in result.stderr


def test_public_names_hide_no_modules():
    """`import ugmm_ppl.fit as m` gives a module or nothing, never a function."""
    for name in up.__all__:
        found = importlib.util.find_spec(f"ugmm_ppl.{name}")
        assert (found is not None) == isinstance(getattr(up, name), types.ModuleType), name
