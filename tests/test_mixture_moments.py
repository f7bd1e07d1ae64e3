"""Moments, entropy, modes, conditioning and distances of mixtures, against mpmath and quadrature."""

import functools
import itertools

import mpmath
import numpy as np
import pytest
from helpers import cumulative, density, draw_mixture
from hypothesis import example, given, settings
from hypothesis import strategies as st
from mixture_oracle import (
    COMPONENTS,
    PROPERTIES,
    UNIT,
    cumulative_mp,
    density_mp,
    digits,
    library,
    made,
    mixtures,
)
from scipy import integrate, special, stats
from test_mixture import LIBRARIES
from tolerances import EXACT64, PARITY, QUADRATURE

from ugmm_ppl import neuron
from ugmm_ppl.distributions import closed_form, mixture, pathwise
from ugmm_ppl.distributions.kl import kl
from ugmm_ppl.distributions.methods import TOLERANCE, MixtureQueries
from ugmm_ppl.distributions.modes import modes
from ugmm_ppl.ops.numpy import NUMPY


@PROPERTIES
@given(mixtures())
def test_moments_are_mpmath(parameters):
    loc, scale, weights = parameters
    with mpmath.workdps(50):
        m, s, w = (list(map(mpmath.mpf, map(float, a))) for a in parameters)
        total = mpmath.fsum(w)
        mean = mpmath.fsum(a * b for a, b in zip(w, m, strict=True)) / total
        second = mpmath.fsum(a * ((b - mean) ** 2 + c**2) for a, b, c in zip(w, m, s, strict=True)) / total
        third = (
            mpmath.fsum(a * ((b - mean) ** 3 + 3 * (b - mean) * c**2) for a, b, c in zip(w, m, s, strict=True)) / total
        )
        want = float(mean), float(second), float(third / second**1.5)
    one = made(NUMPY, *parameters)
    np.testing.assert_allclose(neuron.mean(NUMPY, loc, weights), want[0], rtol=EXACT64, atol=EXACT64)
    np.testing.assert_allclose(neuron.variance(NUMPY, loc, scale, weights), want[1], rtol=EXACT64)
    np.testing.assert_allclose(mixture.skewness(NUMPY, one), want[2], rtol=PARITY, atol=EXACT64)


def entropy(loc, scale, weights):
    """By quadrature."""

    def surprise(y):
        p = density(y, loc, scale, weights)
        return -p * np.log(p) if p > 0.0 else 0.0

    edges = np.unique(np.concatenate([loc + t * scale for t in (-37.0, -8.0, -3.0, 0.0, 3.0, 8.0, 37.0)]))
    return sum(integrate.quad(surprise, a, b, epsabs=1e-12)[0] for a, b in itertools.pairwise(edges))


@digits
def entropy_bounds_mp(loc, scale, weights):
    """Huber et al. 2008, theorems 2 and 3, at fifty digits."""
    m, s, w = (
        [mpmath.mpf(float(x)) for x, share in zip(a, weights, strict=True) if share > 0.0]
        for a in (loc, scale, weights)
    )
    w = [share / mpmath.fsum(w) for share in w]
    lower = -mpmath.fsum(
        share
        * mpmath.log(mpmath.fsum(b * mpmath.npdf(x, y, mpmath.hypot(t, u)) for b, y, u in zip(w, m, s, strict=True)))
        for share, x, t in zip(w, m, s, strict=True)
    )
    constant = (mpmath.log(2 * mpmath.pi) + 1) / 2
    apart = mpmath.fsum(share * (mpmath.log(t) - mpmath.log(share)) for share, t in zip(w, s, strict=True))
    mean = mpmath.fsum(a * b for a, b in zip(w, m, strict=True))
    variance = mpmath.fsum(a * ((b - mean) ** 2 + c**2) for a, b, c in zip(w, m, s, strict=True))
    return float(lower), float(min(apart, mpmath.log(variance) / 2) + constant)


@functools.cache
def entropy_bounds(name):
    """A function of NumPy arrays."""
    with library(name) as (ops, compile_):
        run = compile_(
            lambda *parameters: ops.concat(
                [a[..., None] for a in closed_form.entropy_bounds(ops, made(ops, *parameters))]
            )
        )

    def evaluated(*arrays):
        with library(name):
            return np.asarray(run(*arrays))

    return evaluated


