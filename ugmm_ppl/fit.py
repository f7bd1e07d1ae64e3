"""`fit`: from a model and data to a posterior, by one of four methods on either backend."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backend import load_backend
from ugmm_ppl.blocks import FAMILIES
from ugmm_ppl.data import Standardizer, names_of, no_variance
from ugmm_ppl.elbo import negative_elbo
from ugmm_ppl.guide import constrain, latent_sites
from ugmm_ppl.laplace import laplace
from ugmm_ppl.model.base import NetworkModel
from ugmm_ppl.posterior import Fit
from ugmm_ppl.progress import Progress
from ugmm_ppl.training import Minimum, batches, learning_rates

METHODS = ("svi", "map", "laplace", "nuts")


def fit(
    model: NetworkModel,
    x: Any,
    y: Any,
    *,
    backend: str = "numpyro",
    method: str = "svi",
    guide: str | Mapping[str, str] = "normal",
    bayesian: str | Sequence[str] = "all",
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
    max_tree_depth: int = 10,
    seed: int = 0,
    device: str = "cpu",
    dtype: str | None = None,
    standardize: bool | str = True,
    feature_names: Any = None,
    class_names: Any = None,
    progress: bool = True,
) -> Fit:
    """Fit a model to data.

    "svi" minimises the negative ELBO over a Gaussian family, "map" finds the maximum of the joint density, "laplace"
    puts a Gaussian around it by the curvature there (`ugmm_ppl.laplace`), "nuts" samples the posterior. The likelihood
    of a mini-batch is multiplied by N / B, once, so that losses are in nats of the whole data set.

    Args:
        model: `Classifier` or `Regressor`.
        x: Inputs `(N, K)`, finite.
        y: Class codes 0..classes-1, or real targets, `(N,)`.
        backend: "pyro" or "numpyro".
        method: "svi", "map", "laplace" or "nuts".
        guide: Gaussian family of "svi" and "laplace": "normal" (mean field), "full", "lowrank" ("svi" only), or "delta"
            (a point, the same as method="map"); or a mapping from patterns of site names to families, e.g.
            `{"readout.*": "full", "*": "normal"}`: one independent block per pattern, over the sites that it is the
            first to match. A full block has at most 4096 entries.
        bayesian: Sites that are inferred: "all", "readout", or a list of site names and patterns. All others are held
            at a point: for "svi" and "laplace" one that is optimised with its prior, for "nuts" their start value.
        num_steps: Steps of Adam for "svi", "map" and "laplace".
        batch_size: Rows of a mini-batch; None for all. "nuts" always takes all.
        learning_rate: Peak of the one-cycle learning rate.
        num_restarts: Independent runs of "svi" or "map"; their draws become chains.
        temperature: Factor of the KL term (a cold posterior below 1); 1 is Bayes' rule.
        init_scale: Start scale of the guide, in unconstrained units.
        rank: Rank of the "lowrank" guide.
        num_chains: Chains of "nuts".
        num_warmup: Adaptation steps of "nuts".
        num_draws: Draws per chain that "nuts" keeps.
        max_tree_depth: "nuts" takes at most 2^max_tree_depth - 1 leapfrog steps per draw.
        seed: Seed of everything random. The same seed on the same machine gives the same result.
        device: "cpu", "gpu", "cuda" or "cuda:0".
        dtype: "float32" or "float64"; None is "float64" for "nuts" and "float32" otherwise.
        standardize: True standardises each column of x, "jointly" all columns by one mean and scale (pixels), False
            none. With either the target of a regressor is standardised too. Predictions are in the user's units.
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
    families = checks.guide(guide, FAMILIES)
    if checks.choice("method", method, METHODS) == "svi" and set(families.values()) == {"delta"}:
        method = "map"
    checks.inference(method, families, bayesian)
    dtype = checks.choice("dtype", dtype or ("float64" if method == "nuts" else "float32"), ("float32", "float64"))
    counts = {"num_steps": num_steps, "num_restarts": num_restarts, "rank": rank, "num_chains": num_chains}
    counts |= {"num_warmup": num_warmup, "num_draws": num_draws, "max_tree_depth": max_tree_depth}
    counts |= {} if batch_size is None else {"batch_size": batch_size}
    for name, count in counts.items():
        checks.count(name, count)
    for name, number in {"learning_rate": learning_rate, "temperature": temperature, "init_scale": init_scale}.items():
        checks.number(name, number, 0.0)
    checks.count("seed", seed, least=0)
    checks.sampler(method, model.network)
    primitives = load_backend(backend)
    with primitives.settings(dtype=dtype, device=device):
        x = checks.inputs(x, model.network.sizes[0])
        y = model.check_target(y, len(x))
        features = names_of(feature_names, x.shape[1], "x", "feature_names")
        classes = None if model.real_target else names_of(class_names, model.num_outputs, "", "class_names")
        x_units, y_units = _units(standardize, x, y if model.real_target else None, features)
        result = Fit(
            model=model, backend=backend, method=method, dtype=dtype, bayesian=bayesian, device=device,
            guide={"map": "delta", "nuts": "normal"}.get(method, guide if isinstance(guide, str) else families),
            seed=seed, temperature=temperature, init_scale=init_scale, rank=rank, x_units=x_units,
            y_units=y_units, feature_names=features, class_names=classes, train_x=x, train_y=y,
        )  # fmt: skip
        if method == "nuts":
            _sample(
                result, num_chains, progress, num_warmup=num_warmup, num_draws=num_draws, max_tree_depth=max_tree_depth
            )
        else:
            rates = learning_rates(num_steps, learning_rate)
            _train(result, num_restarts, progress, rates, batch_size=min(batch_size or len(x), len(x)))
    return result


