"""What ArviZ and xarray do with the trees of every kind of fit: frames, files, selections, prior sensitivity."""

import arviz as az
import numpy as np
import pytest
from conftest import INSTALLED
from helpers import refused
from scipy import special, stats

import ugmm_ppl as up
from ugmm_ppl import arviz

pytestmark = [
    pytest.mark.usefixtures("quick_compiler"),
    pytest.mark.filterwarnings("ignore:.*:UserWarning"),  # ArviZ's own advice about k-hat and few draws
    pytest.mark.filterwarnings("ignore:.*:RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:.*:DeprecationWarning"),  # ArviZ 0.23 under newer pandas and xarray
    pytest.mark.filterwarnings("ignore:.*:FutureWarning"),
]

BACKEND = "pyro" if INSTALLED["pyro"] else "numpyro"
OLD = az.__version__.startswith("0")
DRAWS = 12


def hierarchical(backend, name, shape):
    """A callable prior with a hyper-parameter."""
    tau = backend.sample(f"{name}.tau", backend.build(up.dist.HalfNormal(2.0), (1,)))
    return backend.sample(name, backend.dist.Normal(0.0, tau[0]).expand(shape).to_event(len(shape)))


NATURAL = up.Prior(scale=up.dist.InverseGamma(3.0, 1.0), weights=up.dist.Dirichlet(0.5), loc=hierarchical)
NETWORK = up.Network((3, 4))
STEPS = {"num_steps": 4}
KINDS = {
    "svi": (up.Classifier(NETWORK, 2), {"num_restarts": 2} | STEPS),
    "hierarchical": (up.Regressor(NETWORK, 2, NATURAL), {"num_restarts": 2} | STEPS),
    "map": (up.Regressor(NETWORK, 2), {"method": "map"} | STEPS),
    "laplace": (up.Regressor(up.Network((3, 2)), 1), {"method": "laplace"} | STEPS),
    "nuts": (
        up.Classifier(up.Network((3, 2)), 2),
        {"method": "nuts", "num_chains": 2, "num_warmup": 10, "num_draws": DRAWS, "max_tree_depth": 3},
    ),
    "score": (up.JointScore(up.Network((4, 5), readout="ugmm"), 2), STEPS),
    "circuit": (up.Circuit(3, 2, neurons=2), STEPS),
    "density": (up.Circuit(3, neurons=2), {"method": "em"} | STEPS),
    "latent": (up.LatentNetwork((2, 3), classes=2), STEPS),
}


@pytest.fixture(scope="module", params=KINDS)
def fit(request):
    """A small fit of every kind."""
    model, settings = KINDS[request.param]
    x = np.random.default_rng(0).normal(size=(20, 3))
    y = x[:, 0] if model.likelihood.standardizes else None if request.param == "density" else (x[:, 0] > 0).astype(int)
    return up.fit(model, x, y, backend=BACKEND, progress=False, **settings)


@pytest.fixture(scope="module")
def tree(fit):
    """Its tree."""
    return fit.to_arviz(num_draws=DRAWS, num_prior_draws=2, derived=True)


def names(tree):
    """Names of the groups."""
    return list(tree.children) if hasattr(tree, "children") else list(tree.groups())


def same(found, tree, group):
    """Whether two trees have the same values in a group."""
    for name, value in arviz.group(tree, group).data_vars.items():
        np.testing.assert_array_equal(arviz.group(found, group)[name].values, value.values)


def test_every_axis_of_a_group_has_its_own_coordinate_and_there_are_no_others(tree):
    """A coordinate that is no axis is a column of every frame; an axis without one is refused by `to_dataframe`."""
    for name in names(tree):
        group = arviz.group(tree, name)
        assert set(group.coords) - {"chain_weight"} == set(group.sizes) - {"found_in"}, name


def test_frames(fit, tree):
    """One row for each draw of each chain."""
    rows = fit.num_chains * tree["posterior"].sizes["draw"]
    for name in ("posterior", "sample_stats", "log_likelihood", "log_prior"):
        group = arviz.group(tree, name)
        variable = next(iter(group.data_vars))
        assert len(group[variable].to_dataframe()) == group[variable].size
        if OLD:
            assert len(tree.to_dataframe(groups=[name])) == rows
    if OLD:
        assert {"chain", "draw"} <= set(tree.to_dataframe().columns)


@pytest.mark.long
def test_files_and_selections(fit, tree, tmp_path):
    tree.to_netcdf(str(tmp_path / "tree.nc"))
    fit.export(tmp_path / "streamed.nc", num_draws=DRAWS, num_prior_draws=2, derived=True)
    for found in (az.from_netcdf(str(tmp_path / "tree.nc")), arviz.read(tmp_path / "streamed.nc")):
        assert set(names(found)) == set(names(tree))
        for group in ("posterior", "log_prior", "sample_stats"):
            same(found, tree, group)
        if OLD:
            assert len(found.to_dataframe(groups="posterior")) == len(tree.to_dataframe(groups="posterior"))
    one = tree.isel(chain=[0])
    assert one["sample_stats"]["chain_weight"].shape[0] == 1
    az.extract(tree)
    if OLD:
        both = az.concat(tree, fit.to_arviz(num_draws=DRAWS, num_prior_draws=2, derived=True), dim="chain")
        assert len(both.to_dataframe(groups="posterior")) == 2 * len(tree.to_dataframe(groups="posterior"))


