"""`UnivariateGaussianMixture` of both backends against SciPy, and as a distribution of its PPL."""

import numpy as np
import pytest
from conftest import needs_both
from helpers import apply, cumulative, density, draw_mixture, mixture, refused
from scipy import stats
from tolerances import EXACT64, ORACLE32, PARITY, SAMPLING_P

from ugmm_ppl.backends.load import load_backend

INF, NAN = np.inf, np.nan


def draw(backend, distribution, shape=(), seed=0):
    """Samples as NumPy."""
    if backend.name == "numpyro":
        import jax

        return np.asarray(jax.jit(lambda d, key: d.sample(key, shape))(distribution, jax.random.key(seed)))
    with backend.inference.seeded(seed):
        return distribution.sample(shape).numpy()


@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize(("shape", "components"), [((), 1), ((), 5), ((3, 2), 4)])
def test_log_prob_cdf_and_moments_are_scipy(backend64, rng, shape, components, given):
    loc, scale, weights = draw_mixture(rng, components, shape)
    value = 2.0 * rng.normal(size=(7, *shape))
    weights_given = weights if given == "probs" else np.log(weights) + 3.0
    d = mixture(backend64, loc, scale, **{given: weights_given})
    assert tuple(d.batch_shape) == shape
    assert tuple(d.event_shape) == ()

    def everything(d, y):
        return [d.log_prob(y), d.cdf(y), d.mean, d.variance, d.probs, d.log_weights, d.logits]

    log_prob, cdf, got_mean, got_variance, probs, log_weights, logits = apply(
        backend64, everything, d, backend64.array(value)
    )
    np.testing.assert_allclose(np.exp(log_prob), density(value, loc, scale, weights), rtol=EXACT64)
    np.testing.assert_allclose(cdf, cumulative(value, loc, scale, weights), rtol=EXACT64)
    mean = (weights * loc).sum(-1)
    np.testing.assert_allclose(got_mean, mean, rtol=EXACT64, atol=EXACT64)
    variance = (weights * (scale**2 + loc**2)).sum(-1) - mean**2
    np.testing.assert_allclose(got_variance, variance, rtol=PARITY)
    np.testing.assert_allclose(probs, weights, rtol=EXACT64)
    np.testing.assert_allclose(np.exp(log_weights), weights, rtol=EXACT64)
    np.testing.assert_allclose(logits - logits[..., :1], np.log(weights / weights[..., :1]), rtol=EXACT64, atol=EXACT64)


def quantities(d, y):
    """What the backends must agree on."""
    return [d.log_prob(y), d.cdf(y), d.mean, d.variance, d.responsibilities(y)]


@needs_both
def test_backends_agree(rng):
    loc, scale, weights = draw_mixture(rng, 6, (3,))
    value = 3.0 * rng.normal(size=(8, 3))
    results = []
    for name in ("pyro", "numpyro"):
        backend = load_backend(name)
        with backend.settings(dtype="float64", device="cpu"):
            arguments = mixture(backend, loc, scale, probs=weights), backend.array(value)
            results.append(apply(backend, quantities, *arguments))
    for one, other in zip(*results, strict=True):
        np.testing.assert_allclose(one, other, rtol=PARITY, atol=PARITY)


SAMPLED = {
    "three components": ([-2.0, 0.5, 3.0], [0.3, 1.0, 0.1], [0.2, 0.5, 0.3]),
    "one component": ([2.0], [0.01], [1.0]),
    "a weight of zero": ([-2.0, 100.0, 3.0], [1.0, 1.0, 0.5], [0.4, 0.0, 0.6]),
    "a rare component": ([0.0, 50.0], [1.0, 1.0], [0.999, 0.001]),
}


@pytest.mark.parametrize("case", SAMPLED)
def test_samples_follow_the_cdf(backend, case):
    loc, scale, weights = (np.array(a) for a in SAMPLED[case])
    values = draw(backend, mixture(backend, loc, scale, probs=weights), (20_000,))
    assert values.shape == (20_000,)
    assert stats.kstest(values, lambda y: cumulative(y, loc, scale, weights)).pvalue > SAMPLING_P


def test_samples_of_every_batch_entry_follow_its_own_cdf(backend, rng):
    loc, scale, weights = draw_mixture(rng, 4, (2, 3))
    values = draw(backend, mixture(backend, loc, scale, logits=np.log(weights)), (5_000,))
    assert values.shape == (5_000, 2, 3)
    for i in np.ndindex(2, 3):
        oracle = (loc[i], scale[i], weights[i])
        assert stats.kstest(values[:, *i], lambda y, oracle=oracle: cumulative(y, *oracle)).pvalue > SAMPLING_P
    assert abs(np.corrcoef(values[:, 0, 0], values[:, 1, 2])[0, 1]) < 4.0 / np.sqrt(5_000)  # four standard errors


