"""Macro F1 and calibration error of a classification against scikit-learn and the formula of the paper."""

import keras
import numpy as np
import pytest
from sklearn.metrics import f1_score

import tfkd
from tfkd.report.page import html, markdown
from tfkd.validation import class_scores

RNG = np.random.default_rng(0)


def ends(activation):
    inputs = keras.Input((5,))
    return keras.Model(inputs, keras.layers.Activation(activation)(inputs))


def calibration_error(probabilities, y):
    """Equation 3 of arXiv:1706.04599, sample by sample."""
    confidence, right = probabilities.max(1), probabilities.argmax(1) == y
    total = 0.0
    for low, high in zip(np.linspace(0, 1, 16)[:-1], np.linspace(0, 1, 16)[1:], strict=True):
        chosen = (confidence > low) & (confidence <= high)
        if chosen.any():
            total += chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean())
    return 100 * total


@pytest.mark.parametrize(
    ("activation", "shown"),
    [("linear", "linear"), ("softmax", "softmax"), ("softmax", "linear"), ("sigmoid", "sigmoid")],
    ids=["logits", "softmax", "hidden softmax", "sigmoid"],
)
def test_values_are_those_of_other_implementations(activation, shown):
    y = RNG.integers(0, 4, 400)  # of five classes one never occurs among the labels
    logits = RNG.normal(size=(400, 5)) + 2 * np.eye(5)[y]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    if activation == "sigmoid":
        probabilities = 1 / (1 + np.exp(-logits))
    outputs = logits if activation == "linear" else probabilities
    found = class_scores.compute(outputs, y, ends(shown))  # such as the mean of two models hides its softmax
    assert found.values["macro_f1"] == pytest.approx(100 * f1_score(y, outputs.argmax(1), average="macro"))
    assert found.values["ece"] == pytest.approx(calibration_error(probabilities, y))
    values = class_scores.metrics_of(found, {"reference": (found, True)})
    for name, one in values.metrics.items():
        assert one.interval[0] < one.value < one.interval[1] + (name == "ece") * 5
        assert values.differences["reference"][name].interval == (0, 0)


def test_limits_on_both_decide_the_verdict(digits_int8, student, splits):
    def judged(**limits):
        return tfkd.validate(
            digits_int8, splits.test, reference=student, targets=["host:plain"], contract=tfkd.Contract(**limits)
        )

    found = judged(min_macro_f1=80, max_macro_f1_drop=3, max_ece=60)
    checks = {check.name: check for check in found.verdict.checks}
    assert (found.verdict.status, checks["max_macro_f1_drop"].status) == ("SHIP", "holds")
    logits = student.predict(splits.test.x.astype("float32"), verbose=0)
    reference = found.rows[0].class_metrics.metrics["macro_f1"].value
    assert reference == pytest.approx(100 * f1_score(splits.test.y, logits.argmax(1), average="macro"))
    assert checks["min_macro_f1"].value == pytest.approx(reference, abs=2)
    assert "Macro F1" in markdown(found.to_json())
    assert f"{reference:.1f}" in html(found.to_json())
    alone = judged(max_ece=60)
    assert alone.verdict.status == "UNKNOWN"  # a constant answer may be calibrated
