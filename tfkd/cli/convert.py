"""`tfkd convert`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import Json, Overwrite, Seed, command, print_result, progress_of
from tfkd.cli.code_options import code_options
from tfkd.cli.data_options import data_options
from tfkd.cli.training_options import StudentPreprocess, StudentRange
from tfkd.data.reading import Request


@command(tensorflow=True)
@code_options
@data_options
def convert(
    model: Annotated[Path, typer.Argument(help="A .keras or .h5 file, or the folder of a SavedModel.")],
    out: Annotated[Path, typer.Argument(help=".tflite file to write.")],
    mode: Annotated[
        str, typer.Option(help="Precision: float32, float16, dynamic_range, full_int8 or int16x8.")
    ] = "full_int8",
    output: Annotated[
        str | None,
        typer.Option(help="What the .tflite returns: logits or softmax. Default: what the model returns."),
    ] = None,
    input_shape: Annotated[
        str | None,
        typer.Option(help="Shape of one sample, such as 96,96,3, of a model that leaves height and width open."),
    ] = None,
    student_range: StudentRange = None,
    student_preprocess: StudentPreprocess = None,
    calibration: Annotated[
        Request | None,
        typer.Option(
            help="Data set, like --data of other commands; its train split calibrates. For a model with several "
            "inputs, a .npz with an array for each of them."
        ),
    ] = None,
    calibration_samples: Annotated[int, typer.Option(min=1, help="Number of calibration samples.")] = 256,
    float_io: Annotated[
        bool, typer.Option("--float-io", help="Keep float32 inputs and outputs in a quantized model.")
    ] = False,
    allow_float: Annotated[
        bool, typer.Option("--allow-float", help="Accept ops that stay in float in a quantized model.")
    ] = False,
    check: Annotated[
        bool,
        typer.Option(
            "--check/--no-check",
            help="Compare the outputs of the .tflite with those of the model before it is written.",
        ),
    ] = True,
    allow_mismatch: Annotated[
        bool,
        typer.Option(
            "--allow-mismatch",
            help="Write the .tflite even if its outputs differ from those of the model by more than rounding explains; "
            "a finding says so.",
        ),
    ] = False,
    refine: Annotated[
        bool,
        typer.Option(
            "--refine/--no-refine",
            help="Reduce the error of full_int8: change activation ranges, channel scales, weight rounding and "
            "biases where that makes the outputs on the calibration samples more exact.",
        ),
    ] = False,
    rounding: Annotated[
        str,
        typer.Option(
            help="How --refine rounds weights: calibrated (least error on the calibration samples) or nearest."
        ),
    ] = "calibrated",
    quantizer: Annotated[
        str | None, typer.Option(help="Quantizer: tensorflow or litert. Default: litert if an option below needs it.")
    ] = None,
    ranges: Annotated[
        str,
        typer.Option(
            "--range",
            help="How activation ranges are chosen: min_max, percentile (clips outliers) or mse (least squared error).",
        ),
    ] = "min_max",
    keep_float: Annotated[
        list[str] | None, typer.Option(help="Regular expression of layer names that stay in float; may be repeated.")
    ] = None,
    int16: Annotated[
        list[str] | None,
        typer.Option(help="Regular expression of layer names with int16 activations; may be repeated."),
    ] = None,
    int4: Annotated[
        list[str] | None, typer.Option(help="Regular expression of layer names with int4 weights; may be repeated.")
    ] = None,
    accuracy_drop: Annotated[
        float | None,
        typer.Option(
            help="Search for the smallest mix of precisions that loses at most this many percentage points of "
            "accuracy on the validation split."
        ),
    ] = None,
    target: Annotated[str, typer.Option(help="Target on which --accuracy-drop measures accuracy.")] = "host:plain",
    golden: Annotated[
        int,
        typer.Option(
            min=0,
            help="Number of test samples to write with their outputs, as OUT.golden.npz, .golden.h, .golden.json.",
        ),
    ] = 0,
    seed: Seed = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Convert a Keras model to .tflite.

    Before the file is written, its outputs are compared with those of the model on a few samples.

    Example: tfkd convert student.keras student.tflite --mode full_int8 --calibration digits
    """
    from tfkd.recipes import conversion, model_input
    from tfkd.report import console

    job = conversion.Job(
        model,
        out,
        mode=mode,
        output=output,
        input_shape=conversion.parse_shape(input_shape),
        model_input=model_input.parse("student", student_range, student_preprocess),
        calibration=calibration,
        calibration_samples=calibration_samples,
        float_io=float_io,
        allow_float=allow_float,
        check=check,
        allow_mismatch=allow_mismatch,
        refine=refine,
        rounding=rounding,
        settings=conversion.select(
            quantizer, ranges=ranges, keep_float=keep_float or (), int16=int16 or (), int4=int4 or ()
        ),
        accuracy_drop=accuracy_drop,
        target=target,
        golden=golden,
        seed=seed,
        overwrite=overwrite,
    )
    with progress_of(as_json) as progress:
        record = conversion.convert(job, on_trial=progress.line)
        print_result(progress, record, as_json, console.converted(record))
