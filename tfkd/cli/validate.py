"""`tfkd validate`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tfkd.cli.application import (
    CONTRACT_BROKEN,
    BoardOption,
    CompilerOption,
    Json,
    Overwrite,
    TargetsOption,
    TFLiteFile,
    command,
    command_line,
    print_result,
    progress_of,
)
from tfkd.cli.code_options import code_options
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.limit_options import NO_LIMITS, limit_options
from tfkd.cli.training_options import StudentPreprocess, StudentRange, TeacherPreprocess, TeacherRange
from tfkd.validation.contract import Contract

if TYPE_CHECKING:
    import keras


@command(tensorflow=("reference", "teacher", "alone"))
@code_options
@data_options
@limit_options
def validate(
    model: TFLiteFile,
    data: DataOption = DIGITS,
    target: TargetsOption = None,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Number of test samples, balanced by class; all by default.")
    ] = None,
    reference: Annotated[
        Path | None,
        typer.Option(help="The .keras file that was converted; needed for --max-accuracy-drop and --min-agreement."),
    ] = None,
    teacher: Annotated[
        Path | None, typer.Option(help="The teacher, a .keras file; needed for --max-drop-from-teacher.")
    ] = None,
    teacher_range: TeacherRange = None,
    teacher_preprocess: TeacherPreprocess = None,
    alone: Annotated[
        Path | None,
        typer.Option(
            help="The same student trained without a teacher, a .keras file; needed for --min-gain-over-alone."
        ),
    ] = None,
    student_range: StudentRange = None,
    student_preprocess: StudentPreprocess = None,
    contract: Contract = NO_LIMITS,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Report to write: .html, .md, .json or .xml (JUnit); may be repeated."),
    ] = None,
    from_sounds: Annotated[
        bool,
        typer.Option(
            "--from-sounds",
            help="Start from the samples of the sounds on emulated cores, with the features computed by the C of a "
            "firmware; needs --features.",
        ),
    ] = False,
    output_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the output that the labels belong to, of a model with several; the others are not judged."
        ),
    ] = None,
    stream: Annotated[
        bool,
        typer.Option(
            "--stream",
            help="Feed each sample, a sequence, in chunks of the length of the .tflite's input, and keep its state "
            "between them; on the targets host and tflm, and on emulated cores. Keras models take the whole "
            "sequence.",
        ),
    ] = False,
    board: BoardOption = None,
    cc: CompilerOption = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Validate a .tflite on targets, against limits.

    Runs the test split on each target. Exit status 1 if a limit does not hold or could not be checked, if there are
    limits but none on the accuracy, or if the model is no better than a constant answer.
    Without --target: host and tflm, as far as this platform has them.

    Example: tfkd validate student.tflite --data digits --target host --target tflm --min-accuracy 90 --max-bytes 16384
    """
    from tfkd import data as datasets
    from tfkd import report as reports
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.recipes import model_input, target_choice
    from tfkd.report import console
    from tfkd.validation.validator import validate as run

    of_teacher = model_input.parse("teacher", teacher_range, teacher_preprocess)
    of_student = model_input.parse("student", student_range, student_preprocess)
    reports.check_paths(report or [], overwrite=overwrite)
    with progress_of(as_json) as progress:
        targets = target_choice.choose(target, board=board, cc=cc, on_progress=progress.phase)
        keras_models: dict[str, keras.Model] = {}
        for role, path, declared in (
            ("reference", reference, of_student),
            ("teacher", teacher, of_teacher),
            ("alone", alone, of_student),
        ):
            if path is not None:
                keras_models[role] = declared.load(path, logits=False)
        progress.start("validate")
        loaded = TFLiteModel.load(model)  # before the data: a wrong path shows at once
        splits = datasets.load(data)
        test = splits.test if samples is None else splits.test.sample(samples)
        validation = run(
            loaded,
            test,
            **keras_models,
            targets=target_choice.for_sounds(targets, data, test, from_sounds=from_sounds),
            optional=[one for one in targets if isinstance(one, str)],
            contract=contract,
            task=data.task,
            stream=stream,
            validation=splits.val,
            output=output_name,
            progress=progress.advance,
        )
        for path in report or []:
            reports.write_report(validation, path, command=command_line(), overwrite=overwrite)
        record = validation.to_json()
        print_result(progress, record, as_json, console.summary(record))
    raise typer.Exit(0 if validation.ok else CONTRACT_BROKEN)
