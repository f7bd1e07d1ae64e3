"""JointScore: the score is the network's output with the class as its last input; p(class | x) is a softmax over it."""

import numpy as np
import pytest
from tolerances import EXACT64, NETWORK32

import ugmm_ppl as up
from ugmm_ppl.ops.numpy import NUMPY

NETWORK = up.Network(sizes=(3, 4), readout="ugmm", normalization=None)


def rows(count=40):
    rng = np.random.default_rng(0)
    y = rng.integers(3, size=count)
    return rng.normal(size=(count, 2)) + 2.0 * y[:, None], y


@pytest.mark.usefixtures("quick_compiler")
@pytest.mark.parametrize("objective", ["score", "conditional"])
def test_scores_are_those_of_the_network_by_enumeration(objective, backend_name, tmp_path):
    x, y = rows()
    model = up.JointScore(NETWORK, classes=3, objective=objective)
    fit = up.fit(
        model, x, y, backend=backend_name, method="map", num_steps=60, learning_rate=0.05, standardize=False,
        progress=False,
    )  # fmt: skip
    assert fit.losses[0, -1] < fit.losses[0, 0]
    values = {name: value[0, 0].astype(np.float64) for name, value in fit.posterior().items()}
    codes = np.array([-1.0, 0.0, 1.0]) / np.std([0, 1, 2])
    want = np.stack(
        [NETWORK.forward(NUMPY, values, np.column_stack([x, np.full(len(x), c)]), None)[:, 0] for c in codes], -1
    )
    scores = fit.outputs(x)[0, 0]
    np.testing.assert_allclose(scores, want, rtol=NETWORK32, atol=NETWORK32)
    soft = np.exp(want - want.max(1, keepdims=True))
    np.testing.assert_allclose(fit.predict(x).probs, soft / soft.sum(1, keepdims=True), atol=NETWORK32)
    np.testing.assert_allclose(model.scores(want, y), want[np.arange(len(y)), y], rtol=EXACT64)
    target = want[np.arange(len(y)), y] if objective == "score" else model.log_likelihood(want, y)
    with fit.settings():
        bound = model.bind(backend_name)
        trace = fit.primitives.trace(bound, {n: fit.primitives.array(v) for n, v in values.items()}, x, y)
    data = next(site for site in trace.values() if site.observed)
    got = np.asarray(data.distribution.log_prob(data.value)).sum()
    np.testing.assert_allclose(got, target.sum(), rtol=NETWORK32)
    fit.save(tmp_path / "fit.npz")
    np.testing.assert_array_equal(up.load(tmp_path / "fit.npz").predict(x).probs, fit.predict(x).probs)


def test_networks_without_a_place_for_the_class_are_refused():
    with pytest.raises(ValueError, match="readout='ugmm'"):
        up.JointScore(up.Network((3, 4)), classes=3)
    with pytest.raises(ValueError, match="objective must be one of"):
        up.JointScore(NETWORK, classes=3, objective="joint")
