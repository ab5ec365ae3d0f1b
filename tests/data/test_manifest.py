"""Manifests: tables of files or values as a data set, and `tfkd split`, which writes one."""

import collections
import csv
import json

import numpy as np
import pytest
from PIL import Image, ImageEnhance
from typer.testing import CliRunner

from tests.data.data_sets import folder
from tfkd import data
from tfkd.cli import app
from tfkd.data import manifest
from tfkd.errors import InputError


def table(path, text):
    path.write_text(text)
    return path


def run(*arguments):
    return CliRunner().invoke(app, [*map(str, arguments)])


def test_manifest_of_files_is_a_data_set(tmp_path):
    folder(tmp_path / "pets", sizes=(3, 3))
    lines = ["path,label,split"]
    for number, part in enumerate(("train", "val", "test")):
        lines += [f"pets/class0/{number}.png,cat,{part}", f"pets/class1/{number}.png,dog,{part}"]
    splits = data.load(table(tmp_path / "pets.csv", "\n".join(lines)), image_size=(4, 4))
    assert [(len(split), split.class_names) for split in splits] == 3 * [(2, ("cat", "dog"))]
    assert splits.test.paths.tolist() == ["pets/class0/2.png", "pets/class1/2.png"]
    assert splits.train.input_shape == (4, 4, 3)


def test_manifest_of_numbers_is_a_table(tmp_path):
    text = "label,a,b,split\n" + "".join(f"{10 - i % 2},{i}.5,{-i},{'test' if i < 4 else 'train'}\n" for i in range(12))
    splits = data.load(table(tmp_path / "t.csv", text), validation=0)
    assert splits.train.class_names == ("9", "10")
    np.testing.assert_array_equal(splits.test.x, np.array([[0.5, 0], [1.5, -1], [2.5, -2], [3.5, -3]], np.float32))
    assert splits.test.y.tolist() == [1, 0, 1, 0]


def test_row_of_a_table_that_is_there_twice_is_in_one_part(tmp_path):
    rows = [f"{'ab'[i % 2]},{i}.5" for i in range(200)]
    for first in range(0, 40, 2):  # whichever of them is drawn for the test part
        copied = [*rows[:199], rows[first], rows[199]]
        splits = data.load(table(tmp_path / "t.csv", "\n".join(["label,v", *copied])))
        assert not len(splits.train.overlap(splits.test)) + len(splits.val.overlap(splits.test))


def numbered(numbers, values, labels="abc"):
    rows = (f"{n},{v},{labels[i % 3]}" for i, (n, v) in enumerate(zip(numbers, values, strict=True)))
    return "id,v,label\n" + "\n".join(rows)


@pytest.mark.parametrize("first", [0, 1, 1000])
def test_column_that_numbers_the_rows_is_refused(tmp_path, first):
    """Where classes follow one another such a column tells the class, of samples of the test part, too."""
    numbers = first + np.random.default_rng(0).permutation(30)
    with pytest.raises(InputError, match="column 'id', which numbers the rows. Remove it"):
        data.load(table(tmp_path / "t.csv", numbered(numbers, np.arange(30) / 7)))
    pointed = [f"{number}.0" for number in numbers]  # a measurement, such as an age, of which each occurs once
    assert data.load(table(tmp_path / "t.csv", numbered(pointed, np.arange(30) / 7))).train.input_shape == (2,)
    numbers[3] += 1  # values that are whole and occur twice are a measurement
    assert data.load(table(tmp_path / "t.csv", numbered(numbers, np.arange(30) / 7))).train.input_shape == (2,)


def test_ids_beside_labels_and_files_in_another_column_are_refused(tmp_path):
    ids = "id,label\n" + "\n".join(f"{i:05d},{'ab'[i % 2]}" for i in range(30))
    with pytest.raises(InputError, match="column 'id', which numbers the rows"):
        data.load(table(tmp_path / "t.csv", ids))
    (tmp_path / "m.jsonl").write_text('{"file_name": "0.png", "label": "a"}\n')
    with pytest.raises(InputError, match="must be called path. Received: 'file_name', with '0.png'. Rename it"):
        data.load(tmp_path / "m.jsonl")


