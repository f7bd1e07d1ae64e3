"""The ArviZ tree, under whichever ArviZ is installed."""

import arviz as az
import numpy as np
import pytest
from conftest import backend_params
from scipy import stats

import ugmm_ppl as up

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
        "posterior_predictive",
        "log_likelihood",
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
    assert groups(loaded.to_arviz(num_draws=10)) == {"posterior"}
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
