"""Sampling and evaluation on JAX; mirrors `ugmm_ppl.pyro.inference`. Arrays in and out are NumPy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpyro import handlers
from numpyro.infer import NUTS

from ugmm_ppl.backends.draws import NutsDraws, nuts_stats
from ugmm_ppl.backends.progress import Progress, blocks
from ugmm_ppl.numpyro.programs import compiled
from ugmm_ppl.numpyro.turns import exclusive
from ugmm_ppl.ops.jax_arrays import normals, to_array
from ugmm_ppl.typing import RowArrays, SiteDraws, SiteValues, Values


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which models draw their random numbers from `seed`."""
    with exclusive(), handlers.seed(rng_seed=seed):
        yield


def draws(
    draw: Callable[..., Any],
    noise_shapes: Mapping[str, tuple[int, ...]],
    params: Values,
    indices: range,
    seed: int,
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws of the given numbers, `(S, ...)` by site, and their log density `(S,)`; described at `Inference`."""
    one = _compiled_draw(draw, tuple(noise_shapes.items()), jax.config.jax_enable_x64)
    given = {name: to_array(value) for name, value in params.items()}, jax.random.key(seed)
    program = one.program(*given, 0)
    drawn = [jax.device_get(program(*given, i)) for i in indices]
    return _stack([values for values, _ in drawn]), np.array([log_density for _, log_density in drawn])


@functools.lru_cache(maxsize=16)
def _compiled_draw(draw: Callable[..., Any], shapes: Any, x64: bool) -> compiled:  # noqa: ARG001
    return compiled(lambda params, key, index: draw(params, normals(jax.random.fold_in(key, index), dict(shapes))))


def run(function: Callable[..., Any], *arguments: Any) -> tuple[np.ndarray, ...]:
    """Values of a function of arrays and dicts of arrays that returns arrays; described at `Inference`."""
    found = _compiled(function, jax.config.jax_enable_x64)(*jax.tree.map(to_array, arguments))
    return tuple(np.asarray(a) for a in found)


@functools.lru_cache(maxsize=16)
def _compiled(function: Callable[..., Any], x64: bool) -> Callable[..., Any]:  # noqa: ARG001
    return compiled(function)


def each(
    function: Callable[..., Any], draws: SiteDraws, *arguments: np.ndarray, handlers: bool = False, together: int = 1
) -> Any:
    """A function of one draw, for all of them, one after the other in one program; described at `Inference`."""
    del handlers, together  # what is compiled knows no handlers, and loses nothing between two draws
    found = _compiled_each(function, jax.config.jax_enable_x64)(*jax.tree.map(to_array, (dict(draws), *arguments)))
    return jax.tree.map(np.asarray, found)


@functools.lru_cache(maxsize=16)
def _compiled_each(function: Callable[..., Any], x64: bool) -> Callable[..., Any]:  # noqa: ARG001
    return compiled(lambda draws, *arguments: jax.lax.map(lambda draw: function(draw, *arguments), draws))


def sampled(function: Callable[[], dict[str, Array]], count: int, seed: int) -> dict[str, np.ndarray]:
    """Runs of a program that samples, `(S, ...)` by name; described at `Inference`."""
    one, keys = _compiled_sampled(function, jax.config.jax_enable_x64), jax.random.split(jax.random.key(seed), count)
    program = one.program(keys, 0)
    return _stack([jax.device_get(program(keys, i)) for i in range(count)])


@functools.lru_cache(maxsize=16)
def _compiled_sampled(function: Callable[[], Any], x64: bool) -> compiled:  # noqa: ARG001
    def one(keys: Array, i: int) -> Any:
        with handlers.seed(rng_seed=keys[i]):
            return function()

    return compiled(one)


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
    """Draw by NUTS, all chains at once, in compiled blocks; arguments as in `ugmm_ppl.backends.base.Inference`."""
    arrays = tuple(to_array(a) for a in data)
    kernel = NUTS(lambda *data: model(*data, data_size=data_size), max_tree_depth=max_tree_depth)
    keys = jax.random.split(jax.random.key(seed), len(starts))
    init = {name: to_array(np.stack([start[name] for start in starts])) for name in starts[0]}

    @compiled  # as a whole it takes a fifth of the time that its many small steps take
    def begun(keys: Array, init: dict[str, Array], data: tuple[Array, ...]) -> Any:
        if own_targets:
            x, y = data
            return jax.vmap(lambda key, z, y: kernel.init(key, num_warmup, z, model_args=(x, y)))(keys, init, y)
        return kernel.init(keys, num_warmup, init, model_args=data)

    state = begun(keys, init, arrays)
    warmup, drawing = list(blocks(num_warmup)), list(blocks(num_draws))
    block = _compiled_nuts(kernel, max(warmup + drawing), own_targets)
    drawn: list[tuple[dict[str, np.ndarray], list[np.ndarray]]] = []
    interrupted = False
    try:
        for size in warmup:
            state, _ = block(state, size, arrays)
            jax.block_until_ready(state)
            progress.update(size)
        for size in drawing:
            state, (values, moves) = block(state, size, arrays)
            found = {name: np.asarray(z)[:, :size] for name, z in values.items()}
            drawn.append((found, [np.asarray(each)[:, :size] for each in moves]))
            progress.update(size, diverging=sum(moves[0].sum() for _, moves in drawn))
    except KeyboardInterrupt:
        if not drawn:
            raise
        interrupted = True
    return NutsDraws(
        {name: np.concatenate([values[name] for values, _ in drawn], 1) for name in starts[0]},
        nuts_stats(*(np.concatenate(parts, 1) for parts in zip(*(moves for _, moves in drawn), strict=True))),
        interrupted,
    )


def _compiled_nuts(kernel: NUTS, room: int, own_targets: bool) -> Callable[..., Any]:
    """Up to `room` draws of all chains: last state, (values by site, (diverging, energy, steps)), `(C, room, ...)`."""

    def moved(state: Any) -> Any:
        return state.z, (state.diverging, state.energy, state.num_steps)

    @compiled
    def block(state: Any, size: int, data: tuple[Array, ...]) -> Any:
        x, y, *_ = data
        constrain = jax.vmap(kernel.postprocess_fn((x, y[0]) if own_targets else data, {}))

        def step(i: Array, carry: Any) -> Any:
            state, kept = carry
            if own_targets:
                state = jax.vmap(lambda state, y: kernel.sample(state, (x, y), {}))(state, y)
            else:
                state = kernel.sample(state, data, {})
            return state, jax.tree.map(lambda all_, one: all_.at[:, i].set(one), kept, moved(state))

        empty = jax.tree.map(lambda one: jnp.zeros((len(one), room, *one.shape[1:]), one.dtype), moved(state))
        state, (z, moves) = jax.lax.fori_loop(0, size, step, (state, empty))
        return state, (jax.vmap(constrain, 1, 1)(z), moves)

    return block


def _stack(draws: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    return {name: np.stack([draw[name] for draw in draws]) for name in draws[0]}


def _numpy(params: Mapping[str, Array]) -> dict[str, np.ndarray]:
    return {name: np.asarray(value) for name, value in params.items()}
