"""Benchmark of the conversion: model x quantizer x mode, with size, ops, time, float ops and engines that run it.

Models have random weights and smooth random samples: the table is about supported ops, not about accuracy. A crash of
the converter or of an engine is an entry of the table and does not stop the benchmark.

    python tools/bench/conversion_matrix.py --out docs/reference/conversion_matrix.md
"""

from __future__ import annotations

import argparse
import importlib.metadata
import re
import resource
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import keras
import numpy as np
from keras import layers

import tfkd
from tfkd import data, models
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data import Split
from tfkd.errors import TfkdError

RUNS = (
    *(("tensorflow", mode) for mode in ("float32", "float16", "dynamic_range", "full_int8", "int16x8")),
    ("litert", "full_int8"),
    ("litert", "int16x8"),
)
TARGETS = ("host", "tflm")


def attention(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """A transformer block on [steps, features] and a classifier."""
    sequence = keras.Input(input_shape)
    x = layers.Dense(32)(sequence)
    x = layers.LayerNormalization()(layers.Add()([x, layers.MultiHeadAttention(2, 16)(x, x)]))
    x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(32)(layers.Dense(64, activation="gelu")(x))]))
    return keras.Model(sequence, layers.Dense(num_classes)(layers.GlobalAveragePooling1D()(x)))


def efficientnet_lite(input_shape: tuple[int, ...], num_classes: int) -> keras.Model:
    """Inverted bottlenecks like those of EfficientNet-Lite: ReLU6, kernels 3 and 5, no squeeze-and-excite."""
    image = keras.Input(input_shape)
    x = layers.Rescaling(1 / 255)(image)
    x = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(32, 3, strides=2, padding="same")(x)))
    for channels, kernel, strides, repeats in ((16, 3, 1, 1), (24, 3, 2, 2), (40, 5, 2, 2), (80, 3, 2, 3)):
        for index in range(repeats):
            y = layers.ReLU(6.0)(layers.BatchNormalization()(layers.Conv2D(6 * x.shape[-1], 1)(x)))
            y = layers.DepthwiseConv2D(kernel, strides=1 if index else strides, padding="same")(y)
            y = layers.Conv2D(channels, 1)(layers.ReLU(6.0)(layers.BatchNormalization()(y)))
            y = layers.BatchNormalization()(y)
            x = layers.Add()([x, y]) if index else y
    return keras.Model(image, layers.Dense(num_classes)(layers.GlobalAveragePooling2D()(x)))


def application(name: str) -> Callable[..., keras.Model]:
    """A builder of a model of keras.applications that takes pixels in 0..255."""
    build = getattr(keras.applications, name)
    return lambda input_shape, num_classes: build(
        input_shape=input_shape, classes=num_classes, weights=None, classifier_activation=None
    )


MODELS: dict[str, tuple[Callable[..., keras.Model], tuple[int, ...]]] = {
    "digits_student": (models.digits_student, (8, 8, 1)),
    "resnet8": (models.resnet8, (32, 32, 3)),
    "ds_cnn": (models.ds_cnn, (49, 10, 1)),
    "mobilenet_v1 0.25": (models.mobilenet_v1, (96, 96, 3)),
    "mobilenet_v2": (models.mobilenet_v2, (96, 96, 3)),
    "MobileNetV3Small": (application("MobileNetV3Small"), (96, 96, 3)),
    "EfficientNet-Lite-like": (efficientnet_lite, (96, 96, 3)),
    "EfficientNetB0": (application("EfficientNetB0"), (96, 96, 3)),
    "attention block": (attention, (16, 8)),
    "lstm": (models.lstm, (32, 13)),
    "gru": (models.gru, (32, 13)),
}