@pytest.mark.parametrize(
    ("loc", "scale", "weights", "batch", "sample_shape"),
    [
        ((3,), (3,), (3,), (), ()),
        ((), (3,), (1,), (), (6,)),
        ((2, 1, 3), (5, 1), (3,), (2, 5), (4, 2)),
        ((1,), (), (4, 3), (4,), ()),
    ],
)
def test_arguments_broadcast(backend, loc, scale, weights, batch, sample_shape):
    d = mixture(backend, np.full(loc, 2.0), np.full(scale, 0.5), logits=np.zeros(weights))
    assert tuple(d.batch_shape) == batch
    assert draw(backend, d, sample_shape).shape == (*sample_shape, *batch)
    value = backend.array(np.zeros((*sample_shape, *batch)))
    log_prob, cdf, mean, variance, responsibilities = apply(backend, quantities, d, value)
    np.testing.assert_allclose(mean, np.full(batch, 2.0), rtol=ORACLE32)
    np.testing.assert_allclose(variance, np.full(batch, 0.25), rtol=ORACLE32)
    assert log_prob.shape == cdf.shape == (*sample_shape, *batch)
    assert responsibilities.shape == (*sample_shape, *batch, 3)


def test_a_scalar_value_or_parameter_is_wrapped(backend64):
    d = mixture(backend64, 0.0, [1.0, 2.0], probs=[0.25, 0.75])
    want = density(0.5, np.zeros(2), np.array([1.0, 2.0]), np.array([0.25, 0.75]))
    np.testing.assert_allclose(np.exp(float(d.log_prob(0.5))), want, rtol=EXACT64)
    np.testing.assert_allclose(float(d.cdf(0.0)), 0.5, rtol=EXACT64)
    np.testing.assert_allclose(np.asarray(d.responsibilities(0.0)), [0.4, 0.6], rtol=EXACT64)
    uniform = mixture(backend64, [0.0, 1.0], 1.0, logits=0.0, validate_args=True)
    np.testing.assert_allclose(np.asarray(uniform.probs), [0.5, 0.5], rtol=EXACT64)


def test_whole_numbers_become_floats(backend):
    """loc = [0, 1] must not make a scale of 0.5 into 0."""
    d = mixture(backend, np.array([0, 1]), np.array([0.5, 0.25]), probs=np.array([0.5, 0.5]))
    np.testing.assert_allclose(np.asarray(d.scale), [0.5, 0.25], rtol=ORACLE32)
    np.testing.assert_allclose(float(d.mean), 0.5, rtol=ORACLE32)
    whole = mixture(backend, np.array([0, 2]), np.array([1, 1]), logits=np.array([0, 0]))
    np.testing.assert_allclose(float(whole.variance), 2.0, rtol=ORACLE32)


def test_logits_of_minus_infinity_are_weights_of_zero(backend64, rng):
    loc, scale, weights = draw_mixture(rng, 2)
    masked = mixture(backend64, [*loc, 7.0], [*scale, 1.0], logits=[*np.log(weights), -INF], validate_args=True)
    zero = mixture(backend64, [*loc, 7.0], [*scale, 1.0], probs=[*weights, 0.0], validate_args=True)
    value = np.array([0.0, 7.0])
    for d in (masked, zero):
        y = backend64.array(value)
        log_prob, _, mean, _, responsibilities = apply(backend64, quantities, d, y)
        np.testing.assert_allclose(np.exp(log_prob), density(value, loc, scale, weights), rtol=EXACT64)
        np.testing.assert_array_equal(responsibilities[:, 2], [0.0, 0.0])
        np.testing.assert_allclose(mean, (weights * loc).sum(), rtol=EXACT64)


def test_responsibilities_are_bayes_rule(backend64, rng):
    loc, scale, weights = draw_mixture(rng, 5, (3,))
    value = rng.normal(size=(4, 3))
    got = apply(
        backend64,
        lambda d, y: d.responsibilities(y),
        mixture(backend64, loc, scale, probs=weights),
        backend64.array(value),
    )
    joint = weights * stats.norm.pdf(value[..., None], loc, scale)
    np.testing.assert_allclose(got, joint / joint.sum(-1, keepdims=True), rtol=EXACT64)
    np.testing.assert_allclose(got.sum(-1), np.ones((4, 3)), rtol=EXACT64)


