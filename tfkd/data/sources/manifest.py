"""Manifests (CSV, JSON lines): rows that name image or sound files, or that hold the values of a sample."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfkd.data import kinds, manifest, targets
from tfkd.data.kinds import Kind
from tfkd.data.manifest import Row
from tfkd.data.reading import Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.errors import InputError


def read(request: Request) -> Arrays:
    """Reads a manifest.

    With a column `path`, each row is an image or sound file, relative to the folder of the manifest. Without, the
    columns other than label, split and group are the values of a sample [F], or the column `x` is a list, which may be
    nested. Labels are a column `label` (a class; a number; names of labels with `|` between them; in JSON lines also a
    list of numbers or names), or several columns `label:NAME` with a number each.

    Raises:
        InputError: A row is wrong; the message names file and line.
    """
    path = request.path
    rows = manifest.read(path)
    part = manifest.parts(path, rows)
    y, names, label_kind = targets.read(path, rows, request.labels)
    files = None
    if "path" in rows[0].values:
        kind = kinds.kind_of(str(rows[0].values["path"])) or kinds.IMAGES
        request.options.check(kind.options, str(path))
        files = _files(path, rows, kind)
        x, kept = kind.read(str(path), path.parent, files, request.options)
    else:
        if request.options.given:
            raise InputError(
                f"load: {request.options.given[0]} needs image or sound files. Received: {path} without a column path. "
                "Leave it out."
            )
        x, kept = _values(path, rows), np.arange(len(rows))
    return Arrays(
        x,
        y[kept],
        class_names=names,
        name=path.stem,
        location=str(path),
        part=None if part is None else np.array(part)[kept],
        paths=None if files is None else files[kept],
        labels=label_kind,
    )


def _files(path: Path, rows: Sequence[Row], kind: Kind) -> np.ndarray:
    """The files of the rows, as they are written; each must exist."""
    lines: dict[str, int] = {}
    for row in rows:
        file = row.values["path"]
        if not isinstance(file, str) or not kind.accepts(file):
            raise InputError(
                f"load: {path}, line {row.line}: path must name one of the {kind.name} ({', '.join(kind.suffixes)}). "
                f"Received: {file!r}. Correct it or remove the line."
            )
        if not (path.parent / file).is_file():
            raise InputError(
                f"load: {path}, line {row.line}: path must be a file, relative to the folder of the manifest. "
                f"Received: {file}, which does not exist. Correct it or remove the line."
            )
        if file in lines:
            raise InputError(
                f"load: {path}, line {row.line}: each file must occur once. Received: {file}, which line {lines[file]} "
                "has too. Remove one."
            )
        lines[file] = row.line
    return np.array(list(lines), object)


def _values(path: Path, rows: Sequence[Row]) -> np.ndarray:
    """The values of the rows as float32 [N, ...]."""
    columns = [name for name in rows[0].values if not manifest.is_no_feature(name)]
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
    return np.array(
        [[manifest.number(path, row, name, row.values[name]) for name in columns] for row in rows], np.float32
    )


def _array(path: Path, row: Row) -> np.ndarray:
    try:
        values = np.array(row.values["x"], np.float32)
    except (ValueError, TypeError) as error:
        raise InputError(
            f"load: {path}, line {row.line}: x must be a list of numbers, with inner lists of one length. "
            f"Received: {error}. Correct it."
        ) from None
    if not values.size or not np.isfinite(values).all():
        raise InputError(f"load: {path}, line {row.line}: x must have finite numbers. Received: none, NaN or infinity.")
    return values


SOURCE = Source(
    accepts=lambda request: request.path.suffix.lower() in manifest.SUFFIXES and request.path.is_file(),
    read=read,
    options=kinds.OPTIONS,
)
