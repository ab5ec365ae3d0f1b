"""The difference between two .tflite files: predictions, classes, ops, size, and the verdict on it."""

import dataclasses
import json

import keras
import numpy as np
import pytest

from tfkd import targets
from tfkd.conversion.converter import convert
from tfkd.validation.contract import Contract
from tfkd.validation.difference import compare

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def old(modes):
    return modes["full_int8"]


@pytest.fixture(scope="module")
def new(student, splits, tmp_path_factory):
    """The student with a lower bias for class 3."""
    worse = keras.models.clone_model(student)
    worse.set_weights(student.get_weights())
    bias = worse.layers[-1].bias
    bias.assign(bias.numpy() - 4 * (np.arange(10) == 3))
    return convert(worse, tmp_path_factory.mktemp("new") / "m.tflite", calibration=splits.train)


@pytest.fixture(scope="module")
def found(old, new, splits):
    return compare(old, new, splits.test, targets=["host"], contract=Contract(max_accuracy_drop=0.1))


def predictions(model, split):
    return targets.get("host").run(model, model.quantize_input(split.x), latency=False).outputs[0].argmax(axis=1)


def test_regressed_and_fixed_samples_are_those_of_the_predictions(found, old, new, splits):
    test = splits.test
    was, now = predictions(old, test) == test.y, predictions(new, test) == test.y
    (one,) = found.comparisons
    assert set(one.regressed) == set(test.ids[was & ~now])
    assert set(one.fixed) == set(test.ids[~was & now])
    assert len(one.regressed) > len(one.fixed)
    assert one.b.flips == (len(one.regressed), len(one.fixed))
    assert one.b.agreement == pytest.approx((predictions(old, test) == predictions(new, test)).mean())


def test_samples_of_files_are_named_by_them(found, old, new, splits):
    test = splits.test
    files = dataclasses.replace(test, paths=np.array([f"{label}/{number}.png" for number, label in enumerate(test.y)]))
    (one,) = compare(old, new, files, targets=["host"]).comparisons
    assert one.regressed == tuple(files.paths[np.isin(test.ids, found.comparisons[0].regressed)].tolist())


def test_class_with_the_largest_drop_comes_first(found, old, new, splits):
    three = splits.test.y == 3
    name, before, after = found.comparisons[0].classes[0]
    assert name == "3"
    assert before == pytest.approx((predictions(old, splits.test)[three] == 3).mean())
    assert after == pytest.approx((predictions(new, splits.test)[three] == 3).mean())


def test_p_value_is_that_of_an_exact_mcnemar_test(found):
    from scipy.stats import binom

    (one,) = found.comparisons
    few, flips = min(len(one.regressed), len(one.fixed)), len(one.regressed) + len(one.fixed)
    assert one.p_value == pytest.approx(min(1, 2 * binom.cdf(few, flips, 0.5)))


def test_contract_refers_to_the_first_model(found, old, new, splits):
    (one,) = found.comparisons
    assert (one.verdict.status, found.ok) == ("NO", False)
    loose = compare(old, new, splits.test, contract=Contract(max_accuracy_drop=99, max_bytes=10**6))
    assert loose.ok
    assert not compare(old, new, splits.test, contract=Contract(max_accuracy_drop=99, min_agreement=100)).ok


def test_model_differs_from_itself_in_nothing(old, splits):
    same = compare(old, old, splits.test, contract=Contract(max_accuracy_drop=0, min_agreement=100))
    (one,) = same.comparisons
    assert same.ok
    assert (same.ops, same.changes, one.regressed, one.fixed, one.changed_errors, one.classes) == (
        {},
        (),
        (),
        (),
        (),
        (),
    )
    assert (one.p_value, one.output_divergence.max_steps) == (1.0, 0)


def test_text_and_json_name_regressed_samples_and_the_verdict(found):
    text = "\n".join(found.lines())
    regressed = len(found.comparisons[0].regressed)
    assert f"{regressed} regressed" in text
    assert "class 3: " in text
    assert "Verdict on host: NO (decided by max_accuracy_drop)" in text
    record = json.loads(json.dumps(found.to_json()))
    assert record["ok"] is False
    assert len(record["comparisons"][0]["regressed"]) == regressed


def test_changed_step_sizes_types_and_ops_are_named(old, modes, student, splits, tmp_path):
    changes = compare(old, _coarser(student, splits, tmp_path), splits.test).changes
    assert any(one.change.startswith("output step size x ") for one in changes)
    assert "logits" in {one.b for one in changes} <= {layer.name for layer in student.layers}
    floats = compare(old, modes["float32"], splits.test)
    assert any(what.startswith("output int8 -> float32, second input int8 -> float32") for *_, what in floats.changes)
    assert floats.comparisons[0].output_divergence is None
    image = keras.Input(SHAPE)
    deeper = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(keras.layers.MaxPooling2D()(image))))
    other = compare(old, convert(deeper, tmp_path / "d.tflite", calibration=splits.train), splits.test)
    assert other.ops["MAX_POOL_2D"] == (0, 1)
    assert {"added", "removed"} <= {what for *_, what in other.changes}


def _coarser(student, splits, tmp_path):
    """The student with doubled weights, and so with other step sizes."""
    wider = keras.models.clone_model(student)
    wider.set_weights([2 * weight for weight in student.get_weights()])
    return convert(wider, tmp_path / "wider.tflite", calibration=splits.train)


def test_model_that_a_target_refuses_is_not_ok(old, modes, splits):
    refused = compare(old, modes["float16"], splits.test, targets=["tflm"])
    assert not refused.ok
    assert "on tflm: b has no valid result: tflm: " in "\n".join(refused.lines())


def test_split_of_another_role_and_file_of_another_format_are_refused(old, splits, tmp_path):
    with pytest.raises(ValueError, match=r"validation needs a split with role test"):
        compare(old, old, splits.train)
    (tmp_path / "b.tflite").write_bytes(b"PK" + bytes(100))
    with pytest.raises(ValueError, match=r"b.tflite: must be a .tflite file"):
        compare(old, tmp_path / "b.tflite", splits.test)


def test_limits_on_divergence_ram_and_flash_apply_to_the_second_model(old, new, splits):
    same = compare(old, old, splits.test, contract=Contract(max_accuracy_drop=0, max_divergence_steps=0))
    assert (same.comparisons[0].verdict.status, same.ok) == ("SHIP", True)
    unknown = compare(old, new, splits.test, contract=Contract(max_ram_bytes=9999, max_flash_bytes=9999))
    assert {check.name: check.status for check in unknown.comparisons[0].verdict.checks} == {
        "runs": "holds",
        "better_than_constant": "holds",
        "quality": "unknown",
        "max_ram_bytes": "unknown",
        "max_flash_bytes": "unknown",
    }


def test_limits_against_keras_models_are_refused(old, new, splits):
    with pytest.raises(ValueError, match="max_drop_from_teacher refers to a Keras model"):
        compare(old, new, splits.test, contract=Contract(max_drop_from_teacher=1))


def test_long_names_of_tensors_are_shortened_in_the_text(old, splits, tmp_path):
    image = keras.Input(SHAPE)
    name = "a" * 200
    long = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(keras.layers.ReLU(name=name)(image))))
    found = compare(old, convert(long, tmp_path / "d.tflite", mode="float32"), splits.test)
    assert max(len(line) for line in found.lines() if str(tmp_path) not in line) < 160
