"""`tfkd serve`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import (
    CONTRACT_BROKEN,
    Json,
    Overwrite,
    TFLiteFile,
    command,
    command_line,
    print_result,
    progress_of,
)
from tfkd.cli.data_options import DIGITS, DataOption, data_options
from tfkd.cli.limit_options import NO_LIMITS, limit_options
from tfkd.validation.contract import Contract


@command()
@data_options
@limit_options
def serve(
    model: TFLiteFile,
    data: DataOption = DIGITS,
    samples: Annotated[
        int | None, typer.Option(min=1, help="Number of test samples, balanced by class; all by default.")
    ] = None,
    accelerator: Annotated[
        str, typer.Option(help="How browsers compute: wasm (on the CPU), webgpu or webnn; the latter two need https.")
    ] = "wasm",
    threads: Annotated[int, typer.Option(min=1, help="Threads per inference; more than 1 needs https.")] = 1,
    address: Annotated[str, typer.Option(help="Address at which devices reach this machine; found by default.")] = "",
    port: Annotated[int, typer.Option(min=0, help="Port of the server; 0 for a free one.")] = 0,
    certificate: Annotated[str, typer.Option(help="PEM file with a certificate and its key, for https.")] = "",
    litert_js: Annotated[
        str, typer.Option(help="Folder node_modules/@litertjs; downloaded into the cache by default.")
    ] = "",
    output_name: Annotated[
        str | None,
        typer.Option(
            help="Name of the output that the labels belong to, of a model with several; the others are not judged."
        ),
    ] = None,
    devices: Annotated[int | None, typer.Option(min=1, help="Number of answers after which to end.")] = None,
    minutes: Annotated[float, typer.Option(min=0.01, help="Time limit in minutes.")] = 60.0,
    contract: Contract = NO_LIMITS,
    report: Annotated[
        list[Path] | None,
        typer.Option(help="Report to write at the end: .html, .md, .json or .xml (JUnit); may be repeated."),
    ] = None,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Let phones and other devices run a .tflite in their browsers.

    Prints a QR code. Each device that opens the page and runs the test becomes a row of a live page and of the report.
    Ctrl-C ends and writes the report.
    Exit status 1 if a limit does not hold or a device failed.

    Example: tfkd serve student.tflite --data digits --report phones.html
    """
    from tfkd import data as datasets
    from tfkd import report as reports
    from tfkd.conversion.tflite import TFLiteModel
    from tfkd.report import console
    from tfkd.targets import browser
    from tfkd.validation import visits

    reports.check_paths(report or [], overwrite=overwrite)
    target = browser.Browser(
        browser.WAIT, accelerator, threads, address, port, certificate, litert_js, timeout_s=60 * minutes
    )
    with progress_of(as_json) as progress:
        loaded = TFLiteModel.load(model)  # before the data: a wrong path shows at once
        splits = datasets.load(data)
        test = splits.test if samples is None else splits.test.sample(samples)
        progress.start("serve")
        found = visits.serve(
            loaded,
            test,
            target,
            task=data.task,
            output=output_name,
            most=devices,
            on_start=lambda url, live: progress.line(
                browser.invitation(url, f"Ctrl-C ends.\nAll devices so far: {live}")
            ),
            on_visit=lambda row: progress.line(
                f"{row['number']}. {row['device']}: {row['verdict']}, accuracy {row['accuracy']}, median "
                f"{row['median']}, 90 % below {row['p90']} {row['note']}".rstrip()
            ),
        )
        validation = visits.validate_visits(
            loaded, test, found, contract, task=data.task, output=output_name, validation=splits.val
        )
        for path in report or []:
            reports.write_report(validation, path, command=command_line(), overwrite=overwrite)
        record = validation.to_json()
        print_result(progress, record, as_json, console.summary(record))
    raise typer.Exit(0 if validation.ok else CONTRACT_BROKEN)