@pytest.mark.parametrize("given", ["logits", "probs"])
def test_expand_and_to_event(backend64, rng, given):
    loc, scale, weights = draw_mixture(rng, 3, (2,))
    d = mixture(backend64, loc, scale, **{given: weights if given == "probs" else np.log(weights)})
    value = rng.normal(size=(4, 5, 2))
    want = np.log(density(value, loc, scale, weights))
    for expanded in (d.expand((4, 5, 2)), d.expand((5, 2)).expand((4, 5, 2))):
        assert tuple(expanded.batch_shape) == (4, 5, 2)
        log_prob, _, mean, _, _ = apply(backend64, quantities, expanded, backend64.array(value))
        np.testing.assert_allclose(
            mean, np.broadcast_to((weights * loc).sum(-1), (4, 5, 2)), rtol=EXACT64, atol=EXACT64
        )
        np.testing.assert_allclose(log_prob, want, rtol=EXACT64, atol=EXACT64)
    assert draw(backend64, expanded, (6,)).shape == (6, 4, 5, 2)
    event = d.expand((5, 2)).to_event(1)
    assert (tuple(event.batch_shape), tuple(event.event_shape)) == ((5,), (2,))
    got = apply(backend64, lambda d, y: d.log_prob(y), event, backend64.array(value))
    np.testing.assert_allclose(got, want.sum(-1), rtol=EXACT64, atol=EXACT64)


@pytest.mark.parametrize("shape", [(), (2,), (3, 1), (3, 4)])
def test_expanding_to_what_does_not_fit_is_refused_in_the_ppls_words(backend, shape):
    d = mixture(backend, [[0.0], [1.0], [2.0]], [1.0], probs=[1.0])
    with pytest.raises(ValueError, match=r"Cannot broadcast distribution of shape \(3,\) to shape \("):
        d.expand(shape)


def test_values_of_an_expanded_distribution_differ(backend):
    values = draw(backend, mixture(backend, [0.0], [1.0], probs=[1.0]).expand((1_000,)))
    assert len(np.unique(values)) > 990
    assert stats.kstest(values, "norm").pvalue > SAMPLING_P


def test_mask(backend64):
    d = mixture(backend64, np.zeros((2, 1)), np.ones((2, 1)), logits=np.zeros(1))
    masked = d.mask(backend64.array(np.array([True, False])))
    got = np.asarray(masked.log_prob(backend64.array(np.array([0.5, NAN if backend64.name == "numpyro" else 0.5]))))
    np.testing.assert_allclose(got, [stats.norm.logpdf(0.5), 0.0], rtol=EXACT64)


def test_support_and_constraints(backend, rng):
    """The declared constraints accept what the constructor accepts and refuse what it refuses."""
    loc, scale, weights = (backend.array(a) for a in draw_mixture(rng, 3, (2,)))
    d = backend.dist.UnivariateGaussianMixture(loc, scale, probs=weights)

    def holds(constraint, value):
        value = backend.array(value)
        return np.asarray(constraint(value) if backend.name == "numpyro" else constraint.check(value))

    constraints = d.arg_constraints
    assert set(constraints) == {"loc", "scale", "logits", "probs"}
    for name in constraints:
        np.testing.assert_array_equal(holds(constraints[name], np.asarray(getattr(d, name))), [True, True])
    np.testing.assert_array_equal(holds(constraints["scale"], np.array([[1.0, 0.0], [2.0, 1.0]])), [False, True])
    np.testing.assert_array_equal(holds(constraints["logits"], np.array([[0.0, -INF], [INF, 0.0]])), [True, False])
    np.testing.assert_array_equal(holds(constraints["probs"], np.array([[0.5, 0.4], [1.0, 0.0]])), [False, True])
    np.testing.assert_array_equal(holds(d.support, np.array([-1e30, 0.0, NAN])), [True, True, False])
    assert not getattr(d.support, "is_discrete", False)


