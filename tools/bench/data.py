"""Peak memory and speed of streamed images: training, labels, conversion and validation on generated JPEG files.

Each size runs in a process of its own, on class folders of JPEG files that are generated once. The peak is that of the
process, or of the largest of its children if that is larger.

    python tools/bench/data.py --images 2000 20000
    python tools/bench/data.py --images 100000 --side 224
    python tools/bench/data.py --images 300 --steps label --model resnet50
    python tools/bench/data.py --images 4000 --file-side 320 --steps read   # files that are resized
    python tools/bench/data.py --images 4000 --file-side 320 --steps read --resize bilinear_aliased
    python tools/bench/data.py --startup 1000000                            # a tree of tiny files, and a manifest
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 10


def main() -> None:
    """Measures each size and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000], help="numbers of images to compare")
    parser.add_argument("--side", type=int, default=224, help="height and width of the samples")
    parser.add_argument("--file-side", type=int, help="height and width of the files; by default that of the samples")
    parser.add_argument("--resize", default="bilinear", help="filter of tfkd that resizes the files")
    parser.add_argument("--contents", type=int, default=500, help="different files; the others are hard links to them")
    parser.add_argument("--startup", type=int, help="only measure the time to the first batch of so many tiny files")
    parser.add_argument("--folder", type=Path, default=Path("bench-images"), help="folder of the generated files")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--model", choices=("small", "resnet50"), default="small", help="teacher and student")
    parser.add_argument(
        "--steps",
        choices=("all", "read", "label", "work"),
        default="all",
        help="read: only read the images; label: only run the teacher on them; work: all but reading",
    )
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(start(options.measure) if options.startup else measure(options.measure, options)))
        return
    if options.startup:
        measure_startup(options)
        return
    side = options.file_side or options.side
    for number in options.images:
        folder = generate(options.folder / f"{number}-{side}", number, side, options.contents)
        print(f"images {number:,}  {_text(in_process(folder))}", flush=True)


def _text(found: dict[str, Any]) -> str:
    return "  ".join(f"{name} {value:,}" for name, value in found.items())


def in_process(path: Path, cache: Path | None = None) -> dict[str, Any]:
    """What a process of its own measures on a data set, with the same options."""
    command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(path)]
    environment = os.environ | ({"TFKD_CACHE": str(cache)} if cache else {})
    started = time.monotonic()
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    return {"process_s": round(time.monotonic() - started, 1), **json.loads(done.stdout.splitlines()[-1])}


def generate(folder: Path, number: int, side: int, contents: int) -> Path:
    """A folder of class folders below train/ and test/ with JPEG files of smooth noise; 1 in 10 is a test image.

    The files of a class are hard links to `contents / CLASSES` different ones, those of the test part to others.
    """
    from PIL import Image

    done = folder.with_name(f"{folder.name}.done")
    if done.exists():
        return folder
    rng = np.random.default_rng(0)
    made: dict[tuple[str, int, int], Path] = {}
    for index in range(number):
        label, part = index % CLASSES, "test" if index // CLASSES % 10 == 0 else "train"
        file = folder / part / f"class{label}" / f"{index}.jpg"
        key = (part, label, index // CLASSES % max(1, contents // CLASSES))
        if not file.exists() and key in made:
            os.link(made[key], file)
        elif not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 200, (8, 8, 3)) + np.array([5 * label, 0, 55 - 5 * label])
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((side, side)).save(file, quality=90)
        made.setdefault(key, file)
    done.touch()
    return folder


def measure_startup(options: argparse.Namespace) -> None:
    """Prints the time to the first batch of a tree and of its manifest, without and with the index in the cache."""
    folder = generate(options.folder / f"{options.startup}-tiny", options.startup, 8, CLASSES * 100)
    manifest = folder.with_suffix(".csv")
    with manifest.open("w") as file:
        file.write("path,label,split\n")
        for part in ("train", "test"):
            for label in (f"class{number}" for number in range(CLASSES)):
                names = sorted(os.listdir(folder / part / label))
                file.writelines(f"{folder.name}/{part}/{label}/{name},{label},{part}\n" for name in names)
    for data in (folder, manifest):
        with tempfile.TemporaryDirectory() as cache:
            for start_number in ("first", "second"):
                found = in_process(data, Path(cache))
                print(f"{data.name} ({options.startup:,} files), {start_number} start: {_text(found)}", flush=True)


