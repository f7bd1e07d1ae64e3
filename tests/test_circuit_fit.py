"""Circuits through `fit`: every method on both backends, missing values, units, EM, files, ArviZ, and bad input."""

import numpy as np
import pytest
from circuit_oracle import CASES, random_density
from conftest import backend_params, compiling_quickly
from scipy import stats
from tolerances import EXACT64, NETWORK32, SAMPLING_P

import ugmm_ppl as up
from ugmm_ppl.backends.load import load_backend
from ugmm_ppl.circuit import em
from ugmm_ppl.circuit.structure import mutual_information
from ugmm_ppl.guides.guide import make_guide
from ugmm_ppl.guides.sites import latent_sites


def table(rows=120, seed=0):
    """Two clusters in two real columns and a code, which is the class but for noise; a tenth is missing."""
    rng = np.random.default_rng(seed)
    y = rng.integers(2, size=rows)
    code = np.where(rng.uniform(size=rows) < 0.9, y, 2)
    x = np.column_stack([100.0 + 20.0 * y + 5.0 * rng.normal(size=rows), rng.normal(size=rows) - y, code])
    x[rng.uniform(size=x.shape) < 0.1] = np.nan
    return x, y


MODEL = up.Circuit(3, classes=2, structure=up.random_trees(3, 1), neurons=3, leaves={2: up.Categorical(3)})
SETTINGS = {"seed": 1, "progress": False}
METHODS = {
    "map": {"num_steps": 60, "learning_rate": 0.1},
    "em": {"num_steps": 20, "learning_rate": 1.0, "schedule": "constant"},
    "svi": {"num_steps": 60, "learning_rate": 0.1, "batch_size": 60},
}


@pytest.fixture(scope="module", params=backend_params())
def fits(request):
    x, y = table()
    with compiling_quickly():
        return {
            method: up.fit(MODEL, x, y, backend=request.param, method=method, **settings, **SETTINGS)
            for method, settings in METHODS.items()
        }


@pytest.mark.parametrize("method", METHODS)
def test_a_fit_predicts_with_missing_values(fits, method):
    fit = fits[method]
    x, y = table(400, seed=1)
    assert np.isfinite(fit.losses).all()
    assert fit.losses[0, -1] < fit.losses[0, 0]
    assert (fit.posterior_class(x).argmax(1) == y).mean() > 0.9
    if method != "svi":  # of one draw; of several, `predict` does not weigh them by how well they explain x
        np.testing.assert_allclose(fit.predict(x).probs, fit.posterior_class(x), rtol=NETWORK32, atol=NETWORK32)
    nothing = np.full((1, 3), np.nan)
    np.testing.assert_allclose(fit.log_density(nothing), 0.0, atol=EXACT64)
    np.testing.assert_allclose(fit.posterior_class(nothing).sum(), 1.0, rtol=EXACT64)


@pytest.mark.parametrize("method", ["map", "em"])
def test_log_density_is_in_the_units_of_the_data(fits, method):
    """The density of NumPy, from `log_likelihood` of the backend; and a change of units moves it by its logarithm."""
    fit = fits[method]
    x, y = table()
    np.testing.assert_allclose(fit.log_likelihood(x, y)[0, 0], fit.log_density(x, y), rtol=NETWORK32, atol=NETWORK32)
    np.testing.assert_allclose(fit.log_likelihood(x)[0, 0], fit.log_density(x), rtol=NETWORK32, atol=NETWORK32)
    grid = np.linspace(0.0, 250.0, 20_001)
    rows = np.full((len(grid), 3), np.nan)
    rows[:, 0] = grid
    assert abs(np.exp(fit.log_density(rows)).sum() * (grid[1] - grid[0]) - 1.0) < 1e-6


