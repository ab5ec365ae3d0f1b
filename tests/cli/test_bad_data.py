"""Data that are wrong end a command with exit status 2 and a message that names file and line."""

import numpy as np
import pytest
import tensorflow as tf
from typer.testing import CliRunner

from tests.data.data_sets import folder, saved
from tfkd.cli import app


def empty_folder(path):
    (path / "pets").mkdir()
    return path / "pets"


def one_class(path):
    return folder(path / "pets", sizes=(12,), size=(8, 8))


def unreadable_image(path):
    folder(path / "pets", sizes=(4, 4), size=(8, 8))
    (path / "pets" / "class1" / "4.png").symlink_to(path / "nowhere.png")
    return path / "pets"


def labels_of_text(path):
    return saved(path, y_train=np.array(["cat", "dog", "cow", "fox"] * 10), y_test=np.array(["cat"] * 20))


def label_out_of_range(path):
    return saved(path, y_test=np.array([0] * 19 + [4]))


def missing_file(path):
    folder(path, sizes=(4, 4), size=(8, 8))
    (path / "list.csv").write_text("path,label\nclass0/0.png,a\nclass0/9.png,a\n")
    return path / "list.csv"


def unequal_columns(path):
    (path / "list.csv").write_text("label,a,b\nx,1,2\ny,1\n")
    return path / "list.csv"


def unequal_keys(path):
    (path / "list.jsonl").write_text('{"label": "a", "x": [1, 2]}\n{"label": "b", "y": [1, 2]}\n')
    return path / "list.jsonl"


def class_that_is_not_trained(path):
    (path / "list.csv").write_text("label,split,a\nx,train,1\ny,train,2\nx,test,3\nz,test,4\n")
    return path / "list.csv"


def no_number(path):
    (path / "list.csv").write_text("label,a,b\nx,1,2\ny,1,two\n")
    return path / "list.csv"


def other_schema(path):
    feature = tf.train.Feature(int64_list=tf.train.Int64List(value=[1]))
    example = tf.train.Example(features=tf.train.Features(feature={"klass": feature, "y": feature}))
    with tf.io.TFRecordWriter(str(path / "a.tfrecord")) as writer:
        writer.write(example.SerializeToString())
    return path / "a.tfrecord"


@pytest.mark.parametrize(
    ("make", "message", "advice"),
    [
        (empty_folder, "pets must hold one folder of images per class. Received: no folder", "Make a folder for each"),
        (one_class, "labels must have two classes or more. Received: one, 'class0'", "Add samples of another class"),
        (unreadable_image, "pets/class1/4.png must be a readable PNG", "pass --skip-broken"),
        (labels_of_text, "set.npz: y_train must be integers. Received: texts, such as 'cat'", "np.unique(y_train"),
        (label_out_of_range, "the classes of y_train. Received: 4 in y_test, row 19", "Renumber"),
        (missing_file, "list.csv, line 3: path must be a file", "remove the line"),
        (unequal_columns, "list.csv, line 3: each row must have the 3 columns of line 1. Received: 2", "Correct"),
        (unequal_keys, "list.jsonl, line 2: each row must have the same columns. Received: x, y", "Correct the line"),
        (class_that_is_not_trained, "list.csv, line 5: the class must be one of those of the training", "Correct it"),
        (no_number, "list.csv, line 3: column 'b' must be a finite number. Received: 'two'", "Correct it"),
        (other_schema, "a.tfrecord, record 0: must have the feature 'x'. Received: klass (int64), y", "Name one"),
    ],
)  # fmt: skip
def test_wrong_data_end_a_command_with_file_line_and_advice(tmp_path, make, message, advice):
    out = tmp_path / "m.keras"
    ran = CliRunner().invoke(app, ["train", "digits_student", "--data", str(make(tmp_path)), "--out", str(out)])
    assert ran.exit_code == 2, ran.output
    assert message in ran.stderr
    assert advice in ran.stderr.partition(message)[2]
    assert not out.exists()
