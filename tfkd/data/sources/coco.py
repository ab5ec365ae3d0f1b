"""Boxes in the format of COCO: a JSON file, or a folder with `train.json` and optionally `val.json` and `test.json`.

Or a folder as Roboflow writes it: `train/_annotations.coco.json` beside the images, and so below `valid/` and `test/`.
Or as COCO itself: `annotations/instances_train2017.json` and the images in `train2017/`, and so for `val` and `test`.

The JSON holds `images` (id, file_name), `annotations` (image_id, category_id, bbox of left, top, width and height in
pixels) and `categories` (id, name). Images lie at their file_name beside the JSON, in a folder `images` there, or in
one with the name of the JSON or of the part. The classes are the categories in the order of their ids; one without
annotations that is the `supercategory` of another is left out. Regions of crowds (`iscrowd`) are left out.

Reference:
    Lin et al.: Microsoft COCO: Common Objects in Context (arXiv:1405.0312); cocodataset.org/#format-data.
"""

from __future__ import annotations

import collections
import json
import posixpath
import re
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from tfkd.data import boxes, images
from tfkd.data.boxes import Box
from tfkd.data.manifest import PARTS
from tfkd.data.sources import coco_points
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

_OPTIONS = ("image_size", "color", "resize")
_ROBOFLOW = "_annotations.coco.json"
# annotations/instances_train2017.json, whose images are in train2017/.
_INSTANCES = re.compile(r"instances_(([a-z]+)\d*)\.json")
_SIDES = ("width", "height")
_ADVICE = "Write images, annotations and categories as COCO does."


def read(request: Request) -> Arrays:
    """Reads images as uint8 [N, H, W, C] and their boxes as float32 [N, M, 5], or their points as float32 [N, K, 3].

    Points are read where the labels were declared so: the keypoints of the only figure of each image.

    Raises:
        InputError: A file is no such JSON, an image is missing, a box is outside of its image, or a class is unknown.
    """
    path = request.path
    files = {"train": path} if path.is_file() else _parts(path)
    root = path.parent if path.is_file() else path
    are_points = request.labels == "points"
    names: dict[int, str] = {}
    points: tuple[str, ...] = ()
    paths, parts, labels, figures = list[str](), list[str](), list[list[Box]](), list[np.ndarray]()
    contents = {part: _content(file) for part, file in files.items()}
    used = {str(one.get("category_id")) for content in contents.values() for one in content["annotations"]}
    for part, file in files.items():
        content = contents[part]
        found = _categories(file, content["categories"], used)
        if names and found != names:
            raise InputError(
                f"load: {file}: all parts must have the same categories. Received: {found} and {names}. Correct them."
            )
        names = found
        named = coco_points.names_of(file, content) if are_points else ()
        if points and named != points:
            raise InputError(
                f"load: {file}: all parts must have the same keypoints. Received: {', '.join(named)} and "
                f"{', '.join(points)}. Correct them."
            )
        points = named
        for image, place, size, rows in _images(file, root, content):
            paths.append(place)
            parts.append(part)
            if are_points:
                figures.append(coco_points.figure_of(f"{file}: image {image['id']}, {place}", rows, size, points))
            else:
                labels.append([_box(file, image, one, size, list(names)) for one in rows])
    places = np.array(paths, object)
    x, kept = images.read(str(path), root, places, request.options)
    return Arrays(
        x,
        (np.stack(figures) if are_points else boxes.padded(labels))[kept],
        class_names=points or tuple(names.values()),
        name=path.stem if path.is_file() else path.resolve().name,
        location=str(path),
        part=np.array(parts)[kept],
        paths=places[kept],
        labels="points" if are_points else "boxes",
    )


def accepts(request: Request) -> bool:
    """Whether a reference is a JSON file, or a folder with one of the training images."""
    path = request.path
    return (path.suffix.lower() == ".json" and path.is_file()) or (path.is_dir() and "train" in _parts(path))


def _parts(folder: Path) -> dict[str, Path]:
    files = {one: one.stem for one in folder.glob("*.json")} | {
        one: one.parent.name for one in folder.glob(f"*/{_ROBOFLOW}")
    }
    for one in folder.glob("annotations/instances_*.json"):
        if match := _INSTANCES.fullmatch(one.name):
            files[one] = match[2]
    parts: dict[str, Path] = {}
    for one, name in sorted(files.items()):
        if name in PARTS and parts.setdefault(PARTS[name], one) != one:
            raise InputError(
                f"load: {folder}: each part must have one file. Received: {parts[PARTS[name]]} and {one}. Remove one."
            )
    return parts


