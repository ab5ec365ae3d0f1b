"""A folder with Python, NumPy and LiteRT for ARM that QEMU runs; it is prepared once and kept in the user's cache.

Nothing is installed: apt downloads Debian's packages with a state folder of its own and checks their signatures, pip
downloads the wheels and checks the hashes below. The SHA-256 of each file is recorded and checked before each use.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import stat
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

import platformdirs
from filelock import FileLock

from tfkd._internal import atomic
from tfkd._internal.types import JsonObject
from tfkd.errors import DeviceError, ToolMissingError

PYTHON = "usr/bin/python3.11"

# Debian 13 has no suffix -static: all of its emulators are static.
_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
_SUITE = "bookworm"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBS = (
    "libbz2-1.0", "libc6", "libcrypt1", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libpython3.11-minimal",
    "libpython3.11-stdlib", "libssl3", "libstdc++6", "libuuid1", "python3.11-minimal", "zlib1g",
)  # fmt: skip
# Newer versions of LiteRT crash under QEMU (2.3.0 does, November 2026).
_WHEELS = {
    "ai-edge-litert==2.1.0": "92b24d2507fccf5680c26e712c156266dcf64a892df3921dd42f4a7d26527462",
    "numpy==2.4.6": "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
}
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_STEP_S = 900.0


def cache() -> Path:
    """The folder that holds the root and the downloads: in `TFKD_CACHE`, or else in the user's cache."""
    chosen = os.environ.get("TFKD_CACHE")
    return (Path(chosen) if chosen else platformdirs.user_cache_path("tfkd")) / "arm64"


def emulator() -> str:
    """The path of QEMU.

    Raises:
        ToolMissingError: It is not installed.
    """
    found = next(filter(None, map(shutil.which, _EMULATORS)), None)
    if found is None:
        raise ToolMissingError(
            f"arm64: QEMU is not installed: no {_EMULATORS[0]} on PATH. "
            "Install it: sudo apt-get install --no-install-recommends qemu-user-static"
        )
    return found


def check() -> None:
    """Checks that the programs which `run` and, for a missing root, `prepare` need are installed.

    Raises:
        ToolMissingError: One is not; the message says how to install it.
    """
    emulator()
    if (cache() / "root.json").exists():
        return
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ToolMissingError(
                f"arm64: {tool} is not on PATH; the first run needs it to download Debian's Python for ARM. Use Debian "
                f"or Ubuntu, or copy {cache()} from such a machine."
            )
    if not _KEYRING.exists():
        raise ToolMissingError(
            f"arm64: Debian's keys, which verify its packages, are not installed: no {_KEYRING}. "
            "Install them: sudo apt-get install debian-archive-keyring"
        )


def prepare(report: Callable[[str], None]) -> Path:
    """The root folder; it is made if it is missing or damaged.

    An interrupted call resumes: complete downloads are kept, and the root appears atomically. Concurrent calls wait for
    each other.

    Args:
        report: Called with the name of each step that takes time.

    Raises:
        DeviceError: A download or a program failed.
    """
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / "lock"):
        root, record = folder / "root", folder / "root.json"
        if root.exists() and record.exists():
            if _read(record) == _contents(root):
                return root
            report(f"arm64: {root} is damaged or from another version of tfkd; it is made again")
        files = _downloads(folder / "downloads", report)
        part = _empty(folder / "root.part")
        report("arm64: unpacking")
        _unpack(files, part)
        record.unlink(missing_ok=True)
        if root.exists():
            shutil.rmtree(root)
        part.rename(root)
        atomic.write(record, json.dumps(_contents(root), indent=0))
        return root


def command(root: Path, cpu: str, *arguments: str) -> list[str]:
    """The command that runs the root's Python on an emulated core.

    Args:
        root: The root folder.
        cpu: QEMU's name of the core.
        *arguments: Arguments of Python.
    """
    return [emulator(), "-cpu", cpu, "-L", str(root), str(root / PYTHON), "-I", *arguments]


def _downloads(folder: Path, report: Callable[[str], None]) -> list[Path]:
    """The packages and wheels; those that are missing or damaged are downloaded."""
    folder.mkdir(exist_ok=True)
    record = folder / "sha256.json"
    expected = _read(record)
    intact = all(_sha256(folder / name) == sha256 for name, sha256 in expected.items())
    if not (intact and set(_WHEELS.values()) <= set(expected.values())):
        report(f"arm64: downloading 50 MB into {folder}, once: Debian's Python, NumPy and LiteRT for ARM")
        record.unlink(missing_ok=True)
        expected = {**_fetch_debs(folder), **_fetch_wheels(folder)}
        atomic.write(record, json.dumps(expected, indent=0))
    return [folder / name for name in expected]


