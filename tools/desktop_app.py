"""Runs the Android app on a desktop: under Android's framework (Robolectric) and with the app's own LiteRT.

The interpreter is LiteRT's library for Android on x86-64, patched so that glibc can load it. The framework and the
drawing library (Skia) are those of Android 15, from Maven Central. The tests use this module; as a program it draws the
screens for the documentation:

    python tools/desktop_app.py --model runs/digits/full_int8.tflite --screens docs/app
"""

from __future__ import annotations

import argparse
import os
import platform
import struct
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import build_apk
from PIL import Image

from tfkd.errors import TfkdError, ToolMissingError

APP, CORE = build_apk.DEMO / "app", build_apk.DEMO / "core"
# Constants of the ELF specification.
_LOAD, _DYNAMIC, _NEEDED, _STRTAB, _STRSZ, _RUNPATH = 1, 2, 1, 5, 10, 29
_VERSIONS = (0x6FFFFFF0, 0x6FFFFFFC, 0x6FFFFFFD, 0x6FFFFFFE, 0x6FFFFFFF)


def main() -> None:
    """Draws the app's screens to .png files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="int8 .tflite to bundle")
    parser.add_argument("--data", default="digits", help="data of the self-test: a name or path for tfkd.data.load")
    parser.add_argument("--screens", type=Path, required=True, help="folder for the .png files")
    options = parser.parse_args()
    options.screens.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="tfkd-") as folder:
        try:
            prepare(options.model, options.data, Path(folder))
        except (TfkdError, build_apk.ToolFailedError) as error:
            sys.exit(f"desktop_app: {error}")
        done = test(APP, Path(folder), "-Dtest=ScreensTest", f"-Dtfkd.screens={options.screens.resolve()}")
    if done.returncode:
        sys.exit(f"desktop_app: {done.stdout[-4000:]}{done.stderr[-2000:]}")
    for path in sorted(options.screens.glob("*.png")):
        with Image.open(path) as picture:
            picture.convert("RGB").quantize(64).save(path, optimize=True)
        print(f"{path}: {path.stat().st_size:,} bytes")


def prepare(model: Path, data: str, folder: Path) -> None:
    """Writes what the app's tests need: resources, R.java and assets as in the APK, and LiteRT for this desktop."""
    build_apk.bundle(model, data, folder / "assets/bundled")
    build_apk.package(folder)
    litert(folder)


def unable() -> str | None:
    """Reason why LiteRT's library cannot be loaded on this platform; None if it can."""
    here = f"{platform.system()} on {platform.machine()}"
    return None if here == "Linux on x86_64" else f"LiteRT for the desktop needs Linux on x86_64, this is {here}."


def litert(folder: Path) -> None:
    """Writes LiteRT's Java classes and its library, loadable by glibc, to a folder.

    Raises:
        ToolMissingError: The platform is not Linux on x86-64.
        ToolFailedError: A tool failed.
    """
    if reason := unable():
        raise ToolMissingError(reason)
    for name in ("lite", "api"):
        with zipfile.ZipFile(build_apk.artifact(build_apk.ARTIFACTS[name])) as archive:
            (folder / f"{name}.jar").write_bytes(archive.read("classes.jar"))
            if name == "lite":
                library = archive.read("jni/x86_64/libtensorflowlite_jni.so")
    (folder / "libtensorflowlite_jni.so").write_bytes(_for_glibc(library))
    build_apk.call(
        "cc",
        "-shared",
        "-fPIC",
        "-O1",
        "-Wall",
        "-Werror",
        "-Wl,-soname,liblog.so",
        "-Wl,--no-as-needed",
        "-o",
        folder / "liblog.so",
        Path(__file__).with_name("bionic.c"),
        "-lm",
    )


def test(project: Path, folder: Path, *properties: str) -> subprocess.CompletedProcess[str]:
    """Runs the tests of app or core by Maven with the files that `prepare` or `litert` wrote to a folder."""
    return subprocess.run(
        ["mvn", "-q", "-B", "test", f"-Dtfkd.folder={folder}", f"-DbuildDirectory={folder}/target", *properties],
        cwd=project,
        env={**os.environ, "MAVEN_OPTS": " ".join(build_apk.SHORT_LIVED)},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=900,
    )


def _for_glibc(elf: bytes) -> bytes:
    """A library for Android, patched so that glibc can load it.

    It removes symbol versions, renames the imports `sysconf` and `strerror_r`, whose meaning differs, and depends only
    on liblog.so (bionic.c), which provides what glibc lacks. On x86-64 bionic and glibc have the same sizes of mutexes
    and structures and the same system call numbers.
    """
    data = bytearray(elf)
    table, size, count = *struct.unpack_from("<Q", data, 32), *struct.unpack_from("<HH", data, 54)
    headers = [struct.unpack_from("<IIQQQQQQ", data, table + i * size) for i in range(count)]
    start, length = next((offset, bytes_) for kind, _, offset, _, _, bytes_, *_ in headers if kind == _DYNAMIC)
    entries = [struct.unpack_from("<qQ", data, start + i) for i in range(0, length, 16)]
    tags = dict(entries)
    strings = next(
        tags[_STRTAB] - address + offset
        for kind, _, offset, address, _, bytes_, *_ in headers
        if kind == _LOAD and address <= tags[_STRTAB] < address + bytes_
    )
    names = elf[strings : strings + tags[_STRSZ]]

    def rename(old: bytes, new: bytes) -> int:
        found = names.index(b"\0" + old + b"\0") + 1
        data[strings + found : strings + found + len(old)] = new.ljust(len(old), b"\0")
        return found

    rename(b"sysconf", b"Sysconf")
    rename(b"strerror_r", b"Strerror_r")
    kept = [(_RUNPATH, rename(b"libdl.so", b"$ORIGIN"))]
    for tag, value in entries:
        if tag == _NEEDED:
            if names[value:].startswith(b"liblog.so\0"):
                kept.append((tag, value))
        elif tag and tag not in _VERSIONS:
            kept.append((tag, value))
    for i, entry in enumerate(kept + [(0, 0)] * (len(entries) - len(kept))):
        struct.pack_into("<qQ", data, start + 16 * i, *entry)
    return bytes(data)


if __name__ == "__main__":
    main()
