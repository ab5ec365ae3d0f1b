"""The Android app, built and signed with Debian's tools, and what it must not contain."""

import hashlib
import io
import json
import os
import shutil
import subprocess
import sys
import zipfile

import build_apk
import check_apk
import numpy as np
import pytest
import system_packages

import tfkd
from tfkd.errors import InputError, ToolMissingError

NEEDED = ("javac", "maven", "aapt", "zipalign", "apksigner", "dexdump", "framework")
MISSING = next(filter(None, map(system_packages.skip_reason, NEEDED)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.android,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]


def output(*command):
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("apk")


@pytest.fixture(scope="module")
def model(folder):
    student = tfkd.models.digits_student((8, 8, 1), 10)
    return tfkd.convert(student, folder / "student.tflite", calibration=tfkd.data.load("digits").train)


@pytest.fixture(scope="module")
def apk(folder, model):
    build_apk.build(model.path, "digits", folder / "bench.apk", list(build_apk.ABIS), folder / "key.p12")
    return folder / "bench.apk"


@pytest.mark.campaign  # builds the app again
def test_same_sources_model_and_key_give_the_same_bytes_without_a_network(folder, apk, model, tmp_path, monkeypatch):
    # Only Maven uses the network; after the first build nothing calls it.
    (tmp_path / "mvn").write_text("#!/bin/sh\nexit 1\n")
    (tmp_path / "mvn").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    assert shutil.which("mvn") == str(tmp_path / "mvn")
    build_apk.build(model.path, "digits", folder / "again.apk", list(build_apk.ABIS), folder / "key.p12")
    assert (folder / "again.apk").read_bytes() == apk.read_bytes()


def rewritten(apk, path, change):
    """The app with changed entries, in a zip file that is not aligned."""
    with zipfile.ZipFile(apk) as archive:
        entries = {info.filename: (info.compress_type, archive.read(info)) for info in archive.infolist()}
    change(entries)
    with zipfile.ZipFile(path, "w") as archive:
        for name, (kind, content) in entries.items():
            archive.writestr(name, content, kind)
    return path


def test_check_refuses_an_unaligned_app(apk, tmp_path):
    def shift(entries):
        entries["a"] = (zipfile.ZIP_STORED, b"1")
        entries["resources.arsc"] = entries.pop("resources.arsc")

    with pytest.raises(build_apk.ToolFailedError, match="zipalign failed"):
        build_apk.check(rewritten(apk, tmp_path / "bad.apk", shift), build_apk.ABIS)


def lose(entries):
    del entries[f"lib/x86_64/{build_apk.LIBRARY}"]


def confuse(entries):
    entries[f"lib/arm64-v8a/{build_apk.LIBRARY}"] = entries[f"lib/x86_64/{build_apk.LIBRARY}"]


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (lose, InputError, "a library for arm64-v8a, armeabi-v7a, x86_64. Received: arm64-v8a, armeabi-v7a"),
        (confuse, InputError, "the ELF machine must be EM_AARCH64, got EM_X86_64"),
        (lambda entries: None, build_apk.ToolFailedError, "apksigner failed"),
    ],
    ids=["an ABI is missing", "a library of another ABI", "no signature"],
)
def test_check_refuses(change, error, message, apk, tmp_path):
    unaligned = rewritten(apk, tmp_path / "unaligned.apk", change)
    build_apk.call("zipalign", "-f", "4", unaligned, tmp_path / "bad.apk")
    with pytest.raises(error, match=message):
        build_apk.check(tmp_path / "bad.apk", build_apk.ABIS)


def test_page_size_of_the_libraries_is_documented(apk):
    assert build_apk.check(apk, build_apk.ABIS) == 4096
    assert "16 KB pages" in (build_apk.DEMO.parent / "docs/guides/phone_checklist.md").read_text()


def test_page_sizes_are_told_by_abi(apk, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["check_apk", str(apk)])
    assert check_apk.main() == 1
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["arm64-v8a", "armeabi-v7a", "x86_64"]
    assert "does not load with 16 KB pages: segments aligned to 4,096 bytes" in lines[0]
    assert "such phones have pages of 4 KB" in lines[1]
    monkeypatch.setattr("sys.argv", ["check_apk", __file__])
    assert check_apk.main() == 2


TARGETS = {"arm64-v8a": "aarch64-linux-musl", "armeabi-v7a": "arm-linux-musleabihf", "x86_64": "x86_64-linux-musl"}


@pytest.fixture
def large_pages(tmp_path):
    """An .aar with the classes of LiteRT and libraries without its code that are aligned to pages of 16 KB."""
    (tmp_path / "empty.c").write_text("int tfkd_table[4096] = {1}; int tfkd_first(void) { return tfkd_table[0]; }")
    path, lite = tmp_path / "large.aar", build_apk.artifact(build_apk.ARTIFACTS["lite"])
    with zipfile.ZipFile(path, "w") as large, zipfile.ZipFile(lite) as archive:
        large.writestr("classes.jar", archive.read("classes.jar"))
        for abi, target in TARGETS.items():
            options = ("-target", target, "-shared", "-nostdlib", "-Wl,-z,max-page-size=16384")
            output(sys.executable, "-m", "ziglang", "cc", *options, tmp_path / "empty.c", "-o", tmp_path / "lib.so")
            large.write(tmp_path / "lib.so", f"jni/{abi}/{build_apk.LIBRARY}")
    return path


