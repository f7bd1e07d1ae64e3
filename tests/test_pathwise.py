"""Samples of `UnivariateGaussianMixture` and their pathwise derivatives, against quadrature and SciPy."""

import functools

import numpy as np
import pytest
from helpers import cumulative, density, mixture
from scipy import stats
from tolerances import EXACT64, GRADIENT64, ORACLE32, PARITY, SAMPLING_P

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"  # torch's own, when forward mode is first used
)

MIXTURES, COMPONENTS, BATCHES, SIZE = 50, 3, 100, 10_000  # a million samples of each mixture, in a hundred batches
PARAMETERS = ("loc", "scale", "weights")


def random_mixtures(rng):
    """Fifty, every other one with a weight of zero.

    Its component is the narrowest and in the middle. The variance of the derivative along such a weight, the integral
    of (Phi_k - F)^2 / p, is infinite where a component reaches farther than sqrt(2) times the widest one with weight.
    """
    loc = 1.5 * rng.normal(size=(MIXTURES, COMPONENTS))
    scale = np.exp(rng.normal(-0.2, 0.4, loc.shape))
    weights = rng.dirichlet(2.0 * np.ones(COMPONENTS), MIXTURES)
    weights[::2, 1] = 0.0
    loc[::2, 1], scale[::2, 1] = loc[::2, ::2].mean(-1), 0.8 * scale[::2, ::2].min(-1)
    return tuple(
        a.astype(np.float32).astype(np.float64) for a in (loc, scale, weights / weights.sum(-1, keepdims=True))
    )


FUNCTIONS = {  # with their derivatives
    "y": (lambda y: y, np.ones_like),
    "y^2": (lambda y: y**2, lambda y: 2.0 * y),
    "sin y": (np.sin, np.cos),
    "max(y, 0)": (lambda y: np.maximum(y, 0.0), lambda y: (y > 0.0).astype(y.dtype)),
}


def quadrature_gradients(loc, scale, weights):
    """d E[f(y)] / d (loc, scale, weights along the simplex), `(4, 50, 3)` each; the trapezoidal rule on 4001 points."""
    t = np.linspace(-9.0, 9.0, 4001)
    y = loc[..., None] + scale[..., None] * t  # (50, 3, T), each component on a grid of its own
    mass = stats.norm.pdf(t) * (t[1] - t[0])
    found = []
    for f, _ in FUNCTIONS.values():
        value = f(y) - f(loc)[..., None]
        by_loc = weights * (value * t * mass).sum(-1) / scale
        by_scale = weights * (value * (t**2 - 1.0) * mass).sum(-1) / scale
        by_weight = (f(y) * mass).sum(-1)
        by_weight = by_weight - (weights * by_weight).sum(-1, keepdims=True)
        found.append((by_loc, by_scale, by_weight))
    return [np.stack(a) for a in zip(*found, strict=True)]


def torch_samples(backend, parameters):
    """A function of a seed: samples `(SIZE, 50)` and the derivatives of each, `(SIZE, 50, 3)`, in the parameters."""
    import torch

    leaves = [backend.array(np.broadcast_to(a, (SIZE, *a.shape)).copy()).requires_grad_() for a in parameters]
    d = backend.dist.UnivariateGaussianMixture(leaves[0], leaves[1], probs=leaves[2], validate_args=False)

    def chunk(seed):
        with backend.inference.seeded(seed):
            y = d.rsample()
        return y.detach().numpy(), [a.numpy() for a in torch.autograd.grad(y.sum(), leaves, retain_graph=True)]

    return chunk


def jax_samples(backend, parameters):
    """As `torch_samples`."""
    import jax
    import jax.numpy as jnp

    leaves = [backend.array(np.broadcast_to(a, (SIZE, *a.shape))) for a in parameters]

    @jax.jit
    def chunk(key, *leaves):
        def draw(loc, scale, weights):
            return backend.dist.UnivariateGaussianMixture(loc, scale, probs=weights).rsample(key)

        y, pull = jax.vjp(draw, *leaves)
        return y, pull(jnp.ones_like(y))

    def numbers(seed):
        y, found = chunk(jax.random.key(seed), *leaves)
        return np.asarray(y), [np.asarray(a) for a in found]

    return numbers


