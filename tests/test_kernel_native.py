"""The C functions of the native kernel with every instruction set, on any strides and threads, against the formula."""

import ctypes

import numpy as np
import pytest
from helpers import assert_relative
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from kernel_cases import (
    INSTRUCTION_SETS,
    SHAPES,
    assert_gradients,
    backward,
    draw,
    forward,
    of_instruction_set,
    oracle,
    oracle_gradients,
)
from tolerances import EXACT64, GRADIENT32, ORACLE32, ULP, ULP_UNFUSED

ULP_OF = {b"baseline": ULP_UNFUSED, b"avx2": ULP, b"avx512": ULP}
VALUE = {"float32": ORACLE32, "float64": EXACT64}
GRADIENT = {"float32": GRADIENT32, "float64": EXACT64}


@pytest.fixture(scope="module", params=INSTRUCTION_SETS)
def native(request, tmp_path_factory):
    """The C functions, one instruction set after the other."""
    return of_instruction_set(request.param, tmp_path_factory.mktemp(request.param))


dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def check(native, rng, arguments, dtype, threads=2):
    """Activations and gradients for a random upstream gradient are those of the oracle."""
    out = forward(native, arguments, threads)
    assert_relative(out, oracle(*arguments)[0], VALUE[dtype])
    upstream = rng.normal(size=out.shape).astype(dtype)
    found = backward(native, arguments, out, upstream, threads)
    assert_gradients(found, oracle_gradients(arguments, upstream), GRADIENT[dtype])


@dtypes
@pytest.mark.parametrize("shape", SHAPES)
def test_leading_axes(native, rng, shape, dtype):
    check(native, rng, draw(rng, *SHAPES[shape], 4, 19, dtype), dtype)


@dtypes
@pytest.mark.parametrize(
    "sizes",
    [(1, 1, 1), (3, 1, 4096), (70, 33, 1), (300, 7, 16), (1300, 7, 16), (5, 40, 129), (9, 130, 129), (33, 260, 31)],
)
def test_sizes_around_the_blocks_of_the_kernel(native, rng, sizes, dtype):
    rows, neurons, inputs = sizes
    for threads in (1, 5):
        check(native, rng, draw(rng, (rows,), [()] * 3, neurons, inputs, dtype), dtype, threads)


@settings(deadline=None, derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_shape_and_strides(native, data):
    """Leading axes that each array has, has with size 1, or lacks; views with strides; gradients wanted or not."""
    dtype = data.draw(st.sampled_from(["float32", "float64"]))
    leading = data.draw(st.lists(st.integers(1, 5), max_size=3))
    neurons, inputs = data.draw(st.integers(1, 20)), data.draw(st.integers(1, 70))
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32)))

    def part_of(axes):
        kept = axes[data.draw(st.integers(0, len(axes))) :]
        return tuple(size if data.draw(st.booleans()) else 1 for size in kept)

    def with_strides(a):
        kind = data.draw(st.sampled_from(["contiguous", "turned", "every second", "one repeated"]))
        if kind == "turned":
            return np.asfortranarray(a)
        if kind == "every second":
            return np.repeat(a, 2, axis=-1)[..., ::2]
        if kind == "one repeated":  # along the first axis, stride 0
            return np.broadcast_to(a[:1], a.shape)
        return a

    arguments = draw(rng, part_of(leading), [part_of(leading) for _ in range(3)], neurons, inputs, dtype)
    arguments = [with_strides(a) for a in arguments]
    threads = data.draw(st.integers(1, 5))
    out = forward(native, arguments, threads)
    assert_relative(out, oracle(*arguments)[0], VALUE[dtype])
    upstream = rng.normal(size=out.shape).astype(dtype)
    wanted = data.draw(st.tuples(*[st.booleans()] * 4))
    found = backward(native, arguments, out, upstream, threads, wanted)
    want = oracle_gradients(arguments, upstream)
    for gradient, other, asked in zip(found, want, wanted, strict=True):
        if asked:
            assert_gradients([gradient] * 4, [other] * 4, GRADIENT[dtype])


