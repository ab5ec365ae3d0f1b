"""Builders, loading and weight inheritance, against published parameter counts and keras.applications."""

import json
import math
import zipfile

import keras
import numpy as np
import pytest

from tfkd import models
from tfkd.errors import InputError


def trainable(model):
    return sum(math.prod(weight.shape) for weight in model.trainable_weights)


@pytest.mark.parametrize(
    ("name", "input_shape", "num_classes", "parameters"),
    [
        # arXiv 2106.07597 and the reference implementations at github.com/mlcommons/tiny
        ("resnet8", (32, 32, 3), 10, 78_666),
        ("ds_cnn", (49, 10, 1), 12, 24_908),
        ("mobilenet_v1", (96, 96, 3), 2, 221_794),
        ("autoencoder", (640,), None, 269_992),
        # keras.io/api/applications: 3.5 M and 25.6 M
        ("mobilenet_v2", (224, 224, 3), 1000, 3_538_984),
        ("resnet50", (224, 224, 3), 1000, 25_636_712),
        # Own designs: what their docstrings say.
        ("unet", (32, 32, 3), 4, 489_460),
        ("grid_detector", (96, 96, 3), 4, 13_172),
        ("heatmap_net", (48, 48, 3), 3, 14_435),
        ("ssdlite", (96, 96, 3), 7, 17_935),
    ],
)
def test_parameters_match_published_count(name, input_shape, num_classes, parameters):
    assert models.build(name, input_shape, num_classes).count_params() == parameters


@pytest.mark.parametrize(
    ("depth", "parameters"),
    [
        (20, 269_722),
        pytest.param(32, 464_154, marks=pytest.mark.campaign),
        pytest.param(44, 658_586, marks=pytest.mark.campaign),
        (56, 853_018),
        pytest.param(110, 1_727_962, marks=pytest.mark.campaign),
    ],
)
def test_resnet_cifar_parameters_match_published_count(depth, parameters):
    # arXiv 1512.03385, table 6 gives 0.27, 0.46, 0.66, 0.85 and 1.7 M; these are the exact counts with option A.
    assert trainable(models.resnet_cifar((32, 32, 3), 10, depth)) == parameters


def test_autoencoder_trainable_parameters_match_published_count():
    assert trainable(models.autoencoder((640,))) == 267_928