def test_log_priors_are_by_site_and_sum_to_that_of_the_fit(fit, tree):
    found = arviz.group(tree, "log_prior")
    assert set(found.data_vars) == set(fit.family.sites)
    assert all(value.dims == ("chain", "draw") for value in found.data_vars.values())
    total = sum(value.values for value in found.data_vars.values())
    draws = {name: arviz.group(tree, "posterior")[name].values for name in fit.family.sites}
    np.testing.assert_allclose(total, fit.log_prior(draws), rtol=1e-5)  # sums in float32
    if fit.inference.density:
        likelihood = arviz.group(tree, "sample_stats")["log_p"].values - total
        assert np.isfinite(likelihood).all()


def test_prior_sensitivity_is_finite(fit, tree):
    if fit.method in ("map", "em"):
        pytest.skip("one draw has no distribution that could change")
    sites = list(fit.family.sites)[:2]
    variable = sites[0]
    if OLD:
        for component in ("prior", "likelihood"):
            found = az.psens(tree, component=component, var_names=sites)
            assert np.isfinite(found[variable].values).any()
        one = az.psens(tree, component="prior", component_var_names=[variable], var_names=sites)
        assert one[variable].shape == fit.family.sites[variable].shape
    else:
        for group in ("prior", "likelihood"):
            found = az.psense(tree, group=group, var_names=sites)
            assert np.isfinite(found[variable].values).any()
        assert {"prior", "likelihood"} <= set(az.psense_summary(tree, var_names=sites).columns)


def test_log_priors_against_scipy():
    """Each in the space of its site: of the scale, not of its logarithm; hyper-parameters among them."""
    x = np.random.default_rng(0).normal(size=(20, 3))
    model = up.Regressor(NETWORK, 2, NATURAL)
    fit = up.fit(model, x, x[:, 0], backend=BACKEND, num_steps=3, dtype="float64", progress=False)
    tree = fit.to_arviz(num_draws=6, num_prior_draws=0, groups=["posterior", "log_prior"])
    assert set(names(tree)) == {"posterior", "log_prior"}
    value = {name: arviz.group(tree, "posterior")[name].values for name in fit.family.sites}
    tau, alpha = value["layers.0.loc.tau"], 0.5
    weights = value["layers.0.weights"]
    dirichlet = (alpha - 1.0) * np.log(weights).sum(-1) + special.gammaln(3 * alpha) - 3 * special.gammaln(alpha)
    want = {
        "layers.0.loc.tau": stats.halfnorm(scale=2.0).logpdf(tau),
        "layers.0.loc": stats.norm(0.0, tau[..., None]).logpdf(value["layers.0.loc"]),
        "layers.0.scale": stats.invgamma(3.0, scale=1.0).logpdf(value["layers.0.scale"]),
        "layers.0.weights": dirichlet,
        "readout.weight": stats.norm(0.0, 0.5).logpdf(value["readout.weight"]),
        "readout.bias": stats.norm(0.0, 1.0).logpdf(value["readout.bias"]),
    }
    assert set(want) == set(value)
    for name, density in want.items():
        found = arviz.group(tree, "log_prior")[name].values
        np.testing.assert_allclose(found, density.reshape(1, 6, -1).sum(-1), rtol=1e-10)


def test_log_priors_need_no_data_and_are_of_all_sites_whatever_is_kept(tmp_path):
    x = np.random.default_rng(0).normal(size=(20, 3))
    fit = up.fit(up.Regressor(NETWORK, 2), x, x[:, 0], backend=BACKEND, num_steps=3, progress=False)
    fit.save(tmp_path / "fit.npz")
    loaded = up.load(tmp_path / "fit.npz")
    for options in ({"var_names": ["readout.bias"]}, {"keep": "summary"}, {"groups": ["log_prior"]}):
        same(loaded.to_arviz(num_draws=5, **options), fit.to_arviz(num_draws=5), "log_prior")
    with refused(ValueError, "groups must be one of", "Did you mean 'log_prior'"):
        fit.to_arviz(groups=["log_priors"])


def test_imputations_have_frames():
    x = np.random.default_rng(0).normal(size=(12, 3))
    fit = up.fit(up.Circuit(3, neurons=2), x, backend=BACKEND, method="em", num_steps=2, progress=False)
    x[0, 0] = np.nan
    found = fit.impute(x, 4).to_arviz()
    assert set(arviz.group(found, "predictions").coords) == {"chain", "draw", "row", "feature"}
    if OLD:
        assert len(found.to_dataframe(groups="predictions")) == 4
