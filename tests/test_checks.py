"""Bad input: every message says what is needed, what came and where, and what to do."""

import numpy as np
import pytest
from conftest import INSTALLED
from helpers import refused

import ugmm_ppl as up
from ugmm_ppl import checks
from ugmm_ppl.backends.load import load_backend

NAN, INF = float("nan"), float("inf")
GOOD = np.arange(12.0).reshape(4, 3)


def changed(array, index, value):
    """A copy with one entry replaced."""
    array = np.array(array, dtype=np.float64)
    array[index] = value
    return array


INPUTS = {
    "a vector": (np.zeros(3), ValueError, ("x must be 2-D", "got shape (3,)", "x[None, :]")),
    "a number": (1.0, ValueError, ("x must be 2-D", "got shape ()")),
    "three axes": (np.zeros((2, 3, 1)), ValueError, ("x must be 2-D, (examples, 3 features)", "got shape (2, 3, 1)")),
    "empty": (np.zeros((0, 3)), ValueError, ("at least one row", "got shape (0, 3)", "read or split")),
    "too few columns": (
        np.zeros((4, 2)),
        ValueError,
        ("x must have 3 columns", "inputs of layer 0", "got shape (4, 2)", "sizes=(2, ...)"),
    ),
    "too many columns": (np.zeros((4, 5)), ValueError, ("x must have 3 columns", "got shape (4, 5)", "sizes=(5, ...)")),
    "transposed": (GOOD.T, ValueError, ("x must have 3 columns", "got shape (3, 4)", "sizes=(4, ...)")),
    "NaN": (
        changed(GOOD, (2, 1), NAN),
        ValueError,
        ("x must be finite", "got nan in row 2, column 1 (1 such", "impute"),
    ),
    "infinite": (
        changed(GOOD, (0, 2), -INF),
        ValueError,
        ("x must be finite", "got -inf in row 0, column 2", "impute"),
    ),
    "many": (np.full((4, 3), NAN), ValueError, ("got nan in row 0, column 0 (12 such values)", "impute")),
    "text": (np.full((4, 3), "a"), TypeError, ("x must hold real numbers", "got dtype <U1", "Encode text")),
    "objects": (
        np.full((4, 3), "a", dtype=object),
        TypeError,
        ("x must hold real numbers", "got dtype object ('a' in row 0, column 0)", "Encode text"),
    ),
    "None": (np.full((4, 3), None), ValueError, ("x must be finite", "got nan in row 0, column 0 (12 such", "impute")),
    "complex": (np.zeros((4, 3), dtype=complex), TypeError, ("x must hold real numbers", "got dtype complex128")),
    "dates": (
        np.zeros((4, 3), dtype="datetime64[D]"),
        TypeError,
        ("x must hold real numbers", "got dtype datetime64[D]"),
    ),
}


@pytest.mark.parametrize("case", INPUTS)
def test_inputs_are_refused(case):
    x, error, parts = INPUTS[case]
    with refused(error, *parts):
        checks.inputs(x, 3)


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, np.int64, np.uint8, bool])
def test_inputs_of_any_number_type_become_floats(dtype):
    x = np.array([[0, 1, 1], [1, 0, 1]], dtype=dtype)
    got = checks.inputs(x, 3)
    assert got.dtype.kind == "f"
    np.testing.assert_array_equal(got, [[0.0, 1.0, 1.0], [1.0, 0.0, 1.0]])
    np.testing.assert_array_equal(checks.inputs(x.tolist(), 3), got)


def test_the_name_and_the_place_are_said():
    with refused(ValueError, "new_x must have 3 columns, the number of inputs of the circuit", "Give new_x"):
        checks.inputs(np.zeros((4, 2)), 3, what="new_x", where="the circuit")
    with refused(ValueError, "x_test must be finite", "got nan"):
        checks.inputs(np.full((1, 3), NAN), 3, what="x_test")


