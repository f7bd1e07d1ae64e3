"""The backend: what a model, a guide and `fit` ask of a PPL."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import Any, NamedTuple, Protocol

import numpy as np

from ugmm_ppl.backends.draws import NutsDraws
from ugmm_ppl.backends.progress import Progress
from ugmm_ppl.backends.trainer import Trainer
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.typing import Array, Ops, PerDraw, RowArrays, SiteDraws, SiteValues, Values


class Site(NamedTuple):
    """One sample site of a traced model: distribution, value, factor of its log density, and whether it is data.

    The factor is a number, or `(B,)` if rows have weights.
    """

    distribution: Any
    value: Array
    scale: Any
    observed: bool


class Bijector(Protocol):
    """A map from the reals onto a support: `constrain` (and its log determinant), `unconstrain`."""

    def constrain(self, u: Array) -> tuple[Array, Array]:
        """Constrained value and the sum of log |d value / d u|."""

    def unconstrain(self, value: Array) -> Array:
        """Inverse of `constrain`."""


class Backend(Protocol):
    """The primitives of a PPL under common names; `ugmm_ppl.{pyro,numpyro}.backend` implement it."""

    name: str
    ops: Ops
    dist: Any
    """The PPL's distributions by name, with `UnivariateGaussianMixture` among them."""

    @property
    def inference(self) -> Inference:
        """The backend's `inference.py`."""

    @property
    def trainer(self) -> Callable[..., Trainer]:
        """The class of the backend's `training.py`, which takes the steps of a training."""

    @property
    def derivatives(self) -> Derivatives:
        """The backend's `derivatives.py`."""

    def sample(self, name: str, distribution: Any, obs: Array | None = None) -> Array:
        """Sample statement."""

    def plate(self, name: str, size: int) -> AbstractContextManager[Any]:
        """Independent data along axis -1."""

    def scale(self, factor: float | Array) -> AbstractContextManager[Any]:
        """Multiply the log densities inside by a factor, or by one for every row of the plate, `(B,)`."""

    def deterministic(self, name: str, value: Array) -> Array:
        """Record a value in the trace."""

    def factor(self, name: str, value: Array) -> None:
        """Add to the log density."""

    def uniform(self, shape: tuple[int, ...], like: Array) -> Array:
        """Uniform numbers in [0, 1) that are no sample site; for dropout."""

    def normal(self, shape: tuple[int, ...], like: Array) -> Array:
        """Standard normal numbers that are no sample site; for the values of a row."""

    def module(self, module: Any) -> tuple[SiteValues, Callable[[Mapping[str, Array], Array], Array]]:
        """Parameters of a module of the backend's library, and the function (parameters, x) -> output that it is.

        Raises:
            TypeError: It is no such module.
            ValueError: It has a state besides its parameters.
        """

    def array(self, value: Any) -> Array:
        """Array of the backend; floats take the default dtype and device of the surrounding `settings`."""

    def numpy(self, value: Array) -> np.ndarray:
        """A NumPy array of the same numbers, from whatever device."""

    def device_name(self, device: str | int) -> str:
        """The name of a device: "cpu", or "cuda:1" for "cuda:1", "gpu:1" or 1.

        Raises:
            ValueError: It is not there; the message lists what is.
        """

    def concatenate(self, parts: Sequence[Array]) -> Array:
        """Join 1-D arrays."""

    def below_diagonal(self, matrix: Array) -> Array:
        """A square matrix with zeros on and above its diagonal."""

    def build(self, spec: Distribution, shape: tuple[int, ...], like: Array | None = None) -> Any:
        """The PPL's distribution for values of the given shape, all of it one event."""

    def normal_parameters(self, distribution: Any) -> tuple[Array, Array] | None:
        """(loc, scale) if the distribution is a Normal, expanded or not, else None."""

    def bijector(self, distribution: Any) -> Bijector | None:
        """Map from the reals onto the support, or None where that is all reals."""

    def in_support(self, distribution: Any, value: Array) -> bool:
        """Whether all of a value lies in the support."""

    def condition(self, model: Callable[..., Any], values: Values) -> Callable[..., Any]:
        """The model with the given values at its sites, which are data from then on."""

    def trace(self, model: Callable[..., Any], values: Values, *args: Any, **kwargs: Any) -> dict[str, Site]:
        """Run a model with the given values at its sites, and return its sample sites."""

    def settings(self, *, dtype: str, device: str | int) -> AbstractContextManager[Any]:
        """Dtype and device of everything that this thread makes inside."""

    def as_default(self) -> AbstractContextManager[Any]:
        """Those of the `settings` around, also for code that is not ours."""


