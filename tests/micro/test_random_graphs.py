"""Generated C against TensorFlow Lite Micro's interpreter on random graphs, bit for bit, under sanitizers."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest

from tests.micro.damage import mutated
from tests.micro.execution import differing, interpret, native, run_damaged
from tests.random_graph import Net, net, samples
from tests.random_ops import MAKERS
from tfkd import micro
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro.graph import Graph, read
from tfkd.micro.lowering import OPS, lower
from tfkd.micro.lowering.layer import ANY_SHIFT, WIDE
from tfkd.micro.one_product import choose
from tfkd.micro.padding import fold_padding

pytestmark = pytest.mark.slow

_SAMPLES = 3
# The short form has the first graphs, and those of later seeds that have a rare combination of op, type and option.
_RARE = (227, 245, 284, 299, 303, 314, 344, 484, 499, 594, 794, 1127, 1375)
_SHORT = (*range(200), *_RARE)
# Options with few values: each value must occur.
_OPTIONS = ("Padding", "FusedActivationFunction", "AlignCorners", "HalfPixelCenters", "AdjX", "AdjY", "TimeMajor")
_ACTIVATIONS = {"none", "relu", "relu6", "relu_n1_to_1"}
_WITH_ACTIVATION = (
    "CONV_2D", "DEPTHWISE_CONV_2D", "FULLY_CONNECTED", "TRANSPOSE_CONV", "AVERAGE_POOL_2D", "MAX_POOL_2D", "ADD", "SUB",
    "MUL",
)  # fmt: skip
_WINDOWS = ("CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV", "AVERAGE_POOL_2D", "MAX_POOL_2D")
_RESIZES = ("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR")
# Flags of kernels/arithmetic.h and of single kernels, each of which selects other code. ANY_SHIFT (1) and WIDE (8) of
# the convolutions need scales and sums that random graphs do not have: see `extreme`.
_FLAGS = {
    "convolution": (2, 4, 16), "depthwise": (2, 4, 16, 32, 64), "fully_connected": (1, 2, 4), "products": (1, 2, 4),
    "transpose_convolution": (2, 4), "addition": (1, 2, 4), "addition_int16": (1, 2),
}  # fmt: skip


def check_bits(seeds: Iterable[int], folder: Path) -> list[bytes]:
    """Compares generated C with the interpreter; the models that the interpreter takes."""
    seeds = list(seeds)
    models = [net(seed) for seed in seeds]
    inputs = [samples(content, _SAMPLES, seed) for seed, content in zip(seeds, models, strict=True)]
    expected = interpret(models, inputs)
    taken = [i for i, rows in enumerate(expected) if rows.size]
    assert len(taken) >= 0.96 * len(seeds)
    programs = [micro.emit(models[i], name=f"n{i}") for i in taken]
    got = native(folder, programs, [inputs[i] for i in taken])
    assert not differing([seeds[i] for i in taken], got, [expected[i] for i in taken])
    return [models[i] for i in taken]


def test_random_graphs_compute_the_bits_of_tflite_micro(tmp_path: Path) -> None:
    graphs = [fold_padding(read(TFLiteModel.load(content))) for content in check_bits(_SHORT, tmp_path)]
    assert_each_op_occurs(graphs)
    assert_each_option_occurs(graphs)
    assert_each_flag_occurs(graphs)


@pytest.mark.campaign
@pytest.mark.parametrize("part", range(8))
def test_many_random_graphs_compute_the_bits_of_tflite_micro(part: int, tmp_path: Path) -> None:
    check_bits(range(part * 260, part * 260 + 260), tmp_path)


class Extreme(Net):
    """Convolutions with factors above 1/2, whose shifts have both signs, and weights of -128, whose sums are wide."""

    large_scales = False

    def weights(self, shape: tuple[int, ...], channels: int, axis: int, per_channel: bool) -> tuple[int, list[float]]:
        values = np.random.default_rng(self.random.getrandbits(32)).integers(-128, 128, shape).astype("int8")
        values.reshape(-1)[0] = -128
        scales = [self.scale(0.001, 3.0 if self.large_scales else 0.03) for _ in range(channels if per_channel else 1)]
        return self.tensor(shape, "int8", values, scales, [0] * len(scales), axis), scales


def extreme(seed: int) -> bytes:
    """A convolution, depthwise for some seeds, with or without large scales."""
    made = Extreme(random.Random(seed))
    made.large_scales = seed % 3 != 0
    return made.bytes(made.convolution(made.input((1, 6, 6, made.random.randint(1, 6)))))


def test_convolutions_of_extreme_scales_and_weights_compute_the_bits_of_tflite_micro(tmp_path: Path) -> None:
    models = [extreme(seed) for seed in range(30)]
    inputs = [samples(content, _SAMPLES, seed) for seed, content in enumerate(models)]
    expected = interpret(models, inputs)
    programs = [micro.emit(content, name=f"n{i}", size=i % 4 == 0) for i, content in enumerate(models)]
    assert not differing(list(range(30)), native(tmp_path, programs, inputs), expected)
    layers = [layer for content in models for layer in lower(read(TFLiteModel.load(content)))[0]]
    for kernel in ("convolution", "depthwise"):
        found = [layer.flags for layer in layers if layer.kernel == kernel]
        assert any(flags & ANY_SHIFT for flags in found), kernel
        assert any(flags & WIDE and not flags & ANY_SHIFT for flags in found), kernel


def assert_each_op_occurs(graphs: list[Graph]) -> None:
    found = {(op.kind, graph.tensors[op.outputs[0]].dtype) for graph in graphs for op in graph.ops}
    # TensorFlow Lite Micro has no TILE: test_states.py compares it with NumPy. Other ops are in test_random_ops.py and,
    # where they change states, in test_resources.py.
    elsewhere = {"TILE", "READ_VARIABLE", "ASSIGN_VARIABLE", "CIRCULAR_BUFFER", *MAKERS} - {"MEAN", "SUM"}
    expected = set(OPS) - elsewhere
    assert {kind for kind, _ in found} == expected
    int8_only = {"HARD_SWISH", "SVDF", "UNIDIRECTIONAL_SEQUENCE_LSTM", "RESIZE_BILINEAR", "PACK", "EXPAND_DIMS"}
    assert {kind for kind, dtype in found if dtype == "int16"} == expected - int8_only


def assert_each_option_occurs(graphs: list[Graph]) -> None:
    found = {
        (op.kind, name, op.options[name])
        for graph in graphs
        for op in graph.ops
        for name in _OPTIONS
        if name in op.options
    }
    expected = {(kind, "FusedActivationFunction", value) for kind in _WITH_ACTIVATION for value in _ACTIVATIONS}
    expected |= {(kind, "Padding", value) for kind in _WINDOWS for value in ("same", "valid")}
    switches = [(kind, name) for kind in _RESIZES for name in ("AlignCorners", "HalfPixelCenters")]
    switches += [("BATCH_MATMUL", "AdjX"), ("BATCH_MATMUL", "AdjY"), ("UNIDIRECTIONAL_SEQUENCE_LSTM", "TimeMajor")]
    expected |= {(*switch, value) for switch in switches for value in (False, True)}
    assert not expected - found


def assert_each_flag_occurs(graphs: list[Graph]) -> None:
    layers = choose([layer for graph in graphs for layer in lower(graph)[0]])
    for kernel, flags in _FLAGS.items():
        found = [layer.flags for layer in layers if layer.kernel == kernel]
        for flag in flags:
            assert any(value & flag for value in found), (kernel, flag)


def check_damaged(seeds: Iterable[int], folder: Path) -> tuple[int, int]:
    models = (mutated(net(seed), random.Random(seed)) for seed in seeds)
    return run_damaged(models, folder, every_second_streams=True)


def test_damaged_files_are_refused_or_make_programs_that_stay_in_their_arrays(tmp_path: Path) -> None:
    made, refused = check_damaged(range(300), tmp_path)
    assert made > 50
    assert refused > 75


@pytest.mark.campaign
def test_many_damaged_files_are_refused_or_make_programs_that_stay_in_their_arrays(tmp_path: Path) -> None:
    made, refused = check_damaged(range(1200), tmp_path)
    assert made > 200
    assert refused > 300
