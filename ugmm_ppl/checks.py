"""Every check of user input, and the wording of every error: what is needed, what came, what to do."""

import contextlib
import difflib
import math
import os
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, TypeAlias

import numpy as np

from ugmm_ppl.ops import Array

Shape: TypeAlias = Sequence[int]

BLOCK_ENTRIES = 2**20
"""Entries of an array that are looked at together."""

MISSING_INPUT = (
    "Drop such rows or impute the column first: a model of y given x has no exact answer to a missing x, as it says "
    "nothing about x."
)


class MissingExtraError(ImportError):
    """A library that an optional part needs is not installed."""


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


def schedule_factors(factors: np.ndarray) -> None:
    """Check what a learning-rate schedule of the user gave."""
    bad = ~(np.isfinite(factors) & (factors >= 0.0))
    if bad.any():
        step = int(np.argmax(bad))
        raise ValueError(
            f"schedule must give finite factors >= 0 of the learning rate; got {factors[step]} at step {step} of "
            f"{len(factors)}. It is called with the fraction of the steps that is done, in [0, 1)."
        )


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


def training(method: str, validation: Any, patience: Any, checkpoint: Any, callbacks: Any) -> None:
    """Check the settings of a training that depend on each other."""
    if patience is not None and validation is None:
        raise ValueError(
            f"patience counts evaluations on held-out data, and needs validation; got patience={patience} and "
            "validation=None. Give validation=0.1, say."
        )
    if checkpoint is not None and method == "nuts":
        raise ValueError(
            "checkpoint needs method='svi' or 'map'; got 'nuts', which has none. Interrupted, it keeps its draws."
        )
    if checkpoint is not None and (
        not isinstance(checkpoint, str | os.PathLike) or not os.fspath(checkpoint).endswith(".npz")
    ):
        kind = ValueError if isinstance(checkpoint, str | os.PathLike) else TypeError
        raise kind(f"checkpoint must be the path of an .npz file; got {checkpoint!r}.")
    if not isinstance(callbacks, list | tuple):
        raise TypeError(f"callbacks must be a list of functions; got {callbacks!r}. Give [{callbacks!r}].")
    for callback in callbacks:
        if not callable(callback):
            raise TypeError(f"callbacks must be functions of a ugmm_ppl.training.Moment; got {callback!r}.")


def held_out_pair(validation: Any) -> None:
    """Check that `validation` is a share or a pair of arrays."""
    pair = isinstance(validation, tuple | list)
    if isinstance(validation, bool | str) or (pair and len(validation) != 2):
        kind = ValueError if pair else TypeError
        raise kind(f"validation must be a share in (0, 1) or held-out data (x, y); got {_shown(validation)}.")


def held_out_rows(share: Any, rows: int) -> int:
    """The number of rows that `validation` holds out, which leaves some of each."""
    count = round(number("validation", share, 0.0, 1.0) * rows)
    if not 0 < count < rows:
        raise ValueError(
            f"validation must leave at least one row on either side; got {share} of {rows} rows. "
            "Give another share, or held-out data (x, y)."
        )
    return count


def start_sites(points: Mapping[str, np.ndarray], sites: Mapping[str, Any]) -> None:
    """Check that a fit to start from has the sites of the model."""
    then = {name: value.shape for name, value in points.items()}
    now = {name: site.unconstrained_shape for name, site in sites.items()}
    if then != now:
        raise ValueError(f"start must be a fit of the same model, whose sites are {now}; got a fit with {then}.")


def torch_optimizer(got: Any, base: type) -> None:
    """Check what the function of the user made."""
    if not isinstance(got, base):
        raise TypeError(f"optimizer must make a torch.optim.Optimizer from a list of tensors; it made {got!r}.")


def choice(what: str, got: Any, valid: Iterable[str]) -> str:
    """Return `got` if it is one of `valid`, else raise a ValueError that names the nearest one."""
    options = list(valid)
    if isinstance(got, str) and got in options:
        return got
    near = difflib.get_close_matches(str(got), options, n=1, cutoff=0.4)
    hint = f" Did you mean {near[0]!r}?" if near else ""
    raise ValueError(f"{what} must be one of {', '.join(map(repr, options))}; got {got!r}.{hint}")


