"""`tfkd split`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from tfkd.cli.application import Json, Overwrite, command, print_result, progress_of
from tfkd.errors import InputError
from tfkd.tasks import HELP as TASK_HELP


@command()
def split(
    data: Annotated[Path, typer.Argument(help="Folder with one folder of images or sounds per class, or a manifest.")],
    out: Annotated[Path, typer.Option("--out", help="Manifest to write: a .csv or .jsonl file.")],
    validation: Annotated[float, typer.Option(help="Share of the validation part, 0..1; 0 for none.")] = 0.1,
    test: Annotated[float, typer.Option(help="Share of the test part, 0..1.")] = 0.2,
    group: Annotated[
        str | None,
        typer.Option(
            help="What keeps samples in one part: a column of the manifest, or a regular expression whose parenthesis "
            r"is the group in the path, such as 'speaker_(\d+)'."
        ),
    ] = None,
    keep_similar: Annotated[
        bool,
        typer.Option("--keep-similar", help="Keep images that resemble each other in one part. Reads all images."),
    ] = False,
    task: Annotated[str | None, typer.Option(help=TASK_HELP)] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the division.")] = 0,
    overwrite: Overwrite = False,
    as_json: Json = False,
) -> None:
    """Divide a data set into train, val and test, and write the list.

    Each class is divided in the same shares. Parts that the data set has stay as they are.
    The manifest is a data set: give it to --data of the other commands, and to the training of your teacher.

    Example: tfkd split photos --out photos.csv --test 0.2 --validation 0.1
    """
    from tfkd.data import manifest, splitting
    from tfkd.data.reading import Request
    from tfkd.tasks import get

    if out.exists() and not overwrite:
        raise InputError(f"{out} already exists. Pass overwrite=True or choose another name.")
    with progress_of(as_json) as progress:
        labels = "classes" if data.is_dir() else get(task).labels if task else None
        rows = splitting.rows_of(Request(str(data), labels=labels), out)
        shares: dict = {"test": test, **({"val": validation} if validation else {})}
        divided = splitting.split(
            rows, shares, group=group, seed=seed, labels=labels, images_in=out.parent if keep_similar else None
        )
        manifest.write_rows(out, divided)
        counts = splitting.summary(divided)
        text = ", ".join(f"{role} {count:,}" for role, count in counts.items())
        print_result(progress, {"path": str(out), **counts}, as_json, f"{out}: {text} samples")
