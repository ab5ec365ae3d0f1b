"""Builds the Android benchmark app with a JDK, Debian packages and Maven Central, without Android's SDK and Gradle.

The app contains a model, evaluation samples and the outputs of the host's reference kernels as its self-test. The build
is reproducible: the same sources, model and key give the same bytes. It fails on an invokedynamic instruction, which dx
converts but phones refuse, and on calls of an API above MIN_SDK, as it compiles against that version of Android.

    python tools/build_apk.py --model runs/digits/full_int8.tflite --data digits --out tfkd-bench.apk
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from tfkd.errors import InputError, TfkdError, ToolMissingError

DEMO = Path(__file__).parents[1] / "android_demo"
MANIFEST = DEMO / "app/src/main/AndroidManifest.xml"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
MIN_SDK, TARGET_SDK, VERSION = 26, 35, 2
# Machine number in the ELF header of each ABI's libraries.
ABIS = {"arm64-v8a": 183, "armeabi-v7a": 40, "x86_64": 62}
LIBRARY = "libtensorflowlite_jni.so"
MOST_BYTES_PER_ABI = 6 << 20
# Compiled against Android 8.0 (API 26), so that calls of a later API are errors.
ARTIFACTS = {
    "android": "org.robolectric:android-all:8.0.0_r4-robolectric-r1:jar",
    "dx": "com.jakewharton.android.repackaged:dalvik-dx:16.0.1:jar",
    "lite": "org.tensorflow:tensorflow-lite:2.16.1:aar",
    "api": "org.tensorflow:tensorflow-lite-api:2.16.1:aar",
}
TOOLS = {
    "javac": "openjdk-17-jdk-headless",
    "mvn": "maven",
    "aapt": "aapt",
    "zipalign": "zipalign",
    "apksigner": "apksigner",
}
# Options of a Java machine that runs for seconds: the compiler of hot code would cost more than it saves.
SHORT_LIVED = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
GOLDEN = 256
LARGE_PAGE = 16384
EPOCH = (1981, 1, 1, 0, 0, 0)


class ToolFailedError(RuntimeError):
    """A tool of the build ended with an error."""


def main() -> None:
    """Parses the options and builds the app."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="int8 .tflite to bundle")
    parser.add_argument("--data", default="digits", help="data of the self-test: a name or path for tfkd.data.load")
    parser.add_argument("--out", type=Path, default=Path("tfkd-bench.apk"))
    parser.add_argument("--abi", nargs="*", default=list(ABIS), choices=ABIS)
    parser.add_argument("--keystore", type=Path, help="key to sign with; created with password 'android' if missing")
    parser.add_argument("--assets-only", action="store_true", help="only write android_demo/app/src/main/assets")
    options = parser.parse_args()
    try:
        if options.assets_only:
            bundle(options.model, options.data, DEMO / "app/src/main/assets/bundled")
            return
        page = build(options.model, options.data, options.out, options.abi, options.keystore)
    except (TfkdError, ToolFailedError) as error:
        sys.exit(f"build_apk: {error}")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {', '.join(options.abi)}")
    if page < LARGE_PAGE:
        print(
            f"Its libraries are aligned to memory pages of {page:,} bytes. A phone with 16 KB pages may not load them."
        )


def build(model: Path, data: str, out: Path, abis: Sequence[str], keystore: Path | None = None) -> int:
    """Builds, aligns, signs (v2 and v3) and verifies the app.

    Returns:
        Page size in bytes for which its libraries are aligned, see `check`.

    Raises:
        ToolMissingError: A tool is not installed.
        ToolFailedError: A tool failed.
        InputError: The app would not run on Android MIN_SDK, lacks an ABI, or is too large.
    """
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    missing += [] if FRAMEWORK.exists() else ["android-framework-res"]
    if missing:
        raise ToolMissingError(f"tools are missing. Install them: sudo apt-get install {' '.join(missing)}")
    jars = {name: artifact(coordinate) for name, coordinate in ARTIFACTS.items()}
    with tempfile.TemporaryDirectory(prefix="tfkd-") as temporary:
        folder = Path(temporary)
        bundle(model, data, folder / "assets/bundled")
        packaged = package(folder)
        dex = compiled(folder, jars)
        entries = {"classes.dex": dex.read_bytes()}
        with zipfile.ZipFile(packaged) as archive:
            entries |= {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(jars["lite"]) as archive:
            for abi in abis:
                if f"jni/{abi}/{LIBRARY}" in archive.namelist():  # otherwise `check` reports it
                    entries[f"lib/{abi}/{LIBRARY}"] = archive.read(f"jni/{abi}/{LIBRARY}")
        write(folder / "unaligned.apk", entries)
        call("zipalign", "-f", "4", folder / "unaligned.apk", folder / "aligned.apk")
        sign(folder / "aligned.apk", keystore or folder / "key.p12")
        page = check(folder / "aligned.apk", abis)
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".partial")
        shutil.copyfile(folder / "aligned.apk", partial)
        os.replace(partial, out)
    return page


