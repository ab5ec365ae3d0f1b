"""Weights of keras.applications: the published ones, those of a file, and what is wrong with them."""

import urllib.request

import keras
import pytest

from tfkd import models
from tfkd.errors import InputError, ToolMissingError


def build(weights, num_classes=3):
    return models.mobilenet_v2((96, 96, 3), num_classes, alpha=0.35, weights=weights)


def test_published_weights_that_cannot_be_downloaded_say_where_to_put_the_file(tmp_path, monkeypatch):
    refusing = urllib.request.build_opener(urllib.request.ProxyHandler({"https": "http://127.0.0.1:9"}))
    monkeypatch.setattr(urllib.request, "_opener", refusing)
    monkeypatch.setattr("keras.src.backend.config._KERAS_DIR", str(tmp_path))
    with pytest.raises(ToolMissingError, match=r"mobilenet_v2_weights.*_96_no_top\.h5.*Put that file into ~/\.keras"):
        build("imagenet")


def test_weights_of_a_file_that_does_not_exist_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.h5', which does not exist"):
        build(str(tmp_path / "none.h5"))


@pytest.mark.parametrize(("num_classes", "classifier"), [(3, "without"), (1000, "with")], ids=["own", "imagenet"])
def test_weights_of_another_model_are_refused(tmp_path, num_classes, classifier):
    file = tmp_path / "other.weights.h5"
    models.digits_student((8, 8, 1), 3).save_weights(file)
    with pytest.raises(InputError, match=f"MobileNetV2 {classifier} its classifier. Received: .*other.weights.h5"):
        build(str(file), num_classes)


@pytest.mark.parametrize(
    "builder",
    [models.mobilenet_v2, pytest.param(models.resnet50, marks=pytest.mark.campaign)],
    ids=lambda builder: builder.__name__,
)
def test_moving_averages_follow_a_short_training(builder):
    norms = [layer for layer in builder((32, 32, 3), 3).layers if isinstance(layer, keras.layers.BatchNormalization)]
    assert norms
    assert {layer.momentum for layer in norms} == {models.resnet8((32, 32, 3), 3).get_layer("stem_bn").momentum}
