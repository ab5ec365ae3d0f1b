"""Folders of images or sounds with one sub-folder per class, or with `train/`, `val/` and `test/` of that form."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkd.data import images, kinds
from tfkd.data.kinds import Kind
from tfkd.data.manifest import PARTS
from tfkd.data.reading import Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.data.splits import Role
from tfkd.errors import InputError

log = logging.getLogger("tfkd")


class _Files(NamedTuple):
    """The files of one part.

    Args:
        paths: Paths relative to the data set.
        y: Class numbers [N].
        classes: Name of each class.
    """

    paths: list[str]
    y: np.ndarray
    classes: tuple[str, ...]


def read(request: Request) -> Arrays:
    """Reads the images of a folder as uint8 [N, H, W, C], or its sounds; the names of the sub-folders are the classes.

    Raises:
        InputError: The folder has another structure, or an image is unreadable or has another size.
    """
    root = request.path
    kind = _kind_of(root)
    request.options.check(kind.options, str(root))
    found, names = _list(root, kind)
    paths = np.array([path for files in found.values() for path in files.paths], object)
    y = np.concatenate([files.y for files in found.values()])
    part = np.repeat(list(found), [len(files.y) for files in found.values()])
    x, kept = kind.read(str(root), root, paths, request.options)
    return Arrays(
        x,
        y[kept],
        class_names=names,
        name=root.resolve().name,
        location=str(root),
        part=part[kept],
        paths=paths[kept],
        labels="classes",
    )


def rows(root: Path) -> Iterator[tuple[str, str, str]]:
    """The path of each file relative to the folder, its class, and its part, which is empty in one without parts.

    Args:
        root: Folder of class folders, or of `train/` and others of that form.

    Raises:
        InputError: The folder has another structure.
    """
    found, names = _list(root, _kind_of(root))
    has_parts = root not in _part_folders(root).values()
    for part, files in found.items():
        for path, label in zip(files.paths, files.y, strict=True):
            yield path, names[label], part if has_parts else ""


def _kind_of(root: Path) -> Kind:
    """The kind of the first image or sound below a folder; images where there is none."""
    return next(_kinds(root), kinds.IMAGES)


def _kinds(folder: Path) -> Iterator[Kind]:
    for entry in _visible(folder):
        if entry.is_dir():
            yield from _kinds(Path(entry.path))
        elif kind := kinds.kind_of(entry.name):
            yield kind


def _list(root: Path, kind: Kind) -> tuple[dict[Role, _Files], tuple[str, ...]]:
    """The files of each part, and the names of the classes."""
    others: list[str] = []
    found = {part: _list_classes(root, folder, kind, others) for part, folder in _part_folders(root).items()}
    if others:
        log.warning(
            "%s: files that are no %s are skipped (%s): %s.", root, kind.name, len(others), images.listed(others)
        )
    return found, _common_classes(root, found)


def _part_folders(root: Path) -> dict[Role, Path]:
    """The folder of each part; the data set itself as `train` where it has no parts."""
    folders = [entry.name for entry in _visible(root) if entry.is_dir()]
    if not set(folders) & {"train", "test"}:
        return {"train": root}
    parts = [PARTS.get(name) for name in folders]
    if None in parts or "train" not in parts or len(set(parts)) < len(parts):
        raise InputError(
            f"load: {root} must hold either train/, val/ and test/, of which val/ and test/ may be missing, or class "
            f"folders only. Received: {', '.join(sorted(folders))}. Move or rename the other folders."
        )
    return {part: root / name for part, name in zip(parts, folders, strict=True) if part}


def _visible(folder: Path) -> Iterator[os.DirEntry[str]]:
    with os.scandir(folder) as entries:
        yield from sorted((one for one in entries if not one.name.startswith(".")), key=lambda one: one.name)


def _list_classes(root: Path, folder: Path, kind: Kind, others: list[str]) -> _Files:
    """The files of a kind below each class folder, at any depth; other files are added to `others`."""
    folders = [entry for entry in _visible(folder) if entry.is_dir()]
    if not folders:
        raise InputError(f"load: {folder} must hold one folder of {kind.name} per class. Received: no folder.")
    paths: list[str] = []
    counts = []
    for entry in folders:
        before = len(paths)
        _list_files(Path(entry.path), Path(entry.path).relative_to(root).as_posix(), kind, paths, others)
        counts.append(len(paths) - before)
        if not counts[-1]:
            raise InputError(
                f"load: {entry.path}: each class needs {kind.name} ({', '.join(kind.suffixes)}). Received: a folder "
                f"without any. Add {kind.name} or remove the folder."
            )
    return _Files(paths, np.repeat(np.arange(len(counts)), counts), tuple(entry.name for entry in folders))


def _list_files(folder: Path, prefix: str, kind: Kind, paths: list[str], others: list[str]) -> None:
    for entry in _visible(folder):
        if entry.is_dir():
            _list_files(Path(entry.path), f"{prefix}/{entry.name}", kind, paths, others)
        else:
            (paths if kind.accepts(entry.name) else others).append(f"{prefix}/{entry.name}")


def _common_classes(root: Path, found: dict[Role, _Files]) -> tuple[str, ...]:
    names = found["train"].classes
    for part, files in found.items():
        if files.classes != names:
            unpaired = ", ".join(sorted(set(names) ^ set(files.classes)))
            raise InputError(
                f"load: {root}: train/ and {part}/ must have the same classes. Received: {unpaired} in one of them "
                "only."
            )
    return names


SOURCE = Source(accepts=lambda request: request.path.is_dir(), read=read, options=kinds.OPTIONS)
