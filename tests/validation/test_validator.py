"""Validation of models on targets: rows, failures, unavailable targets and the JSON."""

import dataclasses
import json
import sys
from importlib import resources

import jsonschema
import keras
import numpy as np
import pytest

from tests.validation.identity_models import FixedTarget, keras_identity, split_of, tflite_identity
from tfkd import targets
from tfkd._internal.isolation import ChildCrashed, ChildFailed, ChildTimedOut
from tfkd.conversion import converter
from tfkd.errors import DeviceError, ModelError, ToolMissingError
from tfkd.report import write_report
from tfkd.validation.contract import Contract
from tfkd.validation.results import Row
from tfkd.validation.validator import validate

SCHEMA = json.loads(resources.files("tfkd.report").joinpath("schema.json").read_text())

SMALL = Contract(min_accuracy=50, max_bytes=9999)


@pytest.fixture(scope="module")
def float_model():
    return tflite_identity(3)


@pytest.fixture(scope="module")
def int8_model():
    return tflite_identity(3, int8=True)


def test_validate_refuses_the_training_split(float_model, test_split):
    train = split_of(test_split.x, test_split.y).train
    with pytest.raises(ValueError, match="validation needs a split with role test"):
        validate(float_model, train, targets=[FixedTarget("a")])


def test_validate_refuses_another_number_of_outputs(test_split):
    with pytest.raises(ValueError, match="must have one output per class, 3 for arrays. Received: 2 per sample"):
        validate(tflite_identity(3, outputs=2), test_split, targets=[FixedTarget("a")])


def test_one_logit_for_two_classes_is_binary():
    split = split_of([[1, 0], [0, 1]], [0, 1], ("no", "yes")).test
    assert validate(tflite_identity(2, outputs=1), split, targets=["host"]).task == "binary"
    with pytest.raises(ValueError, match="must have one output per class, 2 for arrays. Received: 1.*task binary"):
        validate(tflite_identity(2, outputs=1), split, targets=[FixedTarget("a")], task="classification")


def test_validate_refuses_another_input_shape(float_model):
    split = split_of([[1, 0], [0, 1]], [0, 1], ("no", "yes")).test
    with pytest.raises(
        ValueError, match=r"input shape of model 'model' must be \(2,\), that of arrays. Received: \(3,\)"
    ):
        validate(float_model, split, targets=[FixedTarget("a")])


def test_validate_refuses_a_keras_model_that_does_not_fit(float_model, test_split):
    with pytest.raises(ValueError, match="input shape of model 'teacher' must be"):
        validate(float_model, test_split, baselines={"teacher": keras_identity(4)}, targets=[FixedTarget("a")])
    with pytest.raises(ValueError, match="model 'reference' must have one input and one output. Received: input"):
        validate(
            float_model, test_split, reference=keras.Sequential([keras.layers.Dense(3)]), targets=[FixedTarget("a")]
        )


def test_validate_needs_to_know_what_ships(float_model, test_split):
    models = {"a": float_model, "b": float_model}
    with pytest.raises(ValueError, match="name of the model that is to ship.*Choose one of: a, b"):
        validate(models, test_split, targets=[FixedTarget("x")], contract=SMALL)
    with pytest.raises(ValueError, match="ship must be the name of a model. Received: 'c'. Models: a, b"):
        validate(models, test_split, targets=[FixedTarget("x")], ship="c")
    with pytest.raises(ValueError, match="at least one .tflite"):
        validate({}, test_split, targets=[FixedTarget("x")])


@pytest.mark.parametrize("engines", [[], [FixedTarget("x"), FixedTarget("x")]])
def test_validate_wants_each_target_once(float_model, test_split, engines):
    with pytest.raises(ValueError, match="targets must contain at least one target, and none twice"):
        validate(float_model, test_split, targets=engines)