def flag(what: str, got: Any) -> None:
    """Check that a setting is True or False."""
    if not isinstance(got, bool | np.bool_):
        raise TypeError(f"{what} must be True or False; got {got!r}.")


def names(what: str, got: Iterable[str], valid: Iterable[str]) -> None:
    """Refuse unknown names, each with the nearest valid one."""
    options = list(valid)
    for name in got:
        choice(what, name, options)


def count(what: str, got: Any, least: int = 1) -> int:
    """Return `got` as an int if it is a whole number of at least `least`."""
    if isinstance(got, bool | np.bool_) or not isinstance(got, int | np.integer):
        raise TypeError(f"{what} must be a whole number; got {got!r} of type {type(got).__name__}.")
    if got < least:
        raise ValueError(f"{what} must be at least {least}; got {got}.")
    return int(got)


def number(what: str, got: Any, low: float, high: float = math.inf, *, closed_low: bool = False) -> float:
    """Return `got` as a float if it lies in (low, high), or [low, high) with `closed_low`."""
    if isinstance(got, bool) or not isinstance(got, int | float | np.integer | np.floating):
        raise TypeError(f"{what} must be a number; got {got!r} of type {type(got).__name__}.")
    if not ((low <= got if closed_low else low < got) and got < high):
        raise ValueError(f"{what} must lie in {'[' if closed_low else '('}{low:g}, {high:g}); got {got}.")
    return float(got)


def inputs(
    x: Any, features: int, *, what: str = "x", where: str = "layer 0", convert: bool = True, first_row: int = 0
) -> np.ndarray:
    """Return x as a float `(B, features)` NumPy array, or say what is wrong with it.

    Floats are not copied, nor are memory maps, which are read a block at a time.

    Args:
        x: What the user gave: anything that becomes an array.
        features: Number of inputs of the network.
        what: Name of the argument, for the message.
        where: Who needs that many features, for the message.
        convert: Make floats of whole numbers, which copies them; False leaves that to `floats`.
        first_row: Number of the first row of x, for the message, where x is a part of something longer.

    Raises:
        TypeError: The values are not numbers.
        ValueError: Not 2-D, empty, a wrong number of columns, NaN or infinite values.
    """
    a = _numeric(x, what, convert=convert)
    if a.ndim != 2:
        raise ValueError(
            f"{what} must be 2-D, (examples, {features} features); got shape {a.shape}."
            + (f" For a single example use {what}[None, :]." if a.ndim == 1 else "")
        )
    if a.shape[0] == 0:
        raise ValueError(
            f"{what} must have at least one row; got shape {a.shape}. Check how the data were read or split."
        )
    if a.shape[1] != features:
        raise ValueError(
            f"{what} must have {features} columns, the number of inputs of {where}; got shape {a.shape}. "
            f"Give {what} the network's columns, or the network sizes=({a.shape[1]}, ...)."
        )
    _finite(a, what, MISSING_INPUT, first_row)
    return a


def floats(a: np.ndarray) -> np.ndarray:
    """Floating-point numbers as they are, whole numbers as float64."""
    return a.astype(np.float64) if a.dtype.kind in "iub" else a


def labels(y: Any, rows: int, classes: int) -> np.ndarray:
    """Return y as an int `(B,)` array of class codes 0..classes-1, or say what is wrong with it."""
    a = _same_length(_numpy(_given(y)), rows)
    if a.dtype.kind not in "iub":
        if a.dtype.kind != "f":
            raise TypeError(
                f"y must hold whole class codes 0..{classes - 1}; got dtype {a.dtype}. "
                "Encode names first, e.g. numpy.unique(y, return_inverse=True)."
            )
        _finite(a, "y", "Drop such rows first.")
        fractional = np.flatnonzero(a != np.round(a))
        if fractional.size:
            raise ValueError(
                f"y must hold whole class codes 0..{classes - 1}; got {a[fractional[0]]} in row {fractional[0]}. "
                "For a real-valued target use Regressor."
            )
    outside = np.flatnonzero((a < 0) | (a >= classes))
    if outside.size:
        raise ValueError(
            f"y must lie in 0..{classes - 1} (classes={classes}); got {a[outside[0]]} in row {outside[0]}"
            f" ({outside.size} such rows). Recode y, or give the model more classes."
        )
    return a.astype(np.int64)


