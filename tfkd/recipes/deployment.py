"""A model and what goes with it to the device: the .tflite, of one precision or of a mixture, and golden vectors."""

from __future__ import annotations

import dataclasses
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tfkd import data
from tfkd.conversion import converter
from tfkd.conversion.quantizer import QuantizerSettings
from tfkd.errors import InputError
from tfkd.optimization import mixed_precision
from tfkd.validation import golden

# A model with a larger share of zeros in its weights was pruned.
_SPARSE = 0.25


def deploy(
    model: Path,
    out: Path,
    source: str | None,
    *,
    mode: str,
    settings: QuantizerSettings | None,
    accuracy_drop: float | None,
    target: str,
    vectors: int,
    seed: int,
    overwrite: bool,
    calibration_samples: int,
    say: Callable[[str], None],
    **options: Any,
) -> dict[str, Any]:
    """Converts a model and writes what was asked for with it.

    Args:
        model: a `.keras` file or the folder of a SavedModel.
        out: the .tflite.
        source: the data set, whose train split calibrates; None for none.
        mode: see `tfkd.convert`.
        settings: of the second quantizer, or None for the converter's own.
        accuracy_drop: points that may be lost, for a search for the smallest mixture of precisions; None for no search.
        target: where the search measures.
        vectors: test samples to write as golden vectors beside the model, >= 0.
        seed: of the draw of samples.
        overwrite: replace existing files.
        calibration_samples: of the train split.
        say: called with each line on the search.
        **options: of `tfkd.convert`.

    Returns:
        A record of plain JSON values: what the model says of itself, findings, trials and files.

    Raises:
        ValueError: options that do not go together; see also `tfkd.convert`.
    """
    if vectors and source is None:
        raise InputError("convert: --golden needs a data set. Received: no --calibration. Add --calibration digits.")
    if accuracy_drop is not None and (source is None or settings or mode != "full_int8" or any(options.values())):
        raise InputError(
            "convert: --accuracy-drop needs --calibration, and chooses quantizer and precisions itself. Received: no "
            "--calibration, or other options of precision. Add --calibration digits and leave the others out."
        )
    started = time.monotonic()
    stem = f"{out.with_suffix('')}.golden"
    if vectors:
        golden.files(stem, overwrite=overwrite)  # before the work, not after it
    splits = None if source is None else data.load(source)
    trials: tuple[mixed_precision.Trial, ...] = ()
    if accuracy_drop is not None and splits is not None:
        found, trials = mixed_precision.search(
            model,
            out,
            splits,
            accuracy_drop=accuracy_drop,
            target=target,
            overwrite=overwrite,
            seed=seed,
            calibration_samples=calibration_samples,
            report=lambda trial: say(str(trial)),
        )
    else:
        found = converter.convert(
            model,
            out,
            mode=mode,
            quantizer=settings or "tensorflow",
            calibration=splits and splits.train,
            calibration_samples=calibration_samples,
            overwrite=overwrite,
            seed=seed,
            **options,
        )
    written: tuple[Path, ...] = ()
    if vectors and splits:
        written = golden.record(found, splits.test, samples=vectors, seed=seed).save(stem, overwrite=overwrite)
    return {
        **found.to_json(),
        "findings": list(found.audit.findings) if found.audit else [],
        "trials": [dataclasses.asdict(trial) for trial in trials],
        "golden": [*map(str, written)],
        "seconds": round(time.monotonic() - started, 2),
        "peak_bytes": _peak_bytes(),
    }


def _peak_bytes() -> int | None:
    """The largest resident set so far of this process and of its children; None where the system does not say."""
    try:
        import resource
    except ImportError:  # Windows
        return None
    unit = 1 if sys.platform == "darwin" else 1024
    return unit * max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


def sizes(record: Mapping[str, Any]) -> list[str]:
    """How large a model is, plain and compressed, as lines."""
    compressed = f"{record['compressed_bytes']:,} under gzip, {record['zstd_bytes']:,} under zstd"
    lines = [f"{record['path']}: {record['size_bytes']:,} bytes, {compressed}"]
    zeros = record["weight_zeros"]
    if zeros is not None and zeros > _SPARSE:
        lines.append(
            f"{zeros:.0%} of the weights are zero, which saves nothing by itself: the file stores each of them. Only "
            "compression gains."
        )
    return lines


def words(record: dict[str, Any]) -> str:
    """What `deploy` gave, as lines."""
    lines = [*sizes(record), *record["findings"]]
    if record["trials"]:
        lines.append(f"The smallest that holds of {len(record['trials'])} trials.")
    peak = record["peak_bytes"]
    lines.append(f"{record['seconds']:.1f} s" + (f", a process at most {peak / 1e6:,.0f} MB" if peak else ""))
    return "\n".join([*lines, *(f"{path}: golden vectors" for path in record["golden"])])