@dtypes
def test_means_tied_by_a_null_pointer(native, rng, dtype):
    x, loc, scale, log_weights = draw(rng, (9,), [()] * 3, 5, 20, dtype)
    tied, untied = (x, None, scale, log_weights), (x, 0.0 * loc, scale, log_weights)
    out = forward(native, tied)
    np.testing.assert_array_equal(out, forward(native, untied))
    found = backward(native, tied, out, out, wanted=(True, False, True, True))
    for one, other in zip(found, backward(native, untied, out, out), strict=True):
        if one is not None:
            np.testing.assert_array_equal(one, other)


@dtypes
@pytest.mark.parametrize("inputs", [5, 20, 300])
def test_a_row_far_from_all_components_changes_no_other(native, rng, inputs, dtype):
    """Sums that would leave the range of numbers are taken again with a peak, and their neighbours with them."""
    arguments = draw(rng, (40,), [()] * 3, 3, inputs, dtype)
    before = forward(native, arguments)
    arguments[0] = arguments[0].copy()
    arguments[0][[7, 36]] = 1e4
    after = forward(native, arguments)
    assert (after[[7, 36]] < -1e4).all()
    others = np.delete(np.arange(40), [7, 36])
    np.testing.assert_array_equal(after[others], before[others])


@dtypes
@pytest.mark.parametrize("power", [-100, 100])
def test_upstream_gradients_near_the_ends_of_the_range(native, rng, power, dtype):
    """Gradients are linear in the upstream one, also where its quotient by 2^a would leave the range of numbers."""
    arguments = draw(rng, (40,), [()] * 3, 3, 20, dtype)
    out = forward(native, arguments)
    upstream = rng.normal(size=out.shape).astype(dtype)
    scaled = backward(native, arguments, out, np.ldexp(upstream, power))
    plain = backward(native, arguments, out, upstream)
    assert_gradients([np.ldexp(gradient, -power) for gradient in scaled], plain, GRADIENT[dtype])


@pytest.mark.parametrize(("rows", "neurons"), [(0, 3), (4, 0), (0, 0)])
def test_nothing_to_do(native, rng, rows, neurons):
    """The gradients of an empty sum are zero."""
    arguments = draw(rng, (rows,), [()] * 3, neurons, 6)
    out = forward(native, arguments)
    assert out.shape == (rows, neurons)
    for gradient, argument in zip(backward(native, arguments, out, out), arguments, strict=True):
        np.testing.assert_array_equal(gradient, np.zeros_like(argument))


@dtypes
@pytest.mark.parametrize("inputs", [5, 20, 100, 300])
@pytest.mark.parametrize("place", [0, 3, 12, -1])
def test_nan_is_not_hidden_by_larger_terms(native, inputs, place, dtype):
    """Terms 2^10^5 times as large come after it, before it, and in the lanes beside it; or nothing but padding."""
    for rows in (1, 40):
        x, zero = np.full((rows, inputs), 300.0, dtype), np.zeros((2, inputs), dtype)
        x[:, 1::2] = 0.0
        x[0, place % inputs] = np.nan
        arguments = [x, zero, zero + 1.0, zero]
        out = forward(native, arguments)
        np.testing.assert_array_equal(np.isnan(out), [[True, True]] + [[False, False]] * (rows - 1))
        dx, dloc, *_ = backward(native, arguments, out, np.ones_like(out))
        assert np.isnan(dx[0]).any()
        assert np.isfinite(dx[1:]).all()
        assert np.isnan(dloc).all()


def test_float32_sums_do_not_drift(native):
    """4096 equal terms: added one after the other, their rounding errors would all be of one sign."""
    x = np.repeat(np.linspace(0.0, 2.0, 100, dtype=np.float32)[:, None], 4096, axis=1)
    zero = np.zeros((1, 4096), np.float32)
    arguments = [x, zero, zero + 1, zero - np.float32(np.log(4096.0))]
    assert_relative(forward(native, arguments), oracle(*arguments)[0], ORACLE32)


@dtypes
@pytest.mark.parametrize("distance", [10.0, 1e3, 1e5, 1e10])
def test_gradients_far_from_all_components(native, rng, distance, dtype):
    """The activation is then a large number whose rounding error alone is many nats; the gradient must not feel it.

    All components alike, so that each is responsible for an equal share exactly.
    """
    x = (distance * rng.uniform(-1.0, 1.0, (40, 1)) * np.ones(24)).astype(dtype)
    scale = np.repeat(np.exp(rng.normal(size=(3, 1))), 24, axis=1).astype(dtype)
    arguments = [x, np.zeros_like(scale), scale, np.full_like(scale, -np.log(24.0))]
    check(native, rng, arguments, dtype)


