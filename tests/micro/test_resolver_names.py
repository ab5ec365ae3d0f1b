"""Registration of ops for TensorFlow Lite Micro, against the methods that its header declares."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export
from tfkd.micro.lowering import OPS
from tfkd.micro.resolver_names import resolver_names

# All `Add...` methods for one op in micro_mutable_op_resolver.h of tflite-micro, commit 90b983c2.
_METHODS = """
Abs Add AddN ArgMax ArgMin AssignVariable AveragePool2D BatchMatMul BatchToSpaceNd BroadcastArgs BroadcastTo
CallOnce Cast Ceil CircularBuffer Concatenation Conv2D Cos CumSum Decode Delay DepthToSpace DepthwiseConv2D
Dequantize DetectionPostprocess Div DynamicUpdateSlice Elu EmbeddingLookup Energy Equal EthosU Exp ExpandDims
FftAutoScale Fill FilterBank FilterBankLog FilterBankSpectralSubtraction FilterBankSquareRoot Floor FloorDiv
FloorMod Framer FullyConnected Gather GatherNd Greater GreaterEqual HardSwish If Irfft L2Normalization
L2Pool2D LeakyRelu Less LessEqual Log LogSoftmax LogicalAnd LogicalNot LogicalOr Logistic MaxPool2D Maximum
Mean Minimum MirrorPad Mul Neg NotEqual OverlapAdd PCAN Pack Pad PadV2 Prelu Quantize ReadVariable ReduceAll
ReduceMax ReduceMin Relu Relu6 Reshape ResizeBilinear ResizeNearestNeighbor ReverseV2 Rfft Round Rsqrt
SelectV2 Shape Sin Slice Softmax SpaceToBatchNd SpaceToDepth Split SplitV Sqrt Square SquaredDifference
Squeeze Stacker StridedSlice Sub Sum Svdf Tanh Transpose TransposeConv UnidirectionalSequenceLSTM Unpack
VarHandle While Window ZerosLike
"""
_SIGNAL = ("Window", "FftAutoScale", "Rfft", "Energy", "FilterBank", "FilterBankSquareRoot", "PCAN", "FilterBankLog")


def test_each_method_of_the_header_registers_one_op() -> None:
    custom = [
        "CIRCULAR_BUFFER",
        "TFLM_DECODE",
        "TFLite_Detection_PostProcess",
        "ethos-u",
        "SignalStacker",
        "SignalDelay",
    ]
    custom += [f"Signal{name}" for name in (*_SIGNAL, "FilterBankSpectralSubtraction", "Framer", "Irfft", "OverlapAdd")]
    found = {name: resolver_names([name])[0] for name in custom}
    for op in vars(schema.BuiltinOperator):
        try:
            found[op] = resolver_names([op])[0]
        except ValueError:
            assert op.startswith("_") or op.replace("_", "").lower() not in {m.lower() for m in _METHODS.split()}
    assert sorted(found.values()) == sorted(f"Add{method}" for method in _METHODS.split())
    assert all(found[f"Signal{name}"] == f"Add{name}" for name in _SIGNAL)
    for op, method in found.items():  # words and capital letters differ, the letters do not
        letters = (
            op.removeprefix("Signal").removeprefix("TFLM_").removeprefix("TFLite_").replace("_", "").replace("-", "")
        )
        assert letters.lower() == method.removeprefix("Add").lower()


def test_all_ops_of_the_c_generator_but_tile_are_registered() -> None:
    assert set(OPS) - set(_known(OPS)) == {"TILE"}


def _known(ops: dict[str, object]) -> list[str]:
    known = []
    for op in ops:
        try:
            known += [op for _ in resolver_names([op])]
        except ValueError:
            continue
    return known


def test_model_with_an_op_that_tflite_micro_lacks_is_refused(tmp_path: Path) -> None:
    made = Net(random.Random(0))
    x = made.input((1, 2))
    out = made.op("TILE", [x, made.ints([1, 2])], [made.same(x, (1, 4))], schema.TileOptionsT())
    with pytest.raises(ValueError, match="Received: TILE"):
        export.write(TFLiteModel.load(made.bytes(out)), tmp_path / "out", format="tflm")
