"""Layers that round as the integers of a .tflite do, with gradients that look through the rounding."""

from __future__ import annotations

from typing import Any

import keras
import numpy as np
import tensorflow as tf
from keras import ops

# Of the ranges of activations: a new batch counts for 1 %.
_MOMENTUM = 0.99
# In steps: enough to decide where an average of up to 64 values that lies midway is rounded, and no other.
_TIE = 1 / 128
# In steps: enough to round up what lies midway where a sum is rounded to parts of a step before.
_HALF = 1 / 1024


@keras.saving.register_keras_serializable(package="tfkd")
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to the 256 steps of a range that always holds 0.

    In training the range follows the least and the largest value of each batch as a moving average (the first batch
    sets it) until it is frozen. The gradient is 1 within the range and 0 beyond it. Before the first batch of
    training values pass unchanged.

    Args:
        limits: a range that stays, as Python floats; then the layer has no weights, and converts.
        margin: share by which the range is wider than the values.

    Call arguments:
        x: [B, ...] float32.
        training: whether the range follows x.
        averages: whether x are averages of values on the steps. TensorFlow Lite rounds those that lie midway away from
            the middle of the range, and with small windows there are many.

    Returns:
        As x.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv:1712.05877), section 3.1.
    """

    def __init__(self, limits: tuple[float, float] | None = None, margin: float = 0.0, **kwargs: Any) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.limits = None if limits is None else (float(limits[0]), float(limits[1]))
        self.margin = margin
        # Parts of a step, by channel, that sums are rounded to before: the kernels of TensorFlow Lite round twice.
        self.parts: np.ndarray | None = None

    def build(self, shape: tuple[int | None, ...]) -> None:
        if self.limits is None:
            for name in ("low", "high", "frozen"):
                variable = self.add_weight((), "zeros", name=name, trainable=False, aggregation="mean")
                setattr(self, name, variable)

    def call(self, x: Any, training: bool = False, averages: bool = False) -> Any:
        x = ops.cast(x, "float32")
        if self.limits is not None:
            return tf.quantization.fake_quant_with_min_max_args(x, *self.limits)
        if training:
            self._follow(x)
        known = self.high > self.low
        # Where the range is not known the rounding is not used, but it must not give NaN, whose gradient would spread.
        high = ops.where(known, self.high, self.low + 1.0)
        inside = x
        if averages:
            step = (high - self.low) / 255
            inside = x + _TIE * step * ops.sign(ops.stop_gradient(x - self.low - 128 * step))
        elif self.parts is not None:
            step = (high - self.low) / 255
            twice = ops.round(x / step * self.parts) / self.parts
            inside = (twice + _HALF) * step
        rounded = tf.quantization.fake_quant_with_min_max_vars(inside, self.low, high)
        return ops.where(known, rounded, x)

    def _follow(self, x: Any) -> None:
        x, known = ops.stop_gradient(x), self.high > self.low  # before either changes
        ends = (ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0))
        for variable, found in zip((self.low, self.high), ends, strict=True):
            found = (1 + self.margin) * found
            moved = ops.where(known, _MOMENTUM * variable + (1 - _MOMENTUM) * found, found)
            variable.assign(ops.where(self.frozen > 0, variable, moved))

    def compute_output_shape(self, shape: Any) -> Any:
        return shape

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "limits": self.limits, "margin": self.margin}


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizedWeights(keras.layers.Wrapper):
    """A layer whose kernel is rounded, channel by channel, to whole numbers of steps on both sides of 0.

    A channel has 2 ** (bits - 1) - 1 steps on each side, the last at its largest magnitude. The gradient is that of
    the kernel as if it were not rounded, and 0 for weights that are 0: those of a pruned student stay so.

    Args:
        layer: with a `kernel`: Conv1D, Conv2D, DepthwiseConv1D, DepthwiseConv2D, Conv2DTranspose or Dense.
        bits: 8 or 4.

    Call arguments:
        x: what the layer takes.
    """

    def __init__(self, layer: keras.layers.Layer, bits: int = 8, **kwargs: Any) -> None:
        super().__init__(layer, **{"name": layer.name, **kwargs})
        self.bits = bits

    def call(self, x: Any) -> Any:
        kernel = self.layer.kernel
        live = kernel * ops.stop_gradient(ops.cast(ops.not_equal(kernel, 0), kernel.dtype))
        rounded = on_grid(kernel, channel_axes(self.layer), self.bits)
        # Within the scope the layer reads the rounded kernel in place of its own.
        with keras.StatelessScope(state_mapping=[(kernel, live + ops.stop_gradient(rounded - live))]):
            return self.layer.call(x)

    def compute_output_shape(self, shape: Any) -> Any:
        return self.layer.compute_output_shape(shape)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "bits": self.bits}


def channel_axes(layer: keras.layers.Layer) -> tuple[int, ...]:
    """The axes of a layer's kernel that are its output channels, counted from the end."""
    if isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
        return (-2, -1)
    return (-2,) if isinstance(layer, keras.layers.Conv2DTranspose) else (-1,)


def on_grid(kernel: Any, channels: tuple[int, ...], bits: int) -> Any:
    """A kernel with each channel rounded to its steps.

    Args:
        kernel: float32.
        channels: axes of the channels, counted from the end.
        bits: of a weight; 4 gives -7..7 steps, 8 gives -127..127.

    >>> [round(float(x), 2) for x in on_grid(ops.convert_to_tensor([0.7, 0.34, -0.04]), (), 4)]
    [0.7, 0.3, -0.0]
    """
    kernel = ops.convert_to_tensor(kernel)
    rest = [axis for axis in range(len(kernel.shape)) if axis - len(kernel.shape) not in channels]
    steps = 2 ** (bits - 1) - 1
    step = ops.max(ops.abs(kernel), axis=rest, keepdims=True) / steps
    step = ops.where(step > 0, step, 1.0)
    return ops.round(kernel / step) * step


def steps_of(kernel: np.ndarray, channels: tuple[int, ...], bits: int) -> np.ndarray:
    """The step of each channel of a kernel, 0 where it is 0; see `on_grid`."""
    rest = tuple(axis for axis in range(kernel.ndim) if axis - kernel.ndim not in channels)
    return np.abs(kernel).max(rest).ravel() / (2 ** (bits - 1) - 1)


def freeze(model: keras.Model, frozen: bool) -> None:
    """Holds all ranges of activations as they are, or lets them follow again."""
    for layer in model.layers:
        if isinstance(layer, FakeQuantize) and layer.limits is None:
            layer.frozen.assign(float(frozen))
