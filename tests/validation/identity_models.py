"""Targets, splits and models whose numbers are easy to tell: models that return their input."""

import keras
import numpy as np

from tfkd import data
from tfkd.conversion import tflite
from tfkd.targets.measurement import Measurement

NAMES = ("ant", "bee", "cow")


class FixedTarget:
    """A target that returns given outputs (by default the inputs) or raises a given error."""

    def __init__(self, spec, outputs=None, error=None, **fields):
        self.spec, self.outputs, self.error, self.fields = spec, outputs, error, fields

    def run(self, model, inputs, *, latency=True):
        if self.error:
            raise self.error
        outputs = np.asarray(inputs if self.outputs is None else self.outputs)
        fields = {"evidence": {"outputs": "measured"}} | self.fields
        return Measurement(self.spec, model.sha256, model.size_bytes, (outputs,), **fields)


def split_of(logits, labels, names=NAMES):
    """Splits whose samples are logits, for models that return their input."""
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
    every = np.arange(len(names))
    return data.from_arrays(
        (np.eye(len(names), dtype=np.float32), every), (logits, labels), class_names=names, validation=0
    )


def keras_identity(size, scale=1.0):
    """A Keras model that returns its input times `scale`."""
    model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(size, use_bias=False)])
    model.set_weights([scale * np.eye(size, dtype=np.float32)])
    return model


def tflite_identity(size, *, outputs=None, int8=False):
    """A .tflite that returns its input, or the first `outputs` values of it."""
    import tensorflow as tf

    weights = tf.Variable(np.eye(size, outputs or size, dtype=np.float32))
    graph = tf.function(lambda x: tf.matmul(x, weights), input_signature=[tf.TensorSpec([1, size], tf.float32)])
    holder = tf.Module()
    holder.weights = weights
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], holder)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        ramp = np.linspace(-4, 4, size * 20, dtype=np.float32).reshape(-1, 1, size)
        converter.representative_dataset = lambda: ([row] for row in ramp)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return tflite.TFLiteModel.load(converter.convert())
