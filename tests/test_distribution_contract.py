"""What a PPL does with a distribution: plates, handlers, enumeration, Predictive, trees, transforms."""

import importlib

import numpy as np
import pytest
from helpers import density, mixture
from scipy import stats
from tolerances import EXACT64

from ugmm_ppl.backends.load import load_backend

LOC, SCALE, WEIGHTS = np.array([-1.0, 0.5]), np.array([0.6, 0.9]), np.array([0.4, 0.6])


def make(backend, shift=0.0):
    """The mixture, moved by an array of the backend."""
    scale, weights = backend.array(SCALE), backend.array(WEIGHTS)
    return backend.dist.UnivariateGaussianMixture(backend.array(LOC) + shift, scale, probs=weights)


def ppl(backend):
    """The module `pyro` or `numpyro`, which share these names: sample, plate, param."""
    return importlib.import_module(backend.name)


def trace_of(backend, model):
    """The sites of a run of the model."""
    if backend.name == "pyro":
        from pyro import poutine

        with backend.inference.seeded(0):
            return poutine.trace(model).get_trace().nodes
    import jax
    from numpyro import handlers as h

    return h.trace(h.seed(model, jax.random.key(0))).get_trace()


def handle(backend, name, model, *arguments, **settings):
    """An effect handler by its name, which is the same in both PPLs."""
    if backend.name == "pyro":
        from pyro import poutine as handlers
    else:
        from numpyro import handlers
    return getattr(handlers, name)(model, *arguments, **settings)


def test_plates_mask_condition_and_block(backend64):
    observed = np.array([[0.3, -0.2, 1.0], [0.0, 2.0, -1.0]])

    def model():
        with ppl(backend64).plate("columns", 3, dim=-1), ppl(backend64).plate("rows", 2, dim=-2):
            backend64.sample("y", make(backend64))
        backend64.sample("z", make(backend64).expand((2,)).to_event(1))

    sites = trace_of(backend64, model)
    assert tuple(sites["y"]["value"].shape) == (2, 3)
    assert len(np.unique(np.asarray(sites["y"]["value"]))) == 6
    assert tuple(sites["z"]["value"].shape) == (2,)
    conditioned = trace_of(backend64, handle(backend64, "condition", model, data={"y": backend64.array(observed)}))
    site = conditioned["y"]
    assert site["is_observed"]
    got = np.asarray(site["fn"].log_prob(site["value"]))
    np.testing.assert_allclose(got, np.log(density(observed, LOC, SCALE, WEIGHTS)), rtol=EXACT64, atol=EXACT64)
    blocked = trace_of(backend64, handle(backend64, "block", model, hide=["y"]))
    assert "y" not in blocked
    assert "z" in blocked


def test_reparameterisation_through_a_transform(backend64):
    """`TransformReparam` finds the mixture under an affine map, and the joint density is that of the mixture."""
    if backend64.name == "pyro":
        from pyro.infer.reparam import TransformReparam
    else:
        from numpyro.infer.reparam import TransformReparam

    def model():
        dist = backend64.dist
        affine = dist.transforms.AffineTransform(backend64.array(3.0), backend64.array(2.0))
        backend64.sample("y", dist.TransformedDistribution(make(backend64), [affine]))

    sites = trace_of(backend64, handle(backend64, "reparam", model, config={"y": TransformReparam()}))
    base = sites["y_base"]
    assert type(base["fn"]) is backend64.dist.UnivariateGaussianMixture
    np.testing.assert_allclose(np.asarray(sites["y"]["value"]), 3.0 + 2.0 * np.asarray(base["value"]), rtol=EXACT64)


