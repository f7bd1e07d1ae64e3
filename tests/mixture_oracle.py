"""Univariate Gaussian mixtures at fifty digits by mpmath, and Hypothesis strategies that draw them."""

import contextlib
import functools

import mpmath
import numpy as np
from helpers import compiled
from hypothesis import settings
from hypothesis import strategies as st

from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.distributions.mixture import Mixture
from ugmm_ppl.ops.numpy import NUMPY

PROPERTIES = settings(deadline=None, derandomize=True, max_examples=40)
COMPONENTS = 4
UNIT = st.floats(-1.0, 1.0, width=32)


@st.composite
def mixtures(draw, reach=20.0):
    """(loc, scale, weights) of four components, float32 numbers; up to three weights are zero."""
    loc = reach * np.array([draw(UNIT) for _ in range(COMPONENTS)])
    scale = np.exp(2.5 * np.array([draw(UNIT) for _ in range(COMPONENTS)]))
    raw = np.array([draw(st.floats(0.01, 1.0) | st.just(0.0)) for _ in range(COMPONENTS)])
    raw[draw(st.integers(0, COMPONENTS - 1))] = 1.0
    loc, scale = (a.astype(np.float32).astype(np.float64) for a in (loc, scale))
    return loc, scale, raw / raw.sum()


def digits(function):
    """Run a test's oracle with fifty digits."""

    @functools.wraps(function)
    def precise(*arguments):
        with mpmath.workdps(50):
            return function(*arguments)

    return precise


def _parts(y, loc, scale, weights):
    total = mpmath.fsum(mpmath.mpf(float(w)) for w in weights)
    for m, s, w in zip(loc, scale, weights, strict=True):
        if w > 0.0:
            yield (mpmath.mpf(y) - mpmath.mpf(float(m))) / mpmath.mpf(float(s)), mpmath.mpf(float(s)), w / total


def cumulative_mp(y, *parameters):
    """p(Y <= y)."""
    return mpmath.fsum(w * mpmath.ncdf(z) for z, _, w in _parts(y, *parameters))


def survival_mp(y, *parameters):
    """p(Y > y)."""
    return mpmath.fsum(w * mpmath.ncdf(-z) for z, _, w in _parts(y, *parameters))


def density_mp(y, *parameters):
    """p(y)."""
    return mpmath.fsum(w * mpmath.npdf(z) / s for z, s, w in _parts(y, *parameters))


@contextlib.contextmanager
def library(name, dtype="float64"):
    """The array operations of a library, and how its functions of (value, loc, scale, weights) take NumPy arrays."""
    if name == "numpy":
        yield NUMPY, lambda function: function
        return
    backend = load_backend(name)
    with backend.settings(dtype=dtype, device="cpu"):
        yield backend.ops, functools.partial(compiled, backend)


def made(ops, loc, scale, weights):
    """A `Mixture` of arrays."""
    return Mixture(loc, scale, weights, ops.log(ops.where(weights > 0.0, weights, 0.0)))