def test_lines_of_json_end_at_line_feeds_only(tmp_path):
    rows = [{"label": "ab"[i % 2] + "\u2028\x85c", "x": [i, 0.5]} for i in range(8)]
    text = "\r\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    (tmp_path / "m.jsonl").write_text(text, encoding="utf-8")
    assert data.load(tmp_path / "m.jsonl").train.class_names == ("a\u2028\x85c", "b\u2028\x85c")


def test_groups_that_train_and_test_are_a_warning(tmp_path, caplog):
    rows = [f"{i / 7},{'ab'[i % 2]},{i // 4},{'test' if i // 4 == 1 else 'train'}" for i in range(16)]
    for change, warning in (
        (lambda row: row, ""),
        (lambda row: row.replace(",1,", ",2,"), "1 groups are in the test part and in another one, such as '2'"),
        (lambda row: row.rpartition(",")[0] + ",train", "has a column group and no test part, which is drawn from"),
    ):
        caplog.clear()
        data.load(table(tmp_path / "t.csv", "\n".join(["x0,label,group,split", *map(change, rows)])), validation=0)
        assert (warning in caplog.text) if warning else ("group" not in caplog.text)


def test_column_that_is_the_label_once_more_is_a_warning(tmp_path, caplog):
    label, other = np.arange(30) % 3, np.random.default_rng(0).integers(0, 9, 30)
    data.load(table(tmp_path / "leak.csv", numbered(7 - label, other)))
    assert "column 'id' has one value for each class" in caplog.text
    caplog.clear()
    data.load(table(tmp_path / "none.csv", numbered(np.minimum(label, 1), other)))
    assert "one value for each class" not in caplog.text


@pytest.mark.parametrize(
    ("labels", "names"),
    [
        pytest.param(["10.0", "2.0", "1.0"], ("1.0", "2.0", "10.0"), id="whole-numbers-of-pandas"),
        pytest.param(["10", "-1", "2"], ("-1", "2", "10"), id="negative"),
        pytest.param(["10", "2", "x"], ("10", "2", "x"), id="names"),
    ],
)
def test_classes_that_are_whole_numbers_are_in_their_order(tmp_path, labels, names):
    splits = data.load(table(tmp_path / "t.csv", numbered(np.arange(12) / 7, np.arange(12), labels)))
    assert splits.train.class_names == names


def test_classes_of_equal_numbers_have_one_order_in_every_process():
    """The order of a set of texts is another one in each process."""
    names = [str(2**53 + i) for i in range(4)] + [f"1.{'0' * i}" for i in range(6)]
    assert manifest.classes(names) == (*names[4:], *names[:4])


def test_json_lines_hold_sensor_windows(tmp_path):
    rows = [{"x": [[i, 0.5], [1, 2], [3, i]], "label": "abc"[i % 3]} for i in range(12)]
    splits = data.load(table(tmp_path / "w.jsonl", "\n".join(map(json.dumps, rows)) + "\n"))
    assert splits.train.input_shape == (3, 2)
    assert splits.train.class_names == ("a", "b", "c")


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("m.csv", "", "must have a row per sample"),
        ("m.csv", "path,label\na.png\n", "m.csv, line 2: each row must have the 2 columns of line 1. Received: 1"),
        ("m.csv", "path,path\na.png,b\n", "line 1: each column must have a name of its own"),
        ("m.csv", "1.5,2,2\n", "line 1: each column must have a name .* Add a first line with the names"),
        ("m.csv", "label;a\nx;1,5\n", "line 1: columns must be separated by commas. Received: semicolons"),
        ("m.csv", "label\ta\nx\t1\n", "line 1: columns must be separated by commas. Received: tabs"),
        ("m.csv", ",label,a\n0,x,1\n1,y,2\n", "column '', which has no name, such as one that pandas adds"),
        ("m.csv", 'path,label\n"a\n', "must be CSV"),
        ("m.csv", "path,label\na.png,\n", "line 2: the column label must have the class"),
        ("m.csv", "Id,a,b,kind\n1,2,3,x\n", "must have a column label .* Received: the columns Id, a, b, kind"),
        ("m.csv", "path,label\na.png,x\n", "line 2: path must be a file.*Received: a.png, which does not exist"),
        ("m.csv", "path,label\nm.csv,x\n", "line 2: path must name one of the images"),
        ("m.csv", "path,label,split\na.png,x,dev\n", "line 2: split must be train, val or test. Received: 'dev'"),
        ("m.csv", "label,split\nx,train\n", "must have a column path, a column x, or columns of numbers"),
        ("m.csv", "label,a\nx,1\ny,one\n", "line 3: column 'a' must be a finite number. Received: 'one'"),
        ("m.csv", "label,a\nx,1\ny,nan\n", "line 3: column 'a' must be a finite number. Received: 'nan'"),
        ("m.jsonl", '{"x": [1], "label": 0}\n{"x": [1]}\n', "line 2: each row must have the same columns.*label"),
        ("m.jsonl", '{"x": [1], "label": 0}\n{"x": \n', "line 2: must be JSON"),
        ("m.jsonl", "[1]\n", "line 1: must be a JSON object"),
        ("m.jsonl", '{"x": [1], "label": 0}\n{"x": [1, 2], "label": 1}\n', r"line 2: x must have the shape of line 1"),
        ("m.jsonl", '{"x": [[1], [1, 2]], "label": 0}\n', "line 1: x must be a list of numbers"),
        ("m.jsonl", '{"x": [], "label": 0}\n', "line 1: x must have finite numbers"),
    ],
)
def test_wrong_manifest_is_refused_with_its_line(tmp_path, name, text, message):
    with pytest.raises(InputError, match=message):
        data.load(table(tmp_path / name, text))


