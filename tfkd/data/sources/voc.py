"""Boxes in the format of Pascal VOC: a folder with `JPEGImages/` and `Annotations/`, one XML file for each image.

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
from xml.etree import ElementTree

import numpy as np

from tfkd.data import boxes, images
from tfkd.data.boxes import Box
from tfkd.data.manifest import PARTS
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

_IMAGES, _ANNOTATIONS, _SETS, _CLASSES = "JPEGImages", "Annotations", "ImageSets/Main", "classes.txt"
_OPTIONS = ("image_size", "color", "resize")
_ENDS = ("xmin", "ymin", "xmax", "ymax")


def read(request: Request) -> Arrays:
    """Reads images as uint8 [N, H, W, C] and their boxes as float32 [N, M, 5].

    Raises:
        InputError: A file is missing or damaged, a box is outside of its image, or a class is unknown.
    """
    root = request.path
    listed = [(part, name) for part, names in _parts(root).items() for name in names]
    objects = [_objects(root / _ANNOTATIONS / f"{name}.xml") for _, name in listed]
    classes = _classes(root, objects)
    places = np.array([_image(root, name) for _, name in listed], object)
    labels = [
        [_box(root / _ANNOTATIONS / f"{name}.xml", one, images.size_of(root / place), classes) for one in found]
        for (_, name), place, found in zip(listed, places, objects, strict=True)
    ]
    x, kept = images.read(str(root), root, places, request.options)
    return Arrays(
        x,
        boxes.padded(labels)[kept],
        class_names=classes,
        name=root.resolve().name,
        location=str(root),
        part=np.array([part for part, _ in listed])[kept],
        paths=places[kept],
        labels="boxes",
    )


def accepts(request: Request) -> bool:
    """Whether a reference is a folder in the format of Pascal VOC."""
    return all((request.path / name).is_dir() for name in (_IMAGES, _ANNOTATIONS))


def _parts(root: Path) -> dict[str, list[str]]:
    """The names of the images of each part; without `train.txt` those in no list are for training."""
    lists: dict[str, list[str]] = {
        PARTS[one.stem]: [line.split()[0] for line in one.read_text(encoding="utf-8").splitlines() if line.strip()]
        for one in sorted((root / _SETS).glob("*.txt"))
        if one.stem in PARTS
    }
    if "train" in lists:
        return lists
    others = {name for names in lists.values() for name in names}
    names = sorted({one.stem for one in (root / _ANNOTATIONS).glob("*.xml")} - others)
    if not names:
        raise InputError(f"load: {root / _ANNOTATIONS} must hold XML files for the training. Received: none. Add them.")
    return {"train": names, **lists}


def _image(root: Path, name: str) -> str:
    for suffix in images.SUFFIXES:
        if (root / _IMAGES / f"{name}{suffix}").is_file():
            return f"{_IMAGES}/{name}{suffix}"
    raise InputError(
        f"load: {root / _ANNOTATIONS / name}.xml needs an image in {_IMAGES}/. Received: none. Add it, or remove the "
        "file."
    )


def _objects(file: Path) -> list[ElementTree.Element]:
    try:
        return ElementTree.parse(file).getroot().findall("object")
    except (OSError, ElementTree.ParseError) as error:
        raise InputError(
            f"load: {file} must be a readable XML file. Received: {error}. Write it as Pascal VOC does."
        ) from error


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
