"""Tasks on images from `shapes` to the report: outputs of a target in their shape, metrics, pictures, comparison."""

from __future__ import annotations

import json
import math

import jsonschema
import keras
import numpy as np
import pytest

import tfkd
from tests.micro.execution import SANITIZED, compile_and_run
from tfkd import data, models, tasks
from tfkd.distillation import training
from tfkd.errors import ModelError
from tfkd.micro import export
from tfkd.recipes.recipe import training_config
from tfkd.tasks import anchors, detection, grid
from tfkd.validation import difference
from tfkd.validation.contract import Contract
from tfkd.validation.validator import validate

# Builder and options, a limit that an untrained model keeps, and the titles of its pictures.
CASES = {
    "segmentation": ("unet", {"filters": 4, "depth": 1, "light": True}, {"min_miou": 0}, ("Masks",)),
    "centroid_detection": ("grid_detector", {"alpha": 0.1}, {"min_f1": 0}, ("Centres",)),
    "keypoints": ("heatmap_net", {"filters": 4}, {"min_oks_ap": 0}, ("Points",)),
    "object_detection": ("ssdlite", {"head": 8}, {"min_ap50": 0}, ("Boxes", "Precision and recall")),
}


def untrained(name):
    """Task, data and a small model of random weights."""
    splits = data.load("shapes", labels=tasks.get(name).labels, sample_count=60, image_size=(32, 32))
    task = tasks.find(splits.train, name=name)
    assert isinstance(task, tasks.ScoredTask)
    builder, options, *_ = CASES[name]
    keras.utils.set_random_seed(0)
    return task, splits, models.build(builder, splits.train.input_shape, task.outputs(splits.train), **options)


@pytest.mark.parametrize(
    "name",
    ["object_detection"]
    + [pytest.param(name, marks=pytest.mark.campaign) for name in ("segmentation", "centroid_detection", "keypoints")],
)
def test_outputs_of_a_target_are_scored_and_shown(name, tmp_path):
    task, splits, model = untrained(name)
    converted = tfkd.convert(model, tmp_path / "model.tflite", mode="float32")
    _, _, limits, titles = CASES[name]
    options = {"targets": ["host"], "task": name}
    found = validate(converted, splits.test, reference=model, contract=Contract(**limits), **options)
    # No answer of random weights is better than a constant one; the limit itself is kept.
    assert found.verdict.status == "NO"
    assert {check.name: check.status for check in found.verdict.checks}[next(iter(limits))] == "holds"
    reference, row = found.rows
    expected = task.score(model.predict(splits.test.x.astype("float32"), verbose=0), splits.test)
    for metric in task.metrics:
        assert reference.result.metrics[metric.name].value == pytest.approx(expected.values[metric.name])
        change = row.result.differences["reference"][metric.name]
        assert math.isfinite(change.value)
        assert abs(change.value) < 1
    record = found.to_json()
    with open(tfkd.__path__[0] + "/report/schema.json", encoding="utf-8") as file:
        jsonschema.validate(json.loads(json.dumps(record)), json.load(file))
    page = tfkd.write_report(found, tmp_path / "report.html").read_text(encoding="utf-8")
    assert all(f">{title}<" in page for title in (*titles, *splits.test.class_names))
    assert page.count("data:image/png;base64,") >= 4
    assert "ccuracy on" not in page
    compared = difference.compare(converted, converted, splits.test, contract=Contract(max_bytes=10**7), task=name)
    (comparison,) = compared.comparisons
    assert (comparison.worsened, comparison.p_value) == ((), None)


@pytest.mark.campaign
def test_student_is_distilled_and_its_threshold_chosen():
    task, splits, student = untrained("centroid_detection")
    teacher = models.build("grid_detector", splits.train.input_shape, task.outputs(splits.train), alpha=0.25)
    before = training.evaluate(student, splits.train, task)
    distiller = tfkd.Distiller(student, teacher, alpha=0.5, task=task.name)
    history = training.fit(distiller, splits, training_config(epochs=3, batch_size=8, learning_rate=1e-2), task=task)
    assert set(history) >= {"loss", "soft_loss", "hard_loss", "cell_f1", "val_cell_f1", "val_loss"}
    assert history["hard_loss"][-1] < history["hard_loss"][0]
    assert set(training.evaluate(student, splits.train, task)) == set(before) == {"f1"}


