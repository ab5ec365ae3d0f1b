"""Manifests (CSV, JSON lines): rows that name image or sound files, or that hold the values of a sample."""

from __future__ import annotations

import array
import hashlib
import logging
import os
import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfkd.data import index_cache, kinds, manifest, targets
from tfkd.data.kinds import Kind
from tfkd.data.lazy import LazySamples
from tfkd.data.manifest import Row
from tfkd.data.reading import Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.errors import InputError

# Fewer rows may have consecutive numbers, or one value for each class, by chance.
_LEAST_ROWS = 20

# Names of columns with numbers of samples.
_ID = re.compile(r"(^|_)(id|idx|index)$", re.IGNORECASE)

log = logging.getLogger("tfkd")


def read(request: Request) -> Arrays:
    """Reads a manifest.

    With a column `path`, each row is an image or sound file, relative to the folder of the manifest. Without, the
    columns other than label, split and group are the values of a sample [F], or the column `x` is a list, which may be
    nested. Labels are a column `label` (a class; a number; names of labels with `|` between them; in JSON lines also a
    list of numbers or names), or several columns `label:NAME` with a number each.

    Raises:
        InputError: A row is wrong; the message names file and line.
    """
    path, options = request.path, request.options
    found = _kept_index(path, request.labels)
    _examine_groups(path, found)
    files, part = found.get("paths"), found.get("part")
    x: np.ndarray | LazySamples
    if files is None:
        if options.given:
            raise InputError(
                f"load: {options.given[0]} needs image or sound files. Received: {path} without a column path. Leave "
                "it out."
            )
        x, kept = found["x"], np.arange(len(found["x"]))
        _check_columns(path, x, found)
    else:
        kind = kinds.KINDS[int(found["kind"])]
        options.check(kind.options, str(path))
        _check_exist(path, files, found["line"])
        x, kept = kind.read(str(path), path.parent, files, options)
    return Arrays(
        x,
        found["y"][kept],
        class_names=tuple(found["classes"]),
        name=path.stem,
        location=str(path),
        part=None if part is None else part[kept],
        paths=None if files is None else files[kept],
        labels=str(found["label_kind"]),
    )


def kinds_of(request: Request) -> tuple[str, Kind | None]:
    """The kind of the labels of a manifest, and that of its files, which are not read; None where it has values.

    Args:
        request: The manifest.

    Raises:
        InputError: A row is wrong.
    """
    found = _kept_index(request.path, request.labels)
    return str(found["label_kind"]), kinds.KINDS[int(found["kind"])] if "kind" in found else None


def _kept_index(path: Path, labels: str | None) -> index_cache.Index:
    """What a manifest says, from the cache if it is there."""
    content = path.read_bytes()
    key = f"manifest, columns and groups {path.suffix.lower()} {labels} {hashlib.sha256(content).hexdigest()}"
    return index_cache.reuse(key, lambda: _index(path, content, labels))


def _index(path: Path, content: bytes, labels: str | None) -> index_cache.Index:
    """What a manifest says, in the form of the cache; whether files exist is no part of it."""
    rows = manifest.read(path, content)
    part = manifest.parts(path, rows)
    y, names, label_kind = targets.read(path, rows, labels)
    if part is not None and label_kind == "classes" and labels in (None, "classes"):
        _check_trained(path, rows, y, np.array(part))
    found = {"y": y, "classes": np.array(names, object), "label_kind": np.array(label_kind)}
    if part is not None:
        found["part"] = np.array(part)
    if "group" in rows[0].values:
        found["torn"] = np.array(_torn_groups(rows, part or ["train"] * len(rows)), object)
    if "path" not in rows[0].values:
        columns = _feature_columns(rows)
        pointed = np.array(["." in str(rows[0].values[name]) for name in columns], bool)
        return {**found, "x": _values(path, rows), "columns": np.array(columns, object), "pointed": pointed}
    kind = kinds.kind_of(str(rows[0].values["path"])) or kinds.IMAGES
    return {
        **found,
        "kind": np.array(kinds.KINDS.index(kind)),
        "paths": _files(path, rows, kind),
        "line": np.fromiter((row.line for row in rows), np.int64, len(rows)),
    }


