"""Data sets of TensorFlow Datasets on disk."""

import sys

import numpy as np
import pytest

from tests.data.test_tfrecord import example, png, write
from tfkd import data
from tfkd.errors import InputError, ToolMissingError

tfds = pytest.importorskip("tensorflow_datasets")
NAMES = ["cat", "dog"]


@pytest.fixture
def on_disk(tmp_path, monkeypatch):
    """A data set `pets` of 12 training and 4 test images, without a part for validation, and `texts` without images."""
    monkeypatch.setenv("TFDS_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(tfds.core.constants, "DATA_DIR", str(tmp_path))
    features = tfds.features.FeaturesDict(
        {"image": tfds.features.Image(shape=(5, 6, 3)), "label": tfds.features.ClassLabel(names=NAMES)}
    )
    for name, keys in (("pets", ("image", "label")), ("texts", None)):
        folder = tmp_path / name / "1.0.0"
        folder.mkdir(parents=True)
        infos = []
        for split, count in (("train", 12), ("test", 4)):
            path = folder / f"{name}-{split}.tfrecord-00000-of-00001"
            write(path, [example(image=png(row), label=row % 2) for row in range(count)])
            infos.append(
                tfds.core.SplitInfo(
                    name=split,
                    shard_lengths=[count],
                    num_bytes=path.stat().st_size,
                    filename_template=tfds.core.ShardedFileTemplate(
                        dataset_name=name, data_dir=folder, split=split, filetype_suffix="tfrecord"
                    ),
                )
            )
        tfds.folder_dataset.write_metadata(
            data_dir=str(folder), features=features, split_infos=infos, supervised_keys=keys
        )
    return tmp_path


def test_parts_and_class_names_are_those_of_the_data_set(on_disk):
    splits = data.load("tfds:pets", validation=0.25)
    assert [len(split) for split in splits] == [8, 4, 4]
    assert splits.train.class_names == ("cat", "dog")
    assert splits.train.input_shape == (5, 6, 3)
    assert (splits.test.x[3] == [3, 0, 252]).all()
    assert splits.test.y.tolist() == [0, 1, 0, 1]
    small = data.load("tfds:pets:1.0.0", image_size=(3, 2), color="gray").test
    expected = np.round(0.299 * 3 + 0.114 * 252)
    assert small.input_shape == (3, 2, 1)
    assert np.abs(small.x[3].astype(float) - expected).max() <= 1


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("tfds:none_such", "must be a data set of TensorFlow Datasets"),
        ("tfds:mnist", "must be on this machine. Received: nothing in"),
        ("tfds:texts", "must have an input and a class"),
    ],
)
def test_other_data_set_is_refused(on_disk, name, message):
    with pytest.raises(InputError, match=message):
        data.load(name)


def test_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow_datasets", None)
    with pytest.raises(ToolMissingError, match=r"pip install 'tfkd\[tfds\]'"):
        data.load("tfds:mnist")
