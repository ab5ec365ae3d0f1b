"""Labels of a sequence: the class of each frame, int32 [N, T], of which class 0 is the background.

The label -1 marks a frame that is ignored in losses and metrics: padding, or the unclear edge of an event.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np

from tfkd.data import checks
from tfkd.errors import InputError

log = logging.getLogger("tfkd")

KIND = "frames"
IGNORED = -1
# Names of the class that becomes class 0 where frames have names.
BACKGROUND = ("background", "silence", "none", "null", "other")


def check(y: np.ndarray, key: str, rows: int, where: str) -> np.ndarray:
    """Labels as int32 [N, T].

    Args:
        y: Class numbers [N, T], -1 for frames that are ignored.
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.

    Raises:
        InputError: They are no such numbers, or not one row for each sample.
    """
    if y.dtype.kind not in "bui" or y.ndim != 2 or y.shape[1] < 1:
        raise InputError(
            f"load: {where}: {key} must be class numbers of frames, integers [N, T]. Received: {y.dtype} of shape "
            f"{y.shape}. Save a class number for each frame, 0 for the background and -1 for frames to ignore."
        )
    checks.check_rows(y, key, rows, where)
    return y.astype(np.int32)


def check_names(parts: Mapping[str, np.ndarray], names: tuple[str, ...], where: str) -> tuple[str, ...]:
    """The name of each class of frames.

    Args:
        parts: Checked labels of each part by the name of the array, with `y_train`.
        names: Given names; empty for the numbers of the classes.
        where: File, folder or name, for messages.

    Raises:
        InputError: A label is no class, a class has no training frame, or parts have other numbers of frames.
    """
    train = parts["y_train"]
    classes = len(names) or int(train.max()) + 1
    if classes < 2:
        raise InputError(
            f"load: {where}: frames must have two classes or more, of which 0 is the background. Received: "
            f"{max(classes, 0)} in y_train. Add labels of events."
        )
    for key, y in parts.items():
        wrong = np.argwhere((y < IGNORED) | (y >= classes))
        if len(wrong):
            row, frame = wrong[0]
            raise InputError(
                f"load: {where}: labels of frames must be in 0..{classes - 1}, the classes of y_train, or -1. "
                f"Received: {y[row, frame]} in {key}, row {row}, frame {frame}. Correct it."
            )
        if y.shape[1] != train.shape[1]:
            raise InputError(
                f"load: {where}: {key} must have the {train.shape[1]} frames of y_train. Received: {y.shape[1]}. Pad "
                "the sequences, with the label -1."
            )
    empty = np.setdiff1d(np.arange(classes), np.unique(train))
    if len(empty):
        name = names[empty[0]] if names else empty[0]
        raise InputError(
            f"load: {where}: each class needs training frames. Received: none of class {name}. Add some, or renumber "
            "the classes."
        )
    if names and names[0].lower() not in BACKGROUND:
        log.warning(
            "%s: class 0, %s, counts as the background: its frames are no events. Rename the background to one of %s.",
            where, names[0], ", ".join(BACKGROUND),
        )  # fmt: skip
    return names or tuple(str(number) for number in range(classes))