def test_manifest_that_names_a_file_twice_is_refused(tmp_path):
    folder(tmp_path, sizes=(1,))
    with pytest.raises(InputError, match="line 3: each file must occur once.*which line 2 has too"):
        data.load(table(tmp_path / "m.csv", "path,label\nclass0/0.png,a\nclass0/0.png,b\n"))


def test_image_option_for_a_table_of_numbers_is_refused(tmp_path):
    with pytest.raises(InputError, match="color needs image or sound files"):
        data.load(table(tmp_path / "t.csv", "label,a\nx,1\n"), color="gray")


# tfkd split.


def test_split_of_a_folder_is_stratified_and_loads(tmp_path):
    folder(tmp_path / "pets", sizes=(10, 20))
    out = tmp_path / "lists" / "pets.csv"
    out.parent.mkdir()
    ran = run("split", tmp_path / "pets", "--out", out, "--test", 0.2, "--validation", 0.1, "--json")
    assert json.loads(ran.stdout) == {"path": str(out), "train": 21, "val": 3, "test": 6}
    splits = data.load(out)
    assert [np.bincount(split.y).tolist() for split in splits] == [[7, 14], [1, 2], [2, 4]]
    assert run("split", tmp_path / "pets", "--out", out).exit_code == 2
    before = out.read_text()
    run("split", tmp_path / "pets", "--out", out, "--test", 0.2, "--overwrite")
    assert out.read_text() == before


def test_split_keeps_a_test_part(tmp_path):
    for part, sizes in (("train", (10, 10)), ("test", (2, 3))):
        folder(tmp_path / "pets" / part, sizes=sizes)
    run("split", tmp_path / "pets", "--out", tmp_path / "pets.jsonl")
    splits = data.load(tmp_path / "pets.jsonl")
    assert [len(split) for split in splits] == [18, 2, 5]
    assert all(path.startswith("pets/test/") for path in splits.test.paths)


def speakers(path, sizes=(3, 5, 2, 4, 6, 3, 5, 4)):
    """A table of recordings: each speaker has as many of each class."""
    rows = [(f"s{who}", label, who + 0.5) for who, size in enumerate(sizes) for _ in range(size) for label in "ab"]
    return table(path, "speaker,label,v\n" + "".join(f"{who},{label},{value}\n" for who, label, value in rows))


