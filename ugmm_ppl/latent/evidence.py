r"""The density of rows by importance sampling and by annealed importance sampling, with its error.

**Importance sampling.** For draws u_p = (z, h)_p of the guide,

    log w_p = log p(x, u_p) - log q(u_p | x),    log p(x) = log E[w] ~ log (1 / P) sum_p w_p,

whose mean is a lower bound of log p(x) that rises with P (Burda et al. 2016, arXiv:1509.00519). The error is the
standard deviation of the mean of the weights over the mean, by the delta method that of its logarithm.

**Annealed importance sampling.** P chains begin at the guide and go through T densities f_t = q^(1 - b_t) p(x, .)^b_t,
0 = b_0 < ... < b_T = 1, by one trajectory of Hamiltonian Monte Carlo in each. With log w = sum_t (b_t - b_{t-1})
(log p(x, u_{t-1}) - log q(u_{t-1} | x)) the mean of w is p(x) again (Neal 2001; Wu et al. 2017, arXiv:1611.04273). Step
sizes and scales come from a run of its own before, so that the estimate is unbiased.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ugmm_ppl.latent import density, encoder
from ugmm_ppl.neuron import log_normalize, logsumexp
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.typing import Array, PerRow, Rows

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.latent.encoder import LocalGuide
    from ugmm_ppl.latent.model import LatentNetwork

LEAPFROGS = 5
ACCEPTED = 0.65
"""Share of accepted trajectories that the step size is chosen for."""

STEEPNESS = 4.0
"""Of the logistic curve along which the temperatures lie: more of them near both ends."""

FASTER = 1.15
"""Factor of the step size from one density to the next, up or down."""

PILOT_CHAINS = 8


@dataclasses.dataclass(frozen=True, eq=False)
class Evidence:
    """Estimates of log p(x), or of log p(x, y) where y is given, in nats and the units of the data.

    Attributes:
        value: `(B,)`. Its mean over seeds is below the truth, by about error^2 / 2. A row that is impossible under all
            samples has -inf, an infinite error and no effective weights.
        error: Standard error of `value`, `(B,)`. It is too small where `ess` is.
        ess: Effective number of weights, (sum w)^2 / sum w^2, of `num_samples`, `(B,)`.
        num_samples: Weights of a row, over all posterior draws.
    """

    value: PerRow
    error: PerRow
    ess: PerRow
    num_samples: int

    @property
    def total(self) -> float:
        """Sum over the rows."""
        return float(self.value.sum())

    @property
    def total_error(self) -> float:
        """Its standard error; the rows have random numbers of their own."""
        return float(np.sqrt((self.error**2).sum()))


class Weighted(NamedTuple):
    """Weighted draws of the layers of B rows: averages over them are those under the posterior p(z, h | x).

    Attributes:
        log_joint: log p(x, u, class) - log q, `(P, B, O)`.
        hidden: z and hidden layers, joined, `(P, B, d)`.
    """

    log_joint: np.ndarray
    hidden: np.ndarray


class Weighed(NamedTuple):
    """Weighted draws under one draw of the parameters, for a block of rows."""

    draw: int
    rows: slice
    found: Weighted
    values: Mapping[str, np.ndarray]

    def log_weights(self, model: LatentNetwork, codes: np.ndarray) -> np.ndarray:
        """Log weights `(P, B)` for classes `codes` of all rows, -1 where they are summed out."""
        size = self.rows.stop - self.rows.start
        log_joint = self.found.log_joint[:, :size]
        return log_joint[..., 0] if log_joint.shape[-1] == 1 else model.seen(log_joint, codes[self.rows])

    def log_classes(self, model: LatentNetwork) -> np.ndarray:
        """log p(x, class) `(B, O)`; the weights of annealed draws are those of the sum over classes."""
        size, log_w = self.rows.stop - self.rows.start, self.found.log_joint
        if log_w.shape[-1] == 1:
            top = density.log_top(NUMPY, self.values, encoder.split(model.sizes, self.found.hidden)[0])
            log_w = log_w + log_normalize(NUMPY, top)
        return logsumexp(NUMPY, np.moveaxis(log_w[:, :size], 0, -1)) - np.log(len(log_w))


def combine(log_w: np.ndarray, log_draws: np.ndarray) -> Evidence:
    """From log weights `(D, P, B)` for D draws of the parameters, with log weights `(D,)` of their own."""
    draws, samples, _ = log_w.shape
    log_w = log_w + (log_draws - np.log(samples))[:, None, None]
    peak = np.maximum(log_w.max((0, 1)), -1e300)
    w = np.exp(log_w - peak)
    total = w.sum((0, 1))
    variance = samples * w.var(1, ddof=1).sum(0) if samples > 1 else np.full(len(peak), np.nan)
    found = total > 0.0  # else the row is impossible under every sample, which says nothing of the error
    by = np.where(found, total, 1.0)
    value, error = np.where(found, peak + np.log(by), -np.inf), np.where(found, np.sqrt(variance) / by, np.inf)
    return Evidence(value, error, total**2 / np.where(found, (w**2).sum((0, 1)), 1.0), draws * samples)


@dataclasses.dataclass(frozen=True, eq=False)
class Weigher:
    """Importance weights of rows under one draw of the parameters.

    Its functions of arrays are compiled once, as they are methods of one object.
    """

    model: LatentNetwork
    backend: Backend
    guide: LocalGuide

    def importance(
        self, values: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray], x: Rows, rows: np.ndarray,
        noise: np.ndarray,
    ) -> Weighted:  # fmt: skip
        """Draws of the guide from standard normal numbers `(P, B, d)`."""
        log_w, hidden = self.backend.inference.run(self._importance, dict(values), dict(params), x, rows, noise)
        return Weighted(_numbers(log_w.astype(np.float64)), hidden.astype(np.float64))

    def _importance(self, values: Any, params: Any, x: Array, rows: Array, noise: Array) -> tuple[Array, Array]:
        ops = self.backend.ops
        hidden, log_q = encoder.draw(self.guide, params, x, rows, noise)
        return density.log_joint(ops, values, hidden, x) - log_q[..., None], ops.concat(hidden)

    def annealed(
        self, values: Mapping[str, np.ndarray], params: Mapping[str, np.ndarray], x: Rows, rows: np.ndarray,
        y: PerRow, *, num_chains: int, num_temperatures: int, rng: np.random.Generator,
    ) -> Weighted:  # fmt: skip
        """Annealed weights of `num_chains` chains for classes y, -1 where they are summed out; O is 1."""
        path, ladder = _Path(self, dict(values), dict(params), x, rows, y), _ladder(num_temperatures)
        steps = path.tuned(ladder, rng)
        state, log_w = path.start(num_chains, rng), np.zeros((num_chains, len(x)))
        for t, b in enumerate(ladder[1:]):
            log_w = _numbers(log_w + (b - ladder[t]) * (state.log_p - state.log_q))
            if b < 1.0:
                state, _ = path.move(state, b, steps[t], rng)
        return Weighted(log_w[..., None], state.hidden)

    def terms(self, given: Any, hidden: Array) -> tuple[Array, Array]:
        """log q(u | x) and log p(x, u, y), `(P, B)` each, for what is `GIVEN`."""
        values, params, x, rows, y = (given[name] for name in GIVEN)
        parts = encoder.split(self.model.sizes, hidden)
        joint = density.log_joint(self.backend.ops, values, parts, x)
        return encoder.log_prob(self.guide, params, x, rows, parts), self.model.picked(self.backend, joint, y)

    def _path_density(self, params: dict[str, Array], given: dict[str, Any], b: Array) -> Array:
        """The sum over rows and chains of log f_b."""
        log_q, log_p = self.terms(given, params["hidden"])
        return ((1.0 - b) * log_q + b * log_p).sum()

    @functools.cached_property
    def gradient(self) -> Any:
        """({"hidden": values}, given, b) -> log f_b summed, and its gradient."""
        return self.backend.derivatives.value_and_gradients(self._path_density)


GIVEN = ("values", "params", "x", "rows", "y")


class _State(NamedTuple):
    """Chains `(P, B, d)`, and log q and log p of each `(P, B)`."""

    hidden: np.ndarray
    log_q: np.ndarray
    log_p: np.ndarray

    def log_f(self, b: float) -> np.ndarray:
        """Log density on the path."""
        return (1.0 - b) * self.log_q + b * self.log_p


class _Path:
    """The densities between the guide and the posterior, for some rows."""

    def __init__(self, weigher: Weigher, *given: Any) -> None:
        self._weigher, self._given = weigher, given
        array = weigher.backend.array
        self._arrays = {
            name: {n: array(a) for n, a in part.items()} if isinstance(part, dict) else array(part)
            for name, part in zip(GIVEN, given, strict=True)
        }

    def start(self, chains: int, rng: np.random.Generator) -> _State:
        """Draws of the guide."""
        values, params, x, rows, _ = self._given
        noise = rng.normal(size=(chains, len(x), self._weigher.model.num_latents))
        return self._state(self._weigher.importance(values, params, x, rows, noise).hidden)

    def tuned(self, ladder: np.ndarray, rng: np.random.Generator) -> list[np.ndarray]:
        """Step sizes `(B, d)` of every density but the first, from chains of their own."""
        state = self.start(PILOT_CHAINS, rng)
        scale = np.maximum(state.hidden.std(0), 1e-6)
        step, found = np.full((len(scale), 1), 0.5 / scale.shape[-1] ** 0.25), []
        for b in ladder[1:]:
            found.append(step * scale)
            state, accepted = self.move(state, b, found[-1], rng)
            step = step * np.where(accepted.mean(0) > ACCEPTED, FASTER, 1.0 / FASTER)[:, None]
        return found

    def move(self, state: _State, b: float, step: np.ndarray, rng: np.random.Generator) -> tuple[_State, np.ndarray]:
        """One trajectory with steps `(B, d)`, and whether each was accepted `(P, B)`."""
        momentum = rng.normal(size=state.hidden.shape)
        at, p = state.hidden, momentum + 0.5 * step * self._slope(state.hidden, b)
        for number in range(LEAPFROGS):
            at = at + step * p
            p = p + (0.5 if number == LEAPFROGS - 1 else 1.0) * step * self._slope(at, b)
        new = self._state(at)
        change = new.log_f(b) - state.log_f(b) - 0.5 * (p**2 - momentum**2).sum(-1)
        accepted = np.log(rng.uniform(size=change.shape)) < np.nan_to_num(change, nan=-np.inf)
        kept = (np.where(accepted.reshape(accepted.shape + (1,) * (a.ndim - 2)), a, old)
                for a, old in zip(new, state, strict=True))  # fmt: skip
        return _State(*kept), accepted

    def _state(self, hidden: np.ndarray) -> _State:
        run = self._weigher.backend.inference.run
        given = dict(zip(GIVEN, self._given, strict=True))
        log_q, log_p = run(self._weigher.terms, given, hidden)
        return _State(hidden, log_q.astype(np.float64), log_p.astype(np.float64))

    def _slope(self, hidden: np.ndarray, b: float) -> np.ndarray:
        """Gradient of log f_b; zero where it is not finite, which ends in a rejection."""
        array = self._weigher.backend.array
        found = self._weigher.gradient({"hidden": array(hidden)}, self._arrays, array(np.asarray(b)))
        return np.nan_to_num(found[1]["hidden"], posinf=0.0, neginf=0.0)


def _numbers(log_w: np.ndarray) -> np.ndarray:
    """Log weights, -inf where a row is so far out that they have overflowed: such a sample counts for nothing."""
    return np.where(log_w < np.inf, log_w, -np.inf)


def _ladder(count: int) -> np.ndarray:
    """Inverse temperatures 0 = b_0 < ... < b_count = 1."""
    raw = 1.0 / (1.0 + np.exp(-STEEPNESS * np.linspace(-1.0, 1.0, count + 1)))
    return (raw - raw[0]) / (raw[-1] - raw[0])
