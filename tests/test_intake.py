"""What users give as x and y: every kind of table, names of columns, masks, dtypes, and what is refused."""

import decimal
import importlib.util

import numpy as np
import pandas as pd
import pytest
import scipy.sparse
import xarray
from helpers import refused

import ugmm_ppl as up
from ugmm_ppl import checks
from ugmm_ppl.checks.table import Asked, column_names, numeric

NAN = float("nan")
NAMES = ["age", "smokes", "visits"]
AGE, SMOKES, VISITS = np.array([1.5, -0.5, 0.25, 2.0]), [True, False, True, True], [1, 2, 3, 5]
COLUMNS = {"age": AGE, "smokes": SMOKES, "visits": VISITS}
ROWS = np.column_stack([AGE, SMOKES, VISITS]).astype(float)


class Polars:
    """As a frame of polars: names in `columns`, columns by name, rows by slices."""

    def __init__(self, columns):
        self._held = {name: np.asarray(column) for name, column in columns.items()}

    @property
    def columns(self):
        return list(self._held)

    @property
    def shape(self):
        return len(next(iter(self._held.values()))), len(self._held)

    def __getitem__(self, key):
        if isinstance(key, str):
            return self._held[key]
        return type(self)({name: column[key] for name, column in self._held.items()})

    def __array__(self, dtype=None, copy=None):
        return np.column_stack([column.astype(object) for column in self._held.values()])


class Arrow(Polars):
    """As a table of pyarrow: names in `column_names`, and the columns themselves in `columns`."""

    @property
    def columns(self):
        return list(self._held.values())

    @property
    def column_names(self):
        return list(self._held)


def structured(columns):
    """A structured array, as of a FITS file: fields of several dtypes, big-endian."""
    kinds = {"f": ">f8", "b": "?", "i": ">i4"}
    given = {name: np.asarray(column) for name, column in columns.items()}
    array = np.empty(len(AGE), [(name, kinds[column.dtype.kind]) for name, column in given.items()])
    for name, column in given.items():
        array[name] = column
    return array


def labelled(columns):
    """A DataArray with the names along its columns."""
    values = np.column_stack([np.asarray(column, dtype=float) for column in columns.values()])
    return xarray.DataArray(values, dims=("patient", "columns"), coords={"columns": list(columns)})


def polars(columns):
    """The library itself."""
    import polars

    return polars.DataFrame({name: list(column) for name, column in columns.items()})


TABLES = {
    "pandas": pd.DataFrame,
    "pandas, nullable": lambda columns: pd.DataFrame(columns).convert_dtypes(),
    "pandas, objects": lambda columns: pd.DataFrame(columns).astype(object),
    "pandas, another index": lambda columns: pd.DataFrame(columns, index=np.linspace(0.5, 3.5, 4)),
    "dict": dict,
    "dict of lists": lambda columns: {name: np.asarray(column).tolist() for name, column in columns.items()},
    "structured array": structured,
    "masked structured array": lambda columns: np.ma.array(structured(columns)),
    "xarray.DataArray": labelled,
    "xarray.Dataset": lambda columns: xarray.Dataset({name: ("row", column) for name, column in columns.items()}),
    "like polars": Polars,
    "like pyarrow": Arrow,
    "polars": polars,
}


def table_params():
    """The kinds of tables; polars itself where it is installed."""
    there = importlib.util.find_spec("polars") is not None
    mark = pytest.mark.skipif(not there, reason="polars is not installed here; a stand-in for it is tested")
    return [pytest.param(make, id=kind, marks=[mark] if kind == "polars" else []) for kind, make in TABLES.items()]


def read(x, **options):
    return numeric(x, Asked("x"), **options)


@pytest.mark.parametrize("make", table_params())
def test_a_table_of_any_kind_is_read_by_name(make):
    table = make(COLUMNS)
    assert column_names(table) == NAMES
    np.testing.assert_array_equal(read(table), ROWS)
    np.testing.assert_array_equal(read(table, names=["visits", "age"], features=2), ROWS[:, [2, 0]])
    with refused(ValueError, "x must have the columns 'age', 'dose'", "missing: 'dose'", "are 'age', 'smokes', 'vis"):
        read(table, names=["age", "dose"], features=2)


UNNAMED = {
    "array": ROWS,
    "numbers for names": pd.DataFrame(ROWS),
    "pairs for names": pd.DataFrame(ROWS, columns=pd.MultiIndex.from_product([["a"], [1, 2, 3]])),
    "numbers for names in a dict": dict(enumerate(ROWS.T)),
    "no coordinate": xarray.DataArray(ROWS),
    "lists": ROWS.tolist(),
}


@pytest.mark.parametrize("kind", UNNAMED)
def test_what_has_no_names_is_taken_by_position(kind):
    assert column_names(UNNAMED[kind]) is None
    np.testing.assert_array_equal(read(UNNAMED[kind], names=["c", "b", "a"], features=3), ROWS)


