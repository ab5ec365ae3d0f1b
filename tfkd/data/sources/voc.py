"""Boxes in the format of Pascal VOC: a folder with `JPEGImages/` and `Annotations/`, one XML file for each image.

The folders may be called `images/` and `annotations/`, too. Or folders `train/`, and optionally `valid/` and `test/`,
with the XML files beside the images, as Roboflow writes them.

`ImageSets/Main/train.txt`, `val.txt` and `test.txt`, of which some may be missing, list the names of the images of each
part. `classes.txt`, one name a line, gives the order of the classes; without it they are in alphabetical order. Pixels
are counted from 1, as in Pascal VOC. Objects marked `difficult` are objects like the others.

Reference:
    Everingham et al.: The Pascal Visual Object Classes (VOC) Challenge, International Journal of Computer Vision 88,
    2010; host.robots.ox.ac.uk/pascal/VOC.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

import numpy as np

from tfkd.data import boxes, images
from tfkd.data.boxes import Box
from tfkd.data.manifest import PARTS
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

_SETS, _CLASSES = "ImageSets/Main", "classes.txt"
# The folders of the images and of the XML files.
_FOLDERS = (("JPEGImages", "Annotations"), ("images", "annotations"))
_OPTIONS = ("image_size", "color", "resize")
_ENDS = ("xmin", "ymin", "xmax", "ymax")


class _Listed(NamedTuple):
    """An image of a part, both paths relative to the data set; that of the image without its suffix."""

    part: str
    annotation: str
    image: str


def read(request: Request) -> Arrays:
    """Reads images as uint8 [N, H, W, C] and their boxes as float32 [N, M, 5].

    Raises:
        InputError: A file is missing or damaged, a box is outside of its image, or a class is unknown.
    """
    root = request.path
    listed = _listed(root)
    found = [_annotation(root / one.annotation) for one in listed]
    objects = [one.findall("object") for one in found]
    classes = _classes(root, objects)
    places = np.array([_image(root, one) for one in listed], object)
    labels = []
    for one, place, annotation, several in zip(listed, places, found, objects, strict=True):
        file = root / one.annotation
        size = images.size_of(root / place)
        _check_size(file, annotation, size)
        labels.append([_box(file, each, size, classes) for each in several])
    x, kept = images.read(str(root), root, places, request.options)
    return Arrays(
        x,
        boxes.padded(labels)[kept],
        class_names=classes,
        name=root.resolve().name,
        location=str(root),
        part=np.array([one.part for one in listed])[kept],
        paths=places[kept],
        labels="boxes",
    )


def accepts(request: Request) -> bool:
    """Whether a reference is a folder in the format of Pascal VOC."""
    root = request.path
    return root.is_dir() and (_folders(root) is not None or any((root / "train").glob("*.xml")))


def _folders(root: Path) -> tuple[str, str] | None:
    """The folders of the images and of the XML files; None where there are none."""
    for names in _FOLDERS:
        if all((root / name).is_dir() for name in names) and (
            names is _FOLDERS[0] or any(root.glob(f"{names[1]}/*.xml"))
        ):
            return names
    return None


def _listed(root: Path) -> list[_Listed]:
    """The images of each part; without `train.txt` those in no list are for training."""
    folders = _folders(root)
    if folders is None:
        files = [(PARTS[one.name], file) for one in sorted(root.iterdir()) if one.name in PARTS for file in _xml(one)]
        return [
            _Listed(part, f"{file.parent.name}/{file.name}", f"{file.parent.name}/{file.stem}") for part, file in files
        ]
    lists = dict[str, list[str]]()
    for one in sorted((root / _SETS).glob("*.txt")):
        if one.stem in PARTS:
            lines = one.read_text(encoding="utf-8").splitlines()
            lists.setdefault(PARTS[one.stem], []).extend(line.split()[0] for line in lines if line.strip())
    if "train" not in lists:
        others = {name for names in lists.values() for name in names}
        names = sorted({one.stem for one in _xml(root / folders[1])} - others)
        if not names:
            raise InputError(
                f"load: {root / folders[1]} must hold XML files for the training. Received: none. Add them."
            )
        lists = {"train": names, **lists}
    return [
        _Listed(part, f"{folders[1]}/{name}.xml", f"{folders[0]}/{name}")
        for part, names in lists.items()
        for name in names
    ]


def _xml(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.xml"))


def _image(root: Path, one: _Listed) -> str:
    for suffix in images.SUFFIXES:
        for written in (suffix, suffix.upper()):
            if (root / f"{one.image}{written}").is_file():
                return f"{one.image}{written}"
    raise InputError(
        f"load: {root / one.annotation} needs an image in {one.image.rpartition('/')[0]}/. Received: none. Add it, or "
        "remove the file."
    )


def _annotation(file: Path) -> ElementTree.Element:
    try:
        return ElementTree.parse(file).getroot()
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(
            f"load: {file} must be a readable XML file. Received: {error}. Write it as Pascal VOC does."
        ) from error


def _check_size(file: Path, annotation: ElementTree.Element, size: tuple[int, int]) -> None:
    """Refuses boxes of an image of another size; a size of 0 is none."""
    declared = [_text(annotation, f"size/{side}") for side in ("width", "height")]
    if not set(declared) & {"", "0"} and declared != [str(side) for side in size]:
        raise InputError(
            f"load: {file}: the size must be that of the image, upright by its EXIF data, {size[0]} x {size[1]}. "
            f"Received: {' x '.join(declared)}. Correct the file or its boxes."
        )


def _classes(root: Path, objects: Sequence[Sequence[ElementTree.Element]]) -> tuple[str, ...]:
    file = root / _CLASSES
    if file.is_file():
        return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())
    return tuple(sorted({_text(one, "name") for found in objects for one in found} - {""}))


def _text(element: ElementTree.Element, path: str) -> str:
    return (element.findtext(path) or "").strip()


def _box(file: Path, one: ElementTree.Element, size: tuple[int, int], classes: Sequence[str]) -> Box:
    name = _text(one, "name")
    if name not in classes:
        raise InputError(
            f"load: {file}: the name of an object must be one of {', '.join(classes)}. Received: {name!r}. Correct it, "
            f"or add the class to {_CLASSES}."
        )
    texts = [_text(one, f"bndbox/{end}") for end in _ENDS]
    try:
        left, top, right, bottom = map(float, texts)
    except ValueError:
        raise InputError(
            f"load: {file}: an object must have a bndbox of numbers. Received: {', '.join(map(repr, texts))}. Correct "
            "it."
        ) from None
    return boxes.of_pixels((left - 1, top - 1, right, bottom), size, classes.index(name), f"{file}: {name}")


SOURCE = Source(accepts=accepts, read=read, options=_OPTIONS, labels="boxes")
