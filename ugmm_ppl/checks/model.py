"""The parts of a model, and the shapes of equation (2)."""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias

from ugmm_ppl.checks.basic import broadcast

Shape: TypeAlias = Sequence[int]


def model_parts(network: Any, prior: Any, network_kind: Any, prior_kind: Any) -> None:
    """Check that a model is made of a Network and a Prior."""
    if not isinstance(network, network_kind):
        raise TypeError(f"network must be an up.Network, e.g. up.Network((4, 32)); got {network!r}.")
    if not isinstance(prior, prior_kind):
        raise TypeError(f"prior must be an up.Prior, e.g. up.Prior(loc=up.dist.Normal(0.0, 1.0)); got {prior!r}.")


def known_model(got: Any, kind: type) -> None:
    """Check that what is fitted is a model."""
    if not isinstance(got, kind):
        raise TypeError(
            f"model must be an up.Classifier, up.Regressor, up.Model, up.Circuit or up.LatentNetwork; got {got!r}."
        )


def joint_score(network: Any) -> None:
    """Refuse a network that has no place for the class, or whose outputs are no scores."""
    if not network.log_densities or len(network.inputs) > 1 or network.num_inputs < 2:
        raise ValueError(
            "JointScore needs a network with readout='ugmm' and at least two inputs, the last of them the class; "
            f"got {network!r}."
        )


def likelihood(got: Any, kind: type) -> None:
    """Check that a model has a likelihood."""
    if not isinstance(got, kind):
        raise TypeError(f"likelihood must be one of up.likelihoods, e.g. up.likelihoods.Mixture(3); got {got!r}.")


def readout(network: Any, likelihood: Any) -> None:
    """Refuse the log densities of a ugmm readout as outputs that are no log densities."""
    if network.log_densities and not likelihood.takes_log_densities:
        raise ValueError(
            f"a likelihood of type {type(likelihood).__name__} needs outputs that are any real numbers; got a network "
            "with readout='ugmm', whose outputs are log densities. Use readout='linear', or Linear() as the last layer."
        )


@contextlib.contextmanager
def building(spec: Any) -> Iterator[None]:
    """Turn a PPL's refusal of a distribution's arguments into a message that names the description."""
    try:
        yield
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(
            f"the prior {spec!r} could not be built: {error}. "
            f"Give the arguments that the PPL's class {spec.name} takes."
        ) from error


def activation_shapes(x: Shape, loc: Shape, scale: Shape, log_weights: Shape) -> None:
    """Check the shapes of the arguments of equation (2)."""
    told = f"got x {tuple(x)}, loc {tuple(loc)}, scale {tuple(scale)}, log_weights {tuple(log_weights)}"
    if len(x) < 1:
        raise ValueError(f"x must have shape (..., K); {told}.")
    for name, shape in {"scale": scale, "log_weights": log_weights, "loc": loc}.items():
        if len(shape) < 2:
            raise ValueError(f"{name} must have shape (..., J, K), neurons by inputs; {told}.")
    try:
        own = broadcast(loc[-2:], scale[-2:], log_weights[-2:])
    except ValueError:
        raise ValueError(f"loc, scale and log_weights must agree in (J, K), their last two axes; {told}.") from None
    if x[-1] != own[1] and 1 not in (x[-1], own[1]):
        raise ValueError(f"x must have {own[1]} inputs, as the parameters have, in its last axis; {told}.")
    if own[1] < 1 or x[-1] < 1:
        raise ValueError(f"a neuron needs at least one input, K >= 1; {told}.")
    try:
        broadcast(x[:-1], loc[:-2], scale[:-2], log_weights[:-2])
    except ValueError:
        raise ValueError(
            f"the leading axes of x (before K) and of the parameters (before J, K) must broadcast; {told}."
        ) from None


def floating(what: str, dtype: str, is_floating: bool) -> None:
    """Check that a computation is asked for in floating-point numbers."""
    if not is_floating:
        raise TypeError(f"{what} needs floating-point arrays, float32 or float64; got {dtype}. Convert them first.")


def no_module(got: Any, kind: str, example: str) -> TypeError:
    """The error for something else than a module of the backend's library."""
    return TypeError(f"encoder must make a {kind}, e.g. {example}; it made {got!r} of type {type(got).__name__}.")


def module_with_state(module: Any) -> ValueError:
    """The error for a module that is no pure function of its parameters."""
    return ValueError(
        f"encoder must make modules without a state besides their parameters; got {type(module).__name__} with "
        "buffers, running means or random numbers. Leave out batch normalisation and dropout."
    )
