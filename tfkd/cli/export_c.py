"""`tfkd export-c`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfkd.cli.application import Json, Overwrite, TFLiteFile, command, print_result, progress_of
from tfkd.errors import InputError, ToolMissingError

if TYPE_CHECKING:
    from tfkd.targets import Target


@command()
def export_c(
    model: TFLiteFile,
    out: Annotated[Path, typer.Option("--out", help="Folder to create.")],
    name: Annotated[str, typer.Option(help="Prefix of all C names: a lower-case C identifier.")] = "model",
    form: Annotated[
        str,
        typer.Option("--format", help="c (plain C99), or tflm (files for an application of TensorFlow Lite Micro)."),
    ] = "c",
    project: Annotated[
        str | None,
        typer.Option(
            help="Library to write, with an example and a README: arduino, platformio, zephyr, esp-idf, cmake, "
            "stm32cube or makefile. Without it: C files, README, Makefile and CMakeLists.txt."
        ),
    ] = None,
    task: Annotated[
        str,
        typer.Option(help="What the outputs mean, for --project: classification, binary, multi_label or regression."),
    ] = "classification",
    input_range: Annotated[
        str | None,
        typer.Option(
            help="LOW,HIGH that the model expects for the bytes 0 and 255 of a sensor, for --project. Default: 0,255, "
            "where the input has room for them."
        ),
    ] = None,
    core: Annotated[
        str | None,
        typer.Option(
            help="Emulated core that measures flash, stack and instructions: cortex-m4, cortex-m4:nrf52840 and so on. "
            "Default: cortex-m4 with --project, none otherwise."
        ),
    ] = None,
    size: Annotated[bool, typer.Option("--size", help="Prefer small code to fast code.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Use less RAM: compute layers row by row, slightly slower.")
    ] = False,
    decode: Annotated[
        str | None,
        typer.Option(
            help="Also write C that finds objects in the output: grid, the centres of the task centroid_detection."
        ),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert an int8 or int16x8 .tflite to C.

    Writes C99 for a microcontroller, with a self-test and a report of sizes.

    Example: tfkd export-c student.tflite --out firmware --size --stream
    """
    from tfkd.micro import export
    from tfkd.micro.projects import ProjectOptions
    from tfkd.recipes import model_input
    from tfkd.report import console

    options = None
    if project:
        options = ProjectOptions(project, task, model_input.parse("input", input_range, None).input_range)
    elif input_range or task != "classification":
        raise InputError("export-c: --task and --input-range are for projects. Add --project cmake, or leave them out.")
    with progress_of(as_json) as progress:
        sizes = export.write(
            model,
            out,
            name=name,
            format=form,
            project=options,
            size=size,
            stream=stream,
            decode=decode,
            oracle=_selftest_oracles(),
            core=_core(core, project, size, stream),
            overwrite=overwrite,
        )
        print_result(progress, sizes, as_json, console.exported(out, sizes))


def _core(spec: str | None, project: str | None, size: bool, stream: bool) -> Target | None:
    """The core that measures costs; None where none is asked for, or a project's default is not installed."""
    from tfkd import targets

    if not spec and not project:
        return None
    if spec and not targets.is_emulated(spec):
        raise InputError(f"export-c: --core must be an emulated core. Received: {spec!r}. Use cortex-m4.")
    try:
        return targets.get(spec or "cortex-m4", optimize="-Os" if size else "-O2", stream=stream)
    except ToolMissingError:
        if spec:
            raise
        return None


def _selftest_oracles() -> list[Target]:
    """The engines for the self-test's expected outputs: TensorFlow Lite Micro, and for what it refuses a core."""
    from tfkd import targets

    found = []
    for spec in ("tflm", "cortex-m4"):
        with contextlib.suppress(ToolMissingError):
            found.append(targets.get(spec))
    return found
