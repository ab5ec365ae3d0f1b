"""The protocol of targets on LiteRT and TensorFlow Lite Micro, and their failures."""

import contextlib
import json
import random
import re
import subprocess
import sys
import time

import keras
import numpy as np
import pytest
from ai_edge_litert import schema_py_generated as schema
from ai_edge_litert.interpreter import Interpreter, OpResolverType

from tests import random_graph
from tests.random_ops import Ops
from tfkd import targets
from tfkd._internal import isolation
from tfkd.conversion import litert
from tfkd.conversion.converter import convert
from tfkd.conversion.tflite import TFLiteModel
from tfkd.errors import ModelError
from tfkd.targets import host, target, tflm

SHAPE = (8, 8, 1)
PLAIN = OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES
ALL = ("host", "host:plain", "host:reference", "tflm")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("models")


@pytest.fixture(scope="module")
def model(digits_int8):
    return digits_int8


@pytest.fixture(scope="module")
def x(model, splits):
    return model.quantize_input(splits.test.x)


@pytest.fixture(scope="module")
def weights_only(folder):
    """A model with int8 weights and float activations."""
    large = keras.Sequential([keras.Input(SHAPE), keras.layers.Flatten(), keras.layers.Dense(64)])
    return convert(large, folder / "dynamic_range.tflite", mode="dynamic_range")


@pytest.fixture(scope="module")
def two_inputs(folder):
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    model = keras.Model([left, right], [keras.layers.Dense(2)(left), keras.layers.Dense(5)(right)])
    return model, convert(model, folder / "two.tflite", mode="float32")


def one_by_one(model, x):
    """Outputs of LiteRT's plain kernels in this process, one sample at a time."""
    interpreter = Interpreter(model_content=model.content, experimental_op_resolver_type=PLAIN)
    interpreter.allocate_tensors()
    (given,), (wanted,) = interpreter.get_input_details(), interpreter.get_output_details()
    rows = []
    for sample in x:
        interpreter.set_tensor(given["index"], sample[None])
        interpreter.invoke()
        rows.append(interpreter.get_tensor(wanted["index"]))
    return np.concatenate(rows)


def patched(model, old, new):
    """The model with one op code in its table changed."""
    from ai_edge_litert import schema_py_generated as schema

    content = bytearray(model.content)
    codes = schema.Model.GetRootAs(content, 0)
    for code in map(codes.OperatorCodes, range(codes.OperatorCodesLength())):
        if code.BuiltinCode() == old:
            for offset, width in ((4, 1), (10, 4)):  # the old narrow field and the wide one
                place = code._tab.Offset(offset)
                if place:
                    start = code._tab.Pos + place
                    content[start : start + width] = new.to_bytes(width, "little")
    return TFLiteModel.load(bytes(content))


# Specifications.


def test_get_of_each_name_has_that_spec():
    assert targets.names()[:4] == ALL
    everywhere = [spec for spec in targets.names() if not spec.startswith("arm64")]  # which needs QEMU
    assert [targets.get(spec).spec for spec in everywhere] == everywhere


def test_with_board_puts_its_core_on_it_or_adds_it():
    assert targets.with_board(["host"], None) == ["host"]
    assert targets.with_board(["cortex-m4", "tflm"], "nrf52840") == ["cortex-m4:nrf52840", "tflm"]
    assert targets.with_board(["tflm"], "rp2040") == ["tflm", "cortex-m0plus:rp2040"]
    asked = ["cortex-m4,stream=1", "cortex-m4:nrf52840,stream=0"]
    assert targets.with_board(asked, "nrf52840") == ["cortex-m4:nrf52840,stream=1", asked[1]]
    with pytest.raises(ValueError, match="rp2040 has a cortex-m0plus. Received: cortex-m4,stream=1"):
        targets.with_board(["cortex-m4,stream=1"], "rp2040")
    with pytest.raises(ValueError, match="Did you mean 'nrf52840'"):
        targets.with_board(["tflm"], "nrf5284")
    with pytest.raises(ValueError, match="rp2040 has a cortex-m0plus. Received: cortex-m4"):
        targets.with_board(["cortex-m4"], "rp2040")