def targets(y: Any, rows: int) -> np.ndarray:
    """Return y as a float `(B,)` array of finite targets, or say what is wrong with it."""
    a = _same_length(_numeric(_given(y), "y"), rows)
    _finite(a, "y", "Drop such rows first.")
    return a


def no_module(got: Any, kind: str, example: str) -> TypeError:
    """The error for something else than a module of the backend's library."""
    return TypeError(f"encoder must make a {kind}, e.g. {example}; it made {got!r} of type {type(got).__name__}.")


def module_with_state(module: Any) -> ValueError:
    """The error for a module that is no pure function of its parameters."""
    return ValueError(
        f"encoder must make modules without a state besides their parameters; got {type(module).__name__} with "
        "buffers, running means or random numbers. Leave out batch normalisation and dropout."
    )


def streamable(x: Any) -> None:
    """Refuse what is neither an array nor a stream of arrays."""
    if isinstance(x, str | bytes) or not (hasattr(x, "shape") or isinstance(x, Iterable)):
        raise TypeError(
            f"x must be a 2-D array or an iterable of 2-D arrays; got {x!r} of type {type(x).__name__}. "
            "Open a file first, e.g. numpy.load(path, mmap_mode='r')."
        )


def held_out(x: np.ndarray, y: np.ndarray, train_x: np.ndarray | None, train_y: np.ndarray | None) -> None:
    """Refuse rows `(B, K)` and `(B,)` that are all among the training data, if these are known."""
    if train_x is None or train_y is None:
        return
    known = {hash((row.tobytes(), value.tobytes())) for row, value in zip(train_x, train_y, strict=True)}
    x, y = x.astype(train_x.dtype, copy=False), y.astype(train_y.dtype, copy=False)
    if all(hash((row.tobytes(), value.tobytes())) in known for row, value in zip(x, y, strict=True)):
        raise ValueError(
            "stacking needs held-out rows; got rows that the fit was trained on, where a restart that overfits "
            "predicts best and would get the weight. Split the data before fit, and give the rows left out."
        )


def weighing(how: str, method: str, temperature: float, given: bool) -> None:
    """Refuse ways to weigh restarts that do not apply to a fit, or lack their data."""
    if how == "elbo" and (method != "svi" or temperature != 1.0):
        raise ValueError(
            "weights by 'elbo' need method='svi' and temperature=1.0, whose loss is a bound of the evidence; got "
            f"method={method!r}, temperature={temperature}. Use 'stacking' on held-out rows."
        )
    if how == "stacking" and not given:
        raise ValueError("weights by 'stacking' need x and y of held-out rows; got none. Give rows kept out of fit.")
    if how != "stacking" and given:
        raise ValueError(f"weights by {how!r} use no data; got x or y. Leave them out, or use 'stacking'.")


def constant_columns(constant: np.ndarray, feature_names: list[str]) -> None:
    """Warn about columns without variance, marked in `constant` `(K,)`, which are kept with scale 1."""
    columns = np.flatnonzero(constant)
    if columns.size:
        shown = ", ".join(feature_names[k] for k in columns[:5]) + (", ..." if columns.size > 5 else "")
        warnings.warn(
            f"{columns.size} of {constant.size} columns of x have zero variance ({shown}); they are kept, with "
            "scale 1. Drop them if they mean nothing; for pixels use standardize='jointly'.",
            stacklevel=4,
        )


def guide(families: Any, valid: Sequence[str]) -> dict[str, str]:
    """Return families of a guide by pattern; one family stands for all sites, the pattern "*"."""
    if not isinstance(families, Mapping):
        return {"*": choice("guide", families, valid)}
    if not families or not all(isinstance(pattern, str) for pattern in families):
        raise ValueError(
            "guide must be one family, or map patterns of site names to families, e.g. "
            f"{{'readout.*': 'full', '*': 'normal'}}; got {families!r}."
        )
    return {pattern: choice(f"guide[{pattern!r}]", family, valid) for pattern, family in families.items()}


