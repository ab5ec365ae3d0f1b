"""Generated C with states that persist between runs, and with int16 activations: from Keras to an emulated core."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfkd
from tests.micro.execution import interpret, native
from tests.micro.test_export import run_selftest
from tests.random_graph import Net, samples
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import arithmetic, export

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def sequences(tmp_path_factory: pytest.TempPathFactory) -> TFLiteModel:
    """Two stacked Keras LSTMs, as `tfkd convert` writes them."""
    folder, numbers = tmp_path_factory.mktemp("sequences"), np.random.default_rng(0)
    x = numbers.normal(size=(60, 8, 5)).astype("float32")
    np.savez(folder / "x.npz", x_train=x, y_train=np.arange(60) % 3, x_test=x[:20] + 1, y_test=np.arange(20) % 3)
    keras.utils.set_random_seed(2)  # weights whose second cell state has a scale of 2^-16
    inputs = keras.Input((8, 5))
    hidden = keras.layers.LSTM(4)(keras.layers.LSTM(6, return_sequences=True)(inputs))
    student = keras.Model(inputs, keras.layers.Dense(3)(hidden))
    return tfkd.convert(student, folder / "lstm.tflite", calibration=tfkd.data.load(folder / "x.npz").train)


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> TFLiteModel:
    """The student for digits with int16 activations."""
    train = tfkd.data.load("digits").train
    student = tfkd.models.build("digits_student", train.input_shape, train.num_classes)
    path = tmp_path_factory.mktemp("wide") / "digits.tflite"
    return tfkd.convert(student, path, mode="int16x8", calibration=train)


def svdf() -> bytes:
    made = Net(random.Random(2))
    return made.bytes(made.svdf(made.input((1, 3, 3, 2))))


@pytest.mark.parametrize("core", ["cortex-m4", "cortex-m0plus"])
def test_keras_lstm_on_a_core_computes_the_bits_of_tflite_micro(core: str, sequences: TFLiteModel) -> None:
    x = samples(sequences.content, 6)
    run = targets.get(core).run(sequences, x)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(sequences, x).outputs[0])
    assert len({row.tobytes() for row in run.outputs[0]}) > 1
    assert any("UNIDIRECTIONAL_SEQUENCE_LSTM" in step for step in run.environment["steps"])


@pytest.mark.parametrize("core", ["cortex-m4", pytest.param("cortex-m0plus", marks=pytest.mark.campaign)])
def test_int16_student_on_a_core_computes_the_bits_of_tflite_micro(core: str, wide: TFLiteModel) -> None:
    x = samples(wide.content, 6)
    run = targets.get(core).run(wide, x)
    assert run.outputs[0].dtype == "int16"
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(wide, x).outputs[0])


def chain(dtype: str, seed: int) -> bytes:
    """A net of ops that the students above do not have, in a chain."""
    made = Net(random.Random(seed), dtype)
    x = made.input((1, 5, 4, 4))
    names = {
        "int8": ("transpose_convolution", "resize", "batch_matmul", "detour", "lstm", "svdf"),
        "int16": ("convolution", "unary", "unary", "binary", "pool", "reduction", "fully_connected", "softmax"),
    }
    for name in names[dtype]:
        x = getattr(made, name)(x)
    return made.bytes(x)


# The int16 nets have sums of more than 32 bits, which a core without 64-bit multiplication rescales in software.
@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m4"])
@pytest.mark.parametrize(
    ("dtype", "seed"),
    [
        ("int8", 1),
        pytest.param("int8", 2, marks=pytest.mark.campaign),
        ("int16", 15),
        pytest.param("int16", 29, marks=pytest.mark.campaign),
    ],
)
def test_chain_of_ops_on_a_core_computes_the_bits_of_tflite_micro(dtype: str, seed: int, core: str) -> None:
    model = TFLiteModel.load(chain(dtype, seed))
    x = samples(model.content, 4, seed)
    run = targets.get(core).run(model, x, latency=False)
    assert np.array_equal(run.outputs[0], targets.get("tflm").run(model, x).outputs[0])
    assert ("tfkd_products_flags1(&p" in micro.emit(model).files["model.c"]) == (dtype == "int16")


@pytest.mark.campaign
def test_validate_int16_student_on_a_core(wide: TFLiteModel) -> None:
    test = tfkd.data.load("digits").test
    validation = tfkd.validate(wide, test, targets=["tflm", "cortex-m4"])
    by_target = {row.target: row for row in validation.rows}
    assert by_target["cortex-m4"].accuracy == by_target["tflm"].accuracy
    assert by_target["cortex-m4"].output_divergence.max_steps == 0


def test_selftest_of_int16_and_of_a_state_passes(wide: TFLiteModel, sequences: TFLiteModel, tmp_path: Path) -> None:
    for name, model in (("wide", wide), ("sequences", sequences)):
        report = export.write(model, tmp_path / name, name=name, oracle=targets.get("tflm"))
        assert report["state_bytes"] == {"wide": 0, "sequences": (4 + 6) * (1 + 2)}[name]
        assert run_selftest(tmp_path / name) == 0


def test_state_persists_until_it_is_reset(tmp_path: Path) -> None:
    content = svdf()
    x = np.repeat(samples(content, 1), 4, axis=0)
    kept = native(tmp_path / "kept", [micro.emit(content)], [x])[0]  # one reset, four runs
    assert np.array_equal(kept, interpret([content], [x])[0])
    assert not np.array_equal(kept[0], kept[3])
    fresh = targets.get("cortex-m4").run(TFLiteModel.load(content), x).outputs[0]  # a reset before each sample
    assert np.array_equal(fresh.reshape(4, -1), np.repeat(kept[:1], 4, axis=0))


def test_state_shares_no_bytes_with_other_buffers() -> None:
    made = Net(random.Random(5))
    x = made.svdf(made.input((1, 4, 4, 4)))
    program = micro.emit(made.bytes(made.svdf(made.fully_connected(x))))
    states = [b for b in program.plan.buffers if b.first == -1 and b.last == len(program.layers)]
    assert sum(b.bytes for b in states) == program.state_bytes > 0
    assert all(state.meets(other) for state in states for other in program.plan.buffers)
    assert program.least_bytes >= program.state_bytes


@pytest.mark.parametrize(
    ("spoil", "found"),
    [
        (lambda op, tensors: setattr(tensors[op.inputs[19]], "isVariable", False), "before it is computed"),
        (lambda op, tensors: setattr(tensors[op.inputs[19]].quantization, "scale", np.array([0.3], "f4")),
         "must be a power of two"),
        (lambda op, tensors: op.inputs.__setitem__(16, op.inputs[1]), "a projection"),
        (lambda op, tensors: op.inputs.__setitem__(13, op.inputs[1]), "must be a constant of int32"),
        (lambda op, tensors: setattr(op.builtinOptions, "fusedActivationFunction", 1), "the activation must be tanh"),
    ],
)  # fmt: skip
def test_lstm_with_an_unsupported_option_is_refused(spoil: Callable[..., None], found: str) -> None:
    made = Net(random.Random(1))
    out = made.lstm(made.input((1, 3, 1, 2)))
    op = next(op for op in made.graph.operators if len(op.inputs) == 24)
    spoil(op, made.graph.tensors)
    with pytest.raises(ValueError, match=found):
        micro.emit(made.bytes(out))


def test_int16_tensor_with_a_zero_point_is_refused() -> None:
    made = Net(random.Random(0), "int16")
    out = made.op("TANH", [made.input((1, 4))], [made.tensor((1, 4), scales=[1 / 32768])])
    made.graph.tensors[out].quantization.zeroPoint = np.array([3], "i8")
    with pytest.raises(ValueError, match="must have zero point 0, has 3"):
        micro.emit(made.bytes(out))


def test_tile_repeats_as_numpy_does(tmp_path: Path) -> None:
    """TensorFlow Lite Micro has no TILE, into which Keras's UpSampling2D is converted."""
    made = Net(random.Random(0))
    x = made.input((1, 3, 4, 2))
    out = made.op("TILE", [x, made.ints([1, 2, 1, 3])], [made.same(x, (1, 6, 4, 6))], schema.TileOptionsT())
    content = made.bytes(out)
    rows = samples(content, 3)
    got = native(tmp_path, [micro.emit(content)], [rows])[0]
    assert np.array_equal(got.reshape(3, 6, 4, 6), np.tile(rows, (1, 2, 1, 3)))


