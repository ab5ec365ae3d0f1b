"""Which ops accelerators take, by published lists and by Arm's compiler."""

import json
import random

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from typer.testing import CliRunner

from tests.random_graph import Net
from tfkd import cli, targets
from tfkd.conversion.converter import convert
from tfkd.conversion.model_editor import ModelEditor
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import InputError, ModelError
from tfkd.report import accelerators
from tfkd.targets import npu, vela

BUILTIN = {name for name, value in vars(schema.BuiltinOperator).items() if isinstance(value, int)}


@pytest.fixture(scope="module")
def broken_in_the_middle(tmp_path_factory):
    """Convolutions around an op that few accelerators take, in float32: two of them before it, one behind."""
    inputs = keras.Input((8, 8, 4), batch_size=1)
    x = keras.layers.Conv2D(4, 3, padding="same")(keras.layers.Conv2D(4, 3, padding="same")(inputs))
    x = keras.ops.cumsum(x, axis=1)
    model = keras.Model(inputs, keras.layers.Conv2D(4, 3, padding="same")(x))
    return convert(model, tmp_path_factory.mktemp("cumsum") / "cumsum.tflite", mode="float32")


def only(model, accelerator):
    (found,) = npu.estimate(model, [accelerator])
    return found


@pytest.mark.parametrize("name", npu.op_lists())
def test_list_names_ops_of_the_schema_and_its_source(name):
    found = npu.op_lists()[name]
    assert {*found.takes, *found.refuses, *found.limits} <= BUILTIN
    assert bool(found.takes) != bool(found.refuses)
    assert set(found.limits) <= set(found.takes)
    assert found.source.startswith("https://")
    assert "20" in found.date


@pytest.mark.parametrize("name", npu.defaults())
def test_int8_convolutions_run_on_each_accelerator(digits_int8, name):
    found = only(digits_int8, name)
    assert found.mac_share == 1
    assert found.first_break is None
    assert (found.cycles or 0) > 0 or name not in vela.ACCELERATORS
    assert found.to_json()["evidence"] == "estimated"


def test_float_model_has_a_remedy(broken_in_the_middle):
    for name in ("edgetpu", "ethos-u55-128"):
        found = only(broken_in_the_middle, name)
        assert found.mac_share == 0
        assert npu.remedy(found.first_break) == "Convert the model with --mode full_int8."


def test_graph_is_divided_as_the_runtime_does(broken_in_the_middle):
    ops = [op.name for op in broken_in_the_middle.graph.ops]
    assert ops == ["CONV_2D", "CONV_2D", "CUMSUM", "CONV_2D"]
    assert only(broken_in_the_middle, "gpu").mac_share == 1
    everywhere = only(broken_in_the_middle, "nnapi")  # takes the convolutions on both sides
    assert everywhere.first_break.op == "CUMSUM"
    assert everywhere.mac_share == 1
    taken = [True, True, False, True]
    assert npu._divided(broken_in_the_middle.graph, taken, "all") == {0, 1, 3}
    assert npu._divided(broken_in_the_middle.graph, taken, "first") == {0, 1}
    assert npu._divided(broken_in_the_middle.graph, [True, False, True, True], "largest") == {2, 3}


def test_branches_that_do_not_need_the_refused_op_stay_in_one_part():
    from tfkd.conversion.tflite_reader import OpInfo, TensorInfo, TFLiteGraph

    tensors = tuple(TensorInfo(str(i), (1,), "int8") for i in range(5))
    #   0 ─ A ─ 1 ─ B ─ 2 ─┐
    #           └── C ─ 3 ─┴ D ─ 4
    ops = (OpInfo("A", (0,), (1,)), OpInfo("B", (1,), (2,)), OpInfo("C", (1,), (3,)), OpInfo("D", (2, 3), (4,)))
    graph = TFLiteGraph(tensors, (0,) * 5, ops, (0,), (4,))
    assert npu._parts(graph, [True, False, True, True]) == [[0, 2], [1], [3]]