class Inference(Protocol):
    """What runs on a backend: the functions of its `inference.py`. Arrays in and out are NumPy."""

    def seeded(self, seed: int, /) -> AbstractContextManager[Any]:
        """Context in which models draw their random numbers from `seed`."""

    def nuts(
        self,
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
        """Draw from the posterior by the no-U-turn sampler, one chain per start.

        Args:
            model: Bound model, `model(x, y, weights, data_size=)`.
            data: Inputs `(N, K)`, targets `(N, ...)` and, if rows have them, weights `(N,)`.
            starts: Unconstrained start values of each chain.
            data_size: Rows the likelihood counts for: N, or N / temperature.
            num_warmup: Adaptation steps.
            num_draws: Draws kept per chain.
            max_tree_depth: At most 2^max_tree_depth - 1 leapfrog steps per draw.
            seed: Seed.
            progress: Told the divergent draws of every block of steps.
            own_targets: The targets have a leading axis of chains, each of which has its own.

        Returns:
            Values `(C, S, ...)` by site and per-draw statistics `(C, S)`; fewer draws if the user interrupts.

        Raises:
            KeyboardInterrupt: The user interrupts before there is a draw of every chain.
        """

    def draws(
        self,
        draw: Callable[..., Any],
        noise_shapes: Mapping[str, tuple[int, ...]],
        params: Values,
        indices: range,
        seed: int,
        /,
    ) -> tuple[SiteDraws, PerDraw]:
        """Draws by number, each of which depends on its number and the seed alone.

        Args:
            draw: (parameters, noise) -> values by site, and their log density.
            noise_shapes: Shapes of the standard normal numbers that one draw needs.
            params: The parameters.
            indices: Numbers of the draws.
            seed: Seed.

        Returns:
            Values `(S, ...)` by site, in any order, and log densities `(S,)`.
        """

    def run(self, function: Callable[..., Any], /, *arguments: Any) -> tuple[np.ndarray, ...]:
        """Values of a function of arrays and dicts of such that returns arrays; compiled where that is possible.

        It is compiled once, if it is the same function, or an equal one, in every call.
        """

    def each(
        self,
        function: Callable[..., Any],
        draws: SiteDraws,
        /,
        *arguments: np.ndarray,
        handlers: bool = False,
        together: int = 1,
    ) -> Any:
        """`function(draw, *arguments)` for every draw: an array or arrays by name, with a leading axis of draws.

        Args:
            function: Of one draw, arrays by site, and of the arguments; compiled as in `run`.
            draws: `(S, ...)` by site.
            arguments: Arrays.
            handlers: Whether it runs a program of the PPL, for which threads take turns.
            together: Draws that may be evaluated side by side, in so many times the memory.
        """

    def sampled(self, function: Callable[[], dict[str, Array]], count: int, seed: int, /) -> dict[str, np.ndarray]:
        """What `count` runs of a function give that samples by the PPL, `(S, ...)` by name; compiled as in `run`."""


class Derivatives(Protocol):
    """What `ugmm_ppl.infer.laplace` and EM differentiate with on a backend: the functions of its `derivatives.py`.

    Arguments of the made functions are arrays of the backend, and their results are NumPy in float64.
    """

    def row_jacobians(
        self, function: Callable[[Array, Array], Array], /
    ) -> Callable[..., tuple[np.ndarray, np.ndarray]]:
        """Values and Jacobians of a function for every row.

        Args:
            function: (point `(n,)`, row `(K,)`) -> `(O,)`.

        Returns:
            Function (point, rows `(R, K)`) -> (values `(R, O)`, Jacobians with respect to the point `(R, O, n)`).
        """

    def value_and_gradients(
        self, function: Callable[..., Array], /
    ) -> Callable[..., tuple[float, dict[str, np.ndarray]]]:
        """Value and gradients of a scalar function.

        Args:
            function: (parameters by name, *data) -> `()`.

        Returns:
            Function (parameters, *data) -> (value, gradient by name).
        """

    def hessian_products(self, function: Callable[[Array], Array], /) -> Callable[..., np.ndarray]:
        """Products of the Hessian of a function with vectors.

        Args:
            function: point `(n,)` -> `()`.

        Returns:
            Function (point, vectors `(M, n)`) -> products `(M, n)`.
        """
