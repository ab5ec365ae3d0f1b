"""Benchmarks a .tflite on a phone over adb: each combination of threads and accelerators, several times, as a table.

Each repeat is a process of its own on the phone. Accuracy is computed here, from the phone's raw outputs.

    python tools/benchmark_android.py student.tflite --data digits --threads 1 2 4 --accelerators cpu nnapi --repeats 3
    python tools/benchmark_android.py student.tflite --data digits --sustained 600   # ten minutes, p50 and p90 of each
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
from pathlib import Path
from typing import Any

import tfkd
from tfkd.targets.android import ACCELERATORS, Android


def main() -> int:
    """Reads the options and measures; 1 where a run was not valid or a setting does not run, 3 without a phone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", default="digits", help="what tfkd.data.load takes; its test split runs")
    parser.add_argument("--serial", default="", help="of the phone, where several are connected")
    parser.add_argument("--apk", type=Path, help="the app, installed where it is missing or older")
    parser.add_argument("--threads", type=int, nargs="+", default=[1])
    parser.add_argument("--accelerators", nargs="+", default=["cpu"], choices=ACCELERATORS)
    parser.add_argument("--repeats", type=int, default=1)
    parser.add_argument("--sustained", type=float, default=0.0, help="seconds of back-to-back inferences")
    parser.add_argument("--json", type=Path, help="write every measurement there")
    options = parser.parse_args()
    try:
        return measure(options)
    except ValueError as error:
        print(f"benchmark_android: {error}", file=sys.stderr)
        return 2
    except RuntimeError as error:
        print(f"benchmark_android: {error}", file=sys.stderr)
        return 3


def measure(options: argparse.Namespace) -> int:
    """Runs every setting and prints a line for each."""
    model, test = tfkd.TFLiteModel.load(options.model), tfkd.data.load(options.data).test
    x = model.quantize_input(test.x)
    if options.repeats < 1:
        raise ValueError(f"repeats must be >= 1. Received: {options.repeats}.")
    settings = [
        Android(options.serial, threads, accelerator, options.apk, options.sustained, progress)
        for threads, accelerator in itertools.product(options.threads, options.accelerators)
    ]
    settings[0].check()
    runs: list[dict[str, Any]] = []
    print(f"{'accelerator':12}{'threads':>8}{'p50 ms':>10}{'p90 ms':>10}{'spread of p50':>15}{'accuracy':>10}  valid")
    failed = False
    for target in settings:
        done = []
        try:
            for _ in range(options.repeats):
                done.append(target.run(model, x))
        except RuntimeError as error:
            print(f"{target.accelerator:12}{target.threads:>8}  does not run: {error}")
            failed = True
            continue
        finally:
            runs += [run.to_json() for run in done]
        p50, p90 = ([run.latency.p50_ms for run in done if run.latency], [r.latency.p90_ms for r in done if r.latency])
        accuracy = float((done[0].outputs[0].reshape(len(test), -1).argmax(-1) == test.y).mean())
        reasons = "; ".join(sorted({run.invalid_reason for run in done if run.invalid_reason})) or "yes"
        failed |= not all(run.valid for run in done)
        spread = f"{max(p50) - min(p50):.3f}" if len(p50) > 1 else "-"
        print(f"{target.accelerator:12}{target.threads:>8}{statistics.median(p50):>10.3f}{statistics.median(p90):>10.3f}"
              f"{spread:>15}{100 * accuracy:>9.2f}%  {reasons}")  # fmt: skip
        for minute in done[0].environment["per_minute"] if options.sustained else ():
            p50_ms, p90_ms = minute["p50_ns"] / 1e6, minute["p90_ns"] / 1e6
            print(f"{'':12}minute {minute['minute']:>2}: p50 {p50_ms:.3f}, p90 {p90_ms:.3f}")
    if options.json:
        options.json.write_text(json.dumps(runs, indent=1))
    return int(failed)


def progress(phase: str, percent: int) -> None:
    """One line that is written over, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{phase} {percent} %      ", end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