def test_arrays_of_the_backend_are_taken(backend):
    """Also a tensor that requires a gradient."""
    x = backend.array(GOOD)
    if backend.name == "pyro":
        x = x.requires_grad_()
    got = checks.inputs(x, 3)
    assert type(got) is np.ndarray
    np.testing.assert_array_equal(got, GOOD)


LABELS = {
    "too large": (
        [0, 1, 3, 7],
        ValueError,
        ("y must lie in 0..2 (classes=3)", "got 3 in row 2 (2 such rows)", "more classes"),
    ),
    "negative": ([0, -1, 1, 2], ValueError, ("y must lie in 0..2", "got -1 in row 1", "Recode y")),
    "coded from one": ([1, 2, 3, 1], ValueError, ("y must lie in 0..2", "got 3 in row 2", "Recode y")),
    "fractional": ([0.0, 1.0, 1.5, 2.0], ValueError, ("whole class codes 0..2", "got 1.5 in row 2", "use Regressor")),
    "NaN": ([0.0, NAN, 1.0, 2.0], ValueError, ("y must be finite", "got nan in row 1", "Drop such rows")),
    "names": (
        ["a", "b", "a", "c"],
        TypeError,
        ("whole class codes 0..2", "got dtype <U1", "numpy.unique(y, return_inverse=True)"),
    ),
    "objects": (
        np.array([0, "a", None, 1], dtype=object),
        TypeError,
        ("whole class codes", "got dtype object", "Encode"),
    ),
    "too short": ([0, 1, 2], ValueError, ("one value per row of x, 4", "got 3", "split")),
    "too long": ([0, 1, 2, 0, 1], ValueError, ("one value per row of x, 4", "got 5", "split")),
    "one-hot": (
        np.eye(4)[:, :3],
        ValueError,
        ("y must be 1-D", "got shape (4, 3)", "y.argmax(axis=1)", "pick one column"),
    ),
    "a number": (1, ValueError, ("y must be 1-D", "got shape ()")),
    "empty": (np.zeros(0, dtype=int), ValueError, ("one value per row of x, 4", "got 0")),
}


@pytest.mark.parametrize("case", LABELS)
def test_labels_are_refused(case):
    y, error, parts = LABELS[case]
    with refused(error, *parts):
        checks.labels(y, 4, 3)


@pytest.mark.parametrize(
    "y",
    [
        [0, 2, 1, 0],
        [0.0, 2.0, 1.0, 0.0],
        np.array([[0], [2], [1], [0]], dtype=np.uint8),
        np.array([0, 2, 1, 0], dtype=np.int8),
    ],
)
def test_whole_labels_become_int64(y):
    got = checks.labels(y, 4, 3)
    assert got.dtype == np.int64
    np.testing.assert_array_equal(got, [0, 2, 1, 0])


def test_labels_may_be_true_and_false():
    np.testing.assert_array_equal(checks.labels(np.array([True, False]), 2, 2), [1, 0])


TARGETS = {
    "NaN": (
        [0.0, 1.0, NAN, NAN],
        ValueError,
        ("y must be finite", "got nan in row 2 (2 such values)", "Drop such rows"),
    ),
    "infinite": ([0.0, 1.0, INF, 2.0], ValueError, ("y must be finite", "got inf in row 2", "Drop such rows")),
    "text": (["1", "2", "3", "4"], TypeError, ("y must hold real numbers", "got dtype <U1", "Encode text")),
    "two columns": (np.zeros((4, 2)), ValueError, ("y must be 1-D", "got shape (4, 2)", "pick one column")),
    "too short": ([1.0, 2.0], ValueError, ("one value per row of x, 4", "got 2", "split")),
}


@pytest.mark.parametrize("case", TARGETS)
def test_targets_are_refused(case):
    y, error, parts = TARGETS[case]
    with refused(error, *parts):
        checks.targets(y, 4)


