"""Boxes in the formats of COCO and Pascal VOC."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from tfkd import data
from tfkd.data import images
from tfkd.errors import InputError

RNG = np.random.default_rng(0)
IMAGES = RNG.integers(0, 256, (6, 20, 40, 3), dtype=np.uint8)
# Left, top, right, bottom in pixels from 0, and the class, of the boxes of each image.
BOXES = [
    [(4, 2, 12, 10, "dog")], [(0, 0, 40, 20, "cat"), (8, 5, 16, 15, "dog")], [],
    [(20, 4, 28, 8, "cat")], [(1, 1, 3, 3, "cat")], [(30, 10, 40, 20, "dog")],
]  # fmt: skip


def coco(root, rows=range(6), name="train.json", **changes):
    """Writes a file in the format of COCO."""
    root.mkdir(exist_ok=True, parents=True)
    (root / "images").mkdir(exist_ok=True)
    ids, annotations = {"cat": 7, "dog": 3}, []
    for row in rows:
        Image.fromarray(IMAGES[row]).save(root / "images" / f"{row}.png")
        for left, top, right, bottom, label in BOXES[row]:
            box = [left, top, right - left, bottom - top]
            annotations.append({"id": len(annotations), "image_id": row, "category_id": ids[label], "bbox": box})
    content = {
        "images": [{"id": row, "file_name": f"{row}.png"} for row in rows],
        "annotations": annotations,
        "categories": [{"id": number, "name": label} for label, number in ids.items()],
    }
    content["annotations"][0] |= changes
    (root / name).write_text(json.dumps(content))
    return root


def voc(root, change=lambda text: text):
    """Writes a folder in the format of Pascal VOC; `change` is applied to the file of image 1."""
    for folder in ("JPEGImages", "Annotations", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    for row, boxes in enumerate(BOXES):
        Image.fromarray(IMAGES[row]).save(root / "JPEGImages" / f"{row}.png")
        objects = "".join(
            f"<object><name>{label}</name><bndbox><xmin>{left + 1}</xmin><ymin>{top + 1}</ymin><xmax>{right}</xmax>"
            f"<ymax>{bottom}</ymax></bndbox></object>"
            for left, top, right, bottom, label in boxes
        )
        text = f"<annotation><filename>{row}.png</filename>{objects}</annotation>"
        (root / "Annotations" / f"{row}.xml").write_text(change(text) if row == 1 else text)
    (root / "ImageSets/Main/train.txt").write_text("0\n1\n2\n")
    (root / "ImageSets/Main/test.txt").write_text("3\n4\n5\n")
    return root


def check(split, rows, classes):
    np.testing.assert_array_equal(split.x, IMAGES[list(rows)])
    assert (split.label_kind, split.class_names) == ("boxes", classes)
    for found, row in zip(split.y, rows, strict=True):
        expected = [np.divide(box[:4], (40, 20, 40, 20)).tolist() + [classes.index(box[4])] for box in BOXES[row]]
        np.testing.assert_allclose(found[found[:, 4] >= 0], np.array(expected).reshape(-1, 5), atol=1e-6)


def test_coco_file_and_parts_are_read(tmp_path):
    coco(tmp_path / "parts", range(3))
    coco(tmp_path / "parts", range(3, 6), name="test.json")
    train, _, test = data.load(tmp_path / "parts", validation=0)
    # The categories are in the order of their ids.
    check(train, range(3), ("dog", "cat"))
    check(test, range(3, 6), ("dog", "cat"))
    assert test.paths.tolist() == ["images/3.png", "images/4.png", "images/5.png"]
    alone = data.load(coco(tmp_path / "alone") / "train.json", validation=0, image_size=(10, 20))
    assert sum(len(split) for split in alone) == 6
    for split in alone:
        for y, path in zip(split.y, split.paths, strict=True):
            assert (y[:, 4] >= 0).sum() == len(BOXES[int(path[7:-4])])
    # Regions of crowds are left out.
    crowd = data.load(coco(tmp_path / "crowd", iscrowd=1) / "train.json", labels="boxes", validation=0)
    assert sum(int((split.y[..., 4] >= 0).sum()) for split in crowd) == 5


def figures(root, **changes):
    """Writes a file in the format of COCO with a figure of two points in each image but the last."""
    content = json.loads((coco(root) / "train.json").read_text())
    content["categories"] = [{"id": 1, "name": "person", "keypoints": ["head", "foot"]}]
    points = [{"id": n, "image_id": n, "category_id": 1, "keypoints": [10, 5, 2, 20, 15, n % 3]} for n in range(5)]
    points[2] |= changes
    (root / "train.json").write_text(json.dumps({**content, "annotations": points}))
    return root / "train.json"


def test_keypoints_of_coco_are_read_where_they_are_declared(tmp_path):
    splits = data.load(figures(tmp_path), labels="points", validation=0)
    assert splits.train.class_names == ("head", "foot")
    for split in splits:
        for y, path in zip(split.y, split.paths, strict=True):
            number = int(path[7:-4])
            foot = [0.5, 0.75, 1] if number % 3 else [0, 0, 0]
            assert y.tolist() == ([[0.25, 0.25, 1], foot] if number < 5 else [[0] * 3] * 2)
    unnamed = json.loads((tmp_path / "train.json").read_text())
    del unnamed["categories"][0]["keypoints"]
    (tmp_path / "train.json").write_text(json.dumps(unnamed))
    assert data.load(tmp_path / "train.json", labels="points", validation=0).train.class_names == ("0", "1")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"keypoints": [10, 5, 2]}, r"image 2, images/2.png: keypoints must have three numbers for each of 2 points"),
        ({"keypoints": [10, 5, 2, 20, 25, 1]}, r"must lie in its image of 40 x 20 pixels. Received: foot at 20, 25"),
        ({"image_id": 1}, r"image 1, images/1.png: keypoints are those of one figure .*Received: 2 figures"),
    ],
    ids=["numbers", "outside", "figures"],
)
def test_wrong_keypoints_are_refused_with_their_image(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        data.load(figures(tmp_path, **changes), labels="points")
    with pytest.raises(InputError, match="must have keypoints. Received: annotations without keypoints"):
        data.load(coco(tmp_path / "boxes") / "train.json", labels="points")


def test_coco_parts_in_folders_of_their_own_are_read(tmp_path):
    for part, rows in (("train", range(3)), ("test", range(3, 6))):
        folder = coco(tmp_path / part, rows, name="_annotations.coco.json")
        content = json.loads((folder / "_annotations.coco.json").read_text())
        pets = [{**one, "supercategory": "pets"} for one in content["categories"]]
        content["categories"] = [{"id": 0, "name": "pets", "supercategory": "none"}, *pets]
        (folder / "_annotations.coco.json").write_text(json.dumps(content))
        for image in (folder / "images").iterdir():
            image.rename(folder / image.name)
    train, _, test = data.load(tmp_path, validation=0)
    check(train, range(3), ("dog", "cat"))
    check(test, range(3, 6), ("dog", "cat"))
    assert test.paths.tolist() == ["test/3.png", "test/4.png", "test/5.png"]


def test_voc_folder_is_read(tmp_path):
    train, _, test = data.load(voc(tmp_path), validation=0)
    check(train, range(3), ("cat", "dog"))
    check(test, range(3, 6), ("cat", "dog"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bbox": [38, 2, 8, 8]}, r"train.json: annotation 0 of 0.png.*in its image of 40 x 20.*right 46"),
        ({"bbox": [4, 2, 0, 8]}, r"train.json: annotation 0 of 0.png.*left < right"),
        ({"bbox": [4, 2, 8]}, r"train.json: annotation 0 of 0.png must have a bbox of four numbers"),
        ({"category_id": 5}, r"train.json: annotation 0 of 0.png must have a category. Received: category_id=5.*3, 7"),
        ({"category_id": [7]}, r"annotation 0 of 0.png must have a category. Received: category_id=\[7\]"),
        ({"image_id": 99}, r"train.json: annotation 0 must have an image. Received: image_id=99"),
        ({"image_id": [0]}, r"train.json: annotation 0 must have an image. Received: image_id=\[0\]"),
        ({"image_id": "0"}, r"train.json: annotation 0 must have an image. Received: image_id='0'"),
    ],
    ids=["outside", "empty", "numbers", "category", "categories", "image", "images", "text"],
)
def test_wrong_coco_annotation_is_an_error_that_names_the_file(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        data.load(coco(tmp_path, **changes))


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("<xmax>16", "<xmax>160", r"1.xml: dog: a box must lie in its image of 40 x 20 pixels"),
        ("<ymin>6", "<ymin>60", r"1.xml: dog: a box must have left < right"),
        ("<name>dog", "<name>horse", r"1.xml: the name of an object must be one of cat, dog. Received: 'horse'"),
        ("<name>dog", "<name>", r"1.xml: the name of an object must be one of"),
        ("<xmin>9", "<xmin>nine", r"1.xml: an object must have a bndbox of numbers. Received: 'nine'"),
        ("</annotation>", "", r"1.xml must be a readable XML file"),
        (
            "<annotation>",
            "<annotation><size><width>20</width><height>40</height></size>",
            r"1.xml: the size must be that of the image, .* 40 x 20. Received: 20 x 40",
        ),
    ],
    ids=["outside", "empty", "class", "no class", "number", "damaged", "size"],
)
def test_wrong_voc_annotation_is_an_error_that_names_the_file(tmp_path, old, new, message):
    (voc(tmp_path, lambda text: text.replace(old, new)) / "classes.txt").write_text("cat\ndog\n")
    with pytest.raises(InputError, match=message):
        data.load(tmp_path)


def test_missing_files_are_named(tmp_path):
    (coco(tmp_path / "coco") / "images/4.png").unlink()
    with pytest.raises(InputError, match=r"train.json: image 4 must be a file beside it.*'4.png'"):
        data.load(tmp_path / "coco")
    (voc(tmp_path / "voc") / "JPEGImages/4.png").unlink()
    with pytest.raises(InputError, match=r"4.xml needs an image in JPEGImages/"):
        data.load(tmp_path / "voc")
    (tmp_path / "other.json").write_text("[1]")
    with pytest.raises(InputError, match=r"other.json must have a list images"):
        data.load(tmp_path / "other.json")


def test_voc_test_images_are_not_for_training_without_a_list_of_those(tmp_path):
    (voc(tmp_path) / "ImageSets/Main/train.txt").unlink()
    train, _, test = data.load(tmp_path, validation=0)
    check(train, range(3), ("cat", "dog"))
    check(test, range(3, 6), ("cat", "dog"))
    for name, row in (("test", 3), ("val", 4), ("valid", 5)):  # two lists of one part
        (tmp_path / f"ImageSets/Main/{name}.txt").write_text(f"{row}\n")
    train, val, test = data.load(tmp_path)
    check(train, range(3), ("cat", "dog"))
    check(val, (4, 5), ("cat", "dog"))


@pytest.mark.parametrize(
    ("key", "values", "message"),
    [
        ("images", [{"file_name": "0.png"}], "images must be objects with an id.*Received: the id None"),
        ("images", [{"id": 1}, {"id": 1}], "images must be objects with an id.*Received: an id twice"),
        ("images", [{"id": [1]}], r"images must be objects with an id.*Received: the id \[1\]"),
        ("images", [], "images must be objects with an id.*Received: an empty list"),
        ("images", ["0.png"], "images must be objects"),
        ("categories", [{"id": 1, "name": "a"}, {"id": 1, "name": "b"}], "categories must be.*Received: an id twice"),
        ("categories", [{"id": 1, "name": "a"}, {"id": 2, "name": "a"}], "a name of its own. Received: 'a', 'a'"),
        ("categories", [{"id": 1}], "a name of its own. Received: None"),
        ("categories", [{"id": 1, "name": "a"}, {"id": "2", "name": "b"}], "ids of categories must be numbers, or all"),
    ],
    ids=["none", "twice", "list", "empty", "text", "category twice", "name twice", "no name", "kinds of ids"],
)
def test_coco_objects_without_an_id_or_name_of_their_own_are_refused(tmp_path, key, values, message):
    content = {"images": [{"id": 1}], "annotations": [], "categories": [{"id": 1, "name": "a"}], key: values}
    (tmp_path / "train.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=f"train.json.*{message}"):
        data.load(tmp_path / "train.json")


def test_folder_of_coco_itself_is_read(tmp_path):
    for part, rows in (("train2017", range(6)), ("val2017", range(3, 6))):
        folder = coco(tmp_path / "written", rows, name=f"{part}.json")
        (folder / "images").rename(tmp_path / part)
        (tmp_path / "annotations").mkdir(exist_ok=True)
        (folder / f"{part}.json").rename(tmp_path / f"annotations/instances_{part}.json")
    # A group that has the name of its only class, as Roboflow writes it.
    file = tmp_path / "annotations/instances_train2017.json"
    content = json.loads(file.read_text())
    group = [{"id": 0, "name": "cat", "supercategory": "none"}]
    content["categories"] = group + [{**one, "supercategory": "cat"} for one in content["categories"]]
    file.write_text(json.dumps(content))
    alone = data.load(file, validation=0)
    assert sorted(alone.train.paths.tolist() + alone.test.paths.tolist()) == [
        f"../train2017/{row}.png" for row in range(6)
    ]
    splits = data.load(tmp_path)
    check(splits.val, range(3, 6), ("dog", "cat"))
    assert splits.val.paths.tolist() == ["val2017/3.png", "val2017/4.png", "val2017/5.png"]
    (tmp_path / "annotations/instances_train2014.json").write_text("{}")
    with pytest.raises(InputError, match=r"each part must have one file.*train2014.json and .*train2017.json"):
        data.load(tmp_path)


@pytest.mark.parametrize("folders", [("images", "annotations"), ("train", "train")], ids=["images", "roboflow"])
def test_xml_files_in_other_folders_are_read(tmp_path, folders):
    root = voc(tmp_path)
    (root / "ImageSets/Main/train.txt").unlink()
    (root / "ImageSets/Main/test.txt").unlink()
    (root / "JPEGImages").rename(root / folders[0])
    if folders[1] == folders[0]:
        for file in (root / "Annotations").iterdir():
            file.rename(root / folders[1] / file.name)
    else:
        (root / "Annotations").rename(root / folders[1])
    splits = data.load(root, validation=0)
    assert sum(map(len, splits)) == 6
    check(splits.train, [int(path.split("/")[1][:-4]) for path in splits.train.paths], ("cat", "dog"))


def test_boxes_are_those_of_the_upright_image(tmp_path):
    folder = coco(tmp_path, rows=[0])
    exif = Image.Exif()
    exif[274] = 6  # the file is turned by 90 degrees for display
    Image.fromarray(np.rot90(IMAGES[0])).save(folder / "images/0.png", exif=exif)
    assert images.size_of(folder / "images/0.png") == (40, 20)
    content = json.loads((folder / "train.json").read_text())
    content["images"][0] |= {"width": 20, "height": 40}
    (folder / "train.json").write_text(json.dumps(content))
    with pytest.raises(InputError, match=r"image 0 must be those of .*0.png.* 40 x 20. Received: 20 x 40"):
        data.load(folder / "train.json")
    (folder / "images/0.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="0.png must be a readable image"):
        data.load(folder / "train.json")
