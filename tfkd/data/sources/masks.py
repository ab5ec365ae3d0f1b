"""Folders of images and masks for segmentation: `images/` and `masks/`, or `train/`, `val/` and `test/` of that form.

The mask of `images/park/1.jpg` is `masks/park/1.png`: a PNG of class numbers, as a palette (mode P, such as those of
Pascal VOC) or in gray. The value 255 is a pixel that does not count. `classes.txt` beside them, one name a line, names
the classes from 0; without it they have numbers.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tfkd.data import images
from tfkd.data.manifest import PARTS
from tfkd.data.reading import ReadingOptions, Request
from tfkd.data.sources.source import Arrays, Source
from tfkd.errors import InputError

_IMAGES, _MASKS, _CLASSES = "images", "masks", "classes.txt"
_OPTIONS = ("image_size", "color", "resize", "crop")


def read(request: Request) -> Arrays:
    """Reads images as uint8 [N, H, W, C] and masks as uint8 [N, H, W].

    Raises:
        InputError: An image has no mask, a mask has another size or is no PNG of class numbers, or a folder is missing.
    """
    root, options = request.path, request.options
    files = [(part, path) for part, folder in _folders(root).items() for path in _listed(root, folder)]
    paths = np.array([path for _, path in files], object)
    names = _class_names(root)
    x, kept = images.read(str(root), root, paths, options)
    masks = list(images.in_parallel(lambda path: _mask(root, path, options, len(names)), paths))
    for path, mask in zip(paths, masks, strict=True):
        if mask.shape != masks[0].shape:
            raise InputError(
                f"load: {root / path}: all images must have one size. Received: {mask.shape} and {masks[0].shape}. "
                "Pass image_size."
            )
    return Arrays(
        x,
        np.stack(masks)[kept],
        class_names=names,
        name=root.resolve().name,
        location=str(root),
        part=np.array([part for part, _ in files])[kept],
        paths=paths[kept],
        labels="masks",
    )


def accepts(request: Request) -> bool:
    """Whether a folder has images and masks, directly or in `train/`."""
    folders = (request.path, request.path / "train")
    return any((folder / _MASKS).is_dir() and (folder / _IMAGES).is_dir() for folder in folders)


def _folders(root: Path) -> dict[str, str]:
    """The folder of each part, relative to the data set."""
    if (root / _MASKS).is_dir():
        return {"train": ""}
    return {
        PARTS[one.name]: one.name for one in sorted(root.iterdir()) if one.name in PARTS and (one / _IMAGES).is_dir()
    }


def _listed(root: Path, folder: str) -> list[str]:
    """The images of a part, relative to the data set, with `/` on every system."""
    below = root / folder / _IMAGES
    found = sorted(one.relative_to(root).as_posix() for one in below.rglob("*") if images.is_image(one.name))
    if not found:
        raise InputError(f"load: {below} must hold images. Received: none. Add some, or remove the folder.")
    return found


def _class_names(root: Path) -> tuple[str, ...]:
    file = root / _CLASSES
    if not file.is_file():
        return ()
    return tuple(line.strip() for line in file.read_text(encoding="utf-8").splitlines() if line.strip())


def _mask(root: Path, path: str, options: ReadingOptions, classes: int) -> np.ndarray:
    """The mask of an image, with the size and crop of the options; pixels are repeated or left out, not mixed."""
    from PIL import Image

    parts = Path(path).parts
    place = parts.index(_IMAGES)
    file = root.joinpath(*parts[:place], _MASKS, *parts[place + 1 :]).with_suffix(".png")
    if not file.is_file():
        raise InputError(f"load: {root / path} needs a mask. Received: no file {file}. Add it, or remove the image.")
    try:
        with Image.open(file, formats=("PNG",)) as source:
            mode, size = source.mode, source.size
            indices = np.asarray(source).astype(np.uint8) if mode in ("P", "L", "1") else None
    except (OSError, SyntaxError, ValueError) as error:
        raise InputError(f"load: {file} must be a readable PNG. Received: {error}. Repair or remove it.") from error
    if indices is None:
        raise InputError(
            f"load: {file} must be a PNG of class numbers, as a palette or in gray. Received: the mode {mode}. Save "
            "the class number of each pixel."
        )
    if size != images.size_of(root / path):
        width, height = images.size_of(root / path)
        raise InputError(
            f"load: {file} must have the size of its image, {width} x {height}. Received: {size[0]} x {size[1]}. Save "
            "one class for each pixel."
        )
    largest = int(indices[indices < 255].max(initial=0))
    if classes and largest >= classes:
        raise InputError(
            f"load: {file} must have classes in 0..{classes - 1}, those of {_CLASSES}. Received: {largest}. Correct "
            f"it, add the class to {_CLASSES}, or write 255 where pixels do not count."
        )
    if options.image_size is None:
        return indices
    nearest = ReadingOptions(image_size=options.image_size, crop=options.crop, resize="nearest")
    # Borders that are added are 0 in an inverted mask: 255, pixels that do not count.
    return 255 - images.fitted(255 - indices[..., None], nearest)[..., 0]


SOURCE = Source(accepts=accepts, read=read, options=_OPTIONS, labels="masks")
