"""Verbs that turn a model into what ships."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.verb import Json, ModelFile, Overwrite, Seed, say, show, verb


@verb
def convert(
    model: Annotated[Path, typer.Argument(help="A .keras file or the folder of a SavedModel.")],
    out: Annotated[Path, typer.Argument(help="The .tflite file to write.")],
    mode: Annotated[str, typer.Option(help="float32, float16, dynamic_range, full_int8 or int16x8.")] = "full_int8",
    calibration: Annotated[str | None, typer.Option(help="A data set, of which the train split is used.")] = None,
    calibration_samples: Annotated[int, typer.Option(min=1, help="How many of its samples.")] = 256,
    float_io: Annotated[bool, typer.Option("--float-io", help="Keep float input and output.")] = False,
    allow_float: Annotated[bool, typer.Option("--allow-float", help="Accept ops that stay in float.")] = False,
    quantizer: Annotated[
        str | None, typer.Option(help="tensorflow or litert; by default litert where an option below needs it.")
    ] = None,
    ranges: Annotated[str, typer.Option("--range", help="Of activations: min_max, percentile or mse.")] = "min_max",
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Regular expression; layers that it fits stay in float.")
    ] = None,
    int16: Annotated[list[str] | None, typer.Option(help="The same, for activations of 16 bits.")] = None,
    int4: Annotated[list[str] | None, typer.Option(help="The same, for weights of 4 bits.")] = None,
    accuracy_drop: Annotated[
        float | None,
        typer.Option(help="Search the smallest mixture of precisions that loses no more points on validation samples."),
    ] = None,
    target: Annotated[str, typer.Option(help="Where --accuracy-drop measures.")] = "host:plain",
    golden: Annotated[
        int, typer.Option(min=0, help="Write so many test samples and their outputs as OUT.golden.npz, .h, .json.")
    ] = 0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn a model into a .tflite.

    Example: tfkd convert student.keras student.tflite --mode full_int8 --calibration digits
    """
    from tfkd.conversion.quantizer import select
    from tfkd.recipes import deployment

    settings = select(quantizer, ranges=ranges, keep_float=keep_float or (), int16=int16 or (), int4=int4 or ())
    with show(as_json) as progress:
        record = deployment.deploy(
            model,
            out,
            calibration,
            mode=mode,
            settings=settings,
            accuracy_drop=accuracy_drop,
            target=target,
            vectors=golden,
            seed=seed,
            overwrite=overwrite,
            calibration_samples=calibration_samples,
            say=progress.line,
            float_io=float_io,
            allow_float=allow_float,
        )
        say(progress, record, as_json, deployment.words(record))


@verb
def export_c(
    model: ModelFile,
    out: Annotated[Path, typer.Option("--out", help="The folder to make.")],
    name: Annotated[str, typer.Option(help="In all names of the C, a C identifier in lower case.")] = "model",
    form: Annotated[str, typer.Option("--format", help="c, or tflm for TensorFlow Lite Micro's users.")] = "c",
    layout: Annotated[str, typer.Option(help="plain (CMake and Make), arduino or zephyr.")] = "plain",
    size: Annotated[bool, typer.Option("--size", help="The smallest code rather than the fastest.")] = False,
    stream: Annotated[bool, typer.Option("--stream", help="Less RAM: layers run by rows; a little slower.")] = False,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Turn an int8 or int16x8 .tflite into C99 for a microcontroller, with a self-test and a report of sizes.

    Example: tfkd export-c student.tflite --out firmware --size --stream
    """
    from tfkd.micro import export

    with show(as_json) as progress:
        sizes = export.write(
            model, out, name=name, format=form, layout=layout, size=size, stream=stream, overwrite=overwrite
        )
        removed = f"; {sizes['removed']['summary']}" if "removed" in sizes else ""
        say(progress, sizes, as_json, f"{out}: arena {sizes['arena_bytes']:,} bytes{removed}")
