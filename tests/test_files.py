"""Fits in files: by path or open, whatever keeps bytes; what is no binary file is refused."""

import gzip
import io
import os
import tempfile
import threading
import zipfile

import numpy as np
import pytest
from helpers import refused

import ugmm_ppl as up
from ugmm_ppl import arviz
from ugmm_ppl.data import files

X = np.random.default_rng(0).normal(size=(20, 2))


@pytest.fixture(scope="module")
def fit():
    """A small one."""
    from conftest import INSTALLED

    backend = "pyro" if INSTALLED["pyro"] else "numpyro"
    model = up.Regressor(up.Network((2, 3)), 1)
    return up.fit(model, X, X[:, 0], backend=backend, method="map", num_steps=2, progress=False)


def same(found, fit):
    """Whether a fit that was read is the one that was written."""
    np.testing.assert_array_equal(found.outputs(X), fit.outputs(X))


class Remote:
    """A file of an object store: it takes and gives bytes, and knows no position."""

    def __init__(self, content=b""):
        self.content = content

    def __enter__(self):
        return self

    def __exit__(self, *error):
        pass

    def write(self, part):
        self.content += bytes(part)

    def read(self, size=-1):
        part = self.content if size < 0 else self.content[:size]
        self.content = self.content[len(part) :]
        return part


def test_open_files_of_every_kind(fit, tmp_path):
    buffer = io.BytesIO()
    fit.save(buffer)
    assert not buffer.closed
    content = buffer.getvalue()
    for kind in (Remote, tempfile.TemporaryFile, tempfile.SpooledTemporaryFile):
        with kind() as written:
            fit.save(written)
            if hasattr(written, "seek"):
                written.seek(0)
            same(up.load(written), fit)
    for opened in (open, gzip.open):
        with opened(tmp_path / "fit", "wb") as file:
            fit.save(file)
        with opened(tmp_path / "fit", "rb") as file:
            same(up.load(file), fit)
            assert not file.closed
    with zipfile.ZipFile(tmp_path / "all.zip", "w") as archive, archive.open("a/fit.npz", "w") as member:
        fit.save(member)
    with zipfile.ZipFile(tmp_path / "all.zip") as archive, archive.open("a/fit.npz") as member:
        same(up.load(member), fit)
    same(up.load(io.BytesIO(content)), fit)


def test_a_pipe_which_cannot_go_back(fit):
    end, start = os.pipe()

    def write():
        with os.fdopen(start, "wb", buffering=0) as file:
            fit.save(file)

    writer = threading.Thread(target=write)
    writer.start()
    with os.fdopen(end, "rb") as file:
        same(up.load(file), fit)
    writer.join()


def test_a_fit_is_written_and_read_from_where_a_file_stands(fit):
    buffer = io.BytesIO(b"header")
    buffer.seek(6)
    fit.save(buffer)
    assert buffer.getvalue().startswith(b"header")
    buffer.seek(6)
    same(up.load(buffer), fit)


@pytest.mark.parametrize("path", [str, os.fsencode, lambda path: path])
def test_paths_of_every_kind(fit, path, tmp_path):
    fit.save(path(tmp_path / "fit.npz"))
    same(up.load(path(tmp_path / "fit.npz")), fit)
    assert [p.name for p in tmp_path.iterdir()] == ["fit.npz"]


def test_what_was_there_stays_until_all_is_written(fit, tmp_path, monkeypatch):
    path = tmp_path / "fit.npz"
    path.write_bytes(b"before")

    def fails(file, **arrays):
        file.write(b"half")
        raise RuntimeError("half way")

    monkeypatch.setattr(np, "savez", fails)
    with pytest.raises(RuntimeError, match="half way"):
        fit.save(path)
    buffer = io.BytesIO()
    with pytest.raises(RuntimeError, match="half way"):
        fit.save(buffer)
    assert (path.read_bytes(), buffer.getvalue()) == (b"before", b"")
    assert [p.name for p in tmp_path.iterdir()] == ["fit.npz"]


def test_what_is_no_binary_file_is_refused(fit, tmp_path):
    path = tmp_path / "fit.npz"
    fit.save(path)
    for text in (io.StringIO(), (tmp_path / "text").open("w", encoding="utf-8")):
        with text, refused(TypeError, "path must be a binary file; got the text file", "mode 'wb'"):
            fit.save(text)
    for text in (io.StringIO("text"), path.open(encoding="utf-8"), path.open(encoding="latin-1")):
        with text, refused(TypeError, "path must be a binary file; got the text file", "mode 'rb'"):
            up.load(text)
    for nothing in (3, None, [path]):
        with refused(TypeError, "path must be a path or an open binary file; got"):
            fit.save(nothing)
        with refused(TypeError, "path must be a path or an open binary file; got"):
            up.load(nothing)
    with path.open("rb") as file, refused(ValueError, "path must be open for writing", "mode 'wb'"):
        fit.save(file)
    with (tmp_path / "other").open("wb") as file, refused(ValueError, "path must be open for reading", "mode 'rb'"):
        up.load(file)
    buffer = io.BytesIO()
    fit.save(buffer)
    with refused(ValueError, "path must have something to read", "path.seek(0)"):
        up.load(buffer)


def test_other_content_is_refused_by_the_name_of_the_file(tmp_path):
    array = io.BytesIO()
    np.save(array, np.arange(3))
    archive = io.BytesIO()
    np.savez(archive, a=np.arange(3))
    for content in (b"text", array.getvalue(), archive.getvalue(), archive.getvalue()[:200]):
        with refused(ValueError, "the file must be a file written by Fit.save"):
            up.load(io.BytesIO(content))
        (tmp_path / "other.npz").write_bytes(content)
        with refused(ValueError, "other.npz must be a file written by Fit.save"):
            up.load(tmp_path / "other.npz")
        with (tmp_path / "other.npz").open("rb") as file, refused(ValueError, "other.npz must be a file written by"):
            up.load(file)


def test_what_is_made_block_by_block_needs_a_path(fit):
    for function in (fit.export, arviz.read):
        with refused(TypeError, "path must be the path of a file or folder; got <_io.BytesIO", "of type BytesIO"):
            function(io.BytesIO())
    model = fit.model
    with refused(TypeError, "checkpoint must be the path of an .npz file; got <_io.BytesIO"):
        up.fit(model, X, X[:, 0], backend=fit.backend, checkpoint=io.BytesIO(), num_steps=2, progress=False)


def test_names_in_messages(tmp_path):
    with (tmp_path / "a.npz").open("wb") as file:
        assert files.called(file) == str(tmp_path / "a.npz")
    assert files.called(io.BytesIO()) == files.called(Remote()) == "the file"
    assert files.called(b"a.npz") == files.called("a.npz") == "a.npz"


@pytest.mark.long
@pytest.mark.filterwarnings("ignore:.*:UserWarning")
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")
def test_a_report_to_an_open_file(small_fits):
    buffer = io.BytesIO()
    small_fits.regressor.report(buffer, more_steps=False)
    assert buffer.getvalue().startswith(b"<!doctype html>")
    with refused(TypeError, "path must be a binary file; got the text file"):
        small_fits.regressor.report(io.StringIO())
