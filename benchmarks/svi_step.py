"""Time of one SVI step: a 784-128-64 classifier of ten classes, mean-field normal guide, batches of 128, float32.

    python benchmarks/svi_step.py [--quick]

Contenders on Pyro and on NumPyro: the project's own training, and the same model written by hand as those PPLs'
tutorials would (sample statements, a plate, AutoNormal, SVI with Trace_ELBO and Adam; the layer by broadcasting).
Then where our step goes: its parts timed by themselves. The data are synthetic and look like MNIST.
Writes benchmarks/results/svi_step.json, unless --quick.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import math
import os
import time
from collections.abc import Callable, Mapping
from typing import Any

import by_hand
import measure
import numpy as np

import ugmm_ppl as up
from ugmm_ppl.backends.base import Backend
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.guides.base import normal_log_prob
from ugmm_ppl.guides.guide import Guide, make_guide
from ugmm_ppl.guides.sites import latent_sites
from ugmm_ppl.infer.elbo import negative_elbo
from ugmm_ppl.infer.schedule import Batches
from ugmm_ppl.nn.base import values_of
from ugmm_ppl.nn.dense import neuron_parameters
from ugmm_ppl.nn.norm import layer_norm

SIZES, CLASSES, ROWS, BATCH = (784, 128, 64), 10, 10000, 128
INIT_SCALE, RATE = 0.05, 1e-3
BLOCK = 20  # as in a fit of 2000 steps
MODEL = up.Classifier(up.Network(SIZES), CLASSES)
BACKENDS = ("pyro", "numpyro")


def data() -> tuple[np.ndarray, np.ndarray]:
    """Images of 28 x 28 with two bright strokes that depend on the class, standardised jointly; and the classes."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, CLASSES, ROWS)
    grid = np.arange(28.0)
    centres = rng.uniform(6.0, 22.0, (CLASSES, 2, 2))[y] + rng.normal(0.0, 1.0, (ROWS, 2, 2))
    widths = rng.uniform(1.5, 4.0, (ROWS, 2, 2))
    bumps = np.exp(-0.5 * ((grid - centres[..., None]) / widths[..., None]) ** 2)  # (rows, strokes, axis, 28)
    images = np.minimum(1.0, np.einsum("nsi,nsj->nij", bumps[:, :, 0], bumps[:, :, 1]))
    x = np.where(images > 0.05, images, 0.0).reshape(ROWS, -1)
    return ((x - x.mean()) / x.std()).astype(np.float32), y


# ------------------------------------------------------------------------------------------------------------- ours


class Ours:
    """The project's own training on one backend, some steps a block."""

    def __init__(self, backend: str, x: np.ndarray, y: np.ndarray, device: str = "cpu") -> None:
        self.backend, self.data, self.device = load_backend(backend), (x, y), device
        with self.backend.settings(dtype="float32", device=device):
            sites, self.start = latent_sites(self.backend, MODEL, MODEL.initial_values(x, 0), 0)
            self.guide = make_guide("normal", self.backend, sites, init_scale=INIT_SCALE, rank=1)
            self.objective = functools.partial(
                negative_elbo, self.backend, functools.partial(MODEL, self.backend), self.guide, data_size=len(x)
            )
            self.trainer = self.backend.trainer(
                self.objective, self.guide.noise_shapes(), self.data, [0], optimizer="adam", clip_norm=None,
                num_particles=1, split_batch=False,
            )  # fmt: skip
        self.order = Batches(ROWS, BATCH, 0)
        self.steps: list[float] = []
        self.first_block = self.turn(1)  # with compilation

    def turn(self, blocks: int) -> float:
        """Train from the start: the seconds of the first block, and those of a step of the others into `steps`."""
        with self.backend.settings(dtype="float32", device=self.device):
            state = self.trainer.start([self.guide.initial(self.start)])
            times = [time.perf_counter()]
            for first in range(0, blocks * BLOCK, BLOCK):
                rows = np.stack([self.order(step)[None] for step in range(first, first + BLOCK)])
                rates = np.full((BLOCK, 1), RATE)
                state, found = self.trainer.advance(state, first, rows, rates, np.ones(BLOCK))
                assert found.good.all()
                self.first_loss = self.first_loss if first else float(found.losses[0, 0])
                times.append(time.perf_counter())
        seconds = np.diff(times)
        self.steps += list(seconds[1:] / BLOCK)
        return float(seconds[0])


