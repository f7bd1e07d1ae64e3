"""Sampling and evaluation on torch; mirrors `ugmm_ppl.numpyro.inference`. Arrays in and out are NumPy."""

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
from ugmm_ppl.pyro.arrays import kept_random_state, normals, seed_torch, tensors, to_numpy, to_tensor
from ugmm_ppl.sampling import NutsDraws, nuts_stats

if TYPE_CHECKING:
    from ugmm_ppl.guide import Guide
    from ugmm_ppl.model.base import Model


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which torch draws its random numbers from `seed`; the user's random state is left as it was."""
    with kept_random_state():
        seed_torch(seed)
        yield


def guide_draws(
    guide: Guide, params: Mapping[str, np.ndarray], indices: range, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws `indices` of a guide, `(S, ...)` by site, and their log q `(S,)`; a draw depends on its number alone."""
    from ugmm_ppl.guide import constrain

    own = {name: to_tensor(value) for name, value in params.items()}
    drawn, log_q = [], []
    with torch.no_grad():
        for index in indices:
            with seeded(int(np.random.SeedSequence([seed, index]).generate_state(1)[0])):
                unconstrained = guide.draw(own, normals(guide.noise_shapes()))
            values, log_dets = constrain(guide.sites, unconstrained)
            drawn.append({name: to_numpy(value) for name, value in values.items()})
            log_q.append(float(guide.log_q(own, unconstrained, log_dets)))
    return _stack(drawn), np.array(log_q)


def outputs(model: Model, draws: Mapping[str, np.ndarray], x: np.ndarray, chunk_size: int) -> np.ndarray:
    """Network outputs `(S, B, O)` for draws `(S, ...)`, a chunk of examples and one draw at a time."""
    from ugmm_ppl.pyro.backend import BACKEND

    size = len(next(iter(draws.values())))
    result = np.empty((size, len(x), model.num_outputs), dtype=to_numpy(torch.empty(0)).dtype)
    inputs = to_tensor(x)
    with torch.no_grad(), pyro.validation_enabled(False):
        for s in range(size):
            run = poutine.condition(model.outputs, data={name: to_tensor(value[s]) for name, value in draws.items()})
            for start in range(0, len(x), chunk_size):
                rows = slice(start, start + chunk_size)
                result[s, rows] = to_numpy(run(BACKEND, inputs[rows]))
    return result


def run(function: Callable[..., Any], *arguments: Any) -> tuple[np.ndarray, ...]:
    """Values of a function of arrays and dicts of arrays that returns arrays; described at `Inference`."""
    with torch.no_grad(), pyro.validation_enabled(False):
        found = function(*(tensors(argument) for argument in arguments))
    return tuple(to_numpy(a) for a in found)


def log_prior(model: Model, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log prior density of draws `(S, ...)`: `(S,)`."""
    from ugmm_ppl.pyro.backend import BACKEND

    result = np.empty(len(next(iter(draws.values()))))
    with torch.no_grad(), pyro.validation_enabled(False):
        for s in range(len(result)):
            values = {name: to_tensor(value[s]) for name, value in draws.items()}
            sites = BACKEND.trace(model.parameters, values, BACKEND, torch.zeros(()))
            result[s] = sum(float(site.distribution.log_prob(site.value).sum()) for site in sites.values())
    return result


def prior_draws(model: Model, num_draws: int, seed: int) -> dict[str, np.ndarray]:
    """Draws from the prior, `(S, ...)` by site."""
    from ugmm_ppl.pyro.backend import BACKEND

    with torch.no_grad(), seeded(seed):
        traces = [BACKEND.trace(model.parameters, {}, BACKEND, torch.zeros(())) for _ in range(num_draws)]
    return _stack([{name: to_numpy(site.value) for name, site in trace.items()} for trace in traces])


def nuts(
    model: Callable[..., Any],
    data: tuple[np.ndarray, ...],
    starts: list[dict[str, np.ndarray]],
    *,
    data_size: float,
    num_warmup: int,
    num_draws: int,
    max_tree_depth: int,
    seed: int,
    progress: Progress,
    own_targets: bool = False,
) -> NutsDraws:
    """Draw by NUTS, a draw of every chain in turn; arguments as in `ugmm_ppl.backend.Inference`."""
    x, y, *weights = (to_tensor(a) for a in data)
    targets = y if own_targets else [y] * len(starts)
    chains = []
    draws: list[dict[str, Tensor]] = []  # of all chains, (C, ...) by site
    moves: list[list[tuple[float, int]]] = []  # energy and leapfrog steps of all chains
    interrupted = False
    with seeded(seed), pyro.validation_enabled(False):
        for start, target in zip(starts, targets, strict=True):
            kernel = _Recording(lambda *data: model(*data, data_size=data_size), max_tree_depth=max_tree_depth)
            kernel.initial_params = {name: to_tensor(value) for name, value in start.items()}
            kernel.setup(num_warmup, x, target, *weights)
            chains.append(kernel)
        try:
            states = [kernel.initial_params for kernel in chains]
            for _ in range(num_warmup):
                states = [kernel.sample(state) for kernel, state in zip(chains, states, strict=True)]
                progress.update(1)
            for _ in range(num_draws):
                states = [kernel.sample(state) for kernel, state in zip(chains, states, strict=True)]
                draws.append({name: torch.stack([state[name] for state in states]) for name in starts[0]})
                moves.append([(kernel.energy, kernel.leapfrogs) for kernel in chains])
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
        {name: to_numpy(transforms[name].inv(z) if name in transforms else z) for name, z in values.items()},
        nuts_stats(diverging[:, : len(draws)], *np.transpose(moves)),
        interrupted,
    )


class _Recording(NUTS):
    """NUTS that knows the energy at the start of its last trajectory, and the leapfrog steps of it."""

    energy = math.nan
    leapfrogs = 0

    def _sample_r(self, name: str) -> Any:
        r, unscaled = super()._sample_r(name)
        self.energy, self.leapfrogs = float(self._kinetic_energy(unscaled) + self._potential_energy_last), 0
        return r, unscaled

    def _build_basetree(self, *args: Any) -> Any:
        self.leapfrogs += 1
        return super()._build_basetree(*args)


def _stack(draws: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}