@pytest.mark.campaign  # builds the app again
def test_app_with_libraries_for_large_pages_loads_there(folder, model, large_pages, tmp_path, monkeypatch, capsys):
    given, apk = [large_pages, build_apk.artifact(build_apk.ARTIFACTS["api"])], tmp_path / "large.apk"
    arguments = ["build_apk", "--model", model.path, "--out", apk, "--keystore", folder / "key.p12", "--litert", *given]
    monkeypatch.setattr("sys.argv", [*map(str, arguments)])
    build_apk.main()
    printed = capsys.readouterr().out
    assert "bytes, arm64-v8a, armeabi-v7a, x86_64" in printed
    assert "16 KB" not in printed
    for path in (large_pages, apk):
        monkeypatch.setattr("sys.argv", ["check_apk", str(path)])
        assert check_apk.main() == 0
        lines = capsys.readouterr().out.splitlines()
        assert [line.split(": ")[1] for line in lines] == [
            "loads with 16 KB pages", "such phones have pages of 4 KB", "loads with 16 KB pages",
        ]  # fmt: skip


@pytest.mark.campaign  # builds the app again
def test_given_libraries_make_the_same_app_as_those_of_maven(apk, folder, model, tmp_path):
    given = [build_apk.artifact(build_apk.ARTIFACTS[name]) for name in ("lite", "api")]
    build_apk.build(model.path, "digits", tmp_path / "a.apk", build_apk.ABIS, folder / "key.p12", litert=given)
    assert (tmp_path / "a.apk").read_bytes() == apk.read_bytes()
    with pytest.raises(InputError, match="--litert must be .aar files"):
        build_apk.build(model.path, "digits", tmp_path / "b.apk", build_apk.ABIS, litert=[model.path])


def test_badging_has_versions_and_abis_and_no_permission(apk):
    badging = output("aapt", "dump", "badging", apk)
    assert f"package: name='dev.tfkd.bench.app' versionCode='{build_apk.VERSION}'" in badging
    assert "sdkVersion:'26'" in badging
    assert "targetSdkVersion:'35'" in badging
    assert "launchable-activity: name='dev.tfkd.bench.app.MainActivity'" in badging
    assert "native-code: 'arm64-v8a' 'armeabi-v7a' 'x86_64'" in badging
    assert "uses-permission" not in badging


def test_only_the_launcher_is_exported_and_nothing_is_backed_up(apk):
    tree = output("aapt", "dump", "xmltree", apk, "AndroidManifest.xml")
    assert tree.count("android:exported(") == 1
    assert [tree.count(f"E: {kind} ") for kind in ("activity", "service", "receiver", "provider")] == [1, 0, 0, 0]
    assert "android:allowBackup(0x01010280)=(type 0x12)0x0" in tree


def test_signature_is_v2_and_v3(apk):
    report = output("apksigner", "verify", "--verbose", "--min-sdk-version", "26", apk)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in report
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in report


def test_dex_has_the_classes_and_no_instruction_that_phones_refuse(apk, folder):
    with zipfile.ZipFile(apk) as archive:
        (folder / "classes.dex").write_bytes(archive.read("classes.dex"))
    dump = output("dexdump", "-d", folder / "classes.dex")
    for name in ("app/BenchInstrumentation", "app/MainActivity", "BenchRun", "LiteRTEngine"):
        assert f"'Ldev/tfkd/bench/{name};'" in dump
    assert "'Lorg/tensorflow/lite/NativeInterpreterWrapper;'" in dump
    assert "invoke-custom" not in dump
    assert "Lorg/json/JSONObject;" in dump  # called, but part of Android
    assert "Class descriptor  : 'Lorg/json/" not in dump


def test_app_is_small_and_contains_its_self_test(apk, model):
    assert apk.stat().st_size <= build_apk.MOST_BYTES_PER_ABI
    with zipfile.ZipFile(apk) as archive:
        assert archive.getinfo("resources.arsc").compress_type == zipfile.ZIP_STORED
        description = json.loads(archive.read("assets/bundled/model.json"))
        files = {
            one["file"]: one
            for one in (description["model"], *description["inputs"], *description["golden"], description["labels"])
        }
        contents = {name: archive.read(f"assets/bundled/{name}") for name in files}
    for name, one in files.items():
        assert (one["sha256"], one["bytes"]) == (hashlib.sha256(contents[name]).hexdigest(), len(contents[name]))
    assert contents["model.tflite"] == model.content
    shapes = {name: np.load(io.BytesIO(contents[name])).shape for name in files if name.endswith(".npy")}
    samples = build_apk.GOLDEN
    assert shapes == {"input_0.npy": (samples, 8, 8, 1), "golden_0.npy": (samples, 10), "labels.npy": (samples,)}


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Runnable lambda = () -> System.gc();", "may contain invokedynamic"),
        ("int status = ((android.os.PowerManager) null).getCurrentThermalStatus();", "cannot find symbol"),
    ],
    ids=["a lambda", "an API of a later Android"],
)
def test_build_fails_on_what_the_lowest_android_refuses(line, message, folder, model, tmp_path, monkeypatch):
    shutil.copytree(build_apk.DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("target"))
    source = tmp_path / "demo/app/src/main/java/dev/tfkd/bench/app/Bad.java"
    source.write_text(f"package dev.tfkd.bench.app; class Bad {{ {line} }}")
    monkeypatch.setattr(build_apk, "DEMO", tmp_path / "demo")
    with pytest.raises((InputError, build_apk.ToolFailedError), match=message):
        build_apk.build(model.path, "digits", tmp_path / "bad.apk", ["arm64-v8a"], folder / "key.p12")
    assert not (tmp_path / "bad.apk").exists()


def test_missing_tool_is_named_with_its_package(model, tmp_path, monkeypatch):
    monkeypatch.setitem(build_apk.TOOLS, "no-such-tool", "some-package")
    with pytest.raises(ToolMissingError, match="sudo apt-get install some-package"):
        build_apk.build(model.path, "digits", tmp_path / "a.apk", ["arm64-v8a"])
