"""Every script in examples/ runs with --smoke, and every one is listed here."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from conftest import INSTALLED

EXAMPLES = Path(__file__).parent.parent / "examples"

RUNS = [
    ("own_numpyro_model.py", (), "numpyro"),
    ("own_pyro_model.py", (), "pyro"),
    ("iris.py", ("--backend", "numpyro"), "numpyro"),
    ("iris.py", ("--backend", "pyro"), "pyro"),
    ("visits.py", ("--backend", "numpyro"), "numpyro"),
    ("visits.py", ("--backend", "pyro"), "pyro"),
]
"""(script, arguments, what it needs)."""


def test_every_example_is_listed():
    assert {path.name for path in EXAMPLES.glob("*.py")} == {script for script, _, _ in RUNS}


@pytest.mark.long
@pytest.mark.parametrize(
    ("script", "arguments", "needs"), RUNS, ids=lambda value: value if isinstance(value, str) else None
)
def test_example_runs(script, arguments, needs, tmp_path):
    if not INSTALLED[needs]:
        pytest.skip(f"{script} {' '.join(arguments)} needs {needs}, which is not installed here")
    environment = os.environ | {
        "MPLBACKEND": "Agg",
        "JAX_PLATFORMS": "cpu",
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "1",
        "OMP_NUM_THREADS": "1",
    }
    done = subprocess.run(
        [sys.executable, str(EXAMPLES / script), "--smoke", *arguments],
        cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip(), "an example prints a short result"
    assert "Traceback" not in done.stderr
    assert not any(tmp_path.iterdir()), "an example leaves no files behind"


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiler")
def test_notebook_runs(tmp_path, monkeypatch):
    """The cells of every notebook in their order, in one namespace, with small settings."""
    import matplotlib.pyplot as plt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SMOKE", "1")
    monkeypatch.setenv("BACKEND", "pyro" if INSTALLED["pyro"] else "numpyro")
    notebooks = sorted(EXAMPLES.glob("*.ipynb"))
    assert notebooks
    for path in notebooks:
        namespace = {"__name__": "__main__"}
        cells = [cell for cell in json.loads(path.read_text())["cells"] if cell["cell_type"] == "code"]
        for number, cell in enumerate(cells):
            assert not cell["outputs"], "a notebook is stored without outputs"
            exec(compile("".join(cell["source"]), f"{path.name}, cell {number}", "exec"), namespace)
        plt.close("all")
        assert "ELBO convergence" in namespace["diagnosis"].problems
        assert not any(tmp_path.iterdir()), "a notebook leaves no files behind"