def check(apk: Path, abis: Sequence[str]) -> int:
    """Verifies alignment, signature, libraries and size of an app.

    Returns:
        Page size in bytes for which its libraries are aligned.

    Raises:
        ToolFailedError: The app is not aligned or not signed.
        InputError: It lacks an ABI, has a library for another machine, or is too large.
    """
    call("zipalign", "-c", "4", apk)
    pages = []
    with zipfile.ZipFile(apk) as archive:
        found = sorted(name.split("/")[1] for name in archive.namelist() if name.startswith("lib/"))
        if found != sorted(abis):
            raise InputError(f"the app must have a library for {', '.join(abis)}. Received: {', '.join(found)}.")
        for abi in abis:
            machine, page = elf(archive.read(f"lib/{abi}/{LIBRARY}"))
            if machine != ABIS[abi]:
                raise InputError(f"lib/{abi}: the ELF machine must be {ABIS[abi]}, got {machine}.")
            pages.append(page)
    call("apksigner", "verify", "--min-sdk-version", MIN_SDK, apk)
    size = apk.stat().st_size
    if size > MOST_BYTES_PER_ABI * len(abis):
        raise InputError(f"the app must have at most {MOST_BYTES_PER_ABI:,} bytes per ABI. Received: {size:,} bytes.")
    return min(pages)


def elf(library: bytes) -> tuple[int, int]:
    """ELF machine of a library, and the smallest alignment of its loadable segments in bytes."""
    wide = library[4] == 2
    (machine,) = struct.unpack_from("<H", library, 18)
    (table,) = struct.unpack_from("<Q" if wide else "<I", library, 32 if wide else 28)
    size, count = struct.unpack_from("<HH", library, 54 if wide else 42)
    loaded = [table + i * size for i in range(count) if struct.unpack_from("<I", library, table + i * size)[0] == 1]
    page, at = ("<Q", 48) if wide else ("<I", 28)
    return machine, min(struct.unpack_from(page, library, start + at)[0] for start in loaded)


