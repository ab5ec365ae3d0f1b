"""Tests of the comparison of a .tflite with the Keras model that it was made from."""

import functools
import re

import flatbuffers
import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema

from tfkd.conversion import engines, fault_location, layer_names, parity, reference
from tfkd.conversion.converter import convert
from tfkd.conversion.export import input_specs
from tfkd.conversion.fault_location import Conversion
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.conversion.samples import Samples
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError

CLIPPED = QuantizerSettings(ranges="percentile", percentile=99)
CONVERSIONS = [
    ("float32",),
    ("float16",),
    ("dynamic_range", "litert"),
    ("full_int8",),
    ("full_int8", "litert"),
    ("full_int8", CLIPPED),
    ("int16x8",),
]


@pytest.fixture(scope="module")
def expected(student, splits):
    """The outputs of the student on 16 samples."""
    return reference.of_keras(student, input_specs(student), Samples((splits.train.x,)), reference.MOST)


def damaged(model, change):
    """A copy of a .tflite after `change` of its tensors and buffers by name."""
    tree = schema.ModelT.InitFromObj(schema.Model.GetRootAs(model.content, 0))
    change({tensor.name.decode(): tensor for tensor in tree.subgraphs[0].tensors}, tree.buffers)
    builder = flatbuffers.Builder(len(model.content))
    builder.Finish(tree.Pack(builder), b"TFL3")
    return TFLiteModel(bytes(builder.Output()))


def conversion(converted, student, mode, quantizer="tensorflow"):
    float32 = converted("float32").content
    calls = functools.partial(reference.calls_of, student, input_specs(student))
    return Conversion("converting", mode, quantizer, layer_names.layers(student), lambda: float32, 60.0, calls=calls)


def tensors_of(model, layer, student):
    """The names of the kernel and the bias of a layer, and of its output."""
    graph, known = model.graph, layer_names.layers(student)
    for op in graph.ops:
        names = [graph.tensors[index].name for index in (*op.inputs[1:], *op.outputs)]
        if len(names) == 3 and layer_names.layer_of(names[2], names[0], known) == layer:
            return names
    raise AssertionError(f"no op of {layer}")


# Files that are right, and files that are not.


@pytest.mark.parametrize("arguments", CONVERSIONS)
def test_error_of_a_right_file_is_far_below_the_limit(arguments, converted, expected):
    mode = arguments[0]
    found = parity.compare(converted(*arguments), expected, mode, clips=arguments[-1] is CLIPPED)
    integers = mode in ("full_int8", "int16x8")
    assert (engines.MICRO in {one.engine for one in found}) == (integers and engines.has_micro())
    assert max(one.excess for one in found) < (1 if arguments[-1] is CLIPPED else 0.5)
    assert min(one.labels for one in found) >= 0.9


def narrow(tensor, buffers):
    tensor.quantization.scale = [tensor.quantization.scale[0] / 8]


def wrap(tensor, buffers):
    values = buffers[tensor.buffer].data.view("int32").copy()
    values[1] = -values[1] - 20_000
    buffers[tensor.buffer].data = values.view("uint8")


def double(tensor, buffers):
    tensor.quantization.scale = [2 * scale for scale in tensor.quantization.scale]


@pytest.mark.parametrize(
    ("layer", "part", "change"), [("logits", 2, narrow), ("conv1_conv", 1, wrap), ("block2_pointwise_conv", 0, double)]
)
def test_damaged_int8_file_is_refused_with_the_layer(layer, part, change, converted, student, expected):
    model = converted("full_int8")
    name = tensors_of(model, layer, student)[part]
    wrong = damaged(model, lambda tensors, buffers: change(tensors[name], buffers))
    known = conversion(converted, student, "full_int8")
    with pytest.raises(ModelError, match=f"times what rounding explains.*layer '{layer}'.*allow_mismatch=True"):
        parity.check(wrong, expected, known, allow_mismatch=False)


def enlarge(tensor, buffers):
    values = buffers[tensor.buffer].data.view("float32") * np.float32(1.02)
    buffers[tensor.buffer].data = values.view("uint8")


@pytest.mark.parametrize("mode", ["float32", "float16", "full_int8"])
@pytest.mark.parametrize("layer", ["conv1_conv", "block2_pointwise_conv", "logits"])
def test_layer_that_float32_computes_in_another_way_is_named(layer, mode, converted, student, expected):
    """Also where the float .tflite is what the file is made from."""
    model = converted("float32")
    name = tensors_of(model, layer, student)[0]
    wrong = damaged(model, lambda tensors, buffers: enlarge(tensors[name], buffers))
    known = conversion(converted, student, mode)._replace(float32=lambda: wrong.content)
    text = fault_location.locate(wrong, expected, engines.PLAIN, known)
    assert re.search(rf"The first that the float32 .tflite computes in another way is layer '{layer}' \(\w+", text)


