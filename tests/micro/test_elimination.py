"""Removal of dead channels: which are removed, and that the outputs keep every bit."""

from __future__ import annotations

import json
import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import differing, interpret, native
from tests.random_graph import Net
from tfkd import convert, data, micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export


class Builder(Net):
    """Nets like trained ones: ReLU, scales that fit the sums, and channels that training made constant."""

    def product(self, x: int, kind: str, kernel: int = 1, channels: int = 0, stride: int = 1) -> int:
        _, h, w, c = (1, 1, 1, *self.shape(x))[-4:]
        padding, depthwise = self.random.randint(0, 1) if min(h, w) >= kernel else 0, kind == "DEPTHWISE_CONV_2D"
        channels = c * self.random.choice([1, 1, 2]) if depthwise else channels or self.random.randint(2, 9)
        depth = kernel**2 * (1 if depthwise else c)
        shape = (1, kernel, kernel, channels) if depthwise else (channels, kernel, kernel, c)
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


@pytest.mark.parametrize(
    ("net", "count", "least"),
    [
        (trained, 25, 20),
        (arbitrary, 25, 5),
        pytest.param(trained, 100, 80, marks=pytest.mark.campaign),
        pytest.param(arbitrary, 70, 15, marks=pytest.mark.campaign),
    ],
)
def test_graphs_with_dead_channels_keep_the_bits_of_tflite_micro(
    net: Callable[[int], bytes], count: int, least: int, tmp_path: Path
) -> None:
    """At least `least` of `count` nets become smaller, and all compute the same bits."""
    models = [net(seed) for seed in range(count)]
    numbers = np.random.default_rng(0)
    inputs = [numbers.integers(-128, 128, (3, *TFLiteModel.load(m).inputs[0].shape[1:])).astype("int8") for m in models]
    expected = interpret(models, inputs)
    taken = [i for i, rows in enumerate(expected) if rows.size]
    programs = [micro.emit(models[i], name=f"n{i}", size=bool(i % 2)) for i in taken]
    got = native(tmp_path, programs, [inputs[i] for i in taken])
    assert not differing(taken, got, [expected[i] for i in taken])
    assert sum(program.elimination.macs[1] < program.elimination.macs[0] for program in programs) >= least


def two_convolutions(kernel: int, bias: int, activation: int) -> bytes:
    """A 1x1 convolution of three channels, the second without weights, then a kernel x kernel one with SAME padding."""
    made = Net(random.Random(0))
    x = made.input((1, 4, 4, 2))
    middle = made.tensor((1, 4, 4, 3), scales=[0.1], zero_points=[-128])
    last = made.tensor((1, 4, 4, 2), scales=[0.2], zero_points=[0])
    first = np.array([[3, -2], [0, 0], [1, 4]], "int8").reshape(3, 1, 1, 2)
    second = np.arange(-9, 9).repeat(kernel**2).reshape(6, 3, kernel, kernel)[:2].transpose(0, 2, 3, 1).astype("int8")
    for source, output, weights, add in ((x, middle, first, [0, bias, 0]), (middle, last, second, [5, 7])):
        step = made.steps(source)[0] * 0.02
        values = made.tensor(weights.shape, data=weights, scales=[0.02], zero_points=[0])
        biases = made.tensor((len(add),), "int32", np.array(add, "int32"), [step], [0])
        options = schema.Conv2DOptionsT(
            padding=0,
            strideH=1,
            strideW=1,
            dilationHFactor=1,
            dilationWFactor=1,
            fusedActivationFunction=activation if source == x else 0,
        )
        made.op("CONV_2D", [source, values, biases], [output], options)
    return made.bytes(last)


@pytest.mark.parametrize(
    ("kernel", "bias", "activation", "kept"),
    [
        (1, 900, 0, 2),  # without padding a constant goes into the bias
        (3, 900, 0, 3),  # padding reads the zero point, the image another constant: the channel stays
        (3, -900, 1, 2),  # ReLU holds the channel at the zero point, which padding reads too
        (3, 0, 0, 2),
    ],
)
def test_constant_channel_is_removed_unless_padding_reads_another_value(
    kernel: int, bias: int, activation: int, kept: int, tmp_path: Path
) -> None:
    content = two_convolutions(kernel, bias, activation)
    program = micro.emit(content)
    assert program.elimination.macs == (16 * 6 + 16 * 6 * kernel**2, 16 * 2 * kept + 16 * 2 * kept * kernel**2)
    x = np.random.default_rng(0).integers(-128, 128, (5, 4, 4, 2)).astype("int8")
    expected = targets.get("tflm").run(content, x, latency=False).outputs[0].reshape(5, -1)
    assert np.array_equal(native(tmp_path, [program], [x])[0], expected)


