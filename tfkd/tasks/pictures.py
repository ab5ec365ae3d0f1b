"""Samples whose images the report shows, as PNG files in JSON."""

from __future__ import annotations

import base64
import io
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

    from tfkd.data import Split

# Samples that a report shows: some at random, and some with the largest errors.
_RANDOM, _WORST = 2, 2
# Longest side of an image in a report, in pixels; larger ones are thinned out.
_LONGEST = 128


def chosen(errors: np.ndarray) -> list[tuple[int, str]]:
    """The rows of samples to show, and why: some that are drawn at random, always the same ones, and the worst.

    Args:
        errors: Size of the error on each sample, float64 [N].
    """
    import numpy as np

    drawn = np.sort(np.random.default_rng(0).permutation(len(errors))[:_RANDOM]).tolist()
    worst = [row for row in np.argsort(-errors, kind="stable").tolist() if row not in drawn][:_WORST]
    return [*((row, "drawn at random") for row in drawn), *((row, "among the largest errors") for row in worst)]


def image_of(split: Split, row: int) -> np.ndarray | None:
    """The image of a sample as uint8 [H, W, 3]; None where samples are no images of pixels in 0..255."""
    import numpy as np

    if len(split.input_shape) != 3 or split.input_shape[2] not in (1, 3):
        return None
    x = np.asarray(split.x[row : row + 1])[0]
    if x.min() < 0 or x.max() > 255 or (x.dtype.kind == "f" and x.max() <= 1):
        return None
    return np.broadcast_to(np.rint(x).astype(np.uint8), (*x.shape[:2], 3))


def thinned(image: np.ndarray) -> np.ndarray:
    """An image or mask [H, W, ...] with at most 128 rows and columns: every second pixel, every third, ..."""
    step = -(-max(image.shape[:2]) // _LONGEST)
    return image[::step, ::step]


def encode(image: np.ndarray) -> str:
    """A PNG file in base64.

    Args:
        image: Pixels, uint8 [H, W, 3] or [H, W].
    """
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


def decode(text: str) -> np.ndarray:
    """The pixels of `encode`."""
    import numpy as np
    from PIL import Image

    return np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))
