"""`tfkd explain`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import Json, TargetsOption, command, print_result, progress_of
from tfkd.cli.code_options import code_options
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.training_options import StudentPreprocess, StudentRange, TeacherPreprocess, TeacherRange


@command(tensorflow=True)
@code_options
@data_options
def explain(
    student: Annotated[Path, typer.Argument(help="The .keras file that was converted.")],
    model: Annotated[Path, typer.Argument(help="The .tflite file that it was converted to.")],
    data: DataOption = DIGITS,
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher, a .keras file, to include its accuracy in the comparison.")
    ] = None,
    teacher_range: TeacherRange = None,
    teacher_preprocess: TeacherPreprocess = None,
    student_range: StudentRange = None,
    student_preprocess: StudentPreprocess = None,
    target: TargetsOption = None,
    samples: Annotated[int, typer.Option(min=1, help="Number of samples on which layers are compared.")] = 64,
    output_name: Annotated[
        str | None,
        typer.Option(help="Name of the output that the labels belong to, of a model with several."),
    ] = None,
    worst: Annotated[int, typer.Option(min=1, help="Number of layers to describe, largest error first.")] = 5,
    as_json: Json = False,
) -> None:
    """Explain the accuracy loss of quantization.

    Shows the error of each layer, its causes and remedies, and the accuracy from teacher to target.
    Without --target the model runs on host:plain, host and tflm, as far as this platform has them.

    Example: tfkd explain student.keras student.tflite --data digits --teacher teacher.keras
    """
    from tfkd import data as datasets
    from tfkd import tasks
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.recipes import model_input, target_choice
    from tfkd.validation import explanation

    with progress_of(as_json) as progress:
        declared = model_input.parse("teacher", teacher_range, teacher_preprocess)
        TFLiteModel.load(model)  # before the data: a wrong path shows at once
        splits = datasets.load(data)
        # The sigmoid at the end of a regression belongs to the values.
        gives_logits = tasks.find(splits.test, name=data.task).gives_logits
        found = explanation.explain(
            model_input.parse("student", student_range, student_preprocess).load(student, logits=False),
            model,
            splits,
            task=data.task,
            teacher=None if teacher is None else declared.load(teacher, logits=gives_logits),
            targets=target or ["host:plain", *target_choice.installed_defaults()],
            samples=samples,
            worst=worst,
            output=output_name,
            progress=progress.start,
        )
        print_result(progress, found.to_json(command_line=True), as_json, "\n".join(found.lines(command_line=True)))