def _torn_groups(rows: Sequence[Row], part: Sequence[str]) -> list[str]:
    """The groups of test samples that have samples of another part, too; a sample without a group is in none."""
    groups = [manifest.text_of(row.values["group"]) for row in rows]
    tested = {group for group, role in zip(groups, part, strict=True) if role == "test"}
    others = {group for group, role in zip(groups, part, strict=True) if role != "test"}
    return sorted((tested & others) - {""})


def _examine_groups(path: Path, found: index_cache.Index) -> None:
    """Warns where samples of one group train and test."""
    if "torn" not in found:
        return
    torn = found["torn"].tolist()
    if torn:
        log.warning(
            "%s: %s groups are in the test part and in another one, such as %r: the accuracy is too high where the "
            "samples of a group resemble each other.",
            path,
            len(torn),
            torn[0],
        )
    elif "part" not in found or "test" not in found["part"]:
        log.warning(
            "%s has a column group and no test part, which is drawn from samples and not from groups. Divide the data "
            "first: tfkd split --group group.",
            path,
        )


def _check_trained(path: Path, rows: Sequence[Row], y: np.ndarray, part: np.ndarray) -> None:
    """Raises for the first row whose class no training row has."""
    unknown = np.flatnonzero(~np.isin(y, y[part == "train"]))
    if len(unknown) and (part == "train").any():
        row = rows[int(unknown[0])]
        raise InputError(
            f"load: {path}, line {row.line}: the class must be one of those of the training rows. Received: "
            f"{row.values['label']!r}. Correct it, or add such rows to the part train."
        )


def _files(path: Path, rows: Sequence[Row], kind: Kind) -> np.ndarray:
    """The files of the rows, as they are written."""
    found: list[str] = []
    for row in rows:
        file = row.values["path"]
        if not isinstance(file, str) or not kind.accepts(file):
            raise InputError(
                f"load: {path}, line {row.line}: path must name one of the {kind.name} ({', '.join(kind.suffixes)}). "
                f"Received: {file!r}. Correct it or remove the line."
            )
        found.append(file)
    if len(set(found)) < len(found):
        lines: dict[str, int] = {}
        for row, file in zip(rows, found, strict=True):
            if (first := lines.setdefault(file, row.line)) != row.line:
                raise InputError(
                    f"load: {path}, line {row.line}: each file must occur once. Received: {file}, which line {first} "
                    "has too. Remove one."
                )
    return np.array(found, object)


def _check_exist(path: Path, files: np.ndarray, lines: np.ndarray) -> None:
    """Raises for the first file that does not exist. All names of a folder are read at once, one folder at a time."""
    rows_of: dict[str, array.array[int]] = {}
    for row, file in enumerate(files):
        rows_of.setdefault(file.rpartition("/")[0], array.array("q")).append(row)
    missing = len(files)
    for folder, rows in rows_of.items():
        names = _names(path.parent / folder)
        for row in rows:
            # A name that is written in another way, such as in capitals on macOS, or with `..`, is asked for itself.
            if files[row].rpartition("/")[2] not in names and not (path.parent / files[row]).is_file():
                missing = min(missing, row)
                break
    if missing < len(files):
        raise InputError(
            f"load: {path}, line {lines[missing]}: path must be a file, relative to the folder of the manifest. "
            f"Received: {files[missing]}, which does not exist. Correct it or remove the line."
        )


def _names(folder: Path) -> frozenset[str]:
    """The names of the files in a folder; none where it cannot be read."""
    try:
        with os.scandir(folder) as entries:
            return frozenset(entry.name for entry in entries if entry.is_file())
    except (OSError, ValueError):
        return frozenset()


def _feature_columns(rows: Sequence[Row]) -> list[str]:
    """The columns that hold the values of a sample."""
    return [name for name in rows[0].values if not manifest.is_no_feature(name)]


