"""Steps of stochastic optimisation on torch; mirrors `ugmm_ppl.numpyro.training`. Arrays in and out are NumPy."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ugmm_ppl import checks
from ugmm_ppl.backends.trainer import StepRule, Steps
from ugmm_ppl.kernels.torch_ops import OPS
from ugmm_ppl.ops.torch_arrays import default_dtype, kept_random_state, normals, seed_torch, to_numpy, to_tensor
from ugmm_ppl.pyro.programs import Recorder
from ugmm_ppl.pyro.turns import as_default, exclusive, in_turns, unchecked
from ugmm_ppl.typing import Numbers, PerStep, RowArrays, SiteValues

_norm = torch.nn.utils.get_total_norm

BUILT = {
    "adam": lambda params: torch.optim.Adam(params, lr=1.0, fused=True),
    "sgd": lambda params: torch.optim.SGD(params, lr=1.0, momentum=0.9),
}


class Trainer:
    """`ugmm_ppl.backends.trainer.Trainer` for torch: restarts one after the other.

    Args:
        objective: `objective(params, noise, batch, kl_weight)` -> (loss, (log likelihood, KL)), scalars.
        noise_shapes: Shapes of the standard normal numbers of one particle.
        data: All inputs `(N, K)`, targets `(N,)` and, if rows have them, weights `(N,)`.
        seeds: One per restart.
        optimizer: "adam", "sgd", a function of an iterable of parameters that makes a `torch.optim.Optimizer`, or a
            `StepRule`.
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
        self._objective, self._shapes, self._seeds = objective, dict(noise_shapes), seeds
        self._data = tuple(to_tensor(a) for a in data)
        self._clip_norm, self._particles, self._split_batch = clip_norm, num_particles, split_batch
        ours = isinstance(optimizer, str | StepRule)
        self._make: Any = BUILT[optimizer] if isinstance(optimizer, str) else optimizer
        if isinstance(optimizer, StepRule):
            self._make = functools.partial(_ByRule, optimizer)
        self._recorder = Recorder()
        self._code_of_others = contextlib.nullcontext if ours else as_default

    def start(self, initial: Sequence[SiteValues]) -> list[_Restart]:
        """The state at start parameters."""
        tensors = [{name: to_tensor(a) for name, a in params.items()} for params in initial]
        with self._code_of_others():
            return [_Restart(self._make, params) for params in tensors]

    def advance(
        self, state: list[_Restart], first: int, rows: Numbers, rates: PerStep, kl_weights: PerStep
    ) -> tuple[list[_Restart], Steps]:
        """Take n steps of every restart."""
        shape = (len(state), len(rows))
        found = [np.full(shape, np.nan) for _ in range(3)]
        good = np.zeros(shape, dtype=bool)
        with self._code_of_others():
            new = [restart.copy(self._make) for restart in state]

        def step(number: int) -> None:
            r, n = divmod(number, len(rows))
            if n > 0 and not good[r, n - 1]:  # it stands still from its first bad step on
                return
            parts = self._differentiate(new[r].params, r, first + n, rows[n, r], float(kl_weights[n]))
            if parts is None:
                return
            with self._code_of_others():
                new[r].step(float(rates[n, r]))
            good[r, n] = True
            for history, value in zip(found, parts, strict=True):
                history[r, n] = value

        in_turns(step, len(new) * len(rows), kept_random_state, unchecked)
        return new, Steps(found[0], found[1], found[2], good)

    def params(self, state: list[_Restart]) -> list[SiteValues]:
        """Parameters of every restart."""
        return [{name: to_numpy(p).copy() for name, p in restart.params.items()} for restart in state]

    def gradient(self, state: list[_Restart], restart: int, step: int, rows: Numbers, kl_weight: float) -> SiteValues:
        """The gradient of one step of one restart."""
        params = state[restart].params
        with exclusive(), kept_random_state(), unchecked():
            self._differentiate(params, restart, step, rows, kl_weight)
        return {name: to_numpy(p.grad) for name, p in params.items()}

    def arrays(self, state: list[_Restart]) -> dict[str, np.ndarray]:
        """Parameters and the optimiser's tensors."""
        found: dict[str, np.ndarray] = {}
        for r, restart in enumerate(state):
            found |= {f"{r}/params/{name}": to_numpy(p) for name, p in restart.params.items()}
            for number, own in restart.optimizer.state_dict()["state"].items():
                found |= {f"{r}/optimizer/{number}/{key}": _plain(value) for key, value in own.items()}
        return found

    def restore(self, arrays: dict[str, np.ndarray], initial: Sequence[SiteValues]) -> list[_Restart]:
        """The state from its `arrays`."""
        with self._code_of_others():
            return [
                _Restart(
                    self._make,
                    {name: to_tensor(arrays[f"{r}/params/{name}"]) for name in params},
                    {key: value for key, value in arrays.items() if key.startswith(f"{r}/optimizer/")},
                )
                for r, params in enumerate(initial)
            ]

    def _differentiate(
        self, params: dict[str, Tensor], restart: int, step: int, rows: np.ndarray, kl_weight: float
    ) -> tuple[float, float, float] | None:
        """Loss, log likelihood and KL, with gradients in the parameters; None where they are not finite."""
        seed_torch(int(np.random.SeedSequence([self._seeds[restart], step]).generate_state(1)[0]))
        device = self._data[0].device
        weight = kl_weight if device.type == "cpu" else torch.full((), kl_weight, dtype=default_dtype())
        found = self._recorder(self._derivatives, params, torch.as_tensor(rows, device=device), weight)
        loss, log_likelihood, kl, norm = found.tolist()
        gradients = [p.grad for p in params.values()]
        # The 2-norm is fast and settles it, unless it overflows.
        if not math.isfinite(loss) or not (math.isfinite(norm) or _norm(gradients, math.inf).isfinite()):
            return None
        if self._clip_norm is not None:
            torch._foreach_mul_(gradients, torch.clamp(self._clip_norm / found[3], max=1.0))
        return loss, log_likelihood, kl

    def _derivatives(self, params: dict[str, Tensor], rows: Tensor, kl_weight: float | Tensor) -> Tensor:
        """Loss, log likelihood, KL and the norm of the gradients, which are left in the parameters."""
        batches = [
            tuple(a[part] for a in self._data) for part in rows.chunk(self._particles if self._split_batch else 1)
        ]
        for p in params.values():
            p.grad = None
        kind = default_dtype()
        totals = torch.zeros(3, dtype=kind)
        for particle in range(self._particles):
            batch = batches[particle % len(batches)]
            loss, terms = self._evaluate(params, normals(self._shapes), batch, kl_weight)
            (loss / self._particles).backward()
            found = torch.stack([torch.as_tensor(a, dtype=kind).detach() for a in (loss, *terms)])
            totals = totals + found / self._particles
        return torch.cat([totals, _norm([p.grad for p in params.values()]).to(kind)[None]])

    def _evaluate(self, params: Mapping[str, Tensor], *args: Any) -> tuple[Tensor, tuple[Any, Any]]:
        """The objective; NaN where torch refuses to factorise a matrix that has lost its meaning, as JAX has it."""
        try:
            return self._objective(params, *args)
        except torch.linalg.LinAlgError:
            return sum(p.sum() for p in params.values()) * math.nan, (math.nan, math.nan)


