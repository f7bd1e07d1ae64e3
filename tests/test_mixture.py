"""Tails, quantiles and what is said of a mixture in closed form, against fifty digits, SciPy and quadrature."""

import functools

import mpmath
import numpy as np
import pytest
from conftest import backend_params
from helpers import draw_mixture
from hypothesis import given
from hypothesis import strategies as st
from mixture_oracle import (
    COMPONENTS,
    PROPERTIES,
    cumulative_mp,
    digits,
    library,
    made,
    mixtures,
    survival_mp,
)
from scipy import special, stats
from tolerances import EXACT64, PARITY, SUBNORMAL, TAIL32, TAIL64

from ugmm_ppl.distributions import mixture, pathwise
from ugmm_ppl.ops.numpy import NUMPY

INF, NAN = np.inf, np.nan
LIBRARIES = ["numpy", *backend_params()]


@functools.cache
def function(name, dtype, which):
    """A function of `mixture`, `pathwise` or `closed_form` as one of NumPy arrays (first, loc, scale, weights)."""
    with library(name, dtype) as (ops, compile_):
        call = getattr(mixture, which, None) or getattr(pathwise, which)
        run = compile_(lambda first, *parameters: call(ops, first, made(ops, *parameters)))

    def evaluated(*arrays):
        with library(name, dtype):
            return np.asarray(run(*(np.asarray(a, dtype) for a in arrays)), dtype=np.float64)

    return evaluated


@digits
def log_tail_errors(got_lower, got_upper, values, parameters):
    """Relative errors of log F and log(1 - F), each where it is the smaller of the two tails."""
    errors = []
    for lower, upper, y in zip(got_lower, got_upper, values, strict=True):
        below, above = cumulative_mp(float(y), *parameters), survival_mp(float(y), *parameters)
        got, want = (lower, mpmath.log(below)) if below <= above else (upper, mpmath.log(above))
        errors.append(float(abs((mpmath.mpf(float(got)) - want) / want)))
    return np.array(errors)


@pytest.mark.parametrize("name", LIBRARIES)
@PROPERTIES
@given(parameters=mixtures(), t=st.tuples(*[st.floats(-30.0, 30.0)] * COMPONENTS))
def test_log_tails_are_mpmath_in_float64(name, parameters, t):
    """Out to 30 scales of every component."""
    values = parameters[0] + parameters[1] * np.array(t)
    lower, upper = (function(name, "float64", which)(values, *parameters) for which in ("log_cdf", "log_survival"))
    assert log_tail_errors(lower, upper, values, parameters).max() <= EXACT64


@pytest.mark.parametrize("name", backend_params())
@PROPERTIES
@given(parameters=mixtures(), t=st.tuples(*[st.floats(-30.0, 30.0)] * COMPONENTS))
def test_log_tails_are_mpmath_in_float32(name, parameters, t):
    parameters = tuple(a.astype(np.float32) for a in parameters)
    values = parameters[0] + parameters[1] * np.array(t, np.float32)
    lower, upper = (function(name, "float32", which)(values, *parameters) for which in ("log_cdf", "log_survival"))
    assert log_tail_errors(lower, upper, values, parameters).max() <= 1e-5


@digits
def log_cumulative(values, parameters):
    """log F at fifty digits of the smaller tail."""
    tails = [(cumulative_mp(float(y), *parameters), survival_mp(float(y), *parameters)) for y in values]
    return [float(mpmath.log(below) if below < above else mpmath.log1p(-above)) for below, above in tails]


@pytest.mark.parametrize("name", LIBRARIES)
@PROPERTIES
@given(parameters=mixtures(), t=st.tuples(*[st.floats(0.0, 12.0)] * COMPONENTS))
def test_log_of_nearly_one_is_mpmath(name, parameters, t):
    """log F above the median is minus the upper tail, which has a relative accuracy of its own."""
    values = parameters[0] + parameters[1] * np.array(t)
    got = function(name, "float64", "log_cdf")(values, *parameters)
    np.testing.assert_allclose(got, log_cumulative(values, parameters), rtol=TAIL64, atol=SUBNORMAL)
    if name != "numpy":
        rounded = tuple(a.astype(np.float32) for a in parameters)
        values = values.astype(np.float32)
        got = function(name, "float32", "log_cdf")(values, *rounded)
        smallest = np.finfo(np.float32).tiny
        np.testing.assert_allclose(got, log_cumulative(values, rounded), rtol=TAIL32, atol=smallest)


