"""Activation ranges: percentiles against NumPy, least error against a search, findings on outliers."""

import keras
import numpy as np
import pytest

from tfkd.conversion import activation_ranges
from tfkd.conversion.converter import convert
from tfkd.conversion.samples import Samples


def histogram(values):
    found = activation_ranges._Histogram()
    found.widen(values)
    found.add(values)
    return found


@pytest.fixture
def outliers():
    """30,003 normally distributed values, three of them replaced by 1000."""
    values = np.random.default_rng(0).normal(size=30_003)
    values[:3] = 1000.0
    return values


def test_percentile_equals_numpy():
    values = np.random.default_rng(0).normal(size=100_000)
    low, high = histogram(values).percentile(99.5)
    assert low == pytest.approx(np.percentile(values, 0.5), abs=0.01)
    assert high == pytest.approx(np.percentile(values, 99.5), abs=0.01)


def test_percentile_excludes_outliers(outliers):
    low, high = histogram(outliers).percentile(99.9)
    assert high < 5
    assert low == pytest.approx(outliers.min(), abs=2)  # bins are wide where outliers are far


def test_percentile_of_rectified_values_begins_at_0():
    values = np.maximum(np.random.default_rng(0).normal(size=10_000), 0)
    assert histogram(values).percentile(99.99)[0] == 0


@pytest.mark.parametrize("steps", [16, 256])
def test_least_error_beats_the_full_range(steps):
    values = np.random.default_rng(0).laplace(size=50_000)

    def error(low, high):
        step = (high - low) / (steps - 1)
        return np.square(np.clip(np.round(values / step) * step, low, high) - values).mean()

    low, high = histogram(values).least_error(steps)
    assert values.min() < low < 0 < high < values.max()
    assert error(low, high) < 0.95 * error(values.min(), values.max())
    tried = [error(values.min() * share, values.max() * share) for share in np.linspace(0.05, 1, 40)]
    assert error(low, high) < 1.1 * min(tried)


def test_least_error_with_many_steps_clips_nothing():
    values = np.random.default_rng(0).uniform(-1, 1, size=10_000)
    assert histogram(values).least_error(2**16) == (values.min(), values.max())


def test_constant_tensor_has_its_value_as_range():
    assert histogram(np.full(100, 3.0)).percentile(99.9) == (3.0, 3.0)


def test_outlier_is_reported_in_a_sentence(outliers):
    found = histogram(outliers)
    finding = activation_ranges._outlier("m/conv_1/Relu;m/bn", found, found.low, found.high)
    assert finding is not None
    ratio, sentence = finding
    assert ratio > 100
    assert sentence.startswith("m/conv_1/Relu: its range -4")
    assert "Try --range percentile" in sentence
    clipped = activation_ranges._outlier("m", found, -10.0, 10.0)
    assert clipped is not None
    assert "0.010% of its values lie outside -10..10 and are clipped" in clipped[1]


def test_values_without_outliers_are_not_reported():
    found = histogram(np.random.default_rng(0).normal(size=10_000))
    assert activation_ranges._outlier("m", found, found.low, found.high) is None


def test_infinite_values_have_no_range(tmp_path):
    """Reciprocals of 0 that are limited afterwards, which LiteRT makes infinite and the largest float32."""
    x = np.float32([[0.25, 0], [-1, 0], [0.0625, 0]])
    inputs = keras.Input((2,))
    sizes = keras.ops.abs(inputs)
    outputs = keras.ops.minimum(keras.ops.rsqrt(sizes), 3.0), keras.ops.minimum((1 / sizes)[:, 1:] + 1, 2.0)
    model = convert(keras.Model(inputs, outputs), tmp_path / "m.tflite", mode="float32")
    ranges = activation_ranges.extremes(model.content, model.graph, Samples((x,)))
    found, _ = activation_ranges.find(model.content, model.graph, Samples((x,)), "min_max", 99.9, {})
    for limits in (ranges, found):
        assert {(0.0, 4.0), (0.0, 0.0), (0.0, 3.0), (-1.0, 0.25)} <= {*limits.values()}
        assert np.abs([*limits.values()]).max() <= 16


def test_layer_with_nan_on_calibration_samples_is_named(tmp_path):
    x = np.cumsum(np.random.default_rng(0).normal(size=(100, 6, 3)), axis=1).astype("float32") + 30
    x[:10] -= 40  # negative
    inputs = keras.Input((6, 3))
    logs = keras.layers.Lambda(keras.ops.log, name="logs")(inputs)
    model = convert(keras.Model(inputs, keras.layers.Dense(2)(logs)), tmp_path / "m.tflite", calibration=x)
    assert "NaN or infinity on 2 of 16 calibration samples, which were not compared" in model.findings[0]
    named = [finding for finding in model.audit.findings if "logs" in finding]
    assert len(named) == 1
    assert "LOG gives NaN on 10 of 100 calibration samples" in named[0]
    floats = convert(keras.Model(inputs, logs), tmp_path / "floats.tflite", mode="float32")
    _, findings = activation_ranges.find(floats.content, floats.graph, Samples((x,)), "min_max", 99.9, {})
    assert "LOG gives NaN on 10 of 100 calibration samples" in findings[0]
