"""A validation as one self-contained HTML page, as Markdown, JSON or JUnit XML."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tfkd._internal import atomic
from tfkd.errors import InputError

if TYPE_CHECKING:
    from tfkd.validation.validator import Validation

__all__ = ["SUFFIXES", "check_paths", "rewrite", "write_report"]


def write_report(
    validation: Validation | Mapping[str, Any],
    path: str | os.PathLike[str],
    *,
    training: Mapping[str, Mapping[str, Sequence[float]]] | None = None,
    seeds: Mapping[str, Sequence[Mapping[str, float]]] | None = None,
    command: str | None = None,
    overwrite: bool = False,
) -> Path:
    """Writes the report; the suffix chooses the form: .html, .md, .json or .xml (JUnit).

    Args:
        validation: what `tfkd.validate` gave, or the content of a report that was written as JSON.
        path: where to write; missing folders are made.
        training: `History.history` of each training, by label.
        seeds: for each way of training, by label, a list of `{"seed": 0, "accuracy": 0.97}` (test accuracy of the
            float student). Each label is compared with the first.
        command: the command that made all this, to stand at the end of the page.
        overwrite: replace an existing file.

    Returns:
        The path.

    Raises:
        ValueError: the suffix is none of these, the path exists, or the mapping is no validation.
    """
    from tfkd.validation.validator import SCHEMA

    path = Path(path)
    check_paths([path], overwrite=overwrite)
    record = dict(validation) if isinstance(validation, Mapping) else validation.to_json()
    if record.get("schema") != SCHEMA:
        raise InputError(
            f"write_report: the mapping must be a report in the form {SCHEMA}. Received: schema="
            f"{record.get('schema')!r}. Give what tfkd.validate returned, or a report that it wrote as .json."
        )
    extra = {"training": training, "seeds": seeds, "command": command}
    record |= {name: _plain(value) for name, value in extra.items() if value is not None}
    text = _FORMS[path.suffix](record)
    atomic.write(path, text)
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
    return write_report(record, path, overwrite=overwrite)


def _plain(value: Any) -> Any:
    """JSON values: NumPy numbers become Python's, NaN and infinity (a loss that diverged) become null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(one) for key, one in value.items()}
    if isinstance(value, str) or value is None:
        return value
    if isinstance(value, Sequence):
        return [_plain(one) for one in value]
    number = value.item() if hasattr(value, "item") else value
    return None if isinstance(number, float) and not math.isfinite(number) else number


def _json(record: Mapping[str, Any]) -> str:
    return json.dumps(record, indent=1, allow_nan=False) + "\n"


def _html(record: Mapping[str, Any]) -> str:
    from tfkd.report import page

    return page.html(record)


def _markdown(record: Mapping[str, Any]) -> str:
    from tfkd.report import page

    return page.markdown(record)


def _junit(record: Mapping[str, Any]) -> str:
    from tfkd.report import junit

    return junit.render(record)


_FORMS: dict[str, Callable[[Mapping[str, Any]], str]] = {
    ".html": _html,
    ".md": _markdown,
    ".json": _json,
    ".xml": _junit,
}

SUFFIXES = tuple(_FORMS)
