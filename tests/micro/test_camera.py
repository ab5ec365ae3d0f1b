"""The C that prepares images of a camera, against `tfkd.data.images`, which Pillow computes."""

from __future__ import annotations

import random
import re

import numpy as np
import pytest
from PIL import Image

from tests.micro.execution import compile_and_run
from tests.random_graph import Net
from tfkd import micro
from tfkd.data import images
from tfkd.data.reading import ReadingOptions
from tfkd.errors import InputError
from tfkd.micro.sensors import camera
from tfkd.micro.sensors.camera import Camera

# Camera, pixels, input [height, width, channels], filter, crop.
CASES = [
    (40, 30, "rgb565", (12, 12, 3), "bilinear", "center"),
    (40, 30, "rgb565be", (12, 16, 1), "bilinear", "none"),
    (33, 47, "rgb888", (16, 16, 3), "bicubic", "pad"),
    (47, 33, "rgb888", (20, 20, 1), "lanczos", "pad"),
    (31, 20, "gray", (9, 14, 3), "box", "center"),
    (20, 31, "gray", (24, 24, 1), "nearest", "center"),
    (9, 7, "rgb888", (21, 30, 3), "lanczos", "none"),
    (24, 24, "rgb565", (24, 24, 3), "nearest", "pad"),
]
IDS = [f"{pixels}-{resize}-{crop}" for _, _, pixels, _, resize, crop in CASES]


def takes_images(shape: tuple[int, ...], name: str, *, scale: float = 1.0, zero_point: int = -128) -> micro.Program:
    """The program of a model whose int8 input takes pixels."""
    made = Net(random.Random(0))
    x = made.tensor((1, *shape), scales=[scale], zero_points=[zero_point])
    made.graph.inputs.append(x)
    return micro.emit(made.bytes(made.op("RELU", [x], [made.same(x, (1, *shape))])), name=name)


def taken(case: tuple) -> tuple[np.ndarray, np.ndarray]:
    """The bytes of a camera for a random image, and the same image as `tfkd.data` prepares it."""
    width, height, pixels, shape, resize, crop = case
    rng = np.random.default_rng(width)
    colors = 1 if pixels == "gray" else 3
    smooth = np.asarray(Image.fromarray(rng.integers(0, 256, (5, 5, 3), "uint8")).resize((width, height)))
    image = np.where(rng.uniform(size=(height, width, 1)) < 0.3, rng.integers(0, 256, (height, width, 3)), smooth)
    image, raw = image.astype("uint8")[..., :colors], image.astype("uint8")[..., :colors]
    if pixels.startswith("rgb565"):
        red, green, blue = (image >> np.array([3, 2, 3], "uint8")).astype("uint16").transpose(2, 0, 1)
        raw = (red << 11 | green << 5 | blue).astype(">u2" if pixels.endswith("be") else "<u2")
        image = np.stack([red << 3 | red >> 2, green << 2 | green >> 4, blue << 3 | blue >> 2], -1).astype("uint8")
    color = "gray" if shape[2] == 1 else "rgb"
    options = ReadingOptions(image_size=shape[:2], color=color, resize=resize, crop=crop)
    return np.frombuffer(raw.tobytes(), "uint8"), images.fitted(image, options)


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory) -> list[np.ndarray]:
    """Of each case, what the C makes of the bytes, twice: row by row and at once."""
    folder, main, inputs = tmp_path_factory.mktemp("camera"), [], []
    body = ["#include <stdio.h>", "int main(void) {"]
    for i, case in enumerate(CASES):
        program = takes_images(case[3], f"n{i}")
        files = camera.write(program, Camera(*case[:3], *case[4:]))
        for name, text in files.items():
            (folder / name).write_text(text)
        main.append(f'#include "n{i}_camera.c"')
        inputs.append(taken(case)[0])
        size, row, count = len(inputs[-1]), len(inputs[-1]) // case[1], int(np.prod(case[3]))
        body.append(
            f"{{ static tfkd_n{i}_camera camera; static uint8_t in[{size}]; static int8_t out[{count}]; int y;"
            f"if (fread(in, 1, {size}, stdin) != {size} || TFKD_N{i}_CAMERA_ROW_BYTES != {row}) return 1;"
            f"for (y = 0; y < {case[1]}; y++)"
            f"if (tfkd_n{i}_camera_row(&camera, in + {row} * y, out) != (y == {case[1] - 1})) return 2;"
            f"fwrite(out, 1, {count}, stdout); tfkd_n{i}_camera_image(&camera, in, out);"
            f"fwrite(out, 1, {count}, stdout); }}"
        )
    printed = compile_and_run(folder, [*main, *body, "return 0; }"], inputs)
    results, at = [], 0
    for case in CASES:
        count = int(np.prod(case[3]))
        results.append(np.frombuffer(printed, "int8", 2 * count, at).reshape(2, *case[3]))
        at += 2 * count
    return results


@pytest.mark.parametrize("case", range(len(CASES)), ids=IDS)
def test_image_is_prepared_bit_for_bit_as_for_the_training(case: int, prepared: list[np.ndarray]) -> None:
    expected = taken(CASES[case])[1].astype("int16") - 128
    for found in prepared[case]:
        np.testing.assert_array_equal(found, expected)


def test_pixels_become_the_range_that_the_model_expects() -> None:
    program = takes_images((4, 4, 1), "n", scale=1 / 255)
    with pytest.raises(InputError, match="room for the pixels 0 to 255.*0 to 1.*--input-range"):
        camera.write(program, Camera(8, 8, "gray"))
    text = camera.write(program, Camera(8, 8, "gray", input_range=(0.0, 1.0)))["n_camera.c"]
    table = re.search(r"camera_table\[256\] = \{([^}]*)\}", text)[1]
    assert [int(value) for value in table.split(",")] == list(range(-128, 128))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        pytest.param("160x120", "must be one of gray, rgb888, rgb565", id="no-pixels"),
        pytest.param("160:rgb565", "WIDTHxHEIGHT:PIXELS", id="no-height"),
        pytest.param("-1x5:gray", "WIDTHxHEIGHT:PIXELS", id="negative"),
        pytest.param("5000x5:gray", "1 to 4096 columns", id="large"),
        pytest.param("0x5:gray", "1 to 4096 columns", id="zero"),
    ],
)
def test_text_that_is_no_camera_is_refused(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        Camera.parse(text)


def test_camera_that_does_not_fit_the_model_is_refused() -> None:
    with pytest.raises(InputError, match="one input \\[1, height, width, 1 or 3\\]"):
        camera.write(takes_images((4, 4, 2), "n"), Camera(8, 8, "gray"))
    with pytest.raises(InputError, match="leave a pixel"):
        camera.write(takes_images((8, 8, 1), "n"), Camera(400, 1, "gray", crop="pad"))
