"""Samples of a teacher that differ from those of its student: another form of the same rows, or another data set."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Callable
from typing import TYPE_CHECKING, Literal

import numpy as np

from tfkd._internal.types import Nest
from tfkd.data.augmentation import view_seeds
from tfkd.data.batches import Samples
from tfkd.data.lazy import model_input_lookup
from tfkd.data.splits import Split
from tfkd.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

BY = ("row", "label")

log = logging.getLogger("tfkd")


@dataclasses.dataclass(frozen=True)
class Partner:
    """The split from which a teacher gets the sample that belongs to each sample of the student.

    Args:
        split: Data of the teacher, of the same role as the student's split.
        by: `row`: the same row of both sources, such as a spectrogram and a cheaper feature of one recording. `label`:
            another sample of the same class at each epoch, such as an image for a sound.

    Raises:
        InputError: by has another value.
    """

    split: Split
    by: Literal["row", "label"] = "row"

    def __post_init__(self) -> None:
        if self.by not in BY:
            raise InputError(f"Partner: by must be row or label. Received: {self.by!r}. Use 'row' for equal rows.")

    def lookup(self, samples: Samples, seed: int) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Nest]:
        """Prepares the look-up of the teacher's samples.

        Args:
            samples: Split of the student.
            seed: Random seed of the choice within a class.

        Returns:
            A function (rows of the student's split [B], their ids [B], epoch) -> the teacher's x, float32 [B, ...], or
            a dictionary by input.

        Raises:
            InputError: The two splits do not belong together.
        """
        self._check(samples)
        return self._by_row(samples) if self.by == "row" else self._by_label(samples, seed)

    def _by_row(self, samples: Samples) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Nest]:
        import tensorflow as tf

        order = np.argsort(self.split.ids)
        with tf.device("CPU:0"):
            find = model_input_lookup(self.split.x)
            teacher_rows = tf.constant(order[np.searchsorted(self.split.ids, samples.ids, sorter=order)])
        return lambda rows, ids, epoch: find(tf.gather(teacher_rows, rows))

    def _by_label(self, samples: Samples, seed: int) -> Callable[[tf.Tensor, tf.Tensor, tf.Tensor], Nest]:
        import tensorflow as tf

        counts = np.bincount(self.split.y, minlength=samples.num_classes)
        with tf.device("CPU:0"):
            find, y = model_input_lookup(self.split.x), tf.constant(samples.y)
            # The teacher's rows sorted by class: class c has the positions first[c] .. first[c] + size[c] - 1.
            by_class = tf.constant(np.argsort(self.split.y, kind="stable"))
            first, size = tf.constant(np.cumsum(counts) - counts), tf.constant(counts)

        def choose(rows: tf.Tensor, ids: tf.Tensor, epoch: tf.Tensor) -> Nest:
            label = tf.gather(y, rows)
            random = tf.bitcast(view_seeds(ids, epoch, seed=seed)[:, 1], tf.uint32)
            position = tf.gather(first, label) + tf.cast(random, tf.int64) % tf.gather(size, label)
            return find(tf.gather(by_class, position))

        return choose

    def _check(self, samples: Samples) -> None:
        if self.by == "label" and (samples.y.ndim > 1 or self.split.y.ndim > 1):
            raise InputError(
                "Partner: by='label' needs labels that are classes. Received: values or sets of labels. Use by='row'."
            )
        if self.split.role != samples.role:
            raise InputError(
                f"Partner: both splits must have the same role. Received: {samples!r} and {self.split!r}. "
                f"Pass the {samples.role} split of the teacher's data."
            )
        if self.split.num_classes != samples.num_classes:
            raise InputError(
                f"Partner: both splits must have the same classes. Received: {samples.num_classes} and "
                f"{self.split.num_classes} classes. Use the same class numbers in both sources."
            )
        if self.by == "label":
            self._check_labels(samples)
        else:
            self._check_rows(samples)

    def _check_labels(self, samples: Samples) -> None:
        self._check_names(samples.class_names)
        missing = sorted(set(samples.y.tolist()) - set(self.split.y.tolist()))
        if missing:
            raise InputError(
                f"Partner: the teacher's data must have samples of each class of the student. Received: none of class "
                f"{missing[0]}. Add some."
            )

    def _check_names(self, student: tuple[str, ...]) -> None:
        """Refuses classes of other names, and warns where one of both sources has numbers only."""
        teacher, numbers = self.split.class_names, tuple(map(str, range(len(student))))
        if teacher == student:
            return
        number = next(i for i, (one, other) in enumerate(zip(student, teacher, strict=True)) if one != other)
        received = f"class {number} is {student[number]!r} for the student and {teacher[number]!r} for the teacher"
        if numbers not in (student, teacher):
            raise InputError(
                "Partner: both splits must have the same classes in the same order, since classes are paired by their "
                f"number. Received: {received}. Name them alike."
            )
        log.warning("Classes of teacher and student are paired by their number: %s.", received)

    def _check_rows(self, samples: Samples) -> None:
        labels = dict(zip(self.split.ids.tolist(), self.split.y.tolist(), strict=True))
        wrong = [i for i, y in zip(samples.ids.tolist(), samples.y.tolist(), strict=True) if labels.get(i) != y]
        if wrong:
            raise InputError(
                f"Partner: by='row' needs the same rows with the same labels in both sources. Received: row {wrong[0]} "
                f"is {'missing' if wrong[0] not in labels else 'of another class'} in {self.split.name}; "
                f"{len(wrong)} rows differ. Save both sources in the same order, or use by='label'."
            )
