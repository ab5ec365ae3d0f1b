"""Centroid detection on a grid: a class, or the background, for each cell. Edge Impulse calls such models FOMO."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject
from tfkd.errors import ModelError
from tfkd.tasks import bootstrap, grid, matching, pictures
from tfkd.tasks.classification import sum_to_1
from tfkd.tasks.matching import Matches
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split
    from tfkd.tasks.grid import Centres

# Largest distance of a centre from that of its object, in cells.
_DISTANCE = 1.0
# Smallest probability of a centre that may become one by the choice of a threshold.
_LEAST_SCORE = 0.05
# Permutations of a test at 5 %: the value must be above all of them.
_PERMUTATIONS = 19
_LEAST = 10


class CentroidDetection(ScoredTask):
    """Finds the centres of objects by 1 + C logits for each cell, [h, w, 1 + C]; labels are boxes."""

    name = "centroid_detection"
    labels = "boxes"
    metrics = (Metric("f1", "F1"),)
    soft_loss = "soft_target"
    has_threshold = True
    default_threshold = 0.5
    monitor = "cell_f1"

    def outputs(self, split: Split) -> int:
        """One for the background and one for each class."""
        return 1 + split.num_classes

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        fits = len(shape) == 3 and shape[2] == self.outputs(split)
        return (
            None if fits else f"a grid of cells with {self.outputs(split)} logits, background first, for {split.name}"
        )

    def hard_loss(self) -> keras.losses.Loss:
        """Cross-entropy of the logits of each cell, see `tfkd.tasks.grid_loss.GridCrossentropy`."""
        from tfkd.tasks.grid_loss import GridCrossentropy

        return GridCrossentropy()

    def training_metrics(self) -> list[keras.Metric]:
        """F1 of cells."""
        from tfkd.tasks.grid_loss import CellF1

        return [CellF1(name=self.monitor)]

    def choose_threshold(self, outputs: np.ndarray, samples: Split) -> float | None:
        """The threshold with the highest F1."""
        _check_logits(outputs)
        classes = outputs.shape[-1] - 1
        return matching.best_threshold(_match(outputs, samples.y, classes, _LEAST_SCORE), self.default_threshold)

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """F1 of the centres of all samples and classes, in percent.

        A centre is right where its distance from the centre of an object of its class is at most one cell. Each object
        has one right centre at most; centres with a higher probability are assigned first.

        Raises:
            ModelError: The outputs are probabilities.
        """
        import numpy as np

        _check_logits(outputs)
        limit = self.default_threshold if threshold is None else threshold
        n, classes = len(split), split.num_classes
        found = [grid.decode(one, limit) for one in outputs]
        counts = _assign(found, split.y, classes, outputs.shape[1:3]).counts(limit)
        by_sample = counts.sum(axis=1)
        value = float(matching.f1(by_sample.sum(axis=0)))
        replicates = bootstrap.replicate(lambda weights: matching.f1(weights @ by_sample.astype(np.float64)), n, seed)
        rng = np.random.default_rng(0)
        others = []
        for _ in range(_PERMUTATIONS if n >= _LEAST else 0):
            order = rng.permutation(n)
            one = _assign([found[row] for row in order], split.y, classes, outputs.shape[1:3]).counts(limit)
            others.append(float(matching.f1(one.sum(axis=(0, 1)))))
        chance = 100 * float(np.mean(others)) if others else np.nan
        errors = (by_sample[:, 1] - by_sample[:, 0]) + (by_sample[:, 2] - by_sample[:, 0])
        return Scored(
            {"f1": 100 * value},
            {"f1": 100 * replicates},
            ConstantAnswer(
                "f1",
                chance,
                bootstrap.is_significant(value, np.array(others)) if others else None,
                f"Centres compared with the objects of other samples have an F1 of {chance:.1f}% on average."
                if others
                else "There are too few samples to compare with an answer that does not depend on the image.",
            ),
            errors=errors.astype(np.float64),
            threshold=limit,
            details=_details(split, found, counts, errors),
        )


def _check_logits(outputs: np.ndarray) -> None:
    """Refuses probabilities: the decoder takes logits, and their softmax again would move all of them to the middle.

    Raises:
        ModelError: The outputs of all cells are in 0..1 and sum to about 1.
    """
    if sum_to_1(outputs):
        raise ModelError(
            "centroid_detection: outputs must be logits of cells. Received: cells that are >= 0 and sum to 1, as after "
            "a softmax. Use a model that ends before it."
        )


def _match(outputs: np.ndarray, y: np.ndarray, classes: int, threshold: float) -> Matches:
    return _assign([grid.decode(one, threshold) for one in outputs], y, classes, outputs.shape[1:3])


def _assign(found: list[Centres], y: np.ndarray, classes: int, cells: tuple[int, ...]) -> Matches:
    """Assigns the centres of each sample to its boxes, float32 [N, M, 5], on a grid of (h, w) cells."""
    import numpy as np

    objects, right = np.zeros((len(y), classes), np.int64), []
    for row, (one, boxes) in enumerate(zip(found, y, strict=True)):
        real = boxes[boxes[:, 4] >= 0].astype(np.float64)
        objects[row] = np.bincount(real[:, 4].astype(int), minlength=classes)
        across = (one.x[:, None] - (real[:, 0] + real[:, 2]) / 2) * cells[1]
        down = (one.y[:, None] - (real[:, 1] + real[:, 3]) / 2) * cells[0]
        same = one.classes[:, None] == real[:, 4]
        right.append(matching.greedy(np.where(same, np.hypot(across, down), np.inf), _DISTANCE) >= 0)
    return Matches(
        np.repeat(np.arange(len(y)), [len(one.x) for one in found]),
        np.concatenate([one.classes for one in found]),
        np.concatenate([one.scores for one in found]),
        np.concatenate(right),
        objects,
    )


def _details(split: Split, found: list[Centres], counts: np.ndarray, errors: np.ndarray) -> JsonObject:
    """Precision, recall and F1 of each class, and some samples with their centres."""
    import numpy as np

    summed = counts.sum(axis=0)
    by_class = []
    for name, (right, called, objects) in zip(split.class_names, summed.tolist(), strict=True):
        by_class.append(
            {
                "name": name,
                "objects": objects,
                "precision": 100 * right / called if called else None,
                "recall": 100 * right / objects if objects else None,
                "f1": 100 * float(matching.f1(np.array([right, called, objects]))) if called or objects else None,
            }
        )
    shown = []
    for row, why in pictures.chosen(errors.astype(np.float64)):
        image = pictures.image_of(split, row)
        if image is not None:
            one, boxes = found[row], split.y[row]
            shown.append(
                {
                    "sample": int(split.ids[row]),
                    "why": why,
                    "wrong": int(errors[row]),
                    "image": pictures.encode(pictures.thinned(image)),
                    "boxes": np.round(boxes[boxes[:, 4] >= 0].astype(float), 4).tolist(),
                    "centres": np.round(np.stack([one.x, one.y, one.classes, one.scores], axis=1), 4).tolist(),
                }
            )
    return {"per_class": by_class, "centres": shown}


TASK = CentroidDetection()
