"""Compares the features of sounds that the C of a firmware computes with those of the training.

For log-mel and MFCC, a DS-CNN learns a data set of sounds. Its int16x8 file shows the noise of the C's features (SNR
against their variance), its int8 file how often the answer is the same from the samples, computed by the C on an
emulated core, as from the features of `tfkd.data`, and what both cost. The first core runs the whole test split, others
20 sounds of it.

    python tools/bench/sound_features.py sounds.csv --seconds 1
"""

from __future__ import annotations

import argparse
import os
import subprocess
import tempfile
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tfkd
from tfkd import data, micro, targets
from tfkd._internal.types import JsonRecord
from tfkd.conversion.tflite import TFLiteModel
from tfkd.data import sounds
from tfkd.micro.sensors import sound

KINDS: dict[str, dict[str, object]] = {"log_mel": {"mel_bands": 40}, "mfcc": {"mel_bands": 40, "coefficients": 10}}
_COLUMNS = (
    *("features", "core", "SNR, dB", "accuracy, %", "from sounds", "same answer", "instructions of a frame"),
    *("of an input", "of the model", "flash", "RAM", "stack"),
)
_MAIN = """
#include <stdio.h>
int main(void) {{
    static tfkd_model_sound sound;
    static int16_t samples[{samples}], input[{values}];
    while (fread(samples, sizeof *samples, {samples}, stdin) == {samples}) {{
        tfkd_model_sound_reset(&sound);
        tfkd_model_sound_add(&sound, samples, {samples}, input);
        fwrite(input, sizeof *input, {values}, stdout);
    }}
    return 0;
}}
"""


def trained(splits: data.Splits, epochs: int) -> keras.Model:
    """A DS-CNN of 24 filters for the classes of a data set."""
    keras.utils.set_random_seed(0)
    norm = keras.layers.Normalization(axis=-2)
    norm.adapt(splits.train.x[:])
    core = tfkd.models.ds_cnn(splits.train.input_shape, splits.train.num_classes, filters=24, dropout=0.0)
    model = keras.Sequential([keras.Input(splits.train.input_shape), norm, core])
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(3e-3), loss=loss, metrics=["accuracy"])
    model.fit(splits.train.batches(64, shuffle=True), epochs=epochs, verbose=2)
    return model


def in_c(program: micro.Program, code: sound.SoundCode, waves: np.ndarray, folder: Path) -> np.ndarray:
    """The real values of the features that the C computes on this machine, float32 [N, rows, columns, 1]."""
    for name, text in code.files.items():
        (folder / name).write_text(text)
    text = _MAIN.format(samples=code.samples, values=code.rows * code.columns)
    (folder / "main.c").write_text(f'#include "{program.name}_sound.c"\n{text}')
    subprocess.run(["cc", "-O2", "-std=c99", str(folder / "main.c"), "-o", str(folder / "run")], check=True)
    raw = np.ascontiguousarray(waves[:, : code.samples]).tobytes()
    printed = subprocess.run([folder / "run"], input=raw, capture_output=True, check=True).stdout
    return program.inputs[0].dequantize(np.frombuffer(printed, "<i2").reshape(-1, code.rows, code.columns, 1))


def accuracy(outputs: np.ndarray, labels: np.ndarray) -> float:
    """Share of right answers, in percent."""
    return 100 * float((outputs.argmax(axis=1) == labels).mean())


def main() -> None:
    """Trains, converts, compares and prints a row for each kind of features and core."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder or manifest of sounds")
    parser.add_argument("--seconds", type=float, default=1.0)
    parser.add_argument("--sample-rate", type=int)
    parser.add_argument("--epochs", type=int, default=12)
    parser.add_argument("--cores", nargs="+", default=["cortex-m4", "cortex-m0plus"])
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    options = parser.parse_args()
    print(f"| {' | '.join(_COLUMNS)} |\n|---|---|{'---:|' * (len(_COLUMNS) - 2)}")
    for kind in options.kinds:
        reading = data.ReadingOptions.of(
            features=kind, seconds=options.seconds, sample_rate=options.sample_rate, **KINDS[kind]
        )
        request = data.Request(options.data, reading)
        splits = data.load(request)
        how = sounds.features_of(request, splits.test)
        if how is None:
            parser.error("the data must be sound files")
        waves = sounds.samples_of(request, splits.test)
        student = trained(splits, options.epochs)
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            fine = tfkd.convert(student, folder / "fine.tflite", mode="int16x8", calibration=splits.train)
            program = micro.emit(fine)
            samples = np.clip(np.rint(waves[..., 0] * 32768), -32768, 32767).astype("<i2")
            found = in_c(program, sound.write(program, how), samples, folder)
            wanted = np.asarray(splits.test.x)
            snr = 10 * np.log10(wanted.var() / ((found - wanted) ** 2).mean())
            model = tfkd.convert(student, folder / "model.tflite", mode="full_int8", calibration=splits.train)
        for core in options.cores:
            count = len(waves) if core == options.cores[0] else min(20, len(waves))
            print(row(kind, core, model, splits.test.take(np.arange(count)), waves[:count], how, snr), flush=True)


def row(
    kind: str, core: str, model: TFLiteModel, test: data.Split, waves: np.ndarray, how: JsonRecord, snr: float
) -> str:
    """A row of the table."""
    features = model.quantize_input(test.x[:])
    run = targets.get(core).with_features(how, waves).run(model, features)
    expected = targets.get("tflm").run(model, features, latency=False).outputs[0]
    cost, outputs = run.environment["features"], run.outputs[0]
    same = 100 * float((outputs.argmax(axis=1) == expected.argmax(axis=1)).mean())
    return (
        f"| {kind} | {core} | {snr:.1f} | {accuracy(expected, test.y):.2f} | {accuracy(outputs, test.y):.2f} | "
        f"{same:.2f} % | {cost['instructions'] / cost['rows']:,.0f} | {cost['instructions']:,} | "
        f"{run.instructions:,} | {cost['flash_bytes']:,} | {cost['ram_bytes']:,} | {cost['stack_bytes']} |"
    )


if __name__ == "__main__":
    main()