def _sample(fit: Fit, num_chains: int, progress: bool, **settings: int) -> None:
    """Run NUTS, one chain per start."""
    backend, (x, y) = load_backend(fit.backend), fit.network_data()
    starts = [_start(fit, x, fit.seed + chain) for chain in range(num_chains)]
    held, _ = constrain(
        fit.family.sites, {n: backend.array(u) for n, u in starts[0].items() if n not in fit.family.inferred}
    )
    model = backend.condition(functools.partial(fit.model, backend), held)
    starts = [{n: u for n, u in start.items() if n in fit.family.inferred} for start in starts]
    with Progress(settings["num_warmup"] + settings["num_draws"], f"nuts, {num_chains} chains", show=progress) as bar:
        drawn = backend.inference.nuts(
            model, (x, y), starts, data_size=len(x) / fit.temperature, seed=fit.seed,
            progress=bar, **settings,
        )  # fmt: skip
    fit.state, fit.stats, fit.interrupted = [drawn.values], drawn.stats, drawn.interrupted
    fit.held = {name: np.asarray(value) for name, value in held.items()}


def _train(fit: Fit, num_restarts: int, progress: bool, rates: np.ndarray, *, batch_size: int) -> None:
    """Run "svi", "map" or "laplace" from several starts."""
    backend, (x, y) = load_backend(fit.backend), fit.network_data()
    guide = fit.family.at_points() if fit.method == "laplace" else fit.family
    objective = functools.partial(
        negative_elbo, backend, functools.partial(fit.model, backend), guide, data_size=len(x),
        temperature=fit.temperature,
    )  # fmt: skip
    for restart in range(num_restarts):
        seed = fit.seed + restart
        label = f"{fit.method} {restart + 1}/{num_restarts}" if num_restarts > 1 else fit.method
        with Progress(len(rates), label, show=progress) as bar:
            minimum = backend.inference.minimise(
                objective, guide.initial(_start(fit, x, seed)), guide.noise_shapes(), (x, y),
                batches(len(x), batch_size, seed), rates, seed=seed, progress=bar,
            )  # fmt: skip
        params = minimum.params if guide is fit.family else _around(fit, minimum, x)
        fit.add_restart(params, minimum.losses, len(rates))
        if minimum.failed:
            step, gradients = minimum.failed
            raise checks.NonFiniteError(step, guide.culprits(gradients), fit)
        if minimum.interrupted:
            fit.interrupted = True
            return


def _around(fit: Fit, minimum: Minimum, x: np.ndarray) -> dict[str, np.ndarray]:
    """The Gaussian around a mode; around a last good state, whose curvature may mean nothing, one of init_scale."""
    backend, point = load_backend(fit.backend), {n: minimum.params[f"{n}:loc"] for n in fit.family.sites}
    if minimum.failed:
        return fit.family.initial(point)
    return laplace(backend, fit.model, fit.family, point, x, temperature=fit.temperature)


def _units(
    standardize: bool | str, x: np.ndarray, y: np.ndarray | None, features: list[str]
) -> tuple[Standardizer | None, Standardizer | None]:
    """What standardises x, and y if it is given."""
    if standardize not in (True, False, "jointly"):
        raise ValueError(f"standardize must be True, False or 'jointly'; got {standardize!r}. Use True for tables.")
    if standardize is False:
        return None, None
    if standardize is True:
        checks.constant_columns(no_variance(x), features)
    return Standardizer.of(x, jointly=standardize == "jointly"), None if y is None else Standardizer.of(y)


def _start(fit: Fit, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
    """Unconstrained start values of one run, for inputs as the network sees them."""
    return latent_sites(load_backend(fit.backend), fit.model, fit.model.initial_values(x, seed), seed)[1]
