"""Priors: defaults, natural spaces, overrides and hyper-priors, against SciPy in both backends."""

import math

import numpy as np
import pytest
from helpers import apply, refused
from scipy import stats
from tolerances import EXACT64, NETWORK32, PARITY, SAMPLING_P

import ugmm_ppl as up
from ugmm_ppl.distributions import described

NETWORK = up.Network((3, 4, 2))
SIZES = {"layers.0": (4, 3), "layers.1": (2, 4)}


def sites_of(backend, prior, network=NETWORK, classes=3, seed=0):
    """Sample sites of a classifier with that prior: name -> (distribution, value as NumPy)."""
    model = up.Classifier(network, classes, prior)
    with backend.inference.seeded(seed):
        sites = backend.trace(model.parameters, {}, backend, backend.array(np.zeros((5, 3))))
    return {name: (site.distribution, np.asarray(site.value)) for name, site in sites.items()}


def log_density(backend, distribution, value):
    """Log density of a whole tensor as one event."""
    return float(distribution.log_prob(backend.array(value)))


def test_defaults_are_as_documented(backend64):
    sites = sites_of(backend64, up.Prior())
    want = {}
    for layer, shape in SIZES.items():
        want[f"{layer}.loc"] = (stats.norm(0.0, 1.0), shape)
        want[f"{layer}.log_scale"] = (stats.norm(-0.5, 0.5), shape)
        want[f"{layer}.logits"] = (stats.norm(0.0, 1.0), shape)
    want["readout.weight"] = (stats.norm(0.0, 1.0 / math.sqrt(2.0)), (3, 2))
    want["readout.bias"] = (stats.norm(0.0, 1.0), (3,))
    assert list(sites) == list(want)
    for name, (oracle, shape) in want.items():
        distribution, value = sites[name]
        assert value.shape == shape
        np.testing.assert_allclose(
            log_density(backend64, distribution, value), oracle.logpdf(value).sum(), rtol=EXACT64
        )


NATURAL = {
    "scale LogNormal": ("scale", up.dist.LogNormal(-0.5, 0.5), stats.lognorm(0.5, scale=np.exp(-0.5))),
    "scale InverseGamma": ("scale", up.dist.InverseGamma(3.0, 1.5), stats.invgamma(3.0, scale=1.5)),
    "scale HalfNormal": ("scale", up.dist.HalfNormal(2.0), stats.halfnorm(scale=2.0)),
    "weights Dirichlet": ("weights", up.dist.Dirichlet(0.5), None),
    "weights Dirichlet of a vector": ("weights", up.dist.Dirichlet([0.5, 2.0, 1.0]), None),
}


@pytest.mark.parametrize("case", NATURAL)
def test_natural_spaces(backend64, case):
    """The site is named after its space, lies in it, and has SciPy's density."""
    role, description, oracle = NATURAL[case]
    sites = sites_of(backend64, up.Prior(**{role: description}), up.Network((3, 4)))
    replaced = {"scale": "log_scale", "weights": "logits"}[role]
    assert f"layers.0.{role}" in sites
    assert f"layers.0.{replaced}" not in sites
    distribution, value = sites[f"layers.0.{role}"]
    assert value.shape == (4, 3)
    assert (value > 0.0).all()
    if role == "weights":
        np.testing.assert_allclose(value.sum(-1), np.ones(4), rtol=EXACT64)
        concentration = np.broadcast_to(description.args[0], 3)
        value = value / value.sum(-1, keepdims=True)
        want = sum(stats.dirichlet.logpdf(row, concentration) for row in value)
    else:
        want = oracle.logpdf(value).sum()
    np.testing.assert_allclose(log_density(backend64, distribution, value), want, rtol=PARITY)


def test_overrides_of_one_layer(backend64):
    """What a layer says comes before what is said for all; naming one space replaces the other."""
    prior = up.Prior(
        loc=up.dist.Laplace(0.0, 2.0),
        scale=up.dist.HalfNormal(1.0),
        layers={
            1: {"loc": up.dist.Normal(3.0, 0.1), "log_scale": up.dist.Normal(-2.0, 0.1)},
            0: {"weights": up.dist.Dirichlet(1.0)},
        },
    )
    sites = sites_of(backend64, prior)
    neurons = {name for name in sites if name.startswith("layers")}
    assert neurons == {
        "layers.0.loc",
        "layers.0.scale",
        "layers.0.weights",
        "layers.1.loc",
        "layers.1.log_scale",
        "layers.1.logits",
    }
    for name, oracle in {
        "layers.0.loc": stats.laplace(0.0, 2.0),
        "layers.0.scale": stats.halfnorm(scale=1.0),
        "layers.1.loc": stats.norm(3.0, 0.1),
        "layers.1.log_scale": stats.norm(-2.0, 0.1),
    }.items():
        distribution, value = sites[name]
        np.testing.assert_allclose(log_density(backend64, distribution, value), oracle.logpdf(value).sum(), rtol=PARITY)


