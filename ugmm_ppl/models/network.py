"""Models of the form prior, network, likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ugmm_ppl import budgets, checks, kernels
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.data.joined import join
from ugmm_ppl.data.stored import restored
from ugmm_ppl.likelihoods.base import LIKELIHOODS, Extra, Likelihood
from ugmm_ppl.models import evaluation
from ugmm_ppl.models.base import BaseModel, kind
from ugmm_ppl.models.sites import SiteSpec
from ugmm_ppl.nn.base import values_of
from ugmm_ppl.nn.network import READOUT, Network
from ugmm_ppl.nn.spaces import TWINS
from ugmm_ppl.priors import Prior
from ugmm_ppl.typing import Array, Inputs, Ops, Rows, Shape, SiteDraws, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend


LIKELIHOOD = "likelihood"
"""Stem of the sites of a likelihood's own parameters."""


class BaseNetworkModel(BaseModel):
    """What models of the form prior, network, likelihood share.

    Calling the model with a backend runs it as a probabilistic program: it samples the parameters at sites named
    `layers.0.loc`, `layers.0.log_scale`, `layers.0.logits`, ..., `readout.weight`, `readout.bias`, and then the site
    `y`.
    """

    network: Network
    prior: Prior

    def __post_init__(self) -> None:
        """Check the parts."""
        checks.model_parts(self.network, self.prior, Network, Prior)
        checks.readout(self.network, self.likelihood)
        self.prior.check_layers(self.body.roles(self.network.inputs), self.network.sizes)
        checks.names("role in Prior.likelihood", self.prior.likelihood, list(self.likelihood.roles()))

    def described(self) -> dict[str, Any]:
        """Network, prior, and the fields of the class."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("network", "prior")}  # type: ignore[arg-type]
        return {"network": self.network.described(), "prior": self.prior.described(), **own}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Self:
        """The model from its JSON values."""
        network, prior = parts["network"], parts["prior"]
        made = {"network": Network.from_description(network, file), "prior": Prior.from_description(prior, file)}
        return cls(**(dict(parts) | made))

    @property
    def num_inputs(self) -> int:
        """Inputs of the network."""
        return self.network.num_inputs

    @property
    def network_outputs(self) -> int:
        """Number of outputs of the network, from which those of the model are made."""
        return self.likelihood.num_outputs

    @cached_property
    def body(self) -> Network:
        """The network with as many outputs as this model needs."""
        whole = self.network.completed(self.network_outputs)
        checks.network_outputs(whole.output_shape(whole.inputs), self.network_outputs)
        return whole

    @property
    def extras(self) -> tuple[Extra, ...]:
        """Those of the likelihood."""
        return self.likelihood.extras

    @property
    def readout_sites(self) -> str:
        """Those of the network's readout."""
        return self.network.readout_sites

    @property
    def feature_axis(self) -> str:
        """That of the inputs of the first layer, if these are the features."""
        return "input_0" if len(self.network.inputs) == 1 else "feature"

    @property
    def dropout(self) -> float | tuple[float, ...]:
        """Those of the layers."""
        return self.network.dropout

    @property
    def row_work(self) -> int:
        """Exponentials of the largest layer."""
        return self.body.work(self.network.inputs)

    def coordinates(self, feature_names: list[str]) -> dict[str, Any]:
        """The features, and numbers along the other axes."""
        sizes = {name: size for spec in self.sites.values() for name, size in zip(spec.axes, spec.shape, strict=True)}
        numbers = {name: np.arange(size) for name, size in sizes.items() if name != self.likelihood.axis}
        return numbers | {self.feature_axis: feature_names}

    @property
    def rows_at_once(self) -> int:
        """Rows of a chunk whose largest temporary is near 16 MiB in float32.

        With the native kernel that is the most numbers between two layers, with the others J x K of the largest layer.
        """
        native = kernels.info().kernel == "native"
        held = self.body.held(self.network.inputs)
        return max(1, budgets.TEMPORARY // (held if native else max(held, self.row_work)))

    def initial_values(self, x: Rows, seed: int) -> SiteValues:
        """Start values of the network, a linear readout adapted to the meaning of the outputs."""
        values = self.network.initial_values(x[:, : self.num_inputs], self.network_outputs, seed)
        weight, bias = f"{READOUT}.weight", f"{READOUT}.bias"
        if weight in values:
            values[weight], values[bias] = self.likelihood.start(values[weight], values[bias])
        return values | {f"{LIKELIHOOD}.{role}": value for role, value in self.likelihood.shared_start().items()}

    @cached_property
    def sites(self) -> dict[str, SiteSpec]:
        """Those of the layers; layer l with the axes `neuron_l` and `input_l`."""
        found: dict[str, SiteSpec] = {}
        numbered = 0
        for stem, each, inputs in self.body.placed:
            roles = each.roles(inputs)
            names = self._axes(stem, numbered, each.output_shape(inputs))
            numbered += bool(stem)
            for role, prior in self.prior.over(roles, stem).items():
                spec = roles[TWINS.get(role, role)]
                axes = tuple(names.get(axis, f"{axis}_{numbered - 1}") for axis in spec.axes)
                found[f"{stem}.{role}"] = SiteSpec(prior, spec.shape, axes)
        for role, spec in self.likelihood.roles().items():
            found[f"{LIKELIHOOD}.{role}"] = SiteSpec(self.prior.likelihood.get(role, spec.prior), spec.shape, spec.axes)
        return found

    def _axes(self, stem: str, number: int, outputs: Shape) -> dict[str, str]:
        """What a layer's axes "neuron" and "input" are called in the network."""
        is_last = stem == self.network.stems[-1] and outputs == (self.likelihood.num_outputs,)
        names = {"neuron": self.likelihood.axis} if is_last else {}
        return names | ({"input": f"neuron_{number - 1}"} if stem == READOUT and number else {})

    def outputs(self, ops: Ops, values: Values, x: Inputs, noise: Mapping[str, Array] | None = None) -> Array:
        """Run the network, with the random numbers of training if there are some: `(..., B, K)` to `(..., B, O)`."""
        if self.likelihood.width == self.likelihood.num_outputs:
            return self.network.forward(ops, values, x, noise)
        found = self.network.forward(ops, values, x[..., : self.num_inputs], noise)
        return self.likelihood.complete(ops, found, values_of(values, LIKELIHOOD), x[..., self.num_inputs :])

    def observe(self, backend: Backend, values: Values, x: Inputs, y: Array | None, *, train: bool) -> Array:
        """y ~ likelihood of the outputs, the site `y`: `(B,)`."""
        outputs = self.outputs(backend.ops, values, x, self.noise(backend, x) if train else None)
        return backend.sample("y", self.likelihood.distribution(backend, outputs), obs=y)

    def noise(self, backend: Backend, x: Inputs) -> dict[str, Array]:
        """Uniform random numbers for the training of a batch, by site: those of dropout."""
        shapes = self.body.noise_shapes(self.network.inputs, (x.shape[-2],))
        return {name: backend.uniform(shape, x) for name, shape in shapes.items()}

    def prior_predictive(
        self, x: Any, *, num_draws: int = 100, backend: str = "numpyro", seed: int = 0, **extras: Any
    ) -> SiteDraws:
        """Draws from the prior and of data under them; described at `Prior.predictive`."""
        x = self.check_inputs(x)
        x = join(x, self.check_extras(extras, len(x)))
        num_draws, seed = checks.count("num_draws", num_draws), checks.count("seed", seed, least=0)
        primitives = load_backend(backend)
        with primitives.settings(dtype="float32", device="cpu"):
            values = evaluation.prior_draws(primitives, self, num_draws, seed)
            outputs = evaluation.outputs(primitives, self, values, x, self.rows_at_once)
        return values | {"outputs": outputs, "y": self.likelihood.sample(outputs, np.random.default_rng(seed))}


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class Model(BaseNetworkModel):
    """A prior over the parameters of a network, and any likelihood of y given its outputs.

    `Classifier` and `Regressor` are this with the likelihoods `Categorical` and `Mixture`.

    Args:
        network: The network.
        likelihood: What its outputs say of y, e.g. `ugmm_ppl.likelihoods.Mixture(3)`.
        prior: Prior over the parameters.

    Raises:
        TypeError: A part of another kind.
        ValueError: A prior of layers that are not there, or a ugmm readout for a likelihood that cannot have one.
    """

    network: Network
    likelihood: Likelihood
    prior: Prior = dataclasses.field(default_factory=Prior)

    def __post_init__(self) -> None:
        """Check the parts."""
        checks.likelihood(self.likelihood, Likelihood)
        super().__post_init__()

    def described(self) -> dict[str, Any]:
        """Network, likelihood and prior."""
        return super().described() | {"likelihood": self.likelihood.described()}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Self:
        """The model from its JSON values."""
        likelihood = restored(parts["likelihood"], LIKELIHOODS, "likelihood", file)
        return super().from_description({**parts, "likelihood": likelihood}, file)
