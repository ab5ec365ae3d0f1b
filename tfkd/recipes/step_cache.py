"""Caches the results of a run's steps in a folder, keyed by their inputs, so that an interrupted run resumes."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Generic, Literal, TypeVar

import filelock
import pydantic

from tfkd._internal import atomic
from tfkd._internal.progress import Progress
from tfkd._internal.types import JsonObject, JsonRecord
from tfkd.errors import InputError

# Raised when the form of `state.json` changes: records of another form are not kept.
_FORMAT = 2


class Record:
    """What a step hands on to later steps. Subclasses are frozen dataclasses of plain values."""

    @property
    def files(self) -> tuple[str, ...]:
        """The files that the step wrote, relative to the folder of the run."""
        raise NotImplementedError

    @property
    def summary(self) -> str:
        """The result in a few words; may be empty."""
        return ""

    @property
    def is_final(self) -> bool:
        """Whether the step need not be repeated with the same inputs."""
        return True


R = TypeVar("R", bound=Record)


@dataclasses.dataclass(frozen=True)
class Finished(Generic[R]):
    """A finished step.

    Args:
        record: What the step hands on.
        hashes: SHA-256 of each of its files, by name.
    """

    record: R
    hashes: Mapping[str, str | None]


def to_json(record: object) -> JsonObject:
    """A dataclass as plain JSON values, nested dataclasses included."""
    return pydantic.TypeAdapter(type(record)).dump_python(record, mode="json")


def from_json(kind: type[R], content: JsonRecord) -> R:
    """The dataclass of which `to_json` made JSON values.

    Raises:
        pydantic.ValidationError: The content is that of another class.
    """
    return pydantic.TypeAdapter(kind).validate_python(content)


class Steps:
    """Runs the steps of a run and caches their records in `state.json`.

    Args:
        folder: Folder of the run.
        progress: Progress display.

    Attributes:
        outcomes: `done` or `kept` for each step, in order.

    Raises:
        InputError: The state of the folder is damaged.
    """

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress
        self.outcomes: dict[str, Literal["done", "kept"]] = {}
        self._state = read_state(folder)

    def do(self, name: str, inputs: object, kind: type[R], work: Callable[[str], R]) -> Finished[R]:
        """Runs a step, or keeps its record if its inputs are the same and its files are unchanged.

        Args:
            name: Name of the step.
            inputs: Settings, and the file hashes of earlier steps, as JSON values.
            kind: Class of the record.
            work: Writes the files and returns the record. It is called with the key of the step, a hash of its inputs.
        """
        key = hash_of([_FORMAT, importlib.metadata.version("tfkd"), name, inputs])
        kept = self._kept(name, key, kind)
        if kept is not None:
            self.outcomes[name] = "kept"
            self.progress.line(f"{name} kept")
            return kept
        self.progress.start(name)
        record = work(key)
        finished = Finished(record, {file: file_hash(self.folder / file) for file in record.files})
        self._state[name] = {"key": key, "hashes": dict(finished.hashes), "record": to_json(record)}
        atomic.write(self.folder / "state.json", json.dumps(self._state, indent=1))
        self.outcomes[name] = "done"
        self.progress.finish(record.summary)
        return finished

    def _kept(self, name: str, key: str, kind: type[R]) -> Finished[R] | None:
        entry = self._state.get(name)
        if not entry or entry.get("key") != key:
            return None
        if any(file_hash(self.folder / file) != digest for file, digest in entry["hashes"].items()):
            return None
        record = from_json(kind, entry["record"])
        return Finished(record, entry["hashes"]) if record.is_final else None


def read_state(folder: Path) -> JsonObject:
    """The cached steps of a run, by name; empty where there was none.

    Raises:
        InputError: The file is damaged.
    """
    file = folder / "state.json"
    try:
        state = json.loads(file.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except ValueError:
        state = None
    if not isinstance(state, dict):
        raise InputError(f"{file}: the state of the run is damaged. Delete the file to start the run again.")
    return state


@contextlib.contextmanager
def locked(file: Path, what: str) -> Iterator[None]:
    """Holds a lock for the time of the block. The system releases it when the process dies.

    Args:
        file: Lock file; created if missing, and left in place.
        what: What is locked, for the message.

    Raises:
        InputError: Another process holds the lock.
    """
    lock = filelock.FileLock(file, blocking=False)
    try:
        lock.acquire()
    except filelock.Timeout:
        raise InputError(f"{what}: another run works here. Wait for it, or choose another output.") from None
    try:
        yield
    finally:
        lock.release()


def hash_of(value: object) -> str:
    """SHA-256 (hex) of a JSON value, independent of the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def file_hash(path: Path) -> str | None:
    """SHA-256 (hex) of a file; None if it does not exist."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def input_hash(path: Path) -> str:
    """SHA-256 (hex) of a file, or of the SavedModel in a folder, that the user named.

    Raises:
        InputError: It does not exist.
    """
    if path.is_dir():
        from tfkd.models.saved_model import folder_hash  # here, since it loads Keras

        return folder_hash(path)
    found = file_hash(path)
    if found is None:
        raise InputError(f"{path}: must be a file. Received: no file. Check the path.")
    return found
