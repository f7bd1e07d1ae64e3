"""Circuits: normalised, and every query equal to sums over all states, to quadrature, or to samples."""

import numpy as np
import pytest
from circuit_oracle import CASES, Oracle, random_density, random_rows
from helpers import gradients
from scipy import integrate, stats
from tolerances import EXACT64, PARITY, QUADRATURE, SAMPLING_P

import ugmm_ppl as up
from ugmm_ppl.data.standardizer import Standardizer
from ugmm_ppl.ops.numpy import NUMPY


@pytest.fixture(params=CASES)
def density(request):
    return random_density(CASES[request.param](), seed=3)


def test_density_and_class_are_the_sum_over_all_states(density, rng):
    x = random_rows(density.model, 12, rng)
    oracle = Oracle(density)
    joint = oracle.joint(x)
    np.testing.assert_allclose(density.log_density(x), np.log(joint.sum(1)), rtol=EXACT64, atol=EXACT64)
    np.testing.assert_allclose(density.posterior_class(x), joint / joint.sum(1, keepdims=True), rtol=EXACT64)
    if density.model.classes:
        y = rng.integers(density.model.classes, size=len(x))
        y[0] = -1
        want = np.where(y < 0, joint.sum(1), joint[np.arange(len(x)), y])
        np.testing.assert_allclose(density.log_density(x, y), np.log(want), rtol=EXACT64, atol=EXACT64)


