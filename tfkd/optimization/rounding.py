"""Rebuilds a student with fake quantization at the places where its future .tflite rounds."""

from __future__ import annotations

import re
from collections.abc import Sequence

import keras
import numpy as np
from keras import layers

from tfkd._internal.types import JsonObject, Tensor
from tfkd.errors import InputError, ModelError
from tfkd.optimization.layer_graph import Call, LayerGraph, read
from tfkd.optimization.quantizers import FakeQuantize, QuantizedWeights

# Layers with a kernel and a bias.
_WEIGHTED = (
    layers.Conv1D,
    layers.Conv2D,
    layers.DepthwiseConv1D,
    layers.DepthwiseConv2D,
    layers.Conv2DTranspose,
    layers.Dense,
)
_INT4 = (layers.Conv1D, layers.Conv2D, layers.Dense)
# The depthwise and the pointwise layer that a separable layer becomes.
_SEPARABLE: dict[type, tuple[type, type]] = {
    layers.SeparableConv1D: (layers.DepthwiseConv1D, layers.Conv1D),
    layers.SeparableConv2D: (layers.DepthwiseConv2D, layers.Conv2D),
}
# Layers that move or select values; their output has the quantization of their input.
_MOVING = (
    layers.Flatten, layers.Reshape, layers.Permute, layers.ZeroPadding1D, layers.ZeroPadding2D, layers.Cropping1D,
    layers.Cropping2D, layers.MaxPooling1D, layers.MaxPooling2D, layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D,
    layers.Identity, layers.Dropout, layers.SpatialDropout1D, layers.SpatialDropout2D,
)  # fmt: skip
_AVERAGES = (layers.AveragePooling1D, layers.AveragePooling2D)  # they round, with the range of their input
_MEANS = (layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D)
_PAIRS = (layers.Add, layers.Subtract, layers.Multiply)
_KNOWN = (
    *_WEIGHTED, *_SEPARABLE, *_MOVING, *_AVERAGES, *_MEANS, *_PAIRS, layers.Concatenate, layers.Rescaling,
    layers.BatchNormalization, layers.ReLU, layers.LeakyReLU, layers.Activation,
)  # fmt: skip
_FUSED = ("linear", "relu", "relu6")  # activations that are fused into the operator before them
_SEPARATE = ("leaky_relu", "hard_silu", "hard_swish")  # activations that are operators of their own
_REMEDIES = {
    "LSTM": "Convert without qat: tfkd.convert turns it into one operator.",
    "GRU": "Convert without qat.",
    "LayerNormalization": "Use BatchNormalization after a convolution.",
    "Softmax": "Remove it: a student ends in logits.",
}


def model(student: keras.Model, weight_bits: int, int8_layers: Sequence[str]) -> keras.Model:
    """Rebuilds a student with fake quantization.

    Args:
        student: See `tfkd.optimization.qat.prepare`.
        weight_bits: See there.
        int8_layers: See there.

    Returns:
        A model whose `FakeQuantize` and `QuantizedWeights` layers round as the .tflite does, once trained.

    Raises:
        InputError: An expression matches no layer.
        ModelError: Some layers are not supported; the message names all of them.
    """
    graph = read(student)
    if obstacles := [sentence for call in graph.calls if (sentence := _obstacle(call, graph))]:
        raise ModelError(f"optimize: qat does not support {len(obstacles)} layers. " + " ".join(obstacles))
    narrow = {call.name for call in graph.calls if weight_bits == 4 and type(call.layer) in (*_INT4, *_SEPARABLE)}
    return _Builder(graph, narrow - _kept(narrow, int8_layers)).build(student)


def _kept(names: set[str], expressions: Sequence[str]) -> set[str]:
    """The layers that the expressions match; each must match at least one."""
    if isinstance(expressions, str):
        raise InputError(
            f"optimize: int8_layers must be a list of regular expressions. Received: {expressions!r}. "
            f"Use [{expressions!r}]."
        )
    found = set()
    for expression in expressions:
        try:
            fits = {name for name in names if re.search(expression, name)}
        except re.error as error:
            raise InputError(
                f"optimize: int8_layers must hold regular expressions. Received: {expression!r}: {error}. "
                "Use '^name$' for one layer."
            ) from None
        if not fits:
            raise InputError(
                f"optimize: int8_layers must match layers that would get 4 bits. Received: {expression!r}. "
                f"These are: {', '.join(sorted(names)) or 'none; set weight_bits=4'}."
            )
        found |= fits
    return found


def _activation(layer: keras.Layer) -> str:
    """The name of a layer's activation; `relu` for a ReLU layer."""
    if type(layer) is layers.ReLU:
        return "relu"
    return keras.activations.serialize(getattr(layer, "activation", None) or keras.activations.linear)


