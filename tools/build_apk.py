"""Builds the Android benchmark app with a JDK, Maven Central and Debian's packages alone: no SDK, no Gradle.

The model, its evaluation samples and what the host's reference kernels make of them go in as the app's self-test. The
same sources, model and key give the same bytes. The build fails on an invokedynamic, which dx passes and a phone
refuses, and on an API above the least Android version, because that version is what it compiles against.

    python tools/build_apk.py --model runs/digits/full_int8.tflite --data digits --out tfkd-bench.apk
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

DEMO = Path(__file__).parents[1] / "android_demo"
MANIFEST = DEMO / "app/src/main/AndroidManifest.xml"
FRAMEWORK = Path("/usr/share/android-framework-res/framework-res.apk")
MIN_SDK, TARGET_SDK, VERSION = 26, 35, 1
ABIS = ("arm64-v8a", "armeabi-v7a", "x86_64")
MOST_BYTES_PER_ABI = 6 << 20
# The framework is Android 8.0's (API 26): what it lacks does not compile.
ARTIFACTS = {
    "android": "org.robolectric:android-all:8.0.0_r4-robolectric-r1:jar",
    "dx": "com.jakewharton.android.repackaged:dalvik-dx:16.0.1:jar",
    "lite": "org.tensorflow:tensorflow-lite:2.16.1:aar",
    "api": "org.tensorflow:tensorflow-lite-api:2.16.1:aar",
}
TOOLS = {"javac": "openjdk-17-jdk-headless", "mvn": "maven", "aapt": "aapt", "zipalign": "zipalign", "apksigner": "apksigner"}  # fmt: skip  # noqa: E501
GOLDEN = 64
EPOCH = (1981, 1, 1, 0, 0, 0)


def main() -> None:
    """Reads the options and builds."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", type=Path, required=True, help="the bundled student, an int8 .tflite")
    parser.add_argument("--data", default="digits", help="where its golden samples come from: tfkd.data.load")
    parser.add_argument("--out", type=Path, default=Path("tfkd-bench.apk"))
    parser.add_argument("--abi", nargs="*", default=list(ABIS), choices=ABIS)
    parser.add_argument("--keystore", type=Path, help="made, with the password 'android', where it is missing")
    parser.add_argument("--assets-only", action="store_true", help="only fill android_demo/app/src/main/assets")
    options = parser.parse_args()
    if options.assets_only:
        assets(options.model, options.data, DEMO / "app/src/main/assets")
        return
    try:
        build(options.model, options.data, options.out, options.abi, options.keystore)
    except (ValueError, RuntimeError) as error:
        sys.exit(f"build_apk: {error}")
    print(f"{options.out}: {options.out.stat().st_size:,} bytes, {', '.join(options.abi)}")


def build(model: Path, data: str, out: Path, abis: Sequence[str], keystore: Path | None = None) -> None:
    """Builds, aligns, signs (v2 and v3) and verifies.

    Raises:
        RuntimeError: a tool is missing or failed.
        ValueError: the app would not run on the least Android version, or is too large.
    """
    missing = sorted({package for tool, package in TOOLS.items() if shutil.which(tool) is None})
    missing += [] if FRAMEWORK.exists() else ["android-framework-res"]
    if missing:
        raise RuntimeError(f"tools are missing. Install them: sudo apt-get install {' '.join(missing)}")
    jars = {name: artifact(coordinate) for name, coordinate in ARTIFACTS.items()}
    with tempfile.TemporaryDirectory(prefix="tfkd-") as temporary:
        folder = Path(temporary)
        assets(model, data, folder / "assets")
        packaged = package(folder)
        dex = compiled(folder, jars)
        entries = {"classes.dex": dex.read_bytes()}
        with zipfile.ZipFile(packaged) as archive:
            entries |= {name: archive.read(name) for name in archive.namelist()}
        with zipfile.ZipFile(jars["lite"]) as archive:
            for abi in abis:
                library = f"jni/{abi}/libtensorflowlite_jni.so"
                if library not in archive.namelist():
                    raise ValueError(f"LiteRT must have a library for {abi}. Received: none.")
                entries[f"lib/{abi}/libtensorflowlite_jni.so"] = archive.read(library)
        write(folder / "unaligned.apk", entries)
        call("zipalign", "-f", "4", folder / "unaligned.apk", folder / "aligned.apk")
        call("zipalign", "-c", "4", folder / "aligned.apk")
        sign(folder / "aligned.apk", keystore or folder / "key.p12")
        call("apksigner", "verify", "--min-sdk-version", MIN_SDK, folder / "aligned.apk")
        size = (folder / "aligned.apk").stat().st_size
        if size > MOST_BYTES_PER_ABI * len(abis):
            raise ValueError(
                f"the app must have at most {MOST_BYTES_PER_ABI:,} bytes per ABI. Received: {size:,} bytes."
            )
        out.parent.mkdir(parents=True, exist_ok=True)
        partial = out.with_suffix(".partial")
        shutil.copyfile(folder / "aligned.apk", partial)
        os.replace(partial, out)


