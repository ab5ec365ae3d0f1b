"""LiteRT.js, which runs .tflite files in a browser: fetched from the npm registry once and kept in the user's cache.

The SHA-512 of both packages is pinned below, as npm's lock files have it; the SHA-256 of each unpacked file is recorded
and checked before each use. Nothing is installed, and npm is not needed.
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
import os
import shutil
import tarfile
import urllib.request
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import platformdirs
from filelock import FileLock

from tfkd._internal import atomic
from tfkd.errors import DeviceError, InputError, ToolMissingError

VERSION = "2.5.3"
NPM = f"npm install @litertjs/core@{VERSION}"

_PACKAGES = {
    "core": "PlGmbMOq9WitX7FO0jhbdJw9GthatsyuCQXjTt/wJZo0FLaw48q4tz8IwqgqCIkviYGr9OFDL1kCnN4nzWoyJQ==",
    "wasm-utils": "4fJiw6tBQnIs+0jH/OQ16nYOiSl8/+zZnn5h2ul8aTKHi05sVqZW580Tmk78pC2kT39A9OYBVdFawteZ/sI1kQ==",
}
_BUILDS = ("litert_wasm_internal", "litert_wasm_compat_internal", "litert_wasm_threaded_internal",
           "litert_wasm_jspi_internal")  # fmt: skip
_FILES = {
    "core": ("package.json", "dist/index.js", *(f"wasm/{name}{end}" for name in _BUILDS for end in (".js", ".wasm"))),
    "wasm-utils": ("package.json", "dist/index.js"),
}
_MEGABYTES = 12
_TIMEOUT_S = 60.0
_LARGEST_BYTES = 100_000_000


class Library(NamedTuple):
    """LiteRT.js as it is served to a browser.

    Args:
        version: Version of the package `@litertjs/core`.
        files: Content of each file by its name; all names lie in one folder.
    """

    version: str
    files: Mapping[str, bytes]


def load(report: Callable[[str], None], folder: str = "") -> Library:
    """Reads LiteRT.js; it is downloaded if it is not in the cache.

    Args:
        report: Called with one line before a download.
        folder: A folder `node_modules/@litertjs` to read instead; empty for the cache.

    Raises:
        InputError: The folder lacks a file of LiteRT.js.
        ToolMissingError: It is not in the cache and cannot be downloaded.
        DeviceError: The download has another hash.
    """
    root = Path(folder) if folder else _prepare(report)
    try:
        found = {
            package: {name: (root / package / name).read_bytes() for name in names} for package, names in _FILES.items()
        }
        version = str(json.loads(found["core"]["package.json"])["version"])
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"browser: litert_js must be a folder node_modules/@litertjs with core and wasm-utils. Received: {root} "
            f"({error}). Make one with `{NPM}`."
        ) from None
    # An import by a package's name needs an import map, which workers lack.
    imported, path = b'"@litertjs/wasm-utils"', b'"./wasm_utils.js"'
    index = found["core"]["dist/index.js"]
    if index.count(imported) != 1:
        raise InputError(
            f"browser: LiteRT.js must import @litertjs/wasm-utils once, as version {VERSION} does. Received: version "
            f"{version} in {root}. Use that version."
        )
    files = {Path(name).name: content for name, content in found["core"].items() if name.startswith("wasm/")}
    files |= {"index.js": index.replace(imported, path), "wasm_utils.js": found["wasm-utils"]["dist/index.js"]}
    return Library(version, files)


def cache() -> Path:
    """The folder of this version: in `TFKD_CACHE`, or else in the user's cache."""
    chosen = os.environ.get("TFKD_CACHE")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("tfkd")) / f"litert_js-{VERSION}"


def _prepare(report: Callable[[str], None]) -> Path:
    """The folder with both packages; it is made if it is missing or damaged. Concurrent calls wait for each other."""
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        root, record = folder / "litertjs", folder / "sha256.json"
        if record.exists():
            if _recorded(record) == _hashes(root):
                return root
            report(f"browser: {root} is damaged; it is made again")
        report(
            f"browser: downloading LiteRT.js {VERSION} ({_MEGABYTES} MB) from registry.npmjs.org into {folder}, once"
        )
        archives = {name: _download(name) for name in _PACKAGES}
        record.unlink(missing_ok=True)
        shutil.rmtree(root, ignore_errors=True)
        for package, archive in archives.items():
            _unpack(archive, _FILES[package], root / package)
        atomic.write(record, json.dumps(_hashes(root), indent=0))
        return root


def _download(package: str) -> bytes:
    url = f"https://registry.npmjs.org/@litertjs/{package}/-/{package}-{VERSION}.tgz"
    try:
        with urllib.request.build_opener().open(url, timeout=_TIMEOUT_S) as reply:
            content = bytes(reply.read(_LARGEST_BYTES))
    except (OSError, ValueError) as error:  # urllib's own errors are OSErrors
        cause = getattr(error, "reason", None) or error
        raise ToolMissingError(
            f"browser: {url} cannot be downloaded: {cause}. Where there is no network, run `{NPM}` on another machine, "
            "copy the folder node_modules/@litertjs, and name it: --target browser,litert_js=FOLDER"
        ) from None
    if base64.b64encode(hashlib.sha512(content).digest()).decode() != _PACKAGES[package]:
        raise DeviceError(
            f"browser: {url} has another hash than the one that tfkd knows: {len(content):,} bytes were received. "
            "Run it again; if that does not help, a proxy changes the file."
        )
    return content


def _unpack(archive: bytes, names: tuple[str, ...], folder: Path) -> None:
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as packed:
        for name in names:
            file = packed.extractfile(f"package/{name}")  # the archive has the pinned hash
            assert file is not None
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(file.read())


def _hashes(root: Path) -> dict[str, str | None]:
    """SHA-256 of each file that is needed, by its path; None for a missing one."""
    paths = [root / package / name for package, names in _FILES.items() for name in names]
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest() if path.is_file() else None
        for path in paths
    }


def _recorded(path: Path) -> object:
    try:
        return json.loads(path.read_text())
    except (OSError, ValueError):  # damaged: the files are fetched again
        return None
