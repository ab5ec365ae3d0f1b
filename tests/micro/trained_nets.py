"""Random nets like trained ones: ReLU, scales that fit the sums, and channels that are constant or never read."""

from __future__ import annotations

import random

import numpy as np
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net


class Builder(Net):
    """Nets like trained ones: ReLU, scales that fit the sums, and channels that training made constant."""

    def product(self, x: int, kind: str, kernel: int = 1, channels: int = 0, stride: int = 1) -> int:
        h, w, c = (1, 1, *self.shape(x))[-3:]
        padding, depthwise = self.random.randint(0, 1) if min(h, w) >= kernel else 0, kind == "DEPTHWISE_CONV_2D"
        channels = c * self.random.choice([1, 1, 2]) if depthwise else channels or self.random.randint(2, 9)
        depth = kernel**2 * (1 if depthwise else c)
        shape: tuple[int, ...] = (1, kernel, kernel, channels) if depthwise else (channels, kernel, kernel, c)
        if kind == "FULLY_CONNECTED":
            shape = (channels, c)
        weights, scales = self.weights(shape, channels, 3 if depthwise else 0, per_channel=self.random.random() < 0.8)
        size = tuple(self.window(n, kernel, stride, 1, padding) for n in (h, w))
        step = self.steps(x)[0] * max(scales) * depth**0.5 * 80
        relu = self.random.choice([0, 1, 1, 1])
        zero = -128 if relu else self.random.randint(-40, 40)
        out = self.tensor(
            (1, channels) if kind == "FULLY_CONNECTED" else (1, *size, channels), scales=[step], zero_points=[zero]
        )
        window = {"padding": padding, "strideH": stride, "strideW": stride, "dilationHFactor": 1, "dilationWFactor": 1}
        options = {
            "CONV_2D": lambda: schema.Conv2DOptionsT(**window, fusedActivationFunction=relu),
            "DEPTHWISE_CONV_2D": lambda: schema.DepthwiseConv2DOptionsT(
                **window, depthMultiplier=channels // c, fusedActivationFunction=relu
            ),
            "FULLY_CONNECTED": lambda: schema.FullyConnectedOptionsT(fusedActivationFunction=relu, keepNumDims=True),
        }[kind]()
        return self.op(kind, [x, weights, self.bias(x, scales, channels)], [out], options)

    def residual(self, x: int) -> int:
        shape, options = self.shape(x), schema.AddOptionsT(fusedActivationFunction=1)
        y = self.product(x, "CONV_2D", channels=shape[3])
        sum_ = self.tensor(shape, scales=[self.steps(x)[0] + self.steps(y)[0]], zero_points=[-128])
        return self.op("ADD", [x, y], [sum_], options)

    def branches(self, x: int) -> int:
        """Two convolutions, concatenated."""
        parts = [self.product(x, "CONV_2D") for _ in range(2)]
        step, zero = self.steps(parts[0])
        second = self.graph.tensors[parts[1]].quantization
        second.scale, second.zeroPoint = np.array([step], "f4"), np.array([zero], "i8")
        shape = (*self.shape(x)[:3], sum(self.shape(part)[3] for part in parts))
        out = self.same(parts[0], shape)
        return self.op("CONCATENATION", parts, [out], schema.ConcatenationOptionsT(axis=3))

    def padded(self, x: int) -> int:
        """An explicit PAD before a convolution."""
        amounts = [(0, 0), *((self.random.randint(0, 2), self.random.randint(0, 2)) for _ in range(2)), (0, 0)]
        shape = tuple(d + a + b for d, (a, b) in zip(self.shape(x), amounts, strict=True))
        wider = self.op("PAD", [x, self.ints(amounts)], [self.same(x, shape)], schema.PadOptionsT())
        kind = self.random.choice(["CONV_2D", "DEPTHWISE_CONV_2D"])
        kernel = min(self.random.choice([1, 3, 3]), *shape[1:3])
        return self.product(wider, kind, kernel=kernel, stride=self.random.randint(1, 2))


