"""Parameters and values of any dtype: half precision by float32, whole numbers and foreign arrays as floats."""

import functools

import numpy as np
import pytest
from conftest import INSTALLED
from helpers import cumulative, density, refused
from scipy import special, stats
from tolerances import HALF_ULPS, ORACLE32

from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.nn.norm import layer_norm

EPS = {"float16": 2.0**-10, "bfloat16": 2.0**-7}
LOC, SCALE, LOGITS = [-1.0, 1.0, 3.0], [0.5, 1.5, 0.75], [0.0, 0.5, -1.0]
"""Numbers that half precision holds."""
VALUES = [-2.0, 0.25, 1.0, 4.5]
WEIGHTS = special.softmax(LOGITS)


def array(backend, a, dtype):
    """Numbers in a dtype of the backend's library."""
    if backend.name == "pyro":
        import torch

        return torch.tensor(np.asarray(a).tolist(), dtype=getattr(torch, dtype))
    import jax.numpy as jnp

    return jnp.asarray(a, dtype)


def floats(a):
    """An array of any dtype as float64, and the name of its dtype."""
    name = str(a.dtype).removeprefix("torch.")
    a = a.detach().float().numpy() if hasattr(a, "detach") else np.asarray(a.astype("float32"))
    return a.astype(np.float64), name


def make(backend, dtype, given="logits", shape=()):
    """The mixture in a dtype."""
    weights = {given: array(backend, LOGITS if given == "logits" else WEIGHTS, dtype)}
    loc = array(backend, np.broadcast_to(LOC, (*shape, 3)), dtype)
    return backend.dist.UnivariateGaussianMixture(loc, array(backend, SCALE, dtype), **weights)


def check(got, want, dtype, rounded="the same"):
    """Right to a few units in the last place of the dtype, and in it."""
    values, name = floats(got)
    assert name == (dtype if rounded == "the same" else rounded)
    want = np.broadcast_to(want, values.shape)
    np.testing.assert_array_less(np.abs(values - want), HALF_ULPS * EPS[dtype] * np.maximum(1.0, np.abs(want)))


def weights_of(dtype, given):
    """The weights that a mixture has: probabilities are rounded before it sees them."""
    if given == "logits":
        return WEIGHTS
    digits = {"float16": 10, "bfloat16": 7}[dtype]
    exponent = np.floor(np.log2(WEIGHTS))
    rounded = np.round(WEIGHTS / 2.0 ** (exponent - digits)) * 2.0 ** (exponent - digits)
    return rounded / rounded.sum()


@pytest.mark.long
@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("dtype", EPS)
def test_answers_in_half_precision(backend, dtype, given):
    d, y, w = make(backend, dtype, given), array(backend, VALUES, dtype), weights_of(dtype, given)
    loc, scale = np.array(LOC), np.array(SCALE)
    cdf = cumulative(VALUES, loc, scale, w)
    mean = (w * loc).sum()
    centred = loc - mean
    variance = (w * (scale**2 + centred**2)).sum()
    skewness = (w * centred * (centred**2 + 3.0 * scale**2)).sum() / variance**1.5
    terms = np.log(w) + stats.norm.logpdf(np.array(VALUES)[:, None], loc, scale)
    check(d.log_prob(y), np.log(density(VALUES, loc, scale, w)), dtype)
    check(d.cdf(y), cdf, dtype)
    check(d.log_cdf(y), np.log(cdf), dtype)
    upper = stats.norm.logsf(np.array(VALUES)[:, None], loc, scale)
    check(d.log_survival(y), special.logsumexp(np.log(w) + upper, -1), dtype)
    check(d.responsibilities(y), special.softmax(terms, -1), dtype)
    for name, want in {"mean": mean, "variance": variance, "stddev": variance**0.5, "skewness": skewness}.items():
        check(getattr(d, name), want, dtype)
    check(d.probs, w, dtype)
    check(d.log_weights, np.log(w), dtype)
    u = [0.0625, 0.5, 0.875]
    y, name = floats(d.icdf(array(backend, u, dtype)))
    assert name == dtype
    slope = density(y, loc, scale, w) * np.maximum(1.0, np.abs(y))
    np.testing.assert_array_less(np.abs(cumulative(y, loc, scale, w) - u), HALF_ULPS * EPS[dtype] * slope)
    for end in (d.median, *d.interval(0.9999)):  # of which bfloat16 would make 1
        assert np.isfinite(floats(end)[0]).all()
        assert floats(end)[1] == dtype
    check(d.kl_to(make(backend, dtype, given)), 0.0, dtype)
    lower, upper = d.entropy_bounds()
    grid = np.linspace(-8.0, 12.0, 40_001)
    p = density(grid, loc, scale, w)
    entropy = -np.trapezoid(p * np.log(p), grid)
    margin = HALF_ULPS * EPS[dtype]
    assert floats(lower)[0] - margin <= entropy <= floats(upper)[0] + margin
    assert floats(lower)[1] == floats(upper)[1] == dtype
    modes, name = floats(d.modes())
    assert name == dtype
    assert ((modes > -2.0) & (modes < 4.0) | np.isnan(modes)).all()


