"""Counts instructions, arena, stack and code of the generated C for the MLPerf Tiny architectures on emulated cores.

The numbers are deterministic. Goals: at most CMSIS-NN's instructions on each model and core; an arena within 1.02 of
the largest set of live tensors; code and constants without weights within 16 KiB at -O2 and 8 KiB with --size; outputs
equal to TensorFlow Lite Micro's; with --stream an arena below that set, and equal outputs.

The baseline was measured under emulation with TensorFlow Lite Micro (August 2026), gcc 12.2 -O2; the Cortex-M33 and M7
are compared with the M4's, the M55 with its own. Weights are random; the counts hardly depend on them.

    python tools/bench/micro.py
    python tools/bench/micro.py --cores cortex-m4 --models keyword_spotting --layers
    python tools/bench/micro.py --cores cortex-m4 --files person_detect.tflite vww_96_int8.tflite
"""

from __future__ import annotations

import argparse
import logging
import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import keras
import numpy as np

import tfkd
from tfkd import micro, targets
from tfkd.conversion.tflite import TFLiteModel
from tfkd.targets.measurement import Measurement

# name: builder, input shape, classes, CMSIS-NN's millions of instructions on M4 and M0+, goal on M4, least live bytes
MODELS: dict[str, tuple[Any, ...]] = {
    "anomaly_detection": ("autoencoder", (640,), None, 0.583, 1.76, 0.35, 768),
    "keyword_spotting": ("ds_cnn", (49, 10, 1), 12, 7.70, 29.0, 4.0, 16_000),
    "image_classification": ("resnet8", (32, 32, 3), 10, 29.9, 97.6, 15.0, 49_152),
    "visual_wake_words": ("mobilenet_v1", (96, 96, 3), 2, 24.1, 86.9, 8.0, 55_296),
}
CORES = ("cortex-m0plus", "cortex-m3", "cortex-m4", "cortex-m7", "cortex-m33", "cortex-m55")
# CMSIS-NN's millions of instructions on the Cortex-M55, with Helium; no goals are set for the other columns.
ON_M55 = {
    "anomaly_detection": 0.150,
    "keyword_spotting": 1.82,
    "image_classification": 4.91,
    "visual_wake_words": 6.56,
}


def converted(name: str, folder: Path) -> TFLiteModel:
    """The model with random weights and matching BatchNormalization statistics, as a .tflite."""
    builder, shape, classes, *_ = MODELS[name]
    keras.utils.set_random_seed(0)
    model = tfkd.models.build(builder, shape, classes)
    numbers = np.random.default_rng(0)
    x = (
        numbers.integers(0, 256, (64, *shape)).astype("float32")
        if shape[-1] == 3
        else numbers.normal(0, 1, (64, *shape))
    )
    norms = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    for layer in norms:
        layer.momentum = 0.0
        gamma, beta, mean, variance = layer.get_weights()
        scale, offset = numbers.uniform(0.5, 1.5, gamma.shape), numbers.normal(0, 0.3, beta.shape)
        layer.set_weights([scale, offset, mean, variance])
    for _ in range(2 if norms else 0):
        model(x.astype("float32"), training=True)
    labels = np.arange(64) % (classes or 2)
    np.savez(
        folder / "x.npz",
        x_train=x.astype("float32"),
        y_train=labels,
        x_test=x[:20].astype("float32") + 1,
        y_test=labels[:20],
    )
    return tfkd.convert(model, folder / f"{name}.tflite", calibration=tfkd.data.load(folder / "x.npz").train)


def row(name: str, core: str, model: TFLiteModel, x: np.ndarray, expected: np.ndarray, layers: bool) -> str:
    """One row of the table, followed by one line per layer if `layers` is true."""
    _, _, _, on_m4, on_m0, goal, least = MODELS[name]
    run = targets.get(core).run(model, x)
    small = targets.get(core, optimize="-Os").run(model, x, latency=False)
    by_rows = targets.get(core, stream=True).run(model, x)
    assert run.instructions  # an emulated core counts them
    assert by_rows.instructions
    assert run.memory.arena_bytes
    base = {"cortex-m0plus": on_m0, "cortex-m3": None, "cortex-m55": ON_M55[name]}.get(core, on_m4)
    weights = run.environment["weight_bytes"]
    code, code_small, code_by_rows = (m.memory.flash_bytes - weights for m in (run, small, by_rows))
    instructions = run.instructions / 1e6
    equal = all(np.array_equal(m.outputs[0], expected) for m in (run, small, by_rows))
    cells = [
        name, core, f"{instructions:.3f}", f"{base:g}" if base else "-",
        f"{instructions / base:.2f}" if base else "-",
        "-" if core in ("cortex-m0plus", "cortex-m3", "cortex-m55") else f"{goal:g} {_verdict(instructions, goal)}",
        f"{run.memory.arena_bytes:,} / {least:,} = {run.memory.arena_bytes / least:.3f}", f"{run.memory.stack_bytes:,}",
        f"{code:,} {_verdict(code, 16 * 1024)}", f"{code_small:,} {_verdict(code_small, 8 * 1024)}",
        f"{by_rows.memory.arena_bytes:,}", f"{by_rows.instructions / 1e6:.3f}", f"{by_rows.memory.stack_bytes:,}",
        f"{code_by_rows:,} {_verdict(code_by_rows, 16 * 1024)}",
        "equal" if equal else "DIFFER",
        _shares(run.environment["classes"]),
    ]  # fmt: skip
    lines = ["| " + " | ".join(cells) + " |"]
    if layers:
        lines += _by_layer(run) + ["    with --stream:"] + _by_layer(by_rows)
    return "\n".join(lines)


