"""The methods of `UnivariateGaussianMixture` beyond log_prob and sample, the same in both backends."""

import numpy as np
import pytest
from conftest import needs_both
from helpers import cumulative, density, draw_mixture, gradients, mixture, refused
from scipy import special, stats
from tolerances import EXACT64, GRADIENT64, PARITY, SAMPLING_P

from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.distributions import methods as queries

pytestmark = pytest.mark.usefixtures("quick_compiler")


def keyed(backend, method, *arguments, seed=0):
    """Call a method that draws: with a key in NumPyro, with a seed in Pyro."""
    if backend.name == "numpyro":
        import jax

        return method(jax.random.key(seed), *arguments)
    with backend.inference.seeded(seed):
        return method(*arguments)


def answers(d, other, value, level):
    """Everything that is not drawn, by name."""
    posterior, evidence = d.condition_on_gaussian(value, 0.3 + 0.0 * value)
    low, high = d.interval(0.9)
    at_least, at_most = d.entropy_bounds()
    return {
        "log_prob": d.log_prob(value),
        "cdf": d.cdf(value),
        "log_cdf": d.log_cdf(value),
        "log_survival": d.log_survival(value),
        "icdf": d.icdf(level),
        "quantile": d.quantile(level),
        "median": d.median,
        "low": low,
        "high": high,
        "mean": d.mean,
        "variance": d.variance,
        "stddev": d.stddev,
        "skewness": d.skewness,
        "responsibilities": d.responsibilities(value),
        "modes": d.modes(),
        "entropy at least": at_least,
        "entropy at most": at_most,
        "kl": d.kl_to(other, tolerance=1e-11),
        "posterior mean": posterior.mean,
        "posterior stddev": posterior.stddev,
        "evidence": evidence,
        "component": d.component(1).log_prob(value),
    }


@needs_both
@pytest.mark.parametrize("given", ["logits", "probs"])
def test_backends_agree(rng, given):
    one, other = draw_mixture(rng, 5, (3,)), draw_mixture(rng, 2)
    one[2][:, 2] = 0.0
    one[2][:] /= one[2].sum(-1, keepdims=True)
    value, level = 3.0 * rng.normal(size=(8, 3)), rng.uniform(size=(8, 3))
    found = []
    for name in ("pyro", "numpyro"):
        backend = load_backend(name)
        with backend.settings(dtype="float64", device="cpu"):
            with np.errstate(divide="ignore"):
                weights = one[2] if given == "probs" else np.log(one[2]) + 1.0
            d = mixture(backend, *one[:2], **{given: weights}, validate_args=True)
            reference = mixture(backend, *other[:2], probs=other[2])
            run = answers
            if name == "numpyro":
                import jax

                run = jax.jit(answers)
            got = run(d, reference, backend.array(value), backend.array(level))
            found.append({key: np.asarray(a) for key, a in got.items()})
    assert found[0].keys() == found[1].keys()
    for key, a in found[0].items():
        np.testing.assert_allclose(a, found[1][key], rtol=PARITY, atol=PARITY, err_msg=key)


def test_both_classes_have_the_same_public_names():
    """Those that this package defines."""
    if not pytest.importorskip("torch") or not pytest.importorskip("jax"):
        raise AssertionError
    classes = [load_backend(name).dist.UnivariateGaussianMixture for name in ("pyro", "numpyro")]
    pyro, numpyro = ({n for n in vars(c) if not n.startswith("_")} for c in classes)
    only_here = {"has_rsample", "rsample"}, {"reparametrized_params", "pytree_data_fields"}
    assert pyro - only_here[0] == numpyro - only_here[1]
    assert all(c.mro()[1].__name__ == "MixtureQueries" for c in classes)


def test_answers_are_those_of_scipy(backend64, rng):
    loc, scale, weights = draw_mixture(rng, 3)
    d = mixture(backend64, loc, scale, probs=weights)
    np.testing.assert_allclose(cumulative(np.asarray(d.median), loc, scale, weights), 0.5, rtol=PARITY)
    low, high = (np.asarray(a) for a in d.interval(0.9))
    np.testing.assert_allclose(cumulative(np.array([low, high]), loc, scale, weights), [0.05, 0.95], rtol=PARITY)
    np.testing.assert_allclose(float(d.stddev) ** 2, float(d.variance), rtol=EXACT64)
    one = d.component(-1)
    assert type(one) is backend64.dist.Normal
    np.testing.assert_allclose(float(one.log_prob(backend64.array(0.3))), stats.norm.logpdf(0.3, loc[2], scale[2]))


def test_moments_in_moments_out(backend64):
    made = backend64.dist.UnivariateGaussianMixture.from_moments(
        backend64.array([1.0, -2.0]), backend64.array([0.5, 3.0]), backend64.array([2.5, -0.4])
    )
    assert tuple(made.batch_shape) == (2,)
    np.testing.assert_allclose(np.asarray(made.mean), [1.0, -2.0], rtol=EXACT64)
    np.testing.assert_allclose(np.asarray(made.stddev), [0.5, 3.0], rtol=EXACT64)
    np.testing.assert_allclose(np.asarray(made.skewness), [2.5, -0.4], rtol=PARITY)
    plain = backend64.dist.UnivariateGaussianMixture.from_moments(0.0, 1.0)
    assert len(np.asarray(plain.modes())[~np.isnan(np.asarray(plain.modes()))]) == 1


