"""Numbers that take one product for each output, against the arithmetic of TensorFlow Lite Micro."""

from __future__ import annotations

import dataclasses
import random

import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.random_graph import Net, net
from tfkd.conversion.tflite import TFLiteModel
from tfkd.micro import arithmetic, one_product
from tfkd.micro.graph import read
from tfkd.micro.lowering import lower
from tfkd.micro.lowering.channel_pairs import packed_weights, unpacked_weights
from tfkd.micro.lowering.layer import ONE_PRODUCT, Layer
from tfkd.micro.one_product import choose, scaling


def sums_at_steps(multiplier: int, shift: int, low: int, high: int) -> np.ndarray:
    """The ends of a range of sums, and those around which the output changes."""
    steps = np.arange(-1, 257) * 2.0 ** (shift + 32) / multiplier
    near = np.rint(steps)[:, None] + np.arange(-3, 4) - 2.0 ** (shift + 31) / multiplier
    return np.unique(np.concatenate([[low, high], near.reshape(-1).astype("int64").clip(low, high)]))


@given(
    st.integers(2**30, 2**31 - 1),
    st.integers(3, 14),
    st.integers(1, 2**20),
    st.floats(-1, 1),
    st.sampled_from([(1, 3), (256, 11)]),
)
@settings(max_examples=200)
def test_one_product_gives_the_output_of_two_roundings(
    multiplier: int, shift: int, reach: int, middle: float, form: tuple[int, int]
) -> None:
    times, right = form
    low, high = (int(middle * reach) + end for end in (-reach, reach))
    arrays = (np.array([number]) for number in (multiplier, shift, low, high, times))
    found = scaling(*arrays)
    if found is None:  # few channels have no such numbers: see the next test
        return
    factor, extra, offset = (int(number[0]) for number in found)
    assert 0 < factor < 2**31
    for total in map(int, sums_at_steps(multiplier, shift, low, high)):
        expected = arithmetic.multiply(total, multiplier, -shift - 1) - 128
        product = times * total + extra
        assert -(2**31) <= product < 2**31
        assert min(127, max(-128, ((product * factor >> 32) + offset) >> right)) == min(127, max(-128, expected)), total


@pytest.mark.parametrize("sign", [1, -1])
def test_largest_sum_with_the_largest_addend_fits_32_bits(sign: int) -> None:
    most = next(count for count in range(2**20, 0, -1) if one_product._extra(1, sign * count % 2**32, 1) is not None)
    assert 256 * one_product._MOST_SUM + most == 2**31 - 1


def test_nearly_all_channels_have_such_numbers() -> None:
    numbers = np.random.default_rng(0)
    count = 0
    for _ in range(400):
        low = np.array([-numbers.integers(1, 2**18)])
        one = (numbers.integers(2**30, 2**31, 1), numbers.integers(3, 10, 1), low, -low, numbers.choice([1, 256], 1))
        count += scaling(*one) is not None
    assert count >= 396


@given(st.lists(st.tuples(st.integers(-127, 127), st.integers(-127, 127)), min_size=1, max_size=9))
def test_unpacked_weights_are_the_inverse_of_packed_weights(pairs: list[tuple[int, int]]) -> None:
    weights = np.array(pairs).T
    assert np.array_equal(unpacked_weights(packed_weights(*weights)), weights)


def convolutions() -> list[Layer]:
    """Layers of random graphs that change alone."""
    layers = [layer for seed in range(60) for layer in lower(read(TFLiteModel.load(net(seed))))[0]]
    return [layer for layer in layers if layer.kernel in ("convolution", "depthwise")]


def test_layers_that_share_a_copy_of_their_kernel_change_together_or_not_at_all() -> None:
    layers = [dataclasses.replace(layer, flags=layer.flags & ~2) for layer in convolutions()]
    alone, alike = choose(layers), choose(layers, alike=True)
    assert any(layer.flags & ONE_PRODUCT for layer in alone)
    for kernel, flags in {(layer.kernel, layer.flags) for layer in layers}:
        changed = {
            bool(new.flags & ONE_PRODUCT)
            for old, new in zip(layers, alike, strict=True)
            if (old.kernel, old.flags) == (kernel, flags)
        }
        assert len(changed) == 1


@pytest.mark.parametrize("change", [{"out_zero_point": -127}, {"most": 126}], ids=["zero point", "fused activation"])
def test_layer_whose_outputs_do_not_fill_the_type_from_its_zero_point_on_stays(change: dict[str, int]) -> None:
    made = Net(random.Random(1))
    x = made.input((1, 4, 4, 3))
    weights, scales = made.weights((5, 1, 1, 3), 5, 0, per_channel=True)
    out = made.tensor((1, 4, 4, 5), scales=[made.steps(x)[0]], zero_points=[-128])
    options = schema.Conv2DOptionsT(padding=0, strideH=1, strideW=1, dilationHFactor=1, dilationWFactor=1)
    model = made.bytes(made.op("CONV_2D", [x, weights, made.bias(x, scales, 5)], [out], options))
    (layer,) = lower(read(TFLiteModel.load(model)))[0]
    assert choose([layer])[0].flags == ONE_PRODUCT
    other = dataclasses.replace(layer, fields={**layer.fields, **change})
    assert choose([other]) == [other]
