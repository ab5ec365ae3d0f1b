"""Tests of the Android app on the desktop: Maven runs them under Android's framework with the app's own LiteRT."""

import re
import xml.etree.ElementTree as ElementTree

import build_apk
import desktop_app
import pytest
import system_packages
from PIL import Image

import tfkd
from tfkd.targets import android

NEEDED = ("javac", "maven", "aapt", "framework")
MISSING = desktop_app.unable() or next(filter(None, map(system_packages.skip_reason, NEEDED)), None)
pytestmark = [
    pytest.mark.slow,
    pytest.mark.network,
    pytest.mark.android,
    pytest.mark.skipif(MISSING is not None, reason=str(MISSING)),
]
CLASSES = sorted(path.stem for path in desktop_app.APP.glob("src/test/java/**/*Test.java"))
SOURCES = sorted(desktop_app.APP.glob("src/main/java/**/*.java"))


@pytest.fixture(scope="module")
def ran(tmp_path_factory, digits_student_file):
    """The finished Maven process, and the folder with its reports and pictures."""
    folder = tmp_path_factory.mktemp("app")
    train = tfkd.data.load("digits").train
    model = tfkd.convert(digits_student_file, folder / "student.tflite", calibration=train)
    desktop_app.prepare(model.path, "digits", folder)
    return desktop_app.test(desktop_app.APP, folder, f"-Dtfkd.screens={folder}/screens"), folder


def test_app_builds_and_passes(ran):
    done, _ = ran
    assert done.returncode == 0, done.stdout[-6000:] + done.stderr[-2000:]


@pytest.mark.parametrize("name", CLASSES)
def test_app_class_ran(ran, name):
    _, folder = ran
    suite = ElementTree.parse(folder / f"target/surefire-reports/TEST-dev.tfkd.bench.app.{name}.xml").getroot()
    assert int(suite.get("tests")) > 0
    assert [suite.get(key) for key in ("failures", "errors", "skipped")] == ["0", "0", "0"]


def test_screens_show_light_and_dark_pixels(ran):
    _, folder = ran
    for name, light in (("running", True), ("result", True), ("large", True), ("not_valid_dark", False)):
        with Image.open(folder / "screens" / f"{name}.png") as picture:
            grey = picture.convert("L")
            colours = grey.getcolors()
            assert grey.size == (600, 1290)
        assert len(colours) > 30  # text and shapes, not blank
        assert (max(colours)[1] > 128) == light


def test_app_reads_no_intent_and_has_no_lambda_and_no_network():
    assert SOURCES
    for source in SOURCES:
        text = source.read_text()
        for word in ("getIntent", "onNewIntent", "java.net", "android.webkit", "Runtime.getRuntime().exec", "->"):
            assert word not in text, f"{word} in {source}"


def test_gradle_and_build_apk_name_the_same_versions():
    gradle = (desktop_app.APP / "build.gradle").read_text()
    assert re.search(r"minSdk = (\d+)", gradle)[1] == str(build_apk.MIN_SDK)
    assert re.search(r"targetSdk = (\d+)", gradle)[1] == str(build_apk.TARGET_SDK)
    assert re.search(r"versionCode = (\d+)", gradle)[1] == str(build_apk.VERSION) == str(android.VERSION)
    litert = re.findall(r"'com.google.ai.edge.litert:([\w-]+):1\.(\d+)\.\d+'", gradle)
    assert {name for name, _ in litert} == {"litert", "litert-api", "litert-gpu", "litert-gpu-api"}
    assert all(int(minor) >= 4 for _, minor in litert)  # for memory pages of 16 KB