def test_width_multiplies_the_channels_of_each_convolution():
    for name, shape in (("resnet8", (16, 16, 3)), ("resnet_cifar", (16, 16, 3)), ("digits_student", (8, 8, 1))):
        default, options = models.build(name, shape, 10), {"width": 4} if name == "digits_student" else {"width": 8}
        half = models.build(name, shape, 10, **options)
        filters = [
            [layer.filters for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
            for model in (default, half)
        ]
        assert filters[1] == [count // 2 for count in filters[0]]


def test_digits_student_takes_blocks_and_kernel():
    model = models.build("digits_student", (8, 8, 1), 10, width=4, blocks=3, kernel=5)
    depthwise = [layer for layer in model.layers if isinstance(layer, keras.layers.DepthwiseConv2D)]
    assert [layer.kernel_size for layer in depthwise] == [(5, 5)] * 3
    assert model.get_layer("block3_pointwise_conv").filters == 32


def test_digits_student_is_far_smaller_than_teacher():
    student, teacher = (models.build(name, (8, 8, 1), 10) for name in ("digits_student", "digits_teacher"))
    assert student.count_params() == 1_578
    assert teacher.count_params() == 65_834


SMALL = {
    "digits_teacher": (8, 8, 1),
    "digits_student": (8, 8, 1),
    "resnet8": (16, 16, 3),
    "resnet_cifar": (16, 16, 3),
    "ds_cnn": (12, 10, 1),
    "mobilenet_v1": (32, 32, 3),
    "mobilenet_v2": (32, 32, 3),
    "resnet50": (32, 32, 3),
    "autoencoder": (20,),
    "mlp": (6,),
    "gru": (6, 4),
    "lstm": (6, 4),
    "unet": (16, 24, 3),
    "grid_detector": (16, 24, 3),
    "heatmap_net": (16, 32, 3),
    "ssdlite": (32, 48, 3),
    "frame_cnn": (6, 4),
    "frame_gru": (6, 4),
    "sensor_cnn": (6, 4),
    "text_encoder": (6,),
}
# Outputs of builders that do not return one vector of logits.
OUTPUTS = {
    "autoencoder": (20,),
    "unet": (16, 24, 5),
    "grid_detector": (2, 3, 5),
    "heatmap_net": (4, 8, 5),
    "ssdlite": (3 * (4 * 6 + 2 * 3), 5),
    "frame_cnn": (6, 5),
    "frame_gru": (6, 5),
}
# The last layer of builders where it is not a Dense.
LAST = {"unet": "Conv2D", "grid_detector": "Conv2D", "heatmap_net": "Conv2D", "ssdlite": "Concatenate"}


@pytest.mark.parametrize("name", models.NAMES)
def test_model_returns_logits_and_has_only_built_in_layers(name):
    model = models.build(name, SMALL[name], 5)
    expected = OUTPUTS.get(name, (5,))
    assert model.output_shape == (None, *expected)
    last = model.layers[-1]
    assert type(last).__name__ == LAST.get(name, "Dense")
    assert getattr(last, "activation", keras.activations.linear) is keras.activations.linear
    assert all(type(layer).__module__.startswith("keras.src.layers") for layer in model.layers)


@pytest.mark.parametrize("name", [name for name, shape in SMALL.items() if len(shape) == 3 and name != "ds_cnn"])
def test_image_model_scales_its_input_inside(name):
    model = models.build(name, SMALL[name], 5)
    scaled = model.get_layer("rescaling")(np.array([0.0, 255.0], np.float32)[:, None, None, None])
    low, high = float(np.min(scaled)), float(np.max(scaled))
    expected = {"mobilenet_v2": (-1.0, 1.0), "resnet50": (-123.68, 255 - 103.939)}.get(name, (0.0, 1.0))
    assert (low, high) == pytest.approx(expected)


def test_resnet_cifar_shortcut_takes_every_second_pixel_and_pads_channels_with_zeros():
    model = models.resnet_cifar((8, 8, 3), 10, 8)
    shortcut = keras.Model(
        model.get_layer("stage2_block1_every_second").input, model.get_layer("stage2_block1_pad_channels").output
    )
    x = np.random.default_rng(0).normal(size=(2, 8, 8, 16)).astype(np.float32)
    expected = np.pad(x[:, ::2, ::2], ((0, 0), (0, 0), (0, 0), (8, 8)))
    np.testing.assert_array_equal(shortcut(x), expected)


def test_resnet50_with_weights_matches_keras_applications(tmp_path):
    published = keras.applications.ResNet50(weights=None, input_shape=(32, 32, 3), include_top=False, pooling="avg")
    published.save_weights(tmp_path / "bgr.weights.h5")
    ours = models.resnet50((32, 32, 3), 5, weights=str(tmp_path / "bgr.weights.h5"))
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    expected = published(keras.applications.resnet50.preprocess_input(x.copy()))
    features = keras.Model(ours.input, ours.layers[-1].input)(x)
    assert float(np.std(expected)) > 0
    np.testing.assert_allclose(features, expected, rtol=1e-3, atol=1e-3 * float(np.abs(expected).max()))


def test_mobilenet_v2_with_weights_matches_keras_applications(tmp_path):
    published = keras.applications.MobileNetV2(
        weights=None, input_shape=(32, 32, 3), include_top=False, pooling="avg", alpha=0.35
    )
    published.save_weights(tmp_path / "small.weights.h5")
    ours = models.mobilenet_v2((32, 32, 3), 5, alpha=0.35, weights=str(tmp_path / "small.weights.h5"))
    x = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype(np.float32)
    expected = published(keras.applications.mobilenet_v2.preprocess_input(x.copy()))
    features = keras.Model(ours.input, ours.layers[-1].input)(x)
    np.testing.assert_allclose(features, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["gru", "lstm"])
def test_recurrent_model_unrolled_matches_rolled(name):
    rolled, unrolled = (models.build(name, (6, 4), 5, units=8, unroll=unroll) for unroll in (False, True))
    unrolled.set_weights(rolled.get_weights())
    x = np.random.default_rng(0).normal(size=(3, 6, 4)).astype(np.float32)
    np.testing.assert_allclose(unrolled(x), rolled(x), atol=1e-5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: models.resnet8((32, 32), 10), r"resnet8: input_shape must be \(height, width, channels\)"),
        (lambda: models.gru((None, 4), 10), r"gru: input_shape must be \(steps, features\)"),
        (lambda: models.ds_cnn((49, 10, 1), 0), "ds_cnn: num_classes must be >= 1. Received: 0"),
        (lambda: models.mlp((4, 2), 1), r"mlp: input_shape must be \(features\)"),
        (lambda: models.mlp((4,), 1, depth=0), "mlp: depth must be > 0"),
        (lambda: models.ds_cnn((49, 10, 1), 12, dropout=0.5), r"dropout must be in \[0, 0.5\)"),
        (lambda: models.ds_cnn((49, 10, 1), 12, filters=0), "ds_cnn: filters must be > 0"),
        (lambda: models.resnet_cifar((32, 32, 3), 10, 21), r"depth must be 6n \+ 2"),
        (lambda: models.mobilenet_v1((96, 96, 3), 2, alpha=0.0), "mobilenet_v1: alpha must be > 0"),
        (lambda: models.autoencoder((8, 8)), r"autoencoder: input_shape must be \(features\)"),
        (lambda: models.build("resnet_cifer", (32, 32, 3), 10), "Did you mean 'resnet_cifar'"),
        (lambda: models.build("zzz", (32, 32, 3), 10), "Models: digits_teacher"),
        (lambda: models.build("resnet8", (32, 32, 3), 10, depth=8), "resnet8 takes the options: width. Received: de"),
        (lambda: models.build("lstm", (6, 4), 5, unit=8), "lstm takes the options: units, unroll. Received: unit"),
    ],
)
def test_builder_refuses_bad_argument(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize("name", ["digits_student", "resnet_cifar"])
def test_load_returns_the_saved_model(tmp_path, name):
    model = models.build(name, (8, 8, 1), 10)
    model.save(tmp_path / "model.keras")
    x = np.random.default_rng(0).uniform(0, 255, (2, 8, 8, 1)).astype(np.float32)
    np.testing.assert_array_equal(models.load(tmp_path / "model.keras")(x), model(x))


def test_load_missing_file_is_refused(tmp_path):
    with pytest.raises(ValueError, match="none.keras does not exist"):
        models.load(tmp_path / "none.keras")


@pytest.mark.parametrize(
    ("name", "content", "received"),
    [
        ("model.keras", b"text", "another format"),
        ("model.keras", b"\x89HDF\r\n\x1a\n", "an HDF5 file with another suffix"),
        ("model.keras", b"PK\x03\x04 the beginning of an archive", "an incomplete file of 3. bytes"),
        ("model.keras", b"", "an incomplete file of 0 bytes"),
        ("model.h5", b"\x89HDF\r\n\x1a\n the beginning", "must be a whole HDF5 file"),
        ("model.h5", b"text", "must be an HDF5 file"),
    ],
    ids=["text", "hdf5", "truncated", "empty", "truncated-h5", "text-h5"],
)
def test_load_file_that_is_damaged_or_of_another_format_is_refused(tmp_path, name, content, received):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=f"{name} .*{received}"):
        models.load(tmp_path / name)


