"""Object detection: boxes with classes, by offsets and logits of anchors."""

from __future__ import annotations

import contextlib
import dataclasses
import io
from typing import TYPE_CHECKING, Any

from tfkd._internal.types import JsonObject
from tfkd.errors import InputError, ToolMissingError
from tfkd.tasks import anchors, bootstrap, pictures
from tfkd.tasks.precision import interpolated
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask, Task

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd.data import Split
    from tfkd.tasks.anchors import Boxes

# Smallest probability of a box that counts in the average precision, and of one that the report shows.
_LEAST_SCORE, _SHOWN_SCORE = 0.05, 0.4
# The IoU thresholds of COCO, 0.5, 0.55, ..., 0.95.
_THRESHOLDS = 10
_LEAST = 10


@dataclasses.dataclass(frozen=True)
class Evaluation:
    """What pycocotools assigned, for one class.

    Args:
        sample: Row of the sample of each box, in the order of decreasing scores, int64 [D].
        right: Whether it was assigned to an object at each IoU threshold, bool [10, D].
        objects: Number of objects of each sample, int64 [N].
        precision: Average precision at each IoU threshold by pycocotools, float64 [10]; NaN without objects.
    """

    sample: np.ndarray
    right: np.ndarray
    objects: np.ndarray
    precision: np.ndarray


