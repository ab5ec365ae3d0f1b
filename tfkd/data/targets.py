"""Labels of a manifest: classes, values of a regression, or sets of labels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfkd.data import frame_labels, manifest
from tfkd.data.manifest import LABEL_PREFIX, SEPARATOR, Row
from tfkd.errors import InputError


def read(path: Path, rows: Sequence[Row], kind: str | None) -> tuple[np.ndarray, tuple[str, ...], str]:
    """The labels of the rows.

    Without a declared kind, columns `label:NAME` of which all values are 0 or 1 and lists of names are multi-hot; other
    such columns, lists of numbers, and a column `label` of numbers of which some are no whole numbers are values; any
    other column `label` has classes.

    Args:
        path: The manifest, for messages.
        rows: Its rows.
        kind: Kind of the labels, see `tfkd.data.label_kinds`; None to find it.

    Returns:
        Labels [N] or [N, K]; the names of the classes or columns; the kind.

    Raises:
        InputError: A label is wrong; the message names file and line.
    """
    columns = [name for name in rows[0].values if name.startswith(LABEL_PREFIX)]
    if columns:
        return _of_columns(path, rows, columns, kind)
    manifest.check_has_labels(path, rows)
    values = [row.values.get("label") for row in rows]
    if kind == frame_labels.KIND:
        return (*_frames(path, rows), kind)
    if isinstance(values[0], list) and kind != "classes":
        if all(isinstance(name, str) for value in values if isinstance(value, list) for name in value):
            return (*_sets(path, rows, kind), "multi_hot")
        return (*_vectors(path, rows), kind or "values")
    if kind == "multi_hot":
        return (*_sets(path, rows, kind), kind)
    if kind == "values" or (kind is None and _are_fractions(values)):
        numbers = [manifest.number(path, row, "label", value) for row, value in zip(rows, values, strict=True)]
        return np.array(numbers), ("label",), "values"
    labels = manifest.labels(path, rows)
    names = manifest.classes(labels)
    found = {name: number for number, name in enumerate(names)}
    return np.array([found[label] for label in labels]), names, "classes"


def _of_columns(
    path: Path, rows: Sequence[Row], columns: Sequence[str], kind: str | None
) -> tuple[np.ndarray, tuple[str, ...], str]:
    if "label" in rows[0].values or kind == "classes":
        raise InputError(
            f"load: {path} must have either a column label or columns {', '.join(columns[:3])}, which are values or "
            "labels that apply or not. Received: both, or classes. Leave one out."
        )
    y = np.array([[manifest.number(path, row, column, row.values[column]) for column in columns] for row in rows])
    names = tuple(column.removeprefix(LABEL_PREFIX) for column in columns)
    return y, names, kind or ("multi_hot" if ((y == 0) | (y == 1)).all() else "values")


def _sets(path: Path, rows: Sequence[Row], kind: str | None) -> tuple[np.ndarray, tuple[str, ...]]:
    """Multi-hot rows [N, C], and the name of each label in alphabetical order."""
    sets = [_names(path, row) for row in rows]
    names = manifest.classes([name for one in sets for name in one])
    if not names:
        raise InputError(f"load: {path} must have labels. Received: none in any row. Add names to the column label.")
    places = {name: place for place, name in enumerate(names)}
    y = np.zeros((len(rows), len(names)), np.int64)
    for number, one in enumerate(sets):
        y[number, [places[name] for name in one]] = 1
    return y, names


def _names(path: Path, row: Row) -> list[str]:
    value = row.values.get("label")
    names = value.split(SEPARATOR) if isinstance(value, str) else value
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(
            f"load: {path}, line {row.line}: label must be names with {SEPARATOR} between them, or a list of names. "
            f"Received: {value!r}. Correct it; a sample without labels has an empty text or list."
        )
    return [name.strip() for name in names if name.strip()]


def _vectors(path: Path, rows: Sequence[Row]) -> tuple[np.ndarray, tuple[str, ...]]:
    """Lists of numbers [N, K]."""
    found = []
    for row in rows:
        value = row.values.get("label")
        if not isinstance(value, list) or len(value) != len(rows[0].values["label"]):
            raise InputError(
                f"load: {path}, line {row.line}: label must be a list of as many numbers as in line {rows[0].line}. "
                f"Received: {value!r}. Correct it."
            )
        found.append([manifest.number(path, row, "label", one) for one in value])
    return np.array(found), tuple(map(str, range(len(found[0]))))


def _frames(path: Path, rows: Sequence[Row]) -> tuple[np.ndarray, tuple[str, ...]]:
    """The class of each frame, int [N, T], and the names of the classes; a background has the number 0."""
    length = len(rows[0].values["label"]) if isinstance(rows[0].values.get("label"), list) else 0
    for row in rows:
        value = row.values.get("label")
        if not isinstance(value, list) or len(value) != length or not all(isinstance(one, str | int) for one in value):
            raise InputError(
                f"load: {path}, line {row.line}: label must be a list with a class number or name for each frame, as "
                f"many as in line {rows[0].line}. Received: {str(value)[:60]}. Correct it; -1 marks a frame to ignore."
            )
    frames = [row.values["label"] for row in rows]
    if all(isinstance(one, int) for frame in frames for one in frame):
        return np.array(frames, np.int64), ()
    found = {str(one) for frame in frames for one in frame} - {str(frame_labels.IGNORED)}
    names = tuple(sorted(found, key=lambda name: (name.lower() not in frame_labels.BACKGROUND, name)))
    numbers = {**{name: number for number, name in enumerate(names)}, str(frame_labels.IGNORED): frame_labels.IGNORED}
    return np.array([[numbers[str(one)] for one in frame] for frame in frames], np.int64), names


def _are_fractions(values: Sequence[Any]) -> bool:
    """Whether all values are numbers, and some of them no whole ones."""
    try:
        numbers = np.array([float(value) for value in values])
    except (ValueError, TypeError):
        return False
    return bool(np.isfinite(numbers).all() and (numbers != np.floor(numbers)).any())
