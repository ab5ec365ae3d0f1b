"""Fake-quantization layers: rounding as in a .tflite in the forward pass, straight-through gradients."""

from __future__ import annotations

import keras
import numpy as np
import tensorflow as tf
from keras import ops

from tfkd._internal.types import Tensor

# Moving average of activation ranges: a new batch has weight 1 %.
_MOMENTUM = 0.99
# In steps: decides the rounding of an average of up to 64 values that lies exactly between two steps, and no other.
_TIE = 1 / 128
# In steps: rounds a value up that lies exactly between two steps after the first of two roundings.
_HALF = 1 / 1024


@keras.saving.register_keras_serializable(package="tfkd")
class FakeQuantize(keras.layers.Layer):
    """Rounds activations to the 256 steps of a range that always contains 0.

    In training the range is a moving average of the smallest and largest value of each batch (initialized by the first
    batch) until it is frozen. The gradient is 1 within the range and 0 outside. Before the first training batch, values
    pass unchanged.

    Args:
        limits: Constant range (low, high); the layer then has no weights and can be converted. None to learn it.
        margin: Share by which the range is wider than the values, >= 0.

    Call arguments:
        x: Activations [B, ...], float32.
        training: Whether to update the range with x.
        averages: Whether x holds averages of quantized values. TensorFlow Lite rounds an average that lies exactly
            between two steps away from the middle of the range, and small windows have many of them.

    Returns:
        Rounded activations of the shape of x.

    Reference:
        Jacob et al.: Quantization and Training of Neural Networks for Efficient Integer-Arithmetic-Only Inference
        (arXiv:1712.05877), section 3.1.
    """

    def __init__(self, limits: tuple[float, float] | None = None, margin: float = 0.0, **kwargs: object) -> None:
        super().__init__(**{"dtype": "float32", "autocast": False, **kwargs})
        self.limits = None if limits is None else (float(limits[0]), float(limits[1]))
        self.margin = margin
        # Per channel, the number of parts of a step for the first of the two roundings of TensorFlow Lite's kernels.
        self.parts: np.ndarray | None = None

    def build(self, shape: tuple[int | None, ...]) -> None:
        if self.limits is None:
            for name in ("low", "high", "frozen"):
                variable = self.add_weight((), "zeros", name=name, trainable=False, aggregation="mean")
                setattr(self, name, variable)

    def call(self, x: Tensor, training: bool = False, averages: bool = False) -> Tensor:
        x = ops.cast(x, "float32")
        if self.limits is not None:
            return tf.quantization.fake_quant_with_min_max_args(x, *self.limits)
        if training:
            self._follow(x)
        known = self.high > self.low
        # The rounding is not used without a range, but it must not produce NaN, since its gradient would propagate.
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

    def _follow(self, x: Tensor) -> None:
        x, known = ops.stop_gradient(x), self.high > self.low  # read before the assignments below
        ends = (ops.minimum(ops.min(x), 0.0), ops.maximum(ops.max(x), 0.0))
        for variable, found in zip((self.low, self.high), ends, strict=True):
            found = (1 + self.margin) * found
            moved = ops.where(known, _MOMENTUM * variable + (1 - _MOMENTUM) * found, found)
            variable.assign(ops.where(self.frozen > 0, variable, moved))

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return shape

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "limits": self.limits, "margin": self.margin}


@keras.saving.register_keras_serializable(package="tfkd")
class QuantizedWeights(keras.layers.Wrapper):
    """Symmetric per-channel fake quantization of a layer's kernel.

    A channel has 2 ** (bits - 1) - 1 steps on each side of 0, the last at its largest magnitude. The gradient passes
    straight through, and is 0 for weights that are 0, so that a pruned student keeps its zeros.

    Args:
        layer: Layer with a `kernel`: Conv1D, Conv2D, DepthwiseConv1D, DepthwiseConv2D, Conv2DTranspose or Dense.
        bits: Bits per weight, 8 or 4.

    Call arguments:
        x: Input of the layer.
    """

    def __init__(self, layer: keras.layers.Layer, bits: int = 8, **kwargs: object) -> None:
        super().__init__(layer, **{"name": layer.name, **kwargs})
        self.bits = bits

    def call(self, x: Tensor) -> Tensor:
        kernel = self.layer.kernel
        live = kernel * ops.stop_gradient(ops.cast(ops.not_equal(kernel, 0), kernel.dtype))
        rounded = on_grid(kernel, channel_axes(self.layer), self.bits)
        # Within the scope the layer reads the rounded kernel instead of its variable.
        with keras.StatelessScope(state_mapping=[(kernel, live + ops.stop_gradient(rounded - live))]):
            return self.layer.call(x)

    def compute_output_shape(self, shape: tuple[int | None, ...]) -> tuple[int | None, ...]:
        return self.layer.compute_output_shape(shape)

    def get_config(self) -> dict[str, object]:
        return {**super().get_config(), "bits": self.bits}


def channel_axes(layer: keras.layers.Layer) -> tuple[int, ...]:
    """The axes of a layer's kernel that are its output channels, counted from the end."""
    if isinstance(layer, (keras.layers.DepthwiseConv1D, keras.layers.DepthwiseConv2D)):
        return (-2, -1)
    return (-2,) if isinstance(layer, keras.layers.Conv2DTranspose) else (-1,)


def on_grid(kernel: Tensor, channels: tuple[int, ...], bits: int) -> Tensor:
    """A kernel with each channel rounded to multiples of its step.

    Args:
        kernel: Kernel, float32.
        channels: Axes of the output channels, counted from the end.
        bits: Bits per weight: 4 gives -7..7 steps, 8 gives -127..127.

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
    """The step of each channel of a kernel, 0 for a channel of zeros; see `on_grid`."""
    rest = tuple(axis for axis in range(kernel.ndim) if axis - kernel.ndim not in channels)
    return np.abs(kernel).max(rest).ravel() / (2 ** (bits - 1) - 1)


def freeze(model: keras.Model, frozen: bool) -> None:
    """Freezes the activation ranges of all layers, or lets them follow the batches again."""
    for layer in model.layers:
        if isinstance(layer, FakeQuantize) and layer.limits is None:
            layer.frozen.assign(float(frozen))
