"""The ArviZ tree, under whichever ArviZ is installed."""

import arviz as az
import numpy as np
import pytest
from conftest import backend_params
from helpers import refused
from scipy import stats

import ugmm_ppl as up
from ugmm_ppl import arviz, budgets
from ugmm_ppl.arviz import groups as groups_module

pytestmark = pytest.mark.usefixtures("quick_compiler")

NAMES = ["height", "width", "depth"]


@pytest.fixture(scope="module", params=backend_params())
def fits(request):
    """Small fits of one classifier: by SVI, by NUTS, and by SVI of a wider one."""
    rng = np.random.default_rng(0)
    x = rng.normal(size=(40, 3))
    y = (x[:, 0] + 0.3 * rng.normal(size=40) > 0).astype(int)
    settings = {"backend": request.param, "progress": False, "feature_names": NAMES, "class_names": ["no", "yes"]}
    model = up.Classifier(up.Network((3, 4)), 2)
    return {
        "svi": up.fit(model, x, y, num_steps=200, num_restarts=2, learning_rate=0.03, **settings),
        "wide": up.fit(up.Classifier(up.Network((3, 6)), 2), x, y, num_steps=200, learning_rate=0.03, **settings),
        "nuts": up.fit(
            up.Classifier(up.Network((3, 2)), 2),
            x,
            y,
            method="nuts",
            num_chains=2,
            num_warmup=20,
            num_draws=20,
            max_tree_depth=4,
            **settings,
        ),
    }


def groups(tree):
    """Names of the groups, whichever type the tree has."""
    return set(tree.children) if hasattr(tree, "children") else set(tree.groups())


def test_tree_has_all_groups_dims_and_coordinates(fits):
    tree = fits["svi"].to_arviz(num_draws=30, derived=True)
    assert groups(tree) == {
        "posterior",
        "functional",
        "training",
        "posterior_predictive",
        "log_likelihood",
        "log_prior",
        "sample_stats",
        "prior",
        "prior_predictive",
        "observed_data",
        "constant_data",
    }
    posterior = tree["posterior"]
    assert posterior["layers.0.loc"].dims == ("chain", "draw", "neuron_0", "input_0")
    assert posterior["layers.0.weights"].dims == ("chain", "draw", "neuron_0", "input_0")
    assert posterior["readout.weight"].dims == ("chain", "draw", "class", "neuron_0")
    assert list(posterior["input_0"].values) == NAMES
    assert list(posterior["class"].values) == ["no", "yes"]
    assert posterior["layers.0.loc"].shape == (2, 30, 4, 3)
    assert tree["log_likelihood"]["y"].dims == ("chain", "draw", "row")
    assert tree["posterior_predictive"]["y"].shape == (2, 30, 40)
    assert tree["prior"]["layers.0.loc"].shape == (1, 100, 4, 3)
    assert tree["observed_data"]["y"].dims == ("row",)
    assert tree["constant_data"]["x"].dims == ("row", "input_0")


def test_attributes_say_which_inference_made_it(fits):
    for method in ("svi", "nuts"):
        tree = fits[method].to_arviz(num_draws=20)
        for attrs in (tree.attrs, tree["posterior"].attrs):
            assert attrs["inference"] == method
            assert attrs["backend"] == fits[method].backend
        assert ("not applied" in tree.attrs.get("note", "")) == (method == "svi")


def test_log_p_and_log_q_are_those_of_the_draws(fits):
    """log p by SciPy and the pointwise log likelihood, log q by SciPy."""
    tree = fits["svi"].to_arviz(num_draws=5)
    scales = {"loc": (0, 1), "log_scale": (-0.5, 0.5), "logits": (0, 1), "weight": (0, 0.5), "bias": (0, 1)}
    draws = {name: tree["posterior"][name].values for name in tree["posterior"].data_vars}
    prior = sum(
        stats.norm.logpdf(value, *scales[name.rsplit(".", 1)[1]]).reshape(2, 5, -1).sum(-1)
        for name, value in draws.items()
    )
    log_p = prior + tree["log_likelihood"]["y"].values.sum(-1)
    np.testing.assert_allclose(tree["sample_stats"]["log_p"].values, log_p, rtol=1e-5)  # float32 sums
    for c, state in enumerate(fits["svi"].state):
        log_q = sum(
            stats.norm.logpdf(v[c], state[f"{n}:loc"], np.exp(state[f"{n}:log_scale"])).reshape(5, -1).sum(-1)
            for n, v in draws.items()
        )
        np.testing.assert_allclose(tree["sample_stats"]["log_q"].values[c], log_q, rtol=1e-4)


