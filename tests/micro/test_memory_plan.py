"""The memory plan: buffers that live together do not overlap, and its size is close to the lower bound."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

import tfkd
from tests.random_graph import Net
from tfkd import micro
from tfkd.micro import memory_plan


def test_memory_plan_keeps_what_lives_together_apart() -> None:
    numbers = random.Random(1)
    for _ in range(50):
        buffers = []
        for i in range(numbers.randint(1, 20)):
            first = numbers.randint(-1, 15)
            buffers.append(memory_plan.Buffer(str(i), numbers.randint(1, 500), first, first + numbers.randint(0, 6)))
        plan = memory_plan.plan(buffers)
        assert plan.bytes >= plan.lower_bound
        for i, (a, x) in enumerate(zip(plan.buffers, plan.offsets, strict=True)):
            for b, y in list(zip(plan.buffers, plan.offsets, strict=True))[:i]:
                assert not a.meets(b) or x + a.bytes <= y or y + b.bytes <= x


def test_memory_plan_lets_an_output_overwrite_what_was_read() -> None:
    numbers = random.Random(2)
    for _ in range(200):
        buffers, overlaps = [memory_plan.Buffer("0", numbers.randint(1, 500), -1, 0)], {}
        for i in range(1, numbers.randint(2, 12)):
            buffers.append(memory_plan.Buffer(str(i), numbers.randint(1, 500), i - 1, i))
            if numbers.random() < 0.7:
                overlaps[i, i - 1] = 4 * numbers.randint(0, 150)
        buffers += [memory_plan.Buffer("beside", numbers.randint(1, 300), 1, 4) for _ in range(numbers.randint(0, 3))]
        plan = memory_plan.plan(buffers, overlaps)
        assert plan.bytes >= plan.lower_bound
        for i, (a, x) in enumerate(zip(plan.buffers, plan.offsets, strict=True)):
            for j, (b, y) in enumerate(zip(plan.buffers, plan.offsets, strict=True)):
                apart = not a.meets(b) or x + a.bytes <= y or y + b.bytes <= x
                if (i, j) in overlaps:
                    assert apart or x + overlaps[i, j] <= y
                elif i != j and (j, i) not in overlaps:
                    assert apart


def test_memory_plan_shares_all_but_the_lag() -> None:
    buffers = [memory_plan.Buffer("in", 100, -1, 0), memory_plan.Buffer("out", 100, 0, 1)]
    assert memory_plan.plan(buffers).bytes == 200
    plan = memory_plan.plan(buffers, {(1, 0): 12})
    assert (plan.bytes, plan.lower_bound) == (112, 112)


@pytest.mark.parametrize(
    ("kernel", "stride", "channels", "expected"),
    [
        pytest.param(1, 1, 8, 64 * 8, id="pixels"),  # the input ends with the output
        pytest.param(1, 1, 2, 64 * 4, id="fewer_channels"),
        # Of output row 1 the last byte is 64 bytes behind the start; input row 0 is still read then.
        pytest.param(3, 1, 4, 2 * 32 + 256, id="rows"),
        pytest.param(3, 2, 4, 16 + 256, id="stride"),
    ],
)
def test_convolution_overwrites_what_it_has_read(kernel: int, stride: int, channels: int, expected: int) -> None:
    made = Net(random.Random(0))
    x = made.input((1, 8, 8, 4))
    weights, scales = made.weights((channels, kernel, kernel, 4), channels, 0, per_channel=False)
    window = {"padding": 0, "strideH": stride, "strideW": stride, "dilationHFactor": 1, "dilationWFactor": 1}
    first = made.tensor((1, 8 // stride, 8 // stride, channels), zero_points=[-128])
    made.op("CONV_2D", [x, weights, made.bias(x, scales, channels)], [first], schema.Conv2DOptionsT(**window))
    scratch = 6 * kernel * kernel * 4
    assert micro.emit(made.bytes(first)).arena_bytes == expected + scratch


@pytest.mark.parametrize(
    "model",
    ["autoencoder"] + [pytest.param(one, marks=pytest.mark.campaign) for one in ("ds_cnn", "resnet8", "mobilenet_v1")],
)
def test_mlperf_tiny_arena_is_within_two_percent_of_what_lives_at_once(model: str, tmp_path: Path) -> None:
    content, least = _mlperf(model, tmp_path)
    program = micro.emit(content)
    assert program.least_bytes == least
    assert program.arena_bytes <= 1.02 * least
    by_rows = {"resnet8": 35_000, "ds_cnn": 9_500, "mobilenet_v1": 28_500, "autoencoder": 768}
    assert micro.emit(content, stream=True).arena_bytes <= by_rows[model]


def _mlperf(name: str, folder: Path) -> tuple[bytes, int]:
    """One of MLPerf Tiny's models, untrained, and the bytes of its tensors that live at once."""
    shape, classes, least = {
        "resnet8": ((32, 32, 3), 10, 49_152),
        "ds_cnn": ((49, 10, 1), 12, 16_000),
        "mobilenet_v1": ((96, 96, 3), 2, 55_296),
        "autoencoder": ((640,), 2, 768),
    }[name]
    model = tfkd.models.build(name, shape, classes) if name != "autoencoder" else tfkd.models.autoencoder(shape)
    numbers = np.random.default_rng(0)
    x = numbers.integers(0, 256, (40, *shape)).astype("float32")
    np.savez(
        folder / "x.npz", x_train=x, y_train=np.arange(40) % classes, x_test=x[:20] + 1, y_test=np.arange(20) % classes
    )
    split = tfkd.data.load(folder / "x.npz").train
    return tfkd.convert(model, folder / "model.tflite", calibration=split).content, least
