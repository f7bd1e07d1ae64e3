"""Training, sampling and evaluation on torch; mirrors `ugmm_ppl.numpyro.inference`. Arrays in and out are NumPy."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import pyro
import torch
from pyro import poutine
from pyro.infer import NUTS
from torch import Tensor

from ugmm_ppl.progress import Progress
from ugmm_ppl.training import Minimum, NutsDraws

if TYPE_CHECKING:
    from ugmm_ppl.guide import Guide
    from ugmm_ppl.model.base import NetworkModel


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which torch draws its random numbers from `seed`; the user's random state is left as it was."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def minimise(
    objective: Callable[..., Tensor],
    initial: Mapping[str, np.ndarray],
    noise_shapes: Mapping[str, tuple[int, ...]],
    data: tuple[np.ndarray, np.ndarray],
    batches: Iterator[np.ndarray],
    learning_rates: np.ndarray,
    *,
    seed: int,
    progress: Progress,
) -> Minimum:
    """Minimise a stochastic objective by Adam; arguments as in `ugmm_ppl.backend.Inference`."""
    x, y = (_tensor(a) for a in data)
    params = {name: _tensor(value).clone().requires_grad_() for name, value in initial.items()}
    optimiser = torch.optim.Adam(params.values(), lr=1.0, fused=True)
    losses: list[float] = []
    with seeded(seed), pyro.validation_enabled(False):
        try:
            for size in progress.blocks(len(learning_rates)):
                for _ in range(size):
                    rows = torch.as_tensor(next(batches), device=x.device)
                    optimiser.zero_grad()
                    loss = _loss(objective, params, _normals(noise_shapes), x[rows], y[rows])
                    loss.backward()
                    if not _all_finite(loss.detach(), [p.grad for p in params.values()]):
                        bad = {name: _numpy(p.grad) for name, p in params.items()}
                        return Minimum(_values(params), np.array(losses), failed=(len(losses), bad))
                    optimiser.param_groups[0]["lr"] = float(learning_rates[len(losses)])
                    optimiser.step()
                    losses.append(loss.item())
                progress.update(size, loss=float(np.mean(losses[-size:])))
        except KeyboardInterrupt:
            return Minimum(_values(params), np.array(losses), interrupted=True)
    return Minimum(_values(params), np.array(losses))


def guide_draws(
    guide: Guide, params: Mapping[str, np.ndarray], indices: range, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws `indices` of a guide, `(S, ...)` by site, and their log q `(S,)`; a draw depends on its number alone."""
    from ugmm_ppl.guide import constrain

    tensors = {name: _tensor(value) for name, value in params.items()}
    drawn, log_q = [], []
    with torch.no_grad():
        for index in indices:
            with seeded(int(np.random.SeedSequence([seed, index]).generate_state(1)[0])):
                unconstrained = guide.draw(tensors, _normals(guide.noise_shapes()))
            values, log_dets = constrain(guide.sites, unconstrained)
            drawn.append({name: _numpy(value) for name, value in values.items()})
            log_q.append(float(guide.log_q(tensors, unconstrained, log_dets)))
    return _stack(drawn), np.array(log_q)


def outputs(model: NetworkModel, draws: Mapping[str, np.ndarray], x: np.ndarray, chunk_size: int) -> np.ndarray:
    """Network outputs `(S, B, O)` for draws `(S, ...)`, a chunk of examples and one draw at a time."""
    from ugmm_ppl.pyro.backend import BACKEND

    size = len(next(iter(draws.values())))
    result = np.empty((size, len(x), model.num_outputs), dtype=_numpy(torch.empty(0)).dtype)
    with torch.no_grad(), pyro.validation_enabled(False):
        for s in range(size):
            run = poutine.condition(model.outputs, data={name: _tensor(value[s]) for name, value in draws.items()})
            for start in range(0, len(x), chunk_size):
                rows = slice(start, start + chunk_size)
                result[s, rows] = _numpy(run(BACKEND, _tensor(x[rows])))
    return result