def test_imputation_keeps_what_is_seen_and_draws_the_rest(fits):
    fit = fits["em"]
    x, _ = table()
    imputed = fit.impute(x, 7, seed=3)
    seen = ~np.isnan(x)
    assert imputed.values.shape == (7, *x.shape) and not np.isnan(imputed.values).any()
    np.testing.assert_array_equal(imputed.values[:, seen], np.broadcast_to(x[seen], (7, seen.sum())))
    assert set(np.unique(imputed.values[:, :, 2])) <= {0.0, 1.0, 2.0}
    assert (imputed.values.std(0)[~seen[:, 0], 0] > 0.0).all()
    many = fit.impute(np.array([[np.nan, -1.5, 1.0]]), 3000, seed=0).values[:, 0, 0]
    assert stats.kstest(fit.cdf(0, many, np.tile([np.nan, -1.5, 1.0], (3000, 1))), "uniform").pvalue > SAMPLING_P
    pytest.importorskip("arviz")
    tree = imputed.to_arviz()
    assert tree["predictions"]["x"].sizes == {"chain": 1, "draw": 7, "row": 120, "feature": 3}


def test_a_fit_is_stored_and_exported(fits, tmp_path):
    fit = fits["svi"]
    x, _ = table()
    fit.save(tmp_path / "fit.npz")
    again = up.load(tmp_path / "fit.npz")
    assert type(again) is type(fit)
    np.testing.assert_array_equal(again.log_density(x[:5]), fit.log_density(x[:5]))
    pytest.importorskip("arviz")
    tree = fit.to_arviz(num_draws=3, num_prior_draws=2)
    assert tree["posterior"]["leaves.loc"].dims == ("chain", "draw", "leaf", "state", "mixture_component")
    assert tree["posterior_predictive"]["x"].sizes == {"chain": 1, "draw": 3, "row": 120, "feature": 3}
    assert tree["log_likelihood"]["x"].shape == (1, 3, 120)
    assert tree["prior_predictive"]["x"].shape == (1, 2, 120, 3)


@pytest.mark.usefixtures("quick_compiler")
def test_nuts_on_one_gaussian_is_the_conjugate_posterior(backend_name):
    """One feature, one state, one component of nearly known scale: the location has a normal posterior."""
    x = np.random.default_rng(0).normal(2.0, 1.0, (30, 1))
    prior = up.CircuitPrior(loc=up.dist.Normal(0.0, 1.0), log_scale=up.dist.Normal(0.0, 0.02))
    model = up.Circuit(1, structure=up.random_trees(1, 1), neurons=1, components=1, prior=prior)
    fit = up.fit(
        model, x, backend=backend_name, method="nuts", num_chains=1, num_warmup=60, num_draws=100,
        standardize=False, **SETTINGS,
    )  # fmt: skip
    loc = fit.posterior()["leaves.loc"].ravel()
    mean, spread = x.sum() / 31.0, 31.0**-0.5
    assert abs(loc.mean() - mean) < 5.0 * spread / np.sqrt(len(loc) / 4)  # an effective size of a quarter
    assert 0.6 < loc.std() / spread < 1.6


