"""Random .tflite graphs, built op by op from a seed, for which generated C must compute the interpreter's bits."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema
from flatbuffers import flexbuffers

_TYPES = {
    name: getattr(schema.TensorType, name.upper())
    for name in ("bool", "int8", "uint8", "int16", "int32", "uint32", "int64", "uint64", "float32", "resource")
}


@dataclasses.dataclass
class Net:
    """Builds a .tflite op by op, with random options and values.

    Methods that are named after ops add one op to a tensor, given by its index, and return the index of the output.

    Args:
        random: Generator of all choices.
        dtype: Type of activations, int8 or int16.
        kernel: Largest height and width of a window.
    """

    random: random.Random
    dtype: str = "int8"
    kernel: int = 4

    def __post_init__(self) -> None:
        self.model = schema.ModelT(version=3, operatorCodes=[], buffers=[schema.BufferT()], description=b"test")
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
        self.model.subgraphs = [self.graph]

    def values(self, shape: tuple[int, ...]) -> np.ndarray:
        """Random values of the type of activations."""
        limits = np.iinfo(self.dtype)
        numbers = np.random.default_rng(self.random.getrandbits(32))
        return numbers.integers(limits.min, limits.max + 1, shape).astype(self.dtype)

    def scale(self, low: float = 0.005, high: float = 0.2) -> float:
        """A random scale, exact in float32."""
        return float(np.float32(self.random.uniform(low, high)))

    def tensor(
        self,
        shape: tuple[int, ...],
        dtype: str = "",
        data: Any = None,
        scales: Any = None,
        zero_points: Any = None,
        axis: int = 0,
    ) -> int:
        """Adds a tensor, by default with a random scale and zero point; returns its index."""
        dtype = dtype or self.dtype
        if scales is None and dtype in ("int8", "int16"):
            scales, zero_points = [self.scale()], [self.random.randint(-128, 127)]
        if dtype == "int16":
            zero_points = [0]
        buffer = 0
        if data is not None:
            self.model.buffers.append(schema.BufferT(data=np.frombuffer(np.ascontiguousarray(data).tobytes(), "u1")))
            buffer = len(self.model.buffers) - 1
        quantization = None
        if scales is not None:
            quantization = schema.QuantizationParametersT(
                scale=np.array(scales, "f4"), zeroPoint=np.array(zero_points, "i8"), quantizedDimension=axis
            )
        index = len(self.graph.tensors)
        self.graph.tensors.append(
            schema.TensorT(
                shape=np.array(shape, "i4"),
                type=_TYPES[dtype],
                buffer=buffer,
                name=f"t{index}".encode(),
                quantization=quantization,
            )
        )
        return index

    def variable(self, shape: tuple[int, ...], dtype: str, scale: float, zero_point: int = 0) -> int:
        """Adds a variable tensor, a state."""
        index = self.tensor(shape, dtype, scales=[scale], zero_points=[zero_point])
        self.graph.tensors[index].isVariable = True
        return index

    def input(self, shape: tuple[int, ...]) -> int:
        """Adds an input of the model."""
        index = self.tensor(shape)
        self.graph.inputs.append(index)
        return index

    def shape(self, index: int) -> tuple[int, ...]:
        """The shape of a tensor."""
        return tuple(int(d) for d in self.graph.tensors[index].shape)

    def steps(self, index: int) -> tuple[float, int]:
        """Scale and zero point of a tensor."""
        quantization = self.graph.tensors[index].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def ints(self, values: Any) -> int:
        """Adds a constant int32 tensor."""
        values = np.array(values, "int32")
        return self.tensor(values.shape, "int32", values)

    def op(self, kind: str, inputs: list[int], outputs: list[int], options: Any = None) -> int:
        """Adds an op; returns its first output, or -1 without one."""
        code = getattr(schema.BuiltinOperator, kind)
        self.model.operatorCodes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=1)
        )
        operator = schema.OperatorT(opcodeIndex=len(self.model.operatorCodes) - 1, inputs=inputs, outputs=outputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self.graph.operators.append(operator)
        return outputs[0] if outputs else -1

    def custom(self, name: str, inputs: list[int], outputs: list[int], options: dict[str, int] | None = None) -> int:
        """Adds a custom op with a map of options; returns its first output."""
        code = schema.BuiltinOperator.CUSTOM
        self.model.operatorCodes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=code, builtinCode=code, customCode=name.encode(), version=1)
        )
        operator = schema.OperatorT(opcodeIndex=len(self.model.operatorCodes) - 1, inputs=inputs, outputs=outputs)
        if options:
            operator.customOptions = np.frombuffer(flexbuffers.Dumps(options), "u1")
        self.graph.operators.append(operator)
        return outputs[0]

    def bytes(self, *outputs: int) -> bytes:
        """The .tflite with these outputs."""
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    def weights(self, shape: tuple[int, ...], channels: int, axis: int, per_channel: bool) -> tuple[int, list[float]]:
        """A constant of random symmetric weights; its index and scales."""
        numbers = np.random.default_rng(self.random.getrandbits(32))
        values = numbers.integers(-127, 128, shape).astype("int8")
        scales = [self.scale(0.001, 0.03) for _ in range(channels if per_channel else 1)]
        return self.tensor(shape, "int8", values, scales, [0] * len(scales), axis), scales

    def bias(self, source: int, scales: list[float], channels: int, dtypes: tuple[str, ...] = ("int64",)) -> int:
        """A bias tensor; with int16 activations its type is one of `dtypes`."""
        step = self.steps(source)[0]
        dtype, limit = "int32", 3000
        if self.dtype == "int16":
            dtype = self.random.choice(dtypes)
            limit = 2 ** self.random.randint(10, 34 if dtype == "int64" else 20)
        values = [self.random.randint(-limit, limit) for _ in range(channels)]
        return self.tensor((channels,), dtype, np.array(values, dtype), [step * s for s in scales], [0] * len(scales))

    def output(self, shape: tuple[int, ...]) -> int:
        """Adds an activation with a random scale and a zero point that is often at a limit."""
        return self.tensor(
            shape,
            scales=[self.scale(0.02, 0.4)],
            zero_points=[self.random.choice([-128, 127, 0, self.random.randint(-128, 127)])],
        )

    def activation(self) -> int:
        """A fused activation: none, RELU, RELU6 or RELU_N1_TO_1."""
        return self.random.choice([0, 0, 1, 3, 2])

    def window(self, size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
        """Output size of a window along one axis."""
        reach = (kernel - 1) * dilation + 1
        return -(-size // stride) if padding == 0 else (size + stride - reach) // stride

    def convolution(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        kh, kw = self.random.randint(1, min(self.kernel, h)), self.random.randint(1, min(self.kernel, w))
        sh, sw = self.random.randint(1, 3), self.random.randint(1, 3)
        dh = self.random.randint(1, 2) if (kh - 1) * 2 < h else 1
        dw = self.random.randint(1, 2) if (kw - 1) * 2 < w else 1
        padding, depthwise = self.random.randint(0, 1), self.random.random() < 0.4
        if depthwise:
            kh, kw = self.random.choice([(kh, kw), (min(3, h), min(3, w))])
            sw = sh  # as in Keras, although TensorFlow Lite Micro supports unequal strides
        oh, ow = self.window(h, kh, sh, dh, padding), self.window(w, kw, sw, dw, padding)
        if oh < 1 or ow < 1:
            return self.convolution(x)
        per_channel = self.random.random() < 0.8
        if depthwise:
            times = self.random.randint(1, 2)
            weights, scales = self.weights((1, kh, kw, c * times), c * times, 3, per_channel)
            out = self.output((1, oh, ow, c * times))
            options = schema.DepthwiseConv2DOptionsT(
                padding=padding,
                strideH=sh,
                strideW=sw,
                dilationHFactor=dh,
                dilationWFactor=dw,
                depthMultiplier=times,
                fusedActivationFunction=self.activation(),
            )
            return self.op("DEPTHWISE_CONV_2D", [x, weights, self.bias(x, scales, c * times)], [out], options)
        groups = self.random.choice([g for g in (1, 1, 1, 2, 3) if c % g == 0])
        channels = groups * self.random.randint(1, 5)
        weights, scales = self.weights((channels, kh, kw, c // groups), channels, 0, per_channel)
        bias = self.bias(x, scales, channels, ("int64", "int64", "int32"))
        out = self.output((1, oh, ow, channels))
        options = schema.Conv2DOptionsT(
            padding=padding,
            strideH=sh,
            strideW=sw,
            dilationHFactor=dh,
            dilationWFactor=dw,
            fusedActivationFunction=self.activation(),
        )
        return self.op("CONV_2D", [x, weights, bias], [out], options)

    def fully_connected(self, x: int) -> int:
        shape = self.shape(x)
        depth, channels = shape[-1], self.random.randint(1, 9)
        rows = int(np.prod(shape)) // depth
        per_channel = self.random.random() < 0.5
        weights, scales = self.weights((channels, depth), channels, 0, per_channel)
        inputs = [x, weights, self.bias(x, scales, channels, ("int64", "int64", "int32"))]
        if self.random.random() < 0.2:
            inputs[2] = -1
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=self.activation(), keepNumDims=True)
        return self.op("FULLY_CONNECTED", inputs, [self.output((rows, channels))], options)

    def pool(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        kh, kw = self.random.randint(1, min(self.kernel, h)), self.random.randint(1, min(self.kernel, w))
        sh, sw, padding = self.random.randint(1, 3), self.random.randint(1, 3), self.random.randint(0, 1)
        oh, ow = self.window(h, kh, sh, 1, padding), self.window(w, kw, sw, 1, padding)
        step, zero = self.steps(x)
        out = self.tensor((1, oh, ow, c), scales=[step], zero_points=[zero])
        options = schema.Pool2DOptionsT(
            padding=padding,
            strideH=sh,
            strideW=sw,
            filterHeight=kh,
            filterWidth=kw,
            fusedActivationFunction=self.activation(),
        )
        return self.op(self.random.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"]), [x], [out], options)

    def binary(self, x: int) -> int:
        """An op of two operands, the second a constant that may be broadcast, or the same tensor twice."""
        shape = self.shape(x)
        kind = self.random.choice(["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"])
        step, zero = self.steps(x)
        plain = kind in ("MAXIMUM", "MINIMUM")
        other_shape = self.random.choice([shape, (1,) * (len(shape) - 1) + shape[-1:], (1,) * len(shape)])
        other = self.tensor(
            other_shape,
            data=self.values(other_shape),
            scales=[step if plain else self.scale()],
            zero_points=[zero if plain else self.random.randint(-128, 127)],
        )
        inputs = [x, other] if self.random.random() < 0.7 else [x, x]
        out = self.tensor(shape, scales=[step], zero_points=[zero]) if plain else self.output(shape)
        name = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}.get(kind)
        options = schema.MaximumMinimumOptionsT()
        if name:
            options = getattr(schema, f"{name}OptionsT")(fusedActivationFunction=self.activation())
        return self.op(kind, inputs, [out], options)

    def unary(self, x: int) -> int:
        """An activation function, or a QUANTIZE."""
        shape, (step, zero) = self.shape(x), self.steps(x)
        kinds = ["LOGISTIC", "TANH", "RELU", "RELU6", "LEAKY_RELU", "QUANTIZE"]
        kind = self.random.choice([*kinds, "HARD_SWISH"] if self.dtype == "int8" else kinds)
        if kind == "HARD_SWISH" and step > 2:  # the interpreter needs 128 steps of the output for one of the input
            kind = "RELU"
        options = schema.LeakyReluOptionsT(alpha=self.random.uniform(0.01, 0.9)) if kind == "LEAKY_RELU" else None
        if kind == "RELU6":
            out = self.tensor(shape, scales=[step], zero_points=[zero])
        elif self.dtype == "int16":
            out = self.tensor(shape, scales=[1 / 32768 if kind in ("LOGISTIC", "TANH") else self.scale(0.02, 0.4)])
        elif kind == "LOGISTIC":
            out = self.tensor(shape, scales=[1 / 256], zero_points=[-128])
        elif kind == "TANH":
            out = self.tensor(shape, scales=[1 / 128], zero_points=[0])
        else:
            out = self.output(shape)
        return self.op(kind, [x], [out], options)

    def detour(self, x: int) -> int:
        """QUANTIZE to int16 and back, as in a model of which a part has int16 activations."""
        shape = self.shape(x)
        x = self.op("QUANTIZE", [x], [self.tensor(shape, "int16", scales=[self.scale(1e-4, 1e-3)])])
        return self.op("QUANTIZE", [x], [self.output(shape)])

    def softmax(self, x: int) -> int:
        if self.shape(x)[-1] > 500:  # the interpreter aborts on many equal inputs
            return self.unary(x)
        out = self.tensor(self.shape(x), scales=[1 / 256 if self.dtype == "int8" else 1 / 32768], zero_points=[-128])
        return self.op("SOFTMAX", [x], [out], schema.SoftmaxOptionsT(beta=self.random.choice([1.0, 1.0, 0.5])))

    def transpose_convolution(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        kh, kw, sh, sw = (self.random.randint(1, 4) for _ in range(4))
        padding, channels = self.random.randint(0, 1), self.random.randint(1, 5)
        # With output_padding, Keras also makes sizes that are no multiple of the stride.
        oh, ow = (
            size * stride + (max(kernel - stride, 0) if padding else 0) + self.random.choice([0, 0, 1])
            for size, stride, kernel in ((h, sh, kh), (w, sw, kw))
        )
        weights, scales = self.weights((channels, kh, kw, c), channels, 0, self.random.random() < 0.8)
        out = self.output((1, oh, ow, channels))
        inputs = [self.ints((1, oh, ow, channels)), weights, x, self.bias(x, scales, channels)]
        options = schema.TransposeConvOptionsT(
            padding=padding, strideH=sh, strideW=sw, fusedActivationFunction=self.activation()
        )
        return self.op("TRANSPOSE_CONV", inputs[: self.random.choice([3, 4, 4])], [out], options)

    def resize(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        size = [max(1, int(d * self.random.choice([0.5, 1, 1.6, 2, 3]))) for d in (h, w)]
        kind = self.random.choice(["RESIZE_NEAREST_NEIGHBOR", "RESIZE_BILINEAR"][: 1 if self.dtype == "int16" else 2])
        mode = self.random.choice([{}, {"alignCorners": True}, {"halfPixelCenters": True}])
        options = (
            schema.ResizeBilinearOptionsT if kind == "RESIZE_BILINEAR" else schema.ResizeNearestNeighborOptionsT
        )(**mode)
        return self.op(kind, [x, self.ints(size)], [self.same(x, (1, *size, c))], options)

    def batch_matmul(self, x: int) -> int:
        shape = self.shape(x)
        adj_x, adj_y = self.random.random() < 0.4, self.random.random() < 0.5
        depth, rows = (shape[-2:] if adj_x else shape[:-3:-1])[0], shape[-1] if adj_x else shape[-2]
        columns, batch = self.random.randint(1, 6), shape[:-2]
        other = (*(self.random.choice([1, d]) for d in batch), *((columns, depth) if adj_y else (depth, columns)))
        numbers = np.random.default_rng(self.random.getrandbits(32))
        limits = np.iinfo(self.dtype)
        right = self.tensor(other, data=numbers.integers(limits.min, limits.max + 1, other).astype(self.dtype))
        if rows == depth and self.random.random() < 0.3:
            right, columns = x, rows
        out = self.output((*batch, rows, columns))
        if self.dtype == "int16" and right != x:  # a scale with which few sums saturate
            step = self.steps(out)[0] / (self.steps(x)[0] * 2**15 * depth**0.5 * self.random.uniform(0.3, 2))
            self.graph.tensors[right].quantization.scale = np.array([step], "f4")
        return self.op("BATCH_MATMUL", [x, right], [out], schema.BatchMatMulOptionsT(adjX=adj_x, adjY=adj_y))

    def lstm(self, x: int) -> int:
        """An LSTM on the tensor reshaped to a sequence."""
        shape = self.shape(x)
        steps, inputs, units = int(np.prod(shape[1:-1])), shape[-1], self.random.randint(1, 6)
        major = self.random.random() < 0.3
        flat = (steps, 1, inputs) if major else (1, steps, inputs)
        x = self.op("RESHAPE", [x, self.ints(flat)], [self.same(x, flat)], schema.ReshapeOptionsT(newShape=[*flat]))
        numbers = np.random.default_rng(self.random.getrandbits(32))
        tensors = [x]
        for depth in (inputs, units):
            for _ in range(4):
                values = numbers.integers(-127, 128, (units, depth)).astype("int8")
                scale = self.scale(0.001, 0.02)
                tensors.append(self.tensor((units, depth), data=values, scales=[scale], zero_points=[0]))
        tensors += [-1] * 3
        for i in range(4):
            scale = self.steps(x)[0] * self.steps(tensors[1 + i])[0]
            values = numbers.integers(-3000, 3000, units).astype("int32")
            tensors.append(self.tensor((units,), "int32", values, [scale], [0]))
        hidden, zero = self.scale(0.004, 0.009), self.random.randint(-20, 20)
        tensors += [-1, -1, self.variable((1, units), "int8", hidden, zero)]
        tensors += [self.variable((1, units), "int16", 2.0 ** self.random.randint(-15, -9)), *[-1] * 4]
        out = self.tensor((*flat[:2], units), scales=[hidden], zero_points=[zero])
        options = schema.UnidirectionalSequenceLSTMOptionsT(
            fusedActivationFunction=schema.ActivationFunctionType.TANH,
            timeMajor=major,
            cellClip=self.random.choice([0.0, 0.0, 0.5]),
        )
        self.op("UNIDIRECTIONAL_SEQUENCE_LSTM", tensors, [out], options)
        flat = (1, steps, units)
        return self.op(
            "RESHAPE", [out, self.ints(flat)], [self.same(out, flat)], schema.ReshapeOptionsT(newShape=[*flat])
        )

    def svdf(self, x: int) -> int:
        """An SVDF on the tensor reshaped to a vector."""
        flat = (1, int(np.prod(self.shape(x))))
        x = self.op("RESHAPE", [x, self.ints(flat)], [self.same(x, flat)], schema.ReshapeOptionsT(newShape=[*flat]))
        rank, units, memory = self.random.randint(1, 3), self.random.randint(1, 5), self.random.randint(1, 6)
        wide, scale = self.random.random() < 0.5, self.scale(0.01, 0.3)
        dtype = "int16" if wide else "int8"
        numbers = np.random.default_rng(self.random.getrandbits(32))
        feature, steps = self.weights((units * rank, flat[1]), 1, 0, per_channel=False)
        limit = 3000 if wide else 127
        time_scale = self.scale(0.001, 0.02) / (256 if wide else 1)
        time = self.tensor(
            (units * rank, memory),
            dtype,
            numbers.integers(-limit, limit + 1, (units * rank, memory)).astype(dtype),
            [time_scale],
            [0],
        )
        scale = scale / 256 if wide else scale
        state = self.variable((1, memory * units * rank), dtype, scale, 0 if wide else self.random.randint(-9, 9))
        bias = self.tensor(
            (units,), "int32", numbers.integers(-3000, 3000, units).astype("int32"), [scale * time_scale], [0]
        )
        options = schema.SVDFOptionsT(rank=rank, fusedActivationFunction=schema.ActivationFunctionType.RELU)
        return self.op("SVDF", [x, feature, time, bias, state], [self.output((1, units))], options)

    def same(self, x: int, shape: tuple[int, ...]) -> int:
        """Adds an activation with the quantization of another one."""
        step, zero = self.steps(x)
        return self.tensor(shape, scales=[step], zero_points=[zero])

    def shuffle(self, x: int) -> int:
        """An op that moves values."""
        shape = self.shape(x)
        kind = self.random.choice(
            [
                "CONCATENATION",
                "SPLIT",
                "STRIDED_SLICE",
                "TRANSPOSE",
                "PAD",
                "PADV2",
                "RESHAPE",
                "SQUEEZE",
                "EXPAND_DIMS",
                "PACK",
                "UNPACK",
                "REVERSE_V2",
            ]
        )
        axis = self.random.randrange(1, len(shape)) if len(shape) > 1 else 0
        if kind == "CONCATENATION":
            out = self.same(x, tuple(d * (2 if i == axis else 1) for i, d in enumerate(shape)))
            return self.op(kind, [x, x], [out], schema.ConcatenationOptionsT(axis=axis))
        if kind == "SPLIT" and shape[axis] % 2 == 0:
            half = tuple(d // (2 if i == axis else 1) for i, d in enumerate(shape))
            outs = [self.same(x, half), self.same(x, half)]
            self.op(kind, [self.ints(axis), x], outs, schema.SplitOptionsT(numSplits=2))
            return outs[self.random.randint(0, 1)]
        if kind == "STRIDED_SLICE":
            begin, end, steps = [], [], []
            for d in shape:
                low = self.random.randrange(d)
                begin.append(low), end.append(self.random.randint(low + 1, d)), steps.append(self.random.randint(1, 2))
            if sum(begin) % 2 == 0:
                size = tuple(e - b for b, e in zip(begin, end, strict=True))
                inputs = [x, self.ints(begin), self.ints(size)]
                return self.op("SLICE", inputs, [self.same(x, size)], schema.SliceOptionsT())
            size = tuple(len(range(b, e, s)) for b, e, s in zip(begin, end, steps, strict=True))
            inputs = [x, self.ints(begin), self.ints(end), self.ints(steps)]
            return self.op(kind, inputs, [self.same(x, size)], schema.StridedSliceOptionsT())
        if kind == "TRANSPOSE":
            order = list(range(1, len(shape)))
            self.random.shuffle(order)
            order = [0, *order]
            return self.op(
                kind, [x, self.ints(order)], [self.same(x, tuple(shape[a] for a in order))], schema.TransposeOptionsT()
            )
        if kind in ("PAD", "PADV2"):
            amounts = [(0, 0), *((self.random.randint(0, 2), self.random.randint(0, 2)) for _ in shape[1:])]
            out = self.same(x, tuple(d + a + b for d, (a, b) in zip(shape, amounts, strict=True)))
            inputs = [x, self.ints(amounts)]
            if kind == "PADV2":
                step, zero = self.steps(x)
                value = self.values((1,))
                inputs.append(self.tensor((1,), data=value, scales=[step], zero_points=[zero]))
            options = schema.PadV2OptionsT() if kind == "PADV2" else schema.PadOptionsT()
            return self.op(kind, inputs, [out], options)
        if kind == "SQUEEZE" and 1 in shape[1:] and len(shape) > 2:
            axis = self.random.choice([i for i in range(1, len(shape)) if shape[i] == 1])
            return self.op(
                kind, [x], [self.same(x, shape[:axis] + shape[axis + 1 :])], schema.SqueezeOptionsT(squeezeDims=[axis])
            )
        if kind == "EXPAND_DIMS" and len(shape) < 4:
            return self.op(
                kind,
                [x, self.ints(axis)],
                [self.same(x, (*shape[:axis], 1, *shape[axis:]))],
                schema.ExpandDimsOptionsT(),
            )
        if kind == "PACK" and len(shape) < 4:
            out = self.same(x, (*shape[:axis], 2, *shape[axis:]))
            return self.op(kind, [x, x], [out], schema.PackOptionsT(valuesCount=2, axis=axis))
        if kind == "UNPACK" and len(shape) > 2:
            outs = [self.same(x, shape[:axis] + shape[axis + 1 :]) for _ in range(shape[axis])]
            self.op(kind, [x], outs, schema.UnpackOptionsT(num=shape[axis], axis=axis))
            return self.random.choice(outs)
        if kind == "REVERSE_V2":
            return self.op(kind, [x, self.ints([axis])], [self.same(x, shape)], schema.ReverseV2OptionsT())
        flat = (1, int(np.prod(shape)))
        return self.op("RESHAPE", [x, self.ints(flat)], [self.same(x, flat)], schema.ReshapeOptionsT(newShape=[*flat]))

    def reduction(self, x: int) -> int:
        shape = self.shape(x)
        axes = sorted(self.random.sample(range(1, len(shape)), self.random.randint(1, len(shape) - 1)))
        out = self.output(tuple(1 if i in axes else d for i, d in enumerate(shape)))
        kind = self.random.choice(["MEAN", "MEAN", "SUM"])
        return self.op(kind, [x, self.ints(axes)], [out], schema.ReducerOptionsT(keepDims=True))


def net(seed: int) -> bytes:
    """A random graph of one to four ops; every fifth seed has int16 activations."""
    made = Net(random.Random(seed), "int16" if seed % 5 == 4 else "int8")
    x = made.input((1, made.random.randint(1, 9), made.random.randint(1, 9), made.random.randint(1, 8)))
    for _ in range(made.random.randint(1, 4)):
        spatial = len(made.shape(x)) == 4
        kinds = [made.convolution if spatial else made.fully_connected] * 3
        kinds += [made.pool if spatial else made.softmax, made.fully_connected, made.binary, made.unary, made.softmax]
        kinds += [made.shuffle, made.reduction if len(made.shape(x)) > 1 else made.unary]
        kinds += [made.resize, made.transpose_convolution] if spatial else []
        kinds += [made.batch_matmul]
        if made.dtype == "int8":
            kinds += [made.lstm if len(made.shape(x)) > 2 else made.svdf, made.detour]
            kinds += [] if spatial else [made.svdf, made.shuffle]
        x = made.random.choice(kinds)(x)
    return made.bytes(x)


def samples(content: bytes, count: int, seed: int = 0) -> np.ndarray:
    """[count, ...] random inputs of a model."""
    model = schema.Model.GetRootAs(content, 0)
    tensor = model.Subgraphs(0).Tensors(model.Subgraphs(0).Inputs(0))
    dtype = {code: name for name, code in _TYPES.items()}[tensor.Type()]
    limits = np.iinfo(dtype)
    shape = (count, *tensor.ShapeAsNumpy()[1:])
    return np.random.default_rng(seed).integers(limits.min, limits.max + 1, shape).astype(dtype)
