"""Whether native libraries load with memory pages of 16 KB."""

import struct
import zipfile

import check_apk
import pytest

from tfkd.errors import InputError


def elf(align, machine=183):
    """A 64-bit ELF file with one loadable segment."""
    header = b"\x7fELF" + bytes([2, 1, 1]) + bytes(9)
    header += struct.pack("<HHIQQQIHHHHHH", 3, machine, 1, 0, 64, 0, 0, 64, 56, 1, 64, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 1, 5, 0, 0, 0, 120, 120, align)


def packed(path, entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, (kind, content) in entries.items():
            archive.writestr(zipfile.ZipInfo(name), content, kind)
    return path


def test_alignment_of_segments_counts_on_64_bit_abis(tmp_path):
    stored, deflated = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED
    apk = packed(
        tmp_path / "a.apk",
        {
            "lib/arm64-v8a/libgood.so": (deflated, elf(16384)),
            "lib/arm64-v8a/libbad.so": (deflated, elf(4096)),
            "lib/x86_64/libshifted.so": (stored, elf(65536, 62)),
            "classes.dex": (deflated, b"dex"),
        },
    )
    found = {one.name: one for one in check_apk.libraries(apk)}
    assert found["libgood.so"].fault == ""
    assert found["libbad.so"].fault == "segments aligned to 4,096 bytes"
    assert "no multiple of 16,384" in found["libshifted.so"].fault
    content = apk.read_bytes()
    at = found["libshifted.so"].offset
    assert content[at : at + 4] == b"\x7fELF"
    assert [found[name].machine for name in ("libgood.so", "libshifted.so")] == ["EM_AARCH64", "EM_X86_64"]


def test_libraries_of_an_aar_may_lie_anywhere_in_it(tmp_path):
    entries = {"classes.jar": b"jar", "jni/arm64-v8a/libbad.so": elf(4096), "jni/x86_64/libgood.so": elf(16384, 62)}
    stored = {name: (zipfile.ZIP_STORED, content) for name, content in entries.items()}
    found = check_apk.libraries(packed(tmp_path / "a.aar", stored))
    assert [(one.abi, one.name, one.offset) for one in found] == [
        ("arm64-v8a", "libbad.so", None), ("x86_64", "libgood.so", None),
    ]  # fmt: skip
    assert [bool(one.fault) for one in found] == [True, False]


def test_what_is_no_app_or_no_library_is_refused(tmp_path):
    (tmp_path / "text.apk").write_text("no zip")
    with pytest.raises(InputError, match=r"must be an \.apk"):
        check_apk.libraries(tmp_path / "text.apk")
    with pytest.raises(InputError, match="must be an ELF file"):
        check_apk.libraries(packed(tmp_path / "b.apk", {"lib/x86_64/lib.so": (zipfile.ZIP_STORED, b"text")}))
