"""Manifests: tables with one row per sample, with its label, its part, and its file or its values."""

from __future__ import annotations

import array
import csv
import io
import json
import math
import os
import posixpath
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, overload

import numpy as np

from tfkd._internal import atomic
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.data.splits import Role, Split, Splits
from tfkd.errors import InputError

SUFFIXES = (".csv", ".jsonl", ".ndjson")
# Names of the parts, as folders and in the column `split`.
LABEL_PREFIX = "label:"
# Between the names of several labels of one sample.
SEPARATOR = "|"
PARTS: Mapping[str, Role] = {"train": "train", "val": "val", "validation": "val", "valid": "val", "test": "test"}


class Row(NamedTuple):
    """One row of a manifest.

    Args:
        line: Its number in the file, from 1.
        values: Values by column.
    """

    line: int
    values: JsonObject


class _Table(Sequence[Row]):
    """The rows of a CSV file, of which the columns are kept: a row needs ten times as much memory.

    Args:
        columns: Names of the columns.
    """

    def __init__(self, columns: Sequence[str]) -> None:
        self._columns: dict[str, list[str]] = {name: [] for name in columns}
        self._lines = array.array("q")
        # One object for equal texts, such as labels, in columns with few of them.
        self._texts: dict[str, dict[str, str]] = {name: {} for name in columns}

    def append(self, line: int, values: Sequence[str]) -> None:
        """Adds a row."""
        self._lines.append(line)
        for column, texts, value in zip(self._columns.values(), self._texts.values(), values, strict=True):
            column.append(texts.setdefault(value, value) if len(texts) < _DISTINCT else texts.get(value, value))

    def __len__(self) -> int:
        return len(self._lines)

    def __iter__(self) -> Iterator[Row]:
        names = tuple(self._columns)
        for line, values in zip(self._lines, zip(*self._columns.values(), strict=True), strict=True):
            yield Row(line, dict(zip(names, values, strict=True)))

    @overload
    def __getitem__(self, place: int) -> Row: ...
    @overload
    def __getitem__(self, place: slice) -> list[Row]: ...
    def __getitem__(self, place: int | slice) -> Row | list[Row]:
        if isinstance(place, slice):
            return [self[one] for one in range(*place.indices(len(self)))]
        return Row(self._lines[place], {name: column[place] for name, column in self._columns.items()})


# Signs that separate the columns of tables that are no CSV files with commas.
_SEPARATORS = {";": "semicolons", "\t": "tabs"}
# Texts of a column of which equal ones are found.
_DISTINCT = 10_000


def read(path: Path, content: bytes | None = None) -> Sequence[Row]:
    """The rows of a manifest, which all have the same columns.

    Args:
        path: CSV file whose first line names the columns, or JSON-lines file of objects.
        content: Its bytes; None to read them.

    Raises:
        InputError: The file has no rows, another form or unequal columns; the message names file and line.
    """
    content = path.read_bytes() if content is None else content
    try:
        rows = _csv_rows(path, content) if path.suffix.lower() == ".csv" else list(_json_rows(path, content))
    except UnicodeDecodeError as error:
        raise InputError(f"load: {path} must be text in UTF-8. Received: {error}. Save it as UTF-8.") from None
    if not rows:
        raise InputError(f"load: {path} must have a row per sample. Received: none. Add rows.")
    return rows