def test_damaged_float32_file_is_a_finding_where_allowed(converted, student, expected):
    model = converted("float32")
    name = tensors_of(model, "logits", student)[0]
    known = conversion(converted, student, "float32")
    wrong = damaged(model, lambda tensors, buffers: enlarge(tensors[name], buffers))
    (finding,) = parity.check(wrong, expected, known, allow_mismatch=True)
    assert engines.XNNPACK in finding
    assert "layer 'logits'" in finding
    assert parity.check(model, expected, known, allow_mismatch=False) == ()


def test_file_with_another_number_of_outputs_is_refused(converted, student, expected):
    two = expected._replace(outputs=[[*row, row[0]] for row in expected.outputs])
    with pytest.raises(ModelError, match="must have 2 outputs"):
        parity.check(converted("float32"), two, conversion(converted, student, "float32"), allow_mismatch=False)


@pytest.mark.parametrize(("mode", "kind"), [("full_int8", "INT8"), ("float16", "FLOAT16"), ("float32", "FLOAT32")])
def test_rounding_moves_one_constant_in_twelve_by_one_step(mode, kind, converted):
    content = converted(mode).content
    moved = []
    for before, after in zip(engines.constants(content), engines.constants(engines.perturbed(content, 0)), strict=True):
        bits = f"int{8 * before.values.itemsize}"
        steps = after.values.view(bits).astype("int64") - before.values.view(bits)
        moved += [*steps] if before.type == kind and before.is_kernel else []
        assert not steps.any() or before.type == kind
    assert {*moved} == {-1, 0, 1}
    assert np.mean(np.square(moved)) == pytest.approx(1 / 12, abs=0.03)
    assert engines.perturbed(content, 0) == engines.perturbed(content, 0)


def test_rounding_moves_packed_weights_of_4_bits():
    values = np.arange(256, dtype="uint8").repeat(64)
    low, high = ((half.view("int8") >> 4).astype(int) for half in (values << 4, values))
    engines._move(values, "INT4", np.random.default_rng(0))
    for before, after in ((low, values << 4), (high, values)):
        after = (after.view("int8") >> 4).astype(int)
        inside = np.abs(before) < 7
        assert {*(after - before)[inside]} == {-1, 0, 1}
        assert np.mean(np.square(after - before)[inside]) == pytest.approx(1 / 12, abs=0.01)


# What float16 cannot hold.


def huge():
    """A Dense layer with a weight beyond the largest float16."""
    inputs = keras.Input((64,))
    layer = keras.layers.Dense(20, name="huge")
    model = keras.Model(inputs, layer(inputs))
    kernel, bias = layer.get_weights()
    kernel[0] = 1e5
    layer.set_weights([kernel, bias])
    return model


def tiny():
    """A Dense layer with weights below the smallest float16."""
    inputs = keras.Input((64,))
    kernel = keras.initializers.RandomUniform(-1e-8, 1e-8, seed=0)
    layer = keras.layers.Dense(20, name="tiny", kernel_initializer=kernel)
    return keras.Model(inputs, layer(inputs))


def normalized():
    """A Normalization layer whose mean is large beside the deviation."""
    inputs = keras.Input((2000,))
    layer = keras.layers.Normalization(name="normalized", mean=[3e4 + 5] * 2000, variance=[1.0] * 2000)
    return keras.Model(inputs, keras.layers.Dense(3)(layer(inputs)))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (huge, "'huge' has constants .*beyond 65,504"),
        (tiny, "'tiny' has constants below 6e-8"),
        (normalized, "layer 'normalized'"),
    ],
)
def test_float16_beyond_its_range_is_refused_with_the_layer(build, message, tmp_path):
    with pytest.raises(ModelError, match=message):
        convert(build(), tmp_path / "m.tflite", mode="float16")
    assert not (tmp_path / "m.tflite").exists()


def test_remedy_of_a_mismatch_was_tried_and_works(tmp_path):
    with pytest.raises(ModelError) as mismatch:
        convert(huge(), tmp_path / "m.tflite", mode="float16")
    mode, quantizer = re.search(r"Use mode='(\w+)' with quantizer='(\w+)': it was tried", str(mismatch.value)).groups()
    assert convert(huge(), tmp_path / "m.tflite", mode=mode, quantizer=quantizer).findings == ()


