"""Bilinear interpolation without antialiasing: the pixels of TensorFlow, and an image of known values."""

import numpy as np
import pytest
import tensorflow as tf

from tfkd.data import images, interpolation
from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError
from tfkd.micro.sensors.camera import Camera


@pytest.mark.parametrize("shape", [(9, 13, 3), (320, 201, 3), (5, 4, 1)], ids=["small", "large", "gray"])
@pytest.mark.parametrize("size", [(7, 5), (61, 40), (224, 224)], ids=["smaller", "middle", "larger"])
def test_pixels_are_those_of_tensorflow(shape, size):
    pixels = np.random.default_rng(0).integers(0, 256, shape, np.uint8)
    expected = tf.round(tf.image.resize(pixels, size)).numpy()
    found = images.fitted(pixels, ReadingOptions(image_size=size, resize="bilinear_aliased"))
    assert found.dtype == np.uint8
    np.testing.assert_array_equal(found, expected)


def test_only_the_four_nearest_pixels_count():
    pixels = np.zeros((1, 12), np.uint8)
    pixels[0, 1:3] = 10, 40
    found = interpolation.fitted(pixels, (3, 1), "none")
    # The centres of three parts of four pixels lie between the second and third pixel of each part.
    assert found.tolist() == [[25, 0, 0]]


def test_center_keeps_the_middle_and_pad_all():
    pixels = np.repeat(np.array([0, 100, 200, 0], np.uint8)[None], 2, axis=0)
    assert interpolation.fitted(pixels, (2, 2), "center").tolist() == [[100, 200]] * 2
    assert interpolation.fitted(pixels, (4, 4), "pad").tolist() == [
        [0] * 4,
        [0, 100, 200, 0],
        [0, 100, 200, 0],
        [0] * 4,
    ]
    with pytest.raises(ValueError, match="none is left"):
        interpolation.fitted(np.zeros((1, 99), np.uint8), (9, 9), "pad")


def test_camera_refuses_the_filter_that_it_has_no_integers_for():
    with pytest.raises(InputError, match="filters nearest, box, bilinear, bicubic, lanczos. Received: resize='biline"):
        Camera(160, 120, "gray", resize="bilinear_aliased")
