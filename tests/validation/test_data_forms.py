"""One user's tf.data pipeline goes through labels, conversion, validation, explanation and golden vectors."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import tfkd
from tfkd import data
from tfkd.validation import golden


@pytest.fixture(scope="module")
def pipeline():
    """A `tf.data.Dataset` of batches of digits."""
    train = data.load("digits").train.sample(120)
    return tf.data.Dataset.from_tensor_slices((train.x.astype("float32"), train.y)).batch(50)


@pytest.fixture(scope="module")
def converted(pipeline, digits_student_file, tmp_path_factory):
    """The student in int8, calibrated with the pipeline."""
    path = tmp_path_factory.mktemp("model") / "student.tflite"
    return tfkd.convert(keras.saving.load_model(digits_student_file), path, calibration=pipeline)


def test_convert_takes_a_representative_dataset(digits_student_file, tmp_path):
    x = data.load("digits").train.sample(100).x.astype("float32")
    model = tfkd.convert(digits_student_file, tmp_path / "m.tflite", calibration=lambda: ([one[None]] for one in x))
    assert (model.audit.samples, model.audit.accuracy) == (100, None)


def test_convert_calibrates_with_a_pipeline(converted):
    assert converted.audit.samples == 120
    assert converted.audit.classes_covered == converted.audit.classes_total == 10
    assert converted.audit.accuracy > 0.7


def test_validate_explain_and_golden_take_a_pipeline(converted, pipeline, digits_student_file):
    found = tfkd.validate(converted, pipeline, targets=["host"])
    right = tfkd.validate(converted, data.as_split(pipeline, "test"), targets=["host"])
    assert found.rows[0].accuracy == right.rows[0].accuracy > 0.7
    explained = tfkd.explain(digits_student_file, converted, pipeline, targets=["host:plain"], samples=8)
    assert explained.stages[-1].accuracy == pytest.approx(found.rows[0].accuracy, abs=0.02)
    assert golden.record(converted, pipeline, samples=5, target="host").label.shape == (5,)


def test_labels_are_stored_for_a_pipeline(pipeline, digits_teacher_file, tmp_path):
    teacher = keras.saving.load_model(digits_teacher_file)
    store = tfkd.SoftLabels.build(tmp_path / "labels", teacher, pipeline)
    assert store.ids.tolist() == list(range(120))
    x = np.concatenate([x for x, _ in pipeline])
    np.testing.assert_allclose(store.read(store.ids), teacher(x, training=False), atol=0.05)


def test_distiller_fits_a_stream(pipeline, digits_student_file, digits_teacher_file):
    student, teacher = (keras.saving.load_model(file) for file in (digits_student_file, digits_teacher_file))
    distiller = tfkd.Distiller(student, teacher)
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    stream = data.Stream(lambda: pipeline.as_numpy_iterator(), 120)
    history = distiller.fit(stream, validation_data=stream, batch_size=60, epochs=1, verbose=0).history
    assert history["val_loss"]
