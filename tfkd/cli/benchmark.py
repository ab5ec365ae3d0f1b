"""`tfkd benchmark`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import BoardOption, Json, TargetsOption, command, print_result, progress_of


@command()
def benchmark(
    model: Annotated[
        list[Path],
        typer.Argument(help="A .tflite file, or (on this machine only) a .keras file or the folder of a SavedModel."),
    ],
    target: TargetsOption = None,
    threads: Annotated[int | None, typer.Option(min=1, help="Threads per inference.")] = None,
    batch: Annotated[
        list[int], typer.Option(min=1, help="Samples per inference, on host; may be repeated to compare batch sizes.")
    ] = [1],  # noqa: B006 - Typer reads it and does not change it
    board: BoardOption = None,
    as_json: Json = False,
) -> None:
    """Measure the latency of models on random input.

    Without --target they run on host.

    Example: tfkd benchmark student.tflite student.keras --threads 2 --batch 1 --batch 8 --batch 64
    """
    from tfkd import targets
    from tfkd.report import console
    from tfkd.validation import benchmark as measurements

    specs = targets.with_board(target or ["host"], board)
    with progress_of(as_json) as progress:
        runs = measurements.benchmark(model, specs, threads=threads, batches=batch)
        found = [{"model": str(path), **run.to_json()} for path, run in runs]
        print_result(progress, found, as_json, console.latencies(runs))
