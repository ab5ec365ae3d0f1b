"""Layers that run row by row: the bits of TensorFlow Lite Micro's interpreter, in a smaller arena."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import system_packages
from ai_edge_litert import schema_py_generated as schema

from tests.micro.execution import differing, interpret, native
from tests.micro.test_export import run_selftest
from tests.random_graph import Net, samples
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import export, streaming
from tfkd.micro.elimination import eliminate
from tfkd.micro.emitter import emit
from tfkd.micro.graph import read
from tfkd.micro.lowering import lower
from tfkd.micro.merging import merge
from tfkd.micro.padding import fold_padding
from tfkd.micro.placement import Chain, Window
from tfkd.targets.microcontrollers import CORES

MISSING_QEMU = system_packages.skip_reason("qemu-system-arm")
needs_qemu = pytest.mark.skipif(MISSING_QEMU is not None, reason=str(MISSING_QEMU))

pytestmark = pytest.mark.slow


def chain(seed: int) -> bytes:
    """A random graph of two to six convolutions, pools and others; often one more op reads a tensor between them."""
    made = Net(random.Random(seed), kernel=5)
    x = made.input((1, made.random.randint(8, 28), made.random.randint(1, 14), made.random.randint(1, 6)))
    between = [x]
    for _ in range(made.random.randint(2, 6)):
        if made.random.random() < 0.15:
            x = padded(made, x)
        kinds = [made.convolution] * 8 + [made.pool] * 2 + [made.unary, made.binary]
        x = made.random.choice(kinds)(x)
        between.append(x)
    if made.random.random() < 0.5:
        x = joined(made, x, made.random.choice(between))
    return made.bytes(x)


def padded(made: Net, x: int) -> int:
    amounts = [(0, 0), *((made.random.randint(0, 2), made.random.randint(0, 2)) for _ in range(2)), (0, 0)]
    shape = tuple(d + a + b for d, (a, b) in zip(made.shape(x), amounts, strict=True))
    return made.op("PAD", [x, made.ints(amounts)], [made.same(x, shape)], schema.PadOptionsT())


def joined(made: Net, first: int, second: int) -> int:
    """The values of two tensors concatenated, so that both are outputs."""
    flat = []
    for x in (first, second):
        shape = made.shape(x)
        x = made.op("QUANTIZE", [x], [made.tensor(shape, scales=[0.1], zero_points=[3])])
        size = (1, int(np.prod(shape)))
        options = schema.ReshapeOptionsT(newShape=size)
        flat.append(made.op("RESHAPE", [x, made.ints(size)], [made.same(x, size)], options))
    out = made.same(flat[0], (1, made.shape(flat[0])[1] + made.shape(flat[1])[1]))
    return made.op("CONCATENATION", flat, [out], schema.ConcatenationOptionsT(axis=1))


def streamed(content: bytes, name: str, seed: int) -> tuple[micro.Program, tuple[Chain, ...]]:
    """A program with random chains, whether they save memory or not; every third program for size."""
    graph = fold_padding(read(TFLiteModel.load(content)))
    graph, elimination = eliminate(graph, lower(graph)[0])
    layers, aliases = lower(graph)
    numbers, chains, after = random.Random(seed), [], 0
    found = [one for ending in streaming.options(graph, layers, aliases) for one, _ in ending]
    numbers.shuffle(found)
    found.sort(key=lambda one: (one.first, -len(one.windows) if seed % 2 else 0))
    for one in found:
        if one.first >= after and numbers.random() < 0.6:
            chains.append(one)
            after = one.last + 1
    merged = merge(layers) if seed % 3 == 0 else layers
    return emit(graph, merged, aliases, name, elimination, chains), tuple(chains)


@pytest.mark.parametrize(
    "seeds", [range(40), *(pytest.param(range(at, at + 100), marks=pytest.mark.campaign) for at in (0, 100))]
)
def test_random_chains_compute_the_bits_of_tflite_micro(seeds: range, tmp_path: Path) -> None:
    models = [chain(seed) for seed in seeds]
    inputs = [samples(content, 2, seed) for seed, content in zip(seeds, models, strict=True)]
    expected = interpret(models, inputs)
    programs, used, chains = [], [], []
    for seed, content, rows in zip(seeds, models, expected, strict=True):
        if rows.size:
            program, found = streamed(content, f"n{seed}", seed)
            programs.append(program), used.append(seed - seeds[0]), chains.extend(found)
    assert len(used) >= 0.9 * len(seeds)
    assert sum(len(one.windows) > 1 for one in chains) > 0.3 * len(seeds)
    assert sum(len(one.windows) > 2 for one in chains) > 0.08 * len(seeds)
    assert sum(one.lag is not None for one in chains) > 0.3 * len(seeds)
    got = native(tmp_path, programs, [inputs[i] for i in used])
    assert not differing([seeds[i] for i in used], got, [expected[i] for i in used])


@pytest.fixture(scope="module")
def smaller() -> dict[str, TFLiteModel]:
    """For each core a model that takes a far smaller arena row by row."""
    found: list[TFLiteModel] = []
    for seed in range(500, 532):
        model = TFLiteModel.load(chain(seed))
        whole, few = micro.emit(model), micro.emit(model, stream=True)
        assert few.arena_bytes <= whole.arena_bytes
        if few.arena_bytes < 0.8 * whole.arena_bytes:
            found.append(model)
    assert len(found) >= len(CORES)
    return dict(zip(CORES, found, strict=False))


def computes_the_same_bits(model: TFLiteModel, core: str) -> bool:
    """Whether a core gives the outputs of TensorFlow Lite Micro."""
    expected = targets.get("tflm").run(model, samples(model.content, 3), latency=False).outputs[0]
    run = targets.get(core, stream=True).run(model, samples(model.content, 3), latency=False)
    return np.array_equal(run.outputs[0], expected)


@pytest.mark.parametrize(
    "core", [pytest.param(name, marks=needs_qemu if core.emulator == "qemu" else ()) for name, core in CORES.items()]
)
def test_smallest_arena_computes_the_bits_of_tflite_micro(core: str, smaller: dict[str, TFLiteModel]) -> None:
    assert computes_the_same_bits(smaller[core], core)


@pytest.mark.parametrize("core", ["cortex-m0plus", "cortex-m33"])
def test_pool_by_rows_computes_the_bits_of_tflite_micro(core: str) -> None:
    pooled = TFLiteModel.load(chain(747))
    assert any("AVERAGE_POOL" in step and "by rows" in step for step in micro.emit(pooled, stream=True).steps)
    assert computes_the_same_bits(pooled, core)


@pytest.fixture(scope="module")
def mobile() -> TFLiteModel:
    """A small MobileNet for 32x32 images with random weights."""
    made = Net(random.Random(7))
    x = layer(made, made.input((1, 32, 32, 3)), 8, 3, 2)
    for channels, stride in ((16, 1), (32, 2), (32, 1), (64, 2), (64, 1)):
        x = layer(made, layer(made, x, 0, 3, stride), channels, 1, 1)
    return TFLiteModel.load(made.bytes(x))


def layer(made: Net, x: int, channels: int, kernel: int, stride: int) -> int:
    """A convolution with ReLU, depthwise where `channels` is 0."""
    _, h, w, c = made.shape(x)
    shape = (channels, kernel, kernel, c) if channels else (1, kernel, kernel, c)
    count = channels or c
    weights, scales = made.weights(shape, count, 0 if channels else 3, per_channel=True)
    options = schema.Conv2DOptionsT() if channels else schema.DepthwiseConv2DOptionsT(depthMultiplier=1)
    options.strideH = options.strideW = stride
    options.dilationHFactor = options.dilationWFactor = 1
    options.fusedActivationFunction = schema.ActivationFunctionType.RELU
    step = made.steps(x)[0] * float(np.mean(scales)) * 40 * (c if channels else 1) ** 0.5 * kernel
    out = made.tensor((1, -(-h // stride), -(-w // stride), count), scales=[step], zero_points=[-128])
    kind = "CONV_2D" if channels else "DEPTHWISE_CONV_2D"
    return made.op(kind, [x, weights, made.bias(x, scales, count)], [out], options)


def test_mobilenet_takes_far_less_ram_and_computes_the_same_bits(mobile: TFLiteModel) -> None:
    x = np.random.default_rng(1).integers(-128, 128, (2, 32, 32, 3)).astype("int8")
    expected = targets.get("tflm").run(mobile, x, latency=False).outputs[0]
    assert len(np.unique(expected)) > 100
    assert not np.array_equal(expected[0], expected[1])
    whole, few = (targets.get(f"cortex-m4,stream={stream}").run(mobile, x) for stream in (0, 1))
    assert np.array_equal(whole.outputs[0], expected)
    assert np.array_equal(few.outputs[0], expected)
    assert few.memory.arena_bytes < 0.65 * whole.memory.arena_bytes
    assert few.memory.ram_bytes < 0.7 * whole.memory.ram_bytes
    assert few.instructions < 1.15 * whole.instructions
    assert (whole.target, few.target) == ("cortex-m4", "cortex-m4,stream=1")


@pytest.mark.parametrize("size", [False, True])
def test_export_by_rows_passes_its_selftest(size: bool, mobile: TFLiteModel, tmp_path: Path) -> None:
    report = export.write(mobile, tmp_path / "out", size=size, stream=True, oracle=targets.get("tflm"))
    assert report["arena_bytes"] < report["least_live_bytes"]
    assert sum("by rows" in step for step in report["layers"]) >= 2
    assert run_selftest(tmp_path / "out") == 0


def test_stream_with_format_tflm_is_refused(mobile: TFLiteModel, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="stream needs format c"):
        export.write(mobile, tmp_path / "out", format="tflm", stream=True)


def test_two_convolutions_keep_three_rows() -> None:
    """Two convolutions of 3x3 over 8 rows, row by row: of the tensor between them, rows y - 1 to y + 1 are kept."""
    window = Window(stride=1, reach=3, pad=1, height=8, out_height=8, row=10, out_row=10)
    kept, most, calls, lag = streaming.walk([window, window], 1)
    assert kept[1] == 3
    assert most == [2, 1]  # the first row needs two of them, each later row one more
    assert calls == 8 + 7
    # After output row y, the first layer has computed rows up to y + 1 and reads on from input row y + 1.
    assert lag == 0
    # A single layer still reads input row y - 1 while it writes row y.
    assert streaming.walk([window], 1)[3] == 20
