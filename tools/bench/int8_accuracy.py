"""Accuracy that models lose in int8 and int4 without training: tfkd beside TensorFlow's converter and litert-quantizer.

All contestants quantize the same Keras model with the same calibration samples of the train split. `mse` is the mean
squared error of the outputs against the Keras model's, relative to their variance, and `flips` the share of samples
with another answer, both on the whole test split; nothing is chosen on it.

    python tools/bench/int8_accuracy.py resnet8_cifar10.keras:cifar10 ds_cnn.keras:spoken_log_mel.npz --tflm 10000
    python tools/bench/int8_accuracy.py resnet8_cifar10.keras:cifar10 --contestants tfkd tensorflow
"""

from __future__ import annotations

import argparse
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np
import tensorflow as tf

import tfkd
from tfkd import targets
from tfkd.conversion.calibration import choose
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data import Split

CALIBRATION = 256
ALL_LAYERS = (".",)


def tensorflow(model: keras.Model, train: Split, path: Path) -> TFLiteModel:
    """TensorFlow's converter as its guide shows it."""
    samples = choose(train, CALIBRATION, 0).x.astype("float32")
    converter = tf.lite.TFLiteConverter.from_keras_model(model)
    converter.optimizations = [tf.lite.Optimize.DEFAULT]
    converter.representative_dataset = lambda: ([sample[None]] for sample in samples)
    converter.target_spec.supported_ops = [tf.lite.OpsSet.TFLITE_BUILTINS_INT8]
    converter.inference_input_type = converter.inference_output_type = tf.int8
    path.write_bytes(converter.convert())
    return TFLiteModel.load(path)


def litert_quantizer(model: keras.Model, train: Split, path: Path) -> TFLiteModel:
    """litert-quantizer with its own calibration, a moving average of ranges, and 8 bits everywhere."""
    from litert_quantizer import qtyping, quantizer

    content = tfkd.convert(model, path, mode="float32").content
    engine = quantizer.Quantizer(bytearray(content))
    names, channels = qtyping.TFLOperationName, qtyping.QuantGranularity.CHANNELWISE
    engine.add_static_config(".*", names.ALL_SUPPORTED, 8, 8, channels)
    name = next(iter(tf.lite.Interpreter(model_content=content).get_signature_list().values()))["inputs"][0]
    samples = choose(train, CALIBRATION, 0).x.astype("float32")
    ranges = engine.calibrate({"serving_default": [{name: sample[None]} for sample in samples]})
    path.write_bytes(bytes(engine.quantize(ranges).quantized_model))
    return TFLiteModel.load(path)


def by_tfkd(**options: Any) -> Callable[[keras.Model, Split, Path], TFLiteModel]:
    """A conversion by tfkd with these options."""

    def convert(model: keras.Model, train: Split, path: Path) -> TFLiteModel:
        return tfkd.convert(model, path, calibration=train, calibration_samples=CALIBRATION, **options)

    return convert


def int4(model: keras.Model) -> tfkd.QuantizerSettings:
    """Weights of 4 bits in all convolutions and matrix products that may have them."""
    kinds = (keras.layers.Conv2D, keras.layers.Dense)
    names = [layer.name for layer in model.layers if isinstance(layer, kinds) and not _is_depthwise(layer)]
    return tfkd.QuantizerSettings(int4=tuple(f"(^|/){name}$" for name in names))


def _is_depthwise(layer: keras.Layer) -> bool:
    return isinstance(layer, keras.layers.DepthwiseConv2D)


def in_4_bits(**options: Any) -> Callable[[keras.Model, Split, Path], TFLiteModel]:
    """A conversion by tfkd with weights of 4 bits."""

    def convert(model: keras.Model, train: Split, path: Path) -> TFLiteModel:
        return by_tfkd(quantizer=int4(model), allow_mismatch=True, **options)(model, train, path)

    return convert


CONTESTANTS: dict[str, Callable[[keras.Model, Split, Path], TFLiteModel]] = {
    "tensorflow": tensorflow,
    "litert-quantizer": litert_quantizer,
    "tfkd": by_tfkd(),
    "tfkd --refine --rounding nearest": by_tfkd(refine=True, rounding="nearest"),
    "tfkd --refine": by_tfkd(refine=True),
    "int4, tfkd": in_4_bits(),
    "int4, tfkd --refine": in_4_bits(refine=True),
}


def measure(name: str, model: keras.Model, splits: Any, expected: np.ndarray, options: argparse.Namespace) -> str:
    """A row of the table.

    Args:
        name: One of `CONTESTANTS`.
        model: The Keras model.
        splits: Its data.
        expected: [N, classes] the model's outputs on the test split.
        options: The command line.
    """
    started, test = time.monotonic(), splits.test
    with tempfile.TemporaryDirectory() as folder:
        converted = CONTESTANTS[name](model, splits.train, Path(folder) / "model.tflite")
    seconds = time.monotonic() - started
    quantized = converted.quantize_input(test.x)
    (raw,) = targets.get("host").run(converted, [quantized], latency=False).outputs
    outputs = converted.dequantize_output(raw).reshape(expected.shape)
    error = float(np.square(outputs - expected).mean() / expected.var())
    flips = float(np.mean(outputs.argmax(axis=1) != expected.argmax(axis=1)))
    cells = [f"{np.mean(outputs.argmax(axis=1) == test.y):.2%}", "-", f"{error:.5f}", f"{flips:.2%}"]
    if options.tflm:
        (raw,) = targets.get("tflm").run(converted, [quantized[: options.tflm]], latency=False).outputs
        right = raw.reshape(len(raw), -1).argmax(axis=1) == test.y[: options.tflm]
        cells[1] = f"{right.mean():.2%}"
    if converted.changes:
        print(*converted.changes, sep="\n")
    return f"| {name} | {' | '.join(cells)} | {converted.size_bytes:,} | {seconds:.0f} |"


def main() -> None:
    """Prints a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("models", nargs="+", help="MODEL.keras:DATA, with a data set of tfkd.data.load")
    parser.add_argument("--contestants", nargs="+", choices=[*CONTESTANTS], default=[*CONTESTANTS])
    parser.add_argument(
        "--tflm", type=int, default=0, help="number of test samples for TensorFlow Lite Micro, 0 for none"
    )
    options = parser.parse_args()
    for pair in options.models:
        file, _, dataset = pair.partition(":")
        splits, model = tfkd.data.load(dataset), tfkd.models.load(file)
        expected = model.predict(splits.test.x, batch_size=100, verbose=0)
        accuracy = np.mean(expected.argmax(axis=1) == splits.test.y)
        print(f"\n{file}, {model.count_params():,} parameters, {len(splits.test):,} test samples\n")
        rows = ["| | host | tflm | mse | flips | bytes | seconds |", "|---|---:|---:|---:|---:|---:|---:|"]
        rows.append(f"| Keras, float32 | {accuracy:.2%} | | | | | |")
        for name in options.contestants:
            try:
                rows.append(measure(name, model, splits, expected, options))
            except (tfkd.errors.TfkdError, ValueError, RuntimeError) as error:
                rows.append(f"| {name} | {str(error).splitlines()[0][:120]} | | | | | |")
            print(rows[-1], flush=True)
        print("\n" + "\n".join(rows))


if __name__ == "__main__":
    main()
