"""Every family of the register draws from the density that it says, from parameters that are its own."""

import functools
import re

import numpy as np
import pytest
from scipy import stats
from tolerances import EXACT64, SIGMAS

import ugmm_ppl as up
from ugmm_ppl.guides import FAMILIES, Guide, make_guide
from ugmm_ppl.guides.base import entries, join
from ugmm_ppl.guides.sites import LatentSite

pytestmark = pytest.mark.usefixtures("quick_compiler")

SITES = {"a.x": LatentSite((2, 2), (2, 2), None, True), "b": LatentSite((), (), None, True)}
START = {"a.x": np.array([[0.5, -1.0], [2.0, 0.0]]), "b": np.array(-0.7)}
DRAWS = 2000
CURVED = [name for name, kind in FAMILIES.items() if kind.from_curvature]
MODEL = up.Classifier(up.Network((3, 4)), 2)
QUICK = {"num_steps": 4, "progress": False}

each = pytest.mark.parametrize("name", FAMILIES)


def made(backend, name, sites=SITES, pattern="*"):
    """A block of a family."""
    return FAMILIES[name].make(backend, sites, pattern, init_scale=0.3, rank=2)


def moved(block, rng):
    """Parameters away from where they begin."""
    return {name: value + 0.2 * rng.normal(size=value.shape) for name, value in block.initial(START).items()}


def arrays(backend, values):
    """A dict of NumPy arrays as arrays of the backend."""
    return {name: backend.array(value) for name, value in values.items()}


def noise(backend, block, rng):
    """That of one draw."""
    return {name: backend.array(rng.normal(size=shape)) for name, shape in block.noise_shapes().items()}


@functools.cache
def drawn(backend, name):
    """A block and its parameters, draws as rows `(S, n)` of all entries, and log q of each `(S,)`."""
    block = made(backend, name)
    params = moved(block, np.random.default_rng(2))
    values, log_q = Guide(SITES, (block,)).draws(backend, params, range(DRAWS), 7)
    return block, params, np.concatenate([values[site].reshape(DRAWS, -1) for site in SITES], axis=1), log_q


def flat_moments(backend, block, params):
    """Means and variances of all entries, `(n,)` each."""
    moments = block.moments(arrays(backend, params))
    mean = {name: backend.numpy(moments[name][0]) for name in SITES}
    return join(SITES, mean), join(SITES, {n: mean[n] * 0.0 + np.asarray(moments[n][1]) for n in SITES})


def assert_mean(samples, want):
    """The mean of samples `(S, ...)` is what it should be, but for its own error and rounding."""
    error = samples.std(0) / np.sqrt(len(samples))
    np.testing.assert_array_less(np.abs(samples.mean(0) - want), SIGMAS * error + 1e-9)


@each
def test_parameters_are_around_the_start_and_have_names_of_their_own(backend64, name):
    block = made(backend64, name)
    params = block.initial(START)
    assert all(np.isfinite(value).all() for value in params.values())
    np.testing.assert_allclose(flat_moments(backend64, block, params)[0], join(SITES, START), rtol=EXACT64)
    one, other = (made(backend64, name, {site: SITES[site]}, site[0] + "*") for site in SITES)
    assert not one.initial(START).keys() & other.initial(START).keys()
    assert not one.noise_shapes().keys() & other.noise_shapes().keys()


@each
def test_a_draw_has_the_shapes_of_the_sites(backend64, name, rng):
    block = made(backend64, name)
    draw = block.draw(arrays(backend64, moved(block, rng)), noise(backend64, block, rng))
    assert {site: tuple(np.shape(value)) for site, value in draw.items()} == {"a.x": (2, 2), "b": ()}
    guide = make_guide(name, backend64, SITES, init_scale=0.3, rank=2)
    assert guide.noise_shapes() == block.noise_shapes()
    assert guide.inferred == (set(SITES) if block.has_density else set())
    assert guide.factorised == (set(SITES) if block.factorised else set())
    assert guide.at_points().inferred == guide.inferred


@each
def test_moments_are_those_of_the_draws(backend64, name):
    block, params, draws, _ = drawn(backend64, name)
    mean, variance = flat_moments(backend64, block, params)
    assert_mean(draws, mean)
    assert_mean((draws - mean) ** 2, variance)
    if block.factorised:
        centred = draws - mean
        assert_mean(centred[:, :, None] * centred[:, None, :], np.diag(variance))


