"""The command line and the model files."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from conftest import INSTALLED
from typer.testing import CliRunner

import ugmm_ppl as up
from ugmm_ppl.cli.app import app
from ugmm_ppl.cli.run import load_model_file

MODELS = Path(__file__).parents[1] / "models"
BACKEND = "pyro" if INSTALLED["pyro"] else "numpyro"  # NumPyro, which compiles, has the other environment
FILES = {"posterior.nc", "metrics.json", "fit.npz", "loss.png", "forest.png", "posterior_predictive.png"}

pytestmark = [
    pytest.mark.usefixtures("quick_compiler"),
    # plots of ArviZ 0.23 with newer matplotlib and pandas
    pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping:DeprecationWarning"),
    pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.sort_values:DeprecationWarning"),
]

SMALL_MODEL = """
import numpy as np
import ugmm_ppl as up
rng = np.random.default_rng(0)
x = rng.normal(size=(60, 2))
def data():
    return up.Data(x[:40], 3.0 * x[:40, 0], x[40:], 3.0 * x[40:, 0], feature_names=["left", "right"])
model = up.Regressor(up.Network((2, 4)), 2)
settings = {"num_steps": 40, "learning_rate": 0.03}
"""


def run(*arguments):
    """Run the command line in this process."""
    return CliRunner().invoke(app, [str(a) for a in arguments])


@pytest.fixture
def model_file(tmp_path):
    """A small regressor with a data set of its own."""
    path = tmp_path / "small.py"
    path.write_text(SMALL_MODEL)
    return path


@pytest.fixture(autouse=True)
def small_mnist(tmp_path, monkeypatch):
    """Forty rows in the form of MNIST."""
    rng = np.random.default_rng(0)
    pixels, labels = rng.integers(0, 256, (40, 28, 28), dtype=np.uint8), np.arange(40) % 10
    np.savez(tmp_path / "mnist.npz", x_train=pixels, y_train=labels, x_test=pixels[:15], y_test=labels[:15])
    monkeypatch.setenv("UGMM_PPL_DATA", str(tmp_path))


def model_files():
    """All model files; beside a classifier and a circuit they are long."""
    marks = {
        path: () if path.stem in ("iris_classifier", "iris_joint") else pytest.mark.long for path in MODELS.glob("*.py")
    }
    return [pytest.param(path, marks=marks[path], id=path.stem) for path in sorted(marks)]


@pytest.mark.parametrize("path", model_files())
def test_model_file_fits_and_leaves_its_results(path, tmp_path):
    if "statsmodels" in path.read_text():
        pytest.importorskip("statsmodels", reason="the data come with statsmodels, which is not installed here")
    result = run("fit", path, "--backend", BACKEND, "--steps", 10, "--out", tmp_path / "run")
    assert result.exit_code == 0, result.output
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    special = {"reliability.png"} if "accuracy" in metrics["test"] else {"predicted.png"}
    assert {p.name for p in (tmp_path / "run").iterdir()} == FILES | special
    assert metrics["steps"] == 10 * load_model_file(path).settings.get("num_restarts", 1)
    assert metrics["backend"] == BACKEND
    assert np.isfinite(metrics["test"]["log_likelihood"])
    assert f"test log likelihood: {metrics['test']['log_likelihood']:.4f}" in result.output
    assert str(tmp_path / "run") in result.output


EXPOSED_MODEL = """
import numpy as np
import ugmm_ppl as up
rng = np.random.default_rng(0)
x, hours = rng.normal(size=(60, 2)), rng.uniform(1.0, 5.0, 60)
y = rng.poisson(hours)
def data():
    return up.Data(
        x[:40], y[:40], x[40:], y[40:], feature_names=["left", "right"],
        extras={"exposure": hours[:40]}, extras_test={"exposure": hours[40:]},
    )