def test_slice_is_equal_to_the_interpreter(tmp_path: Path) -> None:
    made = Net(random.Random(0))
    x = made.input((1, 3, 4, 2))
    bounds = [made.ints([0, 1, 0, 1]), made.ints([1, 2, -1, 1])]
    out = made.op("SLICE", [x, *bounds], [made.same(x, (1, 2, 4, 1))], schema.SliceOptionsT())
    content = made.bytes(out)
    rows = samples(content, 3)
    got = native(tmp_path, [micro.emit(content)], [rows])[0]
    assert np.array_equal(got.reshape(3, 2, 4, 1), rows.reshape(3, 3, 4, 2)[:, 1:, :, 1:])
    assert np.array_equal(got, interpret([content], [rows])[0])


@pytest.mark.parametrize("bounds", [([0, 2, 0, 0], [1, 2, 4, 2]), ([0, -1, 0, 0], [1, 2, 4, 2]), ([0, 1], [1, 2])])
def test_slice_beyond_the_tensor_is_refused(bounds: tuple[list[int], list[int]]) -> None:
    made = Net(random.Random(0))
    x = made.input((1, 3, 4, 2))
    constants = [made.ints(values) for values in bounds]
    out = made.op("SLICE", [x, *constants], [made.same(x, (1, 2, 4, 2))], schema.SliceOptionsT())
    with pytest.raises(ValueError, match="SLICE .*The file is damaged"):
        micro.emit(made.bytes(out))


def test_depthwise_int16_with_a_bias_of_32_bits_is_refused() -> None:
    made = Net(random.Random(0), "int16")
    x = made.input((1, 3, 3, 2))
    weights, scales = made.weights((1, 3, 3, 2), 2, 3, per_channel=True)
    bias = made.bias(x, scales, 2, ("int32",))
    options = schema.DepthwiseConv2DOptionsT(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    out = made.op("DEPTHWISE_CONV_2D", [x, weights, bias], [made.output((1, 3, 3, 2))], options)
    with pytest.raises(ValueError, match="must be a constant of int64, is int32"):
        micro.emit(made.bytes(out))


def test_op_with_too_few_inputs_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    with pytest.raises(ValueError, match=r"ADD \(t1\): has fewer inputs or dimensions than it needs"):
        micro.emit(made.bytes(made.op("ADD", [x], [made.output((1, 4))], schema.AddOptionsT())))


def test_sigmoid_table_rises_from_a_half_to_one() -> None:
    table = arithmetic.sigmoid_table().astype(int)
    assert (np.diff(table) >= 0).all()
    # Lines between the points stay within 1.5 steps of the curve.
    x = np.linspace(0, 254.99, 5000)
    line = np.interp(x, np.arange(256), table)
    assert np.abs(line - 65536 / (1 + np.exp(-x / 24))).max() < 1.5
