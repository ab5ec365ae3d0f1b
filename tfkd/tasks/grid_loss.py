"""The loss of grid detectors on boxes, and their training metric."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import JsonObject, Tensor
from tfkd.errors import InputError


def cells_of(boxes: Tensor, height: int, width: int) -> Tensor:
    """The class of each cell: 1 + that of the box whose centre lies in it, or 0.

    Of several boxes the one with the highest class number counts.

    Args:
        boxes: Left, top, right, bottom as shares of the image and the class, [B, M, 5]; class -1 for none.
        height: Rows of cells.
        width: Columns of cells.

    Returns:
        int32 [B, height, width].
    """
    boxes = ops.cast(boxes, "float32")
    column = ops.cast((boxes[..., 0] + boxes[..., 2]) / 2 * width, "int32")
    row = ops.cast((boxes[..., 1] + boxes[..., 3]) / 2 * height, "int32")
    place = ops.clip(row, 0, height - 1) * width + ops.clip(column, 0, width - 1)
    classes = ops.cast(boxes[..., 4], "int32") + 1  # 0 in a row that fills
    found = ops.max(ops.one_hot(place, height * width, dtype="int32") * classes[..., None], axis=1)
    return ops.reshape(found, (-1, height, width))


@keras.saving.register_keras_serializable(package="tfkd")
class GridCrossentropy(keras.losses.Loss):
    """Cross-entropy of the logits of each cell with the class whose centre lies in it, or the background.

    `loss = Σ_cells w · CE / Σ_cells w` for each sample, with the weight `object_weight` of cells with a centre and 1 of
    the others, which are many more.

    Args:
        object_weight: Weight of a cell with a centre, > 0.
    """

    def __init__(self, object_weight: float = 10.0, name: str = "grid_crossentropy", **kwargs: object) -> None:
        super().__init__(name=name, **{"dtype": "float32", **kwargs})
        if not object_weight > 0:
            raise InputError(f"GridCrossentropy: object_weight must be > 0. Received: {object_weight}. Use 10.")
        self.object_weight = float(object_weight)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Boxes [B, M, 5] and logits [B, h, w, 1 + C] -> [B]."""
        cells = cells_of(y_true, y_pred.shape[1], y_pred.shape[2])
        losses = keras.losses.sparse_categorical_crossentropy(cells, y_pred, from_logits=True)
        weights = ops.where(cells > 0, self.object_weight, 1.0)
        return ops.sum(weights * losses, axis=(1, 2)) / ops.sum(weights, axis=(1, 2))

    def get_config(self) -> JsonObject:
        config: JsonObject = {**super().get_config(), "object_weight": self.object_weight}
        return config


@keras.saving.register_keras_serializable(package="tfkd")
class CellF1(keras.metrics.Metric):
    """F1 of cells: a cell is right if its largest logit is that of the object whose centre lies in it."""

    def __init__(self, name: str = "cell_f1", **kwargs: object) -> None:
        super().__init__(name=name, **kwargs)
        self.counts = self.add_weight(shape=(3,), initializer="zeros", name="counts")

    def update_state(self, y_true: Tensor, y_pred: Tensor, sample_weight: Tensor | None = None) -> None:
        """Counts right cells, cells with a predicted object, and cells with an object; sample weights are ignored."""
        cells = cells_of(y_true, y_pred.shape[1], y_pred.shape[2])
        predicted = ops.cast(ops.argmax(y_pred, axis=-1), "int32")
        right = (predicted == cells) & (cells > 0)
        self.counts.assign_add(
            ops.stack([ops.sum(ops.cast(found, "float32")) for found in (right, predicted > 0, cells > 0)])
        )

    def result(self) -> Tensor:
        """2 · right / (predicted + objects); 0 without any."""
        return 2 * self.counts[0] / ops.maximum(self.counts[1] + self.counts[2], 1.0)
