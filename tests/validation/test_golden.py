"""Golden vectors: what a deployment must return, in formats for a phone and for a microcontroller."""

import json
import subprocess

import keras
import numpy as np
import pytest

from tfkd import data, targets
from tfkd.conversion.converter import convert
from tfkd.validation import golden

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def converted(modes):
    return modes["full_int8"]


@pytest.fixture(scope="module")
def vectors(converted, splits):
    return golden.record(converted, splits.test, samples=5)


@pytest.fixture(scope="module")
def folder(vectors, tmp_path_factory):
    folder = tmp_path_factory.mktemp("golden")
    assert [path.name for path in vectors.save(folder / "m")] == ["m.npz", "m.h", "m.json"]
    return folder


def test_vectors_are_the_outputs_of_tflm(vectors, converted, splits):
    assert vectors.target == "tflm"
    rows = [np.flatnonzero(splits.test.ids == one)[0] for one in vectors.id]
    np.testing.assert_array_equal(vectors.raw, splits.test.x[rows])
    np.testing.assert_array_equal(vectors.label, splits.test.y[rows])
    np.testing.assert_array_equal(vectors.input, converted.quantize_input(vectors.raw))
    expected = targets.get("tflm").run(converted, vectors.input).outputs[0]
    np.testing.assert_array_equal(vectors.output, expected)


def test_tolerance_is_the_largest_difference_to_the_other_target(vectors, converted):
    host = targets.get("host").run(converted, vectors.input, latency=False).outputs[0]
    assert vectors.against == "host"
    assert vectors.tolerance == np.abs(host.astype(int) - vectors.output.astype(int)).max()


def test_npz_holds_all_arrays(folder, vectors):
    stored = np.load(folder / "m.npz")
    for name in ("raw", "input", "output", "label", "id"):
        np.testing.assert_array_equal(stored[name], getattr(vectors, name))
        assert stored[name].dtype == getattr(vectors, name).dtype
    assert str(stored["model_sha256"]) == vectors.model.sha256


def test_json_holds_all_arrays(folder, vectors):
    stored = json.loads((folder / "m.json").read_text())
    assert stored["model_sha256"] == vectors.model.sha256
    for i, sample in enumerate(stored["samples"]):
        for name in ("raw", "input", "output", "label", "id"):
            np.testing.assert_array_equal(sample[name], getattr(vectors, name)[i])
    assert stored["input"]["scales"] == pytest.approx(vectors.model.inputs[0].scales)


PROGRAM = """
#include <stdio.h>
#include "{header}"
int main(void) {{
  for (int i = 0; i < {upper}_SAMPLES; ++i) {{
    for (int k = 0; k < {upper}_RAW_SIZE; ++k) printf("%.9g ", (double){name}_raw[i][k]);
    for (int k = 0; k < {upper}_INPUT_SIZE; ++k) printf("%.9g ", (double){name}_input[i][k]);
    for (int k = 0; k < {upper}_OUTPUT_SIZE; ++k) printf("%.9g ", (double){name}_output[i][k]);
    printf("%.9g %.9g\\n", (double){name}_label[i][0], (double){name}_id[i][0]);
  }}
  return 0;
}}
"""


def compiled(folder, header, name):
    """The rows that a C program reads from a header."""
    (folder / "main.c").write_text(PROGRAM.format(header=header, name=name, upper=name.upper()))
    flags = ["-std=c99", "-Wall", "-Wextra", "-Werror", "-Wno-unused", "-o", str(folder / "main")]
    subprocess.run(["cc", *flags, str(folder / "main.c")], check=True)
    printed = subprocess.run([str(folder / "main")], capture_output=True, text=True, check=True).stdout
    return np.array([[float(value) for value in line.split()] for line in printed.splitlines()])


def expected_rows(vectors):
    arrays = (vectors.raw, vectors.input, vectors.output, vectors.label, vectors.id)
    return np.concatenate([array.reshape(len(array), -1).astype(float) for array in arrays], axis=1)


def test_header_compiles_to_the_same_values(folder, vectors):
    np.testing.assert_array_equal(compiled(folder, "m.h", "m"), expected_rows(vectors))


def test_header_of_a_float_model_keeps_every_bit(modes, splits, tmp_path):
    vectors = golden.record(modes["float32"], splits.test, samples=2)
    vectors.save(tmp_path / "8-bit golden")
    assert vectors.output.dtype == np.float32
    rows = compiled(tmp_path, "8-bit golden.h", "golden_8_bit_golden")
    np.testing.assert_array_equal(rows.astype("float32"), expected_rows(vectors).astype("float32"))


def test_model_that_tflm_refuses_falls_back_to_reference_kernels(modes, splits):
    assert golden.record(modes["float16"], splits.test, samples=2).target == "host:reference"


def test_existing_file_is_refused(folder, vectors):
    with pytest.raises(ValueError, match=r"m.npz already exists. Pass overwrite=True"):
        vectors.save(folder / "m")
    assert vectors.save(folder / "m", overwrite=True)


def test_samples_of_another_shape_are_refused(converted):
    x = np.arange(40 * 9, dtype=np.float32).reshape(40, 9)
    other = data.from_arrays((x, np.arange(40) % 2), (x + 1, np.arange(40) % 2))
    with pytest.raises(ValueError, match=r"samples must have the model's input shape \(8, 8, 1\). Received: \(9,\)"):
        golden.record(converted, other.test)


def test_model_of_several_inputs_is_refused(splits, tmp_path):
    inputs = [keras.Input((4,), name=name) for name in "ab"]
    both = keras.Model(inputs, keras.layers.Dense(2)(keras.layers.Add()(inputs)))
    model = convert(both, tmp_path / "m.tflite", mode="float32")
    with pytest.raises(ValueError, match=r"must have one input for these samples.*inputs 'a' of shape \(4,\), 'b'"):
        golden.record(model, splits.test)


def test_outputs_that_are_not_finite_are_refused(splits, tmp_path):
    broken = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(10)])
    broken.layers[-1].kernel.assign(np.full((64, 10), np.nan, np.float32))
    model = convert(broken, tmp_path / "m.tflite", mode="float32", check=False)
    with pytest.raises(ValueError, match=r"outputs must be finite. Received: NaN or infinity on tflm"):
        golden.record(model, splits.test, target="tflm")
