"""CSV files as spreadsheets and programs write them: what is in them, or what is wrong with them and where."""

import codecs
import io

import numpy as np
import pytest
from helpers import refused

from ugmm_ppl.data.spreadsheet import read_csv

NAMES = ["age", "height"]
WANT = [[1.5, 2.0], [-3.0, 4000.0]]

TABLES = {
    "commas": "age,height\n1.5,2\n-3,4e3\n",
    "Windows lines": "age,height\r\n1.5,2\r\n-3,4e3\r\n",
    "old lines": "age,height\r1.5,2\r-3,4e3\r",
    "no end of line": "age,height\n1.5,2\n-3,4e3",
    "another order": "height,name,age\n2,Ann,1.5\n4e3,Bo,-3\n",
    "semicolons and decimal commas": "age;height\n1,5;2\n-3;4000,0\n",
    "semicolons and decimal points": "age;height\n1.5;2\n-3;4000.0\n",
    "a comma in a name that is not needed": "age;name, first;height\n1,5;Ann, B.;2\n-3;Bo;4000\n",
    "points in a column that is not needed": "age;date;height\n1,5;27.11.2026;2\n-3;1.1.2026;4000\n",
    "tabs": "age\theight\n1.5\t2\n-3\t4e3\n",
    "tabs and decimal commas": "age\theight\n1,5\t2\n-3\t4000,000\n",
    "quoted": '"age","height"\n"1.5","2"\n"-3","4e3"\n',
    "quoted with spaces": '"age", "height"\n 1.5 , "2"\n-3, 4e3\n',
    "separators at the ends": "age,height,\n1.5,2,\n-3,4e3,,\n",
    "lines of separators": "age;height\n1,5;2\n-3;4000\n;\n;\n",
    "blank lines": "\n\nage,height\n\n1.5,2\n\n-3,4e3\n\n\n",
    "a line for Excel": "sep=;\nage;height\n1,5;2\n-3;4000\n",
    "no header": "1.5,2\n-3,4e3\n",
    "no header and decimal commas": "1,5;2\n-3;4000,0\n",
    "no header and tabs": "1.5\t2\n-3\t4e3\n",
}


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("name", TABLES)
def test_tables_are_read(name, encoding, tmp_path):
    path = tmp_path / "table.csv"
    path.write_bytes(TABLES[name].encode(encoding))
    np.testing.assert_array_equal(read_csv(path, NAMES), WANT)
    np.testing.assert_array_equal(read_csv(str(path), NAMES), WANT)


def test_open_files_of_bytes_or_text():
    text = TABLES["commas"]
    for file in (io.BytesIO(text.encode("utf-8-sig")), io.StringIO(text), io.StringIO("\ufeff" + text)):
        np.testing.assert_array_equal(read_csv(file, NAMES), WANT)
    with refused(TypeError, "path must be a path or an open binary file; got 3"):
        read_csv(3, NAMES)


def test_utf_16_of_the_other_end():
    content = codecs.BOM_UTF16_BE + TABLES["tabs"].encode("utf-16-be")
    np.testing.assert_array_equal(read_csv(io.BytesIO(content), NAMES), WANT)


def test_names_beyond_ascii_and_with_separators():
    names = ["âge", "height, m", "x;y"]
    text = '"x;y";"âge";"height, m"\n1,5;2;3\n'
    np.testing.assert_array_equal(read_csv(io.StringIO(text), names), [[2.0, 3.0, 1.5]])
    text = '"x;y","âge","height, m"\n1.5,2,3\n'
    np.testing.assert_array_equal(read_csv(io.StringIO(text), names), [[2.0, 3.0, 1.5]])


def test_one_column():
    np.testing.assert_array_equal(read_csv(io.StringIO("age\n1.5\n2\n"), ["age"]), [[1.5], [2.0]])
    np.testing.assert_array_equal(read_csv(io.StringIO("name;age\na;1,5\n"), ["age"]), [[1.5]])
    with refused(ValueError, "row 1 must have 1 cells", "got 2, ['1', '5']", "separated by ';'"):
        read_csv(io.StringIO("age\n1,5\n"), ["age"])


def test_true_and_false_are_one_and_zero():
    text = "age,height\nTrue,FALSE\nfalse,TRUE\n"
    np.testing.assert_array_equal(read_csv(io.StringIO(text), NAMES), [[1.0, 0.0], [0.0, 1.0]])


def test_names_that_are_numbers():
    np.testing.assert_array_equal(read_csv(io.StringIO("1,0\n5,6\n"), ["0", "1"]), [[6.0, 5.0]])


def test_a_fit_without_names_takes_any_header_in_order():
    np.testing.assert_array_equal(read_csv(io.StringIO("age,height\n5,6\n"), ["x0", "x1"]), [[5.0, 6.0]])
    np.testing.assert_array_equal(read_csv(io.StringIO("x1,x0\n5,6\n"), ["x0", "x1"]), [[6.0, 5.0]])
    with refused(ValueError, "must have the columns ['x0', 'x1']", "its header is ['age', 'x1']"):
        read_csv(io.StringIO("age,x1\n5,6\n"), ["x0", "x1"])


MISSING = "age,height\n,2\nNA,#N/A\nnan,NULL\n1,\n"


