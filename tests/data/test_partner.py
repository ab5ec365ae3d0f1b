"""Batches in which teacher and student see different samples."""

from __future__ import annotations

import numpy as np
import pytest

import tfkd
from tfkd.errors import InputError


def paired_splits(rows: int = 60, classes: int = 3) -> tuple[tfkd.data.Splits, tfkd.data.Splits]:
    """Two data sets with the same rows; the samples of the second are 10 times those of the first, as [2, 2, 1]."""
    y = np.arange(rows) % classes
    x = np.arange(rows * 4, dtype="float32").reshape(rows, 4) / 7
    first = tfkd.data.from_arrays((x, y), (x[:9] + 0.5, y[:9]), name="a", validation=0.2)
    teacher_x = (10 * x).reshape(rows, 2, 2, 1)
    return first, tfkd.data.from_arrays((teacher_x, y), (teacher_x[:9] + 5, y[:9]), name="b", validation=0.2)


@pytest.mark.parametrize("shuffle", [False, True])
def test_partner_by_row_gives_the_same_rows(shuffle: bool) -> None:
    student, teacher = paired_splits()
    partner = tfkd.data.Partner(teacher.train)
    for x, y in student.train.batches(16, shuffle=shuffle, partner=partner):
        assert x.teacher.shape[1:] == (2, 2, 1)
        np.testing.assert_allclose(x.teacher.numpy().reshape(len(y), 4), 10 * x.student.numpy(), rtol=1e-6)


def test_partner_by_row_finds_rows_after_a_sample() -> None:
    student, teacher = paired_splits()
    for x, _ in student.train.sample(12).batches(5, partner=tfkd.data.Partner(teacher.train)):
        np.testing.assert_allclose(x.teacher.numpy().reshape(-1, 4), 10 * x.student.numpy(), rtol=1e-6)


def test_partner_by_label_gives_another_sample_of_the_class_each_epoch() -> None:
    student, _ = paired_splits()
    images = tfkd.data.load("digits", validation=0.1)
    few = images.train.take(np.flatnonzero(images.train.y < 3))
    few = tfkd.data.Split(few.x, few.y, few.ids, "train", "digits", student.train.class_names)
    batches = student.train.batches(len(student.train), partner=tfkd.data.Partner(few, by="label"), seed=3)
    epochs = [next(iter(batches)) for _ in range(2)]
    for x, y in epochs:
        for image, label in zip(x.teacher.numpy(), y.numpy(), strict=True):
            same = (few.x[few.y == label].astype("float32") == image).all(axis=(1, 2, 3))
            assert same.any()
    assert not np.array_equal(epochs[0][0].teacher, epochs[1][0].teacher)
    again = student.train.batches(len(student.train), partner=tfkd.data.Partner(few, by="label"), seed=3)
    assert np.array_equal(next(iter(again))[0].teacher, epochs[0][0].teacher)


def test_partner_by_row_with_other_rows_is_refused() -> None:
    student, teacher = paired_splits()
    relabelled = tfkd.data.Split(
        teacher.train.x, teacher.train.y[::-1].copy(), teacher.train.ids, "train", "b", teacher.train.class_names
    )
    with pytest.raises(InputError, match=r"row \d+ is of another class in b; \d+ rows differ"):
        student.train.batches(4, partner=tfkd.data.Partner(relabelled))
    with pytest.raises(InputError, match=r"row \d+ is missing in b"):
        student.train.batches(4, partner=tfkd.data.Partner(teacher.train.sample(6)))


def test_partner_of_another_role_is_refused() -> None:
    student, teacher = paired_splits()
    with pytest.raises(InputError, match="both splits must have the same role"):
        student.train.batches(4, partner=tfkd.data.Partner(teacher.test))


def test_partner_with_other_classes_is_refused() -> None:
    student, _ = paired_splits()
    with pytest.raises(InputError, match="must have the same classes"):
        student.train.batches(4, partner=tfkd.data.Partner(tfkd.data.load("digits").train, by="label"))


def named(split: tfkd.data.Split, *names: str) -> tfkd.data.Split:
    return tfkd.data.Split(split.x, split.y, split.ids, split.role, split.name, names)


def test_partner_by_label_with_other_names_of_classes_is_refused(caplog: pytest.LogCaptureFixture) -> None:
    """Names in alphabetical order are not in that of their numbers, and another order pairs other classes."""
    student, teacher = paired_splits()
    spoken = named(student.train, "one", "two", "zero")
    with pytest.raises(InputError, match="class 0 is 'one' for the student and 'zero' for the teacher. Name them"):
        spoken.batches(4, partner=tfkd.data.Partner(named(teacher.train, "zero", "one", "two"), by="label"))
    spoken.batches(4, partner=tfkd.data.Partner(named(teacher.train, "one", "two", "zero"), by="label"))
    assert not caplog.text
    spoken.batches(4, partner=tfkd.data.Partner(teacher.train, by="label"))
    assert "paired by their number: class 0 is 'one' for the student and '0' for the teacher" in caplog.text


def test_partner_by_label_without_a_class_is_refused() -> None:
    student, teacher = paired_splits()
    some = teacher.train.take(np.flatnonzero(teacher.train.y != 1))
    with pytest.raises(InputError, match="none of class 1"):
        student.train.batches(4, partner=tfkd.data.Partner(some, by="label"))


def test_partner_by_unknown_value_is_refused() -> None:
    with pytest.raises(InputError, match="by must be row or label"):
        tfkd.data.Partner(paired_splits()[0].train, by="name")