def test_product_keeps_two_channels_so_that_its_multipliers_stay_the_same() -> None:
    """The multiplier of a product with one scale is computed in float32, with scales by channel in double."""
    made = Net(random.Random(0))
    x = made.input((1, 6))
    hidden, out = made.output((1, 3)), made.output((1, 2))
    weights, scales = made.weights((3, 6), 3, 0, per_channel=True)
    made.op("FULLY_CONNECTED", [x, weights, made.bias(x, scales, 3)], [hidden], schema.FullyConnectedOptionsT())
    only = np.array([[3, 0, 0], [7, 0, 0]], "int8")
    weights = made.tensor((2, 3), data=only, scales=[0.01], zero_points=[0])
    made.op("FULLY_CONNECTED", [hidden, weights, -1], [out], schema.FullyConnectedOptionsT())
    first = micro.emit(made.bytes(out)).elimination.layers[0]
    assert first.channels == (3, 2)


def test_padding_is_folded_where_all_readers_are_convolutions() -> None:
    made = Builder(random.Random(0))
    x = made.input((1, 5, 5, 2))
    amounts = made.ints([(0, 0), (0, 1), (0, 1), (0, 0)])
    wider = made.op("PAD", [x, amounts], [made.same(x, (1, 6, 6, 2))], schema.PadOptionsT())
    alone = made.product(wider, "CONV_2D", kernel=3, stride=2)
    kinds = [step.split()[0] for step in micro.emit(made.bytes(alone)).steps]
    assert kinds == ["CONV_2D"]
    pooled = made.pool(wider)
    kinds = [step.split()[0] for step in micro.emit(made.bytes(alone, pooled)).steps]
    assert kinds.count("PAD") == 2  # an average pool does not count padding


@pytest.fixture(scope="module")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A student trained with an L1 penalty, which makes channels constant."""
    import keras
    from keras import layers

    train = data.load("digits").train
    keras.utils.set_random_seed(0)
    penalty = keras.regularizers.L1(3e-3)
    model = keras.Sequential(
        [
            keras.Input(train.input_shape),
            layers.Rescaling(1 / 16),
            layers.Conv2D(16, 3, activation="relu", kernel_regularizer=penalty),
            layers.DepthwiseConv2D(3, padding="same", activation="relu"),
            layers.Conv2D(32, 1, activation="relu", kernel_regularizer=penalty),
            layers.GlobalAveragePooling2D(),
            layers.Dense(train.num_classes),
        ]
    )
    model.compile(keras.optimizers.SGD(0.1, momentum=0.9), keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    model.fit(train.x, train.y, epochs=6, batch_size=64, verbose=0)
    folder = tmp_path_factory.mktemp("student")
    convert(model, folder / "student.tflite", calibration=train)
    return folder / "student.tflite"


def test_trained_student_without_its_dead_channels_computes_the_same_bits(student: Path, tmp_path: Path) -> None:
    program = micro.emit(student)
    (macs, macs_after), (weights, weights_after) = program.elimination.macs, program.elimination.weight_bytes
    assert macs_after < 0.8 * macs
    assert weights_after < 0.9 * weights
    raw = TFLiteModel.load(student)
    x = raw.quantize_input(data.load("digits").test.x[:200])
    expected = targets.get("tflm").run(raw, x, latency=False).outputs[0]
    assert len(np.unique(expected.argmax(axis=1))) > 4
    assert np.array_equal(native(tmp_path, [program], [x])[0], expected)


def test_report_of_export_lists_what_was_removed(student: Path, tmp_path: Path) -> None:
    report = export.write(student, tmp_path / "out")
    removed = json.loads((tmp_path / "out" / "report.json").read_text())["removed"]
    assert removed["macs"][1] < removed["macs"][0] == report["macs"]
    assert {"layer", "channels", "weight_bytes"} == set(removed["layers"][0])
    assert f"{removed['macs'][0]:,} -> {removed['macs'][1]:,} MACs" in removed["summary"]
    assert removed["summary"][1:] in (tmp_path / "out" / "model.c").read_text()


def test_graph_without_dead_channels_is_unchanged() -> None:
    made = Builder(random.Random(1))
    x = made.input((1, 5, 5, 2))
    content = made.bytes(made.product(x, "CONV_2D", kernel=3))
    program = micro.emit(content)
    assert program.elimination.layers == ()
    assert str(program.elimination) == "no dead channels"
