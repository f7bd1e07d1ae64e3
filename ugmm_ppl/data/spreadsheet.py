"""CSV files as spreadsheets write them: byte order marks, semicolons and tabs, decimal commas.

What separates the cells is decided by the header: that with which it holds the names that are needed. Where semicolons
do, a comma is the decimal mark, as in the languages whose spreadsheets write them; where tabs do, if the numbers show
it: 1,5 does, and 1,500 or a point beside it do not.
"""

from __future__ import annotations

import codecs
import csv
import io
import math
import re
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from ugmm_ppl.checks import files as checks
from ugmm_ppl.checks.data import inputs, names_of
from ugmm_ppl.data.files import called, is_path, reading
from ugmm_ppl.typing import Rows

SEPARATORS = (",", ";", "\t")
ENCODINGS = {codecs.BOM_UTF8: "utf-8-sig", codecs.BOM_UTF16_LE: "utf-16", codecs.BOM_UTF16_BE: "utf-16"}
"""By the bytes that a file begins with; without them it is UTF-8, in which there is no zero."""

MISSING = ("", "na", "n/a", "#n/a", "nan", "null")
"""Cells that stand for a missing value, in any case of letters."""

WORDS = {"true": 1.0, "false": 0.0, "inf": math.inf, "-inf": -math.inf}
THOUSANDS = re.compile(r"[0-9],[0-9]{3}(?![0-9])")
NUMBER = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)


class Sheet(NamedTuple):
    """Rows of a CSV file.

    Attributes:
        name: What messages call the file.
        header: The first row.
        has_header: Whether it holds names.
        rows: The rows below, or all.
        separator: What separates the cells.
    """

    name: str
    header: list[str]
    has_header: bool
    rows: list[list[str]]
    separator: str

    @classmethod
    def read(cls, file: Any, names: Sequence[str]) -> Sheet:
        """Read a file, given by path or open, whose header may have these names."""
        name, text = called(file), text_of(file)
        hint = re.match(r'"?sep=(.)"?\r?\n', text)  # a first line for Excel alone
        text = text[hint.end() :] if hint else text
        firsts = {
            sep: first for sep in (hint[1] if hint else SEPARATORS) if (first := next(_rows(name, text, sep), None))
        }
        if not firsts:
            raise checks.empty_table(name)
        separator = next(
            (sep for sep, first in firsts.items() if set(names) <= set(first)),
            next((s for s in firsts if _all_numbers(firsts[s], len(names))), max(firsts, key=lambda s: len(firsts[s]))),
        )
        rows, header = list(_rows(name, text, separator)), firsts[separator]
        has_header = set(names) <= set(header) or not _all_numbers(header, len(header))
        return cls(name, header, has_header, rows[has_header:], separator)

    def columns(self, columns: Sequence[int], names: Sequence[str], *, missing: bool) -> list[list[float]]:
        """Numbers of some columns, row by row; with `missing` a missing value is NaN."""
        rows, picked = list(self.rows), []
        while rows and not any(rows[-1]) and not missing:  # lines of nothing but separators
            rows.pop()
        if not rows:
            raise checks.no_rows(self.name)
        for number, row in enumerate(rows, start=1):
            if any(row[len(self.header) :]):
                raise checks.wide_row(self.name, number, row, len(self.header))
            picked.append([row[column] if column < len(row) else "" for column in columns])
        comma = _decimal_comma(self.separator, [cell for row in picked for cell in row])
        found = []
        for number, row in enumerate(picked, start=1):
            values = [number_of(cell, comma=comma, missing=missing) for cell in row]
            if None in values:
                at = values.index(None)
                raise checks.no_number(self.name, number, names[at], row[at], "," if comma else ".")
            found.append([value for value in values if value is not None])
        return found


def text_of(file: Any) -> str:
    """All text of a file, given by path or open."""
    if is_path(file) or not hasattr(file, "read"):
        with reading(file) as opened:
            content: Any = opened.read()
    else:
        content = file.read()
    if isinstance(content, str):
        return content.removeprefix("\ufeff")
    encoding = next((own for mark, own in ENCODINGS.items() if content.startswith(mark)), "utf-8")
    try:
        text = content.decode(encoding)
    except UnicodeDecodeError as error:
        raise checks.encoding(called(file), content, error.start) from error
    if "\0" in text:  # UTF-16 without a mark, or UTF-32
        raise checks.encoding(called(file), content, content.index(0))
    return text


def _decimal_comma(separator: str, cells: Sequence[str]) -> bool:
    """Whether a comma is the decimal mark of these cells."""
    commas = [cell for cell in cells if "," in cell]
    if separator != "\t":
        return separator == ";" and bool(commas)
    return any(not THOUSANDS.search(cell) for cell in commas) and not any("." in cell for cell in cells)


def number_of(cell: str, *, comma: bool, missing: bool) -> float | None:
    """The number in a cell, None if there is none. With `comma` that is the decimal mark, and a point is none."""
    word = cell.lower()
    if word in MISSING and (missing or word == "nan"):
        return math.nan
    if word in WORDS:
        return WORDS[word]
    text = cell.replace(".", "?").replace(",", ".") if comma else cell
    return float(text) if NUMBER.fullmatch(text) else None


def _rows(name: str, text: str, separator: str) -> Iterator[list[str]]:
    """Stripped cells of the rows, from the first one that is not blank; blank lines are passed over."""
    begun = False
    try:
        for row in csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True):
            cells = [cell.strip() for cell in row]
            begun = begun or any(cells)
            if cells and begun:
                yield cells
    except csv.Error as error:
        raise checks.no_csv(name, error) from error


def _all_numbers(row: Sequence[str], count: int) -> bool:
    """Whether a row has that many cells with content, all of them numbers or missing."""
    cells = list(row)
    while cells and not cells[-1] and len(cells) > count:
        cells.pop()
    numbers = [number_of(cell, comma="," in cell, missing=True) for cell in cells]
    return len(cells) == count and None not in numbers and any(cells)


def read_csv(path: Any, feature_names: Sequence[str], *, missing: bool = False) -> Rows:
    """Read the columns of a CSV file that a fit needs.

    Columns are found by the names in the header, in any order, and others are passed over. A file of numbers alone,
    without a header, is taken in order; so is any header where the fit has no names of its own (x0, x1, ...). Cells are
    separated by commas, tabs, or semicolons with decimal commas (`ugmm_ppl.data.spreadsheet`).

    Args:
        path: The file, or an open one: UTF-8, or UTF-16 with a byte order mark.
        feature_names: The K columns that are needed.
        missing: Whether a value may be missing: an empty cell, NA, N/A, NaN or null, which is NaN in the array.

    Returns:
        Array `(B, K)`.

    Raises:
        ValueError: Another encoding, missing columns, no rows, or a cell that is not a number; says which.
    """
    names = [name.strip() for name in feature_names]
    sheet = Sheet.read(path, names)
    unnamed = list(feature_names) == names_of(None, len(names), "x", "")
    widths = (len(sheet.header), max(i for i, cell in enumerate(sheet.header, start=1) if cell))  # and without its end
    if len(names) in widths and not set(names) & set(sheet.header) and (unnamed or not sheet.has_header):
        columns = list(range(len(names)))
    else:
        checks.columns(sheet.name, sheet.header, names)
        columns = [sheet.header.index(name) for name in names]
    table = np.array(sheet.columns(columns, names, missing=missing))
    return table if missing else inputs(table, len(columns), what=sheet.name, first_row=1)