class ObjectDetection(ScoredTask):
    """Finds boxes by 4 offsets and C logits of each anchor, [A, 4 + C], see `tfkd.tasks.anchors`; labels are boxes.

    Args:
        image_shape: Height and width of the images in pixels; None for a task that does not know its data yet.
    """

    name = "object_detection"
    labels = "boxes"
    metrics = (Metric("map", "mAP"), Metric("ap50", "AP50"))
    soft_loss = "anchor_target"
    monitor = "loss"
    monitor_rises = False

    def __init__(self, image_shape: tuple[int, int] | None = None) -> None:
        self.image_shape = image_shape

    def for_data(self, split: Split) -> Task:
        return ObjectDetection((split.input_shape[0], split.input_shape[1]))

    def outputs(self, split: Split) -> int:
        """Four offsets and one logit for each class."""
        return 4 + split.num_classes

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        fits = len(shape) == 2 and shape[1] == self.outputs(split)
        if fits and anchors.strides_of(split.input_shape, shape[0]) is not None:
            return None
        return (
            f"a row of {self.outputs(split)} values, four offsets and the logits, for each anchor of one of the "
            f"strides {anchors.STRIDES}, for {split.name}"
        )

    def hard_loss(self) -> keras.losses.Loss:
        """Focal loss and Huber loss, see `tfkd.tasks.anchor_loss.AnchorLoss`."""
        from tfkd.tasks.anchor_loss import AnchorLoss

        if self.image_shape is None:
            raise InputError(
                "object_detection: the loss needs the size of the images. Received: a task without data. Use "
                "tfkd.tasks.find(split, name='object_detection')."
            )
        return AnchorLoss(self.image_shape)

    def training_metrics(self) -> list[keras.Metric | str]:
        """None: the average precision needs all samples."""
        return []

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """MAP over the IoU thresholds 0.5 to 0.95, and AP50, in percent, by pycocotools.

        Raises:
            ToolMissingError: pycocotools is not installed.
        """
        import numpy as np

        n, layout = len(split), anchors.for_outputs(split.input_shape, outputs.shape[1])
        found = [anchors.decode(one, layout, _LEAST_SCORE) for one in outputs]
        evaluations = evaluate(found, split)
        precision = np.stack([one.precision for one in evaluations])
        values = [_mean(precision), _mean(precision[:, 0])]
        replicates = bootstrap.replicate(lambda weights: _means(weights, evaluations), n, seed)
        # Boxes that do not depend on the image: those of another sample.
        shifted = evaluate([found[(row + n // 2) % n] for row in range(n)], split)
        chance = np.stack([one.precision for one in shifted])
        of_chance = bootstrap.replicate(lambda weights: _means(weights, shifted), n, seed)
        errors = _errors(evaluations, found, n)
        return Scored(
            {"map": values[0], "ap50": values[1]},
            {"map": replicates[:, 0], "ap50": replicates[:, 1]},
            ConstantAnswer(
                "ap50",
                _mean(chance[:, 0]),
                bootstrap.is_above(replicates[:, 1], of_chance[:, 1]) if n >= _LEAST else None,
                f"Boxes compared with the objects of other samples have an AP50 of {_mean(chance[:, 0]):.1f}%.",
            ),
            errors=errors,
            details=_details(split, found, evaluations, errors),
        )


def _mean(precision: np.ndarray) -> float:
    """The mean in percent over the classes that occur; NaN where none does."""
    import numpy as np

    known = precision[np.isfinite(precision)]
    return 100 * float(known.mean()) if len(known) else np.nan


def evaluate(found: list[Boxes], split: Split) -> list[Evaluation]:
    """Assigns boxes to objects and computes the average precision of each class, by pycocotools.

    Args:
        found: The boxes of each sample.
        split: The samples.

    Raises:
        ToolMissingError: pycocotools is not installed.
    """
    import numpy as np

    evaluation = _run(found, split)
    precision = evaluation.eval["precision"][:, :, :, 0, -1].mean(axis=1)  # [thresholds, classes]; -1 without objects
    results = []
    for number in range(split.num_classes):
        images = [evaluation.evalImgs[number * len(split) + row] for row in range(len(split))]
        rows = np.concatenate(
            [np.full(0 if one is None else len(one["dtScores"]), row) for row, one in enumerate(images)]
        )
        known = [one for one in images if one is not None]
        scores = np.concatenate([np.array(one["dtScores"]) for one in known]) if known else np.zeros(0)
        matches = [one["dtMatches"] for one in known]
        right = np.concatenate(matches, axis=1) > 0 if matches else np.zeros((_THRESHOLDS, 0), bool)
        order = np.argsort(-scores, kind="mergesort")
        own = precision[:, number]
        results.append(
            Evaluation(
                rows[order].astype(np.int64),
                right[:, order],
                np.array([0 if one is None else len(one["gtIds"]) for one in images]),
                np.where(own < 0, np.nan, own),
            )
        )
    return results


def _run(found: list[Boxes], split: Split) -> Any:
    """A `COCOeval` of all samples."""
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise ToolMissingError(
            f"object_detection: the metrics need the package pycocotools: {error}. Install it with pip install "
            "'tfkd[detection]'."
        ) from None
    objects: list[JsonObject] = []
    answers: list[JsonObject] = []
    for row, (one, labels) in enumerate(zip(found, split.y, strict=True)):
        for box in labels[labels[:, 4] >= 0].tolist():
            pixels = _pixels(box[:4], split.input_shape)
            entry = {"image_id": row, "category_id": int(box[4]), "bbox": pixels, "area": pixels[2] * pixels[3]}
            objects.append({**entry, "id": len(objects) + 1, "iscrowd": 0})
        for ends, number, score in zip(one.ends.tolist(), one.classes.tolist(), one.scores.tolist(), strict=True):
            pixels = _pixels(ends, split.input_shape)
            entry = {"image_id": row, "category_id": number, "bbox": pixels, "area": pixels[2] * pixels[3]}
            answers.append({**entry, "id": len(answers) + 1, "score": score, "iscrowd": 0})
    with contextlib.redirect_stdout(io.StringIO()):  # it prints its progress
        sides = [_dataset(entries, split) for entries in (objects, answers)]
        truth, answer = COCO(), COCO()
        for side, dataset in zip((truth, answer), sides, strict=True):
            side.dataset = dataset
            side.createIndex()
        evaluation = COCOeval(truth, answer, "bbox")
        evaluation.params.areaRng, evaluation.params.areaRngLbl = [[0, 1e10]], ["all"]
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation


def _dataset(entries: list[JsonObject], split: Split) -> JsonObject:
    return {
        "images": [{"id": row} for row in range(len(split))],
        "annotations": entries,
        "categories": [{"id": number} for number in range(split.num_classes)],
    }


def _pixels(ends: list[float], shape: tuple[int, ...]) -> list[float]:
    """Left, top, width and height in pixels."""
    left, right = (ends[place] * shape[1] for place in (0, 2))
    top, bottom = (ends[place] * shape[0] for place in (1, 3))
    return [left, top, right - left, bottom - top]


def _means(weights: np.ndarray, evaluations: list[Evaluation]) -> np.ndarray:
    """MAP and AP50 of resamples in percent, [B, N] -> [B, 2]."""
    import numpy as np

    found = np.full((len(weights), len(evaluations), _THRESHOLDS), np.nan)
    for number, one in enumerate(evaluations):
        ranked, objects = weights[:, one.sample], weights @ one.objects
        called = np.cumsum(ranked, axis=1)
        for place, right in enumerate(one.right):
            true = np.cumsum(ranked * right, axis=1)
            with np.errstate(invalid="ignore", divide="ignore"):
                values = interpolated(true / objects[:, None], np.nan_to_num(true / called))
            found[:, number, place] = np.where(objects > 0, values, np.nan)
    known = np.isfinite(found)
    summed, counts = np.where(known, found, 0).sum(axis=1), known.sum(axis=1)
    means = 100 * np.where(counts > 0, summed / np.maximum(counts, 1), np.nan)
    return np.stack([means.mean(axis=1), means[:, 0]], axis=1)


def _errors(evaluations: list[Evaluation], found: list[Boxes], samples: int) -> np.ndarray:
    """The number of objects of each sample that have no box with an IoU of 0.5, and of boxes without an object."""
    import numpy as np

    errors = np.zeros(samples)
    for number, one in enumerate(evaluations):
        scores = np.sort(np.concatenate([boxes.scores[boxes.classes == number] for boxes in found]))[::-1]
        certain = scores >= _SHOWN_SCORE
        right = np.bincount(one.sample[certain & one.right[0]], minlength=samples)
        errors += one.objects - right + np.bincount(one.sample[certain & ~one.right[0]], minlength=samples)
    return errors


def _details(split: Split, found: list[Boxes], evaluations: list[Evaluation], errors: np.ndarray) -> JsonObject:
    """Average precision of each class, its curve of precision and recall, and some samples with their boxes."""
    import numpy as np

    by_class, curves = [], []
    for name, one in zip(split.class_names, evaluations, strict=True):
        known = np.isfinite(one.precision).all()
        by_class.append(
            {
                "name": name,
                "objects": int(one.objects.sum()),
                "ap": 100 * float(one.precision.mean()) if known else None,
                "ap50": 100 * float(one.precision[0]) if known else None,
            }
        )
        true = np.cumsum(one.right[0])
        places = np.unique(np.linspace(0, max(len(true) - 1, 0), min(len(true), 100)).round().astype(int))
        recall, precision = true / max(one.objects.sum(), 1), true / np.arange(1, len(true) + 1)
        curves.append([np.round(curve[places], 4).tolist() for curve in (recall, precision)])
    shown = []
    for row, why in pictures.chosen(errors):
        image = pictures.image_of(split, row)
        if image is not None:
            own, boxes = found[row], split.y[row]
            certain = own.scores >= _SHOWN_SCORE
            answers = np.concatenate([own.ends, own.classes[:, None], own.scores[:, None]], axis=1)[certain]
            shown.append(
                {
                    "sample": int(split.ids[row]),
                    "why": why,
                    "wrong": int(errors[row]),
                    "image": pictures.encode(pictures.thinned(image)),
                    "boxes": np.round(boxes[boxes[:, 4] >= 0].astype(float), 4).tolist(),
                    "answers": np.round(answers, 4).tolist(),
                }
            )
    return {"per_class": by_class, "curves": curves, "answers": shown}


TASK = ObjectDetection()