@pytest.mark.parametrize("name", tasks.NAMES)
def test_metrics_and_loss_of_a_training_are_restored_from_their_settings(name):
    task = detection.ObjectDetection((32, 32)) if name == "object_detection" else tasks.get(name)
    for one in (*task.training_metrics(), task.hard_loss()):
        if not isinstance(one, str):
            copy = keras.saving.deserialize_keras_object(keras.saving.serialize_keras_object(one))
            assert (type(copy), copy.get_config()) == (type(one), one.get_config())
            assert one.__module__.startswith("keras.") or keras.saving.get_registered_name(type(one)).startswith(
                "tfkd>"
            )


def decoded_in_c(name, decoder, fields, threshold, folder):
    """Random outputs of an int8 model, as real values, and what its decoder in C finds in each."""
    _, splits, model = untrained(name)
    converted = tfkd.convert(model, folder / "model.tflite", calibration=splits.train)
    export.write(converted, folder / "c", decode=decoder)
    other = {"ssd": "grid", "grid": "ssd"}[decoder]
    with pytest.raises(ModelError, match=rf"the decoder {other} takes an output \["):
        export.write(converted, folder / "other", decode=other)
    tensor = converted.outputs[0]
    rng = np.random.default_rng(0)
    raw = rng.integers(-128, 128, (50, *tensor.sample_shape), dtype=np.int8)
    raw[25:] = rng.integers(-3, 3, raw[25:].shape)  # many equal values
    count = raw[0].size
    kind = "box" if decoder == "ssd" else "centre"
    values = ", ".join(f"(double)found[i].{field}" for field in fields)
    main = [
        '#include <stdio.h>\n#include "model_decode.c"\nint main(void) {',
        f"static int8_t out[{count}]; static tfkd_model_{kind} found[{count}]; int i, n;",
        f"while (fread(out, 1, {count}, stdin) == {count}) {{",
        f"n = tfkd_model_decode(out, {threshold}f, found, {count});",
        f'printf("%d\\n", n); for (i = 0; i < n; i++) printf("{"%.9g " * len(fields)}\\n", {values});',
        f'printf("%d\\n", tfkd_model_decode(out, {threshold}f, found, 2)); }} return 0; }}',
    ]
    lines = iter(
        compile_and_run(folder / "c", main, [raw], *SANITIZED, "-Wl,--no-as-needed", "-lm").decode().split("\n")
    )
    found = []
    for _ in raw:
        rows = [[float(text) for text in next(lines).split()] for _ in range(int(next(lines)))]
        assert int(next(lines)) == min(2, len(rows))
        found.append(np.array(rows).reshape(-1, len(fields)))
    return converted.dequantize_output(raw).reshape(raw.shape), found


def test_centres_of_the_c_decoder_are_those_of_python(tmp_path):
    outputs, answers = decoded_in_c("centroid_detection", "grid", ("x", "y", "score", "label"), 0.3, tmp_path)
    for logits, found in zip(outputs, answers, strict=True):
        expected = grid.decode(logits, 0.3)
        np.testing.assert_allclose(found[:, 2], expected.scores, atol=1e-6)
        # Equal probabilities may be in another order.
        others = np.stack([expected.x, expected.y, expected.classes], axis=1)
        rounded = [sorted(map(tuple, np.round(rows, 5).tolist())) for rows in (found[:, [0, 1, 3]], others)]
        assert rounded[0] == rounded[1]


def test_boxes_of_the_c_decoder_are_those_of_python(tmp_path):
    fields = ("left", "top", "right", "bottom", "score", "label")
    outputs, answers = decoded_in_c("object_detection", "ssd", fields, 0.4, tmp_path)
    layout = anchors.for_outputs((32, 32, 3), outputs.shape[1])
    assert max(map(len, answers)) > 20
    for values, found in zip(outputs, answers, strict=True):
        expected = anchors.decode(values, layout, 0.4)
        np.testing.assert_allclose(found[:, :4], expected.ends, atol=1e-6)
        np.testing.assert_allclose(found[:, 4], expected.scores, atol=1e-6)
        np.testing.assert_array_equal(found[:, 5], expected.classes)
