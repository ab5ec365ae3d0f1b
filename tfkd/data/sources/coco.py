"""Boxes in the format of COCO: a JSON file, or a folder with `train.json` and optionally `val.json` and `test.json`.

Or a folder as Roboflow writes it: `train/_annotations.coco.json` beside the images, and so below `valid/` and `test/`.

The JSON holds `images` (id, file_name), `annotations` (image_id, category_id, bbox of left, top, width and height in
pixels) and `categories` (id, name). Images lie at their file_name beside the JSON or in a folder `images` there. The
classes are the categories in the order of their ids; one without annotations that is the `supercategory` of another is
left out. Regions of crowds (`iscrowd`) are left out.

Reference:
    Lin et al.: Microsoft COCO: Common Objects in Context (arXiv:1405.0312); cocodataset.org/#format-data.
"""

from __future__ import annotations

import collections
import json
from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np

from tfkd.data import boxes, images
from tfkd.data.boxes import Box
from tfkd.data.manifest import PARTS
from tfkd.data.sources.source import Arrays, Request, Source
from tfkd.errors import InputError

_OPTIONS = ("image_size", "color", "resize")
_ROBOFLOW = "_annotations.coco.json"
_ADVICE = "Write images, annotations and categories as COCO does."


def read(request: Request) -> Arrays:
    """Reads images as uint8 [N, H, W, C] and their boxes as float32 [N, M, 5].

    Raises:
        InputError: A file is no such JSON, an image is missing, a box is outside of its image, or a class is unknown.
    """
    path = request.path
    files = {"train": path} if path.is_file() else _parts(path)
    root = path.parent if path.is_file() else path
    names: dict[int, str] = {}
    paths, parts, labels = list[str](), list[str](), list[list[Box]]()
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
        for image, one in _images(file, root, content, list(names)):
            paths.append(image)
            parts.append(part)
            labels.append(one)
    places = np.array(paths, object)
    x, kept = images.read(str(path), root, places, request.options)
    return Arrays(
        x,
        boxes.padded(labels)[kept],
        class_names=tuple(names.values()),
        name=path.stem if path.is_file() else path.resolve().name,
        location=str(path),
        part=np.array(parts)[kept],
        paths=places[kept],
        labels="boxes",
    )


def accepts(request: Request) -> bool:
    """Whether a reference is a JSON file, or a folder with `train.json` or `train/_annotations.coco.json`."""
    path = request.path
    folders = (path / "train.json", path / "train" / _ROBOFLOW)
    return (path.suffix.lower() == ".json" and path.is_file()) or any(one.is_file() for one in folders)


def _parts(folder: Path) -> dict[str, Path]:
    files = {one: one.stem for one in folder.glob("*.json")} | {
        one: one.parent.name for one in folder.glob(f"*/{_ROBOFLOW}")
    }
    return {PARTS[name]: one for one, name in sorted(files.items()) if name in PARTS}


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
    numbers = [image.get("id") for image in content["images"]]
    if None in numbers or len(set(numbers)) < len(numbers):
        raise InputError(
            f"load: {file}: each image must have an id of its own. Received: none, or one twice. {_ADVICE}"
        )
    return content


def _categories(file: Path, categories: list[dict[str, Any]], used: Collection[str]) -> dict[int, str]:
    """The name of each category by id, in the order of the ids."""
    groups = {str(one.get("supercategory")) for one in categories if one.get("supercategory") != one.get("name")}
    try:
        found = {one["id"]: str(one["name"]) for one in sorted(categories, key=lambda one: one["id"])}
        return {number: name for number, name in found.items() if str(number) in used or name not in groups}
    except (KeyError, TypeError) as error:
        raise InputError(f"load: {file}: each category must have id and name. Received: {error}. {_ADVICE}") from error


def _images(
    file: Path, root: Path, content: dict[str, list[dict[str, Any]]], ids: list[int]
) -> list[tuple[str, list[Box]]]:
    """The path of each image relative to the root, and its boxes."""
    by_image = collections.defaultdict(list)
    known = {one.get("id") for one in content["images"]}
    for one in content["annotations"]:
        if one.get("image_id") not in known:
            raise InputError(
                f"load: {file}: annotation {one.get('id')} must have an image. Received: image_id="
                f"{one.get('image_id')}, which is none. Add the image, or remove the annotation."
            )
        by_image[one["image_id"]].append(one)
    found = []
    for image in content["images"]:
        place = _place(file, root, image)
        size = images.size_of(root / place)
        declared = (image.get("width", size[0]), image.get("height", size[1]))
        if declared != size:
            raise InputError(
                f"load: {file}: width and height of image {image['id']} must be those of {root / place}, upright by "
                f"its EXIF data, {size[0]} x {size[1]}. Received: {declared[0]} x {declared[1]}. Correct the file or "
                "its boxes."
            )
        rows = [one for one in by_image[image["id"]] if not one.get("iscrowd")]
        found.append((place, [_box(file, image, one, size, ids) for one in rows]))
    return found


def _place(file: Path, root: Path, image: dict[str, Any]) -> str:
    name = str(image.get("file_name"))
    for place in (name, f"images/{name}", (file.parent.relative_to(root) / name).as_posix()):
        if (root / place).is_file():
            return place
    raise InputError(
        f"load: {file}: image {image.get('id')} must be a file beside it or in images/. Received: file_name={name!r}. "
        "Add the file, or correct its name."
    )


def _box(file: Path, image: dict[str, Any], one: dict[str, Any], size: tuple[int, int], ids: list[int]) -> Box:
    where = f"{file}: annotation {one.get('id')} of {image['file_name']}"
    if one.get("category_id") not in ids:
        raise InputError(
            f"load: {where} must have a category. Received: category_id={one.get('category_id')}; categories: "
            f"{', '.join(map(str, ids))}. Add the category, or correct it."
        )
    values = one.get("bbox")
    if not isinstance(values, list) or len(values) != 4 or not all(isinstance(value, (int, float)) for value in values):
        raise InputError(f"load: {where} must have a bbox of four numbers. Received: {values!r}. {_ADVICE}")
    left, top, width, height = values
    return boxes.of_pixels((left, top, left + width, top + height), size, ids.index(one["category_id"]), where)


SOURCE = Source(accepts=accepts, read=read, options=_OPTIONS, labels="boxes")
