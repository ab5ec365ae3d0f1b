"""Verbs that say how good a model is, and why."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.limit_options import NO_LIMITS, limit_options
from tfkd.cli.verb import BROKEN, DataOption, Json, ModelFile, Overwrite, command_line, say, show, verb
from tfkd.validation.contract import Contract

TargetsOption = Annotated[list[str], typer.Option("--target", help="Where to run; give it once per target.")]
CompilerOption = Annotated[
    str | None, typer.Option("--cc", help="Compiler for the emulated cores, such as arm-none-eabi-gcc.")
]
BoardOption = Annotated[
    str | None, typer.Option(help="The board of the emulated core, such as nrf52840; its core is added where missing.")
]


@verb
@limit_options
def validate(
    model: ModelFile,
    data: DataOption = "digits",
    target: TargetsOption = ["host", "tflm"],  # noqa: B006 - Typer reads it and does not change it
    reference: Annotated[Path | None, typer.Option(help="The .keras file that the model came from.")] = None,
    contract: Contract = NO_LIMITS,
    report: Annotated[list[Path] | None, typer.Option(help="Write a report: .html, .md, .json or .xml.")] = None,
    board: BoardOption = None,
    cc: CompilerOption = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Judge a .tflite on the test split, on each target, over a contract.

    Example: tfkd validate student.tflite --data digits --target host --target tflm --max-bytes 16384
    """
    from tfkd import targets
    from tfkd.recipes import trial

    engines = targets.with_compiler(targets.with_board(target, board), cc)
    with show(as_json) as progress:
        validation = trial.judge(
            model,
            data,
            targets=engines,
            reference=reference,
            contract=contract,
            reports=report or [],
            command=command_line(),
            overwrite=overwrite,
            progress=progress,
        )
        record = validation.to_json()
        say(progress, record, as_json, trial.summary(record))
    raise typer.Exit(0 if validation.ok else BROKEN)


@verb
@limit_options
def diff(
    a: Annotated[Path, typer.Argument(help="The .tflite that is in use.")],
    b: Annotated[Path, typer.Argument(help="The .tflite that is to take its place.")],
    data: DataOption = "digits",
    target: TargetsOption = ["host"],  # noqa: B006 - Typer reads it and does not change it
    contract: Contract = NO_LIMITS,
    as_json: Json = False,
) -> None:
    """Say what changed from one .tflite to the next: answers that flip, classes, ops, size.

    Limits apply to B, and its reference is A. Exit status 1 if a limit does not hold for B or a model does not run.
    Example: tfkd diff old.tflite new.tflite --data digits --max-accuracy-drop 0.5
    """
    from tfkd import data as datasets
    from tfkd.validation import difference

    with show(as_json) as progress:
        progress.start("diff")
        found = difference.compare(
            a, b, datasets.load(data).test, targets=target, contract=contract, progress=progress.advance
        )
        say(progress, found.to_json(), as_json, "\n".join(found.lines()))
    raise typer.Exit(0 if found.ok else BROKEN)


@verb
def explain(
    student: Annotated[Path, typer.Argument(help="The .keras file.")],
    model: Annotated[Path, typer.Argument(help="The .tflite file that it became.")],
    data: DataOption = "digits",
    teacher: Annotated[Path | None, typer.Option(help="A .keras file, where the way of the accuracy begins.")] = None,
    target: TargetsOption = ["host:plain", "host", "tflm"],  # noqa: B006 - Typer reads it and does not change it
    samples: Annotated[int, typer.Option(min=1, help="On which layers are compared.")] = 64,
    worst: Annotated[int, typer.Option(min=1, help="How many layers to speak of.")] = 5,
    as_json: Json = False,
) -> None:
    """Say why a quantized model is worse: layer by layer, with causes and remedies, and where the accuracy goes.

    Example: tfkd explain student.keras student.tflite --data digits --teacher teacher.keras
    """
    from tfkd import data as datasets
    from tfkd.validation import explanation

    with show(as_json) as progress:
        found = explanation.explain(
            student,
            model,
            datasets.load(data),
            teacher=teacher,
            targets=target,
            samples=samples,
            worst=worst,
            progress=progress.start,
        )
        say(progress, found.to_json(), as_json, "\n".join(found.lines()))


@verb
def benchmark(
    model: Annotated[list[Path], typer.Argument(help="A .tflite; on this machine also a .keras or a SavedModel.")],
    target: TargetsOption = ["host"],  # noqa: B006 - Typer reads it and does not change it
    threads: Annotated[int | None, typer.Option(min=1, help="Of one inference.")] = None,
    batch: Annotated[
        list[int], typer.Option(min=1, help="Samples in one inference, on host; several give the curve of a server.")
    ] = [1],  # noqa: B006 - Typer reads it and does not change it
    board: BoardOption = None,
    as_json: Json = False,
) -> None:
    """Time inferences of models on random input, side by side.

    Example: tfkd benchmark student.tflite student.keras --threads 2 --batch 1 --batch 8 --batch 64
    """
    from tfkd import targets
    from tfkd.recipes import trial

    with show(as_json) as progress:
        runs = trial.benchmark(model, targets.with_board(target, board), threads=threads, batches=batch)
        found = [{"model": str(path), **run.to_json()} for path, run in runs]
        say(progress, found, as_json, trial.latencies(runs))


@verb
def report(
    source: Annotated[Path, typer.Argument(help="The folder of a run, or a report that was written as .json.")],
    out: Annotated[Path, typer.Option("--out", help="The file to write: .html, .md, .json or .xml (JUnit).")],
    overwrite: Overwrite = False,
) -> None:
    """Write a report of a run or a validation in another form.

    Example: tfkd report runs/digits --out report.xml
    """
    from tfkd.recipes import trial

    typer.echo(trial.rewrite(source, out, overwrite=overwrite))