def file_rows(path: Path, core: str) -> list[str]:
    """Rows of a published model, one for each compiler: the default against --size and --stream."""
    model = TFLiteModel.load(path)
    given = model.inputs[0]
    low, high = np.iinfo(given.dtype).min, np.iinfo(given.dtype).max
    x = np.random.default_rng(1).integers(low, high, (2, *given.shape[1:]), endpoint=True).astype(given.dtype)
    expected = targets.get("tflm").run(model, x, latency=False).outputs[0]
    rows = []
    for cc in ("", "arm-none-eabi-gcc"):
        runs = [targets.get(core, cc=cc, **options).run(model, x) for options in _OPTIONS]
        whole, small, by_rows = (run.instructions or 0 for run in runs)
        code = [(run.memory.flash_bytes or 0) - run.environment["weight_bytes"] for run in runs]
        cells = [
            path.stem, core, cc or "zig", f"{whole / 1e6:.3f}", f"{small / 1e6:.3f} x{small / whole:.2f}",
            f"{by_rows / 1e6:.3f} {100 * (by_rows / whole - 1):+.1f} %",
            *(f"{run.memory.arena_bytes:,}" for run in (runs[0], runs[2])),
            *(f"{size:,}" for size in code[:2]), f"{runs[0].memory.stack_bytes:,}",
            "equal" if all(np.array_equal(run.outputs[0], expected) for run in runs) else "DIFFER",
        ]  # fmt: skip
        rows.append("| " + " | ".join(cells) + " |")
    return rows


_OPTIONS: tuple[dict[str, Any], ...] = ({}, {"optimize": "-Os"}, {"stream": True})
_FILE_HEAD = (
    "file", "core", "compiler", "M instructions", "--size", "--stream", "arena", "arena --stream", "code -O2",
    "code --size", "stack", "outputs",
)  # fmt: skip


def _by_layer(run: Measurement) -> list[str]:
    """One line per layer: instructions, shares of the instruction classes, operator."""
    counts = [classes for name, classes in run.environment["layer_classes"].items() if name != "around"]
    return [
        f"    {sum(classes.values()):10,}  {_shares(classes):50s}  {step}"
        for classes, step in zip(counts, run.environment["steps"], strict=True)
    ]


def _shares(classes: Mapping[str, int]) -> str:
    """Shares of the instruction classes, in percent."""
    total = sum(classes.values())
    return " ".join(f"{kind} {100 * count / total:.0f}" for kind, count in classes.items())


def _verdict(value: float, goal: float) -> str:
    return "holds" if value <= goal else "missed"


def main() -> None:
    """Converts the models, generates, compiles and runs the C, and prints the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cores", nargs="+", choices=CORES, default=["cortex-m0plus", "cortex-m4", "cortex-m33"])
    parser.add_argument("--models", nargs="+", choices=list(MODELS), default=list(MODELS))
    parser.add_argument("--layers", action="store_true", help="also print the instructions of each layer, by class")
    parser.add_argument("--files", nargs="+", type=Path, default=[], help="published .tflite files instead of --models")
    options = parser.parse_args()
    logging.getLogger("tensorflow").setLevel(logging.ERROR)
    if options.files:
        print("| " + " | ".join(_FILE_HEAD) + " |\n|" + "---|" * len(_FILE_HEAD), flush=True)
        for path in options.files:
            for core in options.cores:
                print(*file_rows(path, core), sep="\n", flush=True)
        return
    head = (
        "model",
        "core",
        "M instructions",
        "CMSIS-NN",
        "ratio",
        "goal",
        "arena / least live",
        "stack",
        "code -O2",
        "code --size",
        "arena --stream",
        "M instructions --stream",
        "stack --stream",
        "code --stream",
        "outputs",
        "classes, %",
    )
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head), flush=True)
    for name in options.models:
        with tempfile.TemporaryDirectory() as folder:
            model = converted(name, Path(folder))
        x = np.random.default_rng(1).integers(-128, 128, (2, *model.inputs[0].shape[1:])).astype("int8")
        expected = targets.get("tflm").run(model, x).outputs[0]
        start = time.perf_counter()
        micro.emit(model)
        seconds = time.perf_counter() - start
        for core in options.cores:
            print(row(name, core, model, x, expected, options.layers), flush=True)
        print(f"{name}: C generated in {seconds:.2f} s")


if __name__ == "__main__":
    main()
