"""`fit`: from a model and data to a posterior, by one of three methods on either backend."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backend import Backend, load_backend
from ugmm_ppl.data import Standardizer, names_of
from ugmm_ppl.guide import GUIDES, latent_sites, negative_elbo, start_values
from ugmm_ppl.model.base import NetworkModel
from ugmm_ppl.posterior import Fit
from ugmm_ppl.progress import Progress
from ugmm_ppl.training import Minimum, batches, learning_rates

METHODS = ("svi", "map", "nuts")


def fit(
    model: NetworkModel,
    x: Any,
    y: Any,
    *,
    backend: str = "numpyro",
    method: str = "svi",
    guide: str = "normal",
    num_steps: int = 2000,
    batch_size: int | None = None,
    learning_rate: float = 0.01,
    num_restarts: int = 1,
    temperature: float = 1.0,
    init_scale: float = 0.05,
    rank: int = 10,
    num_chains: int = 4,
    num_warmup: int = 500,
    num_draws: int = 500,
    seed: int = 0,
    device: str = "cpu",
    dtype: str | None = None,
    standardize: bool = True,
    feature_names: Any = None,
    class_names: Any = None,
    progress: bool = True,
) -> Fit:
    """Fit a model to data.

    "svi" minimises the negative ELBO over a Gaussian family, "map" finds the maximum of the joint density, "nuts"
    samples the posterior. The likelihood of a mini-batch is multiplied by N / B, once, so that losses are in nats of
    the whole data set.

    Args:
        model: `Classifier` or `Regressor`.
        x: Inputs `(N, K)`, finite.
        y: Class codes 0..classes-1, or real targets, `(N,)`.
        backend: "pyro" or "numpyro".
        method: "svi", "map" or "nuts".
        guide: Family of "svi": "normal" (mean field), "lowrank", or "delta" (the same as method="map").
        num_steps: Steps of Adam for "svi" and "map".
        batch_size: Rows of a mini-batch; None for all. "nuts" always takes all.
        learning_rate: Peak of the one-cycle learning rate.
        num_restarts: Independent runs of "svi" or "map"; their draws become chains.
        temperature: Factor of the KL term (a cold posterior below 1); 1 is Bayes' rule.
        init_scale: Start scale of the guide, in unconstrained units.
        rank: Rank of the "lowrank" guide.
        num_chains: Chains of "nuts".
        num_warmup: Adaptation steps of "nuts".
        num_draws: Draws per chain that "nuts" keeps.
        seed: Seed of everything random. The same seed on the same machine gives the same result.
        device: "cpu", "gpu", "cuda" or "cuda:0".
        dtype: "float32" or "float64"; None is "float64" for "nuts" and "float32" otherwise.
        standardize: Standardise the columns of x, and y of a regressor. Predictions are in the user's units all the
            same.
        feature_names: Names of the K inputs.
        class_names: Names of the classes.
        progress: Show a progress bar.

    Returns:
        A `Fit`. If training is interrupted from the keyboard it holds what was reached, and `interrupted` is true.

    Raises:
        ValueError, TypeError: Bad data or settings; the message says what is needed.
        NonFiniteError: A loss or gradient was not finite; its attribute `fit` holds the last good state.
    """
    if not isinstance(model, NetworkModel):
        raise TypeError(f"model must be an up.Classifier or up.Regressor; got {model!r}.")
    checks.choice("method", method, METHODS)
    checks.choice("guide", guide, GUIDES)
    if method == "svi" and guide == "delta":
        method = "map"
    if dtype is None:
        dtype = "float64" if method == "nuts" else "float32"
    checks.choice("dtype", dtype, ("float32", "float64"))
    for name, value in (
        ("num_steps", num_steps),
        ("num_restarts", num_restarts),
        ("rank", rank),
        ("num_chains", num_chains),
        ("num_warmup", num_warmup),
        ("num_draws", num_draws),
    ):
        checks.count(name, value)
    for name, number in (
        ("learning_rate", learning_rate),
        ("temperature", temperature),
        ("init_scale", init_scale),
    ):
        checks.number(name, number, 0.0)
    checks.count("seed", seed, least=0)
    if method == "nuts" and any(model.network.dropout_rates()):
        raise ValueError(
            f"method='nuts' needs a network without dropout; got dropout={model.network.dropout}. Use dropout=0.0."
        )

    x = checks.inputs(x, model.network.sizes[0])
    y = model.check_target(y, len(x))
    if batch_size is not None:
        batch_size = min(checks.count("batch_size", batch_size), len(x))
    features = names_of(feature_names, x.shape[1], "x", "feature_names")
    classes = None if model.real_target else names_of(class_names, model.num_outputs, "", "class_names")
    x_units = y_units = None
    if standardize:
        checks.constant_columns(x.std(0), features)
        x_units = Standardizer.of(x)
        y_units = Standardizer.of(y) if model.real_target else None

    primitives = load_backend(backend)
    result = Fit(
        model=model,
        backend=backend,
        method=method,
        guide="delta" if method == "map" else guide,
        dtype=dtype,
        device=device,
        seed=seed,
        temperature=temperature,
        init_scale=init_scale,
        rank=rank,
        x_units=x_units,
        y_units=y_units,
        feature_names=features,
        class_names=classes,
        train_x=x,
        train_y=y,
    )
    data = (result.to_network(x), result.to_network_target(y))
    with primitives.settings(dtype=dtype, device=device):
        if method == "nuts":
            starts = [_start(primitives, model, data, seed + c) for c in range(num_chains)]
            drawn = primitives.inference.nuts(
                functools.partial(model, primitives),
                data,
                starts,
                data_size=len(x) / temperature,
                num_warmup=num_warmup,
                num_draws=num_draws,
                seed=seed,
                progress=progress,
            )
            result.state, result.stats = [drawn.values], drawn.stats
            return result
        rates = learning_rates(num_steps, learning_rate)
        for restart in range(num_restarts):
            label = f"{method} {restart + 1}/{num_restarts}" if num_restarts > 1 else method
            with Progress(num_steps, label, show=progress) as bar:
                minimum = _minimise(primitives, result, data, batch_size or len(x), rates, seed + restart, bar)
            result.add_restart(minimum.params, minimum.losses, num_steps)
            if minimum.failed:
                step, grads = minimum.failed
                raise checks.NonFiniteError(step, _culprits(grads), result)
            if minimum.interrupted:
                result.interrupted = True
                break
    return result


def _start(
    backend: Backend, model: NetworkModel, data: tuple[np.ndarray, np.ndarray], seed: int
) -> dict[str, np.ndarray]:
    """Unconstrained start values of one run."""
    x = backend.array(data[0][:1])
    with backend.inference.seeded(seed):
        sites = latent_sites(backend, model.outputs, backend, x)
        return start_values(backend, model.outputs, sites, model.initial_values(data[0], seed), backend, x)


def _minimise(
    backend: Backend,
    fit: Fit,
    data: tuple[np.ndarray, np.ndarray],
    batch_size: int,
    rates: np.ndarray,
    seed: int,
    progress: Progress,
) -> Minimum:
    """One run of "svi" or "map"."""
    guide = fit.make_guide()
    objective = functools.partial(
        negative_elbo,
        backend,
        functools.partial(fit.model, backend),
        guide,
        data_size=len(data[0]),
        temperature=fit.temperature,
    )
    return backend.inference.minimise(
        objective, guide.initial(_start(backend, fit.model, data, seed)), guide.noise_shapes(), data,
        batches(len(data[0]), batch_size, seed), rates, seed=seed, progress=progress,
    )  # fmt: skip


def _culprits(grads: dict[str, np.ndarray]) -> list[str]:
    """Sites with a gradient that is not finite."""
    bad = [name for name, grad in grads.items() if not np.isfinite(grad).all()]
    return sorted({name.partition(":")[0] for name in bad})