def _csv_rows(path: Path, content: bytes) -> Sequence[Row]:
    reader = csv.reader(io.TextIOWrapper(io.BytesIO(content), encoding="utf-8-sig", newline=""), strict=True)
    try:
        columns = [name.strip() for name in next(reader, [])]
        other = next((name for sign, name in _SEPARATORS.items() if len(columns) == 1 and sign in columns[0]), None)
        if other:
            raise InputError(
                f"load: {path}, line 1: columns must be separated by commas. Received: {other}. Save it with commas, "
                "and numbers with a point."
            )
        if len(set(columns)) < len(columns):
            raise InputError(
                f"load: {path}, line 1: each column must have a name of its own. Received: {columns}. Add a first line "
                "with the names of the columns where there is none."
            )
        table = _Table(columns)
        for values in reader:
            if len(values) != len(columns) and values:
                raise InputError(
                    f"load: {path}, line {reader.line_num}: each row must have the {len(columns)} columns of line 1. "
                    f"Received: {len(values)} values. Correct the line."
                )
            if values:
                table.append(reader.line_num, values)
    except csv.Error as error:
        raise InputError(f"load: {path}, line {reader.line_num}: must be CSV. Received: {error}. Correct it.") from None
    return table


def _json_rows(path: Path, content: bytes) -> Iterator[Row]:
    first: Row | None = None
    for line, text in enumerate(io.StringIO(content.decode("utf-8-sig"), newline=None), 1):  # at no other separators
        if not text.strip():
            continue
        try:
            values = json.loads(text)
        except ValueError as error:
            raise InputError(f"load: {path}, line {line}: must be JSON. Received: {error}. Correct it.") from None
        if not isinstance(values, dict):
            raise InputError(f"load: {path}, line {line}: must be a JSON object. Received: {text[:40]}. Correct it.")
        row = Row(line, values)
        first = first or row
        if values.keys() != first.values.keys():
            unequal = ", ".join(sorted(values.keys() ^ first.values.keys()))
            raise InputError(
                f"load: {path}, line {line}: each row must have the same columns. Received: {unequal} in one of it and "
                f"line {first.line} only. Correct the line."
            )
        yield row


def is_no_feature(column: str) -> bool:
    """Whether a column holds no values of a sample: the label, the part or the group."""
    return column in ("label", "split", "group") or column.startswith(LABEL_PREFIX)


def text_of(value: Any) -> str:
    """The value of a cell as text without blanks around it; empty for one that is missing."""
    return "" if value is None else str(value).strip()


def check_has_labels(path: Path, rows: Sequence[Row]) -> None:
    """Raises where a manifest has no column `label`.

    Raises:
        InputError: There is none.
    """
    if rows and not any("label" in row.values for row in rows):
        columns = ", ".join([*rows[0].values][:10])
        raise InputError(
            f"load: {path} must have a column label with the class or value of each sample, or columns "
            f"{LABEL_PREFIX}NAME for several. Received: the columns {columns}. Rename the column of the labels, add a "
            "first line with the names of the columns where there is none, and remove columns that are no values of "
            "the samples, such as numbers of rows."
        )


def labels(path: Path, rows: Sequence[Row]) -> list[str]:
    """The label of each row as text.

    Raises:
        InputError: There is no column `label`, or a label is empty.
    """
    check_has_labels(path, rows)
    found = []
    for row in rows:
        label = row.values.get("label")
        if label is None or isinstance(label, list | dict | float) or not str(label).strip():
            raise InputError(
                f"load: {path}, line {row.line}: the column label must have the class of the sample, a name or a whole "
                f"number. Received: {label!r}. Add it."
            )
        found.append(str(label).strip())
    return found


# A whole number, also as pandas writes it in a column with gaps: -1, 10, 2.0.
_WHOLE = re.compile(r"[+-]?\d+(\.0*)?", re.ASCII)


def classes(names: Sequence[str]) -> tuple[str, ...]:
    """The distinct labels: whole numbers by value, other labels by their characters."""
    distinct = set(names)
    if all(_WHOLE.fullmatch(name) for name in distinct):
        return tuple(sorted(distinct, key=lambda name: (int(name.partition(".")[0]), name)))
    return tuple(sorted(distinct))