@pytest.mark.parametrize("name", LIBRARIES)
@PROPERTIES
@given(parameters=mixtures())
def test_entropy_bounds_are_mpmath(name, parameters):
    np.testing.assert_allclose(
        entropy_bounds(name)(*parameters), entropy_bounds_mp(*parameters), rtol=PARITY, atol=PARITY
    )


@PROPERTIES
@given(mixtures(), UNIT)
def test_responsibilities_are_mpmath(parameters, place):
    """At values among the components: shares of the density at fifty digits."""
    y = np.asarray(30.0 * place)
    loc, scale, weights = parameters
    got = neuron.responsibilities(NUMPY, y, loc, scale, made(NUMPY, *parameters).log_weights)
    with mpmath.workdps(50):
        terms = [
            mpmath.mpf(float(w)) * mpmath.npdf(mpmath.mpf(float(y)), mpmath.mpf(float(m)), mpmath.mpf(float(s)))
            for m, s, w in zip(loc, scale, weights, strict=True)
        ]
        want = [float(term / mpmath.fsum(terms)) for term in terms]
    np.testing.assert_allclose(got, want, rtol=PARITY, atol=EXACT64)


@pytest.mark.parametrize("separation", [0.0, 1.0, 4.0, 1000.0])
def test_entropy_lies_between_its_bounds(rng, separation):
    loc, scale, weights = draw_mixture(rng, 4)
    weights = np.append(weights[:3] / weights[:3].sum(), 0.0)
    loc = separation * loc
    lower, upper = closed_form.entropy_bounds(NUMPY, made(NUMPY, loc, scale, weights))
    want = entropy(loc[:3], scale[:3], weights[:3])
    assert lower < want <= upper + QUADRATURE
    if separation == 1000.0:  # components apart: the upper bound is exact
        np.testing.assert_allclose(upper, want, rtol=QUADRATURE)


def test_entropy_bounds_of_one_component():
    """Upper: the entropy itself. Lower: 1/2 (1 - log 2) less, by its formula."""
    lower, upper = closed_form.entropy_bounds(NUMPY, made(NUMPY, np.array([3.0]), np.array([0.2]), np.ones(1)))
    want = stats.norm(3.0, 0.2).entropy()
    np.testing.assert_allclose([lower, upper], [want - 0.5 * (1.0 - np.log(2.0)), want], rtol=EXACT64)


@digits
def derivative_mp(y, loc, scale, weights):
    """p'(y) up to a positive factor."""
    return mpmath.fsum(-w * mpmath.npdf(z) * z / s**2 for z, s, w in _parts_of(y, loc, scale, weights))


def _parts_of(y, loc, scale, weights):
    for m, s, w in zip(loc, scale, weights, strict=True):
        if w > 0.0:
            yield (mpmath.mpf(y) - mpmath.mpf(float(m))) / mpmath.mpf(float(s)), mpmath.mpf(float(s)), w


@PROPERTIES
@given(mixtures())
def test_modes_are_where_the_slope_changes_its_sign(parameters):
    """And as many as on a grid a hundred times finer than the smallest scale."""
    loc, scale, weights = parameters
    got = modes(NUMPY, made(NUMPY, *parameters))
    assert got.shape == (COMPONENTS,)
    found = got[~np.isnan(got)]
    assert np.isnan(got[len(found) :]).all()
    assert np.all(np.diff(found) > 0.0)
    for y in found:
        step = mpmath.mpf(1e-10) * (1 + abs(float(y)))
        with mpmath.workdps(50):
            assert derivative_mp(mpmath.mpf(float(y)) - step, *parameters) > 0
            assert derivative_mp(mpmath.mpf(float(y)) + step, *parameters) < 0
    alive = weights > 0.0
    fine = np.unique(loc[alive] + np.linspace(-4.0, 4.0, 801)[:, None] * scale[alive])
    log_terms = np.log(weights[alive]) + stats.norm.logpdf(fine[:, None], loc[alive], scale[alive])
    r = special.softmax(log_terms, -1)
    up = (r * (loc[alive] - fine[:, None]) / scale[alive] ** 2).sum(-1) > 0.0
    assert len(found) == np.sum(up[:-1] & ~up[1:])