@pytest.mark.parametrize("case", ["mixed", "chain"])
def test_a_step_of_em_is_the_update_by_expected_counts_and_never_worse(case, backend64, rng):
    """Counts of every component by the oracle's list of explanations, against those from gradients."""
    from circuit_oracle import Oracle, random_rows

    density = random_density(CASES[case](), seed=2)
    model, oracle = density.model, Oracle(density)
    x = random_rows(model, 25, rng, missing=0.2)
    y = rng.integers(-1, 2, size=len(x))
    values = {name: value[0] for name, value in density.values.items()}
    sites, start = latent_sites(backend64, model, values, 0)
    guide = make_guide("delta", backend64, sites, init_scale=0.1, rank=1)
    trainer = em.EMTrainer(backend64, model, guide, (x, y))
    state = trainer.start([guide.initial(start)])
    rows = np.arange(len(x))[None, None]
    new, steps = trainer.advance(state, 0, rows, np.ones((1, 1)), np.ones(1))
    counts = np.zeros((model.num_outputs, model.forest.num_trees))
    per_term = []
    leaf_counts = {}
    for b, row in enumerate(x):
        terms = []
        for weight, label, tree, held in oracle.terms:
            inside = y[b] in (-1, label)
            value = weight * np.prod([oracle.leaf(*at, row[f]) for f, at in held.items()]) if inside else 0.0
            terms.append((value, label, tree, held))
        total = sum(t[0] for t in terms)
        per_term.append(np.log(total))
        for value, label, tree, held in terms:
            counts[label, tree] += value / total
            for f, at in held.items():
                if not np.isnan(row[f]):
                    leaf_counts[at] = leaf_counts.get(at, 0.0) + value / total
    np.testing.assert_allclose(steps.log_likelihoods[0, 0], sum(per_term), rtol=EXACT64)
    want = counts.sum(1) + em.WEIGHT_COUNT
    np.testing.assert_allclose(np.exp(new[0]["log_classes"]), want / want.sum(), rtol=1e-9)
    _, gradients = trainer._gradients(state[0], np.arange(len(x)))
    found = gradients["log_weights"].sum(-1)
    for (leaf, s), n in leaf_counts.items():
        if leaf in model.all_leaves.neurons:
            at = list(model.all_leaves.neurons).index(leaf)
            np.testing.assert_allclose(found[at, s], n, rtol=1e-9, atol=1e-12)
    _, many = trainer.advance(state, 0, np.repeat(rows, 15, 0), np.ones((15, 1)), np.ones(15))
    assert (np.diff(many.losses[0]) <= 1e-9 * np.abs(many.losses[0, 1:])).all()


def test_prior_and_start_are_equal_for_both_backends():
    x, _ = table()
    starts = []
    for name in ("pyro", "numpyro"):
        try:
            backend = load_backend(name)
        except up.MissingExtraError:
            pytest.skip("needs both backends")
        with backend.settings(dtype="float64", device="cpu"):
            starts.append(latent_sites(backend, MODEL, MODEL.initial_values(x, 3), 3)[1])
    for name, value in starts[0].items():
        np.testing.assert_array_equal(value, starts[1][name])


@pytest.mark.usefixtures("quick_compiler")
def test_dirichlet_priors_and_natural_scales(backend_name):
    prior = up.CircuitPrior(
        scale=up.dist.InverseGamma(3.0, 1.0), components=up.dist.Dirichlet(2.0), sums=up.dist.Dirichlet(0.9),
        roots=up.dist.Dirichlet(1.0), classes=up.dist.Dirichlet(1.0), bins=up.dist.Dirichlet(1.5),
    )  # fmt: skip
    model = up.Circuit(3, 2, up.random_trees(3, 1), neurons=3, leaves={2: up.Categorical(3)}, prior=prior)
    x, y = table()
    for method, settings in METHODS.items():
        if method != "svi":
            fit = up.fit(model, x, y, backend=backend_name, method=method, **settings, **SETTINGS)
            draws = fit.posterior()
            assert {"sums.weights", "leaves.scale", "roots.weights", "bins.weights"} <= set(draws)
            np.testing.assert_allclose(draws["sums.weights"].sum(-1), 1.0, rtol=1e-5)
            assert (fit.posterior_class(x).argmax(1) == y).mean() > 0.9


def test_chow_liu_finds_the_chain(rng):
    x = np.cumsum(rng.normal(size=(3000, 6)), axis=1)
    x[rng.uniform(size=x.shape) < 0.05] = np.nan
    structure = up.chow_liu_tree(x)
    features = np.array(structure.feature)
    pairs = {frozenset((features[n], features[p])) for n, p in enumerate(structure.parent) if p >= 0}
    assert pairs == {frozenset((i, i + 1)) for i in range(5)}
    code = rng.integers(3, size=500)
    both = mutual_information(np.column_stack([code, code]).astype(float), 8)
    np.testing.assert_allclose(both[0, 1], stats.entropy(np.bincount(code)), rtol=EXACT64)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.__setitem__((3, 2), 5.0), r"column 2 of x holds codes 0..2, or NaN; got 5.0 in row 3"),
        (lambda x: x.__setitem__((slice(None), 1), np.nan), r"column 1 is all NaN"),
        (lambda x: x.__setitem__((4, 0), np.inf), r"got inf in row 4, column 0"),
    ],
)
def test_bad_rows_are_refused(change, message):
    x, y = table()
    change(x)
    with pytest.raises(ValueError, match=message):
        up.fit(MODEL, x, y, **SETTINGS)


