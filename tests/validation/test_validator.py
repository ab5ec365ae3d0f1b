"""Numbers of each model on each target, and the verdict over a contract."""

import json
from importlib import resources

import keras
import numpy as np
import pytest
from scipy import stats
from sklearn import metrics

from tfkd import data, targets
from tfkd.conversion import converter, tflite
from tfkd.report import write_report
from tfkd.targets.measurement import Measurement
from tfkd.validation.contract import Contract
from tfkd.validation.results import Row
from tfkd.validation.scores import OutputDivergence, measure_divergence, score
from tfkd.validation.validator import validate

NAMES = ("ant", "bee", "cow")


class Engine:
    """A target that gives the outputs, or raises the error, that a test asks for."""

    def __init__(self, spec, outputs=None, error=None, **fields):
        self.spec, self.outputs, self.error, self.fields = spec, outputs, error, fields

    def run(self, model, inputs, *, latency=True):
        if self.error:
            raise self.error
        outputs = np.asarray(inputs if self.outputs is None else self.outputs)
        fields = {"evidence": {"outputs": "measured"}} | self.fields
        return Measurement(self.spec, model.sha256, model.size_bytes, (outputs,), **fields)


def split_of(logits, labels, names=NAMES):
    """Splits whose samples are logits, for models that hand their input on."""
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels)
    every = np.arange(len(names))
    return data.from_arrays(
        (np.eye(len(names), dtype=np.float32), every), (logits, labels), class_names=names, validation=0
    )


def identity(size, scale=1.0):
    model = keras.Sequential([keras.Input((size,)), keras.layers.Dense(size, use_bias=False)])
    model.set_weights([scale * np.eye(size, dtype=np.float32)])
    return model


def convert(size, *, outputs=None, int8=False):
    """A .tflite that hands its input on, or gives `outputs` logits."""
    import tensorflow as tf

    weights = tf.Variable(np.eye(size, outputs or size, dtype=np.float32))
    graph = tf.function(lambda x: tf.matmul(x, weights), input_signature=[tf.TensorSpec([1, size], tf.float32)])
    holder = tf.Module()
    holder.weights = weights
    converter = tf.lite.TFLiteConverter.from_concrete_functions([graph.get_concrete_function()], holder)
    if int8:
        converter.optimizations = [tf.lite.Optimize.DEFAULT]
        ramp = np.linspace(-4, 4, size * 20, dtype=np.float32).reshape(-1, 1, size)
        converter.representative_dataset = lambda: ([row] for row in ramp)
        converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
        converter.inference_input_type = converter.inference_output_type = tf.int8
    return tflite.TFLiteModel.load(converter.convert())


@pytest.fixture(scope="module")
def float_model():
    return convert(3)


@pytest.fixture(scope="module")
def int8_model():
    return convert(3, int8=True)


@pytest.fixture(scope="module")
def test_split():
    logits = [[2, 1, 0], [2, 1, 0], [0, 3, 1], [1, 3, 0], [0, 1, 2], [0, 2, 1], [1, 0, 3], [2, 2, 0]]
    return split_of(logits, [0, 1, 1, 1, 2, 2, 2, 0]).test


def row(**changes):
    fields = {"bytes": 1000, "accuracy": 0.9, "agreement": 0.95, "parameters": None, "samples": 100}
    return Row(name="m", target="host", **fields | changes)


# The numbers.


@pytest.mark.parametrize("right", [0, 1, 6, 8])
def test_accuracy_interval_is_wilson(test_split, right):
    outputs = np.eye(3)[np.where(np.arange(8) < right, test_split.y, (test_split.y + 1) % 3)]
    expected = stats.binomtest(right, 8).proportion_ci(0.95, method="wilson")
    found = score(outputs, test_split, None)
    assert found["accuracy"] == right / 8
    assert found["accuracy_interval"] == (pytest.approx(expected.low), pytest.approx(expected.high))


def test_scores_confusion_worst_class_and_ties(test_split):
    found = score(test_split.x, test_split, None)
    assert found["confusion"].tolist() == [[2, 0, 0], [1, 2, 0], [0, 1, 2]]
    assert found["worst_class"] == ("bee", pytest.approx(2 / 3))
    assert found["ties"] == 1 / 8  # the last sample; the first of two equal outputs counts
    assert "top5" not in found
    assert "agreement" not in found