class _ByRule(torch.optim.Optimizer):
    """A `StepRule` as an optimiser of torch, with torch's random numbers."""

    def __init__(self, rule: StepRule, params: Any) -> None:
        super().__init__(params, {"lr": 1.0})
        self._rule = rule

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        """Move all parameters."""
        del closure
        for group in self.param_groups:
            for p in group["params"]:
                state = dict(self.state[p]) or self._rule.begin(p.detach())
                moved, new = self._rule.move(OPS, p.detach(), p.grad, state, torch.randn_like(p), group["lr"])
                p.copy_(moved)
                self.state[p].update(new)


class _Restart:
    """Parameters and optimiser of one restart."""

    def __init__(
        self,
        make: Callable[..., torch.optim.Optimizer],
        params: dict[str, Tensor],
        stored: dict[str, Any] | None = None,
    ) -> None:
        self.params = {name: p.detach().clone().requires_grad_() for name, p in params.items()}
        self.optimizer = make(list(self.params.values()))
        checks.torch_optimizer(self.optimizer, torch.optim.Optimizer)
        if stored:
            self._load(stored)

    def copy(self, make: Callable[..., torch.optim.Optimizer]) -> _Restart:
        """The same, with tensors of its own."""
        new = _Restart(make, self.params)
        if self.optimizer.state:
            new.optimizer.load_state_dict(_cloned(self.optimizer.state_dict()))
        return new

    def step(self, rate: float) -> None:
        """Update the parameters."""
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.optimizer.step()

    def _load(self, stored: dict[str, np.ndarray]) -> None:
        state: dict[int, dict[str, Any]] = {}
        for key, value in stored.items():
            number, name = key.split("/")[-2:]
            state.setdefault(int(number), {})[name] = torch.as_tensor(value)
        self.optimizer.load_state_dict({"state": state, "param_groups": self.optimizer.state_dict()["param_groups"]})


def _plain(value: Any) -> np.ndarray:
    return to_numpy(value) if isinstance(value, Tensor) else np.asarray(value)


def _cloned(tree: Any) -> Any:
    if isinstance(tree, dict):
        return {key: _cloned(value) for key, value in tree.items()}
    return tree.clone() if isinstance(tree, Tensor) else tree