@pytest.mark.parametrize("dtype", EPS)
def test_other_mixtures_made_from_it(backend, dtype):
    d = make(backend, dtype)
    after, evidence = d.condition_on_gaussian(array(backend, 0.5, dtype), 0.25)
    total = np.sqrt(np.square(SCALE) + 0.25**2)
    joint = np.log(WEIGHTS) + stats.norm.logpdf(0.5, LOC, total)
    check(evidence, special.logsumexp(joint), dtype)
    check(after.probs, special.softmax(joint), dtype)
    moments = [array(backend, a, dtype) for a in ([1.5, -2.0], [0.5, 2.0], [1.0, -3.0])]
    made = backend.dist.UnivariateGaussianMixture.from_moments(*moments)
    assert floats(made.loc)[1] == floats(made.probs)[1] == dtype
    check(made.mean, [1.5, -2.0], dtype)
    check(made.stddev, [0.5, 2.0], dtype)
    check(d.expand((2,)).log_prob(array(backend, 0.5, dtype)), np.log(density(0.5, LOC, SCALE, WEIGHTS)), dtype)
    assert floats(d.component(1).log_prob(array(backend, 0.5, dtype)))[1] == dtype


@pytest.mark.parametrize("dtype", EPS)
def test_samples_in_half_precision(backend, dtype):
    """Their component is drawn in float32: in bfloat16 uniform numbers have 256 values."""
    d = make(backend, dtype)
    if backend.name == "pyro":
        key = ()
    else:
        import jax

        key = (jax.random.key(0),)
    with backend.inference.seeded(0):
        drawn = [d.sample(*key, (4_000,)), d.sample_with_component(*key, (4_000,))[0]]
        if backend.name == "pyro":
            drawn.append(d.rsample((4_000,)))
        strata, shares = d.stratified_sample(*key, (4_000,))
        estimate, error = d.entropy_estimate(*key, num_samples=4_000)
    reference = functools.partial(cumulative, loc=LOC, scale=SCALE, weights=WEIGHTS)
    for each in drawn:
        values, name = floats(each)
        assert name == dtype
        assert stats.kstest(values, reference).statistic < 0.04
    assert floats(strata)[1] == floats(shares)[1] == floats(estimate)[1] == floats(error)[1] == dtype
    check((strata * shares).sum(-1).mean(0), (WEIGHTS * LOC).sum(), "bfloat16", rounded=dtype)


@pytest.mark.parametrize("dtype", EPS)
def test_gradients_reach_half_precision(backend, dtype):
    """Of the log density and of a sample, against those in float64."""
    y = 0.25
    terms = np.log(WEIGHTS) + stats.norm.logpdf(y, LOC, SCALE)
    r, z = special.softmax(terms), (y - np.array(LOC)) / SCALE
    want = [r * z / SCALE, r * (z**2 - 1.0) / SCALE, r - WEIGHTS]
    arrays = [array(backend, a, dtype) for a in (LOC, SCALE, LOGITS)]
    if backend.name == "pyro":
        import torch

        for a in arrays:
            a.requires_grad_()
        d = backend.dist.UnivariateGaussianMixture(*arrays[:2], logits=arrays[2])
        got = torch.autograd.grad(d.log_prob(array(backend, y, dtype)), arrays)
        moved = torch.autograd.grad(d.rsample(), arrays[:1])[0]
    else:
        import jax

        def log_prob(loc, scale, logits):
            return backend.dist.UnivariateGaussianMixture(loc, scale, logits=logits).log_prob(array(backend, y, dtype))

        def sample(loc):
            return backend.dist.UnivariateGaussianMixture(loc, arrays[1], logits=arrays[2]).sample(jax.random.key(0))

        got = jax.grad(log_prob, argnums=(0, 1, 2))(*arrays)
        moved = jax.grad(sample)(arrays[0])
    for one, other in zip(got, want, strict=True):
        check(one, other, dtype)
    check(moved.sum(), 1.0, dtype)  # all components moved alike move every value by as much