def test_validate_rows_keras_first_then_each_model_on_each_target(float_model, test_split):
    student, steps = keras_identity(3), []
    found = validate(
        {"one": float_model, "two": float_model},
        test_split,
        reference=student,
        baselines={"teacher": keras_identity(3, 2.0), "student": student},
        targets=[FixedTarget("a"), FixedTarget("b")],
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
    found = validate(float_model, test_split, reference=keras_identity(3, -1.0), targets=[FixedTarget("a")])
    assert [(row.name, row.target) for row in found.rows] == [("reference", None), ("model", "a")]
    assert found.rows[1].flips == (0, 6)


def test_validate_compares_with_the_teacher_and_the_student_alone(float_model, test_split):
    alone = keras_identity(3, -1.0)  # right on none of the samples
    other = split_of(test_split.x[:4], test_split.y[:4]).test
    found = validate(
        float_model,
        test_split,
        teacher=(keras_identity(3), other),
        alone=alone,
        baselines={"more": keras_identity(3)},
        targets=[FixedTarget("a")],
        contract=Contract(max_drop_from_teacher=0, min_gain_over_alone=75),
    )
    assert [row.name for row in found.rows] == ["teacher", "student alone", "more", "model"]
    assert {role: (one.against, one.points) for role, one in found.rows[-1].differences.items()} == {
        "teacher": ("teacher", 0.0),
        "alone": ("student alone", 75.0),
    }
    assert [row.teacher_bytes for row in found.rows] == [None, None, None, found.rows[0].bytes]
    # A gain over a student that is no better than a constant answer proves nothing.
    assert (found.verdict.status, found.verdict.binding) == ("UNKNOWN", "min_gain_over_alone")
    record = json.loads(json.dumps(found.to_json()))
    jsonschema.validate(record, SCHEMA)
    assert (record["teacher"], record["alone"], record["reference"]) == ("teacher", "student alone", None)


def test_validate_refuses_another_baseline_of_the_teachers_name(float_model, test_split):
    with pytest.raises(ValueError, match="the baseline 'teacher' is another model than teacher"):
        validate(float_model, test_split, teacher=keras_identity(3), baselines={"teacher": keras_identity(3, 2.0)})


def test_validate_model_at_chance_level_is_no_without_a_contract(float_model, test_split):
    constant = np.tile(np.float32([0, 1, 0]), (8, 1))
    found = validate(float_model, test_split, targets=[FixedTarget("a", constant), FixedTarget("b")])
    assert (found.verdict.status, found.verdict.binding) == ("NO", "better_than_constant")
    assert not found.ok


def test_validate_int8_divergence_is_counted_from_the_first_target(int8_model, test_split):
    raw = int8_model.quantize_input(test_split.x)
    assert raw.dtype == np.int8
    found = validate(int8_model, test_split, targets=[FixedTarget("a"), FixedTarget("b", raw + (raw < 0))])
    assert found.rows[0].output_divergence is None
    assert found.rows[1].output_divergence.max_steps == int((raw < 0).any())
    assert found.rows[1].output_divergence.share_changed == pytest.approx((raw < 0).mean())


def test_validate_float_model_has_no_output_divergence(float_model, test_split):
    found = validate(
        float_model,
        test_split,
        targets=[FixedTarget("a"), FixedTarget("b")],
        contract=Contract(min_accuracy=50, max_divergence_steps=1),
    )
    assert found.rows[1].output_divergence is None
    assert (found.verdict.status, found.verdict.binding) == ("UNKNOWN", "max_divergence_steps")
    assert not found.ok


def test_validate_outputs_that_are_not_finite_break_the_contract(float_model, test_split):
    bad = np.array(test_split.x)
    bad[3, 1] = np.nan
    found = validate(float_model, test_split, targets=[FixedTarget("a", bad)], contract=SMALL)
    assert found.rows[0].accuracy is None
    assert "NaN" in found.rows[0].invalid_reason
    assert (found.verdict.status, found.verdict.binding) == ("NO", "runs")


def test_validate_reference_that_is_not_finite_is_no_reference(float_model, test_split):
    found = validate(
        float_model,
        test_split,
        reference=keras_identity(3, np.nan),
        targets=[FixedTarget("a")],
        contract=Contract(max_accuracy_drop=1),
    )
    assert [row.valid for row in found.rows] == [False, True]
    assert found.rows[1].agreement is None
    assert found.verdict.status == "UNKNOWN"


@pytest.mark.parametrize(
    ("error", "flags", "status"),
    [
        (ModelError("no such op"), (True, False), "NO"),
        (ChildCrashed("signal SIGSEGV"), (True, False), "NO"),
        (ToolMissingError("install the tool"), (False, True), "UNKNOWN"),
        (ChildTimedOut("timed out"), (False, False), "UNKNOWN"),
        (DeviceError("disconnected"), (False, False), "UNKNOWN"),
    ],
)
def test_validate_keeps_the_other_rows_when_a_target_fails(float_model, test_split, error, flags, status):
    places = [FixedTarget("bad", error=error), FixedTarget("good")]
    found = validate(float_model, test_split, targets=places, contract=SMALL)
    assert [row.valid for row in found.rows] == [False, True]
    assert found.rows[0].invalid_reason == str(error)
    assert (found.rows[0].broken, found.rows[0].unavailable) == flags
    assert found.rows[1].accuracy == 6 / 8
    assert found.verdict.status == status


@pytest.mark.parametrize("error", [ValueError("bug"), RuntimeError("bug"), KeyError("bug"), ChildFailed("bug")])
def test_validate_lets_errors_of_tfkd_itself_pass(float_model, test_split, error):
    with pytest.raises(type(error), match="bug"):
        validate(float_model, test_split, targets=[FixedTarget("bad", error=error)])


# Targets that the platform lacks.


@pytest.fixture
def without_tflite_micro(monkeypatch):
    monkeypatch.setitem(sys.modules, "tflite_micro", None)


def test_validate_without_targets_runs_the_defaults(int8_model, test_split):
    rows = validate(int8_model, test_split).rows
    assert [row.target for row in rows] == list(targets.defaults())
    assert all(row.valid for row in rows)


@pytest.mark.usefixtures("without_tflite_micro")
def test_validate_default_target_that_the_platform_lacks_is_an_unavailable_row(int8_model, test_split):
    found = validate(int8_model, test_split, contract=SMALL)
    by_target = {row.target: row for row in found.rows}
    assert by_target["host"].valid
    assert (by_target["tflm"].unavailable, by_target["tflm"].broken) == (True, False)
    assert "tflite-micro" in by_target["tflm"].invalid_reason
    assert found.verdict.status == "SHIP"
    assert "tflm" in found.verdict.checks[0].detail
    needed = validate(int8_model, test_split, contract=Contract(min_accuracy=50, max_arena_bytes=99_999))
    assert (needed.verdict.status, needed.verdict.binding) == ("UNKNOWN", "max_arena_bytes")


@pytest.mark.usefixtures("without_tflite_micro")
def test_validate_optional_target_that_the_platform_lacks_does_not_affect_the_verdict(int8_model, test_split):
    found = validate(
        int8_model,
        test_split,
        targets=["tflm", "host"],
        optional=["tflm"],
        contract=SMALL,
    )
    assert [row.unavailable for row in found.rows] == [True, False]
    assert found.verdict.status == "SHIP"


@pytest.mark.usefixtures("without_tflite_micro")
def test_validate_chosen_target_that_the_platform_lacks_leaves_the_verdict_unknown(int8_model, test_split):
    found = validate(int8_model, test_split, targets=["tflm", "host"], contract=SMALL)
    assert [row.unavailable for row in found.rows] == [True, False]
    assert (found.verdict.status, found.verdict.binding) == ("UNKNOWN", "runs")


def test_validate_measurement_that_is_not_valid_gives_no_numbers(float_model, test_split):
    engine = FixedTarget("hot", valid=False, invalid_reason="The phone was throttled.")
    found = validate(float_model, test_split, targets=[engine], contract=SMALL)
    assert found.rows[0].invalid_reason == "The phone was throttled."
    assert found.rows[0].accuracy is None
    assert found.verdict.status == "UNKNOWN"
    assert not found.ok


def test_validate_outputs_that_are_too_few_give_no_numbers(float_model, test_split):
    found = validate(float_model, test_split, targets=[FixedTarget("a", test_split.x[:5])])
    assert "returned 5 outputs for 8 samples" in found.rows[0].invalid_reason


def test_validate_on_real_targets(student, splits, tmp_path):
    found = validate(
        converter.convert(student, tmp_path / "student.tflite", calibration=splits.train),
        splits.test,
        reference=student,
        targets=["host:reference", "host", "tflm"],
        contract=Contract(max_bytes=100_000, max_arena_bytes=200_000, max_p90_ms=1000, min_accuracy=20),
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
    jsonschema.validate(record, SCHEMA)
    assert record["models"]["student"]["audit"]["classes_covered"] == 10
    page = write_report(found, tmp_path / "report.html").read_text()
    assert "SHIP" in page
    assert "Calibration audit" in page


def test_validate_unknown_target_is_refused(float_model, test_split):
    with pytest.raises(ValueError, match=targets.names()[0]):
        validate(float_model, test_split, targets=["hots"])


# The JSON.


def test_schema_is_a_json_schema():
    jsonschema.Draft202012Validator.check_schema(SCHEMA)


@pytest.mark.parametrize(
    ("path", "value"),
    [(("rows", 0, "accuracy"), 2), (("verdict", "status"), "MAYBE"), (("rows", 0, "bytes"), None), (("schema",), "x")],
)
def test_schema_refuses_what_it_should(float_model, test_split, path, value):
    record = json.loads(json.dumps(validate(float_model, test_split, targets=[FixedTarget("a")]).to_json()))
    jsonschema.validate(record, SCHEMA)
    place = record
    for key in path[:-1]:
        place = place[key]
    place[path[-1]] = value
    with pytest.raises(jsonschema.ValidationError) as raised:
        jsonschema.validate(record, SCHEMA)
    assert list(raised.value.absolute_path) == list(path)


def test_json_leaves_out_a_confusion_matrix_of_many_classes():
    big = np.zeros((101, 101), np.int64)
    row = Row("m", "host", 1000, None, 100, confusion=big)
    assert row.to_json()["confusion"] is None
    assert dataclasses.replace(row, confusion=big[:100, :100]).to_json()["confusion"] == big[:100, :100].tolist()