def number(path: Path, row: Row, column: str, value: Any) -> float:
    """A finite number of a row.

    Args:
        path: The manifest, for messages.
        row: A row.
        column: The column.
        value: The value of the column, or one of them where it holds a list.

    Raises:
        InputError: It is no finite number.
    """
    try:
        found = float(value)
    except (ValueError, TypeError):
        found = math.nan
    if not math.isfinite(found):
        raise InputError(
            f"load: {path}, line {row.line}: column {column!r} must be a finite number. Received: {value!r}. Correct "
            "it, or remove the line or the column."
        )
    return found


def parts(path: Path, rows: Sequence[Row]) -> list[Role] | None:
    """The part of each row; None where there is no column `split`.

    Raises:
        InputError: A part has another name than train, val, validation or test.
    """
    if "split" not in rows[0].values:
        return None
    for row in rows:
        if row.values["split"] not in PARTS:
            raise InputError(
                f"load: {path}, line {row.line}: split must be train, val or test. Received: "
                f"{row.values['split']!r}. Correct it, or leave the whole column out."
            )
    return [PARTS[row.values["split"]] for row in rows]


def write_rows(path: Path, rows: Sequence[JsonRecord]) -> None:
    """Writes a manifest.

    Args:
        path: File that ends in .csv, .jsonl or .ndjson.
        rows: Values by column, each with the same columns.

    Raises:
        InputError: The suffix is another one, or a value does not fit into CSV.
    """
    if path.suffix.lower() not in SUFFIXES:
        raise InputError(f"{path}: a manifest ends in .csv or .jsonl. Choose another name.")
    if path.suffix.lower() != ".csv":
        atomic.write(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
        return
    if any(isinstance(value, list | dict) for row in rows for value in row.values()):
        raise InputError(f"{path}: CSV cannot hold lists of values. Choose a name that ends in .jsonl.")
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    atomic.write(path, text.getvalue())


def write(path: Path, splits: Splits, root: Path) -> None:
    """Writes a manifest with the columns path, label and split, in the order of the paths.

    Values of several columns have a column `label:NAME` each. Masks, boxes and points have none: they are in files.

    Args:
        path: CSV file to write; the paths in it are relative to its folder.
        splits: Splits of files.
        root: Folder that the paths of the splits are relative to.
    """
    base = relative(root, path)

    def name(file: str) -> str:
        if os.path.isabs(file) or ".." in file or posixpath.normpath(file) != file:
            return relative(root / file, path)
        return file if base == "." else f"{base}/{file}"  # the same, in a tenth of the time

    rows, columns = list[list[str]](), _label_columns(splits.train)
    for split in splits:
        assert split.paths is not None
        rows += [
            [name(file), *labels, split.role] for file, labels in zip(split.paths, _label_texts(split), strict=True)
        ]
    with atomic.replacing(path) as part, part.open("w", encoding="utf-8", newline="") as stream:
        writer = csv.writer(stream, lineterminator="\n")
        writer.writerow(("path", *columns, "split"))
        writer.writerows(sorted(rows))


def _label_columns(split: Split) -> list[str]:
    """The names of the columns with the labels."""
    if split.label_kind == "values" and split.y.ndim == 2:
        return [LABEL_PREFIX + name for name in split.class_names]
    return ["label"] if split.y.ndim == 1 or split.label_kind == "multi_hot" else []


def _label_texts(split: Split) -> list[list[str]]:
    """The labels of each sample in these columns."""
    if split.label_kind == "values":
        return split.y.reshape(len(split), -1).astype(str).tolist()
    if split.label_kind == "multi_hot":
        names = np.array(split.class_names)
        return [[SEPARATOR.join(names[row.astype(bool)])] for row in split.y]
    if split.y.ndim == 1:
        return [[split.class_names[int(label)]] for label in split.y]
    return [[] for _ in range(len(split))]


def relative(file: Path, manifest: Path) -> str:
    """The path of a file relative to the folder of a manifest, with `/` on every system."""
    return Path(os.path.relpath(os.path.abspath(file), manifest.resolve().parent)).as_posix()