@each
def test_density_and_entropy_are_those_of_the_draws(backend64, name):
    """Under u ~ q the mean of r(u) / q(u) is 1 for a density r, here a narrower Gaussian, and that of -log q H[q]."""
    block, params, draws, log_q = drawn(backend64, name)
    entropy = float(block.entropy(arrays(backend64, params)))
    if not block.has_density:
        assert entropy == 0.0
        assert not log_q.any()
        return
    assert_mean(-log_q, entropy)
    first, others = draws[: DRAWS // 2], draws[DRAWS // 2 :]
    narrower = stats.multivariate_normal(first.mean(0), 0.8**2 * np.cov(first.T))
    assert_mean(np.exp(narrower.logpdf(others) - log_q[DRAWS // 2 :]), 1.0)


@each
def test_culprits_are_the_sites_that_a_parameter_reaches(backend64, name, rng):
    block = made(backend64, name)
    params, own_noise = moved(block, rng), noise(backend64, block, rng)
    zeros = {parameter: np.zeros_like(value) for parameter, value in params.items()}
    assert block.culprits(zeros) == []
    named = set()
    for parameter, value in params.items():
        for i in range(value.size):
            bad = np.where(np.arange(value.size) == i, np.nan, 0.0).reshape(value.shape)
            draw = block.draw(arrays(backend64, params | {parameter: value + bad}), own_noise)
            reached = {site for site, u in draw.items() if not np.isfinite(backend64.numpy(u)).all()}
            found = block.culprits(zeros | {parameter: bad})
            assert found
            assert reached <= set(found)
            assert len(reached) in (0, len(found))
            named |= set(found)
    assert named == set(SITES)


@each
def test_a_block_around_a_point_has_its_precision(backend64, name, rng):
    block, size = made(backend64, name), entries(SITES)
    root = rng.normal(size=(size, size))
    precision = root @ root.T + np.eye(size)
    if block.factorised:
        precision = np.diag(precision)
    if not block.from_curvature:
        with pytest.raises(NotImplementedError):
            block.around(START, precision)
        return
    params = block.around(START, precision)
    assert params.keys() == block.initial(START).keys()
    mean, variance = flat_moments(backend64, block, params)
    np.testing.assert_allclose(mean, join(SITES, START), rtol=EXACT64)
    want = 1.0 / precision if block.factorised else np.diag(np.linalg.inv(precision))
    np.testing.assert_allclose(variance, want, rtol=1e-9)


def rows():
    """Twenty rows of two classes."""
    return np.random.default_rng(0).normal(size=(20, 3)), np.arange(20) % 2


def assert_loads(fit, path):
    """A fit draws finite values, and the same ones from its file."""
    draws = fit.posterior(3, seed=5)
    assert all(np.isfinite(value).all() for value in draws.values())
    fit.save(path)
    again = up.load(path)
    assert again.guide == fit.guide
    for site, value in again.posterior(3, seed=5).items():
        np.testing.assert_array_equal(value, draws[site], err_msg=site)


@each
def test_a_fit_draws_and_loads(backend_name, name, tmp_path):
    fit = up.fit(MODEL, *rows(), backend=backend_name, guide=name, **QUICK)
    assert fit.method == ("svi" if FAMILIES[name].has_density else "map")
    assert_loads(fit, tmp_path / "fit.npz")
    assert next(iter(fit.posterior(3).values())).shape[:2] == (1, 3 if FAMILIES[name].has_density else 1)


@each
def test_laplace_takes_families_that_are_made_of_a_curvature(backend_name, name, tmp_path):
    given = {"backend": backend_name, "method": "laplace", "guide": name, **QUICK}
    if FAMILIES[name].from_curvature:
        assert_loads(up.fit(MODEL, *rows(), **given), tmp_path / "fit.npz")
        return
    with pytest.raises(ValueError, match="method='laplace' needs a guide of") as refused:
        up.fit(MODEL, *rows(), **given)
    assert all(f"'{curved}'" in str(refused.value) for curved in CURVED)
    assert f"got '{name}'" in str(refused.value)


@each
def test_points_may_stand_beside_a_curvature(backend_name, name):
    """And what has a density, but is not made of one, may not."""
    given = {"method": "laplace", "guide": {"readout.*": CURVED[0], "*": name}, "backend": backend_name, **QUICK}
    if FAMILIES[name].has_density and not FAMILIES[name].from_curvature:
        with pytest.raises(ValueError, match=re.escape(f"got '{CURVED[0]}', '{name}'")):
            up.fit(MODEL, *rows(), **given)
    else:
        assert up.fit(MODEL, *rows(), **given).method == "laplace"
