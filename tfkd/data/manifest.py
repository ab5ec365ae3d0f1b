"""Manifests: tables with one row for each file of a data set, its label and its part."""

from __future__ import annotations

import csv
import io
import os
from pathlib import Path

from tfkd._internal import atomic
from tfkd.data.splits import Splits


def write(path: Path, splits: Splits, root: Path) -> None:
    """Writes a CSV file with the columns path, label and split, in the order of the paths.

    Args:
        path: File to write; the paths in it are relative to its folder.
        splits: Splits of files.
        root: Folder that the paths of the splits are relative to.
    """
    folder = path.resolve().parent
    rows = []
    for split in splits:
        assert split.paths is not None
        for file, label in zip(split.paths, split.y, strict=True):
            place = Path(os.path.relpath(root.resolve() / file, folder)).as_posix()
            rows.append((place, split.class_names[label], split.role))
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("path", "label", "split"), *sorted(rows)])
    atomic.write(path, text.getvalue())
