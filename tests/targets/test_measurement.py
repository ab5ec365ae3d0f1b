"""The record that every target gives."""

import dataclasses
import hashlib
import json
import math
import statistics

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tfkd.targets.measurement import LatencySummary, Measurement, Memory


def measurement(**changes):
    outputs = (np.array([[1, -2]], np.int8),)
    return dataclasses.replace(Measurement("host", "ab", 10, outputs, {"outputs": "measured"}), **changes)


def test_latency_summary_of_known_samples():
    summary = LatencySummary.of(tuple(1_000_000 * value for value in range(1, 11)))
    assert (summary.count, summary.min_ms, summary.max_ms, summary.mean_ms) == (10, 1.0, 10.0, 5.5)
    assert (summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms) == (5.0, 9.0, 10.0, 10.0)
    assert summary.stdev_ms == pytest.approx(math.sqrt(8.25))
    assert summary.latency_trend == pytest.approx(8 / 3)


def test_latency_summary_of_one_sample_has_no_trend():
    summary = LatencySummary.of((2_000_000,))
    assert (summary.p50_ms, summary.p99_ms, summary.stdev_ms, summary.latency_trend) == (2.0, 2.0, 0.0, 1.0)


def test_latency_summary_without_samples_is_refused():
    with pytest.raises(ValueError, match="must not be empty"):
        LatencySummary.of(())


@given(st.lists(st.integers(1, 10**10), min_size=1, max_size=60))
def test_latency_percentiles_are_ordered_samples(samples):
    summary = LatencySummary.of(tuple(samples))
    ladder = [summary.min_ms, summary.p50_ms, summary.p90_ms, summary.p95_ms, summary.p99_ms, summary.max_ms]
    assert ladder == sorted(ladder)
    assert set(ladder) <= {sample / 1e6 for sample in samples}
    assert summary.mean_ms == pytest.approx(statistics.fmean(samples) / 1e6)


def test_measurement_unknown_is_none_in_json():
    record = measurement().to_json()
    assert record["schema"] == "tfkd.measurement/1"
    assert record["latencies_ns"] is None
    assert record["latency"] is None
    assert set(record["memory"].values()) == {None}
    assert record["instructions"] is None


def test_measurement_json_tells_outputs_by_hash():
    outputs = (np.array([[1, -2]], np.int8),)
    record = measurement(outputs=outputs, latencies_ns=(5, 7), memory=Memory(arena_bytes=100)).to_json()
    assert json.loads(json.dumps(record, allow_nan=False)) == record
    assert record["outputs"] == [
        {"shape": [1, 2], "dtype": "int8", "sha256": hashlib.sha256(bytes([1, 254])).hexdigest()}
    ]
    assert record["latencies_ns"] == [5, 7]
    assert record["latency"]["count"] == 2
    assert record["memory"]["arena_bytes"] == 100


def test_measurement_is_frozen():
    with pytest.raises(dataclasses.FrozenInstanceError, match="cannot assign"):
        measurement().valid = False


def test_repr_leaves_out_outputs_and_single_latencies():
    measured = Measurement("host", "0" * 64, 10, (np.zeros((1000, 10)),), {}, latencies_ns=tuple(range(1, 100_001)))
    assert len(repr(measured)) < 1000
