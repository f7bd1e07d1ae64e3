"""Samples and quantiles under the transforms of both libraries."""

import numpy as np
import pytest
from helpers import density
from scipy import stats
from test_pathwise import LEVELS, LOC, SCALE, WEIGHTS, jacobians, quantile
from tolerances import GRADIENT64, PARITY

pytestmark = pytest.mark.filterwarnings(
    "ignore:`torch.jit.script` is deprecated:DeprecationWarning"  # torch's own, when forward mode is first used
)


def test_gradient_of_a_sample_is_that_of_its_quantile(backend64):
    """By logits: -weights_k (Phi_k - F) / p; a logit of -inf has gradient zero."""
    logits = np.array([0.3, -0.2, -np.inf])
    weights = np.exp(logits) / np.exp(logits).sum()

    def sample(loc, scale, logits):
        d = backend64.dist.UnivariateGaussianMixture(loc, scale, logits=logits, validate_args=False)
        if backend64.name == "numpyro":
            import jax

            return d.sample(jax.random.key(3), (20,))
        with backend64.inference.seeded(3):
            return d.rsample((20,))

    arrays = [LOC, SCALE, logits]
    y = np.asarray(sample(*(backend64.array(a) for a in arrays)))
    grads, forward = jacobians_of_samples(backend64, sample, arrays)
    p = density(y, LOC, SCALE, weights)[:, None]
    z = (y[:, None] - LOC) / SCALE
    r = weights * stats.norm.pdf(z) / SCALE / p
    by_logit = -weights * (stats.norm.cdf(z) - (weights * stats.norm.cdf(z)).sum(-1, keepdims=True)) / p
    for got in (grads, forward):
        for one, want in zip(got, (r, r * z, by_logit), strict=True):
            np.testing.assert_allclose(one, want, rtol=1e-8, atol=PARITY)


def jacobians_of_samples(backend, function, arrays):
    """As `jacobians`; torch's are taken row by row and along unit tangents, with the same random numbers each time."""
    if backend.name == "numpyro":
        return jacobians(backend, function, arrays)
    import torch
    from torch.autograd import forward_ad

    leaves = [backend.array(a).requires_grad_() for a in arrays]
    y = function(*leaves)
    rows = [torch.autograd.grad(one, leaves, retain_graph=True) for one in y]
    reverse = [torch.stack(a).numpy() for a in zip(*rows, strict=True)]
    forward = []
    for i, a in enumerate(arrays):
        columns = []
        for k in range(len(a)):
            with forward_ad.dual_level():
                given = [backend.array(b) for b in arrays]
                tangent = torch.zeros(len(a), dtype=given[i].dtype)
                tangent[k] = 1.0
                given[i] = forward_ad.make_dual(given[i], tangent)
                columns.append(forward_ad.unpack_dual(function(*given)).tangent.numpy())
        forward.append(np.stack(columns, -1))
    return reverse, forward


@pytest.mark.long
def test_transforms_of_torch():
    """vmap over gradients, and torch.compile without a break in the graph."""
    torch = pytest.importorskip("torch")
    from ugmm_ppl.pyro import UnivariateGaussianMixture

    scale, logits = torch.tensor(SCALE), torch.tensor([0.0, 1.0, -np.inf], dtype=torch.float64)

    def total(loc, u):
        d = UnivariateGaussianMixture(loc, scale, logits=logits, validate_args=False)
        return d.icdf(u).sum() + d.log_cdf(u).sum()

    locs, u = torch.randn(4, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)), torch.tensor(LEVELS)
    each = torch.vmap(torch.func.grad(total), in_dims=(0, None))(locs, u)
    for loc, got in zip(locs, each, strict=True):
        leaf = loc.clone().requires_grad_()
        total(leaf, u).backward()
        np.testing.assert_allclose(got.numpy(), leaf.grad.numpy(), rtol=PARITY)
    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    leaf = locs[0].clone().requires_grad_()
    compiled(leaf, u).backward()
    np.testing.assert_allclose(leaf.grad.numpy(), each[0].numpy(), rtol=PARITY)

    def mean_sine(loc):
        return UnivariateGaussianMixture(loc, scale, logits=logits, validate_args=False).rsample((20_000,)).sin().mean()

    leaf = locs[0].clone().requires_grad_()
    torch.compile(mean_sine, fullgraph=True, backend="aot_eager")(leaf).backward()
    weights = torch.softmax(logits, 0)
    want = weights * torch.exp(-0.5 * scale**2) * torch.cos(locs[0])  # d E[sin y] / d loc
    np.testing.assert_allclose(leaf.grad.numpy(), want.numpy(), atol=4.0 / np.sqrt(20_000))
    spread = torch.vmap(torch.func.grad(mean_sine), randomness="different")(locs)
    np.testing.assert_allclose(spread[0].numpy(), want.numpy(), atol=4.0 / np.sqrt(20_000))


@pytest.mark.long
@pytest.mark.usefixtures("quick_compiler")
def test_transforms_of_jax(rng):
    """vmap, jit and second derivatives: JAX differentiates the rule again."""
    jax = pytest.importorskip("jax")
    pytest.importorskip("numpyro")
    from ugmm_ppl.backends.load import load_backend

    backend = load_backend("numpyro")
    with backend.settings(dtype="float64", device="cpu"):

        def one(loc, u=0.3):
            return quantile(backend, loc, SCALE, WEIGHTS, u)

        locs = rng.normal(size=(4, 3))
        each = jax.jit(jax.vmap(jax.grad(one)))(locs)
        np.testing.assert_allclose(each, np.stack([jax.grad(one)(loc) for loc in locs]), rtol=PARITY)
        hessian = jax.hessian(one)(locs[0])
        step = 1e-5
        for k in range(2):
            ends = [jax.grad(one)(locs[0] + sign * step * np.eye(3)[k]) for sign in (1.0, -1.0)]
            np.testing.assert_allclose(hessian[k], (ends[0] - ends[1]) / (2 * step), rtol=GRADIENT64, atol=GRADIENT64)


def test_stratified_expectations_have_the_gradient_of_far_modes(backend64):
    """Modes 40 scales apart: d E[y] / d logits = weights (loc - mean), which no pathwise sample sees."""
    loc, scale, logits = np.array([-20.0, 20.0]), np.ones(2), np.array([0.4, -0.4])
    weights = np.exp(logits) / np.exp(logits).sum()

    def estimate(loc, scale, logits):
        d = backend64.dist.UnivariateGaussianMixture(loc, scale, logits=logits)
        if backend64.name == "numpyro":
            import jax

            values, shares = d.stratified_sample(jax.random.key(0), (4_000,))
        else:
            with backend64.inference.seeded(0):
                values, shares = d.stratified_sample((4_000,))
        assert values.shape == shares.shape == (4_000, 2)
        return (values * shares).sum() / 4_000

    from helpers import gradients

    value, (by_loc, by_scale, by_logits) = gradients(backend64, estimate, [loc, scale, logits])
    mean, error = (weights * loc).sum(), 4.0 / np.sqrt(4_000)
    assert abs(value - mean) < error
    np.testing.assert_allclose(by_loc, weights, rtol=PARITY)
    np.testing.assert_allclose(by_scale, np.zeros(2), atol=error)
    np.testing.assert_allclose(by_logits, weights * (loc - mean), atol=error)
