"""Reports of a validation: a self-contained HTML page, Markdown, JSON or JUnit XML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfkd._internal import atomic
from tfkd._internal.types import JsonRecord
from tfkd.errors import InputError

if TYPE_CHECKING:
    from tfkd.report.seeds import SeedRun
    from tfkd.validation.validator import Validation

    # One value per epoch, by training and metric: `History.history` of Keras.
    Histories = Mapping[str, Mapping[str, Sequence[float]]]

__all__ = ["SUFFIXES", "check_paths", "read", "rewrite", "write_report"]


def write_report(
    validation: Validation | JsonRecord,
    path: str | os.PathLike[str],
    *,
    training: Histories | None = None,
    seeds: Mapping[str, Sequence[SeedRun]] | None = None,
    command: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes a report. The suffix of the path selects the format: .html, .md, .json or .xml (JUnit).

    Args:
        validation: Result of `tfkd.validate`, or the content of a report in JSON.
        path: File to write; missing folders are created.
        training: `History.history` of each training, by its name.
        seeds: Runs such as `{"seed": 0, "accuracy": 0.97}` of each training, by its name; accuracy is that of the float
            student on the test split. Each training is compared with the first.
        command: Command line that produced the validation, shown at the end of the report.
        overwrite: Whether to replace an existing file.

    Returns:
        The path.

    Raises:
        InputError: The suffix is unknown, the path exists, or the mapping is not a validation.
    """
    from tfkd.validation.validator import SCHEMA

    path = Path(path)
    check_paths([path], overwrite=overwrite)
    record = dict(validation) if isinstance(validation, Mapping) else validation.to_json()
    if record.get("schema") != SCHEMA:
        raise InputError(
            f"write_report: the mapping must be a report with schema {SCHEMA!r}. Received: schema="
            f"{record.get('schema')!r}. Pass the result of tfkd.validate, or the content of a .json report."
        )
    extra = {"training": training, "seeds": seeds, "command": command}
    record |= {name: _plain(value) for name, value in extra.items() if value is not None}
    atomic.write(path, _FORMATS[path.suffix](record))
    return path


def check_paths(paths: Sequence[str | os.PathLike[str]], *, overwrite: bool = False) -> None:
    """Checks that reports can be written, before the work whose result they show.

    Args:
        paths: Files to write.
        overwrite: Whether existing files are replaced.

    Raises:
        InputError: A suffix is unknown, or a file exists.
    """
    for path in map(Path, paths):
        if path.suffix not in SUFFIXES:
            raise InputError(f"report: the suffix must be one of {', '.join(SUFFIXES)}. Received: {str(path)!r}.")
        if path.exists() and not overwrite:
            raise InputError(f"report: {path} already exists. Pass overwrite=True or choose another path.")


def rewrite(source: str | os.PathLike[str], path: str | os.PathLike[str], *, overwrite: bool = False) -> Path:
    """Writes an existing report in another format.

    Args:
        source: Folder of a run, or a report in JSON.
        path: See `write_report`.
        overwrite: Whether an existing file is replaced.

    Returns:
        The path.

    Raises:
        InputError: `source` is no report in JSON; see also `write_report`.
    """
    return write_report(read(source), path, overwrite=overwrite)


def read(source: str | os.PathLike[str]) -> JsonRecord:
    """The content of a report in JSON.

    Args:
        source: Folder of a run, or a report in JSON.

    Raises:
        InputError: `source` is no report in JSON.
    """
    source = Path(source)
    file = source / "report.json" if source.is_dir() else source
    advice = "Give the folder of a finished run, or a report that tfkd wrote as .json."
    try:
        record = json.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{file}: must be a report in JSON. Received: {error.strerror}. {advice}") from None
    except ValueError as error:
        raise InputError(f"{file}: must be a report in JSON. Received: {error}. {advice}") from None
    if not isinstance(record, dict):
        raise InputError(f"{file}: must be a report in JSON. Received: {type(record).__name__}. {advice}")
    return record


def _plain(value: Any) -> Any:
    """The value as plain JSON: NumPy numbers become Python numbers, NaN and infinity (a loss that diverged) null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _json(record: JsonRecord) -> str:
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _html(record: JsonRecord) -> str:
    from tfkd.report import page

    return page.html(record)


def _markdown(record: JsonRecord) -> str:
    from tfkd.report import page

    return page.markdown(record)


def _junit(record: JsonRecord) -> str:
    from tfkd.report import junit

    return junit.render(record)


_FORMATS: dict[str, Callable[[JsonRecord], str]] = {
    ".html": _html,
    ".md": _markdown,
    ".json": _json,
    ".xml": _junit,
}

SUFFIXES = tuple(_FORMATS)