class ByHand:
    """Steps of a model written by hand; mirrors `Ours`."""

    def __init__(self, backend: str, x: np.ndarray, y: np.ndarray, device: str = "cpu") -> None:
        self.settings = functools.partial(load_backend(backend).settings, dtype="float32", device=device)
        start = {n.replace("layers.", "layer").replace(".", "_"): v for n, v in MODEL.initial_values(x, 0).items()}
        shapes = [(j, k) for k, j in itertools.pairwise(SIZES)]
        settings = by_hand.Settings(shapes, CLASSES, BATCH, RATE, INIT_SCALE, start)
        with self.settings():
            self.step = (by_hand.in_pyro if backend == "pyro" else by_hand.in_numpyro)(x, y, settings)
            before = time.perf_counter()
            self.first_loss = self.step()
            self.first_block = time.perf_counter() - before
        self.steps: list[float] = []

    def turn(self, count: int) -> None:
        """Some steps."""
        with self.settings():
            for _ in range(count):
                start = time.perf_counter()
                self.step()
                self.steps.append(time.perf_counter() - start)


def compare(
    backend: str, x: np.ndarray, y: np.ndarray, rounds: int, device: str = "cpu"
) -> tuple[list[dict[str, Any]], Ours]:
    """Ours and the model written by hand take turns on one backend."""
    ours = Ours(backend, x, y, device)
    hand = ByHand(backend, x, y, device)
    for _ in range(rounds):
        ours.turn(4)
        hand.turn(2)
    difference = abs(ours.first_loss / hand.first_loss - 1.0)  # one draw of the KL term by hand, none in ours
    assert difference < 0.02, f"not the same model: first losses {ours.first_loss} and {hand.first_loss}"
    rows = []
    for name, one, steps_of_first in (("ours", ours, BLOCK), ("by hand", hand, 1)):
        found, mine = measure.summary(one.steps), measure.summary(ours.steps)
        told = {"over_ours": found["ms"] / mine["ms"], "median_over_ours": found["median_ms"] / mine["median_ms"]}
        told["compile_s"] = one.first_block - 1e-3 * steps_of_first * found["median_ms"]
        rows.append({"backend": backend, "contender": name, **found, **told, "first_loss": one.first_loss})
    return rows, ours


# ------------------------------------------------------------------------------------------------ where our step goes


Calls = dict[str, Callable[[], Any]]