@pytest.mark.parametrize("y", [[1, 2, 3, 4], np.array([[1.0], [2.0], [3.0], [4.0]])])
def test_good_targets_become_floats(y):
    got = checks.targets(y, 4)
    assert got.dtype.kind == "f"
    np.testing.assert_array_equal(got, [1.0, 2.0, 3.0, 4.0])


def test_constant_columns_are_named_in_a_warning():
    with pytest.warns(
        UserWarning, match=r"2 of 3 columns of x have zero variance \(a, c\); they are kept, with scale 1. Drop"
    ):
        checks.constant_columns(np.array([True, False, True]), ["a", "b", "c"])
    names = [f"pixel_{k}" for k in range(9)]
    with pytest.warns(UserWarning, match=r"9 of 9 columns .*\(pixel_0, pixel_1, pixel_2, pixel_3, pixel_4, \.\.\.\)"):
        checks.constant_columns(np.ones(9, dtype=bool), names)
    checks.constant_columns(np.zeros(3, dtype=bool), ["a", "b", "c"])  # no warning, which would be an error here


CHOICES = {
    "a slip": ("numpryo", ("backend must be one of 'pyro', 'numpyro'", "got 'numpryo'", "mean 'numpyro'?")),
    "another word": ("stan", ("backend must be one of 'pyro', 'numpyro'", "got 'stan'")),
    "nothing": (None, ("backend must be one of 'pyro', 'numpyro'", "got None")),
    "a number": (3, ("backend must be one of 'pyro', 'numpyro'", "got 3")),
}


@pytest.mark.parametrize("case", CHOICES)
def test_choices_are_refused(case):
    got, parts = CHOICES[case]
    with refused(ValueError, *parts):
        checks.choice("backend", got, ("pyro", "numpyro"))
    with refused(ValueError, *parts):
        load_backend(got)


def test_a_hint_only_where_one_is_near():
    with pytest.raises(ValueError, match="must be one of") as caught:
        checks.choice("method", "zzz", ("svi", "map", "nuts"))
    assert "mean" not in str(caught.value)
    assert checks.choice("method", "map", ("svi", "map", "nuts")) == "map"


def test_every_unknown_name_is_refused():
    checks.names("parameter", ["layers.0.loc"], ["layers.0.loc", "layers.0.logits"])
    with refused(ValueError, "parameter must be one of", "got 'layers.0.lok'", "mean 'layers.0.loc'?"):
        checks.names("parameter", ["layers.0.logits", "layers.0.lok"], ["layers.0.loc", "layers.0.logits"])


NUMBERS = {
    "count zero": (lambda: checks.count("num_steps", 0), ValueError, ("num_steps must be at least 1", "got 0")),
    "count below least": (
        lambda: checks.count("classes", 1, least=2),
        ValueError,
        ("classes must be at least 2", "got 1"),
    ),
    "count float": (
        lambda: checks.count("num_steps", 10.0),
        TypeError,
        ("num_steps must be a whole number", "got 10.0 of type float"),
    ),
    "count text": (lambda: checks.count("num_steps", "10"), TypeError, ("whole number", "got '10' of type str")),
    "count True": (lambda: checks.count("num_steps", True), TypeError, ("whole number", "got True of type bool")),
    "count None": (lambda: checks.count("num_steps", None), TypeError, ("whole number", "got None of type NoneType")),
    "number low": (lambda: checks.number("rate", 0.0, 0.0), ValueError, ("rate must lie in (0, inf)", "got 0.0")),
    "number high": (lambda: checks.number("dropout", 1.0, 0.0, 1.0), ValueError, ("must lie in (0, 1)", "got 1.0")),
    "number below": (
        lambda: checks.number("dropout", -0.5, 0.0, 1.0, closed_low=True),
        ValueError,
        ("dropout must lie in [0, 1)", "got -0.5"),
    ),
    "number NaN": (lambda: checks.number("rate", NAN, 0.0), ValueError, ("rate must lie in (0, inf)", "got nan")),
    "number infinite": (lambda: checks.number("rate", INF, 0.0), ValueError, ("rate must lie in (0, inf)", "got inf")),
    "number text": (lambda: checks.number("rate", "1", 0.0), TypeError, ("must be a number", "got '1' of type str")),
    "number True": (lambda: checks.number("rate", True, 0.0), TypeError, ("must be a number", "got True of type bool")),
    "number None": (lambda: checks.number("rate", None, 0.0), TypeError, ("must be a number", "got None")),
}