def bundle(model: Path, data: str, folder: Path) -> None:
    """Writes a model's folder for the app: samples of the test split, the reference kernels' outputs, and labels.

    Raises:
        InputError: The model or the data is not valid.
    """
    import tfkd

    loaded = tfkd.TFLiteModel.load(model)
    test = tfkd.data.load(data).test
    samples = test.sample(min(GOLDEN, len(test)))
    x = loaded.quantize_input(samples.x)
    run = tfkd.targets.get("host:reference").run(loaded, x, latency=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(loaded.content)
    np.save(folder / "input_0.npy", x)
    np.save(folder / "golden.npy", run.outputs[0])
    np.save(folder / "labels.npy", np.asarray(samples.y, np.int64))
    model_, inputs, golden, labels = (
        {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name in ("model.tflite", "input_0.npy", "golden.npy", "labels.npy")
        for content in [(folder / name).read_bytes()]
    )
    description = {"model": model_, "inputs": [inputs], "golden": golden, "labels": labels}
    (folder / "model.json").write_text(json.dumps(description))


def artifact(coordinate: str) -> Path:
    """Path of a file of Maven Central in Maven's cache; downloads it if it is not there."""
    group, name, version, kind = coordinate.split(":")
    cache = Path.home() / ".m2/repository" / group.replace(".", "/") / name / version / f"{name}-{version}.{kind}"
    if not cache.exists():
        call("mvn", "-q", "-B", "dependency:get", "-Dtransitive=false", f"-Dartifact={group}:{name}:{version}:{kind}")
    return cache


def package(folder: Path) -> Path:
    """Packages manifest, resources and assets, and generates R.java."""
    (folder / "gen").mkdir()
    # Gradle takes these values from build.gradle; aapt reads them from the manifest.
    version = f'<manifest android:versionCode="{VERSION}" android:versionName="{VERSION}" '
    sdk = f'<uses-sdk android:minSdkVersion="{MIN_SDK}" android:targetSdkVersion="{TARGET_SDK}" />'
    manifest = folder / "AndroidManifest.xml"
    source = MANIFEST.read_text().replace("<manifest ", version, 1)
    manifest.write_text(source.replace("<application", f"{sdk}\n\n    <application", 1))
    out = folder / "resources.apk"
    call(
        "aapt",
        "package",
        "-f",
        "-M",
        manifest,
        "-S",
        MANIFEST.parent / "res",
        "-A",
        folder / "assets",
        "-I",
        FRAMEWORK,
        "-J",
        folder / "gen",
        "-F",
        out,
    )
    return out


def dynamic_classes(disassembly: str) -> list[str]:
    """Names of the classes with an invokedynamic instruction, in what javap prints."""
    found, name = [], ""
    for line in disassembly.splitlines():
        if line.endswith("{") and (heading := re.search(r"\b(?:class|interface) ([\w.$]+)", line)):
            name = heading[1]
        elif "invokedynamic" in line and name not in found:
            found.append(name)
    return found


def compiled(folder: Path, jars: dict[str, Path]) -> Path:
    """Compiles all classes to one .dex."""
    libraries = []
    for name in ("lite", "api"):
        libraries.append(folder / f"{name}.jar")
        with zipfile.ZipFile(jars[name]) as archive:
            libraries[-1].write_bytes(archive.read("classes.jar"))
    sources = sorted(
        [
            *DEMO.glob("core/src/main/java/**/*.java"),
            *DEMO.glob("app/src/main/java/**/*.java"),
            *folder.glob("gen/**/*.java"),
        ]
    )
    classes = folder / "classes"
    path = os.pathsep.join(map(str, [*libraries, jars["android"]]))
    # The language and library of Java 8, and the API of Android 8.0.
    call(
        "javac",
        *(f"-J{option}" for option in SHORT_LIVED),
        "--release",
        "8",
        "-nowarn",
        "-Xlint:-options",
        "-encoding",
        "UTF-8",
        "-classpath",
        path,
        "-d",
        classes,
        *sources,
    )
    for jar in libraries:
        with zipfile.ZipFile(jar) as archive:
            archive.extractall(folder / "libraries")
    every = sorted([*classes.rglob("*.class"), *(folder / "libraries").rglob("*.class")])
    if dynamic := dynamic_classes(call("javap", *(f"-J{option}" for option in SHORT_LIVED), "-c", "-p", *every)):
        raise InputError(
            f"no class may contain invokedynamic, which phones refuse, found in: {', '.join(dynamic)}. "
            "Replace lambdas and method references by anonymous classes."
        )
    dex = folder / "classes.dex"
    call(
        "java",
        *SHORT_LIVED,
        "-cp",
        jars["dx"],
        "com.android.dx.command.Main",
        "--dex",
        f"--min-sdk-version={MIN_SDK}",
        f"--output={dex}",
        classes,
        *libraries,
    )
    return dex


def write(path: Path, entries: dict[str, bytes]) -> None:
    """Writes a zip file whose bytes depend on its entries only. Files that Android maps to memory are stored."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, EPOCH)
            stored = name == "resources.arsc" or name.endswith(".tflite")
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, entries[name], compresslevel=9)


def sign(path: Path, keystore: Path) -> None:
    """Signs an app in place. The key is created if the keystore does not exist."""
    if not keystore.exists():
        call(
            "keytool",
            "-genkeypair",
            "-keystore",
            keystore,
            "-storetype",
            "PKCS12",
            "-storepass",
            "android",
            "-alias",
            "key",
            "-keyalg",
            "RSA",
            "-keysize",
            "2048",
            "-validity",
            "10000",
            "-dname",
            "CN=tfkd bench",
        )
    call(
        "apksigner",
        "sign",
        "--ks",
        keystore,
        "--ks-pass",
        "pass:android",
        "--v1-signing-enabled",
        "false",
        "--v2-signing-enabled",
        "true",
        "--v3-signing-enabled",
        "true",
        "--min-sdk-version",
        MIN_SDK,
        path,
    )


def call(*command: object) -> str:
    """Runs a tool and returns its standard output.

    Raises:
        ToolFailedError: The tool failed; the message contains its output.
    """
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        text = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).strip()
        raise ToolFailedError(f"{command[0]} failed with exit status {done.returncode}:\n{text[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
