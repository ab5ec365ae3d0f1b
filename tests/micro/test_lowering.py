"""The lowering of ops: the registry, and the records of channel pairs."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.micro.execution import native
from tests.random_graph import Net, samples
from tfkd import micro
from tfkd.micro import lowering
from tfkd.micro.graph import Graph, Op
from tfkd.micro.lowering.channel_pairs import ChannelPairs, packed_weights
from tfkd.micro.lowering.layer import ANY_SHIFT, CLAMP, SIGNED, WIDE, Fields, Layer, int8, same_quantization


def absolute(graph: Graph, op: Op) -> list[Layer]:
    """The lowering of ABS in docs/architecture.md."""
    source, output = int8(graph, op.inputs[0]), int8(graph, op.outputs[0])
    same_quantization(source, output)
    table = np.clip(np.abs(np.arange(-128, 128) - source.zero_point) + output.zero_point, -128, 127)
    fields: Fields = {"table": table.astype("int8"), "count": output.elements}
    return [Layer(op, "lookup", "lookup", "tfkd_lookup_params", fields, (source.index,), output.index)]


def test_new_op_takes_one_line_in_the_registry(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = Net(random.Random(0))
    x = made.input((1, 7))
    content = made.bytes(made.op("ABS", [x], [made.same(x, (1, 7))]))
    monkeypatch.delitem(lowering.OPS, "ABS")
    with pytest.raises(ValueError, match=r"ABS \(t1\): is not supported"):
        micro.emit(content)
    monkeypatch.setitem(lowering.OPS, "ABS", absolute)
    rows, zero_point = samples(content, 5), made.steps(x)[1]
    got = native(tmp_path, [micro.emit(content)], [rows])[0]
    expected = np.clip(np.abs(rows.astype(int) - zero_point) + zero_point, -128, 127)
    assert np.array_equal(got, expected.reshape(5, 7))


@st.composite
def channel_pairs(draw: st.DrawFn) -> tuple[ChannelPairs, int]:
    """Requantization of one to six channels in one to three groups, and the flags of its layer."""
    fast = draw(st.booleans())
    if fast:
        flags = draw(st.sampled_from([0, SIGNED]))
        shifts = st.integers(0, 14)
    else:
        flags = draw(st.integers(0, 15).filter(lambda flags: flags & (ANY_SHIFT | WIDE | CLAMP)))
        shifts = st.integers(-31, 30)
    limit = 2**23 if fast else 2**31  # of the second channel's bias, which the fast form multiplies by 256
    groups, pairs = draw(st.integers(1, 3)), draw(st.integers(1, 3))

    def array(numbers: st.SearchStrategy[int]) -> np.ndarray:
        values = draw(st.lists(numbers, min_size=2 * groups * pairs, max_size=2 * groups * pairs))
        return np.array(values, "int64").reshape(groups, pairs, 2)

    biases = array(st.integers(-limit, limit - 1))
    multipliers = array(st.one_of(st.just(0), st.integers(2**30, 2**31 - 1)))
    return ChannelPairs(biases, multipliers, array(shifts)), flags


@given(channel_pairs(), st.integers(0, 1), st.integers(-128, 127))
def test_unpack_is_the_inverse_of_pack(drawn: tuple[ChannelPairs, int], odd: int, zero_point: int) -> None:
    pairs, flags = drawn
    records = pairs.pack(flags, odd=odd, zero_point=zero_point)
    assert records.dtype == np.int32
    assert records.shape == (*pairs.shifts.shape[:2], 7)
    unpacked = ChannelPairs.unpack(records, flags)
    assert np.array_equal(unpacked.biases, pairs.biases)
    assert np.array_equal(unpacked.multipliers, pairs.multipliers)
    assert np.array_equal(unpacked.shifts, pairs.shifts)


def test_record_of_the_fast_form_has_the_documented_words() -> None:
    pairs = ChannelPairs(np.array([[[5, -3]]]), np.array([[[2**30, 2**30 + 1]]]), np.array([[[4, 6]]]))
    zero_point = -128
    records = pairs.pack(0, odd=0, zero_point=zero_point)[0, 0].tolist()
    shifts = -(2**31) + ((6 + 7) << 8) + 4  # bit 31: the last pair
    offsets = [(2 * zero_point + 1) << 4, ((2 * zero_point + 1) << 13) + 64]
    assert records == [256 * -3 + 5, 5, shifts, 2**30, 2**30 + 1, *offsets]
    odd = pairs.pack(0, odd=1, zero_point=zero_point)[0, 0].tolist()
    assert odd[2] == ((6 + 7) << 8) + 4  # with an odd number of channels no full pair is the last one here


@given(st.integers(-127, 127), st.integers(-127, 127))
def test_packed_weights_hold_both_channels(first: int, second: int) -> None:
    packed = int(packed_weights(np.array([first]), np.array([second]))[0])
    low = (packed + 128) % 256 - 128
    assert (low, (packed - low) // 256 % 256) == (first, second % 256)
