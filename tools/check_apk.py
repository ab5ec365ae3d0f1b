"""Says ABI by ABI whether the native libraries of an app or an .aar load on phones with memory pages of 16 KB.

Android 15 has such phones, and Google Play has asked for it since November 2025. A library of a 64-bit ABI needs
loadable segments that are aligned to 16,384 bytes, and one that is stored without compression must begin at such an
offset of the .apk. Phones with 32-bit ABIs have pages of 4 KB.

    python tools/check_apk.py bench.apk
    python tools/check_apk.py litert-1.4.0.aar

Exit status 0 if all libraries load, 1 if one does not, 2 if the file is neither an app nor an .aar.
"""

from __future__ import annotations

import argparse
import io
import re
import struct
import sys
import zipfile
from pathlib import Path
from typing import NamedTuple

from elftools.common.exceptions import ELFError
from elftools.elf.elffile import ELFFile

from tfkd.errors import InputError

# Machine in the ELF header of each ABI's libraries.
MACHINES = {"arm64-v8a": "EM_AARCH64", "armeabi-v7a": "EM_ARM", "x86_64": "EM_X86_64"}
LARGE_PAGE = 16384
_WIDE = ("arm64-v8a", "x86_64")
# Where an .apk and an .aar have their libraries: below lib/ABI/ and jni/ABI/.
_PLACE = re.compile(r"(lib|jni)/([^/]+)/([^/]+\.so)")


class Library(NamedTuple):
    """A native library of an app or an .aar.

    Args:
        abi: Its folder below lib/ or jni/.
        name: Its file name.
        machine: Machine of its ELF header.
        page: Largest page in bytes for which its loadable segments are aligned.
        offset: Where it begins in the .apk if it is stored without compression; None otherwise, and in an .aar.
    """

    abi: str
    name: str
    machine: str
    page: int
    offset: int | None

    @property
    def fault(self) -> str:
        """Why it does not load on a phone with pages of 16 KB; empty if it does, or if its ABI has no such phones."""
        if self.abi not in _WIDE:
            return ""
        if self.page < LARGE_PAGE:
            return f"segments aligned to {self.page:,} bytes"
        if self.offset is not None and self.offset % LARGE_PAGE:
            return f"stored at offset {self.offset:,}, no multiple of {LARGE_PAGE:,}"
        return ""


def libraries(apk: Path) -> list[Library]:
    """The native libraries of an app or an .aar, by ABI.

    Raises:
        InputError: The file is neither, or a library is no ELF file.
    """
    try:
        with zipfile.ZipFile(apk) as archive:
            entries = [one for one in archive.infolist() if _PLACE.fullmatch(one.filename)]
            entries.sort(key=_name)
            return [_library(apk, one, archive.read(one)) for one in entries]
    except (OSError, zipfile.BadZipFile) as error:
        raise InputError(f"check_apk: {apk} must be an .apk or .aar. Received: {error}.") from None


def _name(entry: zipfile.ZipInfo) -> str:
    return entry.filename


def _library(apk: Path, entry: zipfile.ZipInfo, content: bytes) -> Library:
    _, abi, name = entry.filename.split("/")
    try:
        elf = ELFFile(io.BytesIO(content))
        pages = [segment["p_align"] for segment in elf.iter_segments("PT_LOAD")]
        machine = str(elf["e_machine"])
    except ELFError as error:
        raise InputError(f"check_apk: {entry.filename} must be an ELF file. Received: {error}.") from None
    if not pages:
        raise InputError(f"check_apk: {entry.filename} must have loadable segments. Received: none.")
    return Library(abi, name, machine, min(pages), _offset(apk, entry))


def _offset(apk: Path, entry: zipfile.ZipInfo) -> int | None:
    """Where the content of a stored entry begins: behind a header with a name and an extra field of its own length."""
    if entry.compress_type != zipfile.ZIP_STORED or entry.filename.startswith("jni/"):
        return None
    with apk.open("rb") as file:
        file.seek(entry.header_offset + 26)
        name, extra = struct.unpack("<HH", file.read(4))
    return entry.header_offset + 30 + int(name) + int(extra)


def main() -> int:
    """Parses the options and prints a line for each library."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("apk", type=Path)
    options = parser.parse_args()
    try:
        found = libraries(options.apk)
    except InputError as error:
        print(error, file=sys.stderr)
        return 2
    for one in found:
        answer = "such phones have pages of 4 KB" if one.abi not in _WIDE else one.fault or "loads with 16 KB pages"
        print(f"{one.abi:<12} {one.name}: {'does not load with 16 KB pages: ' if one.fault else ''}{answer}")
    if not found:
        print("no native library")
    return 1 if any(one.fault for one in found) else 0


if __name__ == "__main__":
    sys.exit(main())
