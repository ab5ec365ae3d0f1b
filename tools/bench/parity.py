"""Benchmark of exactness: about 200 models x modes x engines, each compared with the Keras model.

Each result is `right`, `refused` (with an error that names the cause), `coarse` or `wrong`. A file is wrong if its
outputs differ from those of the Keras model by more than a third of their range or correlate with them by less than
0.9, and coarse if they differ by more than the tolerance of the precision, as those of ops do that need more than 8
bits. `failed` is any other error. Rows are appended to a file, so that an interrupted run goes on where it stopped;
rows of another version of the code are measured again, or with `--any-version` kept, which the page says.

    python tools/bench/parity.py --rows parity.jsonl --out docs/reference/parity.md
    python tools/bench/parity.py --rows parity.jsonl --match 'LSTM|GRU' --mode full_int8
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import hashlib
import importlib.metadata
import json
import random
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import keras
import numpy as np
import parity_models
import tensorflow as tf

import tfkd
from tfkd.errors import TfkdError

# Mode, quantizer.
MODES = {
    "float32": ("float32", "tensorflow"),
    "float16": ("float16", "tensorflow"),
    "dynamic_range": ("dynamic_range", "tensorflow"),
    "full_int8": ("full_int8", "tensorflow"),
    "int16x8": ("int16x8", "tensorflow"),
    "full_int8 litert": ("full_int8", "litert"),
    "int16x8 litert": ("int16x8", "litert"),
}
ENGINES = ("host", "host:plain", "tflm")
# The largest difference that counts as right, as a share of the range of the output. Rounding errors of int8 add up
# over the layers, so whole architectures, whose weights are random, get a wider one.
TOLERANCES = {"float32": 1e-3, "float16": 2e-2, "dynamic_range": 0.08, "int16x8": 0.04, "full_int8": 0.08}
WIDER = {"architecture": 4.0, "block": 1.5}
# Beyond these an output is wrong, whatever the precision.
LARGEST, CORRELATION = 1 / 3, 0.9
CALIBRATION, COMPARED = 64, 16


def main(arguments: Sequence[str] | None = None) -> int:
    """Compares the models that are not in the file of rows yet, and writes the page; 1 if one is wrong or failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="JSON lines file to which results are appended")
    parser.add_argument("--out", type=Path, help="Markdown page to write; default: none")
    parser.add_argument("--match", default="", help="regular expression; only models whose name contains a match")
    parser.add_argument("--mode", action="append", choices=[*MODES], help="mode, can be repeated; default: all")
    parser.add_argument("--sample", type=int, help="number of models drawn at random; default: all")
    parser.add_argument("--seed", type=int, default=0, help="random seed of the draw")
    parser.add_argument("--any-version", action="store_true", help="keep the rows of other versions of the code")
    parser.add_argument("--shard", default="0/1", help="part of the models, such as 1/2 for the second half")
    options = parser.parse_args(arguments)
    chosen = [one for one in parity_models.all_models() if re.search(options.match, one[1])]
    if options.sample:
        chosen = random.Random(options.seed).sample(chosen, options.sample)
    shard, shards = map(int, options.shard.split("/"))
    version = digest()
    kept = (row for row in read(options.rows) if options.any_version or row["version"] == version)
    rows = [*{(row["model"], row["mode"]): row for row in kept}.values()]  # the last one of each
    known = {(row["model"], row["mode"]) for row in rows}
    with options.rows.open("a") as file:
        file.write("\n" if file.tell() else "")  # behind a line that was cut off
        for family, name, build in chosen[shard::shards]:
            modes = [mode for mode in options.mode or MODES if (name, mode) not in known]
            for row in compare(family, name, build, modes) if modes else ():
                row["version"] = version
                rows.append(row)
                file.write(json.dumps(row) + "\n")
                file.flush()
                print(f"{row['result']:8}{name}, {row['mode']}: {row['detail']}", flush=True)
    if options.out:
        options.out.write_text(page(rows))
    return int(any(row["result"] in ("wrong", "failed") for row in rows))


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a file; none if it does not exist. A line that was cut off by a kill is left out."""
    rows = []
    for line in path.read_text().splitlines() if path.exists() else []:
        with contextlib.suppress(json.JSONDecodeError):
            rows.append(json.loads(line))
    return rows


def digest() -> str:
    """A digest of what results depend on: the code of tfkd and of the models, and the versions of the packages."""
    folders = (Path(tfkd.__file__).parent, Path(parity_models.__file__).parent)
    files = sorted([*folders[0].rglob("*.py"), *folders[1].glob("parity*.py")])
    texts = [*(path.read_text() for path in files), versions()]
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()[:16]


def versions() -> str:
    """The versions of the packages that convert and run."""
    packages = ("tensorflow", "keras", "ai-edge-litert", "litert-quantizer", "tflite-micro")
    return ", ".join(f"{package} {importlib.metadata.version(package)}" for package in packages)


def compare(family: str, name: str, build: Any, modes: Sequence[str]) -> list[dict[str, Any]]:
    """One row for each mode of a model."""
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    model = build()
    x = samples(model)
    parity_models.settle(model, keras.tree.map_structure(lambda one: one[:CALIBRATION], x))
    calibration = split(x)
    compared = keras.tree.map_structure(lambda one: one[-COMPARED:], x)
    expected = [np.asarray(y, "float32") for y in keras.tree.flatten(model.predict(compared, verbose=0))]
    rows = []
    for mode in modes:
        result, detail = outcome(family, model, mode, calibration, keras.tree.flatten(compared), expected)
        rows.append({"family": family, "model": name, "mode": mode, "result": result, "detail": detail})
    return rows


def outcome(
    family: str, model: keras.Model, mode: str, calibration: Any, x: list[np.ndarray], expected: list[np.ndarray]
) -> tuple[str, str]:
    """The result, and the largest error by engine or the message."""
    precision, quantizer = MODES[mode]
    options = {"calibration": calibration, "calibration_samples": CALIBRATION} if "int" in precision else {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            path = Path(folder) / "m.tflite"
            # Float ops are allowed, since softmax and normalizations have no integer kernels in some modes.
            converted = tfkd.convert(
                model, path, mode=precision, quantizer=quantizer, allow_float="int" in precision, **options
            )
        except TfkdError as error:
            return "refused", str(error)
        except Exception as error:  # a fault of tfkd must not hide those that come after it
            return "failed", f"{type(error).__name__}: {error}"
    tolerance = TOLERANCES[precision] * (
        WIDER.get(family, 1.0) if "int" in precision or precision == "dynamic_range" else 1
    )
    inputs: Any = [converted.quantize_input(one, index) for index, one in enumerate(x)]
    details, coarse, wrong = [], False, False
    for engine in ENGINES:
        try:
            run = tfkd.targets.get(engine).run(converted, inputs if len(inputs) > 1 else inputs[0], latency=False)
        except TfkdError as error:
            details.append(f"{engine} refused")
            if engine != "tflm":
                return "refused", str(error)
            continue
        outputs = [converted.dequantize_output(one, index) for index, one in enumerate(run.outputs)]
        largest = max(map(difference, outputs, expected)) if len(outputs) == len(expected) else np.inf
        coarse |= not largest <= tolerance
        wrong |= not largest <= LARGEST or not min(map(correlation, outputs, expected)) >= CORRELATION
        details.append(f"{engine} {largest:.2%}")
    return "wrong" if wrong else "coarse" if coarse else "right", ", ".join(details)


def difference(output: np.ndarray, expected: np.ndarray) -> float:
    """The largest difference as a share of the range of the right output; infinite for another size or a NaN."""
    if output.size != expected.size or not np.isfinite(output).all():
        return np.inf
    span = float(np.ptp(expected)) or float(np.abs(expected).max()) or 1.0
    return float(np.abs(output.reshape(expected.shape) - expected).max()) / span


def correlation(output: np.ndarray, expected: np.ndarray) -> float:
    """The correlation of two arrays; 1 where the right one is constant, 0 where only the other is or sizes differ."""
    if np.ptp(expected) == 0:
        return 1.0
    if output.size != expected.size or np.ptp(output) == 0:
        return 0.0
    return float(np.corrcoef(output.ravel(), expected.ravel())[0, 1])


def samples(model: keras.Model) -> Any:
    """Smooth random samples of each input of the model, 0..255 where it scales them; token ids for integer inputs."""
    rng, all_layers = np.random.default_rng(0), parity_models.flat(model)
    scales = [layer.scale for layer in all_layers if isinstance(layer, keras.layers.Rescaling)]
    # As of ImageNet, at the beginning of ConvNeXt.
    means = [layer.mean for layer in all_layers if isinstance(layer, keras.layers.Normalization)]
    pixels = any(np.ndim(scale) == 0 and scale < 0.01 for scale in scales) or any(np.min(mean) > 50 for mean in means)

    def draw(tensor: Any) -> np.ndarray:
        shape = (CALIBRATION + COMPARED, *tensor.shape[1:])
        if tensor.dtype.startswith("int"):
            return rng.integers(0, 20, shape).astype(tensor.dtype)
        x = rng.normal(size=shape)
        for axis in range(1, len(shape) - 1):
            x = (x + np.roll(x, 1, axis) + np.roll(x, 2, axis)) / np.sqrt(3)
        return np.clip(128 + 64 * x, 0, 255).astype("float32") if pixels else x.astype("float32")

    return keras.tree.map_structure(draw, model.input)


def split(x: Any) -> Any:
    """The calibration samples as a split of tfkd; as a tuple of arrays for several inputs."""
    x, *others = keras.tree.flatten(x)
    if others:
        return tuple(one[:CALIBRATION] for one in (x, *others))
    y = np.arange(CALIBRATION + COMPARED) % 2
    train, test = (x[:CALIBRATION], y[:CALIBRATION]), (x[CALIBRATION:], y[CALIBRATION:])
    return tfkd.data.from_arrays(train, test, validation=0.0).train


def page(rows: list[dict[str, Any]]) -> str:
    """The Markdown page: counts by family and mode, then what was refused and what was wrong."""
    modes = [mode for mode in MODES if any(row["mode"] == mode for row in rows)]
    counts = collections.Counter((row["family"], row["mode"], row["result"]) for row in rows)
    families = list(dict.fromkeys(row["family"] for row in rows))
    lines = [
        "# Parity with Keras",
        "",
        "Written by `python tools/bench/parity.py --rows parity.jsonl --out docs/reference/parity.md`. Models with",
        f"random weights are converted with {CALIBRATION} calibration samples and run on {', '.join(ENGINES)}.",
        "Each cell has the number of models that are right / coarse / refused with an error / wrong or failed. A",
        "model is right if no output differs on any engine from Keras by more than a share of its range: 0.1 % in",
        "float32, 2 % in float16, 4 % in int16x8, 8 % in int8 (blocks 12 %, architectures, whose weights are random,",
        "32 %). It is wrong beyond a third of the range or below a correlation of 0.9, and coarse between: ops such as",
        "logarithms of sums of exponentials need more than 8 bits.",
        "",
        f"{len({row['model'] for row in rows})} models, {len(rows)} conversions; {versions()}.",
        *(["", different] if (different := _versions_of(rows)) else []),
        "",
        f"| Models | {' | '.join(modes)} |",
        f"|---|{'---:|' * len(modes)}",
    ]
    for family in families:
        cells = [
            f"{counts[family, mode, 'right']} / {counts[family, mode, 'coarse']} / "
            f"{counts[family, mode, 'refused']} / {counts[family, mode, 'wrong'] + counts[family, mode, 'failed']}"
            for mode in modes
        ]
        lines.append(f"| {family} | {' | '.join(cells)} |")
    for result, title in (("wrong", "Wrong"), ("failed", "Failed"), ("coarse", "Coarse"), ("refused", "Refused")):
        found = [row for row in rows if row["result"] == result]
        if found:
            lines += ["", f"## {title}", "", "| Model | Modes | Detail |", "|---|---|---|"]
            groups: dict[tuple[str, str], list[str]] = {}
            for row in found:
                groups.setdefault((row["model"], short(row["detail"])), []).append(row["mode"])
            lines += [f"| {name} | {', '.join(listed)} | {detail} |" for (name, detail), listed in groups.items()]
    return "\n".join([*lines, ""])


def _versions_of(rows: list[dict[str, Any]]) -> str:
    """A sentence on the versions of the code that measured the rows, by mode; empty for one version."""
    by_version: dict[str, dict[str, int]] = {}
    for row in rows:
        counts = by_version.setdefault(row["version"], {})
        counts[row["mode"]] = counts.get(row["mode"], 0) + 1
    if len(by_version) < 2:
        return ""
    parts = (
        f"{version[:8]}: {', '.join(f'{mode} ({count})' for mode, count in counts.items())}"
        for version, counts in by_version.items()
    )
    return f"Measured with {len(by_version)} versions of the code, by their digest. {'; '.join(parts)}."


def short(message: str) -> str:
    """The first 240 characters of a message that do not name the mode, in one table cell."""
    message = re.sub(r"^converting \S+ to \w+: ", "", message)
    return " ".join(message.replace("|", "/").split())[:240]


if __name__ == "__main__":
    tf.get_logger().setLevel("ERROR")
    raise SystemExit(main())