def test_get_passes_options_to_the_target():
    assert targets.get("host:reference", threads=2, timeout_s=5) == host.Host("reference", threads=2, timeout_s=5)
    assert targets.get("tflm", timeout_s=5) == tflm.TFLM(timeout_s=5)


def test_get_parses_settings_and_spec_has_them():
    assert targets.get("host:plain,threads=2,batch=8") == host.Host("plain", threads=2, batch=8)
    for spec in ("host,threads=2", "host:plain,threads=2,batch=8", "host,batch=3"):
        assert targets.get(spec).spec == spec
    assert targets.get("host,threads=1").spec == "host"


@pytest.mark.parametrize(
    ("spec", "options", "message"),
    [
        ("host,thread=2", {}, r"host has no setting 'thread'.*threads.*Did you mean 'threads'\?"),
        ("host,threads=two", {}, r"threads of host must be a number. Received: 'two'. Write host,threads=1"),
        ("host,threads", {}, r"threads of host must be a number. Received: ''"),
        ("host,threads=0", {}, r"host: threads must be >= 1. Received: threads=0"),
        ("hots", {}, r"unknown target 'hots'.*Did you mean 'host'\?"),
        ("host:refrence", {}, r"unknown target 'host:refrence'.*Did you mean 'host:reference'\?"),
        ("toaster", {}, r"unknown target 'toaster'. Choose one of host, tflm, arm64, .*, adb-binary, browser.$"),
        ("host", {"thread": 2}, r"host has no setting 'thread'.*threads.*Did you mean 'threads'\?"),
        ("tflm", {"threads": 2}, r"tflm has no setting 'threads'. Choose one of chunks, timeout_s"),
        ("host", {"threads": 0}, r"host: threads must be >= 1. Received: threads=0. Use 1"),
        ("host", {"timeout_s": 0}, r"host: timeout_s must be > 0. Received: timeout_s=0"),
        ("tflm", {"timeout_s": -1}, r"tflm: timeout_s must be > 0. Received: timeout_s=-1"),
    ],
)
def test_get_unknown_name_or_option_is_refused(spec, options, message):
    with pytest.raises(ValueError, match=message):
        targets.get(spec, **options)


# Running.


@pytest.mark.parametrize("spec", ALL)
def test_run_returns_raw_outputs_that_agree_with_keras(spec, model, x, student, splits, capfd):
    run = targets.get(spec).run(model, x, latency=False)
    assert capfd.readouterr() == ("", "")
    (outputs,) = run.outputs
    assert (outputs.shape, outputs.dtype) == ((len(x), 10), np.int8)
    expected = student.predict(splits.test.x.astype("float32"), verbose=0).argmax(1)
    assert np.mean(outputs.argmax(1) == expected) > 0.95
    assert (run.target, run.model_sha256, run.model_bytes) == (spec, model.sha256, model.size_bytes)
    assert run.latencies_ns is None
    assert "latencies_ns" not in run.evidence
    json.dumps(run.to_json())


def test_run_on_host_equals_one_interpreter_sample_by_sample(model, x):
    outputs = targets.get("host:plain").run(model, x, latency=False).outputs[0]
    np.testing.assert_array_equal(outputs, one_by_one(model, x))


def test_run_takes_a_model_a_path_and_bytes(model, x):
    plain_host = targets.get("host:plain")
    first, second, third = (
        plain_host.run(form, x[:3], latency=False).outputs[0] for form in (model, str(model.path), model.content)
    )
    np.testing.assert_array_equal(first, second)
    np.testing.assert_array_equal(first, third)


@pytest.mark.parametrize("spec", ["host", "tflm"])
def test_run_in_shards_and_batches_changes_no_bit(spec, model, x, monkeypatch):
    whole = targets.get(spec).run(model, x, latency=False)
    for module in (host, tflm):
        monkeypatch.setattr(module, "_SMALLEST_SHARD", 50)
    monkeypatch.setattr(target, "cores", lambda: 3)
    cut = targets.get(spec).run(model, x, latency=False)
    np.testing.assert_array_equal(whole.outputs[0], cut.outputs[0])
    few = targets.get(spec).run(model, x[:7], latency=False)
    np.testing.assert_array_equal(whole.outputs[0][:7], few.outputs[0])
    if spec == "host":
        # XNNPACK rounds differently from CPU to CPU: where a batch changes bits, single samples run.
        assert whole.setting["batch"] in (1, 64)
        assert few.setting["batch"] == 1


