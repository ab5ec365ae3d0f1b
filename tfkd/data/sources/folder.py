"""Folders of images or sounds with one sub-folder per class, or with `train/`, `val/` and `test/` of that form."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tfkd.data import abnormal_labels, identity_labels, images, index_cache, kinds, listing
from tfkd.data.kinds import Kind
from tfkd.data.listing import Tree
from tfkd.data.manifest import PARTS
from tfkd.data.reading import Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.data.splits import Role
from tfkd.errors import InputError

# What folders of parts are called in data sets of others, such as Train, training_set and test-images.
_PART_NAME = re.compile(
    r"(train|training|val|valid|validation|dev|test|testing|eval|evaluation)([ _-]?(set|data|images|imgs|samples))?",
    re.IGNORECASE,
)

# The folder of the Speech Commands data set with long recordings of noise to mix into others; it is no class.
_NOISE = "_background_noise_"

log = logging.getLogger("tfkd")

# Kinds of labels that class folders give, and what gives the others.
_KINDS = (None, "classes", abnormal_labels.KIND, identity_labels.KIND)
_FORMS = {
    "masks": "folders images/ and masks/, directly or below train/, val/ and test/",
    "boxes": "train.json or train/_annotations.coco.json (COCO), or JPEGImages/ and Annotations/ (Pascal VOC)",
}


class _Files(NamedTuple):
    """The files of a folder of class folders, sorted by part, class and path.

    Args:
        kind: What they are.
        paths: Paths relative to the data set, str [N].
        y: Class numbers, int64 [N].
        part: Part of each, str [N]; `train` in a data set without parts.
        classes: Name of each class.
        has_parts: Whether the data set has parts.
    """

    kind: Kind
    paths: np.ndarray
    y: np.ndarray
    part: np.ndarray
    classes: tuple[str, ...]
    has_parts: bool


def read(request: Request) -> Arrays:
    """Reads the images of a folder as uint8 [N, H, W, C], or its sounds; the names of the sub-folders are the classes.

    Raises:
        InputError: The folder has another structure, or an image is unreadable or has another size.
    """
    root = request.path
    if request.labels not in _KINDS:
        names = sorted(path.name + "/" * path.is_dir() for path in root.iterdir())
        raise InputError(
            f"load: {root}: labels of the kind {request.labels!r} need "
            f"{_FORMS.get(request.labels, 'a manifest or arrays instead of a folder')}. Received: "
            f"{', '.join(names[:8])}. Arrange the files so, or name another task."
        )
    files = _list(root)
    request.options.check(files.kind.options, str(root))
    x, kept = files.kind.read(str(root), root, files.paths, request.options)
    return Arrays(
        x,
        files.y[kept],
        class_names=files.classes,
        name=root.resolve().name,
        location=str(root),
        part=files.part[kept],
        paths=files.paths[kept],
        labels="classes",
    )


def rows(root: Path) -> Iterator[tuple[str, str, str]]:
    """The path of each file relative to the folder, its class, and its part, which is empty in one without parts.

    Args:
        root: Folder of class folders, or of `train/` and others of that form.

    Raises:
        InputError: The folder has another structure.
    """
    files = _list(root)
    for path, label, part in zip(files.paths, files.y, files.part, strict=True):
        yield path, files.classes[label], str(part) if files.has_parts else ""


def kind_of(root: Path) -> Kind | None:
    """The kind of the files in a folder, by their names; None where there are none.

    Args:
        root: The folder.

    Raises:
        OSError: A folder cannot be read.
    """
    return next((one for one in map(kinds.kind_of, listing.scan(root).files()) if one), None)


def _list(root: Path) -> _Files:
    """The files of a folder. Their names are read each time; what follows from them is taken from the cache."""
    tree = listing.scan(root)
    found = index_cache.reuse(f"folder, loose files and noise {tree.digest}", lambda: _index(root, tree))
    kind = kinds.KINDS[int(found["kind"])]
    others = found["others"].tolist()
    if others:
        log.warning(
            "%s: files that are no %s are skipped (%s): %s.", root, kind.name, len(others), images.listed(others)
        )
    loose = found["loose"].tolist()
    if loose:
        log.warning(
            "%s: %s outside of the class folders are skipped (%s): %s.",
            root,
            kind.name,
            len(loose),
            images.listed(loose),
        )
    if len(found["classes"]) == 1:
        log.warning(
            "%s holds one class, %s. To tell classes apart give the folder that holds a folder for each.",
            root,
            found["classes"][0],
        )
    part = np.repeat(found["parts"].astype(str), found["sizes"])
    return _Files(kind, found["paths"], found["y"], part, tuple(found["classes"]), bool(found["has_parts"]))


def _index(root: Path, tree: Tree) -> index_cache.Index:
    """The files of each part, in the form of the cache."""
    kind = next((one for one in map(kinds.kind_of, tree.files()) if one), kinds.IMAGES)
    others: list[str] = []
    folders = _part_folders(root, tree)
    parts = {part: _list_classes(root, tree, folder, kind, others) for part, folder in folders.items()}
    classes = _common_classes(root, {part: tuple(found) for part, found in parts.items()})
    counts = [[len(paths) for paths in found.values()] for found in parts.values()]
    return {
        "kind": np.array(kinds.KINDS.index(kind)),
        "has_parts": np.array("" not in folders.values()),
        "parts": np.array(list(parts), object),
        "sizes": np.array([sum(one) for one in counts]),
        "classes": np.array(classes, object),
        "y": np.concatenate([np.repeat(np.arange(len(classes)), one) for one in counts]),
        "paths": np.array([path for found in parts.values() for paths in found.values() for path in paths], object),
        "others": np.array(others, object),
        "loose": np.array(_loose(tree, folders.values(), kind), object),
    }


def _loose(tree: Tree, folders: Iterable[str], kind: Kind) -> list[str]:
    """The files of a kind that lie beside the class folders or the parts instead of inside of them, and noise."""
    found = list[str]()
    for folder in sorted({"", *folders}):
        start = f"{folder}/" if folder else ""
        found += [start + name for name in sorted(tree.folders[folder].files)]
        found += tree.files(start + _NOISE) if _NOISE in tree.folders[folder].folders else ()
    return [name for name in found if kind.accepts(name)]


def _part_folders(root: Path, tree: Tree) -> dict[Role, str]:
    """The folder of each part, relative to the data set; the data set itself as `train` where it has no parts."""
    folders = sorted({*tree.folders[""].folders} - {_NOISE})
    if not set(folders) & {"train", "test"}:
        if len(folders) > 1 and all(map(_PART_NAME.fullmatch, folders)):
            raise InputError(
                f"load: {root}: parts of a data set must be called train, val and test. Received: folders that look "
                f"like parts, {', '.join(folders)}, and would be classes. Rename them."
            )
        return {"train": ""}
    parts = [PARTS.get(name) for name in folders]
    if None in parts or "train" not in parts or len(set(parts)) < len(parts):
        raise InputError(
            f"load: {root} must hold either train/, val/ and test/, of which val/ and test/ may be missing, or class "
            f"folders only. Received: {', '.join(folders)}. Move or rename the other folders."
        )
    return {part: name for part, name in zip(parts, folders, strict=True) if part}


def _list_classes(root: Path, tree: Tree, folder: str, kind: Kind, others: list[str]) -> dict[str, list[str]]:
    """The files of a kind below each class folder, at any depth; other files are added to `others`."""
    names = sorted({*tree.folders[folder].folders} - {_NOISE})
    if not names:
        raise InputError(
            f"load: {root / folder} must hold one folder of {kind.name} per class. Received: no folder. "
            "Make a folder for each class, or a manifest with the columns path and label."
        )
    found: dict[str, list[str]] = {}
    for name in names:
        below = f"{folder}/{name}" if folder else name
        found[name] = []
        for path in tree.files(below):
            (found[name] if kind.accepts(path) else others).append(path)
        if not found[name]:
            other = next(tree.files(below), None)
            beside = "" if other is None else f" beside {other.rpartition('/')[2]}"
            table = (
                ". Windows of a sensor are read from one file of JSON lines"
                if beside.endswith((".csv", ".txt", ".tsv"))
                else ""
            )
            raise InputError(
                f"load: {root / below}: each class needs {kind.name} ({', '.join(kind.suffixes)}). Received: a folder "
                f"without any{beside}. Add {kind.name} or remove the folder{table}."
            )
    return found


def _common_classes(root: Path, classes: Mapping[Role, tuple[str, ...]]) -> tuple[str, ...]:
    names = classes["train"]
    for part, found in classes.items():
        if found != names:
            unpaired = ", ".join(sorted(set(names) ^ set(found)))
            raise InputError(
                f"load: {root}: train/ and {part}/ must have the same classes. Received: {unpaired} in one of them "
                "only. Add the folder to the other, or move it away."
            )
    return names


SOURCE = Source(accepts=lambda request: request.path.is_dir(), read=read, options=kinds.OPTIONS)
