"""Labels of anomaly detection: bool [N], True for an abnormal sample. Training samples are normal.

They are made of classes: the class `normal` (also `good`, `ok`, `healthy` or the number 0) is normal, each other class,
such as one for each kind of defect, is abnormal. In a source without a test part all abnormal samples are test samples.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from tfkd.data import checks
from tfkd.errors import InputError

KIND = "abnormal"
CLASS_NAMES = ("normal", "abnormal")
_NORMAL = ("normal", "good", "ok", "healthy", "0")


def normal_class(names: Sequence[str], labels: str | None, where: str) -> int:
    """The number of the class that is normal: 0 where classes have no names.

    Args:
        names: Names of the classes; empty if they have none.
        labels: Kind of the labels of the source; None if it is not known.
        where: File, folder or name, for messages.

    Raises:
        InputError: The labels are not classes, or it is not clear which class is normal.
    """
    normal = [place for place, name in enumerate(names) if name.lower() in _NORMAL] if names else [0]
    if len(normal) != 1 or labels not in (None, "classes"):
        found = ", ".join(names[:10]) if labels in (None, "classes") else f"labels of the kind {labels!r}"
        raise InputError(
            f"load: {where}: one class must be normal, by one of the names {', '.join(_NORMAL)}. Received: {found}. "
            "Rename it, or give 0 for normal and 1 for abnormal samples."
        )
    return normal[0]


def check(y: np.ndarray, key: str, rows: int, where: str, normal: int = 0) -> np.ndarray:
    """Labels as bool [N].

    Args:
        y: Class numbers [N], or bool [N], of which True is class 1.
        key: Name of the array, for messages.
        rows: Number of samples.
        where: File, folder or name, for messages.
        normal: Number of the normal class.

    Raises:
        InputError: They are no class numbers, or not one for each sample.
    """
    if y.dtype == bool and y.ndim == 1:
        checks.check_rows(y, key, rows, where)
        return y.astype(np.int64) != normal
    return checks.check_y(y, key, rows, where) != normal


def check_names(parts: Mapping[str, np.ndarray], where: str) -> tuple[str, ...]:
    """The names of the two classes.

    Args:
        parts: Checked labels of each part by the name of the array, with `y_train`.
        where: File, folder or name, for messages.

    Raises:
        InputError: A training sample is abnormal.
    """
    abnormal = np.flatnonzero(parts["y_train"])
    if len(abnormal):
        raise InputError(
            f"load: {where}: an anomaly detector is trained on normal samples. Received: {len(abnormal)} abnormal ones "
            f"in the training part, the first in row {abnormal[0]}. Move them to the test part."
        )
    return CLASS_NAMES
