"""Semantic segmentation: a class for each pixel."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfkd._internal.types import JsonObject
from tfkd.tasks import bootstrap, pictures
from tfkd.tasks.task import ConstantAnswer, Metric, Scored, ScoredTask

if TYPE_CHECKING:
    import keras
    import numpy as np

    from tfkd._internal.types import Tensor
    from tfkd.data import Split

# With fewer samples nothing is significant.
_LEAST = 10


class Segmentation(ScoredTask):
    """Chooses one of C classes for each pixel by C logits [H, W, C]; labels are masks, uint8 [N, H, W]."""

    name = "segmentation"
    labels = "masks"
    metrics = (Metric("miou", "mIoU"), Metric("dice", "Dice"))
    soft_loss = "soft_target"
    monitor = "pixel_accuracy"

    def check_outputs(self, shape: tuple[int | None, ...], split: Split) -> str | None:
        expected = (*split.y.shape[1:], self.outputs(split))
        fits = len(shape) == 3 and all(a in (None, b) for a, b in zip(shape, expected, strict=True))
        return None if fits else f"one logit per pixel and class, {expected} for {split.name}"

    def hard_loss(self) -> keras.losses.Loss:
        """Cross-entropy of the logits of each pixel; pixels of the class 255 do not count."""
        import keras

        from tfkd.data.dense_labels import IGNORED

        return keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=IGNORED)

    def training_metrics(self) -> list[keras.Metric]:
        """The share of pixels with the right class."""
        from tfkd.tasks.pixel_accuracy import PixelAccuracy

        return [PixelAccuracy(name=self.monitor)]

    def counts(self, y: Tensor) -> Tensor | None:
        """The pixels that are not of the class 255, bool [B, H, W]."""
        from keras import ops

        from tfkd.data.dense_labels import IGNORED

        return ops.not_equal(ops.cast(y, "int32"), IGNORED)

    def score(self, outputs: np.ndarray, split: Split, *, threshold: float | None = None, seed: int = 0) -> Scored:
        """The means of IoU and Dice over the classes that occur in labels or predictions, in percent.

        Pixels of all samples are counted together, as `keras.metrics.MeanIoU` does.
        """
        import numpy as np

        predicted, n = outputs.argmax(axis=-1).astype(np.uint8), len(split)
        confusions = np.stack([_confusion(y, p, split.num_classes) for y, p in zip(split.y, predicted, strict=True)])
        constant = _constant_mask(split)
        constants = np.stack([_confusion(y, constant, split.num_classes) for y in split.y])
        found = _overlaps(confusions.sum(axis=0)[None])
        replicates = bootstrap.replicate(lambda weights: _weighted(weights, confusions), n, seed)
        of_constant = bootstrap.replicate(lambda weights: _weighted(weights, constants), n, seed)
        constant_miou = 100 * float(_means(_overlaps(constants.sum(axis=0)[None]))[0, 0])
        counted = np.maximum(confusions.sum(axis=(1, 2)), 1)
        errors = 1 - np.trace(confusions, axis1=1, axis2=2) / counted
        values = 100 * _means(found)[0]
        return Scored(
            {"miou": float(values[0]), "dice": float(values[1])},
            {"miou": 100 * replicates[:, 0], "dice": 100 * replicates[:, 1]},
            ConstantAnswer(
                "miou",
                constant_miou,
                bootstrap.is_above(replicates[:, 0], of_constant[:, 0]) if n >= _LEAST else None,
                "One mask for all samples, the most frequent class at each pixel, has an mIoU of "
                f"{constant_miou:.1f}%.",
            ),
            errors=errors,
            details=_details(split, predicted, confusions, errors),
        )


def _confusion(labels: np.ndarray, predicted: np.ndarray, classes: int) -> np.ndarray:
    """The number of pixels of each label (rows) and prediction (columns), int64 [C, C]."""
    import numpy as np

    from tfkd.data.dense_labels import IGNORED

    counted = labels != IGNORED
    pairs = labels[counted].astype(np.int64) * classes + predicted[counted]
    return np.bincount(pairs, minlength=classes * classes).reshape(classes, classes)


def _constant_mask(split: Split) -> np.ndarray:
    """The most frequent class at each pixel, uint8 [H, W]."""
    import numpy as np

    counts = np.stack([(split.y == number).sum(axis=0) for number in range(split.num_classes)])
    return counts.argmax(axis=0).astype(np.uint8)


def _weighted(weights: np.ndarray, confusions: np.ndarray) -> np.ndarray:
    """Mean IoU and Dice of resamples: [B, N], [N, C, C] -> [B, 2]."""
    classes = confusions.shape[1]
    summed = weights @ confusions.reshape(len(confusions), -1).astype("float64")
    return _means(_overlaps(summed.reshape(-1, classes, classes)))


def _overlaps(confusions: np.ndarray) -> np.ndarray:
    """IoU and Dice of each class, [B, C, C] -> [B, C, 2]; NaN for a class without a label and a prediction.

    With the pixels TP of right predictions, `IoU = TP / (TP + FP + FN)` and `Dice = 2 TP / (2 TP + FP + FN)`.
    """
    import numpy as np

    right = np.diagonal(confusions, axis1=1, axis2=2)
    total = confusions.sum(axis=1) + confusions.sum(axis=2)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.stack([right / (total - right), 2 * right / total], axis=-1)


def _means(overlaps: np.ndarray) -> np.ndarray:
    """The mean over the classes that occur, [B, C, 2] -> [B, 2]; NaN where none does."""
    import numpy as np

    known = np.isfinite(overlaps)
    counts = known.sum(axis=1)
    return np.where(counts > 0, np.where(known, overlaps, 0).sum(axis=1) / np.maximum(counts, 1), np.nan)


def _details(split: Split, predicted: np.ndarray, confusions: np.ndarray, errors: np.ndarray) -> JsonObject:
    """IoU and Dice of each class, and some samples with their masks."""
    import numpy as np

    summed = confusions.sum(axis=0)
    overlaps, share = _overlaps(summed[None])[0], summed.sum(axis=1) / max(summed.sum(), 1)
    by_class = [
        {
            "name": split.class_names[number],
            "share": 100 * float(share[number]),
            **{
                name: None if np.isnan(value) else 100 * float(value)
                for name, value in zip(("iou", "dice"), found, strict=True)
            },
        }
        for number, found in enumerate(overlaps)
    ]
    shown = []
    for row, why in pictures.chosen(errors):
        image = pictures.image_of(split, row)
        if image is not None:
            masks = {"label": split.y[row], "prediction": predicted[row]}
            shown.append(
                {
                    "sample": int(split.ids[row]),
                    "why": why,
                    "wrong": float(errors[row]),
                    "image": pictures.encode(pictures.thinned(image)),
                    **{name: pictures.encode(pictures.thinned(mask)) for name, mask in masks.items()},
                }
            )
    return {"per_class": by_class, "masks": shown}


TASK = Segmentation()
