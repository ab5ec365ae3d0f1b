"""The loss of detectors with anchors on boxes."""

from __future__ import annotations

import keras
import numpy as np
from keras import ops

from tfkd._internal.types import JsonObject, Tensor
from tfkd.errors import InputError
from tfkd.tasks import anchors as layout

# An anchor with at least this IoU with a box is responsible for it, and so is the best anchor of each box.
_RESPONSIBLE = 0.5


def claims_of(boxes: Tensor, anchors: np.ndarray) -> Tensor:
    """How much each box claims each anchor, [B, M, A]: their IoU, of its best anchor 2 more; -1 of no box.

    Args:
        boxes: Left, top, right, bottom as shares of the image and the class, float32 [B, M, 5]; class -1 for none.
        anchors: Centres and sizes, [A, 4].
    """
    fixed = ops.convert_to_tensor(anchors.astype("float32"))
    corners = ops.concatenate([fixed[:, :2] - fixed[:, 2:] / 2, fixed[:, :2] + fixed[:, 2:] / 2], axis=-1)
    low = ops.maximum(boxes[:, :, None, :2], corners[:, :2])
    high = ops.minimum(boxes[:, :, None, 2:4], corners[:, 2:])
    common = ops.prod(ops.maximum(high - low, 0.0), axis=-1)
    size = boxes[..., 2:4] - boxes[..., :2]
    union = ops.prod(size, axis=-1)[:, :, None] + ops.prod(fixed[:, 2:], axis=-1) - common
    real = boxes[..., 4] >= 0
    overlaps = ops.where(real[..., None], common / ops.maximum(union, 1e-9), -1.0)
    best = ops.one_hot(ops.argmax(overlaps, axis=-1), len(anchors)) * ops.cast(real, "float32")[..., None]
    # The best anchor of a box counts as if its IoU were above 1, so that no other box takes it.
    return ops.where(best > 0, 2.0 + overlaps, overlaps)


def targets_of(boxes: Tensor, anchors: np.ndarray, classes: int) -> tuple[Tensor, Tensor, Tensor]:
    """What each anchor must answer.

    Args:
        boxes: Left, top, right, bottom as shares of the image and the class, [B, M, 5]; class -1 for none.
        anchors: Centres and sizes, [A, 4].
        classes: Number of classes C.

    Returns:
        Offsets [B, A, 4]; one-hot classes [B, A, C], 0 for an anchor without a box; and whether it has one [B, A].
    """
    boxes, fixed = ops.cast(boxes, "float32"), ops.convert_to_tensor(anchors.astype("float32"))
    claimed = claims_of(boxes, anchors)
    responsible = ops.max(claimed, axis=1) >= _RESPONSIBLE
    chosen = ops.one_hot(ops.argmax(claimed, axis=1), boxes.shape[1])  # [B, A, M]
    matched = ops.matmul(chosen, boxes)
    centre, extent = (matched[..., :2] + matched[..., 2:4]) / 2, ops.maximum(matched[..., 2:4] - matched[..., :2], 1e-6)
    moved = (centre - fixed[:, :2]) / fixed[:, 2:] / layout.VARIANCES[0]
    scaled = ops.log(extent / fixed[:, 2:]) / layout.VARIANCES[1]
    mask = ops.cast(responsible, "float32")
    numbers = ops.cast(ops.maximum(matched[..., 4], 0.0), "int32")
    one_hot = ops.one_hot(numbers, classes) * mask[..., None]
    return ops.concatenate([moved, scaled], axis=-1), one_hot, mask


@keras.saving.register_keras_serializable(package="tfkd")
class AnchorLoss(keras.losses.Loss):
    """Sigmoid focal loss of the classes and Huber loss of the offsets, divided by the number of responsible anchors.

    `loss = (Σ_anchors,classes focal + box_weight · Σ_responsible Huber) / max(1, responsible)` for each sample, with
    `focal = α_t · (1 − p_t)^γ · CE` and the mean Huber loss of the four offsets.

    Args:
        image_shape: Height and width of the images in pixels, from which the anchors follow.
        box_weight: Weight of the offsets, >= 0.
        alpha: Weight α of the class of an object, 0..1; 1 − α of others.
        gamma: Exponent γ >= 0; the larger, the less certain answers count.

    Reference:
        Lin et al.: Focal Loss for Dense Object Detection (arXiv:1708.02002), sections 3 and 4.
    """

    def __init__(
        self,
        image_shape: tuple[int, int],
        box_weight: float = 1.0,
        alpha: float = 0.25,
        gamma: float = 2.0,
        name: str = "anchor_loss",
        **kwargs: object,
    ) -> None:
        super().__init__(name=name, **{"dtype": "float32", **kwargs})
        if not box_weight >= 0 or not 0 <= alpha <= 1 or not gamma >= 0:
            raise InputError(
                f"AnchorLoss: box_weight and gamma must be >= 0 and alpha in 0..1. Received: {box_weight}, {gamma} and "
                f"{alpha}. Use 1, 2 and 0.25."
            )
        self.image_shape = tuple(image_shape)
        self.box_weight, self.alpha, self.gamma = float(box_weight), float(alpha), float(gamma)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Boxes [B, M, 5] and outputs [B, A, 4 + C] -> [B]."""
        count, classes = y_pred.shape[1], y_pred.shape[2] - 4
        anchors = layout.for_outputs(self.image_shape, count)
        offsets, one_hot, mask = targets_of(y_true, anchors, classes)
        logits, found = y_pred[..., 4:], ops.maximum(ops.sum(mask, axis=-1), 1.0)
        signs = 2 * one_hot - 1
        p = ops.sigmoid(signs * logits)
        weights = one_hot * self.alpha + (1 - one_hot) * (1 - self.alpha)
        focal = ops.sum(weights * (1 - p) ** self.gamma * -ops.log_sigmoid(signs * logits), axis=(1, 2))
        error = ops.abs(y_pred[..., :4] - offsets)
        huber = ops.mean(ops.where(error < 1, 0.5 * error**2, error - 0.5), axis=-1)
        return (focal + self.box_weight * ops.sum(mask * huber, axis=-1)) / found

    def get_config(self) -> JsonObject:
        config: JsonObject = {
            **super().get_config(),
            "image_shape": self.image_shape,
            "box_weight": self.box_weight,
            "alpha": self.alpha,
            "gamma": self.gamma,
        }
        return config
