"""The names of all files below a folder."""

from __future__ import annotations

import errno
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from tfkd.errors import InputError


class Folder(NamedTuple):
    """The visible content of a folder, in any order.

    Args:
        folders: Names of its sub-folders.
        files: Names of its files.
    """

    folders: list[str]
    files: list[str]


class Tree(NamedTuple):
    """A folder and all that is below it.

    Args:
        folders: Each folder by its path relative to the root, with `/` on every system; the root is "".
        digest: Hash of all names.
    """

    folders: dict[str, Folder]
    digest: str

    def files(self, prefix: str = "") -> Iterator[str]:
        """The paths of the files below a folder, the names of each folder in alphabetical order.

        Args:
            prefix: Path of the folder, relative to the root.
        """
        folders, files = self.folders[prefix]
        start = f"{prefix}/" if prefix else ""
        below = set(folders)
        for name in sorted(folders + files):
            if name in below:
                yield from self.files(start + name)
            else:
                yield start + name


def scan(root: Path) -> Tree:
    """Reads the names below a folder. Names that begin with a dot, and `__MACOSX` of archives, are left out.

    Raises:
        InputError: A symbolic link leads back to a folder that it is in.
        OSError: A folder cannot be read.
    """
    found: dict[str, Folder] = {}
    digest, waiting = hashlib.blake2b(digest_size=20), [""]
    while waiting:
        prefix = waiting.pop()
        one = found[prefix] = Folder([], [])
        with os.scandir(root / prefix) as entries:
            for entry in entries:
                if not entry.name.startswith(".") and entry.name != "__MACOSX":
                    (one.folders if _is_folder(entry) else one.files).append(entry.name)
        # No name is empty or has a NUL: the text tells folders and files apart.
        digest.update("\0".join([prefix, *one.folders, "", *one.files, ""]).encode("utf-8", "surrogatepass"))
        waiting += [f"{prefix}/{name}" if prefix else name for name in one.folders]
    return Tree(found, digest.hexdigest())


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError as error:
        if error.errno != errno.ELOOP:
            raise
        link = os.path.join(*Path(entry.path).parts[-2:])
        raise InputError(
            f"load: a symbolic link must not lead back to a folder that it is in. Received: {link}. Remove the link."
        ) from error
