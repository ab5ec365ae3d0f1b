"""Models that compute in uint8: the C computes the bits of LiteRT's reference kernels."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import differing, native
from tests.micro.test_export import run_selftest
from tests.random_graph import Net, samples
from tfkd import micro, targets
from tfkd._internal import isolation
from tfkd.conversion import litert
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export

_PRODUCTS = ("CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED")


def as_uint8(made: Net, *outputs: int) -> bytes:
    """A model of int8 as one of uint8, with one scale and a random zero point for each tensor of weights."""
    names = {code: name for name, code in vars(schema.BuiltinOperator).items() if isinstance(code, int)}
    weights = {}
    for op in made.graph.operators:
        if names[made.model.operatorCodes[op.opcodeIndex].builtinCode] in _PRODUCTS:
            weights[op.inputs[1]] = op.inputs[0], op.inputs[2]
    for index, tensor in enumerate(made.graph.tensors):
        if tensor.type != schema.TensorType.INT8:
            continue
        tensor.type = schema.TensorType.UINT8
        if tensor.buffer:
            buffer = made.model.buffers[tensor.buffer]
            buffer.data = np.asarray(buffer.data) ^ np.uint8(128)
        steps = tensor.quantization
        if index in weights:
            source, bias = weights[index]
            steps.scale, steps.zeroPoint = steps.scale[:1], np.array([made.random.randint(90, 160)], "i8")
            steps.quantizedDimension = 0
            if bias >= 0:
                product = np.float32(made.steps(source)[0]) * np.float32(steps.scale[0])
                made.graph.tensors[bias].quantization = schema.QuantizationParametersT(
                    scale=np.array([product], "f4"), zeroPoint=np.array([0], "i8")
                )
        else:
            steps.zeroPoint = np.asarray(steps.zeroPoint) + 128
    return made.bytes(*outputs)


def unsigned_net(seed: int) -> bytes:
    """A random graph of uint8 of one to four ops, without FULLY_CONNECTED, which LiteRT rounds otherwise."""
    made = Net(random.Random(seed))
    x = made.input((1, made.random.randint(1, 9), made.random.randint(1, 9), made.random.randint(1, 8)))
    for _ in range(made.random.randint(1, 4)):
        kinds = [made.convolution] * 3 + [made.pool] * 2 if len(made.shape(x)) == 4 else []
        kinds += [made.binary, made.softmax, made.shuffle, made.unary]
        x = made.random.choice(kinds)(x)
    return as_uint8(made, x)


def litert_outputs(contents: list[bytes], inputs: list[np.ndarray]) -> list[np.ndarray]:  # in a child process
    """LiteRT's outputs [N, values]; empty for a model with an op or options that it refuses."""
    found = []
    for content, x in zip(contents, inputs, strict=True):
        try:
            (outputs,) = litert.run(content, "reference", [x], restart=False)["outputs"]
        except (RuntimeError, ValueError):
            outputs = np.zeros(0, "uint8")
        found.append(outputs.reshape(len(x), -1))
    return found


@pytest.mark.parametrize("count", [40, pytest.param(400, marks=pytest.mark.campaign)])
def test_random_graphs_of_uint8_compute_the_bits_of_litert(count: int, tmp_path: Path) -> None:
    contents = [unsigned_net(seed) for seed in range(8_000, 8_000 + count)]
    inputs = [samples(content, 3) for content in contents]
    expected = isolation.run(
        "tests.micro.test_unsigned:litert_outputs", contents=contents, inputs=inputs, timeout_s=300, what="uint8"
    )
    taken = [i for i, outputs in enumerate(expected) if outputs.size and contains_uint8_ops(contents[i])]
    assert len(taken) > 0.9 * count
    programs = [micro.emit(contents[i], name=f"n{i}", stream=i % 3 == 0, size=i % 2 == 0) for i in taken]
    got = native(tmp_path, programs, [inputs[i] for i in taken])
    assert not differing(taken, got, [expected[i] for i in taken])


def contains_uint8_ops(content: bytes) -> bool:
    """Whether a model has another op than the QUANTIZE from uint8 to uint8, which is refused where it is alone."""
    return set(TFLiteModel(content).ops) != {"QUANTIZE"}


def dense() -> Net:
    """FULLY_CONNECTED, whose output is the last tensor."""
    made = Net(random.Random(6))
    x = made.input((1, 20))
    weights, scales = made.weights((9, 20), 9, 0, per_channel=False)
    inputs = [x, weights, made.bias(x, scales, 9)]
    made.op("FULLY_CONNECTED", inputs, [made.output((1, 9))], schema.FullyConnectedOptionsT())
    return made


def test_int8_weights_with_a_zero_point_compute_the_bits_of_tflite_micro() -> None:
    made = dense()
    made.graph.tensors[1].quantization.zeroPoint = np.array([-37], "i8")
    content = made.bytes(3)
    x = samples(content, 20)
    expected = targets.get("tflm").run(content, x, latency=False).outputs[0]
    assert np.array_equal(targets.get("cortex-m4").run(content, x, latency=False).outputs[0], expected)
    made.graph.tensors[1].quantization.zeroPoint = np.array([0], "i8")
    assert (targets.get("tflm").run(made.bytes(3), x, latency=False).outputs[0] != expected).any()


def test_fully_connected_of_uint8_is_within_a_step_of_litert() -> None:
    content = as_uint8(dense(), 3)
    x = samples(content, 60)
    expected = targets.get("host:reference").run(content, x, latency=False).outputs[0]
    got = targets.get("cortex-m4").run(content, x, latency=False).outputs[0]
    assert got.dtype == expected.dtype == np.uint8
    assert np.abs(got.astype(int) - expected).max() <= 1
    assert (got == expected).mean() > 0.98


def test_selftest_of_a_uint8_model_comes_from_a_core(tmp_path: Path) -> None:
    model = TFLiteModel(unsigned_net(8_003))
    assert {"CONV_2D", "DEPTHWISE_CONV_2D"} & set(model.ops)
    report = export.write(model, tmp_path / "out", oracle=[targets.get("tflm"), targets.get("cortex-m4")])
    assert report["golden_source"] == "cortex-m4"
    assert "not inside a model, as TensorFlow 1 quantized models" in report["golden_refusals"]["tflm"]
    assert run_selftest(tmp_path / "out") == 0


def test_op_that_uint8_computes_otherwise_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 3, 3, 2))
    y = made.op(
        "RESIZE_BILINEAR", [x, made.ints([6, 6])], [made.same(x, (1, 6, 6, 2))], schema.ResizeBilinearOptionsT()
    )
    with pytest.raises(ValueError, match=r"ops of uint8 must be .* Received: RESIZE_BILINEAR \(t2\)"):
        micro.emit(as_uint8(made, y))
