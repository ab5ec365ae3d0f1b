"""Images that are read when they are used, from labels to validation."""

import dataclasses

import keras
import numpy as np
import pytest
from PIL import Image

import tfkd
from tfkd import data
from tfkd.data import lazy
from tfkd.data.lazy import LazySamples
from tfkd.targets.host import Host
from tfkd.validation import golden, partial_runs


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """The folder of some digits as PNG files."""
    root = tmp_path_factory.mktemp("photos")
    for split in data.load("digits"):
        part = root / ("test" if split.role == "test" else "train")
        for image, label, number in zip(split.x, split.y, split.ids, strict=True):
            if number % 5 == 0:
                (part / str(label)).mkdir(parents=True, exist_ok=True)
                Image.fromarray(image[..., 0]).save(part / str(label) / f"{number}.png")
    return root


def test_streamed_data_are_labelled_converted_and_validated_as_in_memory(
    photos, digits_teacher_file, digits_student_file, tmp_path, monkeypatch
):
    monkeypatch.setattr(partial_runs, "_PART", 50)
    teacher, student = (keras.saving.load_model(file) for file in (digits_teacher_file, digits_student_file))
    found = []
    for bound in (lazy.IN_MEMORY_BYTES, 0):
        monkeypatch.setattr(lazy, "IN_MEMORY_BYTES", bound)
        train, _, test = data.load(photos)
        assert isinstance(train.x, LazySamples) == (bound == 0)
        store = tfkd.SoftLabels.build(tmp_path / f"labels-{bound}", teacher, train)
        (batch, _), *_ = train.batches(16, soft_labels=store)
        model = tfkd.convert(student, tmp_path / f"{bound}.tflite", calibration=train, calibration_samples=100)
        rows = tfkd.validate(model, test, reference=student, targets=["host"]).rows
        vectors = golden.record(model, test, samples=5, target="host")
        found.append((batch.soft_labels, model.content, [row.accuracy for row in rows], vectors.output))
    for small, large in zip(*found, strict=True):
        np.testing.assert_array_equal(small, large)


def test_target_whose_runs_need_a_person_runs_once(digits_int8, monkeypatch):
    """The phone of `browser:wait` is not asked for each part of the samples."""
    monkeypatch.setattr(partial_runs, "_PART", 10)
    split = data.load("digits").test.sample(25)
    streamed = dataclasses.replace(split, x=lazy.mapped(split.x, "digits"))
    sizes = []

    @dataclasses.dataclass(frozen=True)
    class Counted(Host):
        runs_in_parts = False

        def run(self, model, inputs, *, latency=True):
            sizes.append(len(inputs))
            return super().run(model, inputs, latency=latency)

    (row,) = tfkd.validate(digits_int8, streamed, targets=[Counted()]).rows
    assert (sizes, row.samples) == ([25], 25)
    assert tfkd.validate(digits_int8, streamed, targets=["host"]).rows[0].accuracy == row.accuracy