def main() -> None:
    """Converts and runs all models, and writes the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="Markdown file to write; default: rows on standard output only")
    parser.add_argument(
        "--model", action="append", choices=[*MODELS], help="model to convert, can be repeated; default: all"
    )
    arguments = parser.parse_args()
    lines = []
    for name in arguments.model or MODELS:
        for line in rows(name):
            print(line, flush=True)
            lines.append(line)
    if arguments.out:
        arguments.out.write_text(page(lines))


def rows(name: str) -> Iterator[str]:
    """A row of the table for each quantizer and mode of one model."""
    keras.utils.set_random_seed(0)
    build, shape = MODELS[name]
    keras_model, split = build(shape, 10), samples(shape)
    for quantizer, mode in RUNS:
        with tempfile.TemporaryDirectory() as folder:
            start = time.perf_counter()
            try:
                model = tfkd.convert(
                    keras_model,
                    Path(folder) / "m.tflite",
                    mode=mode,
                    quantizer=quantizer,
                    calibration=split,
                    calibration_samples=100,
                    allow_float=True,
                )
            except TfkdError as error:
                yield f"| {name} | {quantizer} | {mode} | – | – | – | – | {reason(error)} | – |"
                continue
            seconds = time.perf_counter() - start
        engines = " | ".join(run(model, split, target) for target in TARGETS)
        float_ops = f"{len(model.float_ops)}" if mode in ("full_int8", "int16x8") else "all"
        yield (
            f"| {name} | {quantizer} | {mode} | {model.size_bytes:,} | {sum(model.ops.values())} | {seconds:.1f} | "
            f"{float_ops} | {engines} |"
        )


def samples(shape: tuple[int, ...]) -> Split:
    """A split of smooth random samples: pixels in 0..255, or features around 0 for sequences."""
    noise = np.random.default_rng(0).normal(size=(120, *shape))
    for axis in range(1, min(3, len(shape)) + 1):
        if axis < len(shape):
            noise = np.cumsum(noise, axis=axis)
    x = noise.astype("float32")
    if len(shape) == 3:
        low, high = x.min(), x.max()
        x = np.round(255 * (x - low) / (high - low)).astype("uint8")
    y = np.arange(120) % 10
    return data.from_arrays((x[:100], y[:100]), (x[100:], y[100:]), validation=0).train


def run(model: TFLiteModel, split: Split, target: str) -> str:
    """`runs`, or `no` and the reason why a target does not run the model."""
    try:
        tfkd.targets.get(target, timeout_s=120).run(model, model.quantize_input(split.x[:4]), latency=False)
    except TfkdError as error:
        return f"no: {reason(error)}"
    return "runs"


def reason(error: Exception) -> str:
    """The cause of an error, in the words of the library if it has any, up to 160 characters."""
    message = str(error).replace("|", "/")
    patterns = (
        r"does not accept the model\. (It .*?\.) Convert",
        r"Its message: (.*)",
        r"(the process crashed \(.*?\))",
        r"LiteRT does not accept the model: (.*)",
        r"Received: (?!TFLM failed)(.*)",
        r"Last output of the process:\n(?:.*\n)*(.+)",
    )
    cause = next(filter(None, (re.search(pattern, message) for pattern in patterns)), None)
    return (cause[1] if cause else message.splitlines()[0])[:160]


def page(lines: list[str]) -> str:
    """The Markdown document with the table."""
    packages = ("tensorflow", "keras", "ai-edge-litert", "litert-quantizer", "tflite-micro")
    versions = ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)
    peaks = [resource.getrusage(who).ru_maxrss / 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return "\n".join(
        [
            "# Conversion by model, quantizer and mode",
            "",
            "Written by `python tools/bench/conversion_matrix.py --out docs/reference/conversion_matrix.md`: models",
            "with random weights, 100 calibration samples. The time is that of `tfkd.convert`, including the start of",
            "its child processes. Float ops are the ops that stay in floating point in an integer mode; without",
            "`allow_float=True` such a model is refused.",
            "",
            f"{versions}; {tfkd.targets.cores()} CPU cores.",
            f"Peak memory: {peaks[0]:,.0f} MiB in this process, which runs Keras, and {peaks[1]:,.0f} MiB in its",
            "largest child process. With random weights, deep models have extreme activation ranges: an engine that",
            "reports an overflow or a failed preparation may run the trained model.",
            "",
            "| Model | Quantizer | Mode | Bytes | Ops | Seconds | Float ops | host | tflm |",
            "|---|---|---|---:|---:|---:|---:|---|---|",
            *lines,
            "",
        ]
    )


if __name__ == "__main__":
    main()
