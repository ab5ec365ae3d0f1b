"""Python, NumPy and LiteRT for ARM in a folder of this machine, prepared once, for QEMU to run.

Nothing is installed: Debian's packages come through apt with a state of its own, whose signatures it checks, and the
wheels through pip by the hashes below. Every file is remembered by its SHA-256 and looked at before each use.
"""

from __future__ import annotations

import fcntl
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
from typing import Any

from tfkd._internal import atomic
from tfkd.errors import DeviceError, ToolMissingError

PYTHON = "usr/bin/python3.11"

# Debian 13 renamed it: all of its emulators are static now.
_EMULATORS = ("qemu-aarch64-static", "qemu-aarch64")
_SUITE = "bookworm"
_KEYRING = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
_DEBS = (
    "libbz2-1.0", "libc6", "libcrypt1", "libexpat1", "libffi8", "libgcc-s1", "liblzma5", "libpython3.11-minimal",
    "libpython3.11-stdlib", "libssl3", "libstdc++6", "libuuid1", "python3.11-minimal", "zlib1g",
)  # fmt: skip
# Newer LiteRT crashes under QEMU (2.3.0 does, November 2026).
_WHEELS = {
    "ai-edge-litert==2.1.0": "92b24d2507fccf5680c26e712c156266dcf64a892df3921dd42f4a7d26527462",
    "numpy==2.4.6": "0ab0a9c4ffb1a6d95ef519fe4247dba8eb6b18ad93999f76b7f657039acabd47",
}
_PLATFORMS = ("manylinux_2_28_aarch64", "manylinux_2_27_aarch64", "manylinux2014_aarch64")
_STEP_S = 900.0


def cache() -> Path:
    """Where the root lies: `TFKD_CACHE`, or tfkd's folder in the user's cache."""
    chosen = os.environ.get("TFKD_CACHE")
    user = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return (Path(chosen) if chosen else user / "tfkd") / "arm64"


def emulator() -> str:
    """The path of QEMU.

    Raises:
        RuntimeError: it is not installed.
    """
    found = next(filter(None, map(shutil.which, _EMULATORS)), None)
    if found is None:
        raise ToolMissingError(
            f"arm64: needs QEMU's emulator of a process. Received: no {_EMULATORS[0]} on PATH. "
            "Install it: sudo apt-get install --no-install-recommends qemu-user-static"
        )
    return found


def check() -> None:
    """Looks for what `prepare` needs, where the root is not there yet.

    Raises:
        RuntimeError: a tool is missing; the message names the command that installs it.
    """
    emulator()
    if (cache() / "root.json").exists():
        return
    for tool in ("apt-get", "dpkg-deb"):
        if shutil.which(tool) is None:
            raise ToolMissingError(
                f"arm64: needs {tool}, once, to fetch Debian's Python for ARM. Received: none on PATH. Run it on "
                f"Debian or Ubuntu, or copy {cache()} from there."
            )
    if not _KEYRING.exists():
        raise ToolMissingError(
            f"arm64: needs Debian's keys, to check what it fetches. Received: no {_KEYRING}. "
            "Install them: sudo apt-get install debian-archive-keyring"
        )


def prepare(say: Callable[[str], None]) -> Path:
    """The root, ready to run; made where it is missing or damaged.

    A kill only interrupts: what is downloaded stays, and the root appears whole or not at all. Of several processes
    one works and the others wait.

    Args:
        say: told what takes time.

    Raises:
        RuntimeError: a download or a tool failed.
    """
    folder = cache()
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        root, record = folder / "root", folder / "root.json"
        if root.exists() and record.exists():
            if _read(record) == _contents(root):
                return root
            say(f"arm64: {root} is damaged, or of another tfkd; it is made anew")
        files = _downloads(folder / "downloads", say)
        part = _remade(folder / "root.part")
        say("arm64: unpacking")
        _unpack(files, part)
        record.unlink(missing_ok=True)
        if root.exists():
            shutil.rmtree(root)
        part.rename(root)
        atomic.write(record, json.dumps(_contents(root), indent=0))
        return root


def command(root: Path, cpu: str, *words: str) -> list[str]:
    """What runs the root's Python on an emulated core."""
    return [emulator(), "-cpu", cpu, "-L", str(root), str(root / PYTHON), "-I", *words]


def _downloads(folder: Path, say: Callable[[str], None]) -> list[Path]:
    """The packages and wheels, all whole."""
    folder.mkdir(exist_ok=True)
    record = folder / "sha256.json"
    wanted = _read(record)
    sound = all(_sha256(folder / name) == sha256 for name, sha256 in wanted.items())
    if not (sound and set(_WHEELS.values()) <= set(wanted.values())):
        say(f"arm64: downloading 50 MB into {folder}, once: Debian's Python, NumPy and LiteRT for ARM")
        record.unlink(missing_ok=True)
        wanted = {**_fetch_debs(folder), **_fetch_wheels(folder)}
        atomic.write(record, json.dumps(wanted, indent=0))
    return [folder / name for name in wanted]