def test_scores_agreement_and_flips(test_split):
    reference = np.array([0, 1, 0, 1, 2, 2, 0, 0])  # right on all but samples 2 and 6
    found = score(test_split.x, test_split, reference)  # right on all but samples 1 and 5
    assert found["agreement"] == 4 / 8
    assert found["flips"] == (2, 2)


def test_scores_class_without_test_samples_is_not_the_worst():
    split = split_of([[1, 0, 0], [1, 0, 0], [0, 1, 0]], [0, 1, 1]).test
    assert score(split.x, split, None)["worst_class"] == ("bee", 0.5)


def test_scores_top5_beyond_ten_classes():
    names = tuple("abcdefghijkl")
    split = split_of(np.tile(np.arange(12.0), (4, 1)), [11, 7, 6, 0], names).test
    assert score(split.x, split, None)["top5"] == 0.5


def test_scores_are_those_of_scikit_learn():
    random = np.random.default_rng(0)
    outputs, y = random.integers(-9, 9, (300, 20)), random.integers(0, 20, 300)  # many outputs are equal
    split = split_of(outputs, y, tuple("abcdefghijklmnopqrst")).test
    found = score(outputs, split, None)
    np.testing.assert_array_equal(found["confusion"], metrics.confusion_matrix(y, outputs.argmax(1)))
    assert found["top5"] == metrics.top_k_accuracy_score(y, outputs, k=5, labels=range(20))


def test_output_divergence_counts_steps_without_overflow():
    def measured(values):
        return Measurement("host", "", 1, (np.array(values, np.int8),), {})

    first = measured([[-128, 0, 5, 7]])
    assert measure_divergence(measured([[127, 0, 6, 7]]), first) == OutputDivergence(255, 64.0, 0.5, "host")
    assert measure_divergence(first, None) is None


# Validation as a whole.


def test_validate_refuses_the_training_split(float_model, test_split):
    train = split_of(test_split.x, test_split.y).train
    with pytest.raises(ValueError, match="validation needs a split with role test"):
        validate(float_model, train, targets=[Engine("a")])


def test_validate_refuses_another_number_of_outputs(test_split):
    with pytest.raises(ValueError, match="one output per class, 3 for arrays. Received: 2 per sample"):
        validate(convert(3, outputs=2), test_split, targets=[Engine("a")])


def test_validate_refuses_one_logit_for_two_classes():
    split = split_of([[1, 0], [0, 1]], [0, 1], ("no", "yes")).test
    with pytest.raises(ValueError, match="One logit for two classes is not supported"):
        validate(convert(2, outputs=1), split, targets=[Engine("a")])


def test_validate_refuses_another_input_shape(float_model):
    split = split_of([[1, 0], [0, 1]], [0, 1], ("no", "yes")).test
    with pytest.raises(ValueError, match=r"samples of shape \(2,\), those of arrays. Received: a model for \(3,\)"):
        validate(float_model, split, targets=[Engine("a")])


def test_validate_refuses_a_keras_model_that_does_not_fit(float_model, test_split):
    with pytest.raises(ValueError, match="model 'teacher' must take samples"):
        validate(float_model, test_split, baselines={"teacher": identity(4)}, targets=[Engine("a")])
    with pytest.raises(ValueError, match="model 'reference' must have one input and one output. Received: input"):
        validate(float_model, test_split, reference=keras.Sequential([keras.layers.Dense(3)]), targets=[Engine("a")])


def test_validate_needs_to_know_what_ships(float_model, test_split):
    models = {"a": float_model, "b": float_model}
    with pytest.raises(ValueError, match="name of the one that is to ship.*Choose one of: a, b"):
        validate(models, test_split, targets=[Engine("x")], contract=Contract(max_bytes=9999))
    with pytest.raises(ValueError, match="ship must name a model. Received: 'c'. Models: a, b"):
        validate(models, test_split, targets=[Engine("x")], ship="c")
    with pytest.raises(ValueError, match="at least one .tflite"):
        validate({}, test_split, targets=[Engine("x")])


@pytest.mark.parametrize("engines", [[], [Engine("x"), Engine("x")]])
def test_validate_wants_each_target_once(float_model, test_split, engines):
    with pytest.raises(ValueError, match="targets must be at least one, each once"):
        validate(float_model, test_split, targets=engines)


