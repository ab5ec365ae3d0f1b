"""Benchmarks a .tflite on a phone over adb: a table of all combinations of threads and accelerators.

Each repeat starts a new process on the phone. Accuracy is computed on the host from the phone's outputs.

    python tools/benchmark_android.py student.tflite --data digits --threads 1 2 4 --accelerators cpu nnapi --repeats 3
    python tools/benchmark_android.py student.tflite --data digits --sustained 600  # 10 minutes, p50 and p90 per minute
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
from tfkd.errors import DeviceError, InputError, ToolMissingError
from tfkd.report import SUFFIXES
from tfkd.targets.android import ACCELERATORS, Android
from tfkd.validation.results import Row


def main() -> int:
    """Parses the options and measures.

    Returns:
        Exit status: 0; 1 if a run was not valid or failed; 2 for invalid input; 3 for a missing phone or tool.
    """
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument(
        "--data", default="digits", help="data whose test split runs: a name or path for tfkd.data.load"
    )
    parser.add_argument("--serial", default="", help="serial number of the phone, if several are connected")
    parser.add_argument("--apk", type=Path, help="app to install if the phone has none or an older one")
    parser.add_argument("--threads", type=int, nargs="+", default=[1], help="threads per inference")
    parser.add_argument("--accelerators", nargs="+", default=["cpu"], choices=ACCELERATORS)
    parser.add_argument("--repeats", type=int, default=1, help="runs of each combination")
    parser.add_argument("--sustained", type=float, default=0.0, help="seconds of back-to-back inferences")
    parser.add_argument("--report", type=Path, action="append", default=[], help="write .html, .md, .json or .xml")
    parser.add_argument("--json", type=Path, help="file for all measurements")
    options = parser.parse_args()
    try:
        return measure(options)
    except InputError as error:
        print(f"benchmark_android: {error}", file=sys.stderr)
        return 2
    except (ToolMissingError, DeviceError) as error:
        print(f"benchmark_android: {error}", file=sys.stderr)
        return 3


def measure(options: argparse.Namespace) -> int:
    """Runs all combinations and prints a line for each."""
    if options.repeats < 1:
        raise InputError(f"--repeats must be >= 1, got {options.repeats}.")
    settings = [
        Android(options.serial, threads, accelerator, options.apk, options.sustained, restart, progress)
        for threads, accelerator, restart in itertools.product(
            options.threads, options.accelerators, range(options.repeats)
        )
    ]
    for out in options.report:  # checked before the measurements, which take long
        if out.suffix not in SUFFIXES or out.exists():
            raise InputError(f"--report must be a new file with suffix {', '.join(SUFFIXES)}, got {out}.")
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
        settings[0].check()  # raises if the phone was disconnected in the meantime
    return int(not all(row.valid for row in validation.rows))


def show(rows: list[Row], setting: str, *, by_minute: bool) -> None:
    """Prints a line for the repeats of one combination, and one for each minute of a sustained run."""
    reasons = "; ".join(sorted({row.invalid_reason for row in rows if row.invalid_reason})) or "yes"
    done = [row.measurement for row in rows if row.measurement and row.measurement.latency]
    if not done:
        print(f"{setting}  failed: {reasons}")
        return
    latencies = [run.latency for run in done if run.latency]
    p50 = [latency.p50_ms for latency in latencies if latency.p50_ms is not None]
    p90 = [latency.p90_ms for latency in latencies if latency.p90_ms is not None]
    spread = f"{max(p50) - min(p50):.3f}" if len(p50) > 1 else "-"
    accuracies = [row.accuracy for row in rows if row.accuracy is not None]
    accuracy = f"{100 * accuracies[0]:.2f}%" if accuracies else "-"
    middle = f"{statistics.median(p50):>10.3f}{statistics.median(p90):>10.3f}"
    print(f"{setting}{middle}{spread:>15}{accuracy:>10}  {reasons}")
    for minute in done[0].environment["per_minute"] if by_minute else ():
        p50_ms, p90_ms = minute["p50_ns"] / 1e6, minute["p90_ns"] / 1e6
        print(f"{'':12}minute {minute['minute']:>2}: p50 {p50_ms:.3f}, p90 {p90_ms:.3f}")


def progress(phase: str, percent: int) -> None:
    """Progress on a terminal, in one line that is overwritten."""
    if sys.stderr.isatty():
        print(f"\r{phase} {percent} %      ", end="", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
