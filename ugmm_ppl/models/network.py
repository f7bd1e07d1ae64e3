"""Models of the form prior, network, likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from ugmm_ppl import budgets, checks, kernels
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.checks.files import unknown_kind
from ugmm_ppl.likelihoods.base import LIKELIHOODS, Likelihood
from ugmm_ppl.models import evaluation
from ugmm_ppl.models.base import Model, kind
from ugmm_ppl.models.sites import SiteSpec
from ugmm_ppl.nn.dropout import survivors
from ugmm_ppl.nn.network import Network
from ugmm_ppl.priors import Prior
from ugmm_ppl.typing import Array, Ops

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend


class BaseNetworkModel(Model):
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

    def described(self) -> dict[str, Any]:
        """Network, prior, and the fields of the class."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("network", "prior")}  # type: ignore[arg-type]
        return {"network": dataclasses.asdict(self.network), "prior": self.prior.described(), **own}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> Self:
        """The model from its JSON values."""
        made = {"network": Network(**parts["network"]), "prior": Prior.from_description(parts["prior"], file)}
        return cls(**(dict(parts) | made))

    @property
    def num_inputs(self) -> int:
        """Inputs of the network."""
        return self.network.sizes[0]

    @property
    def network_outputs(self) -> int:
        """Number of outputs of the network, from which those of the model are made."""
        return self.num_outputs

    @property
    def readout_sites(self) -> str:
        """Those of the network's readout."""
        return self.network.readout_sites

    @property
    def feature_axis(self) -> str:
        """That of the inputs of the first layer."""
        return "input_0"

    @property
    def dropout(self) -> float | tuple[float, ...]:
        """That of the network."""
        return self.network.dropout

    @property
    def row_work(self) -> int:
        """J K of the largest layer."""
        return self.network.largest_layer(self.network_outputs)

    def coordinates(self, feature_names: list[str]) -> dict[str, Any]:
        """The features, and numbers of neurons."""
        found: dict[str, Any] = {"input_0": feature_names}
        for i, width in enumerate(self.network.sizes[1:]):
            found |= {f"neuron_{i}": np.arange(width), f"input_{i + 1}": np.arange(width)}
        return found

    @property
    def rows_at_once(self) -> int:
        """Rows of a chunk whose largest temporary is near 16 MiB in float32.

        With the native kernel that is the widest layer's rows x J, with the others rows x J x K of the largest layer.
        """
        native = kernels.info().kernel == "native"
        row = max(self.network.sizes) if native else self.network.largest_layer(self.network_outputs)
        return max(1, budgets.TEMPORARY // row)

    def initial_values(self, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Start values of the network, the readout adapted to the meaning of the outputs."""
        values = self.network.initial_values(x, self.network_outputs, seed)
        if self.network.readout == "linear":
            readout = self.likelihood.start(values["readout.weight"], values["readout.bias"])
            values["readout.weight"], values["readout.bias"] = readout
        return values

    @cached_property
    def sites(self) -> dict[str, SiteSpec]:
        """Those of the neurons, layer l with the axes `neuron_l` and `input_l`, and of a linear readout."""
        found: dict[str, SiteSpec] = {}
        layers = self.network.layers(self.network_outputs)
        for i, layer in enumerate(layers):
            last = self.network.readout == "ugmm" and i == len(layers) - 1
            neuron = self.likelihood.axis if last and self.network_outputs == self.num_outputs else f"neuron_{i}"
            shape, axes = (layer.out_features, layer.in_features), (neuron, f"input_{i}")
            for role, prior in self.prior.layer(i, tied=self.network.tied).items():
                found[f"{layer.name}.{role}"] = SiteSpec(prior, shape, axes)
        if self.network.readout == "linear":
            outputs, width = self.network_outputs, self.network.sizes[-1]
            weight, bias = self.prior.linear(width).values()
            axes = (self.likelihood.axis, f"neuron_{len(layers) - 1}")
            found["readout.weight"] = SiteSpec(weight, (outputs, width), axes)
            found["readout.bias"] = SiteSpec(bias, (outputs,), axes[:1])
        return found

    def outputs(
        self, ops: Ops, values: Mapping[str, Array], x: Array, keep: Sequence[Array | None] | None = None
    ) -> Array:
        """Run the network, `keep` of its components: `(..., B, K)` to `(..., B, O)`."""
        return self.network.forward(ops, values, x, keep)

    def observe(
        self, backend: Backend, values: Mapping[str, Array], x: Array, y: Array | None, *, train: bool
    ) -> Array:
        """y ~ likelihood of the outputs, the site `y`: `(B,)`."""
        outputs = self.outputs(backend.ops, values, x, self.masks(backend, x) if train else None)
        return backend.sample("y", self.likelihood.distribution(backend, outputs), obs=y)

    def masks(self, backend: Backend, x: Array) -> list[Array | None]:
        """Dropout masks of all layers."""
        masks: list[Array | None] = []
        for layer, rate in zip(self.network.layers(self.network_outputs), self.network.dropout_rates(), strict=True):
            per_example = (x.shape[-2], 1, layer.in_features)
            shape = per_example if self.network.dropout_per_example else (layer.out_features, layer.in_features)
            masks.append(survivors(backend.ops, backend.uniform(shape, x), rate) if rate > 0.0 else None)
        return masks

    def prior_predictive(
        self, x: Any, *, num_draws: int = 100, backend: str = "numpyro", seed: int = 0
    ) -> dict[str, np.ndarray]:
        """Draws from the prior and of data under them; described at `Prior.predictive`."""
        x = self.check_inputs(x)
        num_draws, seed = checks.count("num_draws", num_draws), checks.count("seed", seed, least=0)
        primitives = load_backend(backend)
        with primitives.settings(dtype="float32", device="cpu"):
            values = evaluation.prior_draws(primitives, self, num_draws, seed)
            outputs = evaluation.outputs(primitives, self, values, x, self.rows_at_once)
        return values | {"outputs": outputs, "y": self.likelihood.sample(outputs, np.random.default_rng(seed))}


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class NetworkModel(BaseNetworkModel):
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
        given = dict(parts["likelihood"])
        name = given.pop("kind")
        if name not in LIKELIHOODS:
            raise unknown_kind(file, "likelihood", name, LIKELIHOODS)
        return super().from_description({**parts, "likelihood": LIKELIHOODS[name](**given)}, file)
