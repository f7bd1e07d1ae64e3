"""What the command line is given: a model file, or the folder of a run."""

from pathlib import Path
from typing import Any


def model_file(path: Path) -> None:
    """Refuse a model file that is not there."""
    if not path.is_file():
        raise FileNotFoundError(f"model file {path} does not exist.")


def no_python(path: Path) -> ValueError:
    """The error for a model file that is not called like one of Python."""
    return ValueError(f"model file {path} must be a Python file, NAME.py.")


def failing_model(path: Path, error: Exception) -> ValueError:
    """The error for a model file that has one itself."""
    return ValueError(f"model file {path} fails when it is run: {type(error).__name__}: {error}")


def model_names(path: Path, module: Any) -> None:
    """Refuse a model file without a model or data."""
    for name in ("model", "data"):
        if not hasattr(module, name):
            raise ValueError(
                f"model file {path} must define `model` and a function `data()`; it has no `{name}`. "
                "See models/ for examples."
            )


def failing_data(path: Path, error: Exception) -> ValueError:
    """The error for a function of a model file that has one itself."""
    return ValueError(f"data() in {path} fails: {type(error).__name__}: {error}")


def data(path: Path, got: Any, kind: type) -> None:
    """Refuse what is no data from the function of a model file."""
    if not isinstance(got, kind):
        raise TypeError(f"data() in {path} must return up.Data(x, y, ...); got {type(got).__name__}.")


def run_folder(path: Path) -> None:
    """Refuse a folder without a fit."""
    if not (path / "fit.npz").is_file():
        raise FileNotFoundError(f"{path} must be a folder written by `ugmm-ppl fit`; it has no fit.npz.")
