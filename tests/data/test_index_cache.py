"""Indexes of folders and manifests in the user's cache: the same data as without one, whatever changed."""

import os
import shutil
import sys

import numpy as np
import pytest

from tests.data.data_sets import folder
from tfkd import data
from tfkd.data import index_cache, manifest
from tfkd.errors import InputError


@pytest.fixture(autouse=True)
def cached(tmp_path, monkeypatch):
    """Every data set counts as large; the folder of the indexes."""
    monkeypatch.setattr(index_cache, "MINIMUM", 0)
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache" / "indexes"


def content(path, **options):
    """Files, labels, ids and samples of the three parts of a data set."""
    splits = data.load(path, validation=0, **options)
    return [
        (split.class_names, split.y.tolist(), split.ids.tolist(), list(split.paths), np.asarray(split.x).tolist())
        for split in splits
    ]


def without_cache(path, tmp_path, monkeypatch, **options):
    """The same with an empty cache."""
    with monkeypatch.context() as context:
        context.setenv("TFKD_CACHE", str(tmp_path / f"empty{len(list(tmp_path.iterdir()))}"))
        return content(path, **options)


def write_list(pets):
    """A manifest of a folder."""
    rows = [f"{path.relative_to(pets)},{path.parent.name}" for path in sorted(pets.rglob("*.png"))]
    (pets / "list.csv").write_text("\n".join(["path,label", *rows]) + "\n")
    return pets / "list.csv"


def unavailable(*_):
    raise AssertionError("the index must come from the cache")


def test_second_load_of_a_folder_takes_its_index_from_the_cache(tmp_path, cached, monkeypatch):
    pets = folder(tmp_path / "pets", sizes=(5, 4))
    (pets / "class0" / "note.txt").touch()
    first = content(pets)
    assert len(list(cached.iterdir())) == 1
    monkeypatch.setattr(data.sources.folder, "_index", unavailable)
    assert content(pets) == first


def test_second_load_of_a_manifest_does_not_parse_it(tmp_path, cached, monkeypatch):
    path = write_list(folder(tmp_path / "pets", sizes=(5, 4)))
    first = content(path)
    monkeypatch.setattr(manifest, "read", unavailable)
    assert content(path) == first


def test_table_of_numbers_comes_from_the_cache(tmp_path, monkeypatch):
    (tmp_path / "a.csv").write_text("label,split,a,b\n" + "".join(f"{i % 2},train,{3 * i},{-i}.5\n" for i in range(20)))
    first = data.load(tmp_path / "a.csv", validation=0)
    monkeypatch.setattr(manifest, "read", unavailable)
    second = data.load(tmp_path / "a.csv", validation=0)
    np.testing.assert_array_equal(second.train.x, first.train.x)
    np.testing.assert_array_equal(second.train.y, first.train.y)
    with pytest.raises(InputError, match="image_size needs image or sound files"):
        data.load(tmp_path / "a.csv", image_size=(8, 8))


def add(pets):
    shutil.copy(pets / "class0" / "0.png", pets / "class0" / "new.png")


def remove(pets):
    (pets / "class1" / "3.png").unlink()


def rename(pets):
    (pets / "class1" / "3.png").rename(pets / "class1" / "a.png")


def move_to_another_class(pets):
    (pets / "class1" / "3.png").rename(pets / "class0" / "3b.png")


def rename_a_class(pets):
    (pets / "class0").rename(pets / "zebra")


def add_a_class(pets):
    shutil.copytree(pets / "class0", pets / "class7")


def add_below(pets):
    shutil.copytree(pets / "class0", pets / "class1" / "more")


def make_parts(pets):
    shutil.copytree(pets, pets / "test")
    (pets / "train").mkdir()
    for name in ("class0", "class1"):
        (pets / name).rename(pets / "train" / name)


def change_content(pets):
    shutil.copy(pets / "class0" / "0.png", pets / "class1" / "0.png")