def test_readout_and_tied(backend64):
    prior = up.Prior(readout=up.dist.Laplace(0.0, 0.3), readout_bias=up.dist.Normal(1.0, 0.2))
    sites = sites_of(backend64, prior, up.Network((3, 4), tied=True))
    assert set(sites) == {"layers.0.log_scale", "layers.0.logits", "readout.weight", "readout.bias"}
    for name, oracle in {"readout.weight": stats.laplace(0.0, 0.3), "readout.bias": stats.norm(1.0, 0.2)}.items():
        distribution, value = sites[name]
        np.testing.assert_allclose(log_density(backend64, distribution, value), oracle.logpdf(value).sum(), rtol=PARITY)


def spread_by_input(backend, name, shape):
    """Automatic relevance: every input has a spread of its own, loc ~ Normal(0, spread)."""
    spread = backend.sample(
        f"{name}.spread", backend.dist.HalfNormal(backend.array(2.0)).expand((shape[-1],)).to_event(1)
    )
    return backend.sample(name, backend.dist.Normal(backend.array(0.0), spread).expand(shape).to_event(2))


def test_a_callable_may_sample_hyper_parameters(backend64):
    sites = sites_of(backend64, up.Prior(loc=spread_by_input), up.Network((3, 4)))
    spread = sites["layers.0.loc.spread"][1]
    assert spread.shape == (3,)
    distribution, value = sites["layers.0.loc"]
    want = stats.norm.logpdf(value, 0.0, spread).sum()
    np.testing.assert_allclose(log_density(backend64, distribution, value), want, rtol=PARITY)


def test_a_callable_may_return_a_constant(backend64):
    def fixed(backend, name, shape):
        return backend.array(np.full(shape, 0.5))

    assert "layers.0.loc" not in sites_of(backend64, up.Prior(loc=fixed))


def test_a_callable_of_another_shape_is_refused(backend):
    def transposed(backend, name, shape):
        return backend.array(np.zeros(shape[::-1]))

    with refused(ValueError, "prior of layers.0.loc must return an array of shape (4, 3)", "got shape (3, 4)"):
        sites_of(backend, up.Prior(loc=transposed))


SCIPY = {
    "AsymmetricLaplace": ((0.3, 0.7, 1.4), stats.laplace_asymmetric(1.4, loc=0.3, scale=0.7)),
    "Beta": ((2.0, 3.0), stats.beta(2.0, 3.0)),
    "Cauchy": ((0.3, 0.7), stats.cauchy(0.3, 0.7)),
    "Chi2": ((3.0,), stats.chi2(3.0)),
    "Dirichlet": (([0.5, 2.0, 1.0],), stats.dirichlet([0.5, 2.0, 1.0])),
    "Exponential": ((0.7,), stats.expon(scale=1.0 / 0.7)),
    "Gamma": ((2.0, 0.7), stats.gamma(2.0, scale=1.0 / 0.7)),
    "Gumbel": ((0.3, 0.7), stats.gumbel_r(0.3, 0.7)),
    "HalfCauchy": ((0.7,), stats.halfcauchy(scale=0.7)),
    "HalfNormal": ((0.7,), stats.halfnorm(scale=0.7)),
    "InverseGamma": ((2.0, 0.7), stats.invgamma(2.0, scale=0.7)),
    "Kumaraswamy": ((2.0, 3.0), None),
    "Laplace": ((0.3, 0.7), stats.laplace(0.3, 0.7)),
    "LogNormal": ((0.3, 0.7), stats.lognorm(0.7, scale=np.exp(0.3))),
    "Logistic": ((0.3, 0.7), stats.logistic(0.3, 0.7)),
    "Normal": ((0.3, 0.7), stats.norm(0.3, 0.7)),
    "Pareto": ((0.7, 3.0), stats.pareto(3.0, scale=0.7)),
    "SoftLaplace": ((0.3, 0.7), stats.hypsecant(0.3, 0.7)),
    "StudentT": ((4.0, 0.3, 0.7), stats.t(4.0, 0.3, 0.7)),
    "Uniform": ((0.3, 0.7), stats.uniform(0.3, 0.4)),
    "Weibull": ((0.7, 1.5), stats.weibull_min(1.5, scale=0.7)),
}


def test_the_table_has_every_distribution():
    assert set(SCIPY) == set(described.DISTRIBUTIONS)
    assert dir(up.dist) == list(described.DISTRIBUTIONS)


@pytest.mark.long
@pytest.mark.parametrize("name", described.DISTRIBUTIONS)
def test_every_distribution_is_that_of_scipy(backend64, name):
    """Equal names and argument orders in both PPLs mean the same: the density at samples, all of them one event."""
    arguments, oracle = SCIPY[name]
    built = backend64.build(getattr(up.dist, name)(*arguments), (4, 3))
    assert tuple(built.batch_shape) == ()
    assert tuple(built.event_shape) == (4, 3)
    with backend64.inference.seeded(0):
        value = apply(backend64, lambda: backend64.sample("value", built))
    assert name not in described.POSITIVE or (value > 0.0).all()
    got = apply(backend64, built.log_prob, backend64.array(value))
    if name == "Dirichlet":
        want = sum(oracle.logpdf(row / row.sum()) for row in value)
    elif oracle is None:  # Kumaraswamy, a b x^(a-1) (1 - x^a)^(b-1), is not in SciPy
        a, b = arguments
        want = np.log(a * b * value ** (a - 1.0) * (1.0 - value**a) ** (b - 1.0)).sum()
    else:
        want = oracle.logpdf(value).sum()
    np.testing.assert_allclose(got, want, rtol=PARITY)


