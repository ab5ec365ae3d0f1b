"""`tfkd npu`."""

from __future__ import annotations

from typing import Annotated

import typer

from tfkd.cli.application import Json, TFLiteFile, command, print_result, progress_of


@command()
def npu(
    model: TFLiteFile,
    accelerator: Annotated[
        list[str] | None,
        typer.Option(
            help="Accelerator: edgetpu, gpu, nnapi, qualcomm, mediatek, google-tensor, or an Ethos-U such as "
            "ethos-u55-128; may be repeated. Default: one of each family."
        ),
    ] = None,
    as_json: Json = False,
) -> None:
    """Estimate which ops of a .tflite run on accelerators.

    Reads published lists of ops, and for Ethos-U asks Arm's compiler (pip install 'tfkd[npu]'); no device is needed.
    Shows the share of the multiply-accumulates that leaves the CPU, the first op that stays on it, and a remedy.

    Example: tfkd npu student.tflite --accelerator edgetpu --accelerator ethos-u55-128
    """
    from tfkd.report import accelerators
    from tfkd.targets import npu as lists

    with progress_of(as_json) as progress:
        found = [one.to_json() for one in lists.estimate(model, accelerator)]
        print_result(progress, found, as_json, accelerators.table(found))