def test_missing_values_where_they_may_be():
    nan = np.nan
    want = [[nan, 2.0], [nan, nan], [nan, nan], [1.0, nan]]
    np.testing.assert_array_equal(read_csv(io.StringIO(MISSING), NAMES, missing=True), want)
    np.testing.assert_array_equal(read_csv(io.StringIO("1,2\n,\n"), NAMES, missing=True), [[1.0, 2.0], [nan, nan]])
    np.testing.assert_array_equal(read_csv(io.StringIO(",2\n1,\n"), NAMES, missing=True), [[nan, 2.0], [1.0, nan]])
    with refused(ValueError, "row 1, column 'age' must be a number; got ''"):
        read_csv(io.StringIO(MISSING), NAMES)


WRONG = {
    "other names": (
        "taille,alter\n150,30\n",
        ("must have the columns ['age', 'height']", "header is ['taille', 'alter']"),
    ),
    "other names and semicolons": (
        "taille;alter\n150;30\n",
        ("['age', 'height']", "its header is ['taille', 'alter']"),
    ),
    "one name missing": ("age,size\n1,2\n", ("missing: ['height']", "its header is ['age', 'size']")),
    "other case": ("Age,Height\n1,2\n", ("missing: ['age', 'height']",)),
    "too few numbers": ("1\n2\n", ("must have the columns ['age', 'height']", "its header is ['1']")),
    "too many numbers": (
        "1,2,3\n4,5,6\n",
        ("must have the columns ['age', 'height']", "its header is ['1', '2', '3']"),
    ),
    "a name twice": ("age,height,age\n1,2,3\n", ("must have every column once; got 'age' more than once",)),
    "thousands with points": ("age;height\n1,5;1.234,5\n", ("row 1, column 'height'", "got '1.234,5'", "thousands")),
    "points among decimal commas": (
        "age;height\n1,5;1.234\n",
        ("row 1, column 'height'", "got '1.234'", "mark here is ','"),
    ),
    "thousands with commas": ('age,height\n1,"1,234"\n', ("row 1, column 'height'", "got '1,234'", "thousands")),
    "thousands with commas and tabs": (
        "age\theight\n1\t1,234\n",
        ("row 1, column 'height'", "got '1,234'", "thousands"),
    ),
    "points among decimal commas and tabs": (
        "age\theight\n1,5\t1.234\n",
        ("row 1, column 'age' must be a number; got '1,5'", "mark here is '.'"),
    ),
    "thousands with spaces": ("age,height\n1,1 234\n", ("row 1, column 'height'", "got '1 234'", "thousands")),
    "thousands with narrow spaces": (
        "age,height\n1,1\u202f234\n",
        ("column 'height'", "got '1\\u202f234'", "thousands"),
    ),
    "thousands with underscores": ("age,height\n1,1_234\n", ("row 1, column 'height' must be a number; got '1_234'",)),
    "a unit": ("age,height\n1,2 m\n", ("row 1, column 'height' must be a number; got '2 m'",)),
    "text": ("age,height\n1,2\n3,x\n", ("row 2, column 'height' must be a number; got 'x'",)),
    "an empty cell": ("age,height\n1,\n2,3\n", ("row 1, column 'height' must be a number; got ''",)),
    "a short row": ("age,height\n1,2\n3\n", ("row 2, column 'height' must be a number; got ''",)),
    "a wide row": (
        "age,height\n1,5,2\n",
        ("row 1 must have 2 cells, as the first line has; got 3", "separated by ';'"),
    ),
    "not finite": ("age,height\n1,inf\n", ("must be finite; got inf in row 1, column 1",)),
    "a header alone": ("age,height\n", ("must have at least one row below its header",)),
    "a header and separators": ("age;height\n;\n", ("must have at least one row below its header",)),
    "nothing": ("", ("must have a header and at least one row; it is empty",)),
    "blank lines": ("\n \n\n", ("must have a header and at least one row; it is empty",)),
    "a cell without end": ('age,height\n1,"' + 200_000 * "x", ("must be a CSV file", "field larger than field limit")),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_tables_are_refused_by_file_and_place(name, tmp_path):
    text, parts = WRONG[name]
    path = tmp_path / "table.csv"
    path.write_text(text, encoding="utf-8", newline="")
    with refused(ValueError, "table.csv", *parts):
        read_csv(path, NAMES)


def test_other_encodings_are_refused_by_file_and_line(tmp_path):
    path = tmp_path / "table.csv"
    for content, line, byte in (
        ("age,height,town\n1,2,Paris\n3,4,Orléans\n".encode("latin-1"), 3, "0xe9"),
        ("âge,height\n1,2\n".encode("cp1252"), 1, "0xe2"),
        (b"PK\x03\x04\x14\x00\x06\x00\x08\x00\x00\x00!\x00\x9f", 1, "0x9f"),  # a workbook
        (codecs.BOM_UTF16_LE + "age".encode("utf-16-le") + b"x", 1, "0x78"),
        ("age,height\n1,2\n".encode("utf-16-le"), 1, "0x00"),
        ("age,height\n1,2\n".encode("utf-32"), 1, "0x00"),
    ):
        path.write_bytes(content)
        with refused(ValueError, "table.csv must be text in UTF-8", f"the byte {byte} in line {line}", "CSV UTF-8"):
            read_csv(path, NAMES)
