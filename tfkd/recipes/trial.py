"""One model tried by hand, without a recipe: judged over a contract, or timed; and what a terminal shows of it."""

from __future__ import annotations

import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tfkd import data, report
from tfkd.errors import InputError
from tfkd.report import words

if TYPE_CHECKING:
    from tfkd._internal.progress import Progress
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.targets.measurement import Measurement
    from tfkd.validation.contract import Contract
    from tfkd.validation.validator import Validation


def judge(
    model: Path,
    source: str,
    *,
    targets: Sequence[str],
    reference: Path | None,
    contract: Contract,
    reports: Sequence[Path],
    command: str,
    overwrite: bool,
    progress: Progress,
) -> Validation:
    """Validates one .tflite file and writes its reports; see `tfkd.validate` and `tfkd.write_report`."""
    from tfkd import targets as places
    from tfkd.validation.validator import validate

    engines = [places.get(spec).with_progress(progress.phase) for spec in targets]
    for engine in engines:
        engine.check()  # a missing device is reported before the minutes that the other targets take
    for path in reports:  # before the work, not after it
        if path.suffix not in report.SUFFIXES or (path.exists() and not overwrite):
            raise InputError(
                f"{path}: must be a new file of {', '.join(report.SUFFIXES)}. "
                f"Received: {'an existing file' if path.exists() else path.suffix!r}. Rename it or pass --overwrite."
            )
    graph = None
    if reference is not None:
        from tfkd import models  # and TensorFlow with it, which the rest does without

        graph = models.load(reference)
    progress.start("validate")
    validation = validate(
        model, data.load(source).test, reference=graph, targets=engines, contract=contract, progress=progress.advance
    )
    for path in reports:
        report.write_report(validation, path, command=command, overwrite=overwrite)
    return validation


def benchmark(
    paths: Sequence[Path], specs: Sequence[str], *, threads: int | None = None, batches: Sequence[int] = (1,)
) -> list[tuple[Path, Measurement]]:
    """Times models on random input, with each number of samples in an inference.

    A .tflite is run on each target, a .keras file or a SavedModel by TensorFlow on this machine.
    """
    from tfkd import targets
    from tfkd.targets import serving

    runs = []
    for path in paths:
        if path.suffix == ".keras" or path.is_dir():
            runs += [(path, serving.time_graph(path, threads=threads or 1, batch=batch)) for batch in batches]
            continue
        loaded, inputs = _random_inputs(path)
        options = {} if threads is None else {"threads": threads}
        for spec, batch in itertools.product(specs, batches):
            target = targets.get(spec, **options, **({"batch": batch} if batch != 1 else {}))
            runs.append((path, target.run(loaded, inputs)))
    return runs


def _random_inputs(path: Path) -> tuple[TFLiteModel, list[np.ndarray]]:
    from tfkd.conversion.tflite import TFLiteModel

    model, random = TFLiteModel.load(path), np.random.default_rng(0)
    inputs = []
    for tensor in model.inputs:
        low, high = (0, 1) if tensor.dtype.startswith("float") else (np.iinfo(tensor.dtype).min, 127)
        inputs.append(random.uniform(low, high, (1, *tensor.shape[1:])).astype(tensor.dtype))
    return model, inputs


def latencies(runs: Sequence[tuple[Path, Measurement]]) -> str:
    """A table with a line for each run."""
    lines = [f"{'model':<22} {'on':<32} {'p50':>9} {'p90':>9} {'p99':>9} {'runs':>7} {'samples/s':>10}"]
    for path, run in runs:
        what = f"{path.name:<22} {run.target:<32}"
        if run.latency is None:
            lines.append(f"{what} {_counted(run.to_json()) or 'says nothing about time'}")
            continue
        times = " ".join(
            f"{words.ms(value):>9}" for value in (run.latency.p50_ms, run.latency.p90_ms, run.latency.p99_ms)
        )
        middle = run.latency.p50_ms or run.latency.mean_ms
        rate = f"{1000 * run.setting.get('timed_batch', 1) / middle:,.0f}"
        note = "" if run.valid else f"  not valid: {run.invalid_reason}"
        lines.append(f"{what} {times} {run.latency.count:>7,} {rate:>10}{note}")
    return "\n".join(lines)


def _counted(measured: Mapping[str, Any]) -> str:
    """What an emulated core gave: instructions, RAM, flash, and the estimate of its time."""
    if measured["instructions"] is None:
        return ""
    memory, estimate = measured["memory"], measured["estimated_ms"]
    time = f", estimated {estimate[0]:.2f} to {estimate[1]:.2f} ms" if estimate else ""
    return (
        f"{measured['instructions']:,} instructions{time}, RAM {memory['ram_bytes']:,}, "
        f"flash {memory['flash_bytes']:,} bytes"
    )


def rewrite(source: Path, out: Path, *, overwrite: bool = False) -> Path:
    """Writes the report of a run's folder, or of a report in JSON, in another form."""
    path = source / "report.json" if source.is_dir() else source
    try:
        record = json.loads(path.read_text())
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path}: must be a report that tfkd wrote as JSON. Received: {error}. Give the folder of a finished run."
        ) from None
    if not isinstance(record, dict):
        raise InputError(f"{path}: must be a report that tfkd wrote as JSON. Received: {type(record).__name__}.")
    return report.write_report(record, out, overwrite=overwrite)


def summary(record: Mapping[str, Any]) -> str:
    """The rows and the verdict of a validation in JSON form, as lines."""
    lines = [f"{'model':<18} {'on':<19} {'bytes':>9} {'accuracy':>9} {'p90 ms':>8} {'arena':>8}"]
    for row in record["rows"]:
        measured = row["measurement"] or {}
        latency, arena = measured.get("latency"), (measured.get("memory") or {}).get("arena_bytes")
        cells = (
            words.percent(row["accuracy"], 2) if row["valid"] else "does not run",
            f"{latency['p90_ms']:.3f}" if latency and latency["p90_ms"] is not None else "-",
            f"{arena:,}" if arena else "-",
        )
        where = row["target"] or "Keras"
        lines.append(f"{row['name']:<18} {where:<19} {row['bytes']:>9,} {cells[0]:>9} {cells[1]:>8} {cells[2]:>8}")
        if not row["valid"]:
            lines.append(f"{'':<18} {row['invalid_reason']}")
        if counted := _counted(measured) if measured else "":
            lines.append(f"{'':<18} {counted}")
    verdict = record["verdict"]
    if verdict["status"]:
        lines.append(f"Verdict: {verdict['status']} (decided by {verdict['binding']})")
    return "\n".join(lines)
