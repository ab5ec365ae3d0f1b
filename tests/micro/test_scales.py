"""Scales that no calibrated model of tfkd has, but files of other converters: tiny, 0, or of a bias on another axis."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import SANITIZED
from tests.micro.test_export import run_selftest
from tests.random_graph import Net, samples
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export


@pytest.mark.parametrize("kind", ["ADD", "SUB"])
@pytest.mark.parametrize("small", [0, 1])
def test_addition_of_an_operand_that_is_shifted_by_31_bits(kind: str, small: int, tmp_path: Path) -> None:
    made = Net(random.Random(0))
    scales = [0.75, 0.75]
    scales[small] = 2 * 0.75 * 1.5 * 2.0**-32  # its multiplier has a right shift of 31
    for scale in scales:
        made.graph.inputs.append(made.tensor((1, 256), scales=[scale], zero_points=[0]))
    out = made.tensor((1, 256), scales=[1.0], zero_points=[0])
    options = schema.AddOptionsT() if kind == "ADD" else schema.SubOptionsT()
    model = made.bytes(made.op(kind, list(made.graph.inputs), [out], options))
    every = np.arange(-128, 128).astype("int8")
    inputs = [np.stack([every] * 3), np.stack([every, every[::-1], np.roll(every, 77)])]
    report = export.write(TFLiteModel(model), tmp_path / "out", inputs=inputs, oracle=targets.get("tflm"))
    assert report["golden_source"] == "tflm"
    assert run_selftest(tmp_path / "out", *SANITIZED) == 0


def convolution(kind: str) -> tuple[Net, int, int, int]:
    """A convolution with per-channel scales; the indices of its weights, its bias and its output."""
    made = Net(random.Random(4))
    x = made.input((1, 5, 5, 4))
    shape, axis = ((4, 3, 3, 4), 0) if kind == "CONV_2D" else ((1, 3, 3, 4), 3)
    weights, scales = made.weights(shape, 4, axis, per_channel=True)
    bias, out = made.bias(x, scales, 4), made.output((1, 5, 5, 4))
    options = (schema.Conv2DOptionsT if kind == "CONV_2D" else schema.DepthwiseConv2DOptionsT)(
        strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1
    )
    if kind != "CONV_2D":
        options.depthMultiplier = 1
    return made, weights, bias, made.op(kind, [x, weights, bias], [out], options)


@pytest.mark.parametrize("kind", ["CONV_2D", "DEPTHWISE_CONV_2D"])
def test_tiny_and_zero_scales_of_weights_and_the_axis_of_a_bias(kind: str) -> None:
    made, weights, bias, out = convolution(kind)
    made.graph.tensors[weights].quantization.scale[:3] = [0.0, 1e-30, 1e-12]
    made.graph.tensors[bias].quantization.quantizedDimension = 3
    buffer = made.model.buffers[made.graph.tensors[bias].buffer]
    values = np.frombuffer(bytes(buffer.data), "<i4").copy()
    values[:3] = [2**31 - 1, -(2**31) + 1, 2**31 - 1]  # as converters clip what such a scale makes of a bias
    buffer.data = np.frombuffer(values.tobytes(), "u1")
    content = made.bytes(out)
    x = samples(content, 6)
    expected = targets.get("tflm").run(content, x, latency=False).outputs[0]
    assert np.array_equal(targets.get("cortex-m4").run(content, x, latency=False).outputs[0], expected)
    assert len(np.unique(expected[..., 3])) > 1


def test_weight_scales_on_another_axis_are_refused() -> None:
    made, weights, _, out = convolution("CONV_2D")
    made.graph.tensors[weights].quantization.quantizedDimension = 3
    with pytest.raises(ValueError, match="one for each output channel on axis 0; they have 4 on axis 3"):
        micro.emit(made.bytes(out))


@pytest.mark.parametrize("scale", [0.0, 1e-30, 1e30])
def test_scale_of_an_activation_that_no_multiplier_expresses_is_refused(scale: float) -> None:
    made = Net(random.Random(0))
    inner = made.op("RELU", [made.input((1, 4))], [made.tensor((1, 4), scales=[scale], zero_points=[0])])
    with pytest.raises(ValueError, match=r"scale \S+ of 't1' is outside the supported range"):
        micro.emit(made.bytes(made.op("RELU", [inner], [made.output((1, 4))])))


def test_input_with_a_scale_of_0_is_damaged() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    made.graph.tensors[x].quantization.scale[:] = 0
    with pytest.raises(ValueError, match="damaged: 't0' with a scale of 0"):
        TFLiteModel.load(made.bytes(made.op("RELU", [x], [made.output((1, 4))])))
