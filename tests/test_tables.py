"""Fits on tables of any kind: columns by name, in validation, weights, files and streams."""

import json

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
from helpers import refused
from test_intake import COLUMNS, NAMES, NAN, ROWS, table_params

import ugmm_ppl as up

MODELS = {
    "classifier": (lambda: up.Classifier(up.Network((2, 3)), 2), "map"),
    "regressor": (lambda: up.Regressor(up.Network((2, 3)), 2), "map"),
    "joint score": (lambda: up.JointScore(up.Network((3, 3), readout="ugmm"), 2), "map"),
    "circuit": (lambda: up.Circuit(2, classes=2, neurons=2), "em"),
    "latent": (lambda: up.LatentNetwork((1, 2), classes=2, encoder_widths=(4,)), "map"),
}

TABLE = pd.DataFrame(np.random.default_rng(5).normal(size=(30, 2)), columns=["age", "dose"])

TURNED = TABLE[["dose", "age"]].assign(note="seen")

Y = (TABLE["age"] > 0).astype(int)


def fitted(name, backend_name, x=TABLE, **settings):
    model, method = MODELS[name]
    return up.fit(model(), x, Y, backend=backend_name, method=method, num_steps=3, progress=False, **settings)


def answers(fit, x):
    """What a fit says of some rows, by every road that takes x."""
    yield fit.predict(x).draws
    yield np.concatenate([part.draws for part in fit.predict_iter(x, chunk_size=7)], axis=2)
    yield fit.sample_functions()(x)
    yield fit.log_likelihood(x, Y)
    yield fit.log_p(x, Y)
    yield fit.prior_draws(x, 2)["x" if fit.model.observed == "x" else "y"]
    if isinstance(fit.model, up.Circuit):
        holes = pd.DataFrame(x).copy()
        holes.loc[holes["age"] > 0, "age"] = None
        yield fit.log_density(holes)
        yield fit.posterior_class(holes)
        yield fit.expectation(holes)
        yield fit.impute(holes, 2).values
        yield fit.impute(holes, 2).missing
        yield fit.most_probable(holes).x
        yield fit.density().conditional(holes).log_density(x)
    if isinstance(fit.model, up.LatentNetwork):
        yield fit.log_evidence(x, num_samples=20).value
        yield fit.reconstruct(x, num_samples=20)


@pytest.mark.parametrize("name", MODELS)
def test_columns_are_found_by_name_wherever_a_fit_takes_a_table(backend_name, name, tmp_path):
    """In another order, with a column too many; the same after a save and a load."""
    fit = fitted(name, backend_name)
    assert fit.feature_names == ["age", "dose"]
    wanted = list(answers(fit, TABLE))
    fit.save(tmp_path / "fit.npz")
    for one in (fit, up.load(tmp_path / "fit.npz")):
        for want, got in zip(wanted, answers(one, TURNED), strict=True):
            np.testing.assert_array_equal(got, want)
        with refused(ValueError, "the columns 'age', 'dose'", "missing: 'dose'", "are 'age', 'weight'"):
            one.predict(TABLE.rename(columns={"dose": "weight"}))
    np.testing.assert_array_equal(fit.predict(TABLE.to_numpy()).draws, wanted[0])


def test_a_table_to_validate_with_or_to_weigh_by_is_read_by_name(backend_name):
    settings = {"num_restarts": 2, "validation": (TABLE[:9], Y[:9])}
    straight = fitted("regressor", backend_name, **settings)
    turned = fitted("regressor", backend_name, **settings | {"validation": (TURNED[:9], Y[:9])})
    np.testing.assert_array_equal(turned.scores, straight.scores)
    held_out = TABLE + 0.5
    by_name = straight.weigh("stacking", held_out[["dose", "age"]], Y)
    np.testing.assert_array_equal(by_name.weights, straight.weigh("stacking", held_out, Y).weights)


def test_feature_names_choose_columns_or_rename_them(backend_name):
    chosen = fitted("classifier", backend_name, TURNED, feature_names=["age", "dose"])
    np.testing.assert_array_equal(chosen.train_x, TABLE.to_numpy())
    renamed = fitted("classifier", backend_name, feature_names=["Age (years)", "Dose (mg)"])
    assert renamed.feature_names == ["Age (years)", "Dose (mg)"]
    np.testing.assert_array_equal(renamed.predict(TURNED).draws, renamed.predict(TABLE).draws)
    of_array = fitted("classifier", backend_name, TABLE.to_numpy(), feature_names=["age", "dose"])
    np.testing.assert_array_equal(of_array.predict(TURNED).draws, renamed.predict(TABLE).draws)
    with refused(ValueError, "feature_names must be columns of x, or new names for all", "'weight'", "'age', 'dose'"):
        fitted("classifier", backend_name, feature_names=["age", "weight"])