def start(data: Path) -> dict[str, Any]:
    """Seconds and peak memory from the start to the data set and to its first batch."""
    started = time.monotonic()
    import tfkd

    train, _, _ = tfkd.data.load(data)
    found = {"load_s": round(time.monotonic() - started, 1), "load_peak_mb": peak_mb()}
    next(iter(train.batches(32, shuffle=True)))
    found |= {"first_batch_s": round(time.monotonic() - started, 1), "first_batch_peak_mb": peak_mb()}
    return found | {"cpu_s": round(time.process_time(), 1)}


def measure(folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Seconds and peak memory of each step on one folder."""
    import keras

    import tfkd

    size = (options.side, options.side)
    found: dict[str, Any] = {}
    started = time.monotonic()

    def lap(name: str) -> None:
        nonlocal started
        found[f"{name}_s"] = round(time.monotonic() - started, 1)
        found[f"{name}_peak_mb"] = peak_mb()
        print(f"{name}: {found[f'{name}_s']} s, {found[f'{name}_peak_mb']:,} MB", file=sys.stderr, flush=True)
        started = time.monotonic()

    train, val, test = tfkd.data.load(folder, image_size=size, resize=options.resize)
    lap("load")
    if options.steps in ("all", "read"):
        found |= read(train, len(val), folder, options)
        lap("read")
    if options.steps == "read":
        return found
    teacher, student = (model(options.model, train.input_shape, filters) for filters in (16, 8))
    store = tfkd.SoftLabels.build(folder.with_name(f"{folder.name}-labels-{time.time_ns()}"), teacher, train)
    lap("label")
    if options.steps == "label":
        return found
    distiller = tfkd.Distiller(student, store)
    distiller.compile("adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    batches = train.batches(options.batch_size, shuffle=True, soft_labels=store)
    distiller.fit(batches, validation_data=val.batches(options.batch_size), epochs=1, verbose=0)
    lap("train")
    out = folder.with_name(f"{folder.name}.tflite")
    converted = tfkd.convert(student, out, calibration=train, overwrite=True, allow_mismatch=True)
    lap("convert")
    tfkd.validate(converted, test, reference=student, targets=["host"])
    lap("validate")
    return found


def read(train: Any, validation: int, folder: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Images per second and processor time per image of tfkd, Keras, and TensorFlow with an antialiased filter.

    Keras resizes without antialiasing, which reads four pixels for each one; tfkd averages over all, except with
    `--resize bilinear_aliased`.
    """
    import keras
    import tensorflow as tf

    size = (options.side, options.side)
    of_tfkd = train.batches(options.batch_size, shuffle=True)
    of_keras = keras.utils.image_dataset_from_directory(
        folder / "train", image_size=size, batch_size=options.batch_size, verbose=False
    ).prefetch(2)

    def antialiased(file: tf.Tensor) -> tf.Tensor:
        pixels = tf.io.decode_jpeg(tf.io.read_file(file), channels=3)
        return tf.ensure_shape(tf.image.resize(pixels, size, antialias=True), (*size, 3))

    files = tf.data.Dataset.list_files(str(folder / "train" / "*" / "*.jpg"))
    of_tensorflow = files.map(antialiased, tf.data.AUTOTUNE).batch(options.batch_size).prefetch(2)
    every = len(train) + validation
    found: dict[str, Any] = {}
    for number in (1, 2):
        for name, dataset, images in (
            ("tfkd", of_tfkd, len(train)), ("keras", of_keras, every), ("antialiased", of_tensorflow, every)
        ):  # fmt: skip
            started, cpu = time.monotonic(), time.process_time()
            for _ in dataset:
                pass
            found[f"{name}_{number}_per_s"] = round(images / (time.monotonic() - started))
            found[f"{name}_{number}_cpu_ms"] = round(1000 * (time.process_time() - cpu) / images, 3)
    return found


def model(name: str, shape: tuple[int, ...], filters: int) -> Any:
    """A network that ends in logits: ResNet-50, or a small one on images of a quarter of the size."""
    import keras
    from keras import layers

    import tfkd

    if name == "resnet50":
        return tfkd.models.resnet50(shape, CLASSES)
    inputs = keras.Input(shape)
    x = layers.AveragePooling2D(4)(layers.Rescaling(1 / 255)(inputs))
    for factor in (1, 2, 4):
        x = layers.Conv2D(factor * filters, 3, strides=2, padding="same", activation="relu")(x)
    return keras.Model(inputs, layers.Dense(CLASSES)(layers.GlobalAveragePooling2D()(x)))


def peak_mb() -> int:
    """Peak memory of this process or the largest of its children so far, in megabytes."""
    unit = 1 if sys.platform == "darwin" else 1024
    peaks = [resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return max(peaks) * unit // 1_000_000


if __name__ == "__main__":
    main()