def test_validate_rows_keras_first_then_each_model_on_each_target(float_model, test_split):
    student, steps = identity(3), []
    found = validate(
        {"one": float_model, "two": float_model},
        test_split,
        reference=student,
        baselines={"teacher": identity(3, 2.0), "student": student},
        targets=[Engine("a"), Engine("b")],
        progress=lambda *step: steps.append(step),
    )
    names = [(row.name, row.target) for row in found.rows]
    assert names[:2] == [("teacher", None), ("student", None)]
    assert names[2:] == [("one", "a"), ("one", "b"), ("two", "a"), ("two", "b")]
    assert found.reference == "student"
    assert [row.agreement for row in found.rows] == [1.0, None, 1.0, 1.0, 1.0, 1.0]
    assert {row.accuracy for row in found.rows} == {6 / 8}
    assert (found.rows[0].parameters, found.rows[0].bytes) == (9, 36)
    assert [step[0] for step in steps] == list(range(7))
    assert steps[2] == (2, 6, "one on a")
    assert found.ok


def test_validate_reference_beside_baselines_gets_its_own_row(float_model, test_split):
    found = validate(float_model, test_split, reference=identity(3, -1.0), targets=[Engine("a")])
    assert [(row.name, row.target) for row in found.rows] == [("reference", None), ("model", "a")]
    assert found.rows[1].flips == (0, 6)


def test_validate_int8_divergence_is_counted_from_the_first_target(int8_model, test_split):
    raw = int8_model.quantize_input(test_split.x)
    assert raw.dtype == np.int8
    found = validate(int8_model, test_split, targets=[Engine("a"), Engine("b", raw + (raw < 0))])
    assert found.rows[0].output_divergence is None
    assert found.rows[1].output_divergence.max_steps == int((raw < 0).any())
    assert found.rows[1].output_divergence.share_changed == pytest.approx((raw < 0).mean())


def test_validate_float_model_has_no_output_divergence(float_model, test_split):
    found = validate(
        float_model, test_split, targets=[Engine("a"), Engine("b")], contract=Contract(max_divergence_steps=1)
    )
    assert found.rows[1].output_divergence is None
    assert (found.verdict.status, found.verdict.binding) == ("UNKNOWN", "max_divergence_steps")
    assert not found.ok


def test_validate_outputs_that_are_not_finite_break_the_contract(float_model, test_split):
    bad = np.array(test_split.x)
    bad[3, 1] = np.nan
    found = validate(float_model, test_split, targets=[Engine("a", bad)], contract=Contract(max_bytes=9999))
    assert found.rows[0].accuracy is None
    assert "NaN" in found.rows[0].invalid_reason
    assert (found.verdict.status, found.verdict.binding) == ("NO", "runs")


def test_validate_reference_that_is_not_finite_is_no_reference(float_model, test_split):
    found = validate(
        float_model,
        test_split,
        reference=identity(3, np.nan),
        targets=[Engine("a")],
        contract=Contract(max_accuracy_drop=1),
    )
    assert [row.valid for row in found.rows] == [False, True]
    assert found.rows[1].agreement is None
    assert found.verdict.status == "UNKNOWN"


@pytest.mark.parametrize(
    ("error", "status"), [(ValueError("no such op"), "NO"), (RuntimeError("install the tool"), "UNKNOWN")]
)
def test_validate_keeps_the_other_rows_when_a_target_fails(float_model, test_split, error, status):
    engines = [Engine("bad", error=error), Engine("good")]
    found = validate(float_model, test_split, targets=engines, contract=Contract(max_bytes=9999))
    assert [row.valid for row in found.rows] == [False, True]
    assert found.rows[0].invalid_reason == str(error)
    assert found.rows[1].accuracy == 6 / 8
    assert found.verdict.status == status


def test_validate_measurement_that_is_not_valid_gives_no_numbers(float_model, test_split):
    engine = Engine("hot", valid=False, invalid_reason="The phone was throttled.")
    found = validate(float_model, test_split, targets=[engine], contract=Contract(max_bytes=9999))
    assert found.rows[0].invalid_reason == "The phone was throttled."
    assert found.rows[0].accuracy is None
    assert found.verdict.status == "UNKNOWN"
    assert not found.ok


def test_validate_outputs_that_are_too_few_give_no_numbers(float_model, test_split):
    found = validate(float_model, test_split, targets=[Engine("a", test_split.x[:5])])
    assert "5 outputs came back for 8 samples" in found.rows[0].invalid_reason