def test_load_archive_without_model_is_refused(tmp_path):
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("readme", "nothing")
    with pytest.raises(ValueError, match="could not load .*model.keras"):
        models.load(tmp_path / "model.keras")


def test_load_of_a_file_of_keras_2_without_weights_names_them(tmp_path):
    config = {
        "module": "keras",
        "class_name": "Sequential",
        "config": {
            "name": "m",
            "layers": [
                {
                    "module": "keras.layers",
                    "class_name": "Dense",
                    "config": {"units": 2, "batch_input_shape": [None, 3]},
                }
            ],
        },
    }
    with zipfile.ZipFile(tmp_path / "model.keras", "w") as archive:
        archive.writestr("metadata.json", json.dumps({"keras_version": "2.13.1"}))
        archive.writestr("config.json", json.dumps(config))
    with pytest.raises(ValueError, match=r"Received: a file of Keras 2.13.1 without model.weights.h5. Save"):
        models.load(tmp_path / "model.keras")


def test_load_does_not_run_code_in_the_file(tmp_path):
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Lambda(lambda x: x + 1)(inputs)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="could not load .*replace Lambda layers"):
        models.load(tmp_path / "model.keras")


# For ResNets built by tfkd: the first block of each stage.
FIRST_BLOCKS = {r"stage(\d)_conv(.+)": r"stage\1_block1_conv\2", "(stem_conv|stem_bn|logits)": r"\1"}


def test_inherit_copies_weights_by_name_and_leaves_the_others():
    student, source = models.build("resnet8", (8, 8, 3), 4), models.build("resnet_cifar", (8, 8, 3), 4)
    source.set_weights([np.random.default_rng(0).uniform(1, 2, w.shape) for w in source.get_weights()])
    before = {layer.name: layer.get_weights() for layer in student.layers}
    changed = models.inherit(student, source, FIRST_BLOCKS)
    assert len(changed) == 15
    assert "stage2_shortcut" not in changed
    for layer in student.layers:
        name = layer.name.replace("_conv", "_block1_conv", 1) if "stage" in layer.name else layer.name
        given = {w.name: w.numpy() for w in source.get_layer(name).weights} if layer.name in changed else {}
        for weight, own in zip(layer.weights, before[layer.name], strict=True):
            # The source's convolutions have no bias.
            np.testing.assert_array_equal(weight.numpy(), given.get(weight.name, own))


@pytest.mark.parametrize(
    ("layers", "message"),
    [
        ({"logit": "logits"}, r"'logit' matches no layer of 'resnet8'.*Layers: stem_conv"),
        ({".*": "logits", "stem_conv": "stem_conv"}, r"must have the shapes of 'logits'. Received: kernel \(3, 3"),
        ({"stem_(.*)": r"stem\1"}, r"'resnet20' has no layer 'stemconv'.*Similar layers: stem_conv"),
        ({"stem_(": "x"}, r"must be regular expressions .*Received: 'stem_\(': 'x', missing \)"),
        ({"stem_conv": r"\1"}, r"must be regular expressions .*invalid group reference"),
    ],
)
def test_inherit_refuses_expressions_that_do_not_match(layers, message):
    student, source = models.build("resnet8", (8, 8, 3), 4), models.build("resnet_cifar", (8, 8, 3), 4)
    with pytest.raises(ValueError, match=message):
        models.inherit(student, source, layers)