model = up.Model(up.Network((2, 4)), up.likelihoods.Poisson())
settings = {"num_steps": 40, "learning_rate": 0.03}
"""


def test_extra_columns_come_from_the_model_file_and_the_table(tmp_path):
    (tmp_path / "model.py").write_text(EXPOSED_MODEL)
    out = tmp_path / "run"
    result = run("fit", tmp_path / "model.py", "--backend", BACKEND, "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    (tmp_path / "table.csv").write_text("exposure,left,right\n1.0,0.1,0.2\n3.0,0.1,0.2\n")
    lines = run("predict", out, tmp_path / "table.csv").output.strip().splitlines()
    assert lines[0] == "mean,std,q05,q50,q95"
    once, thrice = (float(line.split(",")[0]) for line in lines[1:])
    assert thrice == pytest.approx(3.0 * once, rel=1e-4)
    (tmp_path / "short.csv").write_text("left,right\n0.1,0.2\n")
    result = run("predict", out, tmp_path / "short.csv")
    assert result.exit_code == 2
    assert "exposure" in result.output
    result = run("report", out)
    assert result.exit_code == 0, result.output


def test_overrides_and_predict(model_file, backend_name, tmp_path):
    out = tmp_path / "run"
    result = run("fit", model_file, "--backend", backend_name, "--method", "map", "--seed", 3, "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert result.output == ""
    fit = up.load(out / "fit.npz")
    assert (fit.backend, fit.method, fit.seed) == (backend_name, "map", 3)
    table = tmp_path / "table.csv"
    table.write_text("right,name,left\n0.5,a,1.0\n-0.5,b,2.0\n")  # another order, and a column too many
    result = run("predict", out, table)
    assert result.exit_code == 0, result.output
    lines = result.output.strip().splitlines()
    assert lines[0] == "mean,std,q05,q50,q95"
    expected = fit.predict(np.array([[1.0, 0.5], [2.0, -0.5]]))
    np.testing.assert_allclose([float(line.split(",")[0]) for line in lines[1:]], expected.mean, rtol=1e-5)
    assert run("predict", out, table, "--out", tmp_path / "out.csv").exit_code == 0
    assert (tmp_path / "out.csv").read_text() == result.output


def test_predict_of_a_classifier_names_the_classes(tmp_path):
    out = tmp_path / "run"
    assert (
        run(
            "fit", MODELS / "iris_classifier.py", "--backend", BACKEND, "--steps", 20, "--out", out, "--quiet"
        ).exit_code
        == 0
    )
    table = tmp_path / "table.csv"
    table.write_text("5.1,3.5,1.4,0.2\n6.7,3.0,5.2,2.3\n")  # no header
    lines = run("predict", out, table).output.strip().splitlines()
    assert lines[0] == "label,p(setosa),p(versicolor),p(virginica)"
    assert len(lines) == 3
    assert lines[1].split(",")[0] in {"setosa", "versicolor", "virginica"}


def test_nuts_by_the_command_line(model_file, tmp_path):
    text = SMALL_MODEL.replace(
        '"num_steps": 40, "learning_rate": 0.03', '"num_warmup": 5, "num_chains": 2, "max_tree_depth": 3'
    )
    model_file.write_text(text)
    out = tmp_path / "run"
    result = run("fit", model_file, "--backend", BACKEND, "--method", "nuts", "--steps", 6, "--out", out, "--quiet")
    assert result.exit_code == 0, result.output
    assert {p.name for p in out.iterdir()} == (FILES - {"loss.png"}) | {"predicted.png"}


def test_version():
    assert run("--version").output.strip() == up.__version__


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "does not exist"),
        ("x = (", "fails when it is run: SyntaxError"),
        ("raise RuntimeError('no data today')", "fails when it is run: RuntimeError: no data today"),
        ("model = 1", "it has no `data`"),
        ("def data(): pass", "it has no `model`"),
        (SMALL_MODEL.replace('"num_steps"', '"num_step"'), "got 'num_step'. Did you mean 'num_steps'?"),
        (SMALL_MODEL.replace("return up.Data", "return (1, 2) or up.Data"), "must return up.Data(x, y, ...)"),
        (SMALL_MODEL.replace("return up.Data", "{}['pixels'] or up.Data"), "fails: KeyError: 'pixels'"),
        (SMALL_MODEL.replace("x[:40], 3.0", "x[:40, :1], 3.0"), "x must have 2 columns"),
        (SMALL_MODEL.replace("x[40:], 3.0", "x[40:, :1], 3.0"), "x_test must have 2 columns"),
    ],
)
def test_a_bad_model_file_is_exit_code_2_and_one_line(text, message, tmp_path):
    path = tmp_path / "bad.py"
    if text is not None:
        path.write_text(text)
    result = run("fit", path, "--backend", BACKEND, "--out", tmp_path / "run", "--quiet")
    assert result.exit_code == 2
    assert message in result.output
    assert result.output.startswith("error: ")
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("table", "message"),
    [
        ("left,other\n1,2\n", "missing: ['right']"),
        ("left,right\n1,2\n3,x\n", "row 2, column 'right' must be a number; got 'x'"),
        ("left,right\n1,\n", "row 1, column 'right' must be a number; got ''"),
        ("left,right\n1,nan\n", "must be finite; got nan in row 1, column 1"),
        ("left,right\n", "must have at least one row below its header"),
        ("", "it is empty"),
        ("links,rechts\n1,2\n", "its header is ['links', 'rechts']"),
        ("left;right\n1.234,5;2\n", "row 1, column 'left' must be a number; got '1.234,5'"),
        (b"left,right,town\n1,2,Orl\xe9ans\n", "table.csv must be text in UTF-8"),
    ],
)
def test_a_bad_table_is_exit_code_2_and_one_line(table, message, tmp_path, quick_run):
    path = tmp_path / "table.csv"
    path.write_bytes(table if isinstance(table, bytes) else table.encode())
    result = run("predict", quick_run, path)
    assert result.exit_code == 2
    assert message in result.output
    assert len(result.output.strip().splitlines()) == 1


@pytest.mark.parametrize("table", ["left,right\r\n1.5,2\r\n", "left;right\n1,5;2\n", "left\tright\n1.5\t2\n"])
@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16"])
def test_tables_of_a_spreadsheet_are_predicted(table, encoding, tmp_path, quick_run):
    path = tmp_path / "table.csv"
    path.write_bytes(table.encode(encoding))
    result = run("predict", quick_run, path)
    assert result.exit_code == 0, result.output
    mean = up.load(quick_run / "fit.npz").predict([[1.5, 2.0]]).mean[0]
    np.testing.assert_allclose(float(result.output.splitlines()[1].split(",")[0]), mean, rtol=1e-5)


def test_empty_cells_are_missing_values_of_a_circuit(tmp_path):
    x = np.random.default_rng(0).normal(size=(30, 2))
    names = {"feature_names": ["left", "right"], "class_names": ["nein", "über"]}
    fit = up.fit(
        up.Circuit(2, 2, neurons=2), x, (x[:, 0] > 0).astype(int), backend=BACKEND, method="em", num_steps=2,
        progress=False, **names,
    )  # fmt: skip
    fit.save(tmp_path / "fit.npz")
    (tmp_path / "table.csv").write_text("left,right\n1.5,\nNA,0.5\n")
    result = run("predict", tmp_path, tmp_path / "table.csv", "--out", tmp_path / "out.csv")
    assert result.exit_code == 0, result.output
    header, *lines = (tmp_path / "out.csv").read_text(encoding="utf-8").splitlines()
    assert header == "label,p(nein),p(über)"
    found = [[float(cell) for cell in line.split(",")[1:]] for line in lines]
    np.testing.assert_allclose(found, fit.predict([[1.5, np.nan], [np.nan, 0.5]]).probs, rtol=1e-5)


@pytest.fixture(scope="module")
def quick_run(tmp_path_factory):
    """A run folder that holds a fit."""
    folder = tmp_path_factory.mktemp("run")
    x = np.random.default_rng(0).normal(size=(10, 2))
    model = up.Regressor(up.Network((2, 3)), 1)
    fit = up.fit(
        model, x, x[:, 0], backend=BACKEND, method="map", num_steps=2, feature_names=["left", "right"], progress=False
    )
    fit.save(folder / "fit.npz")
    return folder


def test_a_folder_that_is_no_run(tmp_path):
    result = run("predict", tmp_path, tmp_path / "table.csv")
    assert result.exit_code == 2
    assert "must be a folder written by `ugmm-ppl fit`; it has no fit.npz" in result.output


@pytest.mark.long
def test_ctrl_c_keeps_what_was_reached(model_file, tmp_path):
    """A real signal to a real process in the middle of training."""
    model_file.write_text(SMALL_MODEL.replace('"num_steps": 40', '"num_steps": 2000000'))
    command = [
        sys.executable,
        "-W",
        "ignore",
        "-m",
        "ugmm_ppl",
        "fit",
        str(model_file),
        "--backend",
        BACKEND,
        "--out",
        str(tmp_path / "run"),
    ]
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a suite in the background may ignore the signal
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"TQDM_MININTERVAL": "0.1"}
    )
    signal.signal(signal.SIGINT, before)
    seen = ""
    deadline = time.monotonic() + 120
    while "loss=" not in seen and time.monotonic() < deadline:
        seen += process.stderr.read(1)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert "interrupted after" in err
    assert "test rmse" in out
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["interrupted"]
    assert 0 < metrics["steps"] < 2000000