BAD = {
    "neither": ({"loc": [0.0], "scale": [1.0]}, ("exactly one of logits and probs", "got neither", "sum to one")),
    "both": (
        {"loc": [0.0], "scale": [1.0], "logits": [0.0], "probs": [1.0]},
        ("exactly one", "got both", "sum to one"),
    ),
    "no component axis": (
        {"loc": 0.0, "scale": 1.0, "probs": 1.0},
        ("last axis of K", "got shapes loc ()", "loc[..., None]"),
    ),
    "shapes": (
        {"loc": [0.0] * 3, "scale": [1.0] * 2, "logits": [0.0]},
        ("that broadcast are needed", "loc (3,), scale (2,), logits (1,)", "or 1"),
    ),
    "no component": (
        {"loc": np.zeros((2, 0)), "scale": np.ones((2, 0)), "logits": np.zeros((2, 0))},
        ("at least one component", "loc (2, 0)", "Check"),
    ),
    "loc NaN": (
        {"loc": [[0.0, 1.0], [0.0, NAN]], "scale": [1.0], "probs": [0.5, 0.5]},
        ("loc must be finite", "got nan at index (1, 1), in shape (2, 2)", "upstream"),
    ),
    "loc infinite": (
        {"loc": [0.0, INF], "scale": [1.0], "probs": [0.5, 0.5]},
        ("loc must be finite", "got inf", "upstream"),
    ),
    "scale zero": (
        {"loc": [0.0, 1.0], "scale": [1.0, 0.0], "probs": [0.5, 0.5]},
        ("scale must be positive and finite", "got 0.0 at index (1,)", "exp of a log scale"),
    ),
    "scale negative": (
        {"loc": [0.0], "scale": -1.0, "probs": [1.0]},
        ("scale must be positive", "got -1.0", "exp of a log scale"),
    ),
    "scale infinite": (
        {"loc": [0.0], "scale": [INF], "probs": [1.0]},
        ("scale must be positive and finite", "got inf"),
    ),
    "scale NaN": ({"loc": [0.0], "scale": [NAN], "probs": [1.0]}, ("scale must be positive and finite", "got nan")),
    "logits NaN": (
        {"loc": [0.0] * 2, "scale": [1.0], "logits": [0.0, NAN]},
        ("logits must be real, or -inf", "nan", "upstream"),
    ),
    "logits +inf": (
        {"loc": [0.0] * 2, "scale": [1.0], "logits": [0.0, INF]},
        ("logits must be real, or -inf", "got inf"),
    ),
    "logits all -inf": (
        {"loc": [0.0] * 2, "scale": [1.0], "logits": [[0.0, 1.0], [-INF, -INF]]},
        ("finite for at least one component", "at index (1,)", "Keep one component"),
    ),
    "probs negative": (
        {"loc": [0.0] * 2, "scale": [1.0], "probs": [1.5, -0.5]},
        ("probs must be non-negative", "got -0.5 at index (1,)", "Use logits"),
    ),
    "probs NaN": ({"loc": [0.0] * 2, "scale": [1.0], "probs": [1.0, NAN]}, ("probs must be non-negative", "got nan")),
    "probs sum": (
        {"loc": [0.0] * 2, "scale": [1.0], "probs": [[0.5, 0.5], [0.5, 0.25]]},
        ("sum of probs over the last axis must be one", "got 0.75 at index (1,)", "Divide by the sum"),
    ),
    "probs that broadcast": (
        {"loc": [0.0] * 3, "scale": [1.0], "probs": 1.0},
        ("sum of probs", "must be one", "got 3.0"),
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments_are_refused(backend, case):
    arguments, parts = BAD[case]
    arguments = {name: backend.array(value) for name, value in arguments.items()}
    loc, scale = arguments.pop("loc"), arguments.pop("scale")
    with refused(ValueError, *parts):
        backend.dist.UnivariateGaussianMixture(loc, scale, **arguments, validate_args=True)


def test_validation_can_be_switched_off(backend):
    """Then values are not looked at, while names and shapes still are."""
    d = mixture(backend, [0.0], [-1.0], probs=[0.5], validate_args=False)
    np.testing.assert_array_equal(np.asarray(d.scale), [-1.0])
    with refused(ValueError, "that broadcast are needed"):
        mixture(backend, [0.0] * 3, [1.0] * 2, logits=[0.0], validate_args=False)
    assert np.isnan(
        float(mixture(backend, [0.0], [1.0], probs=[1.0], validate_args=False).log_prob(backend.array(NAN)))
    )


def test_a_value_outside_the_support_under_validation(backend):
    d = mixture(backend, [0.0], [1.0], probs=[1.0], validate_args=True).expand((2,))
    value = backend.array(np.array([0.0, NAN]))
    if backend.name == "pyro":
        with pytest.raises(ValueError, match="within the support"):
            d.log_prob(value)
        return
    with pytest.warns(UserWarning, match="Out-of-support"):
        got = np.asarray(d.log_prob(value))
    assert np.isneginf(got[1])