@pytest.mark.parametrize("name", LIBRARIES)
def test_log_tails_at_the_ends(name, rng):
    parameters = draw_mixture(rng, COMPONENTS)
    values = np.array([-INF, INF, NAN, *(() if name == "numpy" else (-1e300, 1e300))])  # NumPy warns of the overflow
    lower, upper = (function(name, "float64", which)(values, *parameters) for which in ("log_cdf", "log_survival"))
    np.testing.assert_array_equal(lower, [-INF, 0.0, NAN, -INF, 0.0][: len(values)])
    np.testing.assert_array_equal(upper, [0.0, -INF, NAN, 0.0, -INF][: len(values)])


LEVELS = np.array([1e-12, 1e-7, 0.01, 0.3, 0.5, 0.6, 0.99, 1.0 - 1e-7])


@digits
def quantile_errors(got, levels, parameters):
    """(forward, backward): how far y is from the root, relative to |y|, at least; and how far F(y) is from u.

    The root lies within `forward` of y if F - u changes its sign there. The backward error is that of the smaller tail.
    """
    forward, backward = [], []
    for pair in zip(got, levels, strict=True):
        y, u = (mpmath.mpf(float(a)) for a in pair)
        error = INF
        for tolerance in (1e-15, 1e-12, 1e-9, 1e-8, 1e-7, 5e-7, 1e-6):
            if (
                cumulative_mp(y - tolerance * abs(y), *parameters)
                <= u
                <= cumulative_mp(y + tolerance * abs(y), *parameters)
            ):
                error = tolerance
                break
        forward.append(error)
        level, found = (u, cumulative_mp(y, *parameters)) if u <= 0.5 else (1 - u, survival_mp(y, *parameters))
        backward.append(float(abs(found / level - 1)))
    return np.array(forward), np.array(backward)


@pytest.mark.parametrize("name", LIBRARIES)
@PROPERTIES
@given(parameters=mixtures(reach=100.0), u=st.floats(1e-12, 1.0 - 1e-7))
def test_quantiles_are_mpmath_in_float64(name, parameters, u):
    """To 1e-6 of the value; where F is so flat that this cannot be known, the level is right to its own rounding."""
    levels = np.append(LEVELS, u)
    got = function(name, "float64", "quantile")(levels, *parameters)
    forward, backward = quantile_errors(got, levels, parameters)
    assert np.all((forward <= 1e-6) | (backward <= 1e-14))


@pytest.mark.parametrize("name", backend_params())
@PROPERTIES
@given(parameters=mixtures(), u=st.floats(1e-12, 1.0 - 1e-7))
def test_quantiles_are_mpmath_in_float32(name, parameters, u):
    """1e-6 of the value, or of the level where 1e-6 of the value is below what a float32 level can say."""
    parameters = tuple(a.astype(np.float32) for a in parameters)
    levels = np.append(LEVELS, u).astype(np.float32)
    got = function(name, "float32", "quantile")(levels, *parameters)
    forward, backward = quantile_errors(got, levels, parameters)
    assert np.all((forward <= 1e-6) | (backward <= 4e-6))


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("components", [1, 16, 256])
@pytest.mark.parametrize("reach", [1.0, 1000.0])
def test_quantiles_invert_the_cdf(name, rng, components, reach):
    """Up to 256 components, and between far modes where F is flat; SciPy's distribution function, on its own side."""
    loc, scale, weights = draw_mixture(rng, components, (6,))
    loc = reach * loc
    levels = np.concatenate([LEVELS, np.cumsum(weights[0])[:-1:32]])[:, None]  # at the flat stretches of the first
    y = function(name, "float64", "quantile")(levels, loc, scale, weights)
    assert y.shape == (len(levels), 6)
    z = (y[..., None] - loc) / scale
    tail = np.where(levels <= 0.5, levels, 1.0 - levels)
    found = np.where(levels <= 0.5, (weights * stats.norm.cdf(z)).sum(-1), (weights * stats.norm.sf(z)).sum(-1))
    np.testing.assert_allclose(found, np.broadcast_to(tail, y.shape), rtol=PARITY)


@pytest.mark.parametrize("name", LIBRARIES)
def test_quantiles_at_and_beyond_the_ends(name, rng):
    loc, scale, weights = draw_mixture(rng, COMPONENTS)
    levels = np.array([0.0, 1.0, -0.1, 1.1, NAN])
    got = function(name, "float64", "quantile")(levels, loc, scale, weights)
    np.testing.assert_array_equal(got, [-INF, INF, NAN, NAN, NAN])
    tiny = np.array([1e-307, 1e-300])
    got = function(name, "float64", "quantile")(tiny, np.zeros(1), np.ones(1), np.ones(1))
    np.testing.assert_allclose(got, special.ndtri(tiny), rtol=EXACT64)


def test_quantiles_of_parameters_that_are_not_numbers_end():
    """The search stops, and NaN comes out."""
    got = pathwise.quantile(NUMPY, np.array([0.3]), made(NUMPY, np.array([NAN]), np.ones(1), np.ones(1)))
    assert np.isnan(got).all()