def test_default_names_are_found_by_name_where_all_of_them_are_there():
    table = pd.DataFrame({"x2": [3.0], "x0": [1.0], "x1": [2.0]})
    np.testing.assert_array_equal(read(table, features=3), [[1.0, 2.0, 3.0]])
    np.testing.assert_array_equal(read(table.rename(columns={"x0": "a"}), features=3), [[3.0, 1.0, 2.0]])


def test_a_name_given_twice_is_no_name():
    table = pd.DataFrame(np.eye(2), columns=["a", "a"])
    assert column_names(table) is None
    with refused(ValueError, "x must have one column 'a'; got 2"):
        read(table, names=["a"], features=1)


MISSING = np.ma.masked
HOLES = np.array([[1.0, NAN], [NAN, 4.0], [5.0, 6.0]])
HIDDEN = np.isnan(HOLES)
WITH_HOLES = {
    "NaN": HOLES,
    "masked": np.ma.array(np.where(HIDDEN, 9.96921e36, HOLES), mask=HIDDEN),
    "masked whole numbers": np.ma.array(np.where(HIDDEN, -9999, HOLES).astype(np.int16), mask=HIDDEN),
    "masked objects": np.ma.array(np.where(HIDDEN, "fill", HOLES.astype(object)), mask=HIDDEN),
    "lists of masked rows": [*np.ma.array(np.where(HIDDEN, 1e20, HOLES), mask=HIDDEN)],
    "masked cells of lists": [[1.0, MISSING], [MISSING, 4], [5.0, 6.0]],
    "None": [[1.0, None], [None, 4.0], [5, 6]],
    "pandas.NA": pd.DataFrame({"a": pd.array([1, None, 5], "Int64"), "b": pd.array([None, 4.0, 6.0], "Float64")}),
    "objects": pd.DataFrame({"a": [1, None, decimal.Decimal(5)], "b": [pd.NA, 4.0, np.float32(6.0)]}, dtype=object),
    "masked fields": np.ma.array(
        [(1.0, 9), (9.0, 4), (5.0, 6)], dtype=[("a", ">f4"), ("b", "i8")], mask=[(0, 1), (1, 0), (0, 0)]
    ),
    "dict": {"a": [1.0, None, 5.0], "b": np.ma.array([9, 4, 6], mask=[1, 0, 0])},
}


@pytest.mark.parametrize("kind", WITH_HOLES)
def test_a_missing_value_of_any_kind_is_nan(kind):
    np.testing.assert_array_equal(read(WITH_HOLES[kind]), HOLES)
    with refused(ValueError, "x must be finite; got nan in row 0, column 1 (2 such values)"):
        checks.inputs(WITH_HOLES[kind], 2)


def test_a_variable_of_a_netcdf_file_keeps_its_mask(tmp_path):
    netcdf4 = pytest.importorskip("netCDF4", reason="netCDF4 is not installed here")
    with netcdf4.Dataset(tmp_path / "file.nc", "w") as file:
        file.createDimension("row", 3)
        file.createDimension("column", 2)
        variable = file.createVariable("v", "f4", ("row", "column"), fill_value=9.96921e36)
        variable[:] = WITH_HOLES["masked"]
        np.testing.assert_array_equal(read(variable), HOLES)


@pytest.mark.filterwarnings("ignore:The PyTorch API of MaskedTensors is in prototype stage")
def test_a_masked_tensor_of_torch_is_missing_where_it_is_masked():
    torch = pytest.importorskip("torch", reason="torch is not installed here")
    filled = torch.tensor(np.where(HIDDEN, 9.96921e36, HOLES))
    np.testing.assert_array_equal(read(torch.masked.masked_tensor(filled, torch.tensor(~HIDDEN))), HOLES)


def test_a_mask_without_a_masked_value_costs_no_copy():
    array = np.ones((4, 2))
    assert np.shares_memory(read(np.ma.array(array)), array)


DTYPES = ["?", "u1", "i8", ">i4", "f2", "f4", "f8", ">f2", ">f4", ">f8", "g"]


@pytest.mark.parametrize("dtype", DTYPES)
def test_real_numbers_of_any_dtype_become_floats_of_the_machine(dtype):
    got = read(np.array([[0, 1], [1, 0]], dtype))
    assert got.dtype in (np.float32, np.float64) and got.dtype.isnative
    np.testing.assert_array_equal(got, [[0.0, 1.0], [1.0, 0.0]])


def test_numbers_of_categories_are_their_numbers():
    table = pd.DataFrame({"a": pd.Categorical([3, 7, None]), "b": pd.arrays.SparseArray([0, 1, 0])})
    np.testing.assert_array_equal(read(table), [[3.0, 0.0], [7.0, 1.0], [NAN, 0.0]])