def _fetch_debs(folder: Path) -> dict[str, str]:
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(
        f"deb [arch=arm64 signed-by={_KEYRING}] http://deb.debian.org/debian {_SUITE} main\n"
    )
    options = {
        "APT::Architecture": "arm64",
        "APT::Architectures::": "arm64",
        "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any",
        "Acquire::Languages": "none",
        "Acquire::Retries": "3",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false",
        "Dir::Cache": f"{state}/cache",
        "Dir::State": str(state),
        "Dir::State::status": f"{state}/status",
        "Dir::Etc::sourceparts": "-",
        "Dir::Etc::sourcelist": f"{state}/sources.list",
    }
    apt = ["apt-get", "-q", *(part for name, value in options.items() for part in ("-o", f"{name}={value}"))]
    _run([*apt, "update"], folder)
    with tempfile.TemporaryDirectory() as empty:  # apt does not list files that are there already
        listed = _run([*apt, "--print-uris", "download", *_DEBS], empty)
    expected = dict(re.findall(r"^'\S+' (\S+) \d+ SHA256:([0-9a-f]{64})$", listed, re.MULTILINE))
    if len(expected) != len(_DEBS):
        raise DeviceError(f"arm64: apt does not find all {len(_DEBS)} packages in {_SUITE}: {listed[-800:]}")
    for name, sha256 in expected.items():
        if _sha256(folder / name) != sha256:  # apt compares only the size of an existing file
            (folder / name).unlink(missing_ok=True)
    _run([*apt, "download", *_DEBS], folder)
    damaged = [name for name, sha256 in expected.items() if _sha256(folder / name) != sha256]
    if damaged:
        raise DeviceError(f"arm64: damaged in transfer: {', '.join(damaged)}. Run it again.")
    shutil.rmtree(state)
    return expected


def _fetch_wheels(folder: Path) -> dict[str, str]:
    pins = folder / "wheels.txt"
    pins.write_text("".join(f"{wheel} --hash=sha256:{sha256}\n" for wheel, sha256 in _WHEELS.items()))
    target = [f"--platform={name}" for name in _PLATFORMS]
    target += ["--python-version=3.11", "--implementation=cp", "--only-binary=:all:", "--no-deps"]
    _run([sys.executable, "-m", "pip", "download", "-q", "--require-hashes", *target, "-r", str(pins)], folder)
    hashes = {path.name: _sha256(path) for path in folder.glob("*.whl")}
    expected = {name: sha256 for name, sha256 in hashes.items() if sha256 in _WHEELS.values()}
    if len(expected) != len(_WHEELS):
        raise DeviceError(f"arm64: pip did not download {', '.join(_WHEELS)}, but {', '.join(hashes) or 'nothing'}.")
    return {name: str(sha256) for name, sha256 in expected.items()}


def _unpack(files: Iterable[Path], root: Path) -> None:
    packages = root / "usr/lib/python3/dist-packages"
    for file in files:
        if file.suffix == ".deb":
            _run(["dpkg-deb", "-x", str(file), str(root)], root)
        else:
            zipfile.ZipFile(file).extractall(packages)
    for path in root.rglob("*"):
        if path.is_symlink() and os.path.isabs(os.readlink(path)):
            path.unlink()  # it would point to a file of this machine, outside of the root
    # The first run writes compiled modules; later runs start three times as fast.
    _run(command(root, "cortex-a76", "-c", "import ai_edge_litert.interpreter, json, hashlib"), root)


def _contents(root: Path) -> dict[str, str]:
    """SHA-256 of each file and destination of each link of a folder, and the packages that it was made from."""
    found = {".": f"{_SUITE} {_DEBS} {_WHEELS}"}
    for folder, folders, names in os.walk(root):
        for name in (*names, *(one for one in folders if os.path.islink(os.path.join(folder, one)))):
            path = Path(folder, name)
            mode = path.lstat().st_mode
            found[str(path.relative_to(root))] = os.readlink(path) if stat.S_ISLNK(mode) else str(_sha256(path))
    return found


def _sha256(path: Path) -> str | None:
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _empty(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder


def _read(path: Path) -> JsonObject:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # missing or damaged: it is made again
        return {}


def _run(command: Sequence[str], folder: str | os.PathLike[str]) -> str:
    """Runs a program in a folder; returns its standard output."""
    what = f"arm64: {' '.join([Path(command[0]).name, *command[-3:]])}"
    try:
        done = subprocess.run(command, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_STEP_S)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what}: timed out after {_STEP_S:g} s. The next run resumes.") from None
    if done.returncode:
        printed = (done.stderr + done.stdout).decode(errors="replace").strip()[-1500:]
        raise DeviceError(f"{what}: failed: {printed or 'no output'}. The next run resumes.")
    return done.stdout.decode(errors="replace")
