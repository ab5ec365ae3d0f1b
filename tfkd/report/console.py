"""Results as text for a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tfkd._internal.types import JsonRecord
from tfkd.report import metrics, words

if TYPE_CHECKING:
    from tfkd.targets.measurement import Measurement

# A model with a larger share of zeros in its weights was pruned.
_SPARSE = 0.25


def summary(record: JsonRecord) -> str:
    """The rows of a validation, and the verdict with its reason.

    Args:
        record: A validation as JSON, see `tfkd.Validation.to_json`.
    """
    task = metrics.task_of(record)
    is_classification = metrics.is_classification(record)
    names = ["accuracy"] if is_classification else [metric.label for metric in task.metrics]
    widths = [max(9, len(name)) for name in names]
    header = " ".join(f"{name:>{width}}" for name, width in zip(names, widths, strict=True))
    lines = [f"{'model':<18} {'target':<19} {'bytes':>9} {header} {'p90 ms':>8} {'arena':>8}"]
    if not is_classification:
        lines.insert(0, f"Task: {task.name}")
    if record.get("output"):
        lines.insert(0, f"Output: {record['output']}; the others are not judged")
    for row in record["rows"]:
        measured = row["measurement"] or {}
        latency, arena = measured.get("latency"), (measured.get("memory") or {}).get("arena_bytes")
        numbers = [words.percent(row["accuracy"], 2)]
        if not is_classification:
            numbers = [number for number, _ in metrics.cells(row, task.metrics)]
        cells = (
            " ".join(
                f"{number if row['valid'] else '-':>{width}}" for number, width in zip(numbers, widths, strict=True)
            ),
            f"{latency['p90_ms']:.3f}" if latency and latency["p90_ms"] is not None else "-",
            f"{arena:,}" if arena else "-",
        )
        target = row["target"] or "Keras"
        lines.append(f"{row['name']:<18} {target:<19} {row['bytes']:>9,} {cells[0]} {cells[1]:>8} {cells[2]:>8}")
        if not row["valid"]:
            lines.append(f"{'':<18} {words.status(row)}")
        if counted := _instructions(measured) if measured else "":
            lines.append(f"{'':<18} {counted}")
    verdict = record["verdict"]
    if verdict["status"]:
        lines.append(f"Verdict: {verdict['status']} (decided by {verdict['binding']})")
        lines.append(words.headline(record))
        if accuracy := words.accuracy_line(record):
            lines.append(accuracy)
    return "\n".join(lines)


def outputs(record: JsonRecord) -> str:
    """The verdict on a model of several outputs, and that on each of them.

    Args:
        record: Such a verdict as JSON, see `tfkd.validation.several_outputs.OutputsVerdict.to_json`.
    """
    lines = []
    for name, one in record["outputs"].items():
        verdict, targets = one["verdict"], dict.fromkeys(row["target"] for row in one["rows"] if row["target"])
        reason = words.headline({**one, "output": None}) if verdict["status"] else "There is no limit."
        lines.append(f"{name} ({one['task']}, on {', '.join(targets)}): {verdict['status'] or 'no contract'}. {reason}")
    lines += [f"{name}: not judged" for name in record["missing"]]
    return "\n".join([*lines, f"Verdict on all outputs: {record['status']}"])


def latencies(runs: Sequence[tuple[Path, Measurement]]) -> str:
    """A table with a line for each run of a benchmark.

    Args:
        runs: Path of the model and measurement of each run.
    """
    width = max([22, *(len(path.name) for path, _ in runs)])
    lines = [f"{'model':<{width}} {'target':<32} {'p50':>9} {'p90':>9} {'p99':>9} {'runs':>7} {'samples/s':>10}"]
    for path, run in runs:
        start = f"{path.name:<{width}} {run.target:<32}"
        if run.latency is None:
            lines.append(f"{start} {_instructions(run.to_json()) or 'latency is not measured on this target'}")
            continue
        percentiles = (run.latency.p50_ms, run.latency.p90_ms, run.latency.p99_ms)
        times = " ".join(f"{words.ms(value):>9}" for value in percentiles)
        middle = run.latency.p50_ms or run.latency.mean_ms
        rate = f"{1000 * run.setting.get('timed_batch', 1) / middle:,.0f}"
        note = "" if run.valid else f"  not valid: {run.invalid_reason}"
        lines.append(f"{start} {times} {run.latency.count:>7,} {rate:>10}{note}")
    return "\n".join(lines)


def _instructions(measured: JsonRecord) -> str:
    """Instructions, estimated time, RAM and flash of a microcontroller or an NPU; empty for other targets."""
    if "npu_ops" in measured["environment"]:
        return npu(measured)
    if measured["instructions"] is None:
        return ""
    memory, estimate = measured["memory"], measured["estimated_ms"]
    time = f", estimated {estimate[0]:.2f} to {estimate[1]:.2f} ms" if estimate else ""
    return (
        f"{measured['instructions']:,} instructions{time}, RAM {memory['ram_bytes']:,}, "
        f"flash {memory['flash_bytes']:,} bytes"
    )


def npu(measured: JsonRecord) -> str:
    """What Vela estimates for an NPU: coverage, cycles, time and memory.

    Args:
        measured: Measurement of an Ethos-U as JSON, see `tfkd.targets.ethos_u`.
    """
    environment, memory = measured["environment"], measured["memory"]
    rest = [op["kind"] for op in environment["cpu_ops"]]
    parts = [f"{environment['npu_ops']} of {environment['npu_ops'] + len(rest)} ops on the NPU"]
    if environment["estimated_npu_cycles"] is not None:
        parts.append(f"{environment['estimated_npu_cycles']:,} cycles of it")
    if measured["estimated_ms"]:
        parts.append(f"{measured['estimated_ms'][0]:.3f} ms")
    if memory["ram_bytes"] is None or memory["flash_bytes"] is None:
        parts.append("memory unknown")
    else:
        parts.append(f"SRAM {environment['sram_bytes']:,}, flash {memory['flash_bytes']:,} bytes (estimated by Vela)")
    if rest:
        parts.append(f"on the Cortex-M beside it: {', '.join(dict.fromkeys(rest))}, whose time is unknown")
    return ", ".join(parts)


def trained(record: JsonRecord) -> str:
    """The result of a training.

    Args:
        record: See `tfkd.recipes.training.train`.
    """
    lines = [f"{record['path']}: validation {trained_score(record)}"]
    return "\n".join([*lines, *_sizes(record)] if "size_bytes" in record else lines)


def trained_score(record: JsonRecord) -> str:
    """The score of a trained model on the validation split, such as `accuracy 0.9712` or `MAE 41.2, RMSE 53.1`.

    Args:
        record: See `tfkd.recipes.training.train`.
    """
    if record.get("val_metrics") is None:
        return f"accuracy {record['val_accuracy']:.4f}"
    task = metrics.task_of(record)
    return ", ".join(f"{one.label} {words.quantity(record['val_metrics'][one.name], one.unit)}" for one in task.metrics)


def converted(record: JsonRecord) -> str:
    """The result of a conversion.

    Args:
        record: See `tfkd.recipes.conversion.convert`.
    """
    lines = [*_sizes(record), *record["changes"], *record["findings"]]
    peak = record["peak_bytes"]
    lines.append(f"{record['seconds']:.1f} s" + (f", peak memory {peak / 1e6:,.0f} MB" if peak else ""))
    return "\n".join([*lines, *(f"{path}: golden vectors" for path in record["golden"])])


def exported(folder: Path, sizes: JsonRecord) -> str:
    """The result of an export to C.

    Args:
        folder: Folder of the C files.
        sizes: See `tfkd.micro.export.write`.
    """
    arena = sizes["arena_bytes"]
    words = [f"{folder}: arena {'size unknown, without tflite-micro' if arena is None else f'{arena:,} bytes'}"]
    if "removed" in sizes:  # format c
        words.append(sizes["removed"]["summary"])
        if sizes["golden_source"]:
            words.append(f"self-test of {sizes['golden_vectors']} vectors from {sizes['golden_source']}")
        elif not sizes["golden_refusals"]:
            words.append("no self-test: neither tflite-micro nor the packages of tfkd[mcu] are installed")
        else:
            words.append("no self-test: no engine runs this model")
        lines = [f"no vectors from {message.splitlines()[0]}" for message in sizes["golden_refusals"].values()]
        if layers := len(sizes["float_layers"]):
            lines.append(
                f"warning: {layers} layers compute in floats: about 20 to 100 instructions for each sum or product "
                "where the core has no unit for them, and 2,000 for an exponential"
            )
        return "\n".join(["; ".join(words), *lines])
    return "; ".join(words)


def exported_site(folder: Path, written: JsonRecord) -> str:
    """The result of an export of a web page.

    Args:
        folder: Folder of the page.
        written: See `tfkd.targets.web_site.write`.
    """
    return (
        f"{folder}: {written['files']} files, {written['bytes'] / 1e6:.1f} MB, for {written['input']}s\n"
        f"Try it: python3 -m http.server --directory {folder} 8000, then open http://localhost:8000"
    )


def _sizes(record: JsonRecord) -> list[str]:
    """The size of a .tflite, plain and compressed."""
    compressed = f"{record['compressed_bytes']:,} compressed by gzip, {record['zstd_bytes']:,} by zstd"
    lines = [f"{record['path']}: {record['size_bytes']:,} bytes, {compressed}"]
    zeros = record["weight_zeros"]
    if zeros is not None and zeros > _SPARSE:
        lines.append(
            f"{zeros:.0%} of the weights are zero. The file stores them all: only the compressed size becomes smaller."
        )
    return lines