def with_gradient_torch(function: Callable[..., list[Any]], arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """Calls of `function(arguments)`, and of that with the gradients of all arguments."""
    import torch

    leaves = {name: a.detach().clone().requires_grad_() for name, a in arguments.items()}
    upstream = [torch.ones_like(out) for out in function(leaves)]

    def forward() -> Any:
        return function(leaves)

    def both() -> Any:
        return torch.autograd.grad(function(leaves), list(leaves.values()), upstream)

    return forward, both


def with_gradient_jax(function: Callable[..., list[Any]], arguments: Mapping[str, Any]) -> tuple[Any, Any]:
    """As `with_gradient_torch`, compiled."""
    import jax

    def pull(arguments: Mapping[str, Any]) -> Any:
        outs, pullback = jax.vjp(function, arguments)
        return outs, pullback([jax.numpy.ones_like(out) for out in outs])

    forward, both = jax.jit(function), jax.jit(pull)
    return lambda: jax.block_until_ready(forward(arguments)), lambda: jax.block_until_ready(both(arguments))


def differentiable_parts(
    backend: Backend, guide: Guide, params: Mapping[str, Any], noise: Mapping[str, Any], x: Any, y: Any
) -> dict[str, tuple[Callable[..., list[Any]], Mapping[str, Any]]]:
    """The loss of a step in pieces: name -> (function of a dict, the dict); written once for both backends."""
    ops = backend.ops
    values = guide.draw(params, noise)
    layers = [stem for stem in MODEL.network.stems if stem != "readout"]
    priors = {
        name: backend.normal_parameters(site.distribution)
        for name, site in backend.trace(MODEL.parameters, values, backend, x).items()
    }

    def draw(params: Mapping[str, Any]) -> list[Any]:
        return list(guide.draw(params, noise).values())

    def parameters(values: Mapping[str, Any]) -> list[Any]:
        return [a for name in layers for a in neuron_parameters(ops, values_of(values, name))[1:]]

    def kernel(x: Any, values: Mapping[str, Any]) -> list[Any]:
        return [ops.activation(values.get("x", x), values["loc"], values["scale"], values["log_weights"])]

    def rest(values: Mapping[str, Any]) -> list[Any]:
        normed = [layer_norm(ops, values[name]) for name in layers]
        outputs = ops.matvec(values["readout.weight"], normed[-1]) + values["readout.bias"]
        return [normed[0], MODEL.likelihood.distribution(backend, outputs).log_prob(y).sum()]

    def kl(params: Mapping[str, Any]) -> list[Any]:
        total, moments = -guide.entropy(params), guide.moments(params)
        for name, prior in priors.items():
            mean, variance = moments[name]
            total = total - (normal_log_prob(ops, mean, *prior) - 0.5 * variance / prior[1] ** 2).sum()
        return [total]

    parts: dict[str, Any] = {"guide draw": (draw, params)}
    parts["exp, log-softmax of parameters"] = (
        parameters,
        {n: v for n, v in values.items() if n.startswith("layers") and not n.endswith("loc")},
    )
    h, activations = x, {}
    for i, name in enumerate(layers):
        own = dict(zip(("loc", "scale", "log_weights"), neuron_parameters(ops, values_of(values, name)), strict=True))
        parts[f"kernel, layer {i}"] = (functools.partial(kernel, h), own | ({"x": h} if i > 0 else {}))
        activations[name] = ops.activation(h, *own.values())
        h = layer_norm(ops, activations[name])
    readout = {n: v for n, v in values.items() if n.startswith("readout")}
    parts["layer norm, readout, likelihood"] = (rest, activations | readout)
    parts["KL and entropy"] = (kl, params)
    return parts


def pyro_parts(ours: Ours) -> tuple[Calls, Calls]:
    """(parts without a gradient, parts with: forward, and forward + backward), as the trainer does them on Pyro."""
    import torch

    x, y = (torch.as_tensor(a) for a in ours.data)
    rows = Batches(ROWS, BATCH, 0)(0)
    shapes = ours.guide.noise_shapes()

    def normals() -> dict[str, Any]:
        return {name: torch.randn(shape) for name, shape in shapes.items()}

    params = {name: torch.tensor(a, dtype=torch.float32) for name, a in ours.guide.initial(ours.start).items()}
    trained = {name: a.clone().requires_grad_() for name, a in params.items()}
    for a in trained.values():
        a.grad = torch.ones_like(a)
    optimiser = torch.optim.Adam(trained.values(), lr=0.0, fused=True)
    gradients = [a.grad for a in trained.values() if a.grad is not None]
    batch = x[torch.as_tensor(rows)], y[torch.as_tensor(rows)]
    noise = normals()
    values = ours.guide.draw(params, noise)
    plain: Calls = {
        "batch": lambda: (x[torch.as_tensor(rows)], y[torch.as_tensor(rows)]),
        "noise": normals,
        "finiteness of gradients": lambda: torch.nn.utils.get_total_norm(gradients, math.inf).isfinite(),
        "Adam": optimiser.step,
        "priors and handlers (Python)": lambda: ours.backend.trace(MODEL.parameters, values, ours.backend, x),
    }
    parts = differentiable_parts(ours.backend, ours.guide, params, noise, *batch)
    return plain, _with_gradients(with_gradient_torch, parts)


def numpyro_parts(ours: Ours) -> tuple[Calls, Calls]:
    """As `pyro_parts`, each compiled by itself, as the trainer does them on NumPyro."""
    import jax
    import optax
    from jax import numpy as jnp
    from numpyro import handlers

    x, y = (jnp.asarray(a) for a in ours.data)
    rows = jnp.asarray(Batches(ROWS, BATCH, 0)(0))
    shapes = ours.guide.noise_shapes()

    def normals(key: Any) -> dict[str, Any]:
        keys = jax.random.split(key, len(shapes))
        return {name: jax.random.normal(k, shape) for k, (name, shape) in zip(keys, shapes.items(), strict=True)}

    adam = optax.scale_by_adam()

    def update(params: Any, state: Any, gradients: Any) -> Any:
        good = jnp.isfinite(optax.tree.norm(gradients))
        change, new_state = adam.update(gradients, state)
        new = (jax.tree.map(lambda p, u: p - RATE * u, params, change), new_state)
        return jax.tree.map(lambda a, b: jnp.where(good, a, b), new, (params, state))

    params = {name: jnp.asarray(a, jnp.float32) for name, a in ours.guide.initial(ours.start).items()}
    state, gradients = adam.init(params), jax.tree.map(jnp.ones_like, params)

    def compiled(function: Callable[..., Any], *arguments: Any) -> Callable[[], Any]:
        run = jax.jit(function)
        return lambda: jax.block_until_ready(run(*arguments))

    noise, batch = normals(jax.random.key(0)), (x[rows], y[rows])
    plain: Calls = {
        "batch": compiled(lambda x, y, rows: (x[rows], y[rows]), x, y, rows),
        "noise": compiled(normals, jax.random.key(0)),
        "Adam, finiteness of gradients": compiled(update, params, state, gradients),
    }

    def loss(params: Any, noise: Any, x: Any, y: Any) -> Any:
        with handlers.seed(rng_seed=0):
            return ours.objective(params, noise, (x, y), 1.0)[0]

    whole = {"loss and gradient as one": compiled(jax.value_and_grad(loss), params, noise, *batch)}
    with handlers.seed(rng_seed=0):
        parts = differentiable_parts(ours.backend, ours.guide, params, noise, *batch)
    return plain | whole, _with_gradients(with_gradient_jax, parts)


def _with_gradients(run: Callable[..., tuple[Any, Any]], parts: Mapping[str, tuple[Any, Any]]) -> Calls:
    calls: Calls = {}
    for name, (function, arguments) in parts.items():
        calls[f"{name}|forward"], calls[f"{name}|both"] = run(function, arguments)
    return calls


def where_it_goes(backend: str, ours: Ours, step: float, rounds: int) -> list[dict[str, Any]]:
    """Minimum ms of every part, with shares of our step of `step` ms, and what they leave unexplained."""
    make = pyro_parts if backend == "pyro" else numpyro_parts
    with ours.backend.settings(dtype="float32", device="cpu"):
        plain, both = make(ours)
        times = measure.in_rounds(plain | both, rounds=rounds, seconds=0.05)
    result = []
    for name in plain:
        result.append({"part": name, "forward": times[name]["ms"], "backward": 0.0})
    for name in dict.fromkeys(key.rpartition("|")[0] for key in both):
        forward = times[f"{name}|forward"]["ms"]
        backward = max(0.0, times[f"{name}|both"]["ms"] - forward)
        result.append({"part": name, "forward": forward, "backward": backward})
    known = sum(row["forward"] + row["backward"] for row in result if row["part"] != "loss and gradient as one")
    result.append({"part": "not explained", "forward": step - known, "backward": 0.0})
    result.append({"part": "whole step", "forward": step, "backward": 0.0})
    return [row | {"backend": backend, "share": (row["forward"] + row["backward"]) / step} for row in result]


def print_tables(content: dict[str, Any]) -> None:
    print(f"\nOne SVI step of {'-'.join(map(str, SIZES))}-{CLASSES}, batch {BATCH}: minimum (median) in ms")
    for row in content["steps"]:
        name = f"{row['contender']}, {row['backend']}"
        ratios = f"{row['over_ours']:5.1f}x ours ({row['median_over_ours']:5.1f}x)"
        print(f"  {name:18}{row['ms']:8.2f} ({row['median_ms']:8.2f})  {ratios}, first step +{row['compile_s']:.1f} s")
    for backend in dict.fromkeys(row["backend"] for row in content["parts"]):
        print(f"\nWhere our step on {backend} goes: forward, backward in ms, and share of the step")
        for row in content["parts"]:
            if row["backend"] == backend:
                print(f"  {row['part']:34}{row['forward']:8.2f}{row['backward']:8.2f}{row['share']:8.0%}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="few repeats: does it run?")
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--backends", nargs="+", default=BACKENDS, choices=BACKENDS)
    options = parser.parse_args()
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    rounds = 1 if options.quick else options.rounds
    content: dict[str, Any] = {"machine": measure.machine(), "rounds": rounds}
    content["threads"] = "torch: cores, JAX: XLA's default"
    x, y = data()
    content["steps"], content["parts"] = [], []
    watch = measure.Others()
    for backend in options.backends:
        steps, ours = compare(backend, x, y, rounds)
        content["steps"] += steps
        content["parts"] += where_it_goes(backend, ours, steps[0]["ms"], rounds)
    content["cores_of_others"] = watch.cores()
    print_tables(content)
    print(f"\nOther processes kept {content['cores_of_others']} cores busy meanwhile.")
    if not options.quick:
        print(f"\n{measure.write('svi_step', content)}")


if __name__ == "__main__":
    main()
