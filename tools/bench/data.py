"""Peak memory and speed of streamed images: training, labels, conversion and validation on generated JPEG files.

Each size runs in a process of its own, on class folders of JPEG files that are generated once. The peak is that of the
process, or of the largest of its children if that is larger.

    python tools/bench/data.py --images 2000 20000
    python tools/bench/data.py --images 100000 --side 224
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

CLASSES = 10


def main() -> None:
    """Measures each size and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, nargs="+", default=[2_000, 20_000], help="numbers of images to compare")
    parser.add_argument("--side", type=int, default=224, help="height and width of the files, and of the samples")
    parser.add_argument("--folder", type=Path, default=Path("bench-images"), help="folder of the generated files")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--steps", choices=("all", "read"), default="all", help="read: only read the images")
    parser.add_argument("--measure", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options)))
        return
    rows = []
    for number in options.images:
        folder = generate(options.folder / f"{number}-{options.side}", number, options.side)
        command = [sys.executable, __file__, *sys.argv[1:], "--measure", str(folder)]
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        rows.append({"images": number, **json.loads(done.stdout.splitlines()[-1])})
        print("  ".join(f"{name} {value:,}" for name, value in rows[-1].items()), flush=True)


def generate(folder: Path, number: int, side: int) -> Path:
    """A folder of class folders below train/ and test/ with JPEG files of smooth noise; 1 in 10 is a test image."""
    from PIL import Image

    rng = np.random.default_rng(0)
    for index in range(number):
        label = index % CLASSES
        file = folder / ("test" if index // CLASSES % 10 == 0 else "train") / f"class{label}" / f"{index}.jpg"
        if not file.exists():
            file.parent.mkdir(parents=True, exist_ok=True)
            noise = rng.integers(0, 200, (8, 8, 3)) + np.array([5 * label, 0, 55 - 5 * label])
            Image.fromarray(noise.clip(0, 255).astype(np.uint8)).resize((side, side)).save(file, quality=90)
    return folder


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

    train, val, test = tfkd.data.load(folder, image_size=size)
    lap("load")
    for _ in train.batches(options.batch_size, shuffle=True):
        pass
    rate = len(train) / (time.monotonic() - started)
    lap("read")
    found["read_per_s"] = round(rate)
    dataset = keras.utils.image_dataset_from_directory(
        folder / "train", image_size=size, batch_size=options.batch_size, verbose=False
    ).prefetch(2)
    for _ in dataset:
        pass
    found["keras_per_s"] = round((len(train) + len(val)) / (time.monotonic() - started))
    lap("keras")
    if options.steps == "read":
        return found
    teacher, student = (model(train.input_shape, filters) for filters in (16, 8))
    store = tfkd.SoftLabels.build(folder.with_name(f"{folder.name}-labels-{time.time_ns()}"), teacher, train)
    lap("label")
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


def model(shape: tuple[int, ...], filters: int) -> Any:
    """A small network that ends in logits."""
    import keras
    from keras import layers

    inputs = keras.Input(shape)
    x = layers.Rescaling(1 / 255)(inputs)
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