def guide_patterns(patterns: Iterable[str], chosen: Mapping[str, str | None], inferred: Iterable[str]) -> None:
    """Refuse inferred sites that no pattern matches, and patterns that are the first to match no site at all."""
    left = [site for site in inferred if chosen[site] is None]
    if left:
        raise ValueError(
            f"guide needs a pattern for every inferred site; got none that matches {_listed(left)}. "
            "Add '*' with a family as the last one."
        )
    for pattern in patterns:
        if pattern not in chosen.values():
            raise ValueError(
                f"every pattern of guide must be the first to match some site; got {pattern!r}, which is it "
                f"for none of {_listed(chosen)}. Correct it, take it out, or put it before a wider one."
            )


def full_block(pattern: str, entries: int, most: int) -> None:
    """Refuse a full covariance that is too large."""
    if entries > most:
        raise ValueError(
            f"a full guide needs at most {most} entries, as its covariance has the square of that; the sites of "
            f"{pattern!r} have {entries}. Use 'lowrank', or a mapping such as {{'readout.*': 'full', '*': 'normal'}}."
        )


def bayesian(sites: Any, readout: str) -> list[str]:
    """Return the patterns of the sites that are inferred; `readout` is what "readout" stands for."""
    if isinstance(sites, str):
        named = {"all": "*", "readout": readout}
        if sites not in named:
            raise ValueError(
                f"bayesian must be 'all', 'readout' or a list of site names; got {sites!r}. Try [{sites!r}]."
            )
        return [named[sites]]
    if (
        not isinstance(sites, list | tuple)
        or not (patterns := list(sites))
        or not all(isinstance(p, str) for p in patterns)
    ):
        raise ValueError(
            "bayesian must be 'all', 'readout' or a list of site names or patterns, e.g. ['layers.0.*']; "
            f"got {sites!r}."
        )
    return patterns


def bayesian_patterns(matched: Mapping[str, Sequence[str]], sites: Iterable[str]) -> None:
    """Refuse patterns of inferred sites that match none."""
    for pattern, names_ in matched.items():
        if not names_:
            raise ValueError(
                f"every name in bayesian must match a site; got {pattern!r}. The sites are {_listed(sites)}."
            )


def inference(method: str, families: Mapping[str, str], inferred: Any) -> None:
    """Refuse settings of guide and bayesian that the method has no meaning for."""
    if method == "map" and inferred != "all":
        raise ValueError(
            f"bayesian needs a method that infers, 'svi', 'laplace' or 'nuts'; got bayesian={inferred!r} and a point "
            "at every site. Leave bayesian out, or choose another method or guide."
        )
    unknown = set(families.values()) - {"normal", "full", "delta"}
    if method == "laplace" and (unknown or set(families.values()) == {"delta"}):
        raise ValueError(
            "method='laplace' needs a guide of 'normal' (diagonal) and 'full' blocks; got "
            f"{_listed(families.values())}. With too many parameters for 'full' use bayesian='readout', or 'normal'."
        )


def no_information(model: Any) -> NotImplementedError:
    """The error for a model without the curvature that a Laplace approximation needs."""
    return NotImplementedError(
        f"method='laplace' needs a model with the method `information`; {type(model).__name__} has none. Use 'svi'."
    )


def no_curvature(sites: Iterable[str]) -> ValueError:
    """The error for a precision that is not positive definite."""
    return ValueError(
        f"a Laplace approximation needs a positive definite precision; got one that is not for {_listed(sites)}. Give "
        "these sites Normal priors, or more training steps, or leave them out of bayesian."
    )


def no_em(model: Any) -> ValueError:
    """The error for a method that a model has not."""
    return ValueError(
        f"method='em' needs a Circuit, whose expected counts are exact; got {type(model).__name__}. Use 'svi' or 'map'."
    )


def sampler(method: str, network: Any) -> None:
    """Refuse dropout where the density must not change from call to call."""
    if method == "nuts" and any(network.dropout_rates()):
        raise ValueError(f"method='nuts' needs a network without dropout; got dropout={network.dropout}. Use 0.0.")