def test_remedy_of_a_refusal_was_tried_and_works(splits, tmp_path):
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Dense(4)(keras.layers.Flatten()(inputs))
    model = keras.Model(inputs, keras.layers.Dense(3)(x / (1.0 + keras.ops.relu(x))))
    with pytest.raises(ModelError, match=r"DIV .*cannot be quantized to int16.*it was tried") as refusal:
        convert(model, tmp_path / "m.tflite", mode="int16x8", calibration=splits.train)
    mode, quantizer = re.search(r"Use mode='(\w+)' with quantizer='(\w+)': it was tried", str(refusal.value)).groups()
    path = tmp_path / "m.tflite"
    assert convert(model, path, mode=mode, quantizer=quantizer, calibration=splits.train).findings == ()


def test_op_that_an_engine_refuses_has_its_layer_and_a_remedy(converted, student):
    model = converted("full_int8")
    number, op = next((number, op) for number, op in enumerate(model.graph.ops) if op.name == "DEPTHWISE_CONV_2D")
    error = ModelError(f"LiteRT does not accept it: Node number {number} ({op.name}) failed to invoke.")
    tries = conversion(converted, student, "full_int8")._replace(agrees=lambda other: other.mode == "int16x8")
    layer = layer_names.layer_of(model.graph.tensors[op.outputs[0]].name, "", layer_names.layers(student))
    message = fault_location.refused(model, error, tries)
    assert f"layer {layer!r} (DEPTHWISE_CONV_2D" in message
    assert "Use mode='int16x8' with quantizer='tensorflow': it was tried" in message


def test_mismatch_is_a_finding_where_allowed_and_none_without_a_check(tmp_path):
    model, path = huge(), tmp_path / "m.tflite"
    (finding,) = convert(model, path, mode="float16", allow_mismatch=True).findings
    assert "huge" in finding
    assert convert(model, path, mode="float16", check=False, overwrite=True).findings == ()


# The reference.


def of(model, samples=None, number=4):
    return reference.of_keras(model, input_specs(model), None if samples is None else Samples((samples,)), number)


def test_outputs_of_several_types_and_a_constant_agree(tmp_path):
    tokens, features = keras.Input((5,), dtype="int32", name="tokens"), keras.Input((3,), name="features")
    embedded = keras.layers.GlobalAveragePooling1D()(keras.layers.Embedding(7, 4)(tokens))
    joined = keras.layers.Concatenate()([embedded, features])
    outputs = [keras.layers.Dense(4)(joined), keras.ops.cast(joined > 0, "int32"), features * 0.0 + 3.0, joined > 0]
    model = keras.Model([tokens, features], outputs)
    assert max(int(sample[0].max()) for sample in of(model, number=16).inputs) == 6
    assert convert(model, tmp_path / "m.tflite", mode="float32").findings == ()


def test_reference_is_computed_from_the_initial_state_and_the_model_keeps_its_own():
    inputs = keras.Input((4, 3), batch_size=1)
    layer = keras.layers.GRU(3, stateful=True)
    model = keras.Model(inputs, layer(inputs))
    layer.states[0].assign(np.ones((1, 3)))
    found = of(model)
    np.testing.assert_array_equal(layer.states[0], 1)
    for sample, outputs in zip(found.inputs, found.outputs, strict=True):
        layer.reset_states()
        np.testing.assert_allclose(model(sample[0]), outputs[0], rtol=1e-5)


class Single(keras.layers.Layer):
    """Divides by the norm of the whole batch, so that samples of one batch depend on each other."""

    def call(self, x):
        return x / keras.ops.sqrt(keras.ops.sum(keras.ops.square(x)))


@pytest.mark.parametrize("layer", [keras.layers.Dense, Single])
def test_reference_is_that_of_single_samples(layer):
    model = keras.Sequential([keras.Input((6,)), layer(3) if layer is keras.layers.Dense else layer()])
    x = np.random.default_rng(0).normal(size=(9, 6)).astype("float32")
    found = reference.of_keras(model, input_specs(model), Samples((x,)), 9)
    for sample, (output,) in zip(found.inputs, found.outputs, strict=True):
        np.testing.assert_allclose(output, model(sample[0]), rtol=1e-5, atol=1e-6)


