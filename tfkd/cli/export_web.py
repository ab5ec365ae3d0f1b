"""`tfkd export-web`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import Json, Overwrite, TFLiteFile, command, print_result, progress_of
from tfkd.data.reading import CROPS, FEATURES, HELP, RESIZES
from tfkd.errors import InputError


@command()
def export_web(
    model: TFLiteFile,
    out: Annotated[Path, typer.Option("--out", help="Folder to create.")],
    task: Annotated[
        str, typer.Option(help="What the outputs mean: classification, binary, multi_label or regression.")
    ] = "classification",
    labels: Annotated[
        str, typer.Option(help="Names of the classes or outputs: a text file with one on each line, or NAME,NAME,....")
    ] = "",
    input_range: Annotated[
        tuple[float, float],
        typer.Option(metavar="LOW HIGH", help="Values that the model takes for the pixels 0 and 255."),
    ] = (0.0, 255.0),
    resize: Annotated[str, typer.Option(help=f"Filter that resizes pictures: {', '.join(RESIZES)}.")] = "bilinear",
    crop: Annotated[
        str,
        typer.Option(help=f"How a picture of another aspect ratio fits: {', '.join(CROPS)}; see --crop of validate."),
    ] = "none",
    sample_rate: Annotated[
        int | None, typer.Option(help="Sample rate of sounds in Hz; without it the model takes pictures.")
    ] = None,
    features: Annotated[str, typer.Option(help=f"Features of sounds: {', '.join(FEATURES)}.")] = "none",
    mel_bands: Annotated[int, typer.Option(help="Number of bands that mfcc is computed from.")] = 40,
    frame_ms: Annotated[float, typer.Option(help=HELP["frame_ms"])] = 30.0,
    hop_ms: Annotated[float, typer.Option(help=HELP["hop_ms"])] = 20.0,
    title: Annotated[str, typer.Option(help="Heading of the page; the name of the file by default.")] = "",
    litert_js: Annotated[
        str, typer.Option(help="Folder node_modules/@litertjs; downloaded into the cache by default.")
    ] = "",
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Write a web page that runs a .tflite on camera, microphone or files.

    The folder needs no server of its own: any host of static files serves it, over https for camera and microphone.
    Options of pictures and sounds are those with which the data were read for the training.

    Example: tfkd export-web student.tflite --labels cat,dog --crop center --out site
    """
    from tfkd.report import console
    from tfkd.targets import browser, web_site
    from tfkd.targets import litert_js as library

    with progress_of(as_json) as progress:
        how = web_site.Preparation(resize, crop, input_range, sample_rate, features, mel_bands, frame_ms, hop_ms)
        written = web_site.write(
            model,
            out,
            library.load(browser.say, litert_js),
            task=task,
            labels=_names(labels),
            preparation=how,
            title=title,
            overwrite=overwrite,
        )
        print_result(progress, written, as_json, console.exported_site(out, written))


def _names(labels: str) -> list[str]:
    """The names in a file, or of a list with commas."""
    path = Path(labels)
    if labels and os.path.isfile(path):  # Path.is_file raises where a list is longer than a file name may be
        try:
            return [line.strip() for line in path.read_text("utf-8").splitlines() if line.strip()]
        except UnicodeDecodeError:
            raise InputError(f"--labels must be a text file in UTF-8. Received: {path}. Save it as UTF-8.") from None
    if labels and "," not in labels:
        raise InputError(f"--labels must be a file or names with commas. Received: {labels!r}. Use cat,dog.")
    return [name.strip() for name in labels.split(",")] if labels else []
