"""Models and names that the C generator refuses, and text from a file inside the generated C."""

from __future__ import annotations

import random

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net, net
from tfkd import micro


def test_emit_names_all_that_is_not_supported() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    first = made.op("FLOOR", [x], [made.output((1, 4))])
    last = made.op("CEIL", [first], [made.output((1, 4))])
    with pytest.raises(ValueError, match=r"(?s)FLOOR \(t1\): is not supported.*CEIL \(t2\): is not supported"):
        micro.emit(made.bytes(last))


def test_emit_op_without_its_options_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    with pytest.raises(ValueError, match=r"CONCATENATION \(t1\): has no option 'Axis'"):
        micro.emit(made.bytes(made.op("CONCATENATION", [x, x], [made.same(x, (1, 8))])))


def test_transposed_convolution_of_16_bits_with_a_bias_of_32_is_refused() -> None:
    made = Net(random.Random(0), "int16")
    x = made.input((1, 3, 3, 2))
    weights, scales = made.weights((2, 2, 2, 2), 2, 0, per_channel=True)
    inputs = [made.ints((1, 6, 6, 2)), weights, x, made.bias(x, scales, 2, ("int32",))]
    options = schema.TransposeConvOptionsT(strideH=2, strideW=2)
    with pytest.raises(ValueError, match=r"TRANSPOSE_CONV .*must be a constant of int64, is int32"):
        micro.emit(made.bytes(made.op("TRANSPOSE_CONV", inputs, [made.output((1, 6, 6, 2))], options)))


def test_convolution_of_a_constant_is_refused() -> None:
    """Nothing would write the constant into the arena, from which the kernel reads."""
    made = Net(random.Random(0))
    x = made.input((1, 4, 4, 2))
    constant = made.tensor((1, 4, 4, 2), "int8", np.ones((1, 4, 4, 2), "int8"), [0.1], [0])
    weights, scales = made.weights((2, 1, 1, 2), 2, 0, per_channel=False)
    options = schema.Conv2DOptionsT(strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    inputs = [constant, weights, made.bias(constant, scales, 2)]
    y = made.op("CONV_2D", inputs, [made.output((1, 4, 4, 2))], options)
    with pytest.raises(ValueError, match=r"CONV_2D .*must be computed from the model's inputs, is a constant"):
        micro.emit(made.bytes(made.op("ADD", [x, y], [made.output((1, 4, 4, 2))], schema.AddOptionsT())))


def test_emit_float_model_is_refused() -> None:
    made = Net(random.Random(0))
    x = made.tensor((1, 4), "float32")
    made.graph.inputs.append(x)
    with pytest.raises(ValueError, match="must be int8, int16, uint8, int32 or bool .* Received: 't0' of float32"):
        micro.emit(made.bytes(made.op("ABS", [x], [made.tensor((1, 4), "float32")])))


@pytest.mark.parametrize("name", ["Model", "a-b", "", "1x", 'x"; system("rm")'])
def test_emit_name_that_is_no_identifier_is_refused(name: str) -> None:
    with pytest.raises(ValueError, match="name must be a C identifier"):
        micro.emit(net(0), name=name)


def test_layer_name_cannot_leave_its_comment() -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    out = made.op("RELU", [x], [made.output((1, 4))])
    made.graph.tensors[out].name = b'*/ #error "out" \\\n\x00\xff'
    made.graph.tensors[x].name = b"*/ int main(void) { return 7; } /*"
    program = micro.emit(made.bytes(out))
    assert "*/ int main" not in program.files["model.h"]
    assert "*/ #error" not in program.files["model.c"]


def test_emit_names_what_is_open_empty_or_sparse() -> None:
    for shape, reason in (
        ((1, -1), r"'t1' must have a fixed shape. Received: \(1, -1\)"),
        ((1, 0), "must have values"),
    ):
        made = Net(random.Random(0))
        out = made.op("RELU", [made.input((1, 4))], [made.output(shape)])
        with pytest.raises(ValueError, match=reason):
            micro.emit(made.bytes(out))
    made = Net(random.Random(0))
    x = made.input((1, 4))
    made.graph.tensors[x].sparsity = schema.SparsityParametersT(traversalOrder=[0], blockMap=[], dimMetadata=[])
    with pytest.raises(ValueError, match="'t0' must be dense. Received: sparse storage"):
        micro.emit(made.bytes(made.op("RELU", [x], [made.output((1, 4))])))


@pytest.mark.parametrize(
    ("dtype", "remedy"), [("INT4", "without int4 layers"), ("FLOAT16", "--mode full_int8")], ids=["int4", "float16"]
)
def test_emit_names_constants_of_a_type_that_no_c_has(dtype: str, remedy: str) -> None:
    made = Net(random.Random(0))
    x = made.input((1, 4))
    weights, scales = made.weights((2, 4), 2, 0, per_channel=False)
    tensor = made.graph.tensors[weights]
    tensor.type = getattr(schema.TensorType, dtype)
    made.model.buffers[tensor.buffer].data = bytes(4 if dtype == "INT4" else 16)
    model = made.bytes(made.op("FULLY_CONNECTED", [x, weights, made.bias(x, scales, 2)], [made.output((1, 2))]))
    with pytest.raises(ValueError, match=f"'t1' must hold constants of .* Received: {dtype.lower()}.*{remedy}"):
        micro.emit(model)


def test_emit_names_custom_ops_and_vela() -> None:
    reasons = {
        b"Sort": r"no custom ops, .* Received: Sort\. .* in your own code\.$",
        b"TFLM_DECODE": r"Received: TFLM_DECODE\. .* Micro has kernels for them: `tfkd export-c --format tflm`",
        b"ethos-u": "Vela has compiled this file already",
    }
    for name, reason in reasons.items():
        made = Net(random.Random(0))
        out = made.op("CUSTOM", [made.input((1, 4))], [made.output((1, 4))])
        made.model.operatorCodes[0].customCode = name
        if name == b"Sort":  # ops of other compilers may have no input
            made.graph.operators[0].inputs = []
        with pytest.raises(ValueError, match=reason):
            micro.emit(made.bytes(out))