def test_shards_use_each_core_and_keep_the_order(monkeypatch):
    monkeypatch.setattr(target, "cores", lambda: 3)
    arrays = [np.arange(10), np.arange(10) * 2]
    parts = target.shards(arrays, least=3)
    assert [len(part[0]) for part in parts] == [4, 3, 3]
    np.testing.assert_array_equal(np.concatenate([part[1] for part in parts]), arrays[1])
    assert len(target.shards(arrays, least=5)) == 2
    assert len(target.shards(arrays, least=100)) == 1


@pytest.mark.parametrize("spec", ["host", "tflm"])
def test_run_of_several_inputs_and_outputs(spec, two_inputs):
    keras_model, model = two_inputs
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=(6, size)).astype("float32") for size in (4, 3)]
    outputs = targets.get(spec).run(model, arrays, latency=False).outputs
    for received, expected in zip(outputs, keras_model(arrays), strict=True):
        np.testing.assert_allclose(received, expected, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def stateful():
    content = isolation.run(f"{__name__}:fused_lstm", timeout_s=120, what="making an LSTM", prepare="tests.forks:load")
    return TFLiteModel.load(content)


def fused_lstm():  # in a child: it needs the old Keras
    import tensorflow as tf
    import tf_keras

    model = tf_keras.Sequential([tf_keras.layers.Input((5, 3), batch_size=1), tf_keras.layers.LSTM(4)])
    function = tf.function(lambda x: model(x)).get_concrete_function(tf.TensorSpec((1, 5, 3)))
    return tf.lite.TFLiteConverter.from_concrete_functions([function], model).convert()


@pytest.mark.parametrize("spec", ALL)
def test_run_passes_no_state_from_sample_to_sample(spec, stateful):
    assert "UNIDIRECTIONAL_SEQUENCE_LSTM" in stateful.ops
    x = np.repeat(np.random.default_rng(0).normal(size=(1, 5, 3)), 130, axis=0).astype("float32")
    outputs = targets.get(spec).run(stateful, x, latency=False).outputs[0]
    assert np.ptp(outputs[0]) > 0
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs[0], outputs.shape))


@pytest.mark.parametrize("spec", ALL)
def test_run_computes_each_sample_from_the_initial_resource_variables(spec, resource_states):
    model, x, expected = resource_states
    assert {"WHILE", "VAR_HANDLE", "CALL_ONCE"} <= set(model.ops)
    assert np.abs(expected[0] - expected[1]).max() > 0.1
    outputs = targets.get(spec).run(model, x, latency=False).outputs[0]
    np.testing.assert_allclose(outputs, expected, rtol=1e-4, atol=1e-5)


def test_ops_macs_and_float_ops_include_the_bodies_of_loops(resource_states):
    model, _, _ = resource_states
    assert model.ops["ASSIGN_VARIABLE"] == 2 * 2  # an initial and a new value for each of two states
    assert model.macs == 12 * (2 + 4) + 4 * 2  # the GRU's matrices once, and the dense layer
    assert any("TANH" in op for op in model.float_ops)


@pytest.mark.parametrize("spec", ["host", "tflm"])
def test_outputs_with_states_do_not_depend_on_the_number_of_cores(spec, resource_states, monkeypatch):
    model, x, _ = resource_states
    for module in (host, tflm):
        monkeypatch.setattr(module, "_SMALLEST_SHARD", 3)
    outputs = []
    for cores in (1, 2):
        monkeypatch.setattr(target, "cores", lambda cores=cores: cores)
        outputs.append(targets.get(spec).run(model, x, latency=False).outputs[0])
    np.testing.assert_array_equal(*outputs)


def svdf(seed):
    """An SVDF, whose state is int16 with some seeds and int8 with others."""
    net = random_graph.Net(random.Random(seed))
    return TFLiteModel(net.bytes(net.svdf(net.input((1, 3, 3, 2)))))


