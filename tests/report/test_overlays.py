"""Images with what was labelled and found in them."""

import base64
import io
import re

import numpy as np
from PIL import Image

from tfkd.report import overlays
from tfkd.tasks import pictures

NAMES = [{"name": name} for name in ("ground", "tree", "house")]
IMAGE = np.full((8, 12, 3), 100, np.uint8)


def drawn(**details):
    (plot,) = overlays.plots({"per_class": NAMES, **details}, "student on host")
    assert plot.caption.startswith("student on host: ")
    texts = set(re.findall(r">([^<>]*)</text>", plot.svg))
    images = [base64.b64decode(one) for one in re.findall(r"data:image/png;base64,\s*([^\"']+)", plot.svg)]
    return plot, texts, [np.asarray(Image.open(io.BytesIO(one)).convert("RGB")) for one in images]


def test_masks_are_shown_beside_each_other():
    label = np.zeros((8, 12), np.uint8)
    label[:, :6] = 1
    label[0] = 255  # ignored
    prediction = np.where(label == 1, 2, 0).astype(np.uint8)
    one = {"image": IMAGE, "label": label, "prediction": prediction}
    one = {name: pictures.encode(value) for name, value in one.items()}
    plot, texts, images = drawn(masks=[{**one, "sample": 7, "wrong": 0.5}])
    assert plot.title == "Masks"
    assert {"image", "label", "prediction: 50.0% wrong", "sample 7", "tree", "house"} <= texts
    assert "ground" not in texts  # class 0 is not coloured
    image, labelled, predicted = images
    assert len(np.unique(image.reshape(-1, 3), axis=0)) == 1
    for panel in (labelled, predicted):
        coloured = np.ptp(panel.astype(int), axis=2) > 0  # classes but for class 0; ignored pixels stay gray
        assert abs(coloured.mean() - 7 * 6 / (8 * 12)) < 0.02
        assert len(np.unique(panel.reshape(-1, 3), axis=0)) == 2
    assert not np.array_equal(labelled, predicted)


def test_centres_and_points_are_shown_with_their_errors():
    one = {"image": pictures.encode(IMAGE), "sample": 3, "wrong": 2}
    plot, texts, images = drawn(centres=[{**one, "boxes": [[0.1, 0.1, 0.4, 0.6, 1]], "centres": [[0.25, 0.3, 1, 0.9]]}])
    assert plot.title == "Centres"
    assert {"sample 3: 2 wrong or missing", "tree"} <= texts
    assert len(images) == 1
    points = [[0.5, 0.5, 2], [0.2, 0.8, 0], [0.9, 0.1, 2]]
    plot, texts, images = drawn(
        points=[{**one, "wrong": 0.031, "label": points, "prediction": np.array(points)[:, :2]}]
    )
    assert plot.title == "Points"
    assert "sample 3: mean distance 3.1%" in texts
    assert len(images) == 1


def test_samples_that_are_no_images_have_no_plot():
    assert overlays.plots({"per_class": NAMES, "masks": [], "centres": [], "points": []}, "student") == []