def mixture_parameters(loc: Array, scale: Array, logits: Array | None, probs: Array | None, *, values: bool) -> None:
    """Check the arguments of `UnivariateGaussianMixture`.

    Args:
        loc: Component means.
        scale: Component scales.
        logits: Log weights, not normalised, or None.
        probs: Weights, or None.
        values: Look at the values too, not only at names and shapes.

    Raises:
        ValueError: Both or neither of logits and probs, no component axis, shapes that do not broadcast, or values
            outside their support.
    """
    if (logits is None) == (probs is None):
        raise ValueError(
            f"exactly one of logits and probs is needed; got {'neither' if logits is None else 'both'}. "
            "logits are any real numbers, probs are weights that sum to one."
        )
    weights: Any = logits if probs is None else probs
    name = "logits" if probs is None else "probs"
    shapes = {"loc": np.shape(loc), "scale": np.shape(scale), name: np.shape(weights)}
    said = ", ".join(f"{key} {tuple(shape)}" for key, shape in shapes.items())
    if all(len(shape) == 0 for shape in shapes.values()):
        raise ValueError(
            f"a last axis of K components is needed; got shapes {said}. Wrap scalars, e.g. loc[..., None]."
        )
    try:
        broadcast = np.broadcast_shapes(*shapes.values())
    except ValueError:
        raise ValueError(
            f"shapes (..., K) that broadcast are needed; got {said}. Give each axis one size, or 1."
        ) from None
    if broadcast[-1] == 0:
        raise ValueError(f"at least one component is needed; got shapes {said}. Check how they were sliced.")
    if values:
        weights = _numpy(weights)
        components = np.broadcast_to(weights, (*weights.shape[:-1], broadcast[-1]))
        _mixture_values(_numpy(loc), _numpy(scale), name, components)


def probabilities(u: Array) -> None:
    """Check the argument of a quantile function."""
    values = _numpy(u)
    _first_bad(
        (values >= 0.0) & (values <= 1.0), values, "u", "a probability in [0, 1]", "Look for NaN, or divide by 100."
    )


def reading(value: Array, noise_scale: Array) -> None:
    """Check a noisy reading of a value."""
    value, noise_scale = _numpy(value), _numpy(noise_scale)
    _first_bad(np.isfinite(value), value, "value", "finite", "Look for NaN upstream.")
    good = (noise_scale > 0.0) & np.isfinite(noise_scale)
    _first_bad(good, noise_scale, "noise_scale", "positive and finite", "Give the standard deviation of the noise.")


def moments(mean: Array, stddev: Array, skewness: Array) -> None:
    """Check the moments that a mixture is made from."""
    mean, stddev, skewness = _numpy(mean), _numpy(stddev), _numpy(skewness)
    _first_bad(np.isfinite(mean), mean, "mean", "finite", "Look for NaN upstream.")
    good = (stddev > 0.0) & np.isfinite(stddev)
    _first_bad(good, stddev, "stddev", "positive and finite", "Use the square root of a variance.")
    _first_bad(np.isfinite(skewness), skewness, "skewness", "finite", "Look for NaN upstream.")


def component(k: Any, components: int) -> int:
    """Return the number of a component as an int."""
    if isinstance(k, bool | np.bool_) or not isinstance(k, int | np.integer):
        raise TypeError(f"k must be a whole number; got {k!r} of type {type(k).__name__}.")
    if not -components <= k < components:
        raise ValueError(
            f"k must be one of the components 0..{components - 1}; got {k}. Negative k count from the end."
        )
    return int(k)


def not_converged(what: str, tolerance: float) -> FloatingPointError:
    """The error for a numerical method that does not reach its tolerance."""
    return FloatingPointError(
        f"{what} needed two successive answers closer than tolerance={tolerance:g}; got none. Give a larger tolerance."
    )


