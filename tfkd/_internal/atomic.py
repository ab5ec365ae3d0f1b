"""Writes files and folders so that a reader sees the old content or the whole new one, after a crash too."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tfkd.errors import InputError


@contextlib.contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yields a temporary path beside `path`, which replaces `path` when the block ends without an exception.

    Args:
        path: File to write; its folder is created. The temporary file has the same suffixes, since some writers
            (Keras, NumPy) choose the format by them: `.weights.h5`, `.npz`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    suffixes = "".join(path.suffixes)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name.removesuffix(suffixes)}.", suffix=suffixes)
    os.close(handle)
    part = Path(name)
    try:
        yield part
        with part.open("rb") as file:
            os.fsync(file.fileno())
        part.chmod(0o666 & ~_umask())  # mkstemp makes files that only their owner can read
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def write(path: Path, content: str | bytes) -> None:
    """Writes a file; text as UTF-8.

    Args:
        path: File to write or replace.
        content: The whole content.
    """
    with replacing(path) as part:
        part.write_bytes(content.encode() if isinstance(content, str) else content)


def write_folder(folder: Path, files: Mapping[str, str | bytes]) -> None:
    """Writes files into a new folder, which replaces an existing one; text as UTF-8.

    Args:
        folder: Folder to create or replace.
        files: Content by path relative to the folder.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        part.chmod(0o777 & ~_umask())  # mkdtemp makes folders that only their owner can read
        for name, content in files.items():
            (part / name).parent.mkdir(parents=True, exist_ok=True)
            (part / name).write_bytes(content.encode() if isinstance(content, str) else content)
        old = part.with_name(f"{part.name}.old")
        if folder.exists():
            folder.rename(old)
        part.rename(folder)
        shutil.rmtree(old, ignore_errors=True)
    except BaseException:
        with contextlib.suppress(OSError):
            shutil.rmtree(part)
        raise


def check_replaceable(folder: Path, verb: str, *, own: bool, overwrite: bool) -> None:
    """Checks that a folder may be written: it is new or empty, or the same verb wrote it and it shall be replaced.

    Args:
        folder: Folder to create or replace.
        verb: The command that writes it.
        own: Whether an existing folder is one that the command wrote.
        overwrite: Whether an existing folder may be replaced.

    Raises:
        InputError: It must not be written.
    """
    if not folder.exists():
        return
    if not overwrite:
        raise InputError(f"{folder} already exists. Pass --overwrite (overwrite=True in Python) or another folder.")
    if not folder.is_dir() or (not own and any(folder.iterdir())):
        found = "a folder with other files, which" if folder.is_dir() else "a file, which"
        raise InputError(
            f"{verb}: {folder} must be empty, or a folder that {verb} wrote. Received: {found} would be deleted. "
            "Choose another folder."
        )


def _umask() -> int:
    umask = os.umask(0)  # it cannot be read without being set
    os.umask(umask)
    return umask