def _content(file: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"load: {file} must be a readable JSON file. Received: {error}. {_ADVICE}") from error
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise InputError(f"load: {file} must have a list {key}. Received: none. {_ADVICE}")
        if not all(isinstance(one, dict) for one in content[key]):
            raise InputError(f"load: {file}: {key} must be objects. Received: other values. {_ADVICE}")
    for key in ("images", "categories"):
        numbers = [one.get("id") for one in content[key]]
        wrong = [one for one in numbers if not isinstance(one, int | float | str)]
        if not numbers or wrong or len(set(numbers)) < len(numbers):
            received = f"the id {wrong[0]!r}" if wrong else "an id twice" if numbers else "an empty list"
            raise InputError(
                f"load: {file}: {key} must be objects with an id of its own each, a number or text. Received: "
                f"{received}. {_ADVICE}"
            )
    return content


def _categories(file: Path, categories: list[dict[str, Any]], used: Collection[str]) -> dict[int, str]:
    """The name of each category by id, in the order of the ids."""
    try:
        found = {one["id"]: one.get("name") for one in sorted(categories, key=lambda one: one["id"])}
    except TypeError as error:
        raise InputError(
            f"load: {file}: the ids of categories must be numbers, or all texts. Received: {error}. {_ADVICE}"
        ) from error
    groups = {(one.get("supercategory"), one["id"]) for one in categories}
    names = {
        number: str(name)
        for number, name in found.items()
        if str(number) in used or not any(name == group and number != other for group, other in groups)
    }
    if not all(isinstance(name, str) for name in found.values()) or len(set(names.values())) < len(names):
        raise InputError(
            f"load: {file}: each category must have a name of its own. Received: {', '.join(map(repr, found.values()))}"
            f". {_ADVICE}"
        )
    return names


def _images(
    file: Path, root: Path, content: dict[str, list[dict[str, Any]]]
) -> Iterator[tuple[dict[str, Any], str, tuple[int, int], list[dict[str, Any]]]]:
    """Each image, its path relative to the root, its width and height, and its annotations without those of crowds."""
    by_image = collections.defaultdict(list)
    known = {one.get("id") for one in content["images"]}
    for one in content["annotations"]:
        number = one.get("image_id")
        if not isinstance(number, int | float | str) or number not in known:
            raise InputError(
                f"load: {file}: annotation {one.get('id')} must have an image. Received: image_id={number!r}, which is "
                "the id of none. Add the image, or remove the annotation."
            )
        by_image[one["image_id"]].append(one)
    for image in content["images"]:
        place = _place(file, root, image)
        size = images.size_of(root / place)
        declared = tuple(
            side if image.get(name) is None else image[name] for name, side in zip(_SIDES, size, strict=True)
        )
        if declared != size:
            raise InputError(
                f"load: {file}: width and height of image {image['id']} must be those of {root / place}, upright by "
                f"its EXIF data, {size[0]} x {size[1]}. Received: {declared[0]!r} x {declared[1]!r}. Correct the "
                "file or its boxes."
            )
        yield image, place, size, [one for one in by_image[image["id"]] if not one.get("iscrowd")]


def _place(file: Path, root: Path, image: dict[str, Any]) -> str:
    name, match = str(image.get("file_name")), _INSTANCES.fullmatch(file.name)
    # Relative to the folder of the file.
    places = (name, f"images/{name}", f"{file.stem}/{name}", *([f"../{match[1]}/{name}"] if match else []))
    for place in (name, *((file.parent.relative_to(root) / one).as_posix() for one in places)):
        if (root / place).is_file():
            return posixpath.normpath(place)
    raise InputError(
        f"load: {file}: image {image.get('id')} must be a file beside it, in images/, or in a folder with the name of "
        f"the part. Received: file_name={name!r}. Add the file, or correct its name."
    )


def _box(file: Path, image: dict[str, Any], one: dict[str, Any], size: tuple[int, int], ids: list[int]) -> Box:
    where = f"{file}: annotation {one.get('id')} of {image['file_name']}"
    if one.get("category_id") not in ids:
        raise InputError(
            f"load: {where} must have a category. Received: category_id={one.get('category_id')!r}; categories: "
            f"{', '.join(map(repr, ids))}. Add the category, or correct it."
        )
    values = one.get("bbox")
    if not isinstance(values, list) or len(values) != 4 or not all(isinstance(value, (int, float)) for value in values):
        raise InputError(f"load: {where} must have a bbox of four numbers. Received: {values!r}. {_ADVICE}")
    left, top, width, height = values
    return boxes.of_pixels((left, top, left + width, top + height), size, ids.index(one["category_id"]), where)


SOURCE = Source(accepts=accepts, read=read, options=_OPTIONS, labels="boxes")