@pytest.mark.long
def test_pathwise_gradients_are_quadrature(backend, rng):
    """Of four expectations with respect to every parameter of fifty mixtures, within four standard errors."""
    parameters = random_mixtures(rng)
    samples = (torch_samples if backend.name == "pyro" else jax_samples)(backend, parameters)
    means = np.empty((3, BATCHES, len(FUNCTIONS), MIXTURES, COMPONENTS))
    for batch in range(BATCHES):
        y, derivatives = samples(batch)
        slopes = np.stack([slope(y) for _, slope in FUNCTIONS.values()]).transpose(2, 0, 1)  # (50, 4, SIZE)
        for role in range(3):
            product = slopes @ derivatives[role].transpose(1, 0, 2)  # (50, 4, 3)
            means[role, batch] = product.swapaxes(0, 1) / SIZE
    for role, want, got in zip(PARAMETERS, quadrature_gradients(*parameters), means, strict=True):
        mean, error = got.mean(0), got.std(0, ddof=1) / np.sqrt(BATCHES)  # (4, 50, 3)
        exact = np.abs(mean - want) <= ORACLE32 * np.maximum(1.0, np.abs(want))  # e.g. of a component without weight
        far = ~((np.abs(mean - want) <= 4.0 * error) | exact)
        assert not far.any(), f"{role}: {np.argwhere(far)}, {(mean - want)[far] / error[far]} standard errors"
        assert np.quantile(error, 0.9) < 0.05  # modes far apart have large ones: 1 / p


def test_samples_follow_the_cdf_of_fifty_mixtures(backend, rng):
    """Kolmogorov-Smirnov at a hundred thousand samples each."""
    loc, scale, weights = random_mixtures(rng)
    d = mixture(backend, loc, scale, probs=weights, validate_args=False)
    if backend.name == "numpyro":
        import jax

        values = np.asarray(d.sample(jax.random.key(0), (100_000,)))
    else:
        with backend.inference.seeded(0):
            values = d.sample((100_000,)).numpy()
    for i in range(MIXTURES):
        found = stats.kstest(
            values[:, i], functools.partial(cumulative, loc=loc[i], scale=scale[i], weights=weights[i])
        )
        assert found.pvalue > SAMPLING_P


# ------------------------------------------------------------------------------ the derivatives themselves, in float64

LOC, SCALE, WEIGHTS = np.array([-1.0, 0.5, 3.0]), np.array([0.6, 0.9, 0.4]), np.array([0.4, 0.6, 0.0])
LEVELS = np.array([1e-9, 0.02, 0.5, 0.9, 1.0 - 1e-6])


def quantile(backend, loc, scale, weights, u):
    return backend.dist.UnivariateGaussianMixture(loc, scale, probs=weights, validate_args=False).icdf(u)


def jacobians(backend, function, arrays):
    """By reverse and by forward mode, compiled in JAX: two lists."""
    arrays = [backend.array(a) for a in arrays]
    numbers = tuple(range(len(arrays)))
    if backend.name == "numpyro":
        import jax

        modes = [jax.jit(mode(function, argnums=numbers)) for mode in (jax.jacrev, jax.jacfwd)]
    else:
        import torch

        modes = [mode(function, argnums=numbers) for mode in (torch.func.jacrev, torch.func.jacfwd)]
    return [[np.asarray(a) for a in mode(*arrays)] for mode in modes]


@pytest.mark.usefixtures("quick_compiler")
def test_derivatives_of_quantiles_are_finite_differences(backend64):
    """Of every argument, in both modes, a weight of zero included; differences along one entry, F(y) = u kept."""
    arrays = [LOC, SCALE, WEIGHTS, LEVELS]
    reverse, forward = jacobians(backend64, functools.partial(quantile, backend64), arrays)
    y = np.asarray(quantile(backend64, *(backend64.array(a) for a in arrays)))
    p = density(y, LOC, SCALE, WEIGHTS)
    z = (y[:, None] - LOC) / SCALE
    r = WEIGHTS * stats.norm.pdf(z) / SCALE / p[:, None]
    lower = stats.norm.cdf(z) - (WEIGHTS * stats.norm.cdf(z)).sum(-1, keepdims=True)
    upper = (WEIGHTS * stats.norm.sf(z)).sum(-1, keepdims=True) - stats.norm.sf(z)
    by_weight = -np.where(LEVELS[:, None] < 0.5, lower, upper) / p[:, None]
    closed = [r, r * z, by_weight, np.diag(1.0 / p)]
    for one, other, want in zip(reverse, forward, closed, strict=True):
        np.testing.assert_allclose(one, want, rtol=PARITY, atol=EXACT64)
        np.testing.assert_allclose(other, want, rtol=PARITY, atol=EXACT64)
    step = 1e-6
    for i, k in ((0, 0), (1, 1), (2, 2), (2, 0)):
        ends = []
        for sign in (1.0, 0.0 if (i, k) == (2, 2) else -1.0):  # a weight of zero moves up only
            moved = [a.copy() for a in arrays]
            moved[i][k] += sign * step
            ends.append(np.asarray(quantile(backend64, *(backend64.array(a) for a in moved))))
        width = step if (i, k) == (2, 2) else 2.0 * step
        inner = slice(1, 4)  # the outermost levels are moved too far by such a step
        difference = (ends[0] - ends[1])[inner] / width
        np.testing.assert_allclose(reverse[i][inner, k], difference, rtol=1e-4 if i == 2 else GRADIENT64)