def test_a_fit_without_names_takes_tables_by_position(backend_name):
    fit = fitted("classifier", backend_name, TABLE.to_numpy())
    assert fit.feature_names == ["x0", "x1"]
    np.testing.assert_array_equal(fit.predict(TABLE).draws, fit.predict(TABLE.to_numpy()).draws)
    turned = TABLE.set_axis(["x0", "x1"], axis=1)[["x1", "x0"]]
    np.testing.assert_array_equal(fit.predict(turned).draws, fit.predict(TABLE).draws)


@pytest.mark.parametrize(("names", "columns"), [(["age", "dose"], ["age", "dose"]), (["x0", "x1"], None)])
def test_files_without_the_columns_load(backend_name, tmp_path, names, columns):
    """As they were written before tables were read by name."""
    fitted("classifier", backend_name, TABLE.to_numpy(), feature_names=names).save(tmp_path / "fit.npz")
    with np.load(tmp_path / "fit.npz") as file:
        arrays = dict(file)
    description = json.loads(str(arrays["description"]))
    del description["settings"]["columns"]
    np.savez(tmp_path / "fit.npz", **arrays | {"description": np.array(json.dumps(description))})
    assert up.load(tmp_path / "fit.npz").columns == columns


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("kind", [">f8", ">f4", "f2", "g", "i4"])
def test_numbers_of_any_dtype_are_fitted_and_predicted_as_they_are(backend_name, name, kind):
    """Without a standardisation that would convert them."""
    x = np.round(4.0 * TABLE.to_numpy()).astype(kind)
    fit = fitted(name, backend_name, x, standardize=False)
    plain = fitted(name, backend_name, x.astype(float), standardize=False)
    np.testing.assert_allclose(fit.predict(x).draws, plain.predict(x.astype(float)).draws, rtol=1e-6)


def test_masked_rows_are_missing_rows_of_a_circuit(backend_name):
    hidden = np.random.default_rng(2).uniform(size=TABLE.shape) < 0.1
    holes = np.where(hidden, NAN, TABLE)
    masked = np.ma.array(np.where(hidden, 9.96921e36, TABLE), mask=hidden)
    fit, plain = fitted("circuit", backend_name, masked), fitted("circuit", backend_name, holes)
    np.testing.assert_array_equal(fit.log_density(masked), plain.log_density(holes))
    for name in ("classifier", "latent"):
        with refused(ValueError, "x must be finite; got nan in row"):
            fitted(name, backend_name, masked)
        with refused(ValueError, "x must be finite; got nan in row"):
            fitted(name, backend_name).predict(masked)


@pytest.mark.parametrize("kind", ["tensors", "lists", "tuples with targets", "frames", "dicts", "loader"])
def test_streams_of_batches(backend, kind):
    """x alone, or first of a list or tuple, as data loaders give it."""
    fit = fitted("classifier", backend.name)
    starts = range(0, 30, 8)
    parts = [TABLE.iloc[start : start + 8] for start in starts]
    if kind == "loader":
        torch = pytest.importorskip("torch", reason="torch is not installed here")
        data = torch.utils.data.TensorDataset(torch.tensor(TABLE.to_numpy()), torch.tensor(Y.to_numpy()))
        stream = torch.utils.data.DataLoader(data, batch_size=8)
    else:
        make = {
            "tensors": lambda part: backend.array(part.to_numpy().astype(np.float32)),
            "lists": lambda part: [part.to_numpy()],
            "tuples with targets": lambda part: (part.to_numpy(), np.zeros(len(part)), "anything"),
            "frames": lambda part: part[["dose", "age"]],
            "dicts": lambda part: {name: part[name].to_numpy() for name in ("dose", "age")},
        }[kind]
        stream = map(make, parts)
    got = np.concatenate([part.probs for part in fit.predict_iter(stream, chunk_size=8)])
    np.testing.assert_allclose(got, fit.predict(TABLE, chunk_size=8).probs, atol=1e-6)


@pytest.mark.parametrize("make", table_params())
def test_a_table_of_any_kind_is_streamed(backend_name, make):
    x = np.array(ROWS)
    fit = up.fit(
        up.Regressor(up.Network((3, 3)), 1), pd.DataFrame(x, columns=NAMES), x[:, 0], backend=backend_name,
        method="map", num_steps=2, progress=False,
    )  # fmt: skip
    table = make(dict(reversed(COLUMNS.items())))
    got = np.concatenate([part.mean for part in fit.predict_iter(table, chunk_size=3)])
    np.testing.assert_array_equal(got, fit.predict(x, chunk_size=3).mean)


def test_a_sparse_stream_is_refused_whole(backend_name):
    with refused(TypeError, "x must be dense", "of shape (30, 2)"):
        fitted("classifier", backend_name).predict_iter(scipy.sparse.csr_matrix(TABLE.to_numpy()))