def seeded_random():
    """A model that returns random numbers from a fixed seed."""
    net = random_graph.Net(random.Random(0))
    net.input((1, 3))
    output = net.tensor((1, 3), "float32")
    net.op("RANDOM_UNIFORM", [net.ints([1, 3])], [output], schema.RandomOptionsT(seed=1, seed2=2))
    return TFLiteModel(net.bytes(output))


@pytest.mark.parametrize("spec", ["host", "host:reference"])
@pytest.mark.parametrize("build", [lambda: svdf(4), seeded_random])
def test_run_of_the_same_sample_returns_the_same_outputs(spec, build):
    model = build()
    sample = np.random.default_rng(0).integers(-128, 128, model.inputs[0].shape, "int8")
    outputs = targets.get(spec).run(model, np.repeat(sample, 130, axis=0), latency=False).outputs[0]
    np.testing.assert_array_equal(outputs, np.broadcast_to(outputs[0], outputs.shape))


def test_svdf_with_an_int8_state_is_refused_by_litert_only():
    model, x = svdf(2), np.full((2, 1, 3, 3, 2), 50, "int8")[:, 0]
    with pytest.raises(ModelError, match="state of SVDF.* must be int16"):
        targets.get("host").run(model, x, latency=False)
    first, second = targets.get("tflm").run(model, x, latency=False).outputs[0]
    np.testing.assert_array_equal(first, second)


def int16_with_int32_bias(kind, *, says_type):
    """An op on int16 whose bias is int32, which its options say or not, and samples."""
    net, numbers = random_graph.Net(random.Random(0), "int16"), np.random.default_rng(0)
    kernel, shape = ((4, 8), (1, 4)) if kind == "FULLY_CONNECTED" else ((4, 3, 3, 8), (1, 6, 6, 4))
    x = net.tensor((*shape[:-1], 8), scales=[1e-3])
    weights = net.tensor(kernel, "int8", numbers.integers(-127, 128, kernel).astype("int8"), [0.007], [0])
    bias = net.tensor((4,), "int32", numbers.integers(-(10**6), 10**6, 4).astype("int32"), [7e-6], [0])
    sizes = {} if kind == "FULLY_CONNECTED" else {"strideH": 1, "strideW": 1}
    if kind == "CONV_2D":
        sizes |= {"dilationHFactor": 1, "dilationWFactor": 1}
    name = {"CONV_2D": "Conv2DOptionsT", "FULLY_CONNECTED": "FullyConnectedOptionsT"}.get(kind, "TransposeConvOptionsT")
    options = getattr(schema, name)(quantizedBiasType=schema.TensorType.INT32 if says_type else 0, **sizes)
    net.graph.inputs.append(x)
    inputs = [net.ints(shape), weights, x, bias] if kind == "TRANSPOSE_CONV" else [x, weights, bias]
    model = TFLiteModel(net.bytes(net.op(kind, inputs, [net.tensor(shape, scales=[0.02])], options)))
    return model, numbers.integers(-32768, 32768, (9, *shape[1:-1], 8)).astype("int16")


@pytest.mark.parametrize(
    ("kind", "says_type", "misread"),
    [
        ("CONV_2D", False, {"xnnpack", "plain", "reference", "wasm"}),
        ("CONV_2D", True, set()),
        ("FULLY_CONNECTED", False, {"reference"}),
        ("FULLY_CONNECTED", True, set()),
        ("TRANSPOSE_CONV", False, {"wasm"}),
        ("TRANSPOSE_CONV", True, {"xnnpack", "plain", "reference", "wasm"}),
    ],
)
def test_int32_bias_of_int16_is_refused_where_litert_misreads_it(kind, says_type, misread):
    model, x = int16_with_int32_bias(kind, says_type=says_type)
    for kernels in ("xnnpack", "plain", "reference", "wasm"):
        with pytest.raises(ModelError, match="int64") if kernels in misread else contextlib.nullcontext():
            target.check_litert(model, "here", kernels=kernels)
    if "xnnpack" not in misread:
        host, micro = (targets.get(spec).run(model, x, latency=False).outputs[0] for spec in ("host", "tflm"))
        np.testing.assert_allclose(host.astype(float), micro, atol=1)