def test_nuts_has_divergences(fits):
    tree = fits["nuts"].to_arviz()
    assert tree["sample_stats"]["diverging"].dims == ("chain", "draw")
    assert tree["sample_stats"]["diverging"].dtype == bool


def test_nuts_has_energies_and_trees(fits):
    """Energy is minus the log joint and the momentum's part, on average half a nat for every parameter."""
    tree = fits["nuts"].to_arviz()
    stats_ = tree["sample_stats"]
    energy, depth, steps = (stats_[name].values for name in ("energy", "tree_depth", "n_steps"))
    assert energy.shape == depth.shape == steps.shape == (2, 20)
    assert ((2 ** (depth - 1) <= steps) & (steps < 2**depth)).all()
    assert depth.max() <= 4
    potential = -fits["nuts"].log_p()  # all sites are on the real line
    assert (energy[:, 1:] > np.minimum(potential[:, 1:], potential[:, :-1])).all()
    kinetic = (energy - potential).mean()
    assert abs(kinetic - fits["nuts"].num_parameters / 2) < 5.0  # chi-square of 24 degrees over 40 draws: error 0.6
    assert np.isfinite(arviz.bfmi(energy)).all()


def test_functions_at_probe_inputs(fits):
    """The group functional holds what the functions of the fit say; the rows are evenly spaced over the data."""
    fit = fits["svi"]
    tree = fit.to_arviz(num_draws=7, groups=["functional"], probe=fit.train_x[:3])
    assert groups(tree) == {"functional", "constant_data"}
    assert tree["functional"]["value"].dims == ("chain", "draw", "probe", "class")
    functions = fit.sample_functions(7)
    np.testing.assert_allclose(tree["functional"]["value"].values, functions(fit.train_x[:3]))
    np.testing.assert_array_equal(tree["functional"]["outputs"].values, functions.outputs(fit.train_x[:3]))
    np.testing.assert_array_equal(tree["constant_data"]["probe_x"].values, fit.train_x[:3])
    assert list(fit.to_arviz(num_draws=2, groups=["functional"])["functional"]["probe"].values) == list(range(40))


def test_training_trace(fits):
    fit = fits["svi"]
    training = fit.to_arviz(num_draws=2, groups=["training"])["training"]
    assert training["loss"].dims == ("chain", "step")
    np.testing.assert_array_equal(training["loss"].values, fit.losses)
    np.testing.assert_allclose(training["kl"] - training["log_likelihood"], fit.losses, rtol=1e-4)
    assert "training" not in groups(fits["nuts"].to_arviz(num_draws=2))


def test_thinning(fits):
    """Every third draw of NUTS; a guide makes a third of the draws."""
    whole, thin = fits["nuts"].to_arviz(), fits["nuts"].to_arviz(thin=3)
    for group, name in (("posterior", "readout.bias"), ("sample_stats", "energy")):
        np.testing.assert_array_equal(thin[group][name].values, whole[group][name].values[:, ::3])
    np.testing.assert_allclose(thin["log_likelihood"]["y"].values, whole["log_likelihood"]["y"].values[:, ::3])
    assert fits["svi"].to_arviz(num_draws=30, thin=3, groups=["posterior"])["posterior"].sizes["draw"] == 10


