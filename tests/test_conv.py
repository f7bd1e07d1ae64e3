"""`Conv` against a loop over windows: strides, borders with renormalised weights, series and images, start values."""

import itertools

import numpy as np
import pytest
from helpers import apply, refused
from scipy import stats
from tolerances import PARITY

import ugmm_ppl as up
from ugmm_ppl.nn import Conv, Flatten, Linear
from ugmm_ppl.ops.numpy import NUMPY

CASES = {
    "plain": (Conv(3, 2), (2, 4, 5)),
    "stride": (Conv(3, (3, 2), stride=(2, 1)), (2, 7, 4)),
    "padding": (Conv(2, 3, padding=1), (1, 4, 5)),
    "padding and stride": (Conv(3, (3, 4), stride=3, padding=(2, 1)), (2, 6, 7)),
    "a series": (Conv(4, 3, stride=2, padding=2), (3, 8)),
    "tied": (Conv(2, 3, padding=1, tied=True), (2, 3, 3)),
    "one window": (Conv(5, (4, 3)), (2, 4, 3)),
    "a cube": (Conv(2, 2, padding=1), (1, 3, 2, 3)),
}


def pair(value, axes):
    """One number for each axis."""
    return (value,) * axes if isinstance(value, int) else value


def slow(conv, values, image):
    """Equation (2) at every window, one component at a time; the weights are those of components in the image."""
    axes = image.ndim - 1
    kernel, stride, padding = (pair(getattr(conv, name), axes) for name in ("kernel", "stride", "padding"))
    sizes = [(n + 2 * p - k) // s + 1 for n, k, s, p in zip(image.shape[1:], kernel, stride, padding, strict=True)]
    out = np.empty((conv.channels, *sizes))
    loc = values.get("loc", np.zeros_like(values["logits"]))
    for j, place in itertools.product(range(conv.channels), itertools.product(*map(range, sizes))):
        total, density = 0.0, 0.0
        for k, (c, *offset) in enumerate(itertools.product(range(len(image)), *map(range, kernel))):
            at = [q * s + o - p for q, s, o, p in zip(place, stride, offset, padding, strict=True)]
            if all(0 <= a < n for a, n in zip(at, image.shape[1:], strict=True)):
                weight = np.exp(values["logits"][j, k])
                scale = np.exp(values["log_scale"][j, k])
                total += weight
                density += weight * stats.norm.pdf(image[(c, *at)], loc[j, k], scale)
        out[(j, *place)] = np.log(density / total)
    return out


@pytest.mark.parametrize("case", CASES)
def test_activations_are_those_of_the_loop(backend64, rng, case):
    conv, inputs = CASES[case]
    h = rng.normal(size=(3, *inputs))
    values = conv.start(np.random.default_rng(0), h)
    values["logits"] = rng.normal(size=values["logits"].shape)
    arrays = {role: backend64.array(value) for role, value in values.items()}
    got = apply(backend64, lambda v, x: conv.apply(backend64.ops, v, x, inputs), arrays, backend64.array(h))
    want = np.stack([slow(conv, values, image) for image in h])
    assert got.shape[1:] == conv.output_shape(inputs)
    np.testing.assert_allclose(got, want, rtol=PARITY, atol=PARITY)


def test_it_is_a_dense_layer_where_there_is_one_window(rng):
    conv, dense, h = Conv(5, (4, 3)), up.nn.Dense(5), rng.normal(size=(6, 2, 4, 3))
    values = conv.start(rng, h)
    want = dense.apply(NUMPY, values, h.reshape(6, -1), (24,))
    np.testing.assert_allclose(conv.apply(NUMPY, values, h, (2, 4, 3))[..., 0, 0], want, rtol=PARITY)


def test_start_values_have_the_spread_of_the_windows():
    """Of those wholly inside; every place of the kernel has its own mean and spread."""
    rng = np.random.default_rng(0)
    ramp = 10.0 * np.arange(12.0)[None, None, :]
    h = ramp + rng.normal(size=(200, 1, 12))
    values = Conv(4000, 3, stride=3, padding=2).start(np.random.default_rng(1), h)
    inside = h[:, 0, 1:10].reshape(-1, 3)  # windows begin at -2, 1, 4, 7 and 10, of which three are inside
    error = inside.std(0) / np.sqrt(4000)
    np.testing.assert_array_less(np.abs(values["loc"].mean(0) - inside.mean(0)), 5.0 * error)
    assert (values["log_scale"] <= np.log(inside.std(0)) + 1e-9).all()


def test_images_from_pixels_to_classes(backend_name):
    """Two shapes at random places, which no pixel alone tells apart."""
    rng = np.random.default_rng(0)
    y = rng.integers(2, size=300)
    x = rng.normal(0.0, 0.1, (300, 1, 6, 6))
    for image, kind, (r, c) in zip(x[:, 0], y, rng.integers(4, size=(300, 2)), strict=True):
        image[(r + np.arange(3)) if kind else r, c + (0 if kind else np.arange(3))] += 2.0  # a column or a row
    network = up.Network([Conv(6, 3), Flatten(), up.nn.LayerNorm(), Linear()], inputs=(1, 6, 6))
    rows = x.reshape(300, -1)
    fit = up.fit(
        up.Classifier(network, classes=2), rows[:200], y[:200], backend=backend_name, method="map", num_steps=200,
        learning_rate=0.05, batch_size=50, progress=False, standardize=False,
    )  # fmt: skip
    assert np.mean(fit.predict(rows[200:]).probs.argmax(1) == y[200:]) > 0.9
    assert fit.to_arviz()["posterior"]["layers.0.loc"].dims[2:] == ("channel_0", "window_0")


BAD = {
    "no channel": (lambda: Conv(0, 3), ValueError, ("channels must be at least 1", "got 0")),
    "half a kernel": (lambda: Conv(2, 1.5), TypeError, ("kernel must be a whole number", "got 1.5")),
    "stride of zero": (lambda: Conv(2, 3, stride=(1, 0)), ValueError, ("each of stride must be at least 1", "got 0")),
    "initial": (lambda: Conv(2, 3, initial="papper"), ValueError, ("initial must be one of", "mean 'paper'")),
    "a vector": (
        lambda: up.Network([Conv(2, 3), Flatten(), Linear()], inputs=8), ValueError,
        ("Conv needs inputs of (channels, ...)", "inputs=(1, 28, 28)"),
    ),
    "three kernels": (
        lambda: up.Network([Conv(2, (3, 3, 3)), Flatten(), Linear()], inputs=(1, 8, 8)), ValueError,
        ("kernel of Conv must be one number or one for each of 2 axes", "got (3, 3, 3)"),
    ),
    "too long": (
        lambda: up.Network([Conv(2, 9), Flatten(), Linear()], inputs=(1, 8, 8)), ValueError,
        ("a kernel no longer than its padded inputs", "got inputs (1, 8, 8), kernel (9, 9) and padding (0, 0)"),
    ),
    "windows of padding alone": (
        lambda: up.Network([Conv(2, 2, padding=2), Flatten(), Linear()], inputs=(1, 8, 8)), ValueError,
        ("a padding less than the kernel", "padding (2, 2)"),
    ),
    "a readout without Flatten": (
        lambda: up.Network([Conv(2, 3), Linear()], inputs=(1, 8, 8)), ValueError, ("Linear needs inputs of a vector",),
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", BAD)
def test_what_makes_no_convolution_is_refused(case):
    make, error, parts = BAD[case]
    with refused(error, *parts):
        make()
