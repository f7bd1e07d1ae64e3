"""The classifier as one would write it in Pyro and in NumPyro without this package; `svi_step.py` times it.

Sample statements, a plate, AutoNormal, SVI with Trace_ELBO and Adam; the layer, equation (2), by broadcasting.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl.infer.schedule import Batches
from ugmm_ppl.neuron import HALF_LOG_2PI


class Settings(NamedTuple):
    """What ours and these have in common: (J, K) of the layers, and start values by the site names of these models."""

    shapes: list[tuple[int, int]]
    classes: int
    batch: int
    rate: float
    init_scale: float
    start: Mapping[str, np.ndarray]


def in_pyro(x: np.ndarray, y: np.ndarray, settings: Settings) -> Callable[[], float]:
    """A call that does one step and returns its loss."""
    import pyro
    import torch
    from pyro import distributions as dist
    from pyro.infer import SVI, Trace_ELBO
    from pyro.infer.autoguide import AutoNormal, init_to_value
    from pyro.optim import Adam

    data_size = len(x)

    def model(x: Any, y: Any) -> None:
        h = x
        for i, shape in enumerate(settings.shapes):
            loc = pyro.sample(f"layer{i}_loc", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
            log_scale = pyro.sample(f"layer{i}_log_scale", dist.Normal(-0.5, 0.5).expand(shape).to_event(2))
            logits = pyro.sample(f"layer{i}_logits", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
            z = (h[:, None, :] - loc) / log_scale.exp()
            terms = torch.log_softmax(logits, -1) - log_scale - HALF_LOG_2PI - 0.5 * z * z
            h = torch.nn.functional.layer_norm(torch.logsumexp(terms, -1), shape[:1])
        width = settings.shapes[-1][0]
        weight = pyro.sample(
            "readout_weight", dist.Normal(0.0, 1.0 / math.sqrt(width)).expand([settings.classes, width]).to_event(2)
        )
        bias = pyro.sample("readout_bias", dist.Normal(0.0, 1.0).expand([settings.classes]).to_event(1))
        with pyro.plate("data", len(x)), pyro.poutine.scale(scale=data_size / len(x)):
            pyro.sample("y", dist.Categorical(logits=h @ weight.T + bias), obs=y)

    pyro.clear_param_store()
    pyro.set_rng_seed(0)
    start = {name: torch.tensor(value, dtype=torch.float32) for name, value in settings.start.items()}
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=start), init_scale=settings.init_scale)
    svi = SVI(model, guide, Adam({"lr": settings.rate}), Trace_ELBO())
    order = map(Batches(len(x), settings.batch, 0), itertools.count())
    device = torch.get_default_device()
    all_x, all_y = torch.from_numpy(x).to(device), torch.from_numpy(y).to(device)

    def step() -> float:
        rows = torch.from_numpy(next(order)).to(device)
        with pyro.validation_enabled(False):  # as in ours
            return svi.step(all_x[rows], all_y[rows])

    return step


def in_numpyro(x: np.ndarray, y: np.ndarray, settings: Settings) -> Callable[[], float]:
    """A call that does one step, compiled, and returns its loss."""
    import jax
    import numpyro
    from jax import numpy as jnp
    from numpyro import distributions as dist
    from numpyro.infer import SVI, Trace_ELBO, init_to_value
    from numpyro.infer.autoguide import AutoNormal
    from numpyro.optim import Adam

    data_size = len(x)

    def model(x: Any, y: Any) -> None:
        h = x
        for i, shape in enumerate(settings.shapes):
            loc = numpyro.sample(f"layer{i}_loc", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
            log_scale = numpyro.sample(f"layer{i}_log_scale", dist.Normal(-0.5, 0.5).expand(shape).to_event(2))
            logits = numpyro.sample(f"layer{i}_logits", dist.Normal(0.0, 1.0).expand(shape).to_event(2))
            z = (h[:, None, :] - loc) / jnp.exp(log_scale)
            terms = jax.nn.log_softmax(logits, -1) - log_scale - HALF_LOG_2PI - 0.5 * z * z
            h = jax.nn.standardize(jax.nn.logsumexp(terms, -1), epsilon=1e-5)
        width = settings.shapes[-1][0]
        weight = numpyro.sample(
            "readout_weight", dist.Normal(0.0, 1.0 / math.sqrt(width)).expand([settings.classes, width]).to_event(2)
        )
        bias = numpyro.sample("readout_bias", dist.Normal(0.0, 1.0).expand([settings.classes]).to_event(1))
        with numpyro.plate("data", len(x)), numpyro.handlers.scale(scale=data_size / len(x)):
            numpyro.sample("y", dist.Categorical(logits=h @ weight.T + bias), obs=y)

    start = {name: jnp.asarray(value, jnp.float32) for name, value in settings.start.items()}
    guide = AutoNormal(model, init_loc_fn=init_to_value(values=start), init_scale=settings.init_scale)
    svi = SVI(model, guide, Adam(settings.rate), Trace_ELBO())
    order = map(Batches(len(x), settings.batch, 0), itertools.count())
    all_x, all_y = jnp.asarray(x), jnp.asarray(y)
    state = svi.init(jax.random.key(0), all_x[: settings.batch], all_y[: settings.batch])
    update = jax.jit(svi.update)

    def step() -> float:
        nonlocal state
        rows = jnp.asarray(next(order))
        state, loss = update(state, all_x[rows], all_y[rows])
        return float(loss)

    return step