def _shown(value: Any) -> str:
    """What came, shortly."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(names_: Iterable[str]) -> str:
    return ", ".join(map(repr, names_))


def _mixture_values(loc: np.ndarray, scale: np.ndarray, name: str, weights: np.ndarray) -> None:
    _first_bad(np.isfinite(loc), loc, "loc", "finite", "Look for NaN upstream.")
    _first_bad((scale > 0) & np.isfinite(scale), scale, "scale", "positive and finite", "Use exp of a log scale.")
    if name == "logits":
        _first_bad(weights < math.inf, weights, name, "real, or -inf for weight zero", "Look for NaN upstream.")
        alive = np.isfinite(weights).any(-1)
        _first_bad(
            alive,
            weights.max(-1),
            name,
            "finite for at least one component",
            "Keep one component of each row.",
        )
        return
    _first_bad(weights >= 0, weights, name, "non-negative", "Use logits for unconstrained values.")
    total = weights.sum(-1)
    good = np.abs(total - 1.0) < 1e-6 if weights.dtype == np.float64 else np.abs(total - 1.0) < 1e-4
    _first_bad(good, total, f"the sum of {name} over the last axis", "one", "Divide by the sum, or use logits.")


def _first_bad(good: np.ndarray, values: np.ndarray, what: str, need: str, do: str) -> None:
    if not np.all(good):
        index = tuple(int(i) for i in np.argwhere(~np.asarray(good))[0])
        at = f" at index {index}" if index else ""
        raise ValueError(
            f"{what} must be {need}; got {np.asarray(values)[index]}{at}, in shape {np.shape(values)}. {do}"
        )


def _numpy(a: Array) -> np.ndarray:
    return a.detach().cpu().numpy() if hasattr(a, "detach") else np.asarray(a)


def _numeric(a: Any, what: str, *, convert: bool = True) -> np.ndarray:
    array = np.asarray(_numpy(a) if hasattr(a, "detach") else a)
    if array.dtype.kind not in "iubf":
        raise TypeError(
            f"{what} must hold real numbers; got dtype {array.dtype}. Encode text and categories as numbers first."
        )
    return floats(array) if convert else array


def _finite(a: np.ndarray, what: str, do: str, first_row: int = 0) -> None:
    if a.dtype.kind != "f":
        return
    step = max(1, BLOCK_ENTRIES * len(a) // max(1, a.size))
    first, total = None, 0
    for start in range(0, len(a), step):
        bad = ~np.isfinite(a[start : start + step])
        if bad.any():
            total += int(bad.sum())
            first = first or (start + int(np.argwhere(bad)[0][0]), *np.argwhere(bad)[0][1:].tolist())
    if first:
        where = f"row {first_row + first[0]}" + "".join(f", column {k}" for k in first[1:])
        raise ValueError(f"{what} must be finite; got {a[first]} in {where} ({total} such values). {do}")


def _given(y: Any) -> Any:
    if y is None:
        raise TypeError("y must hold one value per row of x; got None. A model of x alone is up.Circuit.")
    return y


def _same_length(y: np.ndarray, rows: int) -> np.ndarray:
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.ndim != 1:
        raise ValueError(
            f"y must be 1-D, one value per row of x; got shape {y.shape}. Use y.ravel() or pick one column."
        )
    if len(y) != rows:
        raise ValueError(f"y must have one value per row of x, {rows}; got {len(y)}. Check how they were split.")
    return y


def model_parts(network: Any, prior: Any) -> None:
    """Check that a model is made of a Network and a Prior."""
    from ugmm_ppl.network import Network
    from ugmm_ppl.prior import Prior

    if not isinstance(network, Network):
        raise TypeError(f"network must be an up.Network, e.g. up.Network((4, 32)); got {network!r}.")
    if not isinstance(prior, Prior):
        raise TypeError(f"prior must be an up.Prior, e.g. up.Prior(loc=up.dist.Normal(0.0, 1.0)); got {prior!r}.")
    depth = len(network.sizes) - (network.readout == "linear")
    for index in prior.layers:
        if index >= depth:
            raise ValueError(f"Prior.layers names layers 0..{depth - 1} of sizes={network.sizes}; got layer {index}.")


@contextlib.contextmanager
def building(spec: Any) -> Iterator[None]:
    """Turn a PPL's refusal of a distribution's arguments into a message that names the description."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the prior {spec!r} could not be built: {error}. "
            f"Give the arguments that the PPL's class {spec.name} takes."
        ) from error