@pytest.mark.parametrize("case", NUMBERS)
def test_numbers_are_refused(case):
    make, error, parts = NUMBERS[case]
    with refused(error, *parts):
        make()


def test_good_numbers_pass():
    assert checks.count("num_steps", np.int32(3)) == 3
    assert type(checks.count("num_steps", np.int64(3))) is int
    assert checks.count("layer", 0, least=0) == 0
    assert checks.number("dropout", 0, 0.0, 1.0, closed_low=True) == 0.0
    assert type(checks.number("rate", np.float32(0.5), 0.0)) is float


MODELS = {
    "network by sizes": (
        lambda: up.Classifier((4, 8), 3),
        TypeError,
        ("network must be an up.Network, e.g. up.Network((4, 32))", "got (4, 8)"),
    ),
    "prior by role": (
        lambda: up.Regressor(up.Network((4, 8)), prior={}),
        TypeError,
        ("prior must be an up.Prior", "got {}"),
    ),
    "one class": (lambda: up.Classifier(up.Network((4, 8)), 1), ValueError, ("classes must be at least 2", "got 1")),
    "no component": (
        lambda: up.Regressor(up.Network((4, 8)), 0),
        ValueError,
        ("components must be at least 1", "got 0"),
    ),
    "prior of a layer that is not there": (
        lambda: up.Classifier(up.Network((4, 8)), 3, up.Prior(layers={1: {"loc": up.dist.Normal(0.0, 1.0)}})),
        ValueError,
        ("Prior.layers must name layers 0..0 of sizes=(4, 8)", "got layer 1"),
    ),
}


@pytest.mark.parametrize("case", MODELS)
def test_models_of_wrong_parts_are_refused(case):
    make, error, parts = MODELS[case]
    with refused(error, *parts):
        make()


def test_the_ugmm_readout_is_a_layer_with_a_prior():
    """With it, the layer after the last width may be named."""
    prior = up.Prior(layers={1: {"loc": up.dist.Normal(0.0, 1.0)}})
    assert up.Classifier(up.Network((4, 8), readout="ugmm"), 3, prior).prior is prior


def test_a_device_that_is_not_there_is_refused(backend):
    with refused(ValueError, "device must be one of those present, 'cpu'", "got 'cuda:99'"):
        backend.device("cuda:99")
    with refused(ValueError, "device must be one of those present, 'cpu'", "got 'tpu'"):
        backend.device("tpu")


def test_a_non_finite_step_says_where():
    error = checks.NonFiniteError(17, ["layers.0.loc", "readout.bias"], fit="the last good one")
    assert (error.step, error.sites, error.fit) == (17, ["layers.0.loc", "readout.bias"], "the last good one")
    for part in ("finite loss and gradient", "step 17", "layers.0.loc, readout.bias", "Lower learning_rate"):
        assert part in str(error)
    assert "the loss itself" in str(checks.NonFiniteError(0, []))


@pytest.mark.skipif(all(INSTALLED.values()), reason="needs an environment without one of the PPLs")
def test_a_backend_that_is_not_installed_names_its_extra():
    (missing,) = [name for name, there in INSTALLED.items() if not there]
    with refused(checks.MissingExtraError, f"{missing} needs the package", f'pip install "ugmm-ppl[{missing}]"'):
        load_backend(missing)
