"""What a model is: a table of sites, outputs as a pure function of them, and one program for all models."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.likelihoods.base import Extra, Likelihood
from ugmm_ppl.models.bound import Bound
from ugmm_ppl.models.sites import SiteSpec
from ugmm_ppl.nn.spaces import natural, unconstrained
from ugmm_ppl.priors import draw
from ugmm_ppl.typing import Array, Inputs, Ops, Outputs, PerRow, RowMatrices, Rows, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend


KINDS: dict[str, type[BaseModel]] = {}
"""Models by the name under which files hold them."""

M = TypeVar("M", bound="type[BaseModel]")


def kind(model: M) -> M:
    """Register a class of models, so that fits of it can be loaded."""
    KINDS[model.__name__] = model
    return model


class BaseModel(abc.ABC):
    """A prior over parameters, and a likelihood of data given what the parameters make of the inputs, the outputs.

    Calling the model with a backend runs it as a probabilistic program.
    """

    prior: Any
    likelihood: Likelihood
    """What the outputs say of y."""

    @property
    @abc.abstractmethod
    def num_inputs(self) -> int:
        """Number of columns K of x."""

    @property
    def num_outputs(self) -> int:
        """Number of outputs O."""
        return self.likelihood.width

    def check_target(self, y: Any, rows: int) -> PerRow:
        """Return y as an array `(B,)`, or say what is wrong with it."""
        return self.likelihood.check(y, rows)

    def log_likelihood(self, outputs: Outputs, y: PerRow) -> PerRow:
        """log p(y | outputs) in nats in NumPy, `(..., B, O)` and `(B,)` to `(..., B)`; y as the network sees it."""
        return self.likelihood.log_prob(outputs, y)

    @property
    def information(self) -> Callable[[Outputs], RowMatrices] | None:
        """Fisher information of the data about the outputs, as `Likelihood.information`; None if there is none."""
        return self.likelihood.information

    @property
    @abc.abstractmethod
    def rows_at_once(self) -> int:
        """Rows of a chunk whose largest temporary is near 16 MiB in float32."""

    @property
    @abc.abstractmethod
    def readout_sites(self) -> str:
        """Pattern of the names of the sites nearest to the outputs."""

    @property
    def observed(self) -> str:
        """Whose density the likelihood is: "y" given x, or "x"."""
        return "y"

    @property
    @abc.abstractmethod
    def row_work(self) -> int:
        """Exponentials of one row."""

    @abc.abstractmethod
    def coordinates(self, feature_names: list[str]) -> dict[str, Any]:
        """Values along those axes."""

    @property
    def feature_axis(self) -> str:
        """Name of the axis of the columns of x, for ArviZ."""
        return "feature"

    @property
    def needs_target(self) -> bool:
        """Whether there is nothing to fit or to score without y."""
        return True

    @property
    def takes_missing(self) -> bool:
        """Whether values of x may be missing, NaN."""
        return False

    @abc.abstractmethod
    def described(self) -> dict[str, Any]:
        """The arguments that make this model, as JSON values."""

    @classmethod
    @abc.abstractmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> BaseModel:
        """The model from what `described` gave, in a file that messages call `file`."""

    @property
    def dropout(self) -> float | tuple[float, ...]:
        """Probabilities by which parts are left out in training."""
        return 0.0

    @property
    def has_local_variables(self) -> bool:
        """Whether rows have variables of their own, which a sampler draws beside the parameters."""
        return False

    def check_inputs(
        self,
        x: Any,
        *,
        what: str = "x",
        convert: bool = True,
        first_row: int = 0,
        names: Sequence[str] | None = None,
    ) -> Rows:
        """Return x as an array `(B, K)`, or say what is wrong with it; arguments as in `checks.inputs`."""
        return checks.inputs(x, self.num_inputs, what=what, convert=convert, first_row=first_row, names=names)

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Extra columns that rows may bring along, which follow those of x."""
        return ()

    def check_extras(self, given: Mapping[str, Any], rows: int) -> dict[str, PerRow]:
        """Extra columns as arrays `(B,)`, all of them in their order, or none if none need be."""
        kind = type(self.likelihood).__name__
        checks.known_extras(given, [each.name for each in self.extras], kind)
        free = [each.neutral is not None and not (each.of_target and np.isfinite(each.neutral)) for each in self.extras]
        if not given and all(free):  # what stands for them depends on no units
            return {}
        return {
            each.name: each.check(given[each.name], rows)
            if each.name in given
            else np.full(rows, checks.neutral(kind, each))
            for each in self.extras
        }

    def check_training(self, x: Rows) -> None:
        """Say what makes checked inputs unfit to be trained on."""
        del x

    def units(self, x: Rows, *, jointly: bool, weights: PerRow | None = None) -> Standardizer:
        """What standardises x, whose rows count `weights` times; `jointly` takes all columns as one."""
        return Standardizer.of(x, jointly=jointly, weights=weights)

    def local_starts(self, x: Rows, y: PerRow, seed: int) -> SiteValues:
        """Start values of latent variables of the rows, which "nuts" samples beside the parameters: here none."""
        del x, y, seed
        return {}

    @abc.abstractmethod
    def initial_values(self, x: Rows, seed: int) -> SiteValues:
        """Start values of all parameters for inputs x `(B, K)` as the model sees them; equal for both backends."""

    @property
    @abc.abstractmethod
    def sites(self) -> Mapping[str, SiteSpec]:
        """The table of the parameters by site, in the order in which they are sampled; made once."""

    @abc.abstractmethod
    def outputs(self, ops: Ops, values: Values, x: Inputs) -> Array:
        """Outputs for given parameters, a pure function: `(..., B, K)` to `(..., B, O)`."""

    @abc.abstractmethod
    def observe(self, backend: Backend, values: Values, x: Inputs, y: Array | None, *, train: bool) -> Array:
        """What a program does with its parameters, inside the plate of the rows: sample or score the data."""

    def template(self) -> SiteValues:
        """Zero for every parameter in the space where it is unconstrained; gives shapes where no data are at hand."""
        return {unconstrained(site): np.zeros(spec.shape) for site, spec in self.sites.items()}

    def axes(self) -> dict[str, tuple[list[str], tuple[int, ...]]]:
        """Names and sizes of the axes of every site, and of the same parameter in natural space, for ArviZ."""
        return {
            name: (list(spec.axes), spec.shape) for site, spec in self.sites.items() for name in (site, natural(site))
        }

    @cached_property
    def plain_sites(self) -> frozenset[str]:
        """Sites of the parameters whose prior is a described distribution, not a callable."""
        return frozenset(site for site, spec in self.sites.items() if isinstance(spec.prior, Distribution))

    def parameters(self, backend: Backend, like: Array) -> dict[str, Array]:
        """Sample all parameters from their prior: site -> value, with the dtype and device of `like`."""
        return {site: draw(backend, spec.prior, site, spec.shape, like) for site, spec in self.sites.items()}

    def needs_handlers(self, drawn: Collection[str]) -> bool:
        """Whether its prior must run to make the parameters of values of these sites: callables make what they like."""
        return not (self.plain_sites == self.sites.keys() <= set(drawn))

    def values(self, backend: Backend, drawn: Mapping[str, Array], like: Array) -> Mapping[str, Array]:
        """All parameters from values of the sample sites, among them hyper-parameters of callables."""
        if self.needs_handlers(drawn):
            return backend.condition(self.parameters, drawn)(backend, like)
        return {site: drawn[site] for site in self.sites}

    def __call__(
        self,
        backend: Backend,
        x: Inputs,
        y: Array | None = None,
        weights: Array | None = None,
        *,
        data_size: float | None = None,
        train: bool = False,
        **given: Any,
    ) -> Array:
        """Run the model as a probabilistic program.

        Args:
            backend: The backend.
            x: Inputs `(B, K)`, as the model sees them (standardised, if the prior is to mean what it says).
            y: Targets `(B,)`, or None to sample them, or where there are none.
            weights: How often each row counts, positive `(B,)`; None for once.
            data_size: Rows N of the whole data set if x is a mini-batch of it: the likelihood is multiplied by N / B.
            train: Apply dropout.
            given: What else `observe` takes.

        Returns:
            What `observe` returns.
        """
        values = self.parameters(backend, x)
        count = x.shape[-2]
        weighted = contextlib.nullcontext() if weights is None else backend.scale(weights)
        scaled = backend.scale(1.0 if data_size is None else data_size / count)
        with backend.plate("data", count), scaled, weighted:
            return self.observe(backend, values, x, y, train=train, **given)

    def bind(self, backend: str) -> Callable[..., Array]:
        """The model as a model function of "pyro" or "numpyro".

            model(x, y=None, weights=None, *, data_size=None, train=False)

        It works with the PPL's own SVI, NUTS, Predictive and handlers, and can be pickled. NumPy arrays are converted
        to the PPL's default dtype.
        """
        load_backend(backend)  # which says what is wrong with the name
        return Bound(self, backend)
