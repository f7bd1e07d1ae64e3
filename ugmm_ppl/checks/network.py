"""A network and its layers."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from ugmm_ppl.checks.basic import count, number
from ugmm_ppl.typing import Array, Shape


def network_sizes(got: Any) -> tuple[int, ...]:
    """The number of inputs and the widths of all hidden layers."""
    if not hasattr(got, "__len__") or len(got) < 2:
        raise ValueError(f"sizes needs the number of inputs and at least one hidden width, e.g. (4, 32); got {got!r}.")
    return tuple(count("each of sizes", size) for size in got)


def normalized_widths(sizes: Sequence[int], normalization: str | None) -> None:
    """Refuse to normalise the activation of one neuron by itself."""
    if normalization == "layer" and 1 in sizes[1:]:
        raise ValueError(
            "hidden widths of at least 2 are needed with normalization='layer' (one neuron normalised by itself is "
            f"always 0); got sizes={sizes}. Use a wider layer, or normalization=None."
        )


def dropout_rates(got: Any, depth: int) -> tuple[float, ...]:
    """Dropout probability of every layer of neurons, of which one number stands for all."""
    rates = tuple(got) if np.ndim(got) else (got,) * depth
    if len(rates) != depth:
        raise ValueError(f"dropout must be one number or one per layer of neurons, {depth}; got {len(rates)}.")
    return tuple(number("dropout", rate, 0.0, 1.0, closed_low=True) for rate in rates)


def as_layers(got: Any, kind: type) -> tuple[Any, ...] | None:
    """Return a list of layers as a tuple, or None if it holds none; refuse one that holds something else too."""
    if not isinstance(got, list | tuple) or not any(isinstance(each, kind) for each in got):
        return None
    for i, each in enumerate(got):
        if not isinstance(each, kind):
            raise TypeError(f"layers must all be layers, e.g. [Dense(32), LayerNorm(), Linear()]; got {each!r} at {i}.")
    return tuple(got)


def long_form(alone: bool, inputs: Any) -> None:
    """Refuse what belongs to the short form beside layers, and layers without inputs."""
    if not alone:
        raise ValueError(
            "tied, normalization, readout, dropout, dropout_per_example and initial belong to the short form, "
            "Network((4, 32), ...); got layers too. Give them to the layers: Dense(32, dropout=0.1), LayerNorm()."
        )
    if inputs is None:
        raise ValueError("a network of layers needs inputs=, e.g. Network([Dense(32), Linear()], inputs=4); got None.")


def short_form(layers: Any, sizes: Any, inputs: Any) -> None:
    """Refuse two descriptions of one network."""
    if layers is not None and sizes is not None:
        raise ValueError(f"a network needs layers or sizes; got both, {layers!r} and sizes={sizes!r}.")
    if inputs is not None:
        raise ValueError(f"inputs belongs to a list of layers; got sizes, whose first number says it, and {inputs!r}.")


def shape(what: str, got: Any, least: int = 1) -> Shape:
    """A number, or several of them, as a shape."""
    name, sizes = (f"each of {what}", got) if np.ndim(got) else (what, (got,))
    return tuple(count(name, size, least) for size in sizes)


def along(layer: str, what: str, got: int | Sequence[int], axes: int) -> Shape:
    """One number for each axis of space, of which one stands for all."""
    if axes < 1:
        raise ValueError(
            f"{layer} needs inputs of (channels, ...), with an axis of space; got {axes + 1} axes. Give the network "
            "inputs=(1, 28, 28), or such."
        )
    sizes = (got,) * axes if isinstance(got, int) else tuple(got)
    if len(sizes) != axes:
        raise ValueError(f"{what} of {layer} must be one number or one for each of {axes} axes; got {got}.")
    return sizes


def windows(inputs: Shape, kernel: Shape, padding: Shape) -> None:
    """Check that windows fit, and that each has a place inside."""
    for size, k, p in zip(inputs[1:], kernel, padding, strict=True):
        if k > size + 2 * p or p >= k:
            raise ValueError(
                "Conv needs a kernel no longer than its padded inputs, and a padding less than the kernel; got inputs "
                f"{inputs}, kernel {kernel} and padding {padding}."
            )


def units(got: Any) -> int | None:
    """A number of units, or None."""
    return None if got is None else count("units", got)


def open_units(is_open: Sequence[bool]) -> None:
    """Refuse layers without a number of units before the last one."""
    for i, missing in enumerate(is_open[:-1]):
        if missing:
            raise ValueError(f"only the last layer may leave units open; got units=None in layer {i}. Give a number.")


def complete(layer: str, units: int | None) -> int:
    """The number of units of a layer that must have one."""
    if units is None:
        raise ValueError(f"{layer} needs a number of units here, e.g. {layer}(3); got None.")
    return units


def layer_inputs(layer: str, inputs: Shape, axes: int, do: str) -> None:
    """Check the number of axes of the inputs of a layer."""
    if len(inputs) != axes:
        kind = "a vector, (K,)" if axes == 1 else f"{axes} axes, (channels, ...)"
        raise ValueError(f"{layer} needs inputs of {kind}; got the shape {inputs}. Put {do} before it.")


def layer_shape(layer: str, needed: Shape, got: Shape) -> None:
    """Check that the inputs of a layer have the shape that it was made for."""
    if tuple(got) != needed:
        raise ValueError(f"this {layer} was made for inputs of the shape {needed}; got {got}. Give it inputs={got}.")


def network_outputs(got: Shape, outputs: int) -> None:
    """Check that a network has as many outputs as its likelihood takes."""
    if got != (outputs,):
        raise ValueError(
            f"the network must have {outputs} outputs, as the likelihood needs; got the shape {got}. Give its last "
            "layer that number of units, or None, as in Linear()."
        )


def normalized(inputs: Shape) -> None:
    """Refuse to normalise one number by itself."""
    if np.prod(inputs) < 2:
        raise ValueError(
            "LayerNorm needs at least 2 inputs (one normalised by itself is always 0); got 1. Leave it out."
        )


def layer_sizes(in_features: Any, out_features: Any) -> dict[str, int]:
    """Return the sizes of a `UGMMLayer` by name, as plain numbers."""
    sizes = {"in_features": in_features, "out_features": out_features}
    return {name: count(name, size) for name, size in sizes.items()}


def layer_prior(got: Any, kind: type) -> None:
    """Check that the prior of a layer is a Prior, or None."""
    if got is not None and not isinstance(got, kind):
        raise TypeError(f"prior must be an up.Prior or None; got {got!r}.")


def one_layer(got: Any, kind: type) -> None:
    """Check that a module is made of a layer."""
    if not isinstance(got, kind):
        raise TypeError(f"layer must be one of ugmm_ppl.nn, e.g. Dense(8); got {got!r}.")


def module_inputs(layer: Any, got: Any) -> Shape:
    """The shape of the inputs of a layer that stands alone, which a network knows itself."""
    found = getattr(layer, "inputs", None) if got is None else got
    if found is None:
        raise TypeError(f"a module of {layer!r} needs inputs, their number or shape, e.g. inputs=4; got None.")
    return shape("inputs", found)


def example_shape(x: Array, inputs: Shape) -> None:
    """Check the last axes of a layer's input."""
    shape = tuple(np.shape(x))
    if len(shape) < len(inputs) or shape[-len(inputs) :] != inputs:
        raise ValueError(
            f"the layer needs inputs of shape (..., {', '.join(map(str, inputs))}); got shape {shape}. "
            "Give the layer the shape of its inputs, or the inputs that shape."
        )
