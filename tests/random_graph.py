"""Random .tflite graphs, put together op by op with a seed: what generated C must compute like the interpreter."""

from __future__ import annotations

import dataclasses
import random
from typing import Any

import flatbuffers
import numpy as np
from ai_edge_litert import schema_py_generated as schema

_TYPES = {"int8": schema.TensorType.INT8, "int32": schema.TensorType.INT32}


@dataclasses.dataclass
class Net:
    """A .tflite put together op by op, with a seeded random choice of everything."""

    random: random.Random

    def __post_init__(self) -> None:
        self.model = schema.ModelT(version=3, operatorCodes=[], buffers=[schema.BufferT()], description=b"test")
        self.graph = schema.SubGraphT(tensors=[], operators=[], inputs=[], outputs=[])
        self.model.subgraphs = [self.graph]

    def scale(self, low: float = 0.005, high: float = 0.2) -> float:
        return float(np.float32(self.random.uniform(low, high)))

    def tensor(self, shape: tuple[int, ...], dtype: str = "int8", data: Any = None, scales: Any = None,
               zero_points: Any = None, axis: int = 0) -> int:  # fmt: skip
        if scales is None and dtype == "int8":
            scales, zero_points = [self.scale()], [self.random.randint(-128, 127)]
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
            schema.TensorT(shape=np.array(shape, "i4"), type=_TYPES[dtype], buffer=buffer,
                           name=f"t{index}".encode(), quantization=quantization)
        )  # fmt: skip
        return index

    def input(self, shape: tuple[int, ...]) -> int:
        index = self.tensor(shape)
        self.graph.inputs.append(index)
        return index

    def shape(self, index: int) -> tuple[int, ...]:
        return tuple(int(d) for d in self.graph.tensors[index].shape)

    def steps(self, index: int) -> tuple[float, int]:
        quantization = self.graph.tensors[index].quantization
        return float(quantization.scale[0]), int(quantization.zeroPoint[0])

    def ints(self, values: Any) -> int:
        values = np.array(values, "int32")
        return self.tensor(values.shape, "int32", values)

    def op(self, kind: str, inputs: list[int], outputs: list[int], options: Any = None) -> int:
        code = getattr(schema.BuiltinOperator, kind)
        self.model.operatorCodes.append(
            schema.OperatorCodeT(deprecatedBuiltinCode=min(code, 127), builtinCode=code, version=1)
        )
        operator = schema.OperatorT(opcodeIndex=len(self.model.operatorCodes) - 1, inputs=inputs, outputs=outputs)
        if options is not None:
            operator.builtinOptionsType = getattr(schema.BuiltinOptions, type(options).__name__.removesuffix("T"))
            operator.builtinOptions = options
        self.graph.operators.append(operator)
        return outputs[0]

    def bytes(self, *outputs: int) -> bytes:
        self.graph.outputs = list(outputs)
        builder = flatbuffers.Builder(1024)
        builder.Finish(self.model.Pack(builder), b"TFL3")
        return bytes(builder.Output())

    # one op on a tensor, with random options; returns its output

    def weights(self, shape: tuple[int, ...], channels: int, axis: int, per_channel: bool) -> tuple[int, list[float]]:
        numbers = np.random.default_rng(self.random.getrandbits(32))
        values = numbers.integers(-127, 128, shape).astype("int8")
        scales = [self.scale(0.001, 0.03) for _ in range(channels if per_channel else 1)]
        return self.tensor(shape, data=values, scales=scales, zero_points=[0] * len(scales), axis=axis), scales

    def bias(self, source: int, scales: list[float], channels: int) -> int:
        step = self.steps(source)[0]
        values = [self.random.randint(-3000, 3000) for _ in range(channels)]
        return self.tensor((channels,), "int32", np.array(values, "int32"), [step * s for s in scales],
                           [0] * len(scales))  # fmt: skip

    def output(self, shape: tuple[int, ...]) -> int:
        return self.tensor(shape, scales=[self.scale(0.02, 0.4)], zero_points=[self.random.choice(
            [-128, 127, 0, self.random.randint(-128, 127)])])  # fmt: skip

    def activation(self) -> int:
        return self.random.choice([0, 0, 1, 3, 2])

    def window(self, size: int, kernel: int, stride: int, dilation: int, padding: int) -> int:
        reach = (kernel - 1) * dilation + 1
        return -(-size // stride) if padding == 0 else (size + stride - reach) // stride

    def convolution(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        kh, kw = self.random.randint(1, min(4, h)), self.random.randint(1, min(4, w))
        sh, sw = self.random.randint(1, 3), self.random.randint(1, 3)
        dh = self.random.randint(1, 2) if (kh - 1) * 2 < h else 1
        dw = self.random.randint(1, 2) if (kw - 1) * 2 < w else 1
        padding, depthwise = self.random.randint(0, 1), self.random.random() < 0.4
        if depthwise:
            kh, kw = self.random.choice([(kh, kw), (min(3, h), min(3, w))])
            sw = sh  # TensorFlow Lite Micro takes any; Keras makes equal ones
        oh, ow = self.window(h, kh, sh, dh, padding), self.window(w, kw, sw, dw, padding)
        if oh < 1 or ow < 1:
            return self.convolution(x)
        per_channel = self.random.random() < 0.8
        if depthwise:
            times = self.random.randint(1, 2)
            weights, scales = self.weights((1, kh, kw, c * times), c * times, 3, per_channel)
            out = self.output((1, oh, ow, c * times))
            options = schema.DepthwiseConv2DOptionsT(
                padding=padding, strideH=sh, strideW=sw, dilationHFactor=dh, dilationWFactor=dw, depthMultiplier=times,
                fusedActivationFunction=self.activation())  # fmt: skip
            return self.op("DEPTHWISE_CONV_2D", [x, weights, self.bias(x, scales, c * times)], [out], options)
        groups = self.random.choice([g for g in (1, 1, 1, 2, 3) if c % g == 0])
        channels = groups * self.random.randint(1, 5)
        weights, scales = self.weights((channels, kh, kw, c // groups), channels, 0, per_channel)
        out = self.output((1, oh, ow, channels))
        options = schema.Conv2DOptionsT(padding=padding, strideH=sh, strideW=sw, dilationHFactor=dh,
                                        dilationWFactor=dw, fusedActivationFunction=self.activation())  # fmt: skip
        return self.op("CONV_2D", [x, weights, self.bias(x, scales, channels)], [out], options)

    def fully_connected(self, x: int) -> int:
        shape = self.shape(x)
        depth, channels = shape[-1], self.random.randint(1, 9)
        rows = int(np.prod(shape)) // depth
        per_channel = self.random.random() < 0.5
        weights, scales = self.weights((channels, depth), channels, 0, per_channel)
        inputs = [x, weights, self.bias(x, scales, channels)]
        if self.random.random() < 0.2:
            inputs[2] = -1
        options = schema.FullyConnectedOptionsT(fusedActivationFunction=self.activation(), keepNumDims=True)
        return self.op("FULLY_CONNECTED", inputs, [self.output((rows, channels))], options)

    def pool(self, x: int) -> int:
        _, h, w, c = self.shape(x)
        kh, kw = self.random.randint(1, min(4, h)), self.random.randint(1, min(4, w))
        sh, sw, padding = self.random.randint(1, 3), self.random.randint(1, 3), self.random.randint(0, 1)
        oh, ow = self.window(h, kh, sh, 1, padding), self.window(w, kw, sw, 1, padding)
        step, zero = self.steps(x)
        out = self.tensor((1, oh, ow, c), scales=[step], zero_points=[zero])
        options = schema.Pool2DOptionsT(padding=padding, strideH=sh, strideW=sw, filterHeight=kh, filterWidth=kw,
                                        fusedActivationFunction=self.activation())  # fmt: skip
        return self.op(self.random.choice(["AVERAGE_POOL_2D", "MAX_POOL_2D"]), [x], [out], options)

    def binary(self, x: int) -> int:
        shape = self.shape(x)
        kind = self.random.choice(["ADD", "SUB", "MUL", "MAXIMUM", "MINIMUM"])
        step, zero = self.steps(x)
        plain = kind in ("MAXIMUM", "MINIMUM")
        other_shape = self.random.choice([shape, (1,) * (len(shape) - 1) + shape[-1:], (1,) * len(shape)])
        numbers = np.random.default_rng(self.random.getrandbits(32))
        other = self.tensor(other_shape, data=numbers.integers(-128, 128, other_shape).astype("int8"),
                            scales=[step if plain else self.scale()],
                            zero_points=[zero if plain else self.random.randint(-128, 127)])  # fmt: skip
        inputs = [x, other] if self.random.random() < 0.7 else [x, x]
        out = self.tensor(shape, scales=[step], zero_points=[zero]) if plain else self.output(shape)
        name = {"ADD": "Add", "SUB": "Sub", "MUL": "Mul"}.get(kind)
        options = schema.MaximumMinimumOptionsT()
        if name:
            options = getattr(schema, f"{name}OptionsT")(fusedActivationFunction=self.activation())
        return self.op(kind, inputs, [out], options)

    def unary(self, x: int) -> int:
        shape, (step, zero) = self.shape(x), self.steps(x)
        kind = self.random.choice(["LOGISTIC", "TANH", "RELU", "RELU6", "LEAKY_RELU", "HARD_SWISH", "QUANTIZE"])
        options = schema.LeakyReluOptionsT(alpha=self.random.uniform(0.01, 0.9)) if kind == "LEAKY_RELU" else None
        if kind == "LOGISTIC":
            out = self.tensor(shape, scales=[1 / 256], zero_points=[-128])
        elif kind == "TANH":
            out = self.tensor(shape, scales=[1 / 128], zero_points=[0])
        elif kind == "RELU6":
            out = self.tensor(shape, scales=[step], zero_points=[zero])
        else:
            out = self.output(shape)
        return self.op(kind, [x], [out], options)

    def softmax(self, x: int) -> int:
        out = self.tensor(self.shape(x), scales=[1 / 256], zero_points=[-128])
        return self.op("SOFTMAX", [x], [out], schema.SoftmaxOptionsT(beta=self.random.choice([1.0, 1.0, 0.5])))

    def same(self, x: int, shape: tuple[int, ...]) -> int:
        step, zero = self.steps(x)
        return self.tensor(shape, scales=[step], zero_points=[zero])

    def shuffle(self, x: int) -> int:
        """Ops that move values."""
        shape = self.shape(x)
        kind = self.random.choice(["CONCATENATION", "SPLIT", "STRIDED_SLICE", "TRANSPOSE", "PAD", "PADV2", "RESHAPE"])
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
            size = tuple(len(range(b, e, s)) for b, e, s in zip(begin, end, steps, strict=True))
            inputs = [x, self.ints(begin), self.ints(end), self.ints(steps)]
            return self.op(kind, inputs, [self.same(x, size)], schema.StridedSliceOptionsT())
        if kind == "TRANSPOSE":
            order = list(range(1, len(shape)))
            self.random.shuffle(order)
            order = [0, *order]
            return self.op(kind, [x, self.ints(order)], [self.same(x, tuple(shape[a] for a in order))],
                           schema.TransposeOptionsT())  # fmt: skip
        if kind in ("PAD", "PADV2"):
            amounts = [(0, 0), *((self.random.randint(0, 2), self.random.randint(0, 2)) for _ in shape[1:])]
            out = self.same(x, tuple(d + a + b for d, (a, b) in zip(shape, amounts, strict=True)))
            inputs = [x, self.ints(amounts)]
            if kind == "PADV2":
                step, zero = self.steps(x)
                value = np.array([self.random.randint(-128, 127)], "int8")
                inputs.append(self.tensor((1,), data=value, scales=[step], zero_points=[zero]))
            options = schema.PadV2OptionsT() if kind == "PADV2" else schema.PadOptionsT()
            return self.op(kind, inputs, [out], options)
        flat = (1, int(np.prod(shape)))
        return self.op("RESHAPE", [x, self.ints(flat)], [self.same(x, flat)], schema.ReshapeOptionsT(newShape=[*flat]))

    def reduction(self, x: int) -> int:
        shape = self.shape(x)
        axes = sorted(self.random.sample(range(1, len(shape)), self.random.randint(1, len(shape) - 1)))
        out = self.output(tuple(1 if i in axes else d for i, d in enumerate(shape)))
        kind = self.random.choice(["MEAN", "MEAN", "SUM"])
        return self.op(kind, [x, self.ints(axes)], [out], schema.ReducerOptionsT(keepDims=True))


def net(seed: int) -> bytes:
    """A random graph of one to four ops."""
    made = Net(random.Random(seed))
    x = made.input((1, made.random.randint(1, 9), made.random.randint(1, 9), made.random.randint(1, 8)))
    for _ in range(made.random.randint(1, 4)):
        spatial = len(made.shape(x)) == 4
        x = made.random.choice(
            [made.convolution if spatial else made.fully_connected] * 3
            + [made.pool if spatial else made.softmax, made.fully_connected, made.binary, made.unary, made.softmax]
            + [made.shuffle, made.reduction if len(made.shape(x)) > 1 else made.unary]
        )(x)
    return made.bytes(x)