def test_split_by_a_column_keeps_groups_together(tmp_path):
    speakers(tmp_path / "t.csv")
    assert run("split", tmp_path / "t.csv", "--out", tmp_path / "o.csv", "--group", "speaker").exit_code == 0
    with (tmp_path / "o.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    places = collections.defaultdict(set)
    for row in rows:
        places[row["group"]].add(row["split"])
    assert len(places) == 8
    assert all(len(parts) == 1 for parts in places.values())
    assert {part for parts in places.values() for part in parts} == {"train", "val", "test"}
    counts = collections.Counter((row["split"], row["label"]) for row in rows)
    assert all(counts[part, "a"] == counts[part, "b"] for part in ("train", "val", "test"))
    assert data.load(tmp_path / "o.csv").train.input_shape == (1,)  # the speaker is no value of the samples


def test_sample_without_a_group_is_refused_by_split_and_in_none_for_load(tmp_path, caplog):
    rows = [f"{i}.5,{'ab'[i % 2]},{'' if i > 15 else i % 4},{'test' if i > 17 else 'train'}" for i in range(20)]
    file = table(tmp_path / "t.csv", "\n".join(["x0,label,group,split", *rows]))
    data.load(file, validation=0)
    assert "group" not in caplog.text
    free = table(tmp_path / "f.csv", file.read_text().replace(",split", "").replace(",train", "").replace(",test", ""))
    ran = run("split", free, "--out", tmp_path / "o.csv", "--group", "group")
    assert "must name the group of each sample. Received: nothing in sample 17, a row of values" in ran.stderr


def test_split_by_a_part_of_the_file_name(tmp_path):
    folder(tmp_path / "pets", sizes=(8, 8))
    ran = run("split", tmp_path / "pets", "--out", tmp_path / "o.csv", "--group", r"(\d)\.png")
    assert ran.exit_code == 0
    splits = data.load(tmp_path / "o.csv")
    numbers = [{path[-5] for path in split.paths} for split in splits]
    assert sum(map(len, numbers)) == 8


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--test", "1.5"], "shares must be > 0 with a sum < 1"),
        (["--group", "nobody"], "group must be a column, or a regular expression"),
        (["--group", "(x"], "group must be a regular expression"),
        (["--group", "(x)"], "group must match each path"),
        (["--group", "(.)lass"], "each part needs samples of each class"),
    ],
)
def test_split_that_cannot_be_is_refused(tmp_path, arguments, message):
    folder(tmp_path / "pets", sizes=(4, 4))
    ran = run("split", tmp_path / "pets", "--out", tmp_path / "o.csv", *arguments)
    assert ran.exit_code == 2
    assert message in ran.stderr
    assert not (tmp_path / "o.csv").exists()


def burst(folder, size=60, scenes=10):
    """Two classes of scenes, each taken three times."""
    for number in range(scenes):
        scene = Image.fromarray(np.random.default_rng(number).integers(0, 256, (7, 7, 3), np.uint8)).resize(
            (size, size)
        )
        for shot in range(3):
            path = folder / f"class{number % 2}" / f"{shot}_{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            ImageEnhance.Brightness(scene).enhance(1 - 0.05 * shot).save(path)


@pytest.mark.parametrize("group", [(), ("--group", r"(\d)_")], ids=["alone", "with_groups"])
def test_split_keeps_similar_images_together(tmp_path, group):
    burst(tmp_path / "photos", scenes=6 if group else 10)
    ran = run("split", tmp_path / "photos", "--out", tmp_path / "o.csv", "--keep-similar", *group)
    if group:  # each shot has an image of each scene: everything is one group
        assert "each part needs samples of each class" in ran.stderr
        return
    assert ran.exit_code == 0, ran.output
    splits = data.load(tmp_path / "o.csv")
    scenes = [{path.rpartition("_")[2] for path in split.paths} for split in splits]
    assert sum(map(len, scenes)) == 10


def test_split_of_tables_compares_no_images(tmp_path):
    ran = run("split", speakers(tmp_path / "t.csv"), "--out", tmp_path / "o.csv", "--keep-similar")
    assert ran.exit_code == 2
    assert "split: --keep-similar compares images. Received: a sample that is none, a row." in ran.stderr


def test_split_refuses_a_group_in_two_given_parts(tmp_path):
    rows = [f"{i % 3},{'ab'[i % 2]},1,{'test' if i < 2 else 'train'}" for i in range(12)]
    given = table(tmp_path / "t.csv", "\n".join(["who,label,a,split", *rows]))
    ran = run("split", given, "--out", tmp_path / "o.csv", "--group", "who", "--validation", 0.3)
    assert "must not share a group. Received: '0' in test, train" in ran.stderr


def test_split_of_other_data_or_to_another_suffix_is_refused(tmp_path):
    ran = run("split", "digits", "--out", tmp_path / "o.csv")
    assert "must be a folder of class folders or a manifest" in ran.stderr
    ran = run("split", speakers(tmp_path / "t.csv"), "--out", tmp_path / "o.txt")
    assert "a manifest ends in .csv or .jsonl" in ran.stderr