def _obstacle(call: Call, graph: LayerGraph) -> str:
    """Why a layer cannot be quantized, with a remedy; empty if it can."""
    layer, kind, problem = call.layer, type(call.layer), ""
    if kind not in _KNOWN:
        known = "Use layers such as Conv2D, DepthwiseConv2D, Dense, Add, pooling and ReLU, or convert without qat."
        problem = f"has no integer form. {_REMEDIES.get(kind.__name__, known)}"
    elif layer.weights and sum(other.layer is layer for other in graph.calls) > 1:
        problem = "is called more than once. Use a separate layer for each call."
    elif layer.compute_dtype != "float32":
        problem = f"computes in {layer.compute_dtype}. Build the model with dtype policy float32 and copy the weights."
    elif kind in (*_WEIGHTED, *_SEPARABLE, layers.Activation) and _activation(layer) not in (*_FUSED, *_SEPARATE):
        problem = f"has the activation {_activation(layer)}. Use one of {', '.join((*_FUSED[1:], *_SEPARATE))}."
    elif kind in (*_WEIGHTED, *_SEPARABLE) and getattr(layer, "data_format", None) == "channels_first":
        problem = "has data_format='channels_first'. Build it with data_format='channels_last'."
    elif kind is layers.ReLU and (layer.max_value not in (None, 6) or layer.negative_slope or layer.threshold):
        problem = "is neither ReLU nor ReLU6. Use max_value=6 or None, and LeakyReLU for a slope."
    elif kind is layers.BatchNormalization and _folds_into(call, graph) is None:
        problem = "cannot be folded. Put it directly after a convolution or Dense layer without activation."
    return problem and f"{call.name!r} ({kind.__name__}) {problem}"


def _folds_into(call: Call, graph: LayerGraph) -> Call | None:
    """The layer that a BatchNormalization can be folded into; None if there is none."""
    source = next((other for other in graph.calls if other.output == call.inputs[0]), None)
    if source is None or type(source.layer) not in (*_WEIGHTED, *_SEPARABLE) or _activation(source.layer) != "linear":
        return None
    shape = source.layer.output.shape
    last = call.layer.axis in (-1, len(shape) - 1)
    return source if last and graph.sole_user(call.inputs[0]) is call else None


