"""Clustering: the weights of a layer share few trained values, by tensorflow-model-optimization."""

from __future__ import annotations

from typing import TYPE_CHECKING

import keras
import numpy as np

from tfkd.errors import InputError, ModelError
from tfkd.optimization.optimized import Optimized
from tfkd.optimization.twin import PRUNED, Twin, load_tfmot, select

if TYPE_CHECKING:
    import tensorflow as tf
    import tf_keras


def prepare(student: keras.Model, *, clusters: int = 16, layers: str | None = None) -> Optimized:
    """Makes the weights of each kernel share a few values, which are trained.

    Kernels of convolutions, Dense and recurrent layers are clustered; biases and depthwise kernels are not. The zeros
    of a pruned student stay zero.

    Args:
        student: Trained functional or Sequential model; it is not changed.
        clusters: Number of different values in a kernel, >= 2.
        layers: Regular expression that is searched in layer names; None for all layers that can be clustered.

    Raises:
        InputError: An option is out of range.
        ModelError: A selected layer cannot be clustered.

    Reference:
        Han, Mao, Dally: Deep Compression (arXiv:1510.00149), section 3.
    """
    if not isinstance(clusters, int) or clusters < 2:
        raise InputError(f"cluster: clusters must be an integer >= 2. Received: {clusters!r}. Use 16.")
    twin = Twin.of(student, "cluster")
    _, tfmot = load_tfmot()
    from tensorflow_model_optimization.python.core.clustering.keras.clustering_registry import ClusteringRegistry
    from tensorflow_model_optimization.python.core.clustering.keras.experimental.cluster import cluster_weights

    def kernels(layer: tf_keras.layers.Layer) -> list[tf.Variable]:
        if not ClusteringRegistry.supports(layer):
            raise ModelError("tensorflow-model-optimization does not support it")
        if not layer.trainable_weights:
            return []
        found = [kernel for _, kernel in ClusteringRegistry.make_clusterable(layer).get_clusterable_weights()]
        if any(np.prod(kernel.shape) <= clusters for kernel in found):
            raise ModelError(f"it has {clusters} weights or fewer")
        return found

    taken, notes = select(twin, "cluster", layers, kernels)

    def wrap(layer: tf_keras.layers.Layer) -> tf_keras.layers.Layer:
        pruned = all(np.mean(kernel.numpy() == 0) > PRUNED for kernel in kernels(layer))
        return cluster_weights(layer, clusters, preserve_sparsity=pruned)

    clustered = twin.wrap(dict.fromkeys(taken, wrap))

    def restore() -> Twin:
        return twin.restore(tfmot.clustering.keras.strip_clustering(clustered))

    def restored() -> keras.Model:
        return restore().student

    return Optimized(
        twin.trainable(clustered),
        (),
        lambda path, **options: restore().export("cluster", path, **options),
        restored,
        restored,
        notes,
    )
