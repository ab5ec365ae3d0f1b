"""Damaged .tflite files raise an error of tfkd and never crash or hang this process."""

import contextlib
import copy

import flatbuffers
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import layer_errors
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import DeviceError, InputError, ModelError
from tfkd.validation import golden, op_changes, origin

pytestmark = pytest.mark.slow

INVALID = (-1, 0, 1, 7, 255, 2**15, 2**31 - 1, -(2**31))


def damaged(tree, rng):
    """A file with one invalid index, shape, type, quantization or option."""
    tree = copy.deepcopy(tree)
    graph = tree.subgraphs[0]
    op, tensor = rng.choice(graph.operators), rng.choice(graph.tensors)
    invalid = int(rng.choice(INVALID))

    def corrupted(values):
        values = [int(value) for value in values]
        values[rng.integers(len(values))] = invalid
        return np.array(values, np.int32)

    edits = [
        lambda: setattr(op, "inputs", corrupted(op.inputs)),
        lambda: setattr(op, "inputs", op.inputs[:-1]),
        lambda: setattr(op, "outputs", corrupted(op.outputs)),
        lambda: setattr(op, "outputs", np.array([], np.int32)),
        lambda: setattr(op, "opcodeIndex", abs(invalid)),
        lambda: setattr(op, "builtinOptions", None),
        lambda: setattr(tensor, "shape", corrupted(tensor.shape)),
        lambda: setattr(tensor, "shape", np.array([], np.int32)),
        lambda: setattr(tensor, "type", int(rng.integers(0, 20))),
        lambda: setattr(tensor, "buffer", abs(invalid)),
        lambda: setattr(tensor, "quantization", None),
        lambda: setattr(
            tensor.quantization, "scale", np.array([rng.choice([0, -1, np.nan, np.inf, 1e30])], np.float32)
        ),
        lambda: setattr(tensor.quantization, "zeroPoint", np.array([invalid], np.int64)),
        lambda: setattr(graph, "inputs", corrupted(graph.inputs)),
        lambda: setattr(graph, "outputs", corrupted(graph.outputs)),
        lambda: setattr(graph, "operators", graph.operators[::-1]),
        lambda: setattr(graph, "operators", []),
        lambda: setattr(rng.choice(tree.operatorCodes), "builtinCode", abs(invalid) % 300),
        lambda: setattr(rng.choice(tree.buffers), "data", np.zeros(abs(invalid) % 100, np.uint8)),
    ]
    edits[rng.integers(len(edits))]()
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(tree.Pack(builder), b"TFL3")
    return bytes(builder.Output())


@pytest.fixture(scope="module", params=[160, pytest.param(600, marks=pytest.mark.campaign)])
def mutations(request, converted):
    """Damaged files, seeded."""
    rng = np.random.default_rng(0)
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(converted("full_int8").content, 0))
    files: list[bytes] = []
    while len(files) < request.param:
        try:
            files.append(damaged(tree, rng))
        except (TypeError, AttributeError, ValueError, OverflowError):
            continue  # the edit does not apply to this op or tensor, or cannot be stored
    return files


def test_structural_damage_is_read_as_a_model_or_refused(mutations, converted, splits):
    """Everything that reads a file without running it: the reader, op names, the comparison of ops."""
    sound, refusals = converted("full_int8"), []
    for content in mutations:
        try:
            model = TFLiteModel.load(content)
            list(op_changes.changes(sound, model))
            model.to_json()
            with contextlib.suppress(ModelError):  # most of them differ from the Keras model
                origin.check(model, converted("float32"), {}, "student")
        except ModelError as error:
            refusals.append(str(error))
    assert all("must be a .tflite file" in refusal or "is damaged" in refusal for refusal in refusals)
    assert 0.1 < len(refusals) / len(mutations) < 0.9


def test_structural_damage_crashes_only_the_child(mutations, converted, splits):
    """Everything that runs a file returns a result or raises an error of tfkd."""
    sound = converted("float32")
    for content in mutations[::20]:
        for work in (
            lambda content=content: layer_errors.measure(
                TFLiteModel.load(content), sound, Samples((splits.val.x[:2],)), timeout_s=20
            ),
            lambda content=content: golden.record(
                TFLiteModel.load(content), splits.test, samples=1, target="host:plain"
            ),
        ):
            with contextlib.suppress(InputError, DeviceError):
                assert work() is not None


def test_damage_that_crashes_the_runtime_is_an_error(converted, splits):
    # A pooling with stride 0 divides by 0, which kills the process.
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(converted("float32").content, 0))
    for op in tree.subgraphs[0].operators:
        if isinstance(op.builtinOptions, schema.Pool2DOptionsT):
            op.builtinOptions.strideW = op.builtinOptions.strideH = 0
    builder = flatbuffers.Builder(1 << 16)
    builder.Finish(tree.Pack(builder), b"TFL3")
    model = TFLiteModel.load(bytes(builder.Output()))
    with pytest.raises((ModelError, DeviceError), match=r"op by op|cannot run the model"):
        layer_errors.measure(model, converted("float32"), Samples((splits.val.x[:1],)))
