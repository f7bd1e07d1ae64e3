"""Checkpoints: a killed training goes on to the same bits; files of other fits, broken files and full disks."""

import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from conftest import needs_both
from helpers import refused
from sklearn.datasets import load_iris

import ugmm_ppl as up
from ugmm_ppl.fitting import storage
from ugmm_ppl.infer.checkpoint import digest

pytestmark = pytest.mark.usefixtures("quick_compiler")

X, Y = load_iris(return_X_y=True)
MODEL = up.Classifier(up.Network((4, 5), dropout=0.2), 3)
SETTINGS = {
    "num_steps": 120, "batch_size": 32, "num_restarts": 2, "validation": 0.2, "every": 20, "progress": False, "seed": 3,
}  # fmt: skip

CHILD = """
import sys, time
sys.path.insert(0, {tests!r})
from test_checkpoint import MODEL, SETTINGS, X, Y
import ugmm_ppl as up
up.fit(MODEL, X, Y, backend={backend!r}, checkpoint={path!r}, callbacks=[lambda _: time.sleep(0.1)], **SETTINGS)
"""


def same(one, other):
    """Whether two fits have the same bits."""
    for name in storage.HISTORIES:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    for a, b in zip(one.state, other.state, strict=True):
        assert a.keys() == b.keys()
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.long
def test_a_killed_training_goes_on_to_the_same_bits(backend_name, tmp_path):
    """SIGKILL once a checkpoint is there; the file then belongs to some step in the middle."""
    path = tmp_path / "run.npz"
    code = CHILD.format(tests=os.path.dirname(__file__), backend=backend_name, path=str(path))
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}
    killed = subprocess.Popen([sys.executable, "-c", code], env=environment)
    while not path.exists() and killed.poll() is None:
        time.sleep(0.001)
    killed.send_signal(signal.SIGKILL)
    assert killed.wait() == -signal.SIGKILL
    with np.load(path) as file:
        assert 0 < int(file["step"]) < SETTINGS["num_steps"]
    steps = []
    settings = {"backend": backend_name, "callbacks": [lambda moment: steps.append(moment.step)]} | SETTINGS
    resumed = up.fit(MODEL, X, Y, checkpoint=path, **settings)
    assert min(steps) > 20
    same(resumed, up.fit(MODEL, X, Y, **settings))


def test_an_interrupted_training_goes_on_in_the_same_process(backend_name, tmp_path):
    """Ctrl-C writes a checkpoint too; and a training that has ended is not trained again."""
    plain = up.fit(MODEL, X, Y, backend=backend_name, **SETTINGS)
    path = tmp_path / "run.npz"

    def stop(moment):
        if moment.step >= 60:
            raise KeyboardInterrupt

    interrupted = up.fit(MODEL, X, Y, backend=backend_name, checkpoint=path, callbacks=[stop], **SETTINGS)
    assert interrupted.interrupted
    assert np.isfinite(interrupted.losses).sum() == 120
    steps = []
    settings = {"backend": backend_name, "checkpoint": path, "callbacks": [lambda m: steps.append(m.step)]} | SETTINGS
    on = up.fit(MODEL, X, Y, **settings)
    assert min(steps) > 60
    same(on, plain)
    steps.clear()
    same(up.fit(MODEL, X, Y, **settings), plain)
    assert not steps


def test_a_checkpoint_of_another_fit_or_a_broken_one_is_refused_and_kept(backend_name, tmp_path):
    path = tmp_path / "run.npz"
    settings = {"backend": backend_name, "checkpoint": path, "progress": False, "num_steps": 3}
    model = up.Classifier(up.Network((4, 2)), 3)
    up.fit(model, X, Y, **settings)
    before = path.read_bytes()
    with refused(ValueError, "checkpoint must belong to this fit", "'learning_rate': 0.01", "'learning_rate': 0.5"):
        up.fit(model, X, Y, learning_rate=0.5, **settings)
    with refused(ValueError, "checkpoint must belong to this fit", "'data'"):
        up.fit(model, X + 0.1 * Y[:, None], Y, **settings)
    with refused(ValueError, "checkpoint must belong to this fit", "'model'"):
        up.fit(up.Classifier(up.Network((4, 2)), 3, up.Prior(loc=up.dist.Normal(0.0, 2.0))), X, Y, **settings)
    assert path.read_bytes() == before
    for broken in (before[:100], b"", b"something else"):
        path.write_bytes(broken)
        with refused(ValueError, "checkpoint must be a file that a fit of this version left", "cannot be read"):
            up.fit(model, X, Y, **settings)
        assert path.read_bytes() == broken


