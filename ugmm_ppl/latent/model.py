"""`LatentNetwork`: layers of neurons that are sampled from their conditional mixtures, from z down to the data."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from ugmm_ppl import budgets
from ugmm_ppl.backends.threads import cached_property
from ugmm_ppl.checks import count, plain, settle
from ugmm_ppl.checks.data import classes_or_unknown
from ugmm_ppl.distributions.described import SIMPLEX, Distribution, describe, from_description, normal
from ugmm_ppl.latent import checks, density, encoder
from ugmm_ppl.models.base import kind
from ugmm_ppl.models.density import DensityModel
from ugmm_ppl.models.sites import SiteSpec
from ugmm_ppl.neuron import logsumexp
from ugmm_ppl.nn.dense import neuron_roles
from ugmm_ppl.nn.spaces import log_weights
from ugmm_ppl.ops.numpy import NUMPY
from ugmm_ppl.priors import Prior, PriorValue
from ugmm_ppl.typing import Array, Ops, Outputs, PerRow, Rows, SiteValues, Values

if TYPE_CHECKING:
    from ugmm_ppl.backends.base import Backend
    from ugmm_ppl.latent.encoder import LocalGuide

POINTWISE_SAMPLES = 50
"""Importance samples of a row where its density is one of many: log likelihoods, predictions, held-out scores."""


@kind
@dataclasses.dataclass(frozen=True, eq=False)
class LatentNetwork(DensityModel):
    """z ~ p(z); layer by layer every neuron is drawn from its mixture; the last layer is the data.

    `ugmm_ppl.latent.density` has the equations. The outputs of the model are log p(x, class), one per class, an
    integral over z and all hidden layers that is estimated by importance sampling.

    Training maximises the bound E_q[log p(x, h, z | theta) - log q(z, h | x)] of log p(x | theta) for every row, with a
    guide q over all layers but the data, whose form is that of the posterior: a Markov chain from x up to z
    (`ugmm_ppl.latent.encoder`). All layers are in the guide, and none is drawn from the prior: what an upper layer
    draws blindly hardly ever explains x. Where a class is known it is that of z, where it is not it is summed out.

    Args:
        sizes: Latent variables, widths of hidden layers, and columns of the data, e.g. `(2, 16, 4)`.
        gain: True for components with means gain_jk x_k - loc_jk, gain ~ Normal(0, 1); or the prior of the gains; False
            for equation (1) as it stands, x_k - loc_jk.
        components: Components of every z_k, whose parameters are learned; None for a standard normal z, or with classes
            one component.
        classes: Number of classes; every class has a z of its own. None for a density of x alone.
        encoder: "mlp"; "per-example", a Normal for every row of the training data; or a function (in_features,
            out_features) -> `torch.nn.Module` or `flax.nnx.Module`, which is called for every layer from z on: inputs
            are the layer below, outputs loc and log_scale.
        encoder_widths: Hidden widths of "mlp".
        prior: Prior over the neurons; layer 0 is the one below z.
        latent_prior: Prior over the components of z.
        class_prior: Prior over the logits of the classes, or with a Dirichlet over their probabilities.

    Raises:
        ValueError, TypeError: Sizes, counts, priors or an encoder that make no network.
    """

    sizes: tuple[int, ...]
    gain: bool | PriorValue = True
    components: int | None = None
    classes: int | None = None
    encoder: str | Callable[[int, int], Any] = "mlp"
    encoder_widths: tuple[int, ...] = (64, 64)
    prior: Prior = dataclasses.field(default_factory=Prior)
    latent_prior: Prior = dataclasses.field(default_factory=Prior)
    class_prior: PriorValue = dataclasses.field(default_factory=lambda: normal(0.0, 1.0))

    def __post_init__(self) -> None:
        """Check the arguments."""
        settle(self, sizes=checks.sizes(self.sizes), gain=plain(self.gain))
        for name, least in (("components", 1), ("classes", 2)):
            if getattr(self, name) is not None:
                settle(self, **{name: count(name, getattr(self, name), least=least)})
        checks.encoder(self.encoder)
        settle(self, encoder_widths=tuple(count("each of encoder_widths", width) for width in self.encoder_widths))
        checks.prior("prior", self.prior, len(self.layers))
        checks.prior("latent_prior", self.latent_prior, 0)
        if not isinstance(self.gain, bool):
            checks.prior_value("gain must be True, False or", self.gain)
        checks.prior_value("class_prior must be", self.class_prior)

    @cached_property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs K and neurons J of the layers, the one below z first."""
        return list(itertools.pairwise(self.sizes))

    @property
    def num_latents(self) -> int:
        """Values of z and of all hidden layers of one row."""
        return sum(self.sizes[:-1])

    @property
    def num_inputs(self) -> int:
        """Columns of the data."""
        return self.sizes[-1]

    @property
    def readout_sites(self) -> str:
        """Those of the layer of the data."""
        return f"layers.{len(self.layers) - 1}.*"

    @property
    def row_work(self) -> int:
        """Components of all neurons, for all importance samples of a row."""
        return POINTWISE_SAMPLES * sum(k * j for k, j in self.layers)

    @property
    def rows_at_once(self) -> int:
        """By the values of all components of the largest layer."""
        return max(1, budgets.TEMPORARY // (POINTWISE_SAMPLES * max(k * j for k, j in self.layers)))

    @property
    def has_local_variables(self) -> bool:
        """True: z and the hidden layers."""
        return True

    def check_inputs(
        self,
        x: Any,
        *,
        what: str = "x",
        convert: bool = True,
        first_row: int = 0,
        names: Sequence[str] | None = None,
    ) -> Rows:
        """Rows `(B, K)` of finite numbers."""
        return checks.table(x, self.num_inputs, what=what, convert=convert, first_row=first_row, names=names)

    def check_target(self, y: Any, rows: int) -> PerRow:
        """Class codes `(B,)`, -1 where not known; None is all -1."""
        return classes_or_unknown(y, rows, self.classes, "LatentNetwork")

    def local_guide(self, backend: Backend) -> LocalGuide:
        """The guide over the values of a row, by the encoder."""
        return encoder.make_local_guide(backend, self.sizes, self.encoder, self.encoder_widths)

    @cached_property
    def sites(self) -> dict[str, SiteSpec]:
        """Layer l goes from `unit_l` to `unit_{l+1}`, the last one to the columns of the data."""
        found: dict[str, SiteSpec] = {}
        if self.classes is not None:
            on_simplex = isinstance(self.class_prior, Distribution) and self.class_prior.name in SIMPLEX
            site = f"classes.{'weights' if on_simplex else 'logits'}"
            found[site] = SiteSpec(self.class_prior, (self.classes,), (self.likelihood.axis,))
        if self.components is not None or self.classes is not None:
            shape = (self.num_outputs, self.sizes[0], self.components or 1)
            axes = (self.likelihood.axis, "unit_0", "mixture_component")
            specs = self._mixtures(self.latent_prior, "", shape, axes)
            found |= {f"{density.LATENT}.{role}": spec for role, spec in specs.items()}
        for index, (k, j) in enumerate(self.layers):
            below, above = "feature" if index == len(self.layers) - 1 else f"unit_{index + 1}", f"unit_{index}"
            specs = {} if self.gain is False else {"gain": SiteSpec(self._gain_prior, (j, k), (below, above))}
            specs |= self._mixtures(self.prior, f"layers.{index}", (j, k), (below, above))
            found |= {f"layers.{index}.{role}": spec for role, spec in specs.items()}
        return found

    @staticmethod
    def _mixtures(prior: Prior, stem: str, shape: tuple[int, ...], axes: tuple[str, ...]) -> dict[str, SiteSpec]:
        """Parameters of mixtures by role; a weight that can only be one has no site."""
        weightless = ("logits", "weights") if shape[-1] == 1 else ()
        priors = prior.over(neuron_roles(shape, axes), stem)
        return {role: SiteSpec(prior, shape, axes) for role, prior in priors.items() if role not in weightless}

    @property
    def _gain_prior(self) -> PriorValue:
        return normal(0.0, 1.0) if isinstance(self.gain, bool) else self.gain

    def initial_values(self, x: Rows, seed: int) -> SiteValues:
        """Start values: gains near one of either sign, weights that prefer some inputs, small shifts.

        So every layer says much of the one below from the first step on. Where it says little, the guide of the upper
        layer soon falls back on its prior, and learns no more (posterior collapse). Components of z begin at different
        places, so that they part from each other.
        """
        del x
        rng = np.random.default_rng(seed)
        values = self.template()
        for site, value in values.items():
            stem, _, role = site.rpartition(".")
            noise = rng.normal(size=value.shape)
            if role == "gain":
                values[site] = np.where(noise < 0.0, -1.0, 1.0) * np.exp(0.2 * rng.normal(size=value.shape))
            elif role == "log_scale":
                values[site] = np.log(0.5) + 0.1 * noise
            elif role == "loc":
                values[site] = noise if stem == density.LATENT else 0.3 * noise
            elif stem != "classes":
                values[site] = noise
        return values

    def coordinates(self, feature_names: list[str]) -> dict[str, Any]:
        """The columns, and numbers of units."""
        units = {f"unit_{i}": np.arange(size) for i, size in enumerate(self.sizes[:-1])}
        return units | {"feature": feature_names, "mixture_component": np.arange(self.components or 1)}

    def outputs(self, ops: Ops, values: Values, x: Array) -> Array:
        """Refused: log p(x, class) has no closed form; a fit estimates it."""
        raise checks.no_outputs()

    def seen(self, outputs: Outputs, y: PerRow) -> PerRow:
        """log p(x, y) where the class y is known, log p(x) where it is -1: `(..., B, O)` to `(..., B)`."""
        picked = np.take_along_axis(outputs, np.maximum(y, 0)[..., None] + np.zeros((*outputs.shape[:-1], 1), int), -1)
        return np.where(y < 0, logsumexp(NUMPY, outputs), picked[..., 0])

    def log_likelihood(self, outputs: Outputs, y: PerRow) -> PerRow:
        """log p(x, y), or log p(x) where y is -1."""
        return self.seen(outputs, y)

    def local_starts(self, x: Rows, y: PerRow, seed: int) -> SiteValues:
        """Start values of the layers of all rows, which "nuts" samples too."""
        checks.known_classes(y[:, 0], self.classes)
        checks.small_enough(len(x) * self.num_latents, budgets.LOCAL_VARIABLES)
        rng = np.random.default_rng(seed)
        return {
            name: 0.1 * rng.normal(size=(len(x), size)) for name, size in zip(self.hidden, self.sizes, strict=False)
        }

    @cached_property
    def hidden(self) -> list[str]:
        """Sites of the layers above the data: `z`, `h.1`, ..."""
        return ["z", *(f"h.{i}" for i in range(1, len(self.layers)))]

    def described(self) -> dict[str, Any]:
        """The network as JSON values."""
        plain = {name: getattr(self, name) for name in ("sizes", "components", "classes", "encoder_widths")}
        encoder = self.encoder if isinstance(self.encoder, str) else describe(self.encoder)
        return plain | {
            "encoder": encoder,
            "gain": self.gain if isinstance(self.gain, bool) else describe(self.gain),
            "prior": self.prior.described(),
            "latent_prior": self.latent_prior.described(),
            "class_prior": describe(self.class_prior),
        }

    @classmethod
    def from_description(cls, parts: Mapping[str, Any], file: str) -> LatentNetwork:
        """The network from its JSON values."""
        parts = dict(parts)
        for name in ("prior", "latent_prior"):
            parts[name] = Prior.from_description(parts[name], file)
        for name in ("class_prior", "gain", "encoder"):
            parts[name] = from_description(parts[name], file) if isinstance(parts[name], dict) else parts[name]
        return cls(**parts)

    def observe(
        self,
        backend: Backend,
        values: Values,
        x: Array,
        y: Array | None,
        *,
        train: bool,
        encoder: tuple[LocalGuide, Mapping[str, Array]] | None = None,
    ) -> Array:
        """Without an encoder the class `y`, the layers `z`, `h.1`, ... and the data `x` are sampled, or given.

        The layers are local latent variables. With an encoder, a guide over the layers and its parameters, they are
        drawn from it, and the program has the factor `x`, the bound of log p(x, y) of every row `(B,)`; y then has two
        columns, class codes and the numbers of the rows.
        """
        del train
        if encoder is None:
            return self._sample(backend, values, x, y if y is None or y.ndim == 1 else y[:, 0])
        bound = self.bound(backend, values, x, cast(Array, y), *encoder)
        backend.factor("x", bound)
        return bound

    def bound(self, backend: Backend, values: Values, x: Array, y: Array, guide: LocalGuide, params: Any) -> Array:
        """log p(x, y, h, z) - log q(z, h | x) `(B,)` at one draw from q; its mean over draws bounds log p(x, y)."""
        noise = backend.normal((x.shape[-2], self.num_latents), x)
        hidden, log_q = encoder.draw(guide, params, x, y[:, 1], noise)
        return self.picked(backend, density.log_joint(backend.ops, values, hidden, x), y[:, 0]) - log_q

    def picked(self, backend: Backend, log_joint: Array, y: Array) -> Array:
        """The entry of class y `(B,)` of `(..., B, O)`, or the sum over classes where y is -1."""
        if self.classes is None:
            return log_joint[..., 0]
        ops = backend.ops
        inside = (y[:, None] == ops.constant(np.arange(self.classes), log_joint)) | (y[:, None] < 0)
        return logsumexp(ops, ops.where(inside, log_joint, -np.inf))

    def _sample(self, backend: Backend, values: Values, x: Array, y: Array | None) -> Array:
        """The layers from the class down, inside the plate."""
        make, ops = backend.dist, backend.ops
        mixtures = density.top(ops, values)
        if self.classes is not None:
            y = backend.sample("y", make.Categorical(logits=log_weights(ops, values, "classes")), obs=y)
        if mixtures is None:
            zero = ops.constant(np.zeros((x.shape[-2], self.sizes[0])), x)
            prior = make.Normal(zero, zero + 1.0)
        else:
            loc, scale, logits = (a[y] if self.classes is not None else a[0] + 0.0 * x[:, :1, None] for a in mixtures)
            prior = make.UnivariateGaussianMixture(loc, scale, logits=logits)
        h = backend.sample(self.hidden[0], prior.to_event(1))
        for index, name in enumerate([*self.hidden[1:], "x"]):
            loc, scale, logits = density.conditional(ops, values, index, h)
            mixture = make.UnivariateGaussianMixture(loc, scale, logits=logits).to_event(1)
            h = backend.sample(name, mixture, obs=x if name == "x" else None)
        return h