def test_summaries_are_those_of_the_draws(fits, monkeypatch):
    """Small sites keep their draws, the others mean, standard deviation and quantiles, made a part at a time."""
    draws = fits["svi"].posterior(20, derived=True)
    monkeypatch.setattr(budgets, "HELD", 100)  # several blocks of draws and parts of entries
    monkeypatch.setattr(budgets, "SUMMARISED", 150)
    monkeypatch.setattr(budgets, "TREE", 2 * 20 * 12)
    tree = fits["svi"].to_arviz(num_draws=20, derived=True)
    assert set(tree["posterior"].data_vars) == {"readout.weight", "readout.bias"}
    summary = tree["posterior_summary"]
    assert summary["layers.0.scale"].dims == ("chain", "statistic", "neuron_0", "input_0")
    assert list(summary["input_0"].values) == NAMES
    for name in ("layers.0.loc", "layers.0.weights"):
        want = draws[name]
        found = {s: summary[name].sel(statistic=s).values for s in ("mean", "sd", "q05", "q95")}
        np.testing.assert_allclose(found["mean"], want.mean(1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["sd"], want.std(1), rtol=1e-4)
        np.testing.assert_allclose(found["q05"], np.quantile(want, 0.05, axis=1), rtol=1e-5, atol=1e-6)
        np.testing.assert_allclose(found["q95"], np.quantile(want, 0.95, axis=1), rtol=1e-5, atol=1e-6)
    only = fits["svi"].to_arviz(num_draws=20, keep="summary", num_prior_draws=0)
    assert "posterior" not in groups(only)


@pytest.mark.parametrize("ending", ["nc", "zarr"])
def test_streamed_files_hold_the_same_tree(fits, ending, tmp_path, monkeypatch):
    """Written in blocks of a few draws, and read back under either ArviZ, it is `to_arviz`."""
    if ending == "zarr":
        pytest.importorskip("zarr", reason="zarr is not installed here")
    monkeypatch.setattr(budgets, "HELD", 200)
    fit, path = fits["svi"], tmp_path / f"posterior.{ending}"
    fit.export(path, num_draws=20, derived=True, num_prior_draws=3)
    want, found = fit.to_arviz(num_draws=20, derived=True, num_prior_draws=3), arviz.read(path)
    assert groups(found) == groups(want)
    assert type(found) is type(want)
    for group in groups(want):
        for name in want[group].data_vars:
            np.testing.assert_array_equal(found[group][name].values, want[group][name].values)
            assert found[group][name].dims == want[group][name].dims
    assert list(found["posterior"]["input_0"].values) == NAMES
    assert found["posterior"].attrs["inference"] == found.attrs["inference"] == "svi"
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    if ending == "nc":
        np.testing.assert_array_equal(
            az.from_netcdf(str(path))["posterior"]["layers.0.loc"].values, want["posterior"]["layers.0.loc"].values
        )
    else:
        with pytest.raises(ValueError, match="must be a new Zarr folder"):
            fit.export(path)


def test_a_large_posterior_is_streamed_in_bounded_memory(fits, tmp_path, monkeypatch):
    """No block holds more entries than `budgets.HELD`, or one draw."""
    sizes = []
    blocks = groups_module.Collector.blocks

    def watched(self):
        for chain, block, draws, log_q in blocks(self):
            sizes.append(sum(value.size for value in draws.values()))
            yield chain, block, draws, log_q

    monkeypatch.setattr(budgets, "HELD", 200)
    monkeypatch.setattr(groups_module.Collector, "blocks", watched)
    fits["svi"].export(tmp_path / "posterior.nc", num_draws=20, groups=["posterior"])
    assert len(sizes) > 4
    assert max(sizes) <= 200


def test_bad_files_and_requests_say_what_to_do(fits, tmp_path, monkeypatch):
    fit = fits["svi"]
    fit.save(tmp_path / "fit.npz")
    loaded = up.load(tmp_path / "fit.npz")
    with refused(ValueError, "x and y are needed", "Give both"):
        loaded.to_arviz(groups=["log_likelihood"])
    with refused(ValueError, "functional needs probe inputs", "Give probe="):
        loaded.to_arviz(groups=["functional"])
    with refused(ValueError, "groups must be one of", "Did you mean 'log_likelihood'"):
        fit.to_arviz(groups=["loglikelihood"])
    with refused(ValueError, "must end in .nc (netCDF) or .zarr"):
        fit.export(tmp_path / "posterior.txt")
    with refused(FileNotFoundError, "does not exist", "Check the path"):
        arviz.read(tmp_path / "none.nc")
    loaded.export(tmp_path / "small.nc", num_draws=3)
    with refused(
        ValueError, "must have the groups log_likelihood", "it lacks log_likelihood and has", "Write it again"
    ):
        arviz.read(tmp_path / "small.nc", needs=["log_likelihood"])
    broken = tmp_path / "broken.nc"
    broken.write_bytes((tmp_path / "small.nc").read_bytes()[:3000])
    with refused(ValueError, "cannot be read as one", "write it again"):
        arviz.read(broken)
    monkeypatch.setattr(az, "__version__", "0.12.1")
    with refused(ImportError, "ArviZ 0.21 or newer is needed; got 0.12.1", "pip install --upgrade"):
        fit.to_arviz()


@pytest.mark.filterwarnings("ignore:.*:UserWarning")  # ArviZ's own advice about k-hat and short chains
@pytest.mark.filterwarnings("ignore:.*:RuntimeWarning")
@pytest.mark.filterwarnings("ignore:The inplace keyword in DataFrame.sort_values:DeprecationWarning")
@pytest.mark.filterwarnings("ignore:Passing a dict or None as alias_mapping:DeprecationWarning")  # ArviZ 0.23's plots
def test_summary_plot_trace_loo_and_compare_run(fits):
    import matplotlib.pyplot as plt

    trees = {name: fits[name].to_arviz(num_draws=50) for name in ("svi", "wide")}
    summary = az.summary(trees["svi"], var_names=["readout.bias"])
    assert len(summary) == 2
    az.plot_trace(trees["svi"], var_names=["readout.bias"])
    plt.close("all")
    loo = az.loo(trees["svi"])
    elpd = loo.elpd_loo if hasattr(loo, "elpd_loo") else loo.elpd
    assert np.isfinite(elpd)
    assert elpd < 0.0
    table = az.compare(trees)
    assert set(table.index) == {"svi", "wide"}


@pytest.mark.parametrize("method", ["svi", "nuts"])
def test_tree_opens_again_from_netcdf(fits, method, tmp_path):
    tree = fits[method].to_arviz(num_draws=10)
    tree.to_netcdf(str(tmp_path / "posterior.nc"))
    again = az.from_netcdf(str(tmp_path / "posterior.nc"))
    np.testing.assert_array_equal(again["posterior"]["layers.0.loc"].values, tree["posterior"]["layers.0.loc"].values)
    assert again["posterior"].attrs["inference"] == method
    assert list(again["posterior"]["input_0"].values) == NAMES


def test_selection_and_a_fit_without_data(fits, tmp_path):
    tree = fits["svi"].to_arviz(num_draws=10, var_names=["readout.bias"], num_prior_draws=0)
    assert set(tree["posterior"].data_vars) == {"readout.bias"}
    assert "prior" not in groups(tree)
    with pytest.raises(ValueError, match=r"var_names must be one of .* Did you mean 'readout\.bias'"):
        fits["svi"].to_arviz(num_draws=10, var_names=["readout.bia"])
    fits["svi"].save(tmp_path / "fit.npz")
    loaded = up.load(tmp_path / "fit.npz")
    assert groups(loaded.to_arviz(num_draws=10)) == {"posterior", "log_prior", "sample_stats", "training"}
    with pytest.raises(ValueError, match="x and y are needed"):
        loaded.to_arviz(x=fits["svi"].train_x, num_draws=10)
    full = loaded.to_arviz(fits["svi"].train_x, fits["svi"].train_y, num_draws=10)
    np.testing.assert_allclose(
        full["log_likelihood"]["y"].values, fits["svi"].to_arviz(num_draws=10)["log_likelihood"]["y"].values
    )


def test_a_paper_network_and_a_regressor_have_named_outputs(backend_name):
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(20, 3)), rng.integers(0, 2, 20)
    settings = {"backend": backend_name, "num_steps": 10, "progress": False}
    tree = up.fit(up.Classifier(up.Network.paper((3, 4)), 2), x, y, **settings).to_arviz(num_draws=3)
    assert tree["posterior"]["layers.1.loc"].dims == ("chain", "draw", "class", "input_1")
    tree = up.fit(up.Regressor(up.Network((3, 4)), 2), x, x[:, 0], **settings).to_arviz(num_draws=3)
    names = ["logit_0", "logit_1", "loc_0", "loc_1", "log_scale_0", "log_scale_1"]
    assert list(tree["posterior"]["output"].values) == names
