"""Sampling and evaluation on torch; mirrors `ugmm_ppl.numpyro.inference`. Arrays in and out are NumPy."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
import torch
from pyro.infer import NUTS
from torch import Tensor

from ugmm_ppl.backends.draws import NutsDraws, nuts_stats
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.kernels import library
from ugmm_ppl.ops.torch_arrays import (
    kept_random_state,
    normals,
    own_generator,
    seed_torch,
    tensors,
    to_numpy,
    to_tensor,
)
from ugmm_ppl.pyro.programs import Potential
from ugmm_ppl.pyro.turns import RandomState, exclusive, in_turns, unchecked
from ugmm_ppl.typing import RowArrays, SiteDraws, SiteValues, Values


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which torch draws its random numbers from `seed`; the user's random state is left as it was."""
    with exclusive(), kept_random_state():
        seed_torch(seed)
        yield


def draws(
    draw: Callable[..., Any],
    noise_shapes: Mapping[str, tuple[int, ...]],
    params: Values,
    indices: range,
    seed: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws of the given numbers, `(S, ...)` by site, and their log density `(S,)`; described at `Inference`."""
    own = {name: to_tensor(value) for name, value in params.items()}
    drawn, log_density = [], []
    generator = own_generator()
    with torch.no_grad():
        for index in indices:
            generator.manual_seed(int(np.random.SeedSequence([seed, index]).generate_state(1)[0]))
            values, density = draw(own, normals(noise_shapes, generator))
            drawn.append({name: to_numpy(value) for name, value in values.items()})
            log_density.append(float(density))
    return _stack(drawn), np.array(log_density)


def run(function: Callable[..., Any], *arguments: Any) -> tuple[np.ndarray, ...]:
    """Values of a function of arrays and dicts of arrays that returns arrays; described at `Inference`."""
    with torch.no_grad():
        found = function(*(tensors(argument) for argument in arguments))
    return tuple(to_numpy(a) for a in found)


def each(
    function: Callable[..., Any], draws: SiteDraws, *arguments: np.ndarray, handlers: bool = False, together: int = 1
) -> Any:
    """A function of one draw, for all of them, some side by side; described at `Inference`."""
    given = [to_tensor(argument) for argument in arguments]
    with torch.no_grad():
        if not handlers and together >= WORTH_A_TRANSFORM:
            found = _side_by_side(function, tensors(draws), given, together)
            if found is not None:
                return found
        return _one_by_one(function, draws, given, handlers)


WORTH_A_TRANSFORM = 4
"""Fewer draws are evaluated faster one by one."""


def _side_by_side(function: Callable[..., Any], draws: dict[str, Tensor], given: list[Tensor], together: int) -> Any:
    """By `torch.func.vmap`; None where that cannot be, as for a user's module that looks at values.

    Nor where equation (2) is computed in chunks, which a transform would compute at once.
    """
    if any(library.choose(a.device.type, str(a.dtype).removeprefix("torch.")) == "chunked" for a in draws.values()):
        return None
    try:
        found = torch.func.vmap(lambda draw: function(draw, *given), chunk_size=together)(draws)
    except Exception:  # what is wrong with the function itself, one draw tells better
        return None
    return {name: to_numpy(a) for name, a in found.items()} if isinstance(found, dict) else to_numpy(found)


def _one_by_one(function: Callable[..., Any], draws: SiteDraws, given: list[Tensor], handlers: bool) -> Any:
    size = len(next(iter(draws.values())))
    results: dict[str, np.ndarray] = {}

    def one(s: int) -> None:
        found = function({name: to_tensor(value[s]) for name, value in draws.items()}, *given)
        for name, a in (found if isinstance(found, dict) else {"": found}).items():
            value = to_numpy(a)
            results.setdefault(name, np.empty((size, *value.shape), value.dtype))[s] = value

    if handlers:
        in_turns(one, size, unchecked)
    else:  # nothing that threads share: none waits
        for s in range(size):
            one(s)
    return results.get("", results)


def sampled(function: Callable[[], dict[str, Tensor]], count: int, seed: int) -> dict[str, np.ndarray]:
    """Runs of a program that samples, `(S, ...)` by name; described at `Inference`."""
    drawn: list[dict[str, np.ndarray]] = []
    with torch.no_grad():
        in_turns(
            lambda _: drawn.append({name: to_numpy(value) for name, value in function().items()}),
            count, RandomState(seed),
        )  # fmt: skip
    return _stack(drawn)


def nuts(
    model: Callable[..., Any],
    data: tuple[RowArrays, ...],
    starts: list[SiteValues],
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
        kernel.potential_fn = Potential(kernel.potential_fn)
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