WRONG = {
    "text in a frame": (
        pd.DataFrame({"dose": [1.0, 2.0], "colour": ["red", "blue"]}), TypeError,
        ("x must hold", "numbers", "got dtype", "'red' in row 0, column 'colour'", "Encode"),
    ),
    "text among objects": (
        np.array([[1, 2], [3, "n/a"]], object), TypeError, ("got dtype object ('n/a' in row 1, column 1)",),
    ),
    "categories": (pd.DataFrame({"c": pd.Categorical(["u", "v"])}), TypeError, ("'u' in row 0, column 'c'", "Encode")),
    "dates in a frame": (
        pd.DataFrame({"a": [1.0], "when": pd.to_datetime(["2020-01-01"])}), TypeError,
        ("got dtype datetime64", "column 'when'", "days since a day"),
    ),
    "durations": (np.zeros((2, 2), "m8[s]"), TypeError, ("got dtype timedelta64[s]", "e.g. days")),
    "complex": (np.ones((2, 2), complex), TypeError, ("got dtype complex128", "real and imaginary parts")),
    "rows of several lengths": ([[1.0, 2.0], [3.0]], ValueError, ("x must be a table whose rows are equally long",)),
    "columns of several lengths": ({"a": [1.0], "b": [1.0, 2.0]}, ValueError, ("got shape (2,) in column 'b'",)),
    "a batch as a dict": ({"x": np.ones((2, 3))}, ValueError, ("one number per row", "(2, 3) in column 'x'", "array")),
    "nothing": (None, TypeError, ("x must be an array or a table of numbers; got None",)),
    "sparse": (
        scipy.sparse.random(60, 5, 0.3, "csr"), TypeError,
        ("x must be dense; got a sparse csr_matrix of shape (60, 5)", "x.toarray(), which takes 2,400 bytes"),
    ),
    "a sparse array": (scipy.sparse.coo_array(np.eye(3)), TypeError, ("got a sparse coo_array", "x.toarray()")),
}  # fmt: skip


@pytest.mark.parametrize("kind", WRONG)
def test_what_holds_no_numbers_is_refused_by_its_place(kind):
    x, error, parts = WRONG[kind]
    for read_inputs in (checks.inputs, up.Circuit(2).check_inputs):
        with refused(error, *parts):
            read_inputs(x, 2) if read_inputs is checks.inputs else read_inputs(x)


def test_sparse_tensors_are_refused_too(backend):
    if backend.name == "pyro":
        import torch

        sparse, dense = torch.eye(3).to_sparse(), "x.to_dense()"
    else:
        from jax.experimental import sparse as jax_sparse

        sparse, dense = jax_sparse.BCOO.fromdense(np.eye(3)), "x.todense()"
    with refused(TypeError, "x must be dense; got a sparse", dense):
        read(sparse)


def test_lists_of_tensors_are_tables(backend):
    rows = [backend.array(row) for row in ROWS.astype(np.float32)]
    if backend.name == "pyro":
        rows[0].requires_grad_()
    np.testing.assert_array_equal(read(rows), ROWS)


@pytest.mark.parametrize(
    "y",
    [
        pd.Series([0, 2, 1]), pd.Series([0, 2, 1], dtype="Int64"), pd.Categorical([0, 2, 1]),
        pd.DataFrame({"y": [0, 2, 1]}), np.array([0, 2, 1], ">i4"),
        np.array([0, 2, 1], object), np.ma.array([0, 2, 1]), {"y": [0, 2, 1]},
    ],
)  # fmt: skip
def test_labels_and_targets_of_any_kind(y):
    np.testing.assert_array_equal(checks.labels(y, 3, 3), [0, 2, 1])
    np.testing.assert_array_equal(checks.targets(y, 3), [0.0, 2.0, 1.0])


@pytest.mark.parametrize(
    "y", [np.ma.array([0, 7, 1], mask=[0, 1, 0]), pd.array([0, None, 1], "Int64"), [0, None, 1], [0, MISSING, 1]]
)
def test_a_missing_label_is_refused_or_unknown(y):
    with refused(ValueError, "y must be finite; got nan in row 1"):
        checks.labels(y, 3, 2)
    with refused(ValueError, "y must be finite; got nan in row 1"):
        checks.targets(y, 3)
    np.testing.assert_array_equal(up.Circuit(2, classes=2).check_target(y, 3), [0, -1, 1])
    np.testing.assert_array_equal(up.LatentNetwork((1, 2), classes=2).check_target(y, 3), [0, -1, 1])


@pytest.mark.parametrize("y", [np.eye(3), np.eye(3, dtype=int), np.full((3, 3), 1 / 3), pd.DataFrame(np.eye(3))])
def test_one_hot_labels_are_told_what_to_do(y):
    for check in (lambda: checks.labels(y, 3, 3), lambda: up.Circuit(2, classes=3).check_target(y, 3)):
        with refused(ValueError, "y must be 1-D", "got shape (3, 3)", "one-hot", "y.argmax(axis=1)"):
            check()
    with refused(ValueError, "y must be 1-D", "got shape (3, 3)", "pick one column"):
        checks.targets(y, 3)


# Fits ---------------------------------------------------------------------------------------------------------------
