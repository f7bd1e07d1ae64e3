"""Prediction in chunks and as a stream, and functions drawn from the posterior."""

import itertools

import numpy as np
import pytest
from tolerances import NETWORK32

from ugmm_ppl import budgets, neuron
from ugmm_ppl.ops.numpy import NUMPY

pytestmark = pytest.mark.usefixtures("quick_compiler")

ROUNDING = {"rtol": 1e-4, "atol": 1e-4}
"""float32: sums in another order for arrays of another size, enlarged by layer normalisation."""


def joined(parts, name):
    """An attribute of several predictions, as one array of all rows."""
    return np.concatenate([getattr(part, name) for part in parts], axis=-1 if name == "mean" else -2)


@pytest.mark.parametrize("chunk_size", [None, 16, 7])
def test_a_stream_is_the_prediction_of_all_rows(small_fits, chunk_size):
    for kind, name in (("classifier", "draws"), ("classifier", "probs"), ("regressor", "mean"), ("regressor", "loc")):
        fit = getattr(small_fits, kind)
        given = {"num_draws": 3, "chunk_size": chunk_size, "seed": 4}
        parts = list(fit.predict_iter(small_fits.x, **given))
        assert len(parts) == (1 if chunk_size is None else -(-70 // chunk_size))
        np.testing.assert_array_equal(joined(parts, name), getattr(fit.predict(small_fits.x, **given), name))


def test_an_iterable_of_arrays_gives_one_prediction_for_each(small_fits):
    """Also one without an end, of which only what is asked for is read."""
    fit, x = small_fits.classifier, small_fits.x
    parts = list(fit.predict_iter((x[a:b].tolist() for a, b in ((0, 16), (16, 17), (17, 70))), num_draws=3))
    assert [len(part.probs) for part in parts] == [16, 1, 53]
    np.testing.assert_allclose(joined(parts, "draws"), fit.predict(x, num_draws=3).draws, **ROUNDING)
    pairs = [(x[:16].tolist(), [0] * 16), [x[16:].tolist(), [1] * 54]]
    np.testing.assert_array_equal(joined(list(fit.predict_iter(pairs)), "probs")[:16], fit.predict(x[:16]).probs)
    endless = fit.predict_iter(itertools.repeat(x), num_draws=3)
    np.testing.assert_array_equal(next(endless).draws, next(endless).draws)


class Sliced:
    """Rows that can only be sliced, a few at a time, like a data set in a file."""

    def __init__(self, rows):
        self.rows, self.shape = rows, rows.shape

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, index):
        assert index.stop - index.start <= 16
        return self.rows[index]


def test_anything_that_can_be_sliced_streams(small_fits):
    fit, x = small_fits.classifier, small_fits.x
    parts = list(fit.predict_iter(Sliced(x), num_draws=3, chunk_size=16))
    np.testing.assert_array_equal(joined(parts, "draws"), fit.predict(x, num_draws=3, chunk_size=16).draws)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_memory_maps_predict_what_arrays_do(small_fits, dtype, tmp_path):
    x = np.round(np.abs(small_fits.x)).astype(dtype)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    for fit, y in ((small_fits.classifier, np.zeros(70, int)), (small_fits.regressor, np.zeros(70))):
        given = {"num_draws": 3, "chunk_size": 20}
        np.testing.assert_array_equal(fit.outputs(mapped, **given), fit.outputs(x.astype(float), **given))
        np.testing.assert_array_equal(fit.log_likelihood(mapped, y, **given), fit.log_likelihood(x, y, **given))


def test_blocks_of_draws_make_no_difference(small_fits, monkeypatch):
    fit, x = small_fits.regressor, small_fits.x
    whole = fit.outputs(x, num_draws=5, chunk_size=70)
    monkeypatch.setattr(budgets, "HELD", 2 * fit.num_parameters)  # two draws at a time, made again for each call
    drawn = fit.sample_functions(5)
    assert drawn._held is None
    for _ in range(2):
        np.testing.assert_allclose(drawn.outputs(x, chunk_size=70), whole, rtol=1e-6, atol=1e-6)
    assert 1 <= drawn.chunk_size() <= budgets.HELD // (3 * 5 * 6)


def test_draws_evaluated_together_make_no_difference(small_fits, monkeypatch):
    for kind in ("classifier", "regressor"):
        fit = getattr(small_fits, kind)
        together = fit.outputs(small_fits.x, num_draws=9, seed=3)
        with monkeypatch.context() as patch:
            patch.setattr(budgets, "CACHED", 1)
            np.testing.assert_array_equal(fit.outputs(small_fits.x, num_draws=9, seed=3), together)


def test_a_function_is_called_once_for_draws_together(backend):
    calls = []

    def larger(draw, x):
        calls.append(draw)
        return x + draw["w"]

    w = np.arange(8.0, dtype="float32")
    found = backend.inference.each(larger, {"w": w}, np.zeros(2, "float32"), together=8)
    np.testing.assert_array_equal(found, np.stack([w, w], 1))
    assert len(calls) == 1


def test_a_function_that_looks_at_values_takes_one_draw_after_the_other(backend):
    """And one that is at fault says what is wrong itself."""

    def larger(draw, x):
        return {"it": x + draw["w"] if backend.name == "numpyro" or float(draw["w"]) > 0.0 else x}

    def wrong(draw, x):
        raise LookupError(f"no {sorted(draw)} in {len(x)}")

    draws, x = {"w": np.array([1.0, -1.0, 2.0, -2.0, 3.0], "float32")}, np.zeros(2, "float32")
    found = backend.inference.each(larger, draws, x, together=5)["it"]
    expected = draws["w"] if backend.name == "numpyro" else np.maximum(draws["w"], 0.0)
    np.testing.assert_array_equal(found, np.stack([expected, expected], 1))
    with pytest.raises(LookupError, match=r"no \['w'\] in 2"):
        backend.inference.each(wrong, draws, x, together=5)


def test_functions_are_the_networks_of_the_draws(small_fits):
    """In NumPy float64, from the draws of `posterior`: what each function says of y, in the units of y."""
    x = small_fits.x
    for fit in (small_fits.classifier, small_fits.regressor):
        drawn, draws = fit.sample_functions(2, seed=7), fit.posterior(2, seed=7)
        for c, s in itertools.product(range(3), range(2)):
            values = {name: value[c, s].astype(np.float64) for name, value in draws.items()}
            outputs = fit.model.network.forward(NUMPY, values, fit.to_network(x))
            np.testing.assert_allclose(drawn.outputs(x)[c, s], outputs, rtol=NETWORK32, atol=NETWORK32)
            if fit is small_fits.classifier:
                expected = np.exp(outputs) / np.exp(outputs).sum(-1, keepdims=True)
            else:
                loc, _, logits = fit.model.likelihood.arrays(outputs)
                mean = (np.exp(neuron.log_normalize(NUMPY, logits)) * loc).sum(-1)
                expected = fit.y_units.mean + fit.y_units.scale * mean
            np.testing.assert_allclose(drawn(x)[c, s], expected, rtol=NETWORK32, atol=NETWORK32)


def test_a_function_does_not_see_the_other_rows(small_fits, rng):
    """Any rows in any order have the same values."""
    x, order = small_fits.x, rng.permutation(70)
    for fit in (small_fits.classifier, small_fits.regressor):
        drawn = fit.sample_functions(3, seed=1)
        whole = drawn.outputs(x)
        for rows in (order, order[:33], order[:1], np.zeros(4, int)):
            part = drawn.outputs(x[rows])
            np.testing.assert_allclose(part, whole[:, :, rows], **ROUNDING)


def test_functions_stay_as_they_were_drawn(small_fits):
    fit, x = small_fits.regressor, small_fits.x[:4]
    drawn, other = fit.sample_functions(3, seed=1), fit.sample_functions(3, seed=2)
    before, state = drawn.outputs(x), fit.state[0]
    np.testing.assert_array_equal(before, drawn.outputs(x))
    np.testing.assert_array_equal(before, fit.sample_functions(3, seed=1).outputs(x))
    np.testing.assert_allclose(before[:, :2], fit.sample_functions(2, seed=1).outputs(x), rtol=1e-6, atol=1e-6)
    assert not np.allclose(before, other.outputs(x))
    np.testing.assert_array_equal(drawn.predict(x).mean, fit.predict(x, num_draws=3, seed=1).mean)
    assert repr(drawn) == f"Functions({fit!r}, num_draws=3, seed=1)"
    fit.state[0] = fit.state[1]
    np.testing.assert_array_equal(before, drawn.outputs(x))
    fit.state[0] = state


def test_missing_inputs_are_refused_with_their_place_and_what_to_do(small_fits):
    fit, x = small_fits.classifier, small_fits.x.copy()
    x[[40, 61], 2] = np.nan
    advice = r"\. Drop such rows or impute the column first: a model of y given x has no exact answer to a missing x"
    with pytest.raises(ValueError, match=r"x must be finite; got nan in row 40, column 2 \(2 such values\)" + advice):
        fit.predict(x)
    for stream in (fit.predict_iter(x, num_draws=1, chunk_size=16), fit.predict_iter([x[:33], x[33:45]], num_draws=1)):
        next(stream)
        with pytest.raises(ValueError, match=r"got nan in row 40, column 2 \(1 such values\)" + advice):
            list(stream)


def test_what_cannot_be_streamed_is_refused_at_once(small_fits):
    fit, x = small_fits.classifier, small_fits.x
    with pytest.raises(TypeError, match=r"an iterable of 2-D arrays; got 'x\.npy' of type str\. Open a file first"):
        fit.predict_iter("x.npy")
    with pytest.raises(ValueError, match="chunk_size must be at least 1; got 0"):
        fit.predict_iter(x, chunk_size=0)
    with pytest.raises(ValueError, match="num_draws must be at least 1; got 0"):
        fit.predict_iter(x, num_draws=0)
    with pytest.raises(ValueError, match="seed must be at least 0; got -1"):
        fit.sample_functions(seed=-1)
    with pytest.raises(ValueError, match=r"x must be 2-D, .* got shape \(3,\)\. For a single example use x\[None, :\]"):
        list(fit.predict_iter(x[:2].tolist(), num_draws=1))