def _check_columns(path: Path, x: np.ndarray, found: index_cache.Index) -> None:
    """Refuses columns that number the rows, and warns of those that give the class away.

    The classes of a table often follow one another, so that a number of the row tells the class; no new sample has one.
    Beside values of a regression it may be the time. A measurement, such as an age, is written with a point.
    """
    columns, kind = found["columns"], str(found["label_kind"])
    if x.ndim != 2 or len(columns) != x.shape[1]:
        return
    numbering = _numbering_columns(x) if kind != "values" else []
    if x.shape[1] == 1:  # a number of its own may be all there is; ids beside labels, as of a list of files, are none
        numbering = [column for column in numbering if _ID.search(columns[column])]
    numbering = [column for column in numbering if not found["pointed"][column]]
    for column, name in enumerate(columns):
        if not name or column in numbering:
            fault = "numbers the rows" if name else "has no name, such as one that pandas adds for the index"
            other = "write its values with a point, 1.0, if it is a measurement such as an age" if name else "name it"
            raise InputError(
                f"load: {path}: a column must hold values that new samples have, too. Received: column {name!r}, which "
                f"{fault}. Remove it, or {other}."
            )
    for column in _columns_of_class(x, found["y"]) if kind == "classes" else ():
        log.warning(
            "%s: column %r has one value for each class, and another one for each. Remove it if it is the label once "
            "more.",
            path,
            columns[column],
        )


def _numbering_columns(x: np.ndarray) -> list[int]:
    """The columns of x [N, C] with consecutive whole numbers, each once, in so many rows that it is no chance."""
    if len(x) < _LEAST_ROWS:
        return []
    spanning = np.flatnonzero(x.max(axis=0) - x.min(axis=0) == len(x) - 1)
    return [int(column) for column in spanning if (np.diff(np.sort(x[:, column])) == 1).all()]


def _columns_of_class(x: np.ndarray, y: np.ndarray) -> list[int]:
    """The columns of x [N, C] in which all samples of a class have one value, and those of each class another one."""
    classes, first, numbers = np.unique(y, return_index=True, return_inverse=True)
    if len(y) < _LEAST_ROWS or len(classes) < 2:
        return []
    known = x[first]
    # A few rows rule out most columns.
    fitting = np.flatnonzero((x[:_LEAST_ROWS] == known[numbers[:_LEAST_ROWS]]).all(axis=0))
    return [
        int(column)
        for column in fitting
        if len(np.unique(known[:, column])) == len(classes) and (x[:, column] == known[numbers, column]).all()
    ]


def _values(path: Path, rows: Sequence[Row]) -> np.ndarray:
    """The values of the rows as float32 [N, ...]."""
    columns = _feature_columns(rows)
    if not columns:
        raise InputError(
            f"load: {path} must have a column path, a column x, or columns of numbers. Received: the columns "
            f"{', '.join(rows[0].values)}. Add one."
        )
    if columns == ["x"] and isinstance(rows[0].values["x"], list):
        found = [_array(path, row) for row in rows]
        for row, values in zip(rows, found, strict=True):
            if values.shape != found[0].shape:
                raise InputError(
                    f"load: {path}, line {row.line}: x must have the shape of line {rows[0].line}, {found[0].shape}. "
                    f"Received: {values.shape}. Pad or cut it."
                )
        return np.stack(found)
    named = next((name for name in columns if kinds.kind_of(str(rows[0].values[name]))), None)
    if named is not None:
        raise InputError(
            f"load: {path}: the column with the files of the samples must be called path. Received: {named!r}, with "
            f"{rows[0].values[named]!r}. Rename it."
        )
    return np.array(
        [[manifest.number(path, row, name, row.values[name]) for name in columns] for row in rows], np.float32
    )


def _array(path: Path, row: Row) -> np.ndarray:
    try:
        values = np.array(row.values["x"], np.float32)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"load: {path}, line {row.line}: x must be a list of numbers, with inner lists of one length. "
            f"Received: {str(row.values['x'])[:60]}. Correct it."
        ) from error
    if not values.size or not np.isfinite(values).all():
        raise InputError(f"load: {path}, line {row.line}: x must have finite numbers. Received: none, NaN or infinity.")
    return values


SOURCE = Source(
    accepts=lambda request: request.path.suffix.lower() in manifest.SUFFIXES and request.path.is_file(),
    read=read,
    options=kinds.OPTIONS,
)