@pytest.mark.parametrize("dtype", EPS)
def test_mixed_dtypes(backend, dtype):
    """The wider dtype of parameters and values is that of the answer, and plain numbers have none."""
    d = make(backend, dtype)
    want = np.log(density(VALUES, LOC, SCALE, WEIGHTS))
    check(d.log_prob(array(backend, VALUES, "float32")), want, dtype, rounded="float32")
    check(d.cdf(array(backend, VALUES, "float32")), cumulative(VALUES, LOC, SCALE, WEIGHTS), dtype, rounded="float32")
    for number in (0.25, 1, True, [0.25, 1.0], np.float64(0.25), np.array([1])):
        check(d.log_prob(number), np.log(density(number, LOC, SCALE, WEIGHTS)), dtype)
        check(d.cdf(number), cumulative(number, LOC, SCALE, WEIGHTS), dtype)
    float32 = make(backend, "float32")
    check(float32.log_prob(array(backend, VALUES, dtype)), want, dtype, rounded="float32")
    loc, scale = array(backend, LOC, "float32"), array(backend, SCALE, dtype)
    mixed = backend.dist.UnivariateGaussianMixture(loc, scale, logits=array(backend, LOGITS, dtype))
    check(mixed.log_prob(array(backend, VALUES, dtype)), want, dtype, rounded="float32")


@pytest.mark.parametrize("dtype", EPS)
def test_probabilities_sum_to_one_as_the_dtype_has_it(backend, rng, dtype):
    probs = rng.dirichlet(np.ones(60), 20)
    backend.dist.UnivariateGaussianMixture(
        array(backend, np.zeros(60), dtype), array(backend, np.ones(60), dtype), probs=array(backend, probs, dtype),
        validate_args=True,
    )  # fmt: skip
    with refused(ValueError, "sum of probs", "one"):
        backend.dist.UnivariateGaussianMixture(
            array(backend, [0.0, 1.0], dtype), array(backend, [1.0, 1.0], dtype),
            probs=array(backend, [0.5, 0.5625], dtype), validate_args=True,
        )  # fmt: skip


@pytest.mark.parametrize("dtype", EPS)
def test_layers_in_half_precision(backend, dtype):
    """Equation (2) and its distribution, also where logits are far from zero and activations cannot be squared."""
    if backend.name == "pyro":
        from ugmm_ppl.pyro import UGMMLayer
    else:
        from ugmm_ppl.numpyro import UGMMLayer
    layer = UGMMLayer(3, 2)
    given = {"loc": [LOC, LOC], "log_scale": [[0.0, 0.5, -0.5]] * 2, "logits": [[64.0, 64.5, 63.0], LOGITS]}
    values = {role: array(backend, a, dtype) for role, a in given.items()}
    x = [[0.25, -1.0, 2.0], [1.0, 1.5, -0.5]]
    mean = np.array(x)[:, None, :] - np.array(given["loc"])
    scale, weights = np.exp(given["log_scale"]), special.softmax(given["logits"], -1)
    want = np.log(density(np.zeros((2, 2)), mean, scale, weights))
    check(layer(array(backend, x, dtype), values=values), want, dtype)
    check(layer.conditional(array(backend, x, dtype), values=values).log_prob(0.0), want, dtype)
    check(layer(array(backend, x, "float32"), values=values), want, dtype, rounded="float32")
    h = np.array([[-400.0, 300.0, 100.0], [-6.0e4, -3.0e4, -1.0e4]])
    normalised = (h - h.mean(-1, keepdims=True)) / h.std(-1, keepdims=True)
    check(layer_norm(backend.ops, array(backend, h, dtype)), normalised, dtype)