def test_samples_know_their_component(backend64):
    loc, scale, weights = np.array([-50.0, 0.0, 50.0]), np.ones(3), np.array([0.2, 0.0, 0.8])
    d = mixture(backend64, loc, scale, probs=weights)
    value, k = (np.asarray(a) for a in keyed(backend64, d.sample_with_component, (20_000,)))
    np.testing.assert_array_equal(k, np.where(value < 0.0, 0, 2))
    assert abs((k == 0).mean() - 0.2) < 4.0 * np.sqrt(0.16 / 20_000)
    assert stats.kstest(value - loc[k], "norm").pvalue > SAMPLING_P


def test_entropy_by_samples_has_the_error_it_states(backend64):
    d = mixture(backend64, [1.0], [0.3], probs=[1.0])
    estimate, error = (float(a) for a in keyed(backend64, d.entropy_estimate))
    assert abs(estimate - stats.norm(1.0, 0.3).entropy()) < 4.0 * error
    np.testing.assert_allclose(error, np.sqrt(0.5 / 10_000), rtol=0.1)  # the variance of a chi-square / 2


def test_kl_divergence_of_the_ppl(backend64, rng):
    """Registered, differentiable, within its tolerance; refused for other pairs by the PPL's own error."""
    p, q = draw_mixture(rng, 3), draw_mixture(rng, 2)
    if backend64.name == "pyro":
        from torch.distributions import kl_divergence
    else:
        from numpyro.distributions import kl_divergence

    def kl(loc, scale):
        first = backend64.dist.UnivariateGaussianMixture(loc, scale, probs=backend64.array(p[2]))
        return kl_divergence(first, mixture(backend64, *q[:2], probs=q[2]))

    y = np.linspace(-40.0, 40.0, 400_001)
    one, other = density(y, *p), density(y, *q)
    want = np.trapezoid(special.rel_entr(one, other), y)
    value, (by_loc, by_scale) = gradients(backend64, kl, list(p[:2]))
    np.testing.assert_allclose(value, want, atol=1e-6)
    step = 1e-5
    for i, grad in enumerate((by_loc, by_scale)):
        ends = [[*p[:2]] for _ in range(2)]
        ends[0][i], ends[1][i] = p[i] + step * np.eye(3)[1], p[i] - step * np.eye(3)[1]
        up, down = (float(kl(*(backend64.array(a) for a in end))) for end in ends)
        np.testing.assert_allclose(grad[1], (up - down) / (2 * step), rtol=GRADIENT64, atol=1e-5)
    with pytest.raises(NotImplementedError):
        kl_divergence(mixture(backend64, [0.0], [1.0], probs=[1.0]), backend64.dist.Gumbel(0.0, 1.0))


def test_kl_that_does_not_converge_is_refused(backend64, monkeypatch):
    """log q has a kink at 0.35, ten thousand scales from its modes: sharper than the finest panel."""
    monkeypatch.setattr(queries, "FINEST", 4)  # the same at 64, where compiling it takes JAX 20 seconds
    p = mixture(backend64, [0.0], [1.0], probs=[1.0])
    q = mixture(backend64, [-1e4, 1e4 + 0.7], [1.0, 1.0], probs=[0.5, 0.5])
    with refused(FloatingPointError, "kl_to needed", "tolerance=", "Give a larger tolerance"):
        p.kl_to(q, 1e-12)


def test_bad_arguments_of_methods_are_refused(backend):
    d = mixture(backend, [0.0, 1.0], [1.0, 1.0], probs=[0.5, 0.5], validate_args=True)
    with refused(ValueError, "u must be a probability in [0, 1]", "got 1.5 at index (1,)"):
        d.icdf(backend.array([0.5, 1.5]))
    with refused(ValueError, "u must be a probability", "got nan"):
        d.icdf(float("nan"))
    with refused(ValueError, "level must lie in (0, 1)", "got 1.0"):
        d.interval(1.0)
    with refused(ValueError, "noise_scale must be positive", "got 0.0"):
        d.condition_on_gaussian(0.0, 0.0)
    with refused(ValueError, "value must be finite", "got inf"):
        d.condition_on_gaussian(float("inf"), 1.0)
    with refused(ValueError, "k must be one of the components 0..1", "got 2"):
        d.component(2)
    with refused(TypeError, "k must be a whole number", "got 0.5"):
        d.component(0.5)
    with refused(ValueError, "stddev must be positive", "got -1.0"):
        type(d).from_moments(0.0, -1.0)
    with refused(ValueError, "mean must be finite"):
        type(d).from_moments(float("nan"), 1.0)
    with refused(ValueError, "skewness must be finite"):
        type(d).from_moments(0.0, 1.0, float("inf"))
    with refused(ValueError, "spread must lie in (0, 1)"):
        type(d).from_moments(0.0, 1.0, spread=1.0)
    unchecked = mixture(backend, [0.0, 1.0], [1.0, 1.0], probs=[0.5, 0.5], validate_args=False)
    assert np.isnan(np.asarray(unchecked.icdf(backend.array([1.5])))).all()