def test_uint8_weights_are_the_reason_why_tflm_refuses_a_model():
    net = random_graph.Net(random.Random(0))
    output = net.convolution(net.input((1, 4, 4, 2)))
    for tensor in net.graph.tensors:
        if tensor.type == schema.TensorType.INT8:
            tensor.type = schema.TensorType.UINT8
    with pytest.raises(ModelError, match="not inside a model, as TensorFlow 1 quantized models: (DEPTHWISE_)?CONV_2D"):
        targets.get("tflm").run(net.bytes(output), np.zeros((1, 4, 4, 2), "uint8"), latency=False)


def test_slice_of_variable_size_is_refused_by_tflm_only():
    net = random_graph.Net(random.Random(0))
    source, given, size = net.input((1, 4)), net.tensor((1, 2), "int32"), net.tensor((2,), "int32")
    net.graph.inputs.append(given)
    net.op("RESHAPE", [given, net.ints([2])], [size], schema.ReshapeOptionsT(newShape=[2]))
    output = net.same(source, (1, 1))
    net.op("SLICE", [source, net.ints([0, 0]), size], [output], schema.SliceOptionsT())
    net.graph.tensors[output].shapeSignature = np.array([1, -1], "i4")
    model, x = net.bytes(output), [np.array([[1, 2, 3, 4]], "int8"), np.array([[1, 3]], "int32")]
    np.testing.assert_array_equal(targets.get("host").run(model, x, latency=False).outputs[0], [[1, 2, 3]])
    with pytest.raises(ModelError, match="SLICE .* must have a constant size"):
        targets.get("tflm").run(model, x, latency=False)


def test_scalar_output_has_one_value_per_sample():
    net = random_graph.Net(random.Random(0))
    source = net.input((1, 1))
    output = net.same(source, ())
    net.op(
        "RESHAPE",
        [source, net.tensor((0,), "int32", np.zeros(0, "int32"))],
        [output],
        schema.ReshapeOptionsT(newShape=[]),
    )
    x = np.arange(5, dtype="int8")[:, None]
    for spec in ("host", "tflm"):
        outputs = targets.get(spec).run(net.bytes(output), x, latency=False).outputs[0]
        np.testing.assert_array_equal(outputs, x[:, 0])


def test_run_on_host_times_before_it_runs(model, x):
    run = targets.get("host", threads=2).run(model, x[:5])
    assert len(run.latencies_ns) >= litert._RUNS
    assert all(isinstance(latency, int) and latency > 0 for latency in run.latencies_ns)
    runs, every = run.environment["runs"], run.environment["kept_every"]
    assert len(run.latencies_ns) == runs // every
    assert run.environment["warm_up_runs"] >= 20
    assert run.latency.p50_ms <= run.latency.p90_ms <= run.latency.p99_ms
    assert run.evidence == {"outputs": "measured", "latencies_ns": "measured", "memory": "measured"}
    assert run.memory.peak_rss_bytes > model.size_bytes
    assert (run.setting["threads"], run.setting["kernels"], run.setting["timed_batch"]) == (2, "xnnpack", 1)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has /proc")
def test_run_on_host_measures_the_memory_of_a_whole_process(model, x):
    """A process that imports LiteRT, and does nothing else, needs no more."""
    code = "import ai_edge_litert.interpreter; print(open('/proc/self/status').read())"
    status = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    import_alone = 1024 * int(re.search(r"VmHWM:\s+(\d+)", status)[1])
    measured = targets.get("host").run(model, x[:5]).memory.peak_rss_bytes
    assert 0.95 * import_alone < measured < 2 * import_alone
    assert targets.get("host").run(model, x[:5], latency=False).memory.peak_rss_bytes is None


def test_latencies_are_measured_for_the_given_time():
    timed = litert.timed(lambda: time.sleep(0.001), timed_s=0.2)
    assert sum(timed["latencies_ns"]) * timed["kept_every"] > 0.1e9
    assert timed["runs"] >= litert._RUNS


