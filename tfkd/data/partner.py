"""What a teacher sees while its student sees something else: another view of the same rows, or another data set."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from tfkd.data.augmentation import view_seeds
from tfkd.errors import InputError

if TYPE_CHECKING:
    from tfkd.data import Split

BY = ("row", "label")


@dataclasses.dataclass(frozen=True)
class Partner:
    """The samples that a teacher gets beside those of a student.

    Args:
        split: of the teacher's data; of the same role as the student's.
        by: `row`: the same rows of both sources, such as a spectrogram and a cheaper feature of one recording; `label`:
            for each sample of the student another one of its class at each epoch, such as an image for a sound.

    Raises:
        ValueError: by is neither.
    """

    split: Split
    by: Literal["row", "label"] = "row"

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise InputError(f"Partner: by must be row or label. Received: {self.by!r}. Use 'row' for equal rows.")

    def lookup(self, student: Split, seed: int) -> Callable[[Any, Any, Any], Any]:
        """A function of (rows of `student`, their ids, the epoch) that gives the teacher's samples, float32 [B, ...].

        Raises:
            ValueError: the splits do not belong together.
        """
        import tensorflow as tf

        self._check(student)
        with tf.device("CPU:0"):
            x = tf.constant(self.split.x)
            if self.by == "row":
                order = np.argsort(self.split.ids)
                rows = tf.constant(order[np.searchsorted(self.split.ids, student.ids, sorter=order)])
                return lambda picked, ids, epoch: tf.cast(tf.gather(x, tf.gather(rows, picked)), tf.float32)
            by_class = tf.constant(np.argsort(self.split.y, kind="stable"))
            counts = np.bincount(self.split.y, minlength=student.num_classes)
            first = tf.constant(np.cumsum(counts) - counts)
            counts, y = tf.constant(counts), tf.constant(student.y)

        def of_class(picked: Any, ids: Any, epoch: Any) -> Any:
            label = tf.gather(y, picked)
            words = tf.bitcast(view_seeds(ids, epoch, seed=seed)[:, 1], tf.uint32)
            place = tf.cast(words, tf.int64) % tf.gather(counts, label)
            return tf.cast(tf.gather(x, tf.gather(by_class, tf.gather(first, label) + place)), tf.float32)

        return of_class

    def _check(self, student: Split) -> None:
        if self.split.role != student.role:
            raise InputError(
                f"Partner: both splits must have one role. Received: {student!r} and {self.split!r}. "
                f"Give the {student.role} split of the teacher's data."
            )
        if self.split.num_classes != student.num_classes:
            raise InputError(
                f"Partner: both splits must have the same classes. Received: {student.num_classes} and "
                f"{self.split.num_classes}. Label them alike."
            )
        if self.by == "label":
            missing = sorted(set(student.y.tolist()) - set(self.split.y.tolist()))
            if missing:
                raise InputError(
                    f"Partner: the teacher's data need samples of each class. Received: none of class {missing[0]}. "
                    "Add some."
                )
            return
        rows = dict(zip(self.split.ids.tolist(), self.split.y.tolist(), strict=True))
        wrong = [i for i, y in zip(student.ids.tolist(), student.y.tolist(), strict=True) if rows.get(i) != y]
        if wrong:
            raise InputError(
                f"Partner: by='row' needs the same rows with the same labels in both sources. Received: row {wrong[0]} "
                f"is {'missing' if wrong[0] not in rows else 'of another class'} in {self.split.name}, "
                f"{len(wrong)} in all. Save both in one order, or use by='label'."
            )
