"""Sampling and evaluation on JAX; mirrors `ugmm_ppl.pyro.inference`. Arrays in and out are NumPy."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

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

if TYPE_CHECKING:
    from ugmm_ppl.guides.guide import Guide
    from ugmm_ppl.models.base import Model


@contextlib.contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Context in which models draw their random numbers from `seed`."""
    with exclusive(), handlers.seed(rng_seed=seed):
        yield


def guide_draws(
    guide: Guide, params: Mapping[str, np.ndarray], indices: range, seed: int
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Draws `indices` of a guide, `(S, ...)` by site, and their log q `(S,)`; a draw depends on its number alone."""
    draw = _compiled_draw(guide, jax.config.jax_enable_x64)
    tensors = {name: to_array(value) for name, value in params.items()}
    drawn = [jax.device_get(draw(tensors, jax.random.key(seed), i)) for i in indices]
    values = _stack([values for values, _ in drawn])
    return {name: values[name] for name in guide.sites}, np.array([log_q for _, log_q in drawn])  # not sorted by name


@functools.lru_cache(maxsize=16)
def _compiled_draw(guide: Guide, x64: bool) -> Callable[..., Any]:  # noqa: ARG001
    from ugmm_ppl.guides.sites import constrain

    def draw(params: Mapping[str, Array], key: Array, index: int) -> Any:
        unconstrained = guide.draw(params, normals(jax.random.fold_in(key, index), guide.noise_shapes()))
        values, log_dets = constrain(guide.sites, unconstrained)
        return values, guide.log_q(params, unconstrained, log_dets)

    return compiled(draw)


def outputs(model: Model, draws: Mapping[str, np.ndarray], x: np.ndarray, chunk_size: int) -> np.ndarray:
    """Network outputs `(S, B, O)` for draws `(S, ...)`, a chunk of examples and one draw at a time."""
    run = _compiled_outputs(model, jax.config.jax_enable_x64)
    device_draws = {name: to_array(value) for name, value in draws.items()}
    rows = min(chunk_size, len(x))
    parts = []
    for start in range(0, len(x), rows):
        chunk = x[start : start + rows]
        padded = np.concatenate([chunk, np.zeros((rows - len(chunk), x.shape[1]))])  # one shape: compiled once
        parts.append(np.asarray(run(device_draws, to_array(padded)))[:, : len(chunk)])
    return np.concatenate(parts, axis=1)


@functools.lru_cache(maxsize=16)
def _compiled_outputs(model: Model, x64: bool) -> Callable[..., Array]:  # noqa: ARG001
    from ugmm_ppl.numpyro.backend import BACKEND

    def one(draw: Mapping[str, Array], x: Array) -> Array:
        return handlers.substitute(model.outputs, data=draw)(BACKEND, x)

    return compiled(lambda draws, x: jax.lax.map(lambda draw: one(draw, x), draws))


def run(function: Callable[..., Any], *arguments: Any) -> tuple[np.ndarray, ...]:
    """Values of a function of arrays and dicts of arrays that returns arrays; described at `Inference`."""
    found = _compiled(function, jax.config.jax_enable_x64)(*jax.tree.map(to_array, arguments))
    return tuple(np.asarray(a) for a in found)


@functools.lru_cache(maxsize=16)
def _compiled(function: Callable[..., Any], x64: bool) -> Callable[..., Any]:  # noqa: ARG001
    return compiled(function)


def log_prior(model: Model, draws: Mapping[str, np.ndarray]) -> np.ndarray:
    """Log prior density of draws `(S, ...)`: `(S,)`."""
    run = _compiled_log_prior(model, jax.config.jax_enable_x64, by_site=False)
    return np.asarray(run({name: to_array(value) for name, value in draws.items()}), dtype=np.float64)


def log_priors(model: Model, draws: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The same by site."""
    run = _compiled_log_prior(model, jax.config.jax_enable_x64, by_site=True)
    found = run({name: to_array(value) for name, value in draws.items()})
    return {name: np.asarray(value, dtype=np.float64) for name, value in found.items()}


@functools.lru_cache(maxsize=16)
def _compiled_log_prior(model: Model, x64: bool, *, by_site: bool) -> Callable[..., Any]:  # noqa: ARG001
    from ugmm_ppl.numpyro.backend import BACKEND

    def one(draw: Mapping[str, Array]) -> Any:
        sites = BACKEND.trace(model.parameters, draw, BACKEND, jnp.zeros(()))
        terms = {name: site.distribution.log_prob(site.value).sum() for name, site in sites.items()}
        return terms if by_site else sum(terms.values())

    return compiled(lambda draws: jax.lax.map(one, draws))


def prior_draws(model: Model, num_draws: int, seed: int) -> dict[str, np.ndarray]:
    """Draws from the prior, `(S, ...)` by site."""
    from ugmm_ppl.numpyro.backend import BACKEND

    @compiled
    def one(keys: Array, i: int) -> dict[str, Array]:
        with handlers.seed(rng_seed=keys[i]):
            return {n: site.value for n, site in BACKEND.trace(model.parameters, {}, BACKEND, jnp.zeros(())).items()}

    keys = jax.random.split(jax.random.key(seed), num_draws)
    return _stack([jax.device_get(one(keys, i)) for i in range(num_draws)])


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
