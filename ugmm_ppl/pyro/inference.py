"""Sampling and evaluation on torch; mirrors `ugmm_ppl.numpyro.inference`. Arrays in and out are NumPy."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from pyro.infer import NUTS
from torch import Tensor

from ugmm_ppl.backends.draws import NutsDraws, nuts_stats
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.ops.torch_arrays import (
    default_dtype,
    kept_random_state,
    normals,
    own_generator,
    seed_torch,
    tensors,
    to_numpy,
    to_tensor,
)
from ugmm_ppl.pyro.turns import RandomState, exclusive, in_turns, unchecked

if TYPE_CHECKING:
    from ugmm_ppl.guides.guide import Guide
    from ugmm_ppl.models.base import Model


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which torch draws its random numbers from `seed`; the user's random state is left as it was."""
    with exclusive(), kept_random_state():
        seed_torch(seed)
        yield


def guide_draws(
    guide: Guide, params: Mapping[str, np.ndarray], indices: range, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws `indices` of a guide, `(S, ...)` by site, and their log q `(S,)`; a draw depends on its number alone."""
    from ugmm_ppl.guides.sites import constrain

    own = {name: to_tensor(value) for name, value in params.items()}
    drawn, log_q = [], []
    generator = own_generator()
    with torch.no_grad():
        for index in indices:
            generator.manual_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
            unconstrained = guide.draw(own, normals(guide.noise_shapes(), generator))
            values, log_dets = constrain(guide.sites, unconstrained)
            drawn.append({name: to_numpy(value) for name, value in values.items()})
            log_q.append(float(guide.log_q(own, unconstrained, log_dets)))
    return _stack(drawn), np.array(log_q)


def outputs(model: Model, draws: Mapping[str, np.ndarray], x: np.ndarray, chunk_size: int) -> np.ndarray:
    """Network outputs `(S, B, O)` for draws `(S, ...)`, a chunk of examples and one draw at a time."""
    from ugmm_ppl.pyro.backend import BACKEND

    size = len(next(iter(draws.values())))
    result = np.empty((size, len(x), model.num_outputs), dtype=to_numpy(torch.empty(0, dtype=default_dtype())).dtype)
    inputs, handlers = to_tensor(x), model.needs_handlers(draws)
    names = draws if handlers else model.site_priors()

    def evaluate(s: int) -> None:
        values = {name: to_tensor(draws[name][s]) for name in names}
        for start in range(0, len(x), chunk_size):
            rows = slice(start, start + chunk_size)
            if handlers:
                found = BACKEND.condition(model.outputs, values)(BACKEND, inputs[rows])
            else:
                found = model.evaluate(BACKEND, values, inputs[rows])
            result[s, rows] = to_numpy(found)

    with torch.no_grad():
        if handlers:
            in_turns(evaluate, size, unchecked)
        else:  # nothing that threads share: none waits
            for s in range(size):
                evaluate(s)
    return result


def run(function: Callable[..., Any], *arguments: Any) -> tuple[np.ndarray, ...]:
    """Values of a function of arrays and dicts of arrays that returns arrays; described at `Inference`."""
    with torch.no_grad():
        found = function(*(tensors(argument) for argument in arguments))
    return tuple(to_numpy(a) for a in found)


def log_prior(model: Model, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log prior density of draws `(S, ...)`: `(S,)`."""
    return np.asarray(sum(log_priors(model, draws).values()))


def log_priors(model: Model, draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by site."""
    from ugmm_ppl.pyro.backend import BACKEND

    found: list[dict[str, np.ndarray]] = []
    like = torch.zeros((), dtype=default_dtype())

    def evaluate(s: int) -> None:
        values = {name: to_tensor(value[s]) for name, value in draws.items()}
        sites = BACKEND.trace(model.parameters, values, BACKEND, like)
        found.append({n: np.asarray(float(site.distribution.log_prob(site.value).sum())) for n, site in sites.items()})

    with torch.no_grad():
        in_turns(evaluate, len(next(iter(draws.values()))), unchecked)
    return _stack(found)


def prior_draws(model: Model, num_draws: int, seed: int) -> dict[str, np.ndarray]:
    """Draws from the prior, `(S, ...)` by site."""
    from ugmm_ppl.pyro.backend import BACKEND

    drawn: list[dict[str, np.ndarray]] = []
    like = torch.zeros((), dtype=default_dtype())

    def draw(_: int) -> None:
        trace = BACKEND.trace(model.parameters, {}, BACKEND, like)
        drawn.append({name: to_numpy(site.value) for name, site in trace.items()})

    with torch.no_grad():
        in_turns(draw, num_draws, RandomState(seed))
    return _stack(drawn)


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
    """Draw by NUTS, a draw of every chain in turn; arguments as in `ugmm_ppl.backends.base.Inference`."""
    x, y, *weights = (to_tensor(a) for a in data)
    targets = y if own_targets else [y] * len(starts)
    chains: list[_Recording] = []
    draws: list[dict[str, Tensor]] = []  # of all chains, (C, ...) by site
    moves: list[list[tuple[float, int]]] = []  # energy and leapfrog steps of all chains
    interrupted = False
    random = RandomState(seed)

    def set_up(chain: int) -> None:
        kernel = _Recording(lambda *data: model(*data, data_size=data_size), max_tree_depth=max_tree_depth)
        kernel.initial_params = {name: to_tensor(value) for name, value in starts[chain].items()}
        kernel.setup(num_warmup, x, targets[chain], *weights)
        chains.append(kernel)

    def move(number: int) -> None:
        step, chain = divmod(number, len(chains))
        states[chain] = chains[chain].sample(states[chain])
        if chain < len(chains) - 1:
            return
        if step < num_warmup:
            progress.update(1)
            return
        draws.append({name: torch.stack([state[name] for state in states]) for name in starts[0]})
        moves.append([(kernel.energy, kernel.leapfrogs) for kernel in chains])
        progress.update(1, diverging=sum(len(kernel.diagnostics()["divergences"]) for kernel in chains))

    in_turns(set_up, len(starts), random, unchecked)
    states = [kernel.initial_params for kernel in chains]
    try:
        in_turns(move, (num_warmup + num_draws) * len(chains), random, unchecked)
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