def test_other_bad_input_is_refused():
    x, y = table()
    with pytest.raises(ValueError, match="this Circuit has no classes, so y must be None"):
        up.fit(up.Circuit(3), x, y, **SETTINGS)
    with pytest.raises(ValueError, match="method='laplace' needs a model of y given x"):
        up.fit(MODEL, x, y, method="laplace", **SETTINGS)
    with pytest.raises(ValueError, match="method='em' needs a Circuit"):
        up.fit(up.Classifier(up.Network((3, 4)), 2), np.zeros((4, 3)), [0, 1, 0, 1], method="em", **SETTINGS)
    with pytest.raises(ValueError, match="structure must have the 3 features"):
        up.Circuit(3, structure=up.random_trees(4, 1))
    with pytest.raises(ValueError, match="must hold each of the features"):
        up.Structure.of([1, -1], [0, 0])
    with pytest.raises(ValueError, match="increasing edges"):
        up.Binned((0.0, 0.0))
    with pytest.raises(TypeError, match="must be one of Categorical, Binned"):
        up.Circuit(3, leaves={0: 3})
    with pytest.raises(ValueError, match="needs one of log_scale and scale"):
        up.CircuitPrior(scale=up.dist.Gamma(1.0, 1.0), log_scale=up.dist.Normal(0.0, 1.0))
    binned = up.Circuit(3, leaves={0: up.Binned((0.0, 110.0))})
    with pytest.raises(ValueError, match=r"must lie in the support \[0.0, 110.0\]"):
        up.fit(binned, x, **SETTINGS)


def test_impossible_rows_are_named():
    density = random_density(CASES["mixed"](), seed=0)
    x = np.array([[0.0, 0.1, 0.3], [0.0, 0.1, 7.0], [np.nan, np.nan, np.nan]])
    with pytest.warns(UserWarning, match="1 rows are impossible .* the first is row 1"):
        found = density.log_density(x)
    assert np.isneginf(found[1]) and np.isfinite(found[0]) and abs(found[2]) < EXACT64
    with pytest.raises(ValueError, match="row 1 has log density -inf"):
        density.posterior_class(x)
    with pytest.raises(ValueError, match="row 1 has log density -inf"):
        density.conditional_sample(x, 2)


def test_conditionals_refuse_what_they_cannot_say():
    density = random_density(CASES["mixed"](), seed=0)
    conditional = density.conditional([[np.nan, 0.1, 0.3]])
    with pytest.raises(ValueError, match="it is seen in row 0"):
        conditional.mixture(1)
    with pytest.raises(ValueError, match="has bins, and no mixture"):
        conditional.mixture("x0")
    with pytest.raises(ValueError, match="has no closed form"):
        density.entropy(1, [[0.0, np.nan, np.nan]])
    with pytest.raises(ValueError, match="must keep the values that are seen"):
        conditional.log_density([[0.0, 0.2, 0.3]])


@pytest.mark.parametrize("backend_name", backend_params())
def test_one_circuit_serves_both_precisions(backend_name):
    x, y = table(40)
    structure = up.Structure.of([3, 3, 3, -1], [0, 1, 2, -1]) + up.random_trees(3, 1)  # one level with padding
    model = up.Circuit(3, classes=2, structure=structure, leaves={2: up.Categorical(3)})
    with compiling_quickly():
        for dtype in ("float64", "float32", "float64", "float32"):
            fit = up.fit(model, x, y, backend=backend_name, method="svi", dtype=dtype, num_steps=3, **SETTINGS)
            assert np.isfinite(fit.log_density(x)).all()
            assert np.isfinite(fit.predict(x).probs).all()
            fit.sample(3, seed=1)