@pytest.mark.parametrize("keeps_time", [False, True], ids=["new time", "old time"])
@pytest.mark.parametrize(
    "change",
    [
        add,
        remove,
        rename,
        move_to_another_class,
        rename_a_class,
        add_a_class,
        add_below,
        make_parts,
        change_content,
    ],
)
def test_changed_folder_is_read_as_without_a_cache(tmp_path, monkeypatch, change, keeps_time):
    pets = folder(tmp_path / "pets", sizes=(5, 6))
    before = content(pets)
    times = {path: path.stat() for path in [pets, *pets.rglob("*")]}
    change(pets)
    for path, time in times.items():
        if keeps_time and path.exists():
            os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
    assert content(pets) == without_cache(pets, tmp_path, monkeypatch) != before


def test_file_that_becomes_a_folder_is_none_of_the_files(tmp_path, monkeypatch):
    pets = folder(tmp_path / "pets", sizes=(5, 6))
    content(pets)
    (pets / "class0" / "0.png").rename(pets / "b.png")
    (pets / "class0" / "0.png").mkdir()
    (pets / "b.png").rename(pets / "class0" / "0.png" / "b.png")
    assert content(pets) == without_cache(pets, tmp_path, monkeypatch)


def test_equal_names_in_another_folder_have_their_own_content(tmp_path):
    first, second = folder(tmp_path / "a", sizes=(4, 4)), folder(tmp_path / "longer", sizes=(4, 4))
    assert content(first)[0][:4] == content(second)[0][:4]
    assert content(first)[0][4] != content(second)[0][4]


def test_changed_manifest_is_read_as_without_a_cache(tmp_path, monkeypatch):
    path = write_list(folder(tmp_path / "pets", sizes=(5, 6)))
    before, time = content(path), path.stat()
    path.write_text(path.read_text().replace("class0/0.png,class0", "class0/0.png,class1"))
    os.utime(path, ns=(time.st_atime_ns, time.st_mtime_ns))
    assert content(path) == without_cache(path, tmp_path, monkeypatch) != before


def test_file_of_a_cached_manifest_that_was_removed_is_named_with_its_line(tmp_path):
    path = write_list(folder(tmp_path / "pets", sizes=(5, 6)))
    content(path)
    remove(tmp_path / "pets")
    with pytest.raises(InputError, match=r"list.csv, line 10: path must be a file.*Received: class1/3.png, which does"):
        data.load(path)


def test_manifest_with_paths_of_another_form_finds_its_files(tmp_path):
    pets = folder(tmp_path / "pets", sizes=(5, 6))
    path = write_list(pets)
    path.write_text(path.read_text().replace("class1/", "class0/../class1/").replace("class0/0", f"{pets}/class0/0"))
    assert sum(len(part[3]) for part in content(path)) == 11


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04broken", None])
def test_damaged_index_is_made_again(tmp_path, cached, damage):
    pets = folder(tmp_path / "pets", sizes=(5, 4))
    first = content(pets)
    (file,) = cached.iterdir()
    file.write_bytes(file.read_bytes()[:-200] if damage is None else damage)
    assert content(pets) == first
    assert len(file.read_bytes()) > 300


def test_cache_that_cannot_be_written_is_not_needed(tmp_path, monkeypatch):
    (tmp_path / "file").touch()
    monkeypatch.setenv("TFKD_CACHE", str(tmp_path / "file"))
    pets = folder(tmp_path / "pets", sizes=(5, 4))
    assert content(pets) == content(pets)


@pytest.mark.skipif(sys.platform == "win32", reason="Windows allows no such names")
def test_names_of_any_characters_are_kept(tmp_path):
    pets = folder(tmp_path / "pets", sizes=(5, 4))
    os.rename(os.fsencode(pets / "class0" / "0.png"), os.fsencode(pets / "class0") + b"/a\nb,\xff \xc3\xa9.png")
    first = content(pets)
    assert content(pets) == first
    assert os.fsdecode(b"class0/a\nb,\xff \xc3\xa9.png") in [*first[0][3], *first[2][3]]


def test_oldest_indexes_are_deleted(tmp_path, cached):
    pets = folder(tmp_path / "pets", sizes=(3, 3))
    for number in range(12):
        add(pets)
        (pets / "class0" / "new.png").rename(pets / "class0" / f"{number}a.png")
        content(pets)
    assert len(list(cached.iterdir())) == 10


def test_small_data_set_leaves_no_index(tmp_path, cached, monkeypatch):
    monkeypatch.setattr(index_cache, "MINIMUM", 20)
    content(folder(tmp_path / "pets", sizes=(3, 3)))
    assert not cached.exists()
