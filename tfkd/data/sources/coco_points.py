"""Points of annotations in the format of COCO: the keypoints of one figure in each image.

A category has `keypoints`, the names of the points, and an annotation has `keypoints`, three numbers for each: x and y
in pixels, and 0 for a point that is not labelled, 1 for one that is labelled and hidden, or 2 for one that is visible.
As in the evaluation of COCO, labelled points count whether they are hidden or not.

Reference:
    cocodataset.org/#format-data.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tfkd.errors import InputError

# Points may lie outside of the image by this many pixels, the rounding of annotation tools.
_ROUNDING = 1.0


def names_of(file: Path, content: dict[str, list[dict[str, Any]]]) -> tuple[str, ...]:
    """The names of the points; their numbers where no category names them.

    Args:
        file: The annotation file, for the message.
        content: Its categories and annotations.

    Raises:
        InputError: Several categories have points, or there are none.
    """
    found = [one["keypoints"] for one in content["categories"] if isinstance(one.get("keypoints"), list)]
    values: list[Any] = next(
        (one["keypoints"] for one in content["annotations"] if isinstance(one.get("keypoints"), list)), []
    )
    if len(found) > 1 or not values:
        received = f"{len(found)} categories with keypoints" if values else "annotations without keypoints"
        raise InputError(
            f"load: {file}: the annotations of one category must have keypoints. Received: {received}. Keep those of "
            "one category, or name another task."
        )
    return tuple(map(str, found[0] if found and found[0] else range(len(values) // 3)))


def figure_of(where: str, rows: Sequence[dict[str, Any]], size: tuple[int, int], names: Sequence[str]) -> np.ndarray:
    """The points of the only figure of an image, float32 [K, 3]: x and y as shares, and 1 where it is labelled.

    Args:
        where: File and image, for messages.
        rows: The annotations of the image.
        size: Width and height of the image in pixels.
        names: Names of the points.

    Returns:
        Zeros for an image without a figure.

    Raises:
        InputError: There are several figures, another number of values than points, or a point outside of the image.
    """
    figures = [one["keypoints"] for one in rows if one.get("keypoints") and one.get("num_keypoints") != 0]
    if len(figures) > 1:
        raise InputError(
            f"load: {where}: keypoints are those of one figure in each image. Received: {len(figures)} figures. Cut "
            "each out to an image of its own, or keep images of one."
        )
    if not figures:
        return np.zeros((len(names), 3), np.float32)
    try:
        values = np.array(figures[0], float).reshape(len(names), 3)
    except (TypeError, ValueError):
        raise InputError(
            f"load: {where}: keypoints must have three numbers for each of {len(names)} points. Received: "
            f"{str(figures[0])[:60]}. Correct them."
        ) from None
    labelled = values[:, 2:] > 0
    places = np.where(labelled, values[:, :2], 0)
    outside = ~np.isfinite(places) | (places < -_ROUNDING) | (places > np.add(size, _ROUNDING))
    if outside.any():
        number = int(outside.any(axis=1).argmax())
        raise InputError(
            f"load: {where}: a point must lie in its image of {size[0]} x {size[1]} pixels. Received: {names[number]} "
            f"at {places[number, 0]:g}, {places[number, 1]:g}. Correct it."
        )
    return np.concatenate([(places / size).clip(0, 1), labelled], axis=1).astype(np.float32)