def test_a_full_disk_keeps_the_old_file_and_what_was_reached(backend_name, tmp_path, monkeypatch):
    path = tmp_path / "run.npz"
    written = []

    def full(file, **arrays):
        if written:
            file.write(b"half of it")
            raise OSError(28, "No space left on device")
        written.append(path)
        original(file, **arrays)

    original = np.savez
    monkeypatch.setattr(np, "savez", full)
    with pytest.raises(up.CheckpointError, match=r"run\.npz needed to be written; got .*No space left") as caught:
        up.fit(MODEL, X, Y, backend=backend_name, checkpoint=path, **SETTINGS)
    with np.load(path) as file:
        assert int(file["step"]) == 20
    assert [p.name for p in tmp_path.iterdir()] == ["run.npz"]
    reached = caught.value.fit
    assert np.isfinite(reached.losses[0]).sum() == 40
    assert np.isfinite(reached.predict(X[:3]).probs).all()
    with pytest.raises(up.CheckpointError, match="needed to be written"):
        up.fit(MODEL, X, Y, backend=backend_name, checkpoint=tmp_path / "no folder" / "run.npz", **SETTINGS)


def test_checkpoints_hold_no_pickles(backend_name, tmp_path):
    path = tmp_path / "run.npz"
    up.fit(MODEL, X, Y, backend=backend_name, checkpoint=path, **SETTINGS | {"num_steps": 3})
    with np.load(path, allow_pickle=False) as file:
        assert all(file[name].dtype != object for name in file.files)


def test_a_start_by_map_has_a_checkpoint_of_its_own(backend_name, tmp_path):
    settings = SETTINGS | {"num_steps": 40}
    fit = up.fit(MODEL, X, Y, backend=backend_name, start="map", checkpoint=tmp_path / "run.npz", **settings)
    assert {p.name for p in tmp_path.iterdir()} == {"run.npz", "run.map.npz"}
    same(up.fit(MODEL, X, Y, backend=backend_name, start="map", checkpoint=tmp_path / "run.npz", **settings), fit)


def test_a_digest_knows_values_shapes_and_dtypes():
    a = np.arange(6.0)
    assert digest(a) == digest(a.copy())
    assert len({digest(a), digest(a.reshape(2, 3)), digest(a.astype(np.float32)), digest(a + 1.0), digest(a, a)}) == 5


@needs_both
@pytest.mark.parametrize("validation", [None, 0.2])
def test_a_training_that_has_ended_is_taken_by_the_other_backend(validation, tmp_path):
    """Its parameters are the same in both; one under way is refused, as its noise and its optimiser are not."""
    path, settings = tmp_path / "run.npz", SETTINGS | {"validation": validation, "num_steps": 40}
    settings |= {"checkpoint": path}
    ended = up.fit(MODEL, X, Y, backend="pyro", **settings)
    with pytest.warns(UserWarning, match="holds this training, ended, by backend='pyro'; its result is taken"):
        taken = up.fit(MODEL, X, Y, backend="numpyro", **settings)
    same(taken, ended)
    assert taken.backend == "numpyro"
    np.testing.assert_allclose(taken.predict(X, num_draws=5).probs.sum(1), 1.0)
    with np.load(path) as file:
        under_way = {name: a for name, a in file.items() if name != "final"} | {"ended": np.array(False)}
    storage.write_arrays(path, under_way)
    with refused(ValueError, "checkpoint must belong to this fit", "'backend': 'pyro'"):
        up.fit(MODEL, X, Y, backend="numpyro", **settings)