def test_derivatives_at_and_beyond_the_ends_are_zero(backend64):
    reverse, forward = jacobians(
        backend64, functools.partial(quantile, backend64), [LOC, SCALE, WEIGHTS, np.array([0.0, 1.0])]
    )
    for a in (*reverse, *forward):
        np.testing.assert_array_equal(a, np.zeros_like(a))


def test_derivatives_between_far_modes_are_large_and_never_nan(backend):
    """Half way between modes 200 scales apart 1 / p overflows float32; a finite number comes out, of the right sign."""
    arrays = [np.array([-100.0, 100.0]), np.ones(2), np.array([0.5, 0.5]), np.array([0.5])]
    reverse, forward = jacobians(backend, functools.partial(quantile, backend), arrays)
    for a in (*reverse, *forward):
        assert np.isfinite(a).all()
    assert reverse[3][0, 0] > 1e30
    assert reverse[2][0, 0] < -1e30 < 1e30 < reverse[2][0, 1]


def test_density_and_tails_know_weights_of_zero(backend64):
    """d log p / d probs_k = N_k / p - 1, and alike for both tails, where the weight is zero too."""
    y = np.array([0.2, 2.5])
    pieces = {
        "log_prob": stats.norm.pdf(y[:, None], LOC, SCALE),
        "cdf": stats.norm.cdf(y[:, None], LOC, SCALE),
        "log_cdf": stats.norm.cdf(y[:, None], LOC, SCALE),
        "log_survival": stats.norm.sf(y[:, None], LOC, SCALE),
    }
    for name, parts in pieces.items():

        def method(weights, name=name):
            loc, scale, value = (backend64.array(a) for a in (LOC, SCALE, y))
            d = backend64.dist.UnivariateGaussianMixture(loc, scale, probs=weights, validate_args=False)
            return getattr(d, name)(value)

        reverse, forward = jacobians(backend64, method, [WEIGHTS])
        total = (WEIGHTS * parts).sum(-1, keepdims=True)
        want = parts - total if name == "cdf" else parts / total - 1.0
        np.testing.assert_allclose(reverse[0], want, rtol=PARITY, err_msg=name)
        np.testing.assert_allclose(forward[0], want, rtol=PARITY, err_msg=name)


@pytest.mark.long
@pytest.mark.parametrize("given", ["logits", "probs"])
@pytest.mark.parametrize("method", ["log_prob", "cdf", "log_cdf", "log_survival", "icdf"])
def test_jax_differentiates_at_a_number_of_python(method, given):
    jax = pytest.importorskip("jax")
    from ugmm_ppl.numpyro import UnivariateGaussianMixture

    loc, weights = jax.numpy.array([-1.0, 2.0]), jax.numpy.array([0.25, 0.75])
    function = getattr(UnivariateGaussianMixture(loc, jax.numpy.ones(2), **{given: weights}), method)
    want = jax.grad(function)(jax.numpy.float32(0.3))
    for got in (jax.grad(function)(0.3), jax.jacfwd(function)(0.3), jax.jvp(function, (0.3,), (1.0,))[1]):
        np.testing.assert_allclose(got, want, rtol=ORACLE32)
    assert np.isfinite(jax.hessian(function)(0.3))


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("method", ["log_prob", "log_cdf", "log_survival", "icdf"])
def test_gradients_are_never_nan(backend, method):
    """In float32, at values and scales out to the ends, with weights of zero by logits and by probs."""
    values = [0.3, 0.0, 1.0] if method == "icdf" else [0.0, 1e4, -1e4, 1e30, np.inf, -np.inf]
    for given, weights in (("logits", [0.0, 1.0, -np.inf]), ("probs", [0.25, 0.75, 0.0])):

        def function(loc, scale, weights, given=given):
            d = backend.dist.UnivariateGaussianMixture(loc, scale, **{given: weights}, validate_args=False)
            return getattr(d, method)(backend.array(np.array(values)))

        arrays = [np.array([-1e4, 0.0, 5.0]), np.array([1e-6, 1.0, 1e6]), np.array(weights)]
        reverse, forward = jacobians(backend, function, arrays)
        for a in (*reverse, *forward):
            assert not np.isnan(a).any()
