"""`tfkd export-c`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfkd.cli.application import Json, Overwrite, TFLiteFile, command, print_result, progress_of
from tfkd.errors import ToolMissingError

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
    layout: Annotated[str, typer.Option(help="Project layout: plain (CMake and Make), arduino or zephyr.")] = "plain",
    size: Annotated[bool, typer.Option("--size", help="Prefer small code to fast code.")] = False,
    stream: Annotated[
        bool, typer.Option("--stream", help="Use less RAM: compute layers row by row, slightly slower.")
    ] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert an int8 or int16x8 .tflite to C.

    Writes C99 for a microcontroller, with a self-test and a report of sizes.

    Example: tfkd export-c student.tflite --out firmware --size --stream
    """
    from tfkd.micro import export
    from tfkd.report import console

    with progress_of(as_json) as progress:
        sizes = export.write(
            model,
            out,
            name=name,
            format=form,
            layout=layout,
            size=size,
            stream=stream,
            oracle=_selftest_oracles(),
            overwrite=overwrite,
        )
        print_result(progress, sizes, as_json, console.exported(out, sizes))


def _selftest_oracles() -> list[Target]:
    """The engines for the self-test's expected outputs: TensorFlow Lite Micro, and for what it refuses a core."""
    from tfkd import targets

    found = []
    for spec in ("tflm", "cortex-m4"):
        with contextlib.suppress(ToolMissingError):
            found.append(targets.get(spec))
    return found
