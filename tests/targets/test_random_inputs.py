"""Random inputs of benchmarks: the ranges that models accept."""

import numpy as np
import pytest

from tfkd.targets.random_inputs import random_input


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_quantized_input_spans_its_data_type(dtype):
    x = random_input((1, 300_000), dtype, quantized=True)
    assert (x.dtype, x.min(), x.max()) == (dtype, np.iinfo(dtype).min, np.iinfo(dtype).max)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int32", "int64"])
def test_token_ids_index_a_small_vocabulary(dtype):
    x = random_input((1, 10_000), dtype, quantized=False)
    assert (x.dtype, x.min(), x.max()) == (dtype, 0, 127)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_float_input_is_between_0_and_1(dtype):
    x = random_input((2, 1000), dtype, quantized=False)
    assert (x.dtype, x.shape) == (dtype, (2, 1000))
    assert x.min() < 0.1
    assert 0.9 < x.max() <= 1


def test_bool_input_has_both_values():
    assert set(random_input((100,), "bool", quantized=False)) == {False, True}


def test_same_seed_same_values():
    a, b, c = (random_input((9,), "int32", quantized=False, seed=seed) for seed in (1, 1, 2))
    np.testing.assert_array_equal(a, b)
    assert not np.array_equal(a, c)