def no_device(name: str | int, available: list[str]) -> ValueError:
    """The error for a device that is not there."""
    mend = "" if len(available) > 1 else " For a GPU, install the build of torch or JAX for it."
    return ValueError(f"device must be one of those present, {', '.join(map(repr, available))}; got {name!r}.{mend}")


def fit_of_another_device(name: str) -> str:
    """The words of the warning that a fit is loaded where its device is not."""
    return f"the fit was made on {name!r}, which is not here: it predicts on the CPU. load(path, device=...) chooses."


def layer(in_features: Any, out_features: Any, prior: Any, dropout: Any) -> None:
    """Check the arguments of `UGMMLayer`."""
    from ugmm_ppl.prior import Prior

    count("in_features", in_features)
    count("out_features", out_features)
    number("dropout", dropout, 0.0, 1.0, closed_low=True)
    if prior is not None and not isinstance(prior, Prior):
        raise TypeError(f"prior must be an up.Prior or None; got {prior!r}.")


def last_axis(x: Array, features: int) -> None:
    """Check the last axis of a layer's input."""
    shape = tuple(np.shape(x))
    if not shape or shape[-1] != features:
        raise ValueError(
            f"the layer needs inputs of shape (..., {features}), its in_features; got shape {shape}. "
            "Give the layer the width of its inputs, or the inputs that width."
        )


def activation_shapes(x: Shape, loc: Shape, scale: Shape, log_weights: Shape) -> None:
    """Check the shapes of the arguments of equation (2)."""
    told = f"got x {tuple(x)}, loc {tuple(loc)}, scale {tuple(scale)}, log_weights {tuple(log_weights)}"
    if len(x) < 1:
        raise ValueError(f"x must have shape (..., K); {told}.")
    for name, shape in {"scale": scale, "log_weights": log_weights, "loc": loc}.items():
        if len(shape) < 2:
            raise ValueError(f"{name} must have shape (..., J, K), neurons by inputs; {told}.")
    try:
        own = np.broadcast_shapes(tuple(loc[-2:]), tuple(scale[-2:]), tuple(log_weights[-2:]))
    except ValueError:
        raise ValueError(f"loc, scale and log_weights must agree in (J, K), their last two axes; {told}.") from None
    if x[-1] != own[1] and 1 not in (x[-1], own[1]):
        raise ValueError(f"x must have {own[1]} inputs, as the parameters have, in its last axis; {told}.")
    if own[1] < 1 or x[-1] < 1:
        raise ValueError(f"a neuron needs at least one input, K >= 1; {told}.")
    try:
        np.broadcast_shapes(tuple(x[:-1]), tuple(loc[:-2]), tuple(scale[:-2]), tuple(log_weights[:-2]))
    except ValueError:
        raise ValueError(
            f"the leading axes of x (before K) and of the parameters (before J, K) must broadcast; {told}."
        ) from None


def floating(what: str, dtype: str, is_floating: bool) -> None:
    """Check that a computation is asked for in floating-point numbers."""
    if not is_floating:
        raise TypeError(f"{what} needs floating-point arrays, float32 or float64; got {dtype}. Convert them first.")


def no_kernel(name: str, problem: str) -> RuntimeError:
    """UGMM_PPL_KERNEL=native or triton, and it cannot run."""
    return RuntimeError(
        f"UGMM_PPL_KERNEL={name} asks for the {name} kernel, which cannot run: {problem}. "
        "Mend that, or set UGMM_PPL_KERNEL=auto."
    )


def slow_kernel(problem: str) -> str:
    """The words of the warning that the native kernel is not there."""
    return (
        f"the native kernel is not used: {problem}. A slower one in pure Python takes its place. To build it, install "
        "a C++ compiler (GCC or Clang), then ugmm-ppl again; UGMM_PPL_KERNEL=chunked turns this warning off."
    )


def slow_gpu_kernel(problem: str) -> str:
    """The words of the warning that the Triton kernels do not run on a CUDA device."""
    return (
        f"the Triton kernels are not used on this GPU: {problem}. A slower one takes their place. Triton comes with "
        "torch for CUDA, and needs a C compiler; UGMM_PPL_KERNEL=chunked turns this warning off."
    )