def test_reduced_reference_has_samples_from_all_parts(expected):
    some = expected.reduced(4)
    assert [len(some.inputs), len(some.outputs)] == [4, 4]
    for array, index in zip(some.outputs, (0, 5, 10, 15), strict=True):
        assert array is expected.outputs[index]
    assert len(expected.reduced(99).inputs) == reference.MOST


@pytest.mark.parametrize("budget", [1.0, 2e6, 1e12])
def test_keras_model_computes_at_least_the_samples_that_are_compared(budget, student, converted, monkeypatch):
    monkeypatch.setattr(reference, "_BUDGET", budget)
    least = reference.count(converted("full_int8"), "full_int8")
    assert least <= reference.most(student) <= min(3 * least, reference.MOST)


@pytest.mark.parametrize(("macs", "samples"), [(1e5, 16), (3e7, 8), (3e8, 4), (4e9, 2)])
def test_large_models_are_compared_on_fewer_samples(macs, samples):
    assert reference._within(2.5e8, macs) == samples


def test_generated_inputs_are_in_the_range_of_the_first_layer():
    pixels = keras.Input((4, 4, 1))
    model = keras.Model(pixels, keras.layers.Rescaling(1 / 127.5, offset=-1)(pixels))
    values = np.concatenate([sample[0] for sample in of(model, number=16).inputs])
    assert values.min() >= 0
    assert 200 < values.max() <= 255
    features = keras.Input((2,))
    model = keras.Model(features, keras.layers.Normalization(mean=[1000.0, 0.0], variance=[1.0, 9.0])(features))
    values = np.concatenate([sample[0] for sample in of(model, number=16).inputs])
    np.testing.assert_allclose(values.mean(axis=0), [1000, 0], atol=3)


def test_signature_of_a_saved_model_computes_what_the_model_computes(student, splits, tmp_path, expected):
    import tensorflow as tf

    student.export(str(tmp_path), verbose=False)
    loaded = tf.saved_model.load(str(tmp_path))  # its variables live as long as it
    signature = loaded.signatures["serving_default"]
    (name,), (output,) = signature.structured_input_signature[1], signature.structured_outputs
    found = reference.of_signature(signature, [name], [output], Samples((splits.train.x,)), reference.MOST)
    np.testing.assert_allclose(np.stack(found.outputs), np.stack(expected.outputs), rtol=1e-4, atol=1e-4)


class Noise(keras.layers.Layer):
    def call(self, x):
        import tensorflow as tf

        return x + tf.random.uniform(x.shape)


def test_random_outputs_are_not_compared_and_weights_of_nan_are_a_fault():
    inputs = keras.Input((3,), batch_size=1)
    found = of(keras.Model(inputs, Noise()(inputs)))
    assert "random" in found.obstacle
    assert not found.is_fault
    model = keras.Model(inputs, keras.layers.Dense(2, name="broken", kernel_initializer="zeros")(inputs))
    model.layers[-1].kernel.assign(np.full((3, 2), np.nan))
    found = of(model)
    assert "broken" in found.obstacle
    assert found.is_fault


def test_samples_on_which_the_model_is_not_finite_are_left_out():
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.ops.log(inputs))
    x = np.float32([[1, 2, 3], [-1, 2, 3], [4, 5, 6], [-1, -1, -1]])
    found = of(model, x)
    assert [sample[0][0, 0] for sample in found.inputs] == [1, 4]
    assert of(model, x[[1, 3]]).is_fault


def test_channels_that_a_large_one_hides_name_their_layer(tmp_path):
    """All channels but the first round to 0, which is little of all values; the next layer ignores the first."""
    wide, reader = keras.layers.Dense(9, name="wide"), keras.layers.Dense(4, name="reader")
    model = keras.Sequential([keras.Input((6,)), wide, reader])
    wide.kernel.assign(wide.kernel * np.float32([1500, *[1] * 8]))
    reader.kernel.assign(reader.kernel * np.float32([0, *[1] * 8])[:, None])
    x = np.random.default_rng(0).normal(size=(64, 6)).astype("float32")
    quantized = convert(model, tmp_path / "int8.tflite", calibration=(x, np.arange(64) % 4), check=False)
    float32 = convert(model, tmp_path / "float32.tflite", mode="float32", check=False).content
    made = Conversion("", "full_int8", "tensorflow", layer_names.layers(model), lambda: float32, 60.0)
    computed = reference.of_keras(model, input_specs(model), Samples((x,)), reference.MOST)
    found = fault_location.locate(quantized, computed, engines.PLAIN, made)
    assert re.match(r"The cause is layer 'wide' .* so much larger than the others that rounding changes half of", found)