@pytest.mark.parametrize("features", [2, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_random_structures_integrate_to_one(features, seed):
    """Gauss-Hermite-like grids do not fit mixtures; the trapezium rule on [-12, 12] converges exponentially."""
    rng = np.random.default_rng(seed)
    parent = [-1] + [int(rng.integers(n)) for n in range(1, features)]
    structure = up.random_trees(features, 2, seed=seed) + up.Structure.of(parent, rng.permutation(features).tolist())
    density = random_density(up.Circuit(features, structure=structure, neurons=3), seed=seed)
    scale = np.exp(density.values["leaves.log_scale"]).min()
    axis = np.arange(-12.0, 12.0, 0.7 * scale)  # error exp(-2 (pi / 0.7)^2) < 1e-17
    grid = np.stack(np.meshgrid(*[axis] * features, indexing="ij"), -1).reshape(-1, features)
    step = (axis[1] - axis[0]) ** features
    total = sum(np.exp(density.log_density(part)).sum() for part in np.array_split(grid, max(1, len(grid) // 200_000)))
    assert abs(total * step - 1.0) < QUADRATURE


def test_probabilities_of_codes_sum_to_one():
    model = up.Circuit(3, leaves={0: up.Categorical(3), 1: up.Bernoulli(), 2: up.Binned((0.0, 1.0, 3.0))}, neurons=2)
    density = random_density(model, seed=0)
    x = np.array([[a, b, c] for a in range(3) for b in range(2) for c in (0.5, 2.0)])
    width = np.where(x[:, 2] < 1.0, 1.0, 2.0)
    assert abs((np.exp(density.log_density(x)) * width).sum() - 1.0) < EXACT64


def test_marginals_conditionals_and_units(rng):
    """Against integrals of the oracle's density, in units that are not those of the model."""
    units = Standardizer(np.array([3.0, -2.0, 10.0]), np.array([2.0, 0.5, 4.0]))
    density = random_density(CASES["chain"](), seed=5, units=units)
    oracle = Oracle(density)
    seen = np.array([[4.0, np.nan, np.nan]])

    def joint(a, b):
        rows = np.stack(np.broadcast_arrays(4.0, a, b), -1).reshape(-1, 3)
        return oracle.density((rows - units.mean) / units.scale).reshape(np.broadcast(a, b).shape) / units.scale.prod()

    wide = [(m - 8 * s, m + 8 * s) for m, s in zip(units.mean, units.scale, strict=True)]
    axes = [np.linspace(*wide[k], 161) for k in (1, 2)]
    table = joint(axes[0][:, None], axes[1])
    cell = (axes[0][1] - axes[0][0]) * (axes[1][1] - axes[1][0])
    evidence = table.sum() * cell
    conditional = density.conditional(seen)
    np.testing.assert_allclose(np.exp(density.log_density(seen)), evidence, rtol=QUADRATURE)
    np.testing.assert_allclose(
        conditional.mean[0], [4.0, *((table.sum(1 - k) * axes[k]).sum() * cell / evidence for k in (0, 1))], rtol=1e-7
    )
    for k in (0, 1):
        mean = conditional.mean[0, k + 1]
        spread = np.sqrt((table.sum(1 - k) * (axes[k] - mean) ** 2).sum() * cell / evidence)
        np.testing.assert_allclose(conditional.std[0, k + 1], spread, rtol=1e-7)
    np.testing.assert_allclose(
        conditional.log_density([[np.nan, -2.1, 9.0]])[0], np.log(joint(-2.1, 9.0) / evidence), rtol=QUADRATURE
    )
    with_b = np.array([[4.0, np.nan, 9.0]])
    below = integrate.quad(lambda a: joint(a, 9.0), wide[1][0], -1.9, epsabs=1e-10)[0]
    whole = integrate.quad(lambda a: joint(a, 9.0), *wide[1], epsabs=1e-10)[0]
    np.testing.assert_allclose(density.cdf(1, -1.9, with_b), [below / whole], rtol=1e-6)
    quantile = density.conditional(with_b).quantile("x1", 0.3)
    np.testing.assert_allclose(density.cdf("x1", quantile, with_b), [0.3], rtol=QUADRATURE)


def test_conditionals_of_codes_and_bins(rng):
    density = random_density(CASES["mixed"](), seed=4)
    oracle = Oracle(density)
    x = np.array([[np.nan, 0.3, 0.7], [np.nan, np.nan, -0.5]])
    probs = np.array([oracle.density([np.r_[c, row[1:]] for c in range(3)]) for row in x])
    probs /= probs.sum(1, keepdims=True)
    conditional = density.conditional(x)
    np.testing.assert_allclose(conditional.probs(0), probs, rtol=EXACT64)
    np.testing.assert_allclose(density.entropy(0, x), stats.entropy(probs, axis=1), rtol=EXACT64)
    np.testing.assert_allclose(density.cdf(0, 1.0, x), probs[:, :2].sum(1), rtol=EXACT64)
    np.testing.assert_allclose(conditional.mean[:, 0], probs @ np.arange(3), rtol=EXACT64)
    x = np.array([[1.0, 0.3, np.nan]])
    heights = oracle.density([[1.0, 0.3, at] for at in (-0.5, 0.2, 1.0)])
    width = np.array([1.0, 0.5, 1.5])
    probs = heights * width / (heights * width).sum()
    np.testing.assert_allclose(density.conditional(x).probs("x2"), [probs], rtol=EXACT64)
    np.testing.assert_allclose(density.cdf(2, 0.25, x), [probs[0] + probs[1] / 2], rtol=EXACT64)
    np.testing.assert_allclose(density.entropy(2, x), [-(probs * np.log(probs / width)).sum()], rtol=EXACT64)
    np.testing.assert_allclose(density.conditional(x).mean[0, 2], probs @ [-0.5, 0.25, 1.25], rtol=EXACT64)


def test_samples_have_the_marginals_and_the_dependence(density):
    """Each margin by its exact cdf, and each feature given the one before it (Rosenblatt's transform)."""
    x, label = density.sample(4000, with_class=True, seed=1)
    given = np.full_like(x, np.nan)
    for column in range(density.model.features):
        if density.model.continuous[column]:
            assert stats.kstest(density.cdf(column, x[:, column], given), "uniform").pvalue > SAMPLING_P
        else:
            probs = density.conditional(given).probs(column)
            edges = density.model.leaves[column].edges
            code = np.clip(np.searchsorted(edges, x[:, column], side="right") - 1, 0, len(edges) - 2)
            counts = np.bincount(code, minlength=len(edges) - 1)
            assert stats.chisquare(counts, probs.sum(0)).pvalue > SAMPLING_P
        given[:, column] = x[:, column]
    classes = density.posterior_class(np.full((1, density.model.features), np.nan))[0]
    if density.model.classes:
        counts = np.bincount(label, minlength=len(classes))
        assert stats.chisquare(counts, classes * len(label)).pvalue > SAMPLING_P


def test_conditional_samples_have_the_conditional_distribution(density, rng):
    x = random_rows(density.model, 2, rng, missing=0.0)
    x[:, -1] = np.nan
    drawn = density.conditional_sample(x, 3000, seed=2)
    np.testing.assert_array_equal(drawn[:, :, :-1], np.broadcast_to(x[:, :-1], drawn[:, :, :-1].shape))
    last = density.model.features - 1
    for row in range(2):
        given = np.repeat(x[row : row + 1], 3000, 0)
        if density.model.continuous[last]:
            assert stats.kstest(density.cdf(last, drawn[:, row, last], given), "uniform").pvalue > SAMPLING_P
        else:  # uniform within bins, so its cdf is continuous
            assert stats.kstest(density.cdf(last, drawn[:, row, last], given), "uniform").pvalue > SAMPLING_P


def test_samples_of_a_class(rng):
    density = random_density(CASES["classes"](), seed=2)
    x = density.sample(3000, 1, seed=0)
    nothing = np.full((3000, 2), np.nan)
    assert stats.kstest(density.conditional(nothing, np.ones(3000, int)).cdf(0, x[:, 0]), "uniform").pvalue > SAMPLING_P


def test_several_draws_are_a_mixture(rng):
    model = CASES["chain"]()
    density = random_density(model, seed=6, draws=3)
    object.__setattr__(density, "log_weights", np.log([0.2, 0.5, 0.3]))
    oracles = [Oracle(density, draw) for draw in range(3)]
    x = random_rows(model, 6, rng)
    want = sum(w * o.density(x) for w, o in zip((0.2, 0.5, 0.3), oracles, strict=True))
    np.testing.assert_allclose(density.log_density(x), np.log(want), rtol=EXACT64, atol=EXACT64)
    drawn = density.sample(3000, seed=0)
    given = np.full_like(drawn, np.nan)
    given[:, 0] = drawn[:, 0]
    assert stats.kstest(density.cdf(2, drawn[:, 2], given), "uniform").pvalue > SAMPLING_P


def test_most_probable_against_all_explanations(density, rng):
    """The explanation by trying all of them, the best completion by a search from many starts."""
    x = random_rows(density.model, 4, rng, missing=0.6)
    x[0] = np.nan
    oracle, natural, leaves = Oracle(density), density.natural, density.model.all_leaves
    found = density.most_probable(x)
    start = density.most_probable(x, ascend=False)
    kind = {leaf: (False, n) for n, leaf in enumerate(leaves.neurons)}
    kind |= {leaf: (True, n) for n, leaf in enumerate(leaves.bins)}

    def peak(leaf, state, value):
        if not np.isnan(value):
            return oracle.leaf(leaf, state, value)
        is_bins, n = kind[leaf]
        if is_bins:
            return np.exp((natural["log_bins"][0, n, state] - leaves.log_width[n]).max())
        weights, scale = np.exp(natural["log_weights"][0, n, state]), natural["scale"][0, n, state]
        return (weights / (scale * np.sqrt(2 * np.pi))).max()

    for row in range(len(x)):
        best = max(w * np.prod([peak(*at, x[row, f]) for f, at in held.items()]) for w, _, _, held in oracle.terms)
        np.testing.assert_allclose(found.log_explanation[row], np.log(best), rtol=EXACT64, atol=EXACT64)
    np.testing.assert_allclose(found.log_density, density.log_density(found.x), rtol=EXACT64, atol=EXACT64)
    seen = ~np.isnan(x)
    np.testing.assert_array_equal(found.x[seen], x[seen])
    slack = 1e-9
    assert (found.log_explanation <= start.log_density + slack).all()
    assert (start.log_density <= found.log_density + slack).all()
    tries = density.conditional_sample(x, 400, seed=0)  # no sample is better than the bound
    best = np.max([density.log_density(each) for each in tries], 0)
    assert (np.maximum(best, found.log_density) <= found.upper_bound + slack).all()


def test_most_probable_is_exact_where_choices_are():
    """With one state and one component the density has one mode, and bound and completion meet there."""
    density = random_density(up.Circuit(3, structure=up.random_trees(3, 1), neurons=1, components=1), seed=1)
    found = density.most_probable(np.array([[np.nan, 0.2, np.nan]]))
    np.testing.assert_allclose(found.log_density, found.upper_bound, rtol=EXACT64)
    np.testing.assert_allclose(found.log_density, found.log_explanation, rtol=EXACT64)


def test_ten_thousand_rows_with_masks_of_their_own(rng):
    model = up.Circuit(16, classes=2, structure=up.random_trees(16, 2), neurons=4)
    density = random_density(model, seed=0)
    x = random_rows(model, 10_000, rng, missing=0.5)
    found = density.log_density(x)
    assert found.shape == (10_000,) and np.isfinite(found).all()
    for row in (0, 4321, 9999):
        np.testing.assert_allclose(density.log_density(x[row : row + 1]), found[row : row + 1], rtol=EXACT64)


@pytest.mark.parametrize("case", ["chain", "mixed", "quad"])
def test_backends_agree_with_numpy_in_value_and_gradient(case, backend64, rng):
    density = random_density(CASES[case](), seed=3)
    model = density.model
    x = random_rows(model, 7, rng)
    x[0] = np.nan
    names = list(density.values)
    arrays = [density.values[name][0] for name in names]
    rows = backend64.array(x)

    def total(*values):
        return model.outputs(backend64.ops, dict(zip(names, values, strict=True)), rows).sum()

    value, grads = gradients(backend64, total, arrays)
    np.testing.assert_allclose(value, model.outputs(NUMPY, dict(zip(names, arrays, strict=True)), x).sum(), rtol=PARITY)
    for array, grad in zip(arrays, grads, strict=True):
        at = np.unravel_index(rng.integers(array.size), array.shape)
        differences = []
        for sign in (1.0, -1.0):
            moved = [a.copy() for a in arrays]
            for a, original in zip(moved, arrays, strict=True):
                if original is array:
                    a[at] += sign * 1e-5
            differences.append(model.outputs(NUMPY, dict(zip(names, moved, strict=True)), x).sum())
        np.testing.assert_allclose(grad[at], (differences[0] - differences[1]) / 2e-5, rtol=1e-6, atol=1e-7)