MODES = {
    "one": ([2.0], [0.3], [1.0], [2.0]),
    "two far": ([-20.0, 20.0], [1.0, 1.0], [0.5, 0.5], [-20.0, 20.0]),
    "flat top": ([-1.0, 1.0], [1.0, 1.0], [0.5, 0.5], [0.0]),
    "a narrow one on a wide one": ([0.0, 0.0], [1.0, 0.01], [0.9, 0.1], [0.0]),
    "a weight of zero": ([0.0, 9.0], [1.0, 1.0], [1.0, 0.0], [0.0]),
}


@pytest.mark.parametrize("name", LIBRARIES)
@pytest.mark.parametrize("case", MODES)
def test_modes_of_known_mixtures(name, case):
    loc, scale, weights, want = (np.array(a) for a in MODES[case])
    with library(name) as (ops, compile_):
        got = np.asarray(compile_(lambda *p: modes(ops, made(ops, *p)))(loc, scale, weights))
    np.testing.assert_allclose(
        got[: len(want)], want, atol=1e-5
    )  # a flat top, p'' = 0, is known to the third root of the rounding
    assert np.isnan(got[len(want) :]).all()


@PROPERTIES
@given(mixtures(), st.floats(-30.0, 30.0), st.floats(0.01, 30.0), st.lists(UNIT, min_size=3, max_size=3))
def test_conditioning_is_bayes_rule(parameters, reading, noise, places):
    """prior(y) N(reading; y, noise^2) = evidence posterior(y), at every y."""
    before = made(NUMPY, *parameters)
    loc, scale, log_weights, evidence = closed_form.condition(NUMPY, np.asarray(reading), np.asarray(noise), before)
    y = 30.0 * np.array(places)
    want = mixture.log_prob(NUMPY, y, before) + stats.norm.logpdf(reading, y, noise)
    got = neuron.log_prob(NUMPY, y, loc, scale, log_weights) + evidence
    np.testing.assert_allclose(got, want, rtol=PARITY, atol=PARITY)
    with mpmath.workdps(50):
        wide = np.sqrt(parameters[1] ** 2 + noise**2)
        total = density_mp(reading, parameters[0], wide, parameters[2])
        np.testing.assert_allclose(float(evidence), float(mpmath.log(total)), rtol=PARITY)


@PROPERTIES
@given(st.floats(-100.0, 100.0), st.floats(0.01, 100.0), st.floats(-50.0, 50.0), st.floats(0.05, 0.95))
@example(0.0, 1.0, 0.0, 0.5)
def test_two_components_have_the_moments(mean, stddev, skewness, spread):
    loc, scale, weights = closed_form.two_components(NUMPY, *map(np.asarray, (mean, stddev, skewness)), spread)
    assert loc.shape == scale.shape == weights.shape == (2,)
    assert scale[0] == scale[1]
    one = made(NUMPY, loc, scale, weights)
    np.testing.assert_allclose(weights.sum(), 1.0, rtol=EXACT64)
    np.testing.assert_allclose(neuron.mean(NUMPY, loc, weights), mean, rtol=PARITY, atol=PARITY * stddev)
    np.testing.assert_allclose(neuron.variance(NUMPY, loc, scale, weights), stddev**2, rtol=PARITY)
    np.testing.assert_allclose(mixture.skewness(NUMPY, one), skewness, rtol=PARITY, atol=PARITY)


def test_kl_of_normals_is_the_closed_form(rng):
    p, q = ((rng.normal(size=(5, 1)), np.exp(rng.normal(size=(5, 1)))) for _ in range(2))
    one, other = (made(NUMPY, loc, scale, np.ones((5, 1))) for loc, scale in (p, q))
    want = np.log(q[1] / p[1]) + (p[1] ** 2 + (p[0] - q[0]) ** 2) / (2.0 * q[1] ** 2) - 0.5
    np.testing.assert_allclose(kl(NUMPY, one, other, 4), want[:, 0], rtol=PARITY)


