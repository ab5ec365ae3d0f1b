"""Benchmarks a .tflite on a phone over adb: each combination of threads and accelerators, several times, as a table.

Each repeat is a process of its own on the phone. Accuracy is computed here, from the phone's raw outputs.

    python tools/benchmark_android.py student.tflite --data digits --threads 1 2 4 --accelerators cpu nnapi --repeats 3
    python tools/benchmark_android.py student.tflite --data digits --sustained 600   # ten minutes, p50 and p90 of each
    python tools/benchmark_android.py student.tflite --data digits --repeats 5 --report phone.html
"""

from __future__ import annotations

import argparse
import itertools
import json
import shlex
import statistics
import sys
from pathlib import Path

import tfkd
from tfkd.report import SUFFIXES
from tfkd.targets.android import ACCELERATORS, Android
from tfkd.validation.results import Row


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
    parser.add_argument("--report", type=Path, action="append", default=[], help="write .html, .md, .json or .xml")
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
    if options.repeats < 1:
        raise ValueError(f"repeats must be >= 1. Received: {options.repeats}.")
    settings = [
        Android(options.serial, threads, accelerator, options.apk, options.sustained, restart, progress)
        for threads, accelerator, restart in itertools.product(
            options.threads, options.accelerators, range(options.repeats)
        )
    ]
    for out in options.report:  # before the work, not after it
        if out.suffix not in SUFFIXES or out.exists():
            raise ValueError(f"report must be a new file of {', '.join(SUFFIXES)}. Received: {out}. Rename it.")
    settings[0].check()
    test = tfkd.data.load(options.data).test
    validation = tfkd.validate(options.model, test, targets=settings)
    print(f"{'accelerator':12}{'threads':>8}{'p50 ms':>10}{'p90 ms':>10}{'spread of p50':>15}{'accuracy':>10}  valid")
    rows = dict(zip(settings, validation.rows, strict=True))
    for threads, accelerator in itertools.product(options.threads, options.accelerators):
        show(
            [row for one, row in rows.items() if (one.threads, one.accelerator) == (threads, accelerator)],
            f"{accelerator:12}{threads:>8}",
            by_minute=options.sustained > 0,
        )
    if options.json:
        runs = [row.measurement.to_json() for row in validation.rows if row.measurement]
        options.json.write_text(json.dumps(runs, indent=1))
    for out in options.report:
        tfkd.write_report(validation, out, command=shlex.join(sys.argv))
    if not all(row.measurement for row in validation.rows):
        settings[0].check()  # a phone that is gone meanwhile is as one that was never there
    return int(not all(row.valid for row in validation.rows))


def show(rows: list[Row], setting: str, *, by_minute: bool) -> None:
    """A line for the restarts of one setting, and one for each minute of a sustained run."""
    reasons = "; ".join(sorted({row.invalid_reason for row in rows if row.invalid_reason})) or "yes"
    done = [row.measurement for row in rows if row.measurement and row.measurement.latency]
    if not done:
        print(f"{setting}  does not run: {reasons}")
        return
    p50, p90 = [run.latency.p50_ms for run in done], [run.latency.p90_ms for run in done]
    spread = f"{max(p50) - min(p50):.3f}" if len(p50) > 1 else "-"
    accuracies = [row.accuracy for row in rows if row.accuracy is not None]
    accuracy = f"{100 * accuracies[0]:.2f}%" if accuracies else "-"
    middle = f"{statistics.median(p50):>10.3f}{statistics.median(p90):>10.3f}"
    print(f"{setting}{middle}{spread:>15}{accuracy:>10}  {reasons}")
    for minute in done[0].environment["per_minute"] if by_minute else ():
        p50_ms, p90_ms = minute["p50_ns"] / 1e6, minute["p90_ns"] / 1e6
        print(f"{'':12}minute {minute['minute']:>2}: p50 {p50_ms:.3f}, p90 {p90_ms:.3f}")


def progress(phase: str, percent: int) -> None:
    """One line that is written over, on a terminal."""
    if sys.stderr.isatty():
        print(f"\r{phase} {percent} %      ", end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
