"""Steps of stochastic optimisation on JAX; mirrors `ugmm_ppl.pyro.training`. Arrays in and out are NumPy."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import numpyro
import optax
from jax import Array
from numpyro import handlers

from ugmm_ppl.backends.trainer import StepRule, Steps
from ugmm_ppl.kernels.jax_ops import OPS
from ugmm_ppl.numpyro.programs import compiled
from ugmm_ppl.ops.jax_arrays import normals, to_array
from ugmm_ppl.typing import Numbers, PerStep, RowArrays, SiteValues

BUILT = {"adam": lambda: optax.adam(1.0), "sgd": lambda: optax.sgd(1.0, momentum=0.9)}


class Trainer:
    """`ugmm_ppl.backends.trainer.Trainer` for JAX: blocks of steps are compiled, restarts vectorised.

    Args:
        objective: `objective(params, noise, batch, kl_weight)` -> (loss, (log likelihood, KL)), scalars.
        noise_shapes: Shapes of the standard normal numbers of one particle.
        data: All inputs `(N, K)`, targets `(N,)` and, if rows have them, weights `(N,)`.
        seeds: One per restart.
        optimizer: "adam", "sgd", an `optax.GradientTransformation` made with learning rate 1, or a `StepRule`.
        clip_norm: Largest norm of a gradient, over all parameters.
        num_particles: Draws that a step averages over.
        split_batch: Each draw sees its own part of the batch, whose size is a multiple of their number.
    """

    def __init__(
        self,
        objective: Callable[..., Any],
        noise_shapes: Mapping[str, tuple[int, ...]],
        data: tuple[RowArrays, ...],
        seeds: Sequence[int],
        *,
        optimizer: Any,
        clip_norm: float | None,
        num_particles: int,
        split_batch: bool,
    ) -> None:
        self._objective, self._shapes = objective, dict(noise_shapes)
        self._data = tuple(to_array(a) for a in data)
        self._clip_norm, self._particles, self._split_batch = clip_norm, num_particles, split_batch
        self._optimizer = BUILT[optimizer]() if isinstance(optimizer, str) else optimizer
        self._keys = jax.vmap(jax.random.key)(to_array(np.asarray(seeds)))
        self._rule = optimizer if isinstance(optimizer, StepRule) else None
        self._begun = compiled(jax.vmap(self._begin))
        self._block = compiled(self._steps)
        self._gradient = compiled(self._differentiate)

    def start(self, initial: Sequence[SiteValues]) -> Any:
        """The state at start parameters: trees with a leading axis of restarts."""
        params = {name: to_array(np.stack([each[name] for each in initial])) for name in initial[0]}
        return params, self._begun(params)  # one program in place of one for each operation

    def advance(self, state: Any, first: int, rows: Numbers, rates: PerStep, kl_weights: PerStep) -> tuple[Any, Steps]:
        """Take n steps of every restart."""
        steps = np.arange(first, first + len(rows))
        kind, all_rows = self._data[0].dtype, np.arange(len(self._data[0]))
        if rows.shape[-1] == len(all_rows) and (rows == all_rows).all():
            rows = rows[..., :0]  # none are picked
        per_step = (to_array(steps), to_array(rows), to_array(rates, kind), to_array(kl_weights, kind))
        new, found = self._block(state, per_step, self._keys, self._data)
        return new, Steps(*(np.asarray(a).T for a in found))

    def params(self, state: Any) -> list[SiteValues]:
        """Parameters of every restart."""
        arrays = {name: np.asarray(value) for name, value in state[0].items()}
        return [{name: a[r] for name, a in arrays.items()} for r in range(len(self._keys))]

    def gradient(self, state: Any, restart: int, step: int, rows: Numbers, kl_weight: float) -> SiteValues:
        """The gradient of one step of one restart."""
        params = {name: value[restart] for name, value in state[0].items()}
        at = to_array(rows)
        batch = tuple(a[at] for a in self._data)
        key = jax.random.fold_in(self._keys[restart], step)
        _, gradients = self._gradient(params, key, batch, to_array(kl_weight, batch[0].dtype))
        return {name: np.asarray(value) for name, value in gradients.items()}

    def arrays(self, state: Any) -> dict[str, np.ndarray]:
        """The leaves of the state, by number."""
        return {str(i): np.asarray(leaf) for i, leaf in enumerate(jax.tree.leaves(state))}

    def restore(self, arrays: dict[str, np.ndarray], initial: Sequence[SiteValues]) -> Any:
        """The state from its `arrays`."""
        like = self.start(initial)
        leaves = [to_array(arrays[str(i)], leaf.dtype) for i, leaf in enumerate(jax.tree.leaves(like))]
        return jax.tree.unflatten(jax.tree.structure(like), leaves)

    def _steps(self, state: Any, per_step: Any, keys: Array, data: tuple[Array, ...]) -> Any:
        """A block of steps of all restarts, each frozen from its first bad step on.

        Keys and data are arguments, not constants: fits that differ in nothing else share one program, and one entry of
        JAX's persistent cache.
        """
        on_cpu = all(device.platform == "cpu" for device in self._data[0].devices())

        def one(params: Any, optimizer: Any, good: Array, key: Array, row: Array, rate: Array, now: Any) -> Any:
            step, kl_weight = now
            key = jax.random.fold_in(key, step)
            batch = tuple(a[row] for a in data) if row.size else data
            (loss, parts), gradients = self._differentiate(params, key, batch, kl_weight)
            norm = optax.tree.norm(gradients)
            good &= jnp.isfinite(loss) & jnp.isfinite(norm)
            if self._clip_norm is not None:
                factor = jnp.minimum(1.0, self._clip_norm / norm)
                gradients = jax.tree.map(lambda g: factor * g, gradients)
            if on_cpu:
                params, optimizer = jax.lax.cond(
                    good, lambda: self._moved(params, gradients, optimizer, key, rate), lambda: (params, optimizer)
                )
            else:  # a GPU would ask the host which
                moved = self._moved(params, gradients, optimizer, key, rate)
                params, optimizer = jax.tree.map(lambda a, b: jnp.where(good, a, b), moved, (params, optimizer))
            return params, optimizer, good, (loss, *parts)

        def step(carry: Any, now: Any) -> Any:
            number, rows, rates, kl_weight = now
            *carry, found = _over_restarts(one)(*carry, keys, rows, rates, (number, kl_weight))
            return tuple(carry), (*found, carry[2])

        good = jnp.ones(len(keys), dtype=bool)
        (params, optimizer, _), found = jax.lax.scan(step, (*state, good), per_step)
        return (params, optimizer), found

    def _begin(self, params: Any) -> Any:
        """The state of the optimiser, or of the rule, beside the parameters of one restart."""
        if self._rule is None:
            return self._optimizer.init(params)
        return {name: self._rule.begin(value) for name, value in params.items()}

    def _moved(self, params: Any, gradients: Any, state: Any, key: Array, rate: Array) -> tuple[Any, Any]:
        """Parameters and state after a step."""
        if self._rule is None:
            update, new = self._optimizer.update(gradients, state, params)
            return jax.tree.map(lambda p, u: p + rate * u, params, update), new
        noise = normals(jax.random.fold_in(key, 1), {name: value.shape for name, value in params.items()})
        moved = {
            name: self._rule.move(OPS, value, gradients[name], state[name], noise[name].astype(value.dtype), rate)
            for name, value in params.items()
        }
        return {name: value for name, (value, _) in moved.items()}, {name: new for name, (_, new) in moved.items()}

    def _differentiate(self, params: Any, key: Array, batch: tuple[Array, ...], kl_weight: Array) -> Any:
        """((loss, (log likelihood, KL)), gradients), means over the particles."""

        def particle(params: Any, key: Array, batch: tuple[Array, ...]) -> Any:
            key_noise, key_model = jax.random.split(key)
            noise = normals(key_noise, self._shapes)
            with handlers.seed(rng_seed=key_model), numpyro.validation_enabled(False):
                loss, parts = self._objective(params, noise, batch, kl_weight)
            return loss, tuple(jnp.asarray(part, loss.dtype) for part in parts)

        def mean(params: Any) -> Any:
            if self._particles == 1:
                return particle(params, key, batch)
            keys, own = jax.random.split(key, self._particles), None
            each = batch
            if self._split_batch:
                each, own = tuple(a.reshape(self._particles, -1, *a.shape[1:]) for a in batch), 0
            found = jax.vmap(particle, in_axes=(None, 0, own))(params, keys, each)
            return jax.tree.map(lambda a: a.mean(0), found)

        return jax.value_and_grad(mean, has_aux=True)(params)


def _over_restarts(function: Callable[..., Any]) -> Callable[..., Any]:
    """`jax.vmap` over all arguments but the last; a single restart is spared the extra axis."""

    def mapped(*arguments: Any) -> Any:
        *each, shared = arguments
        if len(each[-1]) > 1:
            return jax.vmap(function, in_axes=(*[0] * len(each), None))(*each, shared)
        found = function(*jax.tree.map(lambda a: a[0], each), shared)
        return jax.tree.map(lambda a: a[None], found)

    return mapped