def test_kl_is_quadrature(rng):
    """Against SciPy's, with a weight of zero, and to itself."""
    p, q = draw_mixture(rng, 4), draw_mixture(rng, 3)
    p[2][:] = [*(p[2][:3] / p[2][:3].sum()), 0.0]

    def integrand(y):
        one, other = density(y, *p), density(y, *q)
        return one * np.log(one / other) if one > 0.0 else 0.0

    edges = np.unique(np.concatenate([p[0] + t * p[1] for t in (-12.0, -3.0, 0.0, 3.0, 12.0)]))
    want = sum(integrate.quad(integrand, a, b, epsabs=1e-12)[0] for a, b in itertools.pairwise(edges))
    one, other = made(NUMPY, *p), made(NUMPY, *q)
    np.testing.assert_allclose(kl(NUMPY, one, other, 8), want, rtol=QUADRATURE)
    np.testing.assert_allclose(kl(NUMPY, one, one, 1), 0.0, atol=EXACT64)


class Queries(MixtureQueries):
    """The methods of both backends' distributions, on NumPy arrays."""

    ops = NUMPY

    def __init__(self, parameters):
        self.parameters = made(NUMPY, *parameters)

        self.loc = self.parameters.loc

    @property
    def mixture(self):
        return self.parameters


def crossings(loc, scale, weights):
    """Around places where two components have the same density: its logarithm all but has a kink there."""
    for (m, s, w), (n, t, v) in itertools.combinations(zip(loc, scale, weights, strict=True), 2):
        if w > 0.0 and v > 0.0:
            same = [0.5 / t**2 - 0.5 / s**2, m / s**2 - n / t**2, 0.5 * (n / t) ** 2 - 0.5 * (m / s) ** 2]
            same[2] += np.log(w / s) - np.log(v / t)
            for y in (root.real for root in np.roots(same) if root.imag == 0.0):
                change = abs((y - n) / t**2 - (y - m) / s**2)  # of slope; beyond 40 / change the kink is gone
                yield from (y + distance / max(change, 1e-9) for distance in (-40.0, -10.0, 0.0, 10.0, 40.0))


@digits
def kl_mp(p, q):
    """Gauss-Legendre quadrature at fifty digits, out to 12 scales of p, in panels of three scales of any component."""
    places = [m + t * s for m, s, _ in (p, q) for t in np.linspace(-12.0, 12.0, 9)]
    inside = p[2] > 0.0
    low, high = (p[0] - 12.0 * p[1])[inside].min(), (p[0] + 12.0 * p[1])[inside].max()
    edges = np.unique(np.clip(np.concatenate([*places, list(crossings(*p)), list(crossings(*q))]), low, high))

    def integrand(y):
        one = density_mp(y, *p)
        return one * mpmath.log(one / density_mp(y, *q))

    return float(mpmath.quad(integrand, [mpmath.mpf(float(a)) for a in edges], method="gauss-legendre", maxdegree=4))


@pytest.mark.long
@settings(PROPERTIES, max_examples=6)
@given(mixtures(), mixtures())
def test_kl_to_is_mpmath(p, q):
    """Within the tolerance that it states, 1e-6 nats or of the answer."""
    want = kl_mp(p, q)
    assert abs(float(Queries(p).kl_to(Queries(q))) - want) <= TOLERANCE * max(1.0, want)


@pytest.mark.parametrize("name", LIBRARIES)
def test_components_are_chosen_by_weight_and_never_without(name):
    weights = np.array([0.0, 0.25, 0.0, 0.5, 0.25, 0.0])
    u = np.array([0.0, 0.1, 0.25, 0.7, 0.75, 1.0 - 2.0**-53])
    with library(name) as (ops, compile_):
        got = np.asarray(compile_(lambda u, w: pathwise.choose(ops, u, w))(u, weights))
    np.testing.assert_array_equal(got, [1, 1, 3, 3, 4, 4])


def test_cumulative_oracles_agree(rng):
    """The oracle of these tests is SciPy's distribution function where both hold."""
    parameters = draw_mixture(rng, 3)
    with mpmath.workdps(50):
        assert abs(float(cumulative_mp(0.3, *parameters)) - cumulative(0.3, *parameters)) < EXACT64
