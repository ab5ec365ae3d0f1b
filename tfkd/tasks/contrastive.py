"""The loss of embeddings on identities."""

from __future__ import annotations

import keras
from keras import ops

from tfkd._internal.types import JsonObject, Tensor
from tfkd.errors import InputError


@keras.saving.register_keras_serializable(package="tfkd")
class SupervisedContrastive(keras.losses.Loss):
    """Supervised contrastive loss: samples of one identity in a batch are more similar than samples of others.

    `-mean_p log( exp(z_i · z_p / T) / sum_{a != i} exp(z_i · z_a / T) )` over the other samples p of the identity of
    sample i, with vectors z of length 1; 0 for a sample that is alone with its identity in its batch.

    Args:
        temperature: T > 0.

    Reference:
        Khosla et al.: Supervised Contrastive Learning (arXiv:2004.11362), equation 2.
    """

    def __init__(self, temperature: float = 0.1, name: str = "supervised_contrastive", **kwargs: object) -> None:
        super().__init__(name=name, **{"dtype": "float32", **kwargs})
        if not temperature > 0:
            raise InputError(f"SupervisedContrastive: temperature must be > 0. Received: {temperature}. Use 0.1.")
        self.temperature = float(temperature)

    def call(self, y_true: Tensor, y_pred: Tensor) -> Tensor:
        """Identities [B] or [B, 1], embeddings [B, D] -> [B]."""
        y = ops.reshape(y_true, (-1,))
        vectors = y_pred * ops.rsqrt(ops.maximum(ops.sum(ops.square(y_pred), axis=1, keepdims=True), 1e-12))
        others = 1.0 - ops.eye(ops.shape(y)[0], dtype="float32")
        similarity = ops.matmul(vectors, ops.transpose(vectors)) / self.temperature - 1e9 * (1.0 - others)
        positive = ops.cast(ops.equal(y[:, None], y[None, :]), "float32") * others
        log_share = ops.log_softmax(similarity, axis=1)
        return -ops.sum(positive * log_share, axis=1) / ops.maximum(ops.sum(positive, axis=1), 1.0)

    def get_config(self) -> JsonObject:
        config: JsonObject = {**super().get_config(), "temperature": self.temperature}
        return config