def test_types_and_axes_count(digits_int8):
    editor = ModelEditor(digits_int8.content)
    for tensor in editor.tensors:
        if tensor.type == schema.TensorType.INT8:
            tensor.type = schema.TensorType.INT16
    int16 = TFLiteModel.load(editor.pack())
    broken = only(int16, "gpu").first_break
    assert broken.reason.startswith("type int16")
    assert only(int16, "qualcomm").first_break is None


def test_state_of_an_lstm_may_be_int16_on_the_edge_tpu(digits_int8):
    editor = ModelEditor(digits_int8.content)
    last = editor.graph.operators[-1]
    editor.tensors[last.inputs[0]].type = schema.TensorType.INT16
    editor.graph.operators = [last]
    refused = only(TFLiteModel.load(editor.pack()), "edgetpu").first_break
    assert refused.reason.startswith("type int16")
    editor.model.operatorCodes[last.opcodeIndex].builtinCode = schema.BuiltinOperator.UNIDIRECTIONAL_SEQUENCE_LSTM
    found = only(TFLiteModel.load(editor.pack()), "edgetpu")
    assert [op.op for op in found.ops] == ["UNIDIRECTIONAL_SEQUENCE_LSTM"]
    assert found.first_break is None


def test_damaged_model_and_unknown_accelerator_are_errors(digits_int8):
    with pytest.raises(InputError, match=r"accelerator must be one of .* Did you mean 'edgetpu'"):
        npu.estimate(digits_int8, ["edge_tpu"])
    with pytest.raises(ModelError):
        npu.estimate(b"TFL3" * 8)


def test_without_the_compiler_the_answer_is_unknown(digits_int8, monkeypatch):
    monkeypatch.setattr("sys.modules", {**__import__("sys").modules, "ethosu": None})
    found = only(digits_int8, "ethos-u65-256")
    assert found.ops is None
    assert found.mac_share is None
    assert "pip install" in accelerators.table([found.to_json()])


def test_command_prints_a_table_and_json(broken_in_the_middle):
    arguments = ["npu", str(broken_in_the_middle.path), "--accelerator", "gpu", "--accelerator", "mediatek"]
    text = CliRunner().invoke(cli.app, arguments)
    lines = [line.split() for line in text.stdout.splitlines()]
    assert lines[0] == ["estimated", "ops", "GPU", "delegate", "MediaTek"]
    assert ["CONV_2D", "3", "yes", "yes"] in lines
    assert ["CUMSUM", "1", "yes", "no"] in lines
    found = json.loads(CliRunner().invoke(cli.app, [*arguments, "--json"]).stdout)
    assert [one["mac_share"] for one in found] == [1, 1]
    assert found[1]["first_break"]["op"] == "CUMSUM"
    assert np.sum([op["macs"] for op in found[0]["ops"]]) == broken_in_the_middle.macs


def test_gpu_takes_some_custom_ops():
    """Of MediaPipe's segmentation of hair, for example."""
    made = Net(random.Random(0))
    out = made.op("CUSTOM", [made.input((1, 4))], [made.output((1, 4))])
    for name, taken in ((b"MaxUnpooling2D", [True, False, False]), (b"MyOp", [False, False, False])):
        made.model.operatorCodes[0].customCode = name
        found = npu.estimate(made.bytes(out), ["gpu", "nnapi", "google-tensor"])
        assert [one.ops[0].taken for one in found] == taken


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        (b"edgetpu-custom-op", "edgetpu_compiler has compiled this file .* an Edge TPU .* edgetpu_compiler was given"),
        (b"ethos-u", "Vela has compiled this file .* Vela was given"),
    ],
)
def test_file_that_was_compiled_for_an_accelerator_is_named_as_such(code, reason):
    made = Net(random.Random(0))
    out = made.op("CUSTOM", [made.input((1, 4))], [made.output((1, 4))])
    made.model.operatorCodes[0].customCode = code
    content = made.bytes(out)
    with pytest.raises(ModelError, match=reason):
        npu.estimate(content)
    with pytest.raises(ModelError, match=reason):
        targets.get("host").run(content, np.zeros((1, 4), "int8"), latency=False)