def test_run_on_host_measures_the_memory_of_the_child_alone(model, x):
    ballast = np.ones(300 << 20, np.uint8)  # this process is larger than the child
    run = targets.get("host:plain").run(model, x[:5])
    assert run.memory.peak_rss_bytes < ballast.nbytes


def test_run_on_tflm_has_an_arena_and_no_latency(model, x):
    run = targets.get("tflm").run(model, x[:5], latency=True)
    assert run.latencies_ns is None
    memory = run.memory
    assert memory.arena_bytes == memory.arena_head_bytes + memory.arena_tail_bytes
    # Input and output of the first convolution live at once: 8 x 8 x 1 and its 8 x 8 x C.
    assert 8 * 8 * 2 < memory.arena_head_bytes < 8192
    assert run.evidence == {"outputs": "emulated", "memory": "emulated"}
    assert "64-bit pointers" in run.environment["note"]


def test_run_on_tflm_of_large_activations_has_room(folder):
    wide = keras.Sequential([keras.Input((96, 96, 3)), keras.layers.MaxPooling2D(2), keras.layers.GlobalMaxPooling2D()])
    model = convert(wide, folder / "wide.tflite", mode="float32")
    assert model.size_bytes < 4096
    run = targets.get("tflm").run(model, np.ones((2, 96, 96, 3), np.float32))
    assert run.memory.arena_head_bytes >= 96 * 96 * 3 * 4
    np.testing.assert_array_equal(run.outputs[0], np.ones((2, 3)))


# Inputs that do not fit.


@pytest.mark.parametrize("spec", ["host", "tflm"])
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x.astype("float32"), r"must be int8. Received: float32. Use model.quantize_input\(x\)"),
        (lambda x: x[0], r"must be \[N, 8, 8, 1\] with N >= 1.*Received: shape \(8, 8, 1\)"),
        (lambda x: x[:, :4], r"must be \[N, 8, 8, 1\].*Received: shape \(\d+, 4, 8, 1\)"),
        (lambda x: x[:0], r"must be \[N, 8, 8, 1\] with N >= 1.*Received: shape \(0, 8, 8, 1\)"),
        (lambda x: [x, x], r"the model has 1 inputs. Received: 2"),
    ],
)
def test_run_inputs_that_do_not_fit_are_refused(spec, change, message, model, x):
    with pytest.raises(ValueError, match=f"{spec}: .*{message}"):
        targets.get(spec).run(model, change(x))


def test_run_inputs_of_unequal_number_are_refused(two_inputs):
    arrays = [np.zeros((3, 4), np.float32), np.zeros((2, 3), np.float32)]
    with pytest.raises(ValueError, match=r"equal for all inputs. Received: shape \(2, 3\)"):
        targets.get("host").run(two_inputs[1], arrays)


def test_run_missing_file_is_refused(x):
    with pytest.raises(ValueError, match=r"none.tflite: cannot read the .tflite file"):
        targets.get("host").run("none.tflite", x)


# Models that a target does not accept.


def test_run_on_tflm_of_weights_in_float16_is_refused(student, splits, folder):
    model = convert(student, folder / "float16.tflite", mode="float16")
    with pytest.raises(ValueError, match=r"tflm: .*It supports no float16 weights. Convert with mode='full_int8'"):
        targets.get("tflm").run(model, splits.test.x[:2].astype("float32"))


def test_run_on_tflm_of_a_hybrid_model_is_refused(weights_only):
    x = np.ones((2, *SHAPE), np.float32)
    with pytest.raises(
        ValueError, match=r"tflm: .*supports no int8 weights with float activations. Convert with mode="
    ):
        targets.get("tflm").run(weights_only, x)
    assert targets.get("host").run(weights_only, x, latency=False).outputs[0].shape == (2, 64)


def test_run_on_tflm_of_an_unsupported_op_names_it(model, x):
    from ai_edge_litert import schema_py_generated as schema

    codes = schema.BuiltinOperator
    lacking = patched(model, codes.MEAN, codes.HASHTABLE_LOOKUP)
    with pytest.raises(ModelError, match=r"tflm: .*It does not support HASHTABLE_LOOKUP."):
        targets.get("tflm").run(lacking, x[:2])


