"""Models of the form prior, network, likelihood."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from ugmm_ppl import checks, kernels
from ugmm_ppl.models.base import CHUNK_ELEMENTS, Model
from ugmm_ppl.models.sites import draw
from ugmm_ppl.nn.dropout import survivors
from ugmm_ppl.nn.network import Network
from ugmm_ppl.priors import Prior, PriorValue
from ugmm_ppl.typing import Array

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend


class NetworkModel(Model):
    """A prior over the parameters of a network, and a likelihood of y given its outputs.

    Calling the model with a backend runs it as a probabilistic program: it samples the parameters at sites named
    `layers.0.loc`, `layers.0.log_scale`, `layers.0.logits`, ..., `readout.weight`, `readout.bias`, and then the site
    `y`.
    """

    network: Network
    prior: Prior

    def described(self) -> dict[str, Any]:
        """Network, prior, and the fields of the class."""
        own = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name not in ("network", "prior")}  # type: ignore[arg-type]
        return {"network": dataclasses.asdict(self.network), "prior": self.prior.described(), **own}

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> NetworkModel:
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

    def check_method(self, method: str, *, weighted: bool = False) -> None:
        """Refuse dropout with "nuts", and "em"."""
        super().check_method(method, weighted=weighted)
        checks.sampler(method, self.network)

    @property
    def row_work(self) -> int:
        """J K of the largest layer."""
        return self.network.largest_layer(self.network_outputs)

    def axes(self, output: str) -> dict[str, tuple[list[str], tuple[int, ...]]]:
        """Layer l has `neuron_l` and `input_l`, the readout the outputs."""
        layers = self.network.layers(self.network_outputs)
        found: dict[str, tuple[list[str], tuple[int, ...]]] = {}
        for i, layer in enumerate(layers):
            last = self.network.readout == "ugmm" and i == len(layers) - 1
            neuron = output if last and self.network_outputs == self.num_outputs else f"neuron_{i}"
            for role in ("loc", "log_scale", "scale", "logits", "weights"):
                found[f"{layer.name}.{role}"] = ([neuron, f"input_{i}"], (layer.out_features, layer.in_features))
        found["readout.weight"] = (
            [output, f"neuron_{len(layers) - 1}"], (self.network_outputs, self.network.sizes[-1])
        )  # fmt: skip
        return found | {"readout.bias": ([output], (self.network_outputs,))}

    def coordinates(self, feature_names: list[str]) -> dict[str, Any]:
        """The features, and numbers of neurons."""
        found: dict[str, Any] = {"input_0": feature_names}
        for i, width in enumerate(self.network.sizes[1:]):
            found |= {f"neuron_{i}": np.arange(width), f"input_{i + 1}": np.arange(width)}
        return found

    def template(self) -> dict[str, np.ndarray]:
        """Zeros."""
        return self.network.zeros(self.network_outputs)

    @property
    def rows_at_once(self) -> int:
        """Rows of a chunk whose largest temporary is near 16 MiB in float32.

        With the native kernel that is the widest layer's rows x J, with the others rows x J x K of the largest layer.
        """
        native = kernels.info().kernel == "native"
        row = max(self.network.sizes) if native else self.network.largest_layer(self.network_outputs)
        return max(1, CHUNK_ELEMENTS // row)

    def start(self, values: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Adapt the network's start values to the meaning of the outputs."""
        return values

    def initial_values(self, x: np.ndarray, seed: int) -> dict[str, np.ndarray]:
        """Start values of all parameters for inputs x `(B, K)` as the network sees them; equal for both backends."""
        return self.start(self.network.initial_values(x, self.network_outputs, seed))

    def parameters(self, backend: Backend, like: Array) -> dict[str, Array]:
        """Sample all parameters from their prior: site -> value, with the dtype and device of `like`."""
        values = {}
        for index, layer in enumerate(self.network.layers(self.network_outputs)):
            shape = (layer.out_features, layer.in_features)
            for role, prior in self.prior.layer(index, tied=self.network.tied).items():
                site = f"{layer.name}.{role}"
                values[site] = draw(backend, prior, site, shape, like)
        if self.network.readout == "linear":
            width = self.network.sizes[-1]
            shapes = {"weight": (self.network_outputs, width), "bias": (self.network_outputs,)}
            for role, prior in self.prior.linear(width).items():
                values[f"readout.{role}"] = draw(backend, prior, f"readout.{role}", shapes[role], like)
        return values

    def site_priors(self) -> dict[str, PriorValue]:
        """Those of the neurons, and of a linear readout."""
        found = {
            f"layers.{i}.{role}": prior
            for i, _ in enumerate(self.network.layers(self.network_outputs))
            for role, prior in self.prior.layer(i, tied=self.network.tied).items()
        }
        if self.network.readout == "linear":
            found |= {f"readout.{r}": prior for r, prior in self.prior.linear(self.network.sizes[-1]).items()}
        return found

    def evaluate(self, backend: Backend, values: dict[str, Array], x: Array) -> Array:
        """Run the network."""
        return self.forward(backend, values, x, None)

    def outputs(self, backend: Backend, x: Array, *, train: bool = False) -> Array:
        """Sample the parameters from their prior and run the network: `(..., B, K)` to `(..., B, O)`."""
        values = self.parameters(backend, x)
        return self.forward(backend, values, x, self._masks(backend, x) if train else None)

    def forward(self, backend: Backend, values: dict[str, Array], x: Array, masks: list[Array | None] | None) -> Array:
        """Outputs for given parameters: `(..., B, K)` to `(..., B, O)`."""
        return self.network.forward(backend.ops, values, x, masks)

    def _masks(self, backend: Backend, x: Array) -> list[Array | None]:
        """Dropout masks of all layers."""
        masks: list[Array | None] = []
        for layer, rate in zip(self.network.layers(self.network_outputs), self.network.dropout_rates(), strict=True):
            per_example = (x.shape[-2], 1, layer.in_features)
            shape = per_example if self.network.dropout_per_example else (layer.out_features, layer.in_features)
            masks.append(survivors(backend.ops, backend.uniform(shape, x), rate) if rate > 0.0 else None)
        return masks

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
        """Run the model as a probabilistic program.

        Args:
            backend: The backend.
            x: Inputs `(B, K)`, as the network sees them (standardised, if the prior is to mean what it says).
            y: Targets `(B,)`, or None to sample them.
            weights: How often each row counts, positive `(B,)`; None for once.
            data_size: Rows N of the whole data set if x is a mini-batch of it: the likelihood is multiplied by N / B.
            train: Apply dropout.

        Returns:
            y `(B,)`.
        """
        outputs = self.outputs(backend, x, train=train)
        with self.rows(backend, x.shape[-2], weights, data_size):
            return backend.sample("y", self.likelihood(backend, outputs), obs=y)
