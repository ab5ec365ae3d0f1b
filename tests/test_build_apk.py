"""The Android app, built and signed with Debian's tools, and what must not get into it."""

import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest

import tfkd

sys.path.insert(0, str(Path(__file__).parents[1] / "tools"))
import build_apk
import system_packages

NEEDED = ("javac", "maven", "aapt", "zipalign", "apksigner", "dexdump", "framework")
MISSING = next(filter(None, map(system_packages.skip_reason, NEEDED)), None)
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


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
    build_apk.build(model.path, "digits", folder / "bench.apk", build_apk.ABIS, folder / "key.p12")
    return folder / "bench.apk"


def test_same_sources_model_and_key_give_the_same_bytes(folder, apk, model):
    build_apk.build(model.path, "digits", folder / "again.apk", build_apk.ABIS, folder / "key.p12")
    assert (folder / "again.apk").read_bytes() == apk.read_bytes()


def test_badging_names_versions_and_abis_and_no_permission(apk):
    badging = output("aapt", "dump", "badging", apk)
    assert "package: name='dev.tfkd.bench.app' versionCode='1'" in badging
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
    said = output("apksigner", "verify", "--verbose", "--min-sdk-version", "26", apk)
    assert "Verified using v2 scheme (APK Signature Scheme v2): true" in said
    assert "Verified using v3 scheme (APK Signature Scheme v3): true" in said


def test_dex_has_the_classes_and_nothing_that_a_phone_refuses(apk, folder):
    with zipfile.ZipFile(apk) as archive:
        (folder / "classes.dex").write_bytes(archive.read("classes.dex"))
    dump = output("dexdump", "-d", folder / "classes.dex")
    for name in ("app/BenchInstrumentation", "app/MainActivity", "BenchRun", "LiteRTEngine"):
        assert f"'Ldev/tfkd/bench/{name};'" in dump
    assert "'Lorg/tensorflow/lite/NativeInterpreterWrapper;'" in dump
    assert "invoke-custom" not in dump


def test_app_is_small_and_carries_its_self_test(apk, model):
    assert apk.stat().st_size <= build_apk.MOST_BYTES_PER_ABI
    with zipfile.ZipFile(apk) as archive:
        assert archive.read("assets/model.tflite") == model.content
        assert archive.getinfo("resources.arsc").compress_type == zipfile.ZIP_STORED
        with archive.open("assets/input_0.npy") as file:
            assert np.load(file).shape == (build_apk.GOLDEN, 8, 8, 1)
        with archive.open("assets/golden.npy") as file:
            assert np.load(file).shape == (build_apk.GOLDEN, 10)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("Runnable lambda = () -> System.gc();", "no invokedynamic"),
        ("int status = ((android.os.PowerManager) null).getCurrentThermalStatus();", "cannot find symbol"),
    ],
    ids=["a lambda", "an API of a later Android"],
)
def test_build_fails_on_what_the_least_android_refuses(line, message, folder, model, tmp_path, monkeypatch):
    shutil.copytree(build_apk.DEMO, tmp_path / "demo", ignore=shutil.ignore_patterns("target"))
    source = tmp_path / "demo/app/src/main/java/dev/tfkd/bench/app/Bad.java"
    source.write_text(f"package dev.tfkd.bench.app; class Bad {{ {line} }}")
    monkeypatch.setattr(build_apk, "DEMO", tmp_path / "demo")
    with pytest.raises((ValueError, RuntimeError), match=message):
        build_apk.build(model.path, "digits", tmp_path / "bad.apk", ["arm64-v8a"], folder / "key.p12")
    assert not (tmp_path / "bad.apk").exists()


def test_missing_tool_is_named_with_its_package(model, tmp_path, monkeypatch):
    monkeypatch.setitem(build_apk.TOOLS, "no-such-tool", "some-package")
    with pytest.raises(RuntimeError, match="sudo apt-get install some-package"):
        build_apk.build(model.path, "digits", tmp_path / "a.apk", ["arm64-v8a"])
