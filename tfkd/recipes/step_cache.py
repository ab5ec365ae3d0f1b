"""Steps of a run in a folder: what is finished and unchanged is kept, whatever cut the run off."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tfkd._internal import atomic
from tfkd._internal.progress import Progress
from tfkd.errors import InputError


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """One run in a folder at a time; the system lifts the lock when the process dies."""
    with (folder / ".lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InputError(f"{folder}: another run works here. Wait for it, or choose another output.") from None
        yield


class Steps:
    """Does steps, and keeps in `state.json` what each gave.

    Args:
        folder: of the run.
        progress: where to say how far it is.

    Attributes:
        said: `done` or `kept` for each step, in their order.

    Raises:
        ValueError: the folder's state is damaged.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self.said: dict[str, str] = {}
        self._file = folder / "state.json"
        self._state: dict[str, Any] = {}
        if self._file.exists():
            try:
                self._state = json.loads(self._file.read_text())
            except ValueError:
                raise InputError(
                    f"{self._file}: must be the state of a run. Received: no JSON. Delete the file to begin anew."
                ) from None

    def do(self, name: str, inputs: Any, work: Callable[[str], dict[str, Any]]) -> dict[str, Any]:
        """Does a step, or keeps what it gave when its inputs are the same and its files are untouched.

        Args:
            name: of the step.
            inputs: settings, and the file hashes of earlier steps, as JSON values.
            work: given the key of the step, makes the files and returns the record with their names in `files`.

        Returns:
            The record, with the hash of each file in `files`.
        """
        key = hash_of([importlib.metadata.version("tfkd"), name, inputs])
        kept = self._state.get(name)
        if kept and kept["key"] == key and all(file_hash(self.folder / f) == h for f, h in kept["files"].items()):
            self.said[name] = "kept"
            self.progress.line(f"{name} kept")
            return kept
        self.progress.start(name)
        record = work(key)
        record |= {"key": key, "files": {file: file_hash(self.folder / file) for file in record["files"]}}
        self._state[name] = record
        atomic.write(self._file, json.dumps(self._state, indent=1))
        self.said[name] = "done"
        self.progress.finish(f"accuracy {record['val_accuracy']:.4f} on validation" if "val_accuracy" in record else "")
        return record


def hash_of(value: Any) -> str:
    """The SHA-256 of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path, *, missing_ok: bool = True) -> str | None:
    """The SHA-256 of a file, or None where there is none.

    Raises:
        ValueError: there is none, and `missing_ok` is False.
    """
    if not path.is_file():
        if missing_ok:
            return None
        raise InputError(f"{path}: must be a file. Received: there is none. Check the path.")
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