def test_run_on_host_of_an_op_it_cannot_prepare_is_refused(model, x):
    from ai_edge_litert import schema_py_generated as schema

    codes = schema.BuiltinOperator
    wrong = patched(model, codes.MEAN, codes.LSTM)
    with pytest.raises(ValueError, match=r"host:plain: LiteRT does not accept the model: (.|\n)*Convert it with"):
        targets.get("host:plain").run(wrong, x[:2])


def test_division_by_zero_in_a_sample_is_named():
    made = Ops(random.Random(0))
    sides = [made.tensor((1, 4), scales=[0.1], zero_points=[0]) for _ in range(2)]
    made.graph.inputs.extend(sides)
    quotient = TFLiteModel.load(made.bytes(made.op("DIV", sides, [made.same(sides[0], (1, 4))], schema.DivOptionsT())))
    numbers = np.ones((1, 4), np.int8)
    assert (targets.get("host").run(quotient, (numbers, numbers), latency=False).outputs[0] == 10).all()
    with pytest.raises(ModelError, match=r"host: a sample leads to a division by 0 .* Leave such samples out"):
        targets.get("host").run(quotient, (numbers, 0 * numbers), latency=False)


@pytest.mark.parametrize("spec", ["host", "tflm"])
def test_run_too_slow_times_out(spec, model, x):
    many = np.tile(x, (50, 1, 1, 1))  # some seconds of work, so that no computer is done in time
    with pytest.raises(
        isolation.ChildTimedOut, match=rf"running .*digits_int8.tflite on {spec}: timed out after 0.05 s"
    ):
        targets.get(spec, timeout_s=0.05).run(model, many)


@pytest.mark.parametrize("spec", ["host:reference", "tflm"])
def test_run_of_mutated_models_never_harms_this_process(spec, model, x):
    rng, ends = np.random.default_rng(0), []
    words = len(model.content) // 4
    while len(ends) < 20:
        content = bytearray(model.content)
        for word in rng.integers(2, words, 6):
            value = rng.choice([0, 1, 7, 2**31 - 1, 2**32 - 1, rng.integers(len(content))])
            content[4 * word : 4 * word + 4] = int(value).to_bytes(4, "little")
        try:
            broken = TFLiteModel.load(bytes(content))
        except ValueError:
            continue  # it does not even reach the target
        try:
            targets.get(spec, timeout_s=10).run(broken, x[:2], latency=False)
            ends.append("ran")
        except (ValueError, isolation.ChildCrashed, isolation.ChildTimedOut) as error:
            ends.append(type(error).__name__)
    assert set(ends) > {"ran"}


def test_host_times_batches(model, x):
    run = targets.get("host", batch=8, threads=2).run(model, x[:3])
    assert run.setting["timed_batch"] == 8
    assert len(run.outputs[0]) == 3
    assert run.latency.count >= 50
    with pytest.raises(ValueError, match="batch must be >= 1"):
        targets.get("host", batch=0)


def test_host_batch_that_the_model_does_not_accept_is_refused(folder):
    fixed = keras.Sequential([keras.Input((4,), batch_size=1), keras.layers.Dense(2)])
    fixed.add(keras.layers.Lambda(lambda x: keras.ops.reshape(x, (1, 2, 1))))
    content = convert(fixed, folder / "fixed.tflite", mode="float32")
    with pytest.raises(ValueError, match="does not accept a batch of 3"):
        targets.get("host", batch=3).run(content, np.zeros((1, 4), "float32"))


def test_custom_op_is_named_as_the_reason_why_tflm_refuses_a_model():
    for name, reason in ((b"Sort", "lacks one of the custom ops of the model: Sort"), (b"ethos-u", "Ethos-U NPU")):
        net = random_graph.Net(random.Random(0))
        output = net.op("CUSTOM", [net.input((1, 4))], [net.output((1, 4))])
        net.model.operatorCodes[0].customCode = name
        with pytest.raises(ModelError, match=reason):
            targets.get("tflm").run(net.bytes(output), np.zeros((1, 4), "int8"), latency=False)
