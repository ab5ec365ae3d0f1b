"""What changed between two .tflite files: answers, classes, ops, size, and the verdict over it."""

import json

import keras
import numpy as np
import pytest

from tfkd import data, targets
from tfkd.conversion.converter import convert
from tfkd.validation.contract import Contract
from tfkd.validation.difference import compare

SHAPE = (8, 8, 1)


@pytest.fixture(scope="module")
def splits():
    return data.load("digits")


@pytest.fixture(scope="module")
def student(digits_student_file):
    return keras.saving.load_model(digits_student_file)


@pytest.fixture(scope="module")
def old(student, splits, tmp_path_factory):
    return convert(student, tmp_path_factory.mktemp("old") / "m.tflite", calibration=splits.train)


@pytest.fixture(scope="module")
def new(student, splits, tmp_path_factory):
    """The student with its answers for class 3 spoiled."""
    worse = keras.models.clone_model(student)
    worse.set_weights(student.get_weights())
    bias = worse.layers[-1].bias
    bias.assign(bias.numpy() - 4 * (np.arange(10) == 3))
    return convert(worse, tmp_path_factory.mktemp("new") / "m.tflite", calibration=splits.train)


@pytest.fixture(scope="module")
def found(old, new, splits):
    return compare(old, new, splits.test, targets=["host"], contract=Contract(max_accuracy_drop=0.1))


def answers(model, split):
    return targets.get("host").run(model, model.quantize_input(split.x), latency=False).outputs[0].argmax(axis=1)


def test_flips_are_those_of_the_answers(found, old, new, splits):
    test = splits.test
    was, now = answers(old, test) == test.y, answers(new, test) == test.y
    (one,) = found.comparisons
    assert set(one.lost) == set(test.ids[was & ~now])
    assert set(one.mended) == set(test.ids[~was & now])
    assert len(one.lost) > len(one.mended)
    assert one.b.flips == (len(one.lost), len(one.mended))
    assert one.b.agreement == pytest.approx((answers(old, test) == answers(new, test)).mean())


def test_class_that_lost_the_most_comes_first(found, old, new, splits):
    three = splits.test.y == 3
    name, before, after = found.comparisons[0].classes[0]
    assert name == "3"
    assert before == pytest.approx((answers(old, splits.test)[three] == 3).mean())
    assert after == pytest.approx((answers(new, splits.test)[three] == 3).mean())


def test_p_value_is_that_of_an_exact_mcnemar_test(found):
    from scipy.stats import binom

    (one,) = found.comparisons
    few, flips = min(len(one.lost), len(one.mended)), len(one.lost) + len(one.mended)
    assert one.p_value == pytest.approx(min(1, 2 * binom.cdf(few, flips, 0.5)))


def test_contract_refers_to_the_first_model(found, old, new, splits):
    (one,) = found.comparisons
    assert (one.verdict.status, found.ok) == ("NO", False)
    loose = compare(old, new, splits.test, contract=Contract(max_accuracy_drop=99, max_bytes=10**6))
    assert loose.ok
    assert not compare(old, new, splits.test, contract=Contract(min_agreement=1.0)).ok


def test_model_differs_from_itself_in_nothing(old, splits):
    same = compare(old, old, splits.test, contract=Contract(min_agreement=1.0))
    (one,) = same.comparisons
    assert same.ok
    assert (same.ops, same.changes, one.lost, one.mended, one.reworded, one.classes) == ({}, (), (), (), (), ())
    assert (one.p_value, one.output_divergence.max_steps) == (1.0, 0)


def test_text_and_json_say_it(found):
    text = "\n".join(found.lines())
    lost = len(found.comparisons[0].lost)
    assert f"{lost} lost" in text
    assert "class 3: " in text
    assert "Verdict on host: NO (decided by max_accuracy_drop)" in text
    record = json.loads(json.dumps(found.to_json()))
    assert record["ok"] is False
    assert len(record["comparisons"][0]["lost"]) == lost


def test_steps_types_and_ops_that_change_are_named(old, student, splits, tmp_path):
    changed = [what for _, _, _, what in compare(old, _coarser(student, splits, tmp_path), splits.test).changes]
    assert any(what.startswith("output steps x ") for what in changed)
    floats = compare(old, convert(student, tmp_path / "f.tflite", mode="float32"), splits.test)
    assert any(what.startswith("output int8 -> float32, second input int8 -> float32") for *_, what in floats.changes)
    assert floats.comparisons[0].output_divergence is None
    image = keras.Input(SHAPE)
    deeper = keras.Model(image, keras.layers.Dense(10)(keras.layers.Flatten()(keras.layers.MaxPooling2D()(image))))
    other = compare(old, convert(deeper, tmp_path / "d.tflite", calibration=splits.train), splits.test)
    assert other.ops["MAX_POOL_2D"] == (0, 1)
    assert {"new", "gone"} <= {what for *_, what in other.changes}


def _coarser(student, splits, tmp_path):
    """The student with kernels of twice the size and so with other steps."""
    wider = keras.models.clone_model(student)
    wider.set_weights([2 * weight for weight in student.get_weights()])
    return convert(wider, tmp_path / "wider.tflite", calibration=splits.train)


def test_model_that_a_target_refuses_is_not_ok(old, student, splits, tmp_path):
    hybrid = convert(student, tmp_path / "m.tflite", mode="float16")
    refused = compare(old, hybrid, splits.test, targets=["tflm"])
    assert not refused.ok
    assert "on tflm: b does not run: tflm: " in "\n".join(refused.lines())


def test_split_and_file_of_another_kind_are_refused(old, splits, tmp_path):
    with pytest.raises(ValueError, match=r"validation needs a split with role test"):
        compare(old, old, splits.train)
    (tmp_path / "b.tflite").write_bytes(b"PK" + bytes(100))
    with pytest.raises(ValueError, match=r"b.tflite: must be a .tflite file"):
        compare(old, tmp_path / "b.tflite", splits.test)
