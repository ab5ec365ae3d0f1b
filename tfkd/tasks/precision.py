"""Average precision as COCO computes it."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np

# Recalls at which COCO reads the precision.
_RECALLS = 101


def interpolated(recall: np.ndarray, precision: np.ndarray) -> np.ndarray:
    """The mean of the precision at 101 recalls, each the largest at that recall or a higher one: [B, D], [B, D] -> [B].

    Reference:
        `COCOeval.accumulate` of pycocotools.
    """
    import numpy as np

    envelope = np.maximum.accumulate(precision[:, ::-1], axis=1)[:, ::-1]
    wanted, found = np.linspace(0, 1, _RECALLS), np.zeros(len(recall))
    for row, (one, values) in enumerate(zip(recall, envelope, strict=True)):
        place = np.searchsorted(one, wanted, side="left")
        found[row] = values[place[place < len(values)]].sum() / _RECALLS
    return found
