"""`tfkd export-c`."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfkd.cli.application import Json, Overwrite, TFLiteFile, command, print_result, progress_of
from tfkd.data.reading import CROPS, FILTERS
from tfkd.errors import InputError, ToolMissingError

if TYPE_CHECKING:
    from tfkd._internal.types import JsonObject
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
            help="LOW,HIGH that the model expects for the bytes 0 and 255 of a sensor, for --project and --camera. "
            "Default: 0,255, where the input has room for them."
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
            help="Also write C that finds objects in the output: grid, the centres of the task centroid_detection, or "
            "ssd, the boxes of object_detection."
        ),
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(
            help="Also write C that computes the features of sounds from the samples of a microphone: the "
            "features.json that tfkd run wrote."
        ),
    ] = None,
    camera: Annotated[
        str | None,
        typer.Option(
            metavar="WIDTHxHEIGHT:PIXELS",
            help="Also write C that prepares the images of a camera. Pixels: gray, rgb888, rgb565 or rgb565be.",
        ),
    ] = None,
    resize: Annotated[
        str, typer.Option(help=f"Filter that resized the images of the training, for --camera: {', '.join(FILTERS)}.")
    ] = "bilinear",
    crop: Annotated[
        str,
        typer.Option(
            help=f"How images of another aspect ratio fitted in the training, for --camera: {', '.join(CROPS)}."
        ),
    ] = "none",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert an int8 or int16x8 .tflite to C.

    Writes C99 for a microcontroller, with a self-test and a report of sizes.

    Example: tfkd export-c student.tflite --out firmware --size --stream
    """
    from tfkd.data import sound_features
    from tfkd.micro import export
    from tfkd.micro.projects import ProjectOptions
    from tfkd.micro.sensors.camera import Camera
    from tfkd.recipes import model_input
    from tfkd.report import console

    options, pixels = None, model_input.parse("input", input_range, None).input_range
    if isinstance(pixels, dict):
        raise InputError(f"export-c: --input-range must be LOW,HIGH. Received: {input_range!r}. Leave the name out.")
    if project:
        options = ProjectOptions(project, task, pixels)
    elif task != "classification":
        raise InputError("export-c: --task is for projects. Add --project cmake, or leave it out.")
    elif input_range and not camera:
        raise InputError(
            "export-c: --input-range is for projects and cameras. Add --project cmake or --camera 160x120:rgb565, or "
            "leave it out."
        )
    if not camera and (resize, crop) != ("bilinear", "none"):
        raise InputError("export-c: --resize and --crop are for a camera. Add --camera 160x120:rgb565.")
    how = None if features is None else sound_features.read(features)
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
            features=how,
            camera=None if camera is None else Camera.parse(camera, resize=resize, crop=crop, input_range=pixels),
            oracle=_selftest_oracles(),
            core=_core(core, project, size, stream, how),
            overwrite=overwrite,
        )
        print_result(progress, sizes, as_json, console.exported(out, sizes))


def _core(
    spec: str | None, project: str | None, size: bool, stream: bool, features: JsonObject | None
) -> Target | None:
    """The core that measures costs; None where none is asked for, or a project's default is not installed."""
    from tfkd import targets

    if not spec and not project:
        return None
    if spec and not targets.is_emulated(spec):
        raise InputError(f"export-c: --core must be an emulated core. Received: {spec!r}. Use cortex-m4.")
    try:
        core = targets.get(spec or "cortex-m4", optimize="-Os" if size else "-O2", stream=stream)
    except ToolMissingError:
        if spec:
            raise
        return None
    return core if features is None else core.with_features(features)


def _selftest_oracles() -> list[Target]:
    """The engines for the self-test's expected outputs: TensorFlow Lite Micro, and for what it refuses a core."""
    from tfkd import targets

    found = []
    for spec in ("tflm", "cortex-m4"):
        with contextlib.suppress(ToolMissingError):
            found.append(targets.get(spec))
    return found