def test_validate_on_real_targets(tmp_path, digits_student_file):
    train, _, test = data.load("digits")
    student = keras.saving.load_model(digits_student_file)
    found = validate(
        converter.convert(student, tmp_path / "student.tflite", calibration=train),
        test,
        reference=student,
        targets=["host:reference", "host", "tflm"],
        contract=Contract(max_bytes=100_000, max_arena_bytes=200_000, max_p90_ms=1000, max_accuracy_drop=5),
    )
    assert [row.invalid_reason for row in found.rows] == [None] * 4
    assert [(row.name, row.target) for row in found.rows[2:]] == [("student", "host"), ("student", "tflm")]
    first, *others = found.rows[1:]
    assert first.measurement.outputs[0].dtype == np.int8
    assert first.output_divergence is None
    assert all(
        row.output_divergence.max_steps <= 8 and row.output_divergence.against == "host:reference" for row in others
    )
    assert others[0].measurement.latency.count >= 50
    assert others[1].measurement.memory.arena_bytes > 0
    assert all(row.agreement > 0.9 for row in found.rows[1:])
    assert found.verdict.status == "SHIP", found.verdict
    record = json.loads(json.dumps(found.to_json(), allow_nan=False))
    assert_follows(record, SCHEMA)
    assert record["models"]["student"]["audit"]["classes_covered"] == 10
    page = write_report(found, tmp_path / "report.html").read_text()
    assert "SHIP" in page
    assert "Calibration audit" in page


def test_validate_real_target_that_lacks_a_name_is_refused(float_model, test_split):
    with pytest.raises(ValueError, match=targets.names()[0]):
        validate(float_model, test_split, targets=["hots"])


# The schema of the JSON.

SCHEMA = json.loads(resources.files("tfkd.report").joinpath("schema.json").read_text())
TYPES = {"object": dict, "array": list, "string": str, "number": (int, float), "integer": int, "boolean": bool}


def assert_follows(value, schema, where="$"):
    """Checks a value against the part of JSON Schema that the schema file uses."""
    unknown = set(schema) - {
        "$schema",
        "$id",
        "$defs",
        "$ref",
        "title",
        "description",
        "type",
        "required",
        "properties",
        "const",
        "enum",
        "additionalProperties",
        "items",
        "anyOf",
        "minimum",
        "maximum",
    }
    assert not unknown, f"{where}: this check does not know {unknown}"
    if "$ref" in schema:
        assert_follows(value, SCHEMA["$defs"][schema["$ref"].removeprefix("#/$defs/")], where)
    if "anyOf" in schema:
        fits = [branch for branch in schema["anyOf"] if (branch.get("type") == "null") == (value is None)]
        assert_follows(value, fits[0], where)
    if "const" in schema:
        assert value == schema["const"], where
    if "enum" in schema:
        assert value in schema["enum"], f"{where}: {value!r}"
    if "type" in schema:
        kinds = [schema["type"]] if isinstance(schema["type"], str) else schema["type"]
        fits = [value is None if kind == "null" else isinstance(value, TYPES[kind]) for kind in kinds]
        assert any(fits), f"{where}: {value!r} is not {kinds}"
        assert not isinstance(value, bool) or "boolean" in kinds, where
    if isinstance(value, int | float):
        assert schema.get("minimum", value) <= value <= schema.get("maximum", value), where
    for key in schema.get("required", ()):
        assert key in value, f"{where} lacks {key}"
    if isinstance(value, dict):
        properties, extra = schema.get("properties", {}), schema.get("additionalProperties", True)
        for key, one in value.items():
            assert extra or key in properties, f"{where} must not have {key}"
            assert_follows(one, properties.get(key, extra if isinstance(extra, dict) else {}), f"{where}.{key}")
    if isinstance(value, list) and "items" in schema:
        for place, one in enumerate(value):
            assert_follows(one, schema["items"], f"{where}[{place}]")


@pytest.mark.parametrize(
    ("path", "value"),
    [(("rows", 0, "accuracy"), 2), (("verdict", "status"), "MAYBE"), (("rows", 0, "bytes"), None), (("schema",), "x")],
)
def test_schema_refuses_what_it_should(float_model, test_split, path, value):
    record = json.loads(json.dumps(validate(float_model, test_split, targets=[Engine("a")]).to_json()))
    assert_follows(record, SCHEMA)
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(AssertionError, match=str(path[-1])):
        assert_follows(record, SCHEMA)


def test_json_leaves_out_a_confusion_matrix_of_many_classes():
    big = np.zeros((101, 101), np.int64)
    assert row(confusion=big).to_json()["confusion"] is None
    assert row(confusion=big[:100, :100]).to_json()["confusion"] == big[:100, :100].tolist()