def plant(made: Net) -> None:
    """Makes channels of all ops with weights but the last dead: no weights, a saturating bias, or no reader."""
    for op in made.graph.operators[:-1]:
        kind = made.model.operatorCodes[op.opcodeIndex].builtinCode
        axis = {
            schema.BuiltinOperator.CONV_2D: 0,
            schema.BuiltinOperator.FULLY_CONNECTED: 0,
            schema.BuiltinOperator.DEPTHWISE_CONV_2D: 3,
        }.get(kind)
        if axis is None:
            continue
        buffer = made.model.buffers[made.graph.tensors[op.inputs[1]].buffer]
        weights = np.moveaxis(buffer.data.view("int8").reshape(made.shape(op.inputs[1])).copy(), axis, 0)
        for channel in range(len(weights)):
            if made.random.random() < 0.2:
                weights[channel] = 0
        if axis == 0 and made.random.random() < 0.5:
            weights[..., made.random.randrange(weights.shape[-1])] = 0
        buffer.data = np.frombuffer(np.ascontiguousarray(np.moveaxis(weights, 0, axis)).tobytes(), "u1")
        if op.inputs[2] >= 0:
            buffer = made.model.buffers[made.graph.tensors[op.inputs[2]].buffer]
            bias = buffer.data.view("int32").copy()
            bias[[made.random.random() < 0.2 for _ in bias]] = made.random.choice([-400_000, -400_000, 400_000])
            buffer.data = np.frombuffer(bias.tobytes(), "u1")


def trained(seed: int) -> bytes:
    """A net with dead channels: convolutions, then a mean or a reshape, then a classifier."""
    made = Builder(random.Random(seed))
    x = made.input((1, made.random.randint(4, 8), made.random.randint(4, 8), made.random.randint(1, 4)))
    x = made.product(x, "CONV_2D", kernel=3, stride=made.random.randint(1, 2))
    for _ in range(made.random.randint(2, 5)):
        kernel = min(3, *made.shape(x)[1:3])
        x = made.random.choice(
            [
                lambda x=x, k=kernel: made.product(x, "CONV_2D", kernel=k),
                lambda x=x, k=kernel: made.product(x, "DEPTHWISE_CONV_2D", kernel=k, stride=made.random.randint(1, 2)),
                lambda x=x: made.product(x, "CONV_2D"),
                lambda x=x: made.padded(x),
                lambda x=x: made.residual(x),
                lambda x=x: made.branches(x),
                lambda x=x: made.pool(x),
                lambda x=x: made.binary(x),
                lambda x=x: made.unary(x),
            ]
        )()
    if made.random.random() < 0.5:
        mean = made.same(x, (1, made.shape(x)[3]))
        x = made.op("MEAN", [x, made.ints([1, 2])], [mean], schema.ReducerOptionsT(keepDims=False))
    else:
        flat = (1, int(np.prod(made.shape(x))))
        x = made.op("RESHAPE", [x, made.ints(flat)], [made.same(x, flat)], schema.ReshapeOptionsT(newShape=[*flat]))
    x = made.product(made.product(x, "FULLY_CONNECTED"), "FULLY_CONNECTED")
    plant(made)
    return made.bytes(x)


def arbitrary(seed: int) -> bytes:
    """A net of any ops with any options, with dead channels."""
    made = Net(random.Random(seed))
    x = made.input((1, made.random.randint(2, 8), made.random.randint(2, 8), made.random.randint(2, 6)))
    for _ in range(made.random.randint(3, 6)):
        spatial = len(made.shape(x)) == 4
        several = [made.convolution] * 6 + [made.pool] if spatial else [made.fully_connected] * 3
        reduction = made.reduction if len(made.shape(x)) > 1 else made.unary
        x = made.random.choice([*several, made.binary, made.unary, made.shuffle, reduction])(x)
    plant(made)
    return made.bytes(x)
