"""Settings of a training, and what stops one."""

import difflib
import os
import warnings
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks.basic import choice, listed


class NonFiniteError(FloatingPointError):
    """Training met a loss or gradient that is NaN or infinite.

    Attributes:
        step: Number of the step, counted from 0.
        sites: Names of the sites whose gradient was not finite.
        fit: The `Fit` at the last good state, or None if there was none.
    """

    def __init__(self, step: int, sites: list[str], fit: Any = None) -> None:
        """Say where it happened and what to do."""
        self.step, self.sites, self.fit = step, sites, fit
        super().__init__(
            f"needed a finite loss and gradient at every step; got NaN or inf at step {step}, in the gradient of "
            f"{', '.join(sites) or 'no single site (the loss itself)'}. The last good state is kept in the attribute "
            "`fit` of this error. Lower learning_rate, or give `scale` a prior that keeps it away from zero."
        )


class CheckpointError(OSError):
    """A checkpoint could not be written.

    Attributes:
        fit: The `Fit` as it was reached, or None if there was none.
    """

    def __init__(self, path: Any, reason: OSError) -> None:
        """Say what happened and what to do."""
        self.fit: Any = None
        self.reached: Any = None
        super().__init__(
            f"the checkpoint {path} needed to be written; got {reason}. The file that was there before is kept, and "
            "what was reached is in the attribute `fit` of this error. Make room or give another path, and fit again."
        )


def unreadable_checkpoint(path: Any, reason: Exception) -> ValueError:
    """The error for a file that is no checkpoint, or a broken one."""
    return ValueError(
        f"checkpoint must be a file that a fit of this version left, or a new path; {path} cannot be read as one "
        f"({reason}). It is kept as it is. Give another path, or delete it to begin anew."
    )


def other_checkpoint(path: Any, then: Mapping[str, Any], now: Mapping[str, Any]) -> ValueError:
    """The error for the checkpoint of a fit with other settings or data."""
    return ValueError(
        f"checkpoint must belong to this fit; {path} was left by a fit with {then}, and this one has {now}. "
        "Give the same settings and data, another path, or delete the file to begin anew."
    )


def checkpoint_of_other_backend(path: Any, backend: str) -> None:
    """Warn that nothing is trained."""
    warnings.warn(
        f"{path} holds this training, ended, by backend={backend!r}; its result is taken, no step. Give another path "
        "to train anew.",
        stacklevel=6,
    )


def no_setting(name: str, method: str, having: Sequence[str], known: Iterable[str]) -> TypeError:
    """The error for a setting that a method, or any method, does not have."""
    if having:
        return TypeError(f"method={method!r} has no setting {name}, which belongs to {listed(having)}. Leave it out.")
    near = difflib.get_close_matches(name, known, 1)
    hint = f"Did you mean {near[0]!r}?" if near else "help(ugmm_ppl.fit) lists them."
    return TypeError(f"fit must be given arguments that it has; got {name!r}. {hint}")


def patience(patience: int | None, validation: Any) -> None:
    """Refuse to wait for what is not watched."""
    if patience is not None and validation is None:
        raise ValueError(
            f"patience counts evaluations on held-out data, and needs validation; got patience={patience} and "
            "validation=None. Give validation=0.1, say."
        )


def checkpoint_path(name: str, got: Any) -> Any:
    """Return the path of a checkpoint, if it is one of an .npz file."""
    if not isinstance(got, str | os.PathLike):
        raise TypeError(f"{name} must be the path of an .npz file; got {got!r}.")
    if not os.fspath(got).endswith(".npz"):
        raise ValueError(f"{name} must be the path of an .npz file; got {got!r}.")
    return got


def callbacks(name: str, got: Any) -> Any:
    """Return callbacks, if they are a list of functions."""
    if not isinstance(got, list | tuple):
        raise TypeError(f"{name} must be a list of functions; got {got!r}. Give [{got!r}].")
    for callback in got:
        if not callable(callback):
            raise TypeError(f"{name} must be functions of a ugmm_ppl.infer.Moment; got {callback!r}.")
    return got


def optimizer(got: Any, backend: str, valid: Iterable[str]) -> None:
    """Check that an optimiser is a known name or an object of the backend's library."""
    if isinstance(got, str):
        choice("optimizer", got, valid)
    elif backend == "numpyro" and not (hasattr(got, "init") and hasattr(got, "update")):
        raise TypeError(
            f"optimizer must be {' or '.join(map(repr, valid))} or an optax.GradientTransformation, e.g. "
            f"optax.adamw(1.0); got {got!r}."
        )
    elif backend == "pyro" and not callable(got):
        raise TypeError(
            f"optimizer must be {' or '.join(map(repr, valid))} or a function of parameters that makes a "
            f"torch.optim.Optimizer, e.g. torch.optim.AdamW; got {got!r}."
        )


def torch_optimizer(got: Any, base: type) -> None:
    """Check what the function of the user made."""
    if not isinstance(got, base):
        raise TypeError(f"optimizer must make a torch.optim.Optimizer from a list of tensors; it made {got!r}.")


def schedule_factors(factors: np.ndarray) -> None:
    """Check what a learning-rate schedule of the user gave."""
    bad = ~(np.isfinite(factors) & (factors >= 0.0))
    if bad.any():
        step = int(np.argmax(bad))
        raise ValueError(
            f"schedule must give finite factors >= 0 of the learning rate; got {factors[step]} at step {step} of "
            f"{len(factors)}. It is called with the fraction of the steps that is done, in [0, 1)."
        )


def split_batch(rows: int, parts: int) -> None:
    """Refuse batches with fewer rows than parts."""
    if rows < parts:
        raise ValueError(
            f"split_batch needs at least one row for each of num_particles={parts}; got batches of "
            f"{rows} rows. Give fewer particles or larger batches."
        )


def no_centre() -> ValueError:
    """The error for a start from a fit without a point for each restart."""
    return ValueError("start must be a fit by 'svi' or 'map', whose restarts have a centre; got one by a sampler.")


def start_sites(points: Mapping[str, np.ndarray], sites: Mapping[str, Any]) -> None:
    """Check that a fit to start from has the sites of the model."""
    then = {name: value.shape for name, value in points.items()}
    now = {name: site.unconstrained_shape for name, site in sites.items()}
    if then != now:
        raise ValueError(f"start must be a fit of the same model, whose sites are {now}; got a fit with {then}.")