@pytest.mark.skipif(not INSTALLED["pyro"], reason="pyro is not installed here")
def test_an_autocast_region_changes_no_answer():
    import torch

    backend = load_backend("pyro")
    d, y = make(backend, "float32"), torch.tensor(VALUES)
    names = ("log_prob", "cdf", "log_cdf", "responsibilities")
    outside = [getattr(d, name)(y) for name in names] + [d.icdf(0.3), d.kl_to(d), d.mean]
    with torch.autocast("cpu", dtype=torch.bfloat16):
        inside = [getattr(d, name)(y) for name in names] + [d.icdf(0.3), d.kl_to(d), d.mean]
        head = torch.nn.Linear(4, 6)(torch.ones(5, 4))
        made = backend.dist.UnivariateGaussianMixture(head, head.exp(), logits=head, validate_args=True)
        assert torch.isfinite(made.log_prob(torch.zeros(5))).all()
    for one, other in zip(inside, outside, strict=True):
        assert one.dtype == torch.float32
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-6)


METHODS = ("log_prob", "cdf", "log_cdf", "log_survival", "responsibilities", "icdf")
WHOLE = {
    "int": 1,
    "bool": True,
    "list": [0, 1],
    "tuple": (0.0, 1.0),
    "int64": np.array([0, 1]),
    "uint8": np.array([0, 1], np.uint8),
    "numpy bool": np.array([True, False]),
    "float16": np.array([0.0, 1.0], np.float16),
    "float64": np.array([0.0, 0.5]),
    "big-endian": np.array([0.0, 0.5], ">f4"),
    "big-endian double": np.array([0.0, 0.5], ">f8"),
    "big-endian int": np.array([0, 1], ">i4"),
    "long double": np.array([0.0, 0.5], np.longdouble),
    "scalar": np.int64(1),
    "NumPy float": np.float64(0.5),
}


@pytest.mark.parametrize("validate", [True, False])
@pytest.mark.parametrize("kind", WHOLE)
def test_values_of_every_kind(backend, kind, validate):
    """The answers are those of the same numbers as floats of the parameters' dtype."""
    d = make(backend, "float32")
    d._validate_args = validate
    for name in METHODS:
        got = getattr(d, name)(WHOLE[kind])
        want = getattr(d, name)(backend.array(np.asarray(WHOLE[kind]).astype(np.float32)))
        assert str(got.dtype).endswith("float32")
        np.testing.assert_array_equal(np.asarray(got), np.asarray(want), err_msg=name)
    after, evidence = d.condition_on_gaussian(WHOLE[kind], 1)
    assert str(after.loc.dtype).endswith("float32")
    assert str(evidence.dtype).endswith("float32")


@pytest.mark.long
@pytest.mark.parametrize("values", [*EPS, "float32", "float64"])
@pytest.mark.parametrize("dtype", [*EPS, "float32"])
def test_values_of_another_dtype_than_the_parameters(backend64, dtype, values):
    """The answers have the digits of the narrower one."""
    d, exact = make(backend64, dtype), make(backend64, "float64")
    tolerance = max(HALF_ULPS * max(EPS.get(dtype, 0.0), EPS.get(values, 0.0)), ORACLE32)
    for name in METHODS:
        got, want = (
            floats(getattr(a, name)(array(backend64, [0.25, 0.5], t)))[0] for a, t in ((d, values), (exact, "float64"))
        )
        np.testing.assert_allclose(got, want, rtol=tolerance, atol=tolerance, err_msg=name)


@pytest.mark.parametrize("dtype", ["bool", "uint8", "int8", "int16", "int32"])
def test_whole_arrays_of_the_library(backend, dtype):
    d, whole = make(backend, "float32"), array(backend, [0, 1], dtype)
    for name in METHODS:
        got = getattr(d, name)(whole)
        assert str(got.dtype).endswith("float32")
        np.testing.assert_array_equal(np.asarray(got), np.asarray(getattr(d, name)(array(backend, [0, 1], "float32"))))


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble, np.float16, np.int64])
def test_parameters_from_numpy(backend, dtype):
    loc, scale, logits = (np.asarray(a).astype(dtype) for a in ([-1, 1, 3], [1, 2, 1], [0, 1, -1]))
    d = backend.dist.UnivariateGaussianMixture(loc, scale, logits=logits, validate_args=True)
    want = np.log(density(VALUES, loc.astype(float), scale.astype(float), special.softmax(logits.astype(float))))
    np.testing.assert_allclose(floats(d.log_prob(VALUES))[0], want, rtol=1e-2 if dtype is np.float16 else 2e-6)


def test_the_cdf_at_infinity_under_validation(backend):
    d = make(backend, "float32")
    d._validate_args = True
    np.testing.assert_array_equal(np.asarray(d.cdf(np.array([-np.inf, np.inf]))), [0.0, 1.0])