class _Builder:
    """Builds the model call by call.

    A tensor is `open` while an activation may still be fused into the operator that computes it: it is not rounded
    before its first reader is known, and then once.
    """

    def __init__(self, graph: LayerGraph, narrow: set[str]) -> None:
        self.graph, self.narrow = graph, narrow
        self.tensors: dict[int, Tensor] = {}
        self.open: set[int] = set()
        self.names: dict[int, str] = {}
        self.rounded: dict[int, tuple[Tensor, FakeQuantize]] = {}

    def build(self, student: keras.Model) -> keras.Model:
        given = student.inputs[0]
        image = keras.Input(given.shape[1:], dtype=given.dtype, name=given.name)
        self.tensors[self.graph.input], self.names[self.graph.input] = image, given.name
        for call in self.graph.calls:
            self.names[call.output] = call.name
            self._add(call)
        return keras.Model(image, self._round(self.graph.output)[0], name=student.name)

    def _round(self, number: int) -> tuple[Tensor, FakeQuantize]:
        """A tensor on the steps of its range, and the layer that puts it there."""
        if number not in self.rounded:
            layer = FakeQuantize(name=f"{self.names[number]}_range")
            self.rounded[number] = (layer(self.tensors[number]), layer)
        return self.rounded[number]

    def _inputs(self, call: Call) -> list[Tensor]:
        return [self._round(number)[0] for number in call.inputs]

    def _add(self, call: Call) -> None:
        layer, kind = call.layer, type(call.layer)
        if kind in _WEIGHTED:
            self._weighted(call)
        elif kind in _SEPARABLE:
            self._separable(call)
        elif kind is layers.BatchNormalization:  # folded already; a layer of its name remains for feature losses
            self.tensors[call.output] = layers.Identity(name=call.name)(self.tensors[call.inputs[0]])
            self.open.add(call.output)
        elif kind in (layers.ReLU, layers.Activation) and _activation(layer) in _FUSED:
            source = call.inputs[0]
            fuses = source in self.open and self.graph.sole_user(source) is call
            x = self.tensors[source] if fuses else self._round(source)[0]
            self.tensors[call.output] = _copy(layer, call.name)(x)
        elif kind in _MOVING:
            x, its_range = self._round(call.inputs[0])
            self.rounded[call.output] = (_copy(layer, call.name)(x), its_range)
        elif kind in _AVERAGES:
            x, its_range = self._round(call.inputs[0])
            # The output has the range of the input; the averages do not update it.
            self.rounded[call.output] = (
                its_range(_copy(layer, call.name)(x), training=False, averages=True),
                its_range,
            )
        elif kind in _PAIRS:
            self._pair(call)
        elif kind is layers.Rescaling:
            self._rescale(call)
        elif kind is layers.Concatenate:
            self._concatenate(call)
        else:
            self.tensors[call.output] = _copy(layer, call.name)(self._inputs(call)[0])

    def _weighted(self, call: Call) -> None:
        layer = call.layer
        weights = [np.asarray(one) for one in (layer.kernel, layer.bias) if one is not None]
        self._kernel(call, type(layer), layer.get_config(), weights, self._inputs(call)[0])

    def _separable(self, call: Call) -> None:
        """A depthwise and a pointwise layer: the .tflite rounds between them."""
        layer = call.layer
        depthwise, pointwise = _SEPARABLE[type(layer)]
        config = layer.get_config()
        spatial = ("kernel_size", "strides", "padding", "dilation_rate", "data_format", "depth_multiplier")
        first = depthwise(use_bias=False, name=f"{call.name}_depthwise", **{name: config[name] for name in spatial})
        x = QuantizedWeights(first)(self._inputs(call)[0])
        first.set_weights([np.asarray(layer.depthwise_kernel)])
        x = FakeQuantize(name=f"{first.name}_range")(x)
        second = {"filters": layer.filters, "kernel_size": 1, "use_bias": layer.use_bias}
        second["activation"] = config["activation"]
        weights = [np.asarray(one) for one in (layer.pointwise_kernel, layer.bias) if one is not None]
        self._kernel(call, pointwise, second, weights, x)

    def _kernel(
        self, call: Call, kind: type[keras.Layer], config: JsonObject, weights: list[np.ndarray], x: Tensor
    ) -> None:
        """A layer with quantized weights, and a BatchNormalization after it folded in."""
        user = self.graph.sole_user(call.output)
        activation = _activation(call.layer)
        separate = activation in _SEPARATE
        if user is not None and type(user.layer) is layers.BatchNormalization and activation == "linear":
            weights = _fold(kind, weights, user.layer)
            config = {**config, "use_bias": True}
        name = f"{call.name}_linear" if separate else call.name
        layer = kind.from_config({**config, "name": name, **({"activation": "linear"} if separate else {})})
        y = QuantizedWeights(layer, 4 if call.name in self.narrow else 8)(x)
        layer.set_weights(weights)
        if separate:
            y = FakeQuantize(name=f"{name}_range")(y)
            y = layers.Activation(call.layer.activation, name=call.name)(y)
        elif activation == "linear":
            self.open.add(call.output)
        self.tensors[call.output] = y

    def _pair(self, call: Call) -> None:
        """A chain of operators of two inputs: the .tflite rounds between them."""
        y, *others = self._inputs(call)
        for i, x in enumerate(others, 1):
            last = i == len(others)
            name = call.name if last else f"{call.name}_{i}"
            y = _copy(call.layer, name)([y, x])
            if not last:
                y = FakeQuantize(name=f"{name}_range")(y)
        self.tensors[call.output] = y
        self.open.add(call.output)

    def _concatenate(self, call: Call) -> None:
        """Inputs without another reader are rounded with the range of the concatenation by the operator before it."""
        single = {one for one in call.inputs if one not in self.rounded and self.graph.sole_user(one) is call}
        x = [self.tensors[one] if one in single else self._round(one)[0] for one in call.inputs]
        self.tensors[call.output] = _copy(call.layer, call.name)(x)

    def _rescale(self, call: Call) -> None:
        """A multiplication and an addition, which are two operators where neither is the identity."""
        layer, x = call.layer, self._inputs(call)[0]
        if not np.any(layer.offset):
            self.tensors[call.output] = _copy(layer, call.name)(x)
            return
        if not np.all(np.asarray(layer.scale) == 1):
            x = layers.Rescaling(layer.scale, name=f"{call.name}_scale")(x)
            x = FakeQuantize(name=f"{call.name}_scale_range")(x)
        y = layers.Rescaling(1.0, layer.offset, name=call.name)(x)
        # For pixels 0..255 scaled to -1..1, every value lies exactly between two steps of the range -1..1, and engines
        # round such ties differently: a slightly wider range avoids them.
        self.tensors[call.output] = y
        spread = FakeQuantize(margin=0.01, name=f"{call.name}_range")
        self.rounded[call.output] = (spread(y), spread)


def _copy(layer: keras.Layer, name: str) -> keras.Layer:
    return type(layer).from_config({**layer.get_config(), "name": name})


def _fold(kind: type, weights: list[np.ndarray], norm: layers.BatchNormalization) -> list[np.ndarray]:
    """Kernel and bias of a layer with the BatchNormalization after it folded in, as in inference."""
    kernel, *rest = weights
    mean = np.asarray(norm.moving_mean)
    factor = 1 / np.sqrt(np.asarray(norm.moving_variance) + norm.epsilon)
    if norm.gamma is not None:
        factor = factor * np.asarray(norm.gamma)
    bias = ((rest[0] if rest else 0) - mean) * factor
    if norm.beta is not None:
        bias = bias + np.asarray(norm.beta)
    if kind in (layers.DepthwiseConv1D, layers.DepthwiseConv2D):
        factor = factor.reshape(kernel.shape[-2:])
    elif kind is layers.Conv2DTranspose:
        factor = factor[:, None]
    return [kernel * factor, bias]
