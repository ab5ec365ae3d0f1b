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
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import check_apk
import numpy as np

from tfkd.errors import InputError, TfkdError, ToolMissingError

if TYPE_CHECKING:
    from tfkd.conversion.tflite import TFLiteModel

DEMO = Path(__file__).parents[1] / "android_demo"
MANIFEST = DEMO / "app/src/main/AndroidManifest.xml"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
MIN_SDK, TARGET_SDK, VERSION = 26, 35, 2
ABIS = tuple(check_apk.MACHINES)
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
    parser.add_argument(
        "--litert", type=Path, nargs="+", metavar="AAR", default=[],
        help="other libraries than Maven Central's 2.16.1, such as LiteRT 1.4 and its API from Google's Maven",
    )  # fmt: skip
    parser.add_argument("--keystore", type=Path, help="key to sign with; created with password 'android' if missing")
    parser.add_argument("--assets-only", action="store_true", help="only write android_demo/app/src/main/assets")
    options = parser.parse_args()
    try:
        if options.assets_only:
            bundle(options.model, options.data, DEMO / "app/src/main/assets/bundled")
            return
        page = build(options.model, options.data, options.out, options.abi, options.keystore, litert=options.litert)
    except (TfkdError, ToolFailedError) as error:
        sys.exit(f"build_apk: {error}")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {', '.join(options.abi)}")
    if page < check_apk.LARGE_PAGE:
        print(
            f"Its libraries are aligned to memory pages of {page:,} bytes. A phone with 16 KB pages may not load them, "
            "and Google Play has refused such apps since November 2025. Build with --litert and a newer LiteRT."
        )


def build(
    model: Path,
    data: str,
    out: Path,
    abis: Sequence[str],
    keystore: Path | None = None,
    *,
    litert: Sequence[Path] = (),
) -> int:
    """Builds, aligns, signs (v2 and v3) and verifies the app.

    Args:
        model: The .tflite to bundle.
        data: Data of its samples, see `bundle`.
        out: The .apk to write.
        abis: ABIs whose libraries it gets.
        keystore: Key to sign with, created if it is missing; None for a new one.
        litert: The .aar files of LiteRT, its API included; empty for Maven Central's.

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
    needed = [name for name in ARTIFACTS if not (litert and name in ("lite", "api"))]
    jars = {name: artifact(ARTIFACTS[name]) for name in needed}
    archives = list(litert) or [jars["lite"], jars["api"]]
    for path in archives:
        if not is_archive(path):
            raise InputError(f"--litert must be .aar files. Received: {path}. Download them from Google's Maven.")
    with tempfile.TemporaryDirectory(prefix="tfkd-") as temporary:
        folder = Path(temporary)
        bundle(model, data, folder / "assets/bundled")
        packaged = package(folder)
        dex = compiled(folder, jars, archives)
        entries = {"classes.dex": dex.read_bytes()}
        with zipfile.ZipFile(packaged) as archive:
            entries |= {name: archive.read(name) for name in archive.namelist()}
        for path in archives:
            with zipfile.ZipFile(path) as archive:
                for name in archive.namelist():
                    if re.fullmatch(rf"jni/({'|'.join(abis)})/[^/]+\.so", name):
                        entries[f"lib/{name.removeprefix('jni/')}"] = archive.read(name)
        write(folder / "unaligned.apk", entries)
        call("zipalign", "-f", "4", folder / "unaligned.apk", folder / "aligned.apk")
        sign(folder / "aligned.apk", keystore or folder / "key.p12")
        page = check(folder / "aligned.apk", abis)
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".partial")
        shutil.copyfile(folder / "aligned.apk", partial)
        os.replace(partial, out)
    return page


def is_archive(path: Path) -> bool:
    """Whether a file is an .aar: a .zip with the classes of a library."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return "classes.jar" in archive.namelist()


def check(apk: Path, abis: Sequence[str]) -> int:
    """Verifies alignment, signature, libraries and size of an app.

    Returns:
        Page size in bytes for which its libraries are aligned.

    Raises:
        ToolFailedError: The app is not aligned or not signed.
        InputError: It lacks an ABI, has a library for another machine, or is too large.
    """
    call("zipalign", "-c", "4", apk)
    libraries = check_apk.libraries(apk)
    found = sorted({one.abi for one in libraries})
    if found != sorted(abis):
        raise InputError(f"the app must have a library for {', '.join(abis)}. Received: {', '.join(found)}.")
    for one in libraries:
        if one.machine != check_apk.MACHINES[one.abi]:
            raise InputError(
                f"lib/{one.abi}: the ELF machine must be {check_apk.MACHINES[one.abi]}, got {one.machine}."
            )
    call("apksigner", "verify", "--min-sdk-version", MIN_SDK, apk)
    size = apk.stat().st_size
    if size > MOST_BYTES_PER_ABI * len(abis):
        raise InputError(f"the app must have at most {MOST_BYTES_PER_ABI:,} bytes per ABI. Received: {size:,} bytes.")
    return min(one.page for one in libraries)


def bundle(model: Path, data: str, folder: Path) -> None:
    """Writes a model's folder for the app: samples, the reference kernels' outputs, and labels.

    A model with several inputs gets random samples, since a data set has one array, and no labels. Labels are those of
    classes, and of a model with one output.

    Args:
        model: The .tflite.
        data: Data whose test split has the samples.
        folder: Folder to write into.

    Raises:
        InputError: The model or the data is not valid.
    """
    import tfkd

    loaded = tfkd.TFLiteModel.load(model)
    inputs, labels = samples(loaded, data)
    run = tfkd.targets.get("host:reference").run(loaded, inputs, latency=False)
    arrays = {f"input_{i}.npy": x for i, x in enumerate(inputs)}
    arrays |= {f"golden_{i}.npy": y for i, y in enumerate(run.outputs)}
    if labels is not None:
        arrays["labels.npy"] = labels
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(loaded.content)
    for name, array in arrays.items():
        np.save(folder / name, array)
    files = {
        name: {"file": name, "sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)}
        for name in ("model.tflite", *arrays)
        for content in [(folder / name).read_bytes()]
    }
    description = {
        "model": files["model.tflite"],
        "inputs": [files[f"input_{i}.npy"] for i in range(len(inputs))],
        "golden": [files[f"golden_{i}.npy"] for i in range(len(run.outputs))],
        "labels": files.get("labels.npy"),
    }
    (folder / "model.json").write_text(json.dumps(description))


def samples(model: TFLiteModel, data: str) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Samples of a model in the types of its inputs, and their labels where they are classes of its only output."""
    import tfkd
    from tfkd.targets.random_inputs import random_input

    if len(model.inputs) > 1:
        return [
            random_input((GOLDEN, *one.sample_shape), one.dtype, quantized=bool(one.scales), seed=i)
            for i, one in enumerate(model.inputs)
        ], None
    test = tfkd.data.load(data).test
    chosen = test.sample(min(GOLDEN, len(test)))
    are_classes = test.label_kind == "classes" and len(model.outputs) == 1
    return [model.quantize_input(chosen.x)], np.asarray(chosen.y, np.int64) if are_classes else None


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


def compiled(folder: Path, jars: dict[str, Path], archives: Sequence[Path]) -> Path:
    """Compiles all classes, those of LiteRT's archives included, to one .dex."""
    libraries = []
    for i, aar in enumerate(archives):
        libraries.append(folder / f"litert_{i}.jar")
        with zipfile.ZipFile(aar) as archive:
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
