"""`tfkd label`."""

from __future__ import annotations

from typing import Annotated

import typer

from tfkd.cli.application import Json, Seed, command, print_result, progress_of
from tfkd.cli.code_options import code_options
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.training_options import (
    Augment,
    AugmentOption,
    BatchSize,
    TeacherFile,
    TeacherPreprocess,
    TeacherRange,
    augment_options,
)


@command(tensorflow=True, resumes=True)
@code_options
@data_options
def label(
    teacher: TeacherFile,
    out: Annotated[str, typer.Option("--out", help="Soft-label store to write: a folder, or a URL that fsspec opens.")],
    data: DataOption = DIGITS,
    views: Annotated[
        str,
        typer.Option(
            help="Views per sample: the first is the sample itself, the others are augmented. all: every shift and "
            "flip of crop_flip, 162 with a padding of 4."
        ),
    ] = "1",
    hours: Annotated[
        float | None,
        typer.Option(
            min=1e-3,
            help="Time after which it stops; the first view is always finished. With --views all a training takes the "
            "views that are complete.",
        ),
    ] = None,
    augment: Augment = None,
    augment_option: AugmentOption = None,
    padding: Annotated[int, typer.Option(min=0, help="Padding of crop_flip, in pixels.")] = 4,
    flip: Annotated[bool, typer.Option(help="Whether crop_flip mirrors images at random.")] = True,
    shard: Annotated[
        str,
        typer.Option(help="Part of the work for n machines, i/n with i in 0..n-1: every n-th chunk, from chunk i on."),
    ] = "0/1",
    verify: Annotated[
        bool, typer.Option("--verify", help="Recompute the logits of random samples, compare, and write nothing.")
    ] = False,
    teacher_range: TeacherRange = None,
    teacher_preprocess: TeacherPreprocess = None,
    batch_size: BatchSize = 256,
    seed: Seed = 0,
    as_json: Json = False,
) -> None:
    """Store the teacher's logits of training samples.

    One row per sample and augmented view. The same command resumes an interrupted one.

    Example: tfkd label --teacher teacher.keras --data digits --views 8 --padding 1 --no-flip --out labels/
    """
    from tfkd.recipes import labels, model_input

    job = labels.Job(
        teacher,
        out,
        data,
        labels.parse_views(views),
        augment or ["crop_flip"],
        augment_options(augment_option),
        padding,
        flip,
        batch_size=batch_size,
        hours=hours,
        seed=seed,
        teacher_input=model_input.parse("teacher", teacher_range, teacher_preprocess),
    )
    with progress_of(as_json) as progress:
        progress.start("label")
        record = labels.verify(job) if verify else labels.build(job, shard, progress=progress)
        print_result(progress, record, as_json, record["summary"])
