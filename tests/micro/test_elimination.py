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
from tests.micro.trained_nets import Builder, arbitrary, trained
from tests.random_graph import Net
from tfkd import convert, data, micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("net", "count", "least"),
    [
        (trained, 12, 9),
        (arbitrary, 12, 2),
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