@dtypes
def test_responsibilities_sum_to_one_at_any_distance(native, rng, dtype):
    """So the gradients of log_weights sum to the upstream gradient, and none is NaN."""
    reach, scale = 10.0 ** rng.uniform(0.0, 4.0, (40, 1)), 10.0 ** rng.uniform(-6.0, 0.0, (20, 1))
    x, loc = reach * rng.uniform(-1.0, 1.0, (40, 50)), rng.normal(size=(20, 50))
    arguments = [a.astype(dtype) for a in (x, loc, scale * np.ones(50), rng.normal(size=(20, 50)))]
    out = forward(native, arguments)
    upstream = rng.uniform(0.5, 1.5, out.shape).astype(dtype)
    found = backward(native, arguments, out, upstream)
    assert all(np.isfinite(gradient).all() for gradient in found)
    np.testing.assert_allclose(found[3].sum(-1), upstream.sum(0), rtol=GRADIENT[dtype])


@dtypes
@pytest.mark.parametrize("inputs", [8, 40])
@pytest.mark.parametrize(
    "shape",
    [((600,), [()] * 3), ((3, 200), [(3, 1), (3, 1), ()]), ((150,), [(4, 1)] * 3), ((), [(600,)] * 3)],
    ids=["a batch", "draws of both", "draws of the parameters", "one row"],
)
def test_the_same_numbers_for_any_number_of_threads(native, rng, shape, inputs, dtype):
    """The forward pass to the bit; the backward pass to the bit for the same number, and to rounding for others.

    Calls large enough for the kernel to use threads, with few inputs, where threads share rows, and with many.
    """
    arguments = draw(rng, *shape, 30, inputs, dtype)
    one = forward(native, arguments, 1)
    upstream = rng.normal(size=one.shape).astype(dtype)
    gradients = backward(native, arguments, one, upstream, 1)
    for threads in (2, 3, 8):
        np.testing.assert_array_equal(forward(native, arguments, threads), one)
        first, again = (backward(native, arguments, one, upstream, threads) for _ in range(2))
        for a, b in zip(first, again, strict=True):
            np.testing.assert_array_equal(a, b)
        assert_gradients(first, gradients, GRADIENT[dtype])


def test_threads_do_not_write_to_one_element_at_a_time(native, rng):
    """Rows that share one row of x, by parameters of stride 0, and so add to one row of its gradient."""
    x, loc, scale, log_weights = draw(rng, (256,), [()] * 3, 1, 8)
    arguments = [x, np.broadcast_to(loc, (256, 1, 1, 8)), scale, log_weights]
    upstream = rng.normal(size=(256, 256, 1))
    out = forward(native, arguments)
    wanted = (True, False, True, True)
    one = backward(native, arguments, out, upstream, 1, wanted)
    for _ in range(50):
        for a, b in zip(backward(native, arguments, out, upstream, 8, wanted), one, strict=True):
            if a is not None:
                np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-9)


@dtypes
def test_the_exponential_is_exact_to_about_two_units_in_the_last_place(native, rng, dtype):
    """On (-126, 0], whole numbers and halves, where the polynomial is cut, among them."""
    grid = np.concatenate([rng.uniform(-126.0, 0.0, 160_000), np.arange(-125.5, 0.1, 0.5)]).astype(dtype)
    values = np.resize(grid, -(-len(grid) // 16) * 16)
    values = np.concatenate([values, np.nextafter(values, np.array(-126, dtype))])
    found = np.empty_like(values)
    native.ugmm_exponentials(
        values.itemsize == 8,
        ctypes.c_int64(len(values)),
        ctypes.c_int64(1),
        *(ctypes.c_void_p(a.ctypes.data) for a in (values, found)),
    )
    want = np.exp2(values.astype(np.longdouble))
    units = np.abs(found - want) / np.spacing(want.astype(dtype))
    assert units.max() < ULP_OF[native.ugmm_instruction_set()]
