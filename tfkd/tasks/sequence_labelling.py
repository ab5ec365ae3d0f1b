"""Sequence labelling: each frame of a sequence has a class, such as a keyword, a gesture or an activity."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject, Tensor
from tfkd.tasks import bootstrap, events
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split

# Label of a frame that does not count, see `tfkd.data.frame_labels`.
_IGNORED = -1
# Sequences whose labels and predictions the report shows.
_SHOWN = 8
# With fewer sequences nothing is significant.
_LEAST = 10


class SequenceLabelling(ScoredTask):
    """Gives each frame one of C classes, of which 0 is the background; labels are int32 [N, T], -1 to ignore a frame.

    An event is a run of frames of one class other than the background. A predicted event is right where it shares more
    than half of the frames of both together with a labelled event of its class; a false accept shares none.

    Reference:
        Mesaros et al.: Metrics for Polyphonic Sound Event Detection, Applied Sciences 6(6), 2016, section 3.2; the
        criterion of the intersection is that of Kirillov et al.: Panoptic Segmentation (arXiv:1801.00868), section 4.1.
    """

    name = "sequence_labelling"
    labels = "frames"
    metrics = (
        Metric("frame_accuracy", "Frame accuracy"),
        Metric("event_f1", "Event F1"),
        Metric("false_accepts_per_hour", "False accepts per hour", "value", larger_is_better=False, high=math.inf),
    )
    monitor = "frame_accuracy"
    soft_loss = "soft_target"

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        """A logit for each class of each frame, (T, C)."""
        expected = (split.y.shape[1], split.num_classes)
        fits = len(shape) == 2 and all(size in (None, other) for size, other in zip(shape, expected, strict=True))
        return None if fits else f"outputs of shape {expected}, a logit for each class of each frame of {split.name}"

    def hard_loss(self) -> keras.losses.Loss:
        """Cross-entropy of logits, over the frames that count."""
        import keras

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=_IGNORED)

    def training_metrics(self) -> list[keras.Metric]:
        """The accuracy of the frames that count."""
        from tfkd.tasks.frame_accuracy import FrameAccuracy

        return [FrameAccuracy(name=self.monitor)]

    def counts(self, y: Tensor) -> Tensor | None:
        """The frames that are not ignored, bool [B, T]."""
        from keras import ops

        return ops.not_equal(y, _IGNORED)

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """Frame accuracy and event F1 in percent, and false accepts per hour, NaN where the time of a frame is unknown.

        Resamples of the bootstrap are of whole sequences.
        """
        import numpy as np

        y = np.asarray(split.y)
        counted = y != _IGNORED
        predicted = np.where(counted, outputs.reshape(*y.shape, -1).argmax(axis=2), 0)
        found = [[events.find(row) for row in rows] for rows in (predicted, y)]
        by_sequence = [events.count(*pair) for pair in zip(*found, strict=True)]
        hours = counted.sum(axis=1) * (math.nan if split.frame_seconds is None else split.frame_seconds) / 3600
        frequent = np.bincount(y[counted], minlength=1).argmax()
        columns = np.column_stack(
            [((predicted == y) & counted).sum(axis=1), counted.sum(axis=1), np.array(by_sequence), hours,
             ((y == frequent) & counted).sum(axis=1)]
        ).astype(np.float64)  # fmt: skip
        values = _metrics(columns.sum(axis=0, keepdims=True))[0]
        replicates = bootstrap.replicate(lambda weights: _metrics(weights @ columns), len(y), seed)
        constant = float(values[3])
        better = bootstrap.is_above(replicates[:, 0] - replicates[:, 3], 0.0) if len(y) >= _LEAST else None
        name = split.class_names[frequent]
        return Scored(
            {metric.name: float(values[place]) for place, metric in enumerate(self.metrics)},
            {metric.name: replicates[:, place] for place, metric in enumerate(self.metrics)},
            ConstantAnswer(
                "frame_accuracy",
                constant,
                better,
                f"The class {name}, given to every frame, is right in {constant:.1f}%.",
            ),
            right=np.array([one.found == one.predicted == one.labelled for one in by_sequence]),
            details=_details(predicted, y, found, split),
        )


def _metrics(sums: np.ndarray) -> np.ndarray:
    """The metrics, and the frame accuracy of the most frequent class, from sums over sequences, [B, 8] -> [B, 4].

    The columns are right frames, frames, the four of `events.Counts`, hours, and frames of the most frequent class.
    """
    import numpy as np

    right, frames, found, predicted, labelled, false, hours, frequent = sums.T
    with np.errstate(invalid="ignore", divide="ignore"):
        f1 = 2 * found / (predicted + labelled)
        return np.stack([100 * right / frames, 100 * f1, false / hours, 100 * frequent / frames], axis=1)


def _details(predicted: np.ndarray, y: np.ndarray, found: list[list[list[events.Event]]], split: Split) -> JsonObject:
    """Some sequences, and the frames and events of each class."""
    import numpy as np

    with_events = np.flatnonzero((y > 0).any(axis=1))
    rows = np.sort(np.random.default_rng(0).permutation(with_events if len(with_events) else len(y))[:_SHOWN])

    def of_class(label: int) -> JsonObject:
        of_label = [[[one for one in row if one.label == label] for row in rows] for rows in found]
        totals = np.sum([events.count(*pair) for pair in zip(*of_label, strict=True)], axis=0)
        frames = y == label
        return {
            "name": split.class_names[label],
            "frames": int(frames.sum()),
            "recall": 100 * float((predicted[frames] == label).mean()) if frames.any() else None,
            "events": int(totals[2]),
            "event_f1": 100 * float(2 * totals[0] / max(totals[1] + totals[2], 1)) if label else None,
        }

    return {
        "classes": list(split.class_names),
        "frame_seconds": split.frame_seconds,
        "sequences": [
            {"id": int(split.ids[row]), "labels": y[row].tolist(), "predictions": predicted[row].tolist()}
            for row in rows
        ],
        "by_class": [of_class(label) for label in range(split.num_classes)],
    }


TASK = SequenceLabelling()