def test_keyword_arguments_and_words(backend64):
    """A description reads as the call that made it, and keywords mean what they mean in the PPLs."""
    description = up.dist.Gamma(concentration=2.0, rate=0.7)
    assert repr(description) == "dist.Gamma(concentration=2.0, rate=0.7)"
    assert repr(up.dist.Normal(0.0, scale=1.0)) == "dist.Normal(0.0, scale=1.0)"
    value = np.array([0.5, 2.0])
    want = stats.gamma(2.0, scale=1.0 / 0.7).logpdf(value).sum()
    np.testing.assert_allclose(log_density(backend64, backend64.build(description, (2,)), value), want, rtol=EXACT64)


def test_array_arguments_broadcast_over_inputs(backend64):
    """One location per input, for all neurons."""
    built = backend64.build(up.dist.Normal([0.0, 5.0, -5.0], 0.1), (4, 3))
    value = np.broadcast_to([0.1, 5.0, -4.9], (4, 3))
    want = stats.norm.logpdf(value, [0.0, 5.0, -5.0], 0.1).sum()
    np.testing.assert_allclose(log_density(backend64, built, value.copy()), want, rtol=PARITY)


def test_predictive_draws_follow_the_prior(backend_name):
    """KS of every site against its prior; `outputs` are those of the network, and y follows them."""
    prior = up.Prior(
        loc=up.dist.Normal(1.0, 2.0), scale=up.dist.LogNormal(-0.5, 0.5), readout_bias=up.dist.Laplace(0.0, 1.0)
    )
    x = np.random.default_rng(0).normal(size=(5, 3))
    draws = prior.predictive(up.Classifier(up.Network((3, 4)), 2), x, num_draws=150, backend=backend_name, seed=3)
    oracles = {
        "layers.0.loc": (stats.norm(1.0, 2.0), (4, 3)),
        "layers.0.scale": (stats.lognorm(0.5, scale=np.exp(-0.5)), (4, 3)),
        "layers.0.logits": (stats.norm(0.0, 1.0), (4, 3)),
        "readout.weight": (stats.norm(0.0, 0.5), (2, 4)),
        "readout.bias": (stats.laplace(0.0, 1.0), (2,)),
    }
    assert set(draws) == {*oracles, "outputs", "y"}
    for name, (oracle, shape) in oracles.items():
        assert draws[name].shape == (150, *shape)
        assert stats.kstest(draws[name].ravel(), oracle.cdf).pvalue > SAMPLING_P
    assert draws["outputs"].shape == (150, 5, 2)
    assert draws["y"].shape == (150, 5)
    assert set(np.unique(draws["y"])) == {0, 1}
    weights = np.exp(draws["layers.0.logits"])
    density = stats.norm.pdf(x[:, None, :], draws["layers.0.loc"][:, None], draws["layers.0.scale"][:, None])
    a = np.log(((weights / weights.sum(-1, keepdims=True))[:, None] * density).sum(-1))
    h = (a - a.mean(-1, keepdims=True)) / np.sqrt(a.var(-1, keepdims=True) + 1e-5)
    want = np.einsum("soj,sbj->sbo", draws["readout.weight"], h) + draws["readout.bias"][:, None]
    np.testing.assert_allclose(draws["outputs"], want, rtol=NETWORK32, atol=NETWORK32)


def test_predictive_of_a_regressor_and_of_seeds(backend_name):
    model, x = up.Regressor(up.Network((3, 4)), components=2), np.zeros((6, 3))
    one, same, other = (up.Prior().predictive(model, x, num_draws=3, backend=backend_name, seed=s) for s in (0, 0, 1))
    assert one["outputs"].shape == (3, 6, 6)
    assert one["y"].shape == (3, 6)
    assert np.isfinite(one["y"]).all()
    for name in one:
        np.testing.assert_array_equal(one[name], same[name])
        assert (one[name] != other[name]).any()
    assert (one["layers.0.loc"][0] != one["layers.0.loc"][1]).all()


def test_predictive_refuses_bad_arguments(backend_name):
    model = up.Classifier(up.Network((3, 4)), 2)
    with refused(ValueError, "x must have 3 columns", "got shape (5, 2)"):
        up.Prior().predictive(model, np.zeros((5, 2)), backend=backend_name)
    with refused(ValueError, "num_draws must be at least 1", "got 0"):
        up.Prior().predictive(model, np.zeros((5, 3)), num_draws=0, backend=backend_name)
    with refused(ValueError, "backend must be one of 'pyro', 'numpyro'", "got 'nunpyro'", "'numpyro'?"):
        up.Prior().predictive(model, np.zeros((5, 3)), backend="nunpyro")
