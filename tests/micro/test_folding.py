"""Arithmetic on shapes that a converter writes for a model with an open batch becomes constants."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tests.random_graph import Net, samples
from tfkd import micro, targets
from tfkd.micro import folding, graph


def flattened(pixels: tuple[int, ...] = (1, 4, 3, 2)) -> bytes:
    """RELU, then a RESHAPE to [batch, the rest], the batch read from the shape, as TensorFlow writes Flatten."""
    made = Net(random.Random(3))
    x = made.op("RELU", [made.input(pixels)], [made.output(pixels)])
    shape = made.op("SHAPE", [x], [made.tensor((len(pixels),), "int32")], schema.ShapeOptionsT(outType=2))
    batch = made.op(
        "STRIDED_SLICE",
        [shape, made.ints([0]), made.ints([1]), made.ints([1])],
        [made.tensor((), "int32")],
        schema.StridedSliceOptionsT(shrinkAxisMask=1),
    )
    rest = made.ints(int(np.prod(pixels[1:])))
    packed = made.op("PACK", [batch, rest], [made.tensor((2,), "int32")], schema.PackOptionsT(valuesCount=2))
    flat = (pixels[0], int(np.prod(pixels[1:])))
    return made.bytes(made.op("RESHAPE", [x, packed], [made.same(x, flat)], schema.ReshapeOptionsT()))


def test_reshape_to_a_packed_shape_computes_the_bits_of_tflite_micro() -> None:
    content = flattened()
    program = micro.emit(content)
    assert [step.split()[0] for step in program.steps] == ["RELU"]
    x = samples(content, 4)
    expected = targets.get("tflm").run(content, x, latency=False).outputs[0]
    assert np.array_equal(targets.get("cortex-m4").run(content, x, latency=False).outputs[0], expected)


def folded(kind: str, operands: list[object], shape: tuple[int, ...], options: object = None) -> np.ndarray | None:
    """What an op of constants becomes; None where it stays."""
    made = Net(random.Random(0))
    x = made.input((1, 2))
    y = made.op("RELU", [x], [made.output((1, 2))])
    out = made.op(kind, [made.ints(values) for values in operands], [made.tensor(shape, "int32")], options)
    return folding.fold_shapes(graph.read(made.bytes(y))).tensors[out].data


@pytest.mark.parametrize(
    ("kind", "operands", "expected", "options"),
    [
        ("ADD", [[1, 2], [3, 4]], [4, 6], schema.AddOptionsT()),
        ("SUB", [[1, 2], 3], [-2, -1], schema.SubOptionsT()),
        ("MUL", [[1, 2], [3, 4]], [3, 8], schema.MulOptionsT()),
        ("FLOOR_DIV", [[7, -7], 2], [3, -4], schema.FloorDivOptionsT()),
        ("MAXIMUM", [[1, 5], 3], [3, 5], schema.MaximumMinimumOptionsT()),
        ("MINIMUM", [[1, 5], 3], [1, 3], schema.MaximumMinimumOptionsT()),
        ("CONCATENATION", [[1, 2], [3]], [1, 2, 3], schema.ConcatenationOptionsT(axis=0)),
        ("PACK", [1, 2], [1, 2], schema.PackOptionsT(valuesCount=2)),
        ("GATHER", [[5, 6, 7], [2, 0]], [7, 5], schema.GatherOptionsT()),
        ("RESHAPE", [[1, 2, 3, 4], [2, -1]], [[1, 2], [3, 4]], schema.ReshapeOptionsT()),
        ("SQUEEZE", [[[1, 2]]], [1, 2], schema.SqueezeOptionsT()),
        ("EXPAND_DIMS", [[1, 2], 0], [[1, 2]], schema.ExpandDimsOptionsT()),
        ("SLICE", [[5, 6, 7], [1], [-1]], [6, 7], schema.SliceOptionsT()),
        ("STRIDED_SLICE", [[5, 6, 7], [0], [0], [2]], [5, 7], schema.StridedSliceOptionsT(endMask=1)),
        ("REDUCE_PROD", [[2, 3, 4], [0]], 24, schema.ReducerOptionsT()),
        ("CAST", [[1, 2]], [1, 2], schema.CastOptionsT()),
    ],
)
def test_op_of_constants_becomes_its_value(kind: str, operands: list, expected: Any, options: object) -> None:
    result = folded(kind, operands, np.shape(expected), options)
    assert result is not None
    assert result.tolist() == expected
    assert folded(kind, operands, (7,), options) is None  # another shape than the file says


@pytest.mark.parametrize(
    ("kind", "operands", "shape", "options"),
    [
        ("FLOOR_DIV", [[7, 7], 0], (2,), schema.FloorDivOptionsT()),
        ("GATHER", [[5, 6, 7], [3]], (1,), schema.GatherOptionsT()),
        ("CONCATENATION", [[1, 2], [3]], (3,), schema.ConcatenationOptionsT(axis=4)),
        ("RESHAPE", [[1, 2, 3], [2, 2]], (2, 2), schema.ReshapeOptionsT()),
        ("STRIDED_SLICE", [[5, 6, 7], [0], [1], [0]], (1,), schema.StridedSliceOptionsT()),
        ("PACK", [1, 2], (2,), None),
    ],
)
def test_op_with_operands_that_do_not_fit_stays(kind: str, operands: list, shape: tuple, options: object) -> None:
    assert folded(kind, operands, shape, options) is None