def test_enumeration_around_it(backend64):
    """A discrete site whose value moves the mixture, summed out exactly: the ELBO of an empty guide is the evidence."""
    y = backend64.array(0.7)
    shares, moves = np.array([0.3, 0.7]), np.array([0.0, 2.0])
    evidence = np.log(sum(s * density(0.7, LOC + m, SCALE, WEIGHTS) for s, m in zip(shares, moves, strict=True)))

    def model():
        which = backend64.dist.Categorical(probs=backend64.array(shares))
        k = ppl(backend64).sample("k", which, infer={"enumerate": "parallel"})
        backend64.sample("y", make(backend64, backend64.array(moves)[k][..., None]), obs=y)

    if backend64.name == "pyro":
        from pyro.infer import TraceEnum_ELBO

        loss = TraceEnum_ELBO(max_plate_nesting=0).loss(model, lambda: None)
    else:
        import jax
        from numpyro.infer import TraceEnum_ELBO

        loss = TraceEnum_ELBO(max_plate_nesting=0).loss(jax.random.key(0), {}, model, lambda: None)
    np.testing.assert_allclose(-float(loss), evidence, rtol=EXACT64)


def test_predictive(backend64):
    def model():
        with backend64.plate("data", 4):
            return backend64.sample("y", make(backend64))

    if backend64.name == "pyro":
        from pyro.infer import Predictive

        with backend64.inference.seeded(0):
            values = Predictive(model, num_samples=2_000)()["y"].numpy()
    else:
        import jax
        from numpyro.infer import Predictive

        values = np.asarray(Predictive(model, num_samples=2_000)(jax.random.key(0))["y"])
    assert values.shape == (2_000, 4)
    mean = (WEIGHTS * LOC).sum()
    variance = (WEIGHTS * (SCALE**2 + LOC**2)).sum() - mean**2
    assert abs(values.mean() - mean) < 4.0 * np.sqrt(variance / values.size)


def test_an_elbo_of_it_as_a_guide_has_pathwise_gradients(backend64):
    """KL(guide || Normal) by `Trace_ELBO`, whose gradient is pathwise as the guide has rsample; against quadrature."""
    y = np.linspace(-9.0, 9.0, 40_001)
    p = density(y, LOC, SCALE, WEIGHTS)
    r = (WEIGHTS * stats.norm.pdf(y[:, None], LOC, SCALE)).T / p
    by_loc = np.trapezoid(r * p * (y - LOC[:, None]) / SCALE[:, None] ** 2 * (np.log(p) - stats.norm.logpdf(y)), y)

    def model():
        backend64.sample(
            "z", backend64.dist.Normal(backend64.array(0.0), backend64.array(1.0)).expand((2_000,)).to_event(1)
        )

    def guide():
        shift = ppl(backend64).param("shift", backend64.array(np.zeros(2)))
        backend64.sample("z", make(backend64, shift).expand((2_000,)).to_event(1))

    if backend64.name == "pyro":
        import pyro
        from pyro.infer import Trace_ELBO

        with pyro.get_param_store().scope(), backend64.inference.seeded(0):
            Trace_ELBO().differentiable_loss(model, guide).backward()
            got = pyro.param("shift").grad.numpy() / 2_000
    else:
        import jax
        from numpyro.infer import Trace_ELBO

        loss = jax.jit(jax.grad(lambda p: Trace_ELBO().loss(jax.random.key(0), p, model, guide)))
        got = np.asarray(loss({"shift": backend64.array(np.zeros(2))})["shift"]) / 2_000
    np.testing.assert_allclose(got, by_loc, atol=0.05)  # four standard errors of 2,000 samples


def test_trees_of_jax():
    jax = pytest.importorskip("jax")
    backend = load_backend("numpyro")
    with backend.settings(dtype="float64", device="cpu"):
        d = mixture(backend, LOC, SCALE, logits=np.log(WEIGHTS))
        doubled = jax.tree.map(lambda a: 2.0 * a, d)
        np.testing.assert_allclose(doubled.loc, 2.0 * LOC)
        np.testing.assert_allclose(doubled.scale, 2.0 * SCALE)
        batch = jax.vmap(lambda shift: mixture(backend, LOC, SCALE, probs=WEIGHTS).icdf(0.5) + shift)(np.arange(3.0))
        assert batch.shape == (3,)
        stacked = jax.tree.map(lambda *a: np.stack(a), d, doubled)
        each = jax.vmap(lambda one: one.icdf(0.3))(stacked)
        np.testing.assert_allclose(each, [d.icdf(0.3), doubled.icdf(0.3)], rtol=EXACT64)
