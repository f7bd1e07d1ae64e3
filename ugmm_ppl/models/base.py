"""What `fit` asks of a model, and what all models of the form prior, network, likelihood share."""

from __future__ import annotations

import abc
import contextlib
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from ugmm_ppl import checks
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.distributions.described import Distribution
from ugmm_ppl.models.bound import Bound
from ugmm_ppl.priors import PriorValue
from ugmm_ppl.typing import Array

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.backends.trainer import Trainer
    from ugmm_ppl.guides.guide import Guide


CHUNK_ELEMENTS = 2**22
"""Entries of the largest temporary of a prediction."""


KINDS: dict[str, type[Model]] = {}
"""Models by the name under which files hold them."""

M = TypeVar("M", bound="type[Model]")


def kind(model: M) -> M:
    """Register a class of models, so that fits of it can be loaded."""
    KINDS[model.__name__] = model
    return model


class Model(abc.ABC):
    """A prior over parameters, and a likelihood of data given what the parameters make of the inputs, the outputs.

    Calling the model with a backend runs it as a probabilistic program.
    """

    prior: Any

    @property
    @abc.abstractmethod
    def num_inputs(self) -> int:
        """Number of columns K of x."""

    @property
    @abc.abstractmethod
    def num_outputs(self) -> int:
        """Number of outputs O of the network."""

    @property
    @abc.abstractmethod
    def real_target(self) -> bool:
        """Whether y is a real number, which `fit` standardises."""

    @abc.abstractmethod
    def check_target(self, y: Any, rows: int) -> np.ndarray:
        """Return y as an array `(B,)`, or say what is wrong with it."""

    @abc.abstractmethod
    def likelihood(self, backend: Backend, outputs: Array) -> Any:
        """The PPL's distribution of y, of batch shape `(..., B)`, given outputs `(..., B, O)`."""

    @abc.abstractmethod
    def log_likelihood(self, outputs: np.ndarray, y: np.ndarray) -> np.ndarray:
        """log p(y | outputs) in nats in NumPy, `(..., B, O)` and `(B,)` to `(..., B)`; y as the network sees it."""

    @abc.abstractmethod
    def defined(self, outputs: np.ndarray) -> np.ndarray:
        """Whether outputs `(..., O)` say anything of y: `(...)`; they may have overflowed."""

    def information(self, outputs: np.ndarray) -> np.ndarray:
        """Fisher information of y about the outputs in NumPy, E[s s^T] with s = d log p(y | outputs) / d outputs.

        `(B, O)` to `(B, O, O)`; method="laplace" needs it.
        """
        raise checks.no_information(self)

    @abc.abstractmethod
    def sample_target(self, outputs: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """One y per output row in NumPy, `(..., B, O)` to `(..., B)`; y as the network sees it."""

    @abc.abstractmethod
    def prediction(
        self, outputs: np.ndarray, units: Standardizer | None, backend: Backend, weights: np.ndarray | None = None
    ) -> Any:
        """The prediction object for outputs `(C, S, B, O)` and weights `(C,)` of chains, in the units of the data."""

    @abc.abstractmethod
    def output_names(self, class_names: list[str] | None) -> list[str]:
        """Names of the O outputs."""

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
    def axes(self, output: str) -> dict[str, tuple[list[str], tuple[int, ...]]]:
        """Names and sizes of the axes of every site, for ArviZ; `output` is what an output is called."""

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
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Model:
        """The model from what `described` gave, in a file that messages call `file`."""

    def check_method(self, method: str, *, weighted: bool = False) -> None:
        """Say what is wrong with a method for this model; `weighted`: rows have weights."""
        del weighted
        if method == "em":
            raise checks.no_em(self)

    def check_inputs(
        self,
        x: Any,
        *,
        what: str = "x",
        convert: bool = True,
        first_row: int = 0,
        names: Sequence[str] | None = None,
    ) -> np.ndarray:
        """Return x as an array `(B, K)`, or say what is wrong with it; arguments as in `checks.inputs`."""
        return checks.inputs(x, self.num_inputs, what=what, convert=convert, first_row=first_row, names=names)

    def check_training(self, x: np.ndarray) -> None:
        """Say what makes checked inputs unfit to be trained on."""
        del x

    def units(self, x: np.ndarray, *, jointly: bool, weights: np.ndarray | None = None) -> Standardizer:
        """What standardises x, whose rows count `weights` times; `jointly` takes all columns as one."""
        return Standardizer.of(x, jointly=jointly, weights=weights)

    def local_starts(self, x: np.ndarray, y: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Start values of latent variables of the rows, which "nuts" samples beside the parameters: here none."""
        del x, y, seed
        return {}

    def em_trainer(self, backend: Backend, guide: Guide, data: tuple[np.ndarray, ...]) -> Trainer:
        """What takes the steps of method="em", for models that have it."""
        raise checks.no_em(self)

    @abc.abstractmethod
    def template(self) -> dict[str, np.ndarray]:
        """Some value for every parameter; gives the shapes where no data are at hand."""

    @abc.abstractmethod
    def initial_values(self, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Start values of all parameters for inputs x `(B, K)` as the model sees them; equal for both backends."""

    @abc.abstractmethod
    def parameters(self, backend: Backend, like: Array) -> dict[str, Array]:
        """Sample all parameters from their prior: site -> value, with the dtype and device of `like`."""

    @abc.abstractmethod
    def site_priors(self) -> dict[str, PriorValue]:
        """Prior of every parameter by its site, in the order in which they are sampled."""

    def plain_sites(self) -> set[str]:
        """Sites of the parameters whose prior is a described distribution, not a callable."""
        return {name for name, prior in self.site_priors().items() if isinstance(prior, Distribution)}

    @abc.abstractmethod
    def evaluate(self, backend: Backend, values: dict[str, Array], x: Array) -> Array:
        """Outputs for given parameters: `(..., B, K)` to `(..., B, O)`."""

    def needs_handlers(self, values: Collection[str]) -> bool:
        """Whether its prior must run to make the parameters of values of these sites: callables make what they like."""
        needed = self.site_priors()
        return not (self.plain_sites() == needed.keys() <= set(values))

    @abc.abstractmethod
    def outputs(self, backend: Backend, x: Array, *, train: bool = False) -> Array:
        """Sample the parameters from their prior and evaluate the model: `(..., B, K)` to `(..., B, O)`."""

    @abc.abstractmethod
    def __call__(
        self,
        backend: Backend,
        x: Array,
        y: Array | None = None,
        weights: Array | None = None,
        *,
        data_size: float | None = None,
        train: bool = False,
    ) -> Array:
        """Run the model as a probabilistic program."""

    @contextlib.contextmanager
    def rows(self, backend: Backend, count: int, weights: Array | None, data_size: float | None) -> Iterator[None]:
        """The plate of independent rows, whose log densities are multiplied by N / B and by the weights of the rows."""
        weighted = contextlib.nullcontext() if weights is None else backend.scale(weights)
        with backend.plate("data", count), backend.scale(1.0 if data_size is None else data_size / count), weighted:
            yield

    def bind(self, backend: str) -> Callable[..., Array]:
        """The model as a model function of "pyro" or "numpyro".

            model(x, y=None, weights=None, *, data_size=None, train=False)

        It works with the PPL's own SVI, NUTS, Predictive and handlers, and can be pickled. NumPy arrays are converted
        to the PPL's default dtype.
        """
        load_backend(backend)  # which says what is wrong with the name
        return Bound(self, backend)