def _fetch_debs(folder: Path) -> dict[str, str]:
    state = folder / "apt"
    for name in ("lists/partial", "cache/archives/partial"):
        (state / name).mkdir(parents=True, exist_ok=True)
    (state / "status").touch()
    (state / "sources.list").write_text(
        f"deb [arch=arm64 signed-by={_KEYRING}] http://deb.debian.org/debian {_SUITE} main\n"
    )
    options = {
        "APT::Architecture": "arm64", "APT::Architectures::": "arm64", "APT::Sandbox::User": "root",
        "APT::Update::Error-Mode": "any", "Acquire::Languages": "none", "Acquire::Retries": "3",
        "Acquire::IndexTargets::deb::DEP-11::DefaultEnabled": "false", "Dir::Cache": f"{state}/cache",
        "Dir::State": str(state), "Dir::State::status": f"{state}/status", "Dir::Etc::sourceparts": "-",
        "Dir::Etc::sourcelist": f"{state}/sources.list",
    }  # fmt: skip
    apt = ["apt-get", "-q", *(word for name, value in options.items() for word in ("-o", f"{name}={value}"))]
    _do([*apt, "update"], folder)
    with tempfile.TemporaryDirectory() as empty:  # what lies there already would not be listed
        listed = _do([*apt, "--print-uris", "download", *_DEBS], empty)
    wanted = dict(re.findall(r"^'\S+' (\S+) \d+ SHA256:([0-9a-f]{64})$", listed, re.MULTILINE))
    if len(wanted) != len(_DEBS):
        raise DeviceError(f"arm64: apt must know {len(_DEBS)} packages of {_SUITE}. Received: {listed[-800:]}")
    for name, sha256 in wanted.items():
        if _sha256(folder / name) != sha256:  # apt looks at the size of what is there, not at its hash
            (folder / name).unlink(missing_ok=True)
    _do([*apt, "download", *_DEBS], folder)
    damaged = [name for name, sha256 in wanted.items() if _sha256(folder / name) != sha256]
    if damaged:
        raise DeviceError(f"arm64: must arrive whole. Received: other bytes of {', '.join(damaged)}. Run it again.")
    shutil.rmtree(state)
    return wanted


def _fetch_wheels(folder: Path) -> dict[str, str]:
    pins = folder / "wheels.txt"
    pins.write_text("".join(f"{wheel} --hash=sha256:{sha256}\n" for wheel, sha256 in _WHEELS.items()))
    target = [f"--platform={name}" for name in _PLATFORMS]
    target += ["--python-version=3.11", "--implementation=cp", "--only-binary=:all:", "--no-deps"]
    _do([sys.executable, "-m", "pip", "download", "-q", "--require-hashes", *target, "-r", str(pins)], folder)
    hashes = {path.name: _sha256(path) for path in folder.glob("*.whl")}
    wanted = {name: sha256 for name, sha256 in hashes.items() if sha256 in _WHEELS.values()}
    if len(wanted) != len(_WHEELS):
        raise DeviceError(f"arm64: pip must bring {', '.join(_WHEELS)}. Received: {', '.join(hashes) or 'nothing'}.")
    return {name: str(sha256) for name, sha256 in wanted.items()}


def _unpack(files: Iterable[Path], root: Path) -> None:
    packages = root / "usr/lib/python3/dist-packages"
    for file in files:
        if file.suffix == ".deb":
            _do(["dpkg-deb", "-x", str(file), str(root)], root)
        else:
            zipfile.ZipFile(file).extractall(packages)
    for path in root.rglob("*"):
        if path.is_symlink() and os.path.isabs(os.readlink(path)):
            path.unlink()  # it would lead out of the root, to this machine's files
    # A first run, which also leaves compiled modules: they start three times as fast.
    _do(command(root, "cortex-a76", "-c", "import ai_edge_litert.interpreter, json, hashlib"), root)


def _contents(root: Path) -> dict[str, str]:
    """Each file of a folder with its SHA-256, each link with where it leads; and what it was made of."""
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


def _remade(folder: Path) -> Path:
    if folder.exists():
        shutil.rmtree(folder)
    folder.mkdir()
    return folder


def _read(path: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(path.read_text()))
    except (OSError, ValueError, TypeError):  # missing or damaged: it is made anew
        return {}


def _do(words: Sequence[str], folder: str | os.PathLike[str]) -> str:
    """Runs a tool; what it printed."""
    what = f"arm64: {' '.join([Path(words[0]).name, *words[-3:]])}"
    try:
        done = subprocess.run(words, cwd=folder, stdin=subprocess.DEVNULL, capture_output=True, timeout=_STEP_S)
    except subprocess.TimeoutExpired:
        raise DeviceError(f"{what}: must end within {_STEP_S:g} s. Run it again: it resumes.") from None
    if done.returncode:
        said = (done.stderr + done.stdout).decode(errors="replace").strip()[-1500:]
        raise DeviceError(f"{what}: must succeed. Received: {said or 'nothing'}. Mend that; the next run resumes.")
    return done.stdout.decode(errors="replace")