def log_prior(model: NetworkModel, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log prior density of draws `(S, ...)`: `(S,)`."""
    from ugmm_ppl.pyro.backend import BACKEND

    result = np.empty(len(next(iter(draws.values()))))
    with torch.no_grad(), pyro.validation_enabled(False):
        for s in range(len(result)):
            values = {name: _tensor(value[s]) for name, value in draws.items()}
            sites = BACKEND.trace(model.parameters, values, BACKEND, torch.zeros(()))
            result[s] = sum(float(site.distribution.log_prob(site.value).sum()) for site in sites.values())
    return result


def prior_draws(model: NetworkModel, num_draws: int, seed: int) -> dict[str, np.ndarray]:
    """Draws from the prior, `(S, ...)` by site."""
    from ugmm_ppl.pyro.backend import BACKEND

    with torch.no_grad(), seeded(seed):
        traces = [BACKEND.trace(model.parameters, {}, BACKEND, torch.zeros(())) for _ in range(num_draws)]
    return _stack([{name: _numpy(site.value) for name, site in trace.items()} for trace in traces])


def nuts(
    model: Callable[..., Any],
    data: tuple[np.ndarray, np.ndarray],
    starts: list[dict[str, np.ndarray]],
    *,
    data_size: float,
    num_warmup: int,
    num_draws: int,
    max_tree_depth: int,
    seed: int,
    progress: Progress,
) -> NutsDraws:
    """Draw by NUTS, a draw of every chain in turn; arguments as in `ugmm_ppl.backend.Inference`."""
    x, y = (_tensor(a) for a in data)
    chains = []
    draws: list[dict[str, Tensor]] = []  # of all chains, (C, ...) by site
    interrupted = False
    with seeded(seed), pyro.validation_enabled(False):
        for start in starts:
            kernel = NUTS(lambda x, y: model(x, y, data_size=data_size), max_tree_depth=max_tree_depth)
            kernel.initial_params = {name: _tensor(value) for name, value in start.items()}
            kernel.setup(num_warmup, x, y)
            chains.append(kernel)
        try:
            states = [kernel.initial_params for kernel in chains]
            for _ in range(num_warmup):
                states = [kernel.sample(state) for kernel, state in zip(chains, states, strict=True)]
                progress.update(1)
            for _ in range(num_draws):
                states = [kernel.sample(state) for kernel, state in zip(chains, states, strict=True)]
                draws.append({name: torch.stack([state[name] for state in states]) for name in starts[0]})
                progress.update(1, diverging=sum(len(kernel.diagnostics()["divergences"]) for kernel in chains))
        except KeyboardInterrupt:
            if not draws:
                raise
            interrupted = True
    transforms = chains[0].transforms
    values = {name: torch.stack([draw[name] for draw in draws], 1) for name in starts[0]}
    diverging = np.zeros((len(chains), num_draws), dtype=bool)
    for chain, kernel in zip(diverging, chains, strict=True):
        chain[kernel.diagnostics()["divergences"]] = True
    return NutsDraws(
        {name: _numpy(transforms[name].inv(z) if name in transforms else z) for name, z in values.items()},
        {"diverging": diverging[:, : len(draws)]},
        interrupted,
    )


def _normals(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, Tensor]:
    return {name: torch.randn(shape) for name, shape in shapes.items()}


def _loss(objective: Callable[..., Tensor], params: Mapping[str, Tensor], *args: Any) -> Tensor:
    """The objective; NaN where torch refuses to factorise a matrix that has lost its meaning, as JAX has it."""
    try:
        return objective(params, *args)
    except torch.linalg.LinAlgError:
        return sum(p.sum() for p in params.values()) * math.nan


def _all_finite(loss: Tensor, gradients: list[Tensor]) -> bool:
    """Whether a loss and its gradients are finite; their 2-norm is fast and settles it, unless it overflows."""
    norm = torch.nn.utils.get_total_norm
    return bool((loss + norm(gradients)).isfinite() or (loss + norm(gradients, math.inf)).isfinite())


def _stack(draws: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}


def _tensor(a: np.ndarray) -> Tensor:
    kind = torch.get_default_dtype() if a.dtype.kind == "f" else None
    return torch.as_tensor(np.array(a), dtype=kind, device=torch.get_default_device())


def _numpy(a: Tensor) -> np.ndarray:
    return a.detach().cpu().numpy()


def _values(params: Mapping[str, Tensor]) -> dict[str, np.ndarray]:
    return {name: _numpy(value).copy() for name, value in params.items()}