def assets(model: Path, data: str, folder: Path) -> None:
    """The bundled model, samples of the test split as it takes them, and the reference kernels' outputs."""
    import tfkd

    loaded = tfkd.TFLiteModel.load(model)
    x = loaded.quantize_input(tfkd.data.load(data).test.sample(GOLDEN).x)
    run = tfkd.targets.get("host:reference").run(loaded, x, latency=False)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.tflite").write_bytes(loaded.content)
    np.save(folder / "input_0.npy", x)
    np.save(folder / "golden.npy", run.outputs[0])


def artifact(coordinate: str) -> Path:
    """A file of Maven Central, from Maven's own cache after the first time."""
    group, name, version, kind = coordinate.split(":")
    cache = Path.home() / ".m2/repository" / group.replace(".", "/") / name / version / f"{name}-{version}.{kind}"
    if not cache.exists():
        call("mvn", "-q", "-B", "dependency:get", "-Dtransitive=false", f"-Dartifact={group}:{name}:{version}:{kind}")
    return cache


def package(folder: Path) -> Path:
    """The manifest, resources and assets, and R.java."""
    (folder / "gen").mkdir()
    source = MANIFEST.read_text()
    manifest = folder / "AndroidManifest.xml"
    manifest.write_text(
        source.replace("<manifest ", f'<manifest android:versionCode="{VERSION}" android:versionName="{VERSION}" ', 1)
    )
    out = folder / "resources.apk"
    call("aapt", "package", "-f", "-M", manifest, "-S", MANIFEST.parent / "res", "-A", folder / "assets",
         "-I", FRAMEWORK, "-J", folder / "gen",
         "--min-sdk-version", MIN_SDK, "--target-sdk-version", TARGET_SDK, "-F", out)  # fmt: skip
    return out


def compiled(folder: Path, jars: dict[str, Path]) -> Path:
    """All classes as one .dex."""
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
    # Of Java itself what Java 8 has, of Android what Android 8.0 has.
    call("javac", "--release", "8", "-nowarn", "-Xlint:-options", "-encoding", "UTF-8", "-classpath", path,
         "-d", classes, *sources)  # fmt: skip
    dynamic = [
        path.stem for path in sorted(classes.rglob("*.class")) if "invokedynamic" in call("javap", "-c", "-p", path)
    ]
    if dynamic:
        raise ValueError(
            "classes must hold no invokedynamic, which dx passes and a phone refuses: no lambda, no method reference. "
            f"Received: {', '.join(dynamic)}."
        )
    dex = folder / "classes.dex"
    call("java", "-cp", jars["dx"], "com.android.dx.command.Main", "--dex", f"--min-sdk-version={MIN_SDK}",
         f"--output={dex}", classes, *libraries)  # fmt: skip
    return dex


def write(path: Path, entries: dict[str, bytes]) -> None:
    """A zip whose bytes depend on its entries alone; what Android maps lies in it as it is."""
    with zipfile.ZipFile(path, "w") as archive:
        for name in sorted(entries):
            info = zipfile.ZipInfo(name, EPOCH)
            stored = name == "resources.arsc" or name.endswith(".tflite")
            info.compress_type = zipfile.ZIP_STORED if stored else zipfile.ZIP_DEFLATED
            info.external_attr = 0o644 << 16
            archive.writestr(info, entries[name], compresslevel=9)


def sign(path: Path, keystore: Path) -> None:
    """Signs in place, with a key that is made where there is none."""
    if not keystore.exists():
        call("keytool", "-genkeypair", "-keystore", keystore, "-storetype", "PKCS12", "-storepass", "android",
             "-alias", "key", "-keyalg", "RSA", "-keysize", "2048", "-validity", "10000",
             "-dname", "CN=tfkd bench")  # fmt: skip
    call("apksigner", "sign", "--ks", keystore, "--ks-pass", "pass:android", "--v1-signing-enabled", "false",
         "--v2-signing-enabled", "true", "--v3-signing-enabled", "true", "--min-sdk-version", MIN_SDK,
         path)  # fmt: skip


def call(*command: object) -> str:
    """Runs a tool and returns what it printed.

    Raises:
        RuntimeError: it failed; the message has its output.
    """
    done = subprocess.run([str(part) for part in command], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode:
        said = re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr).strip()
        raise RuntimeError(f"{command[0]} failed with exit status {done.returncode}:\n{said[-4000:]}")
    return done.stdout


if __name__ == "__main__":
    main()
